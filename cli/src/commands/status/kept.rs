//! What stands between a person and the loss of everything, or its reading by others: kit, backup and lock.

use coffer_node::control::{BackupStatus, Status};

use crate::commands::relock::schedule;
use crate::units::{ago, count};

/// Rows of the state, by their names.
pub fn rows(state: &Status, now_ms: u64) -> Vec<(&'static str, String)> {
    let kit = state
        .rehearsed_ms
        .map(|at| ("Kit", format!("tried {}, and it worked", ago(at, now_ms))));
    let backup = state.backup.as_ref();
    let backup = backup.map(|backup| ("Backup", describe(backup, now_ms)));
    let lock = state.lock.as_ref().and_then(|lock| {
        let since = ago(lock.seen_ms?, now_ms);
        Some((
            "Lock",
            format!("changed {since}; changed {}", schedule(lock)),
        ))
    });
    kit.into_iter().chain(backup).chain(lock).collect()
}

fn describe(backup: &BackupStatus, now_ms: u64) -> String {
    let what = match (backup.everything, backup.missing) {
        (true, _) => "everything is in it".to_owned(),
        (false, 0) => "something has changed since".to_owned(),
        (false, missing) => format!(
            "the contents of {} are not in it",
            count(missing, "file", "files")
        ),
    };
    format!(
        "made {} in {}; {what}",
        ago(backup.at_ms, now_ms),
        backup.dir.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_says_whether_all_is_in_it() {
        let mut backup = BackupStatus {
            dir: "/media/stick/b".into(),
            at_ms: 0,
            everything: true,
            missing: 0,
        };
        let said = |backup: &BackupStatus| describe(backup, 2 * 60_000);
        assert_eq!(
            said(&backup),
            "made 2 minutes ago in /media/stick/b; everything is in it"
        );
        backup.everything = false;
        assert!(said(&backup).ends_with("something has changed since"));
        backup.missing = 2;
        assert!(said(&backup).ends_with("the contents of 2 files are not in it"));
    }
}
