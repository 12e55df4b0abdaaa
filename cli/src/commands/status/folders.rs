//! A folder that is kept in sync, as a person reads it.

use std::fmt::Write;

use coffer_node::control::{FolderBrake, FolderState, FolderStatus};

use crate::output::shown;
use crate::places::quoted;
use crate::units::{bytes, count, number};

/// Conflict copies and errors listed of each folder; `folder list` shows more.
const LISTED: usize = 5;

/// One folder, with what needs attention.
pub fn describe_folder(text: &mut String, folder: &FolderStatus) {
    let state = match &folder.state {
        FolderState::Scanning => "looking through it".to_owned(),
        FolderState::Working => format!(
            "{} to record, {} to write",
            number(folder.to_record),
            number(folder.to_write)
        ),
        FolderState::InSync => "up to date".to_owned(),
        FolderState::NotThere => {
            "the folder is not there; nothing is changed until it is back (if it is gone for good: coffer folder remove)".to_owned()
        }
        FolderState::Braked => "resting".to_owned(),
        FolderState::Stopped { reason } => format!("stopped: {}", shown(reason)),
    };
    let to = if folder.to.is_empty() {
        "/"
    } else {
        &folder.to
    };
    let _ = writeln!(
        text,
        "  {} <-> {}{}: {state}; {} ({})",
        shown(&folder.dir.display().to_string()),
        shown(to),
        if folder.in_trash {
            " (in the trash)"
        } else {
            ""
        },
        count(folder.files, "file", "files"),
        bytes(folder.bytes)
    );
    if let Some(brake) = &folder.brake {
        describe_brake(text, brake, &quoted(&folder.dir));
    }
    for issue in folder.errors.iter().take(LISTED) {
        let _ = writeln!(
            text,
            "    could not: {}: {}",
            shown(&issue.path),
            shown(&issue.text)
        );
    }
    more(text, folder.error_count, folder.errors.len());
    for path in folder.conflicts.iter().take(LISTED) {
        let _ = writeln!(text, "    conflict copy: {}", shown(path));
    }
    more(text, folder.conflict_count, folder.conflicts.len());
}

/// What a resting folder waits for, and the two ways on.
fn describe_brake(text: &mut String, brake: &FolderBrake, dir: &str) {
    if brake.gone > 0 {
        let gone = count(brake.gone, "file", "files");
        let _ = writeln!(text, "    {gone} disappeared at once");
    }
    if brake.rewritten > 0 {
        let rewritten = count(brake.rewritten, "file", "files");
        let _ = writeln!(text, "    {rewritten} rewritten at once");
    }
    let names = brake.names.iter().take(LISTED);
    for name in names {
        let _ = writeln!(text, "      {}", shown(name));
    }
    more(
        text,
        brake.gone + brake.rewritten,
        brake.names.len().min(LISTED),
    );
    let dir = shown(dir);
    let _ = writeln!(text, "    meant: coffer folder confirm {dir}");
    let _ = writeln!(text, "    not meant: coffer folder undo {dir}");
}

fn more(text: &mut String, all: u64, listed: usize) {
    let left = all.saturating_sub(listed.min(LISTED) as u64);
    if left > 0 {
        let _ = writeln!(text, "    and {} more", number(left));
    }
}

#[cfg(test)]
mod tests {
    use super::super::words::tests::state;
    use super::*;

    #[test]
    fn a_resting_folder_says_what_it_is_about_and_the_ways_out() {
        let mut folder = state().folders.remove(0);
        folder.state = FolderState::Braked;
        folder.dir = "/home/ann/My files".into();
        folder.brake = Some(FolderBrake {
            gone: 30,
            rewritten: 0,
            names: (0..20).map(|n| format!("{n}.txt")).collect(),
        });
        let mut text = String::new();
        describe_folder(&mut text, &folder);
        for line in [
            "resting",
            "30 files disappeared at once",
            "      4.txt\n    and 25 more",
            "coffer folder confirm '/home/ann/My files'",
            "coffer folder undo '/home/ann/My files'",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
