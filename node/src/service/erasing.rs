//! A device that was put out of the vault erases its copy: only after its name was typed, and never while it holds anything
//! that no other device is known to hold.
//!
//! The node says what it would do, stops, and erases as the last thing it does, its keys first. A mark that is durable before
//! has a start finish what a crash broke off. Files of synced folders are not the vault's copy but the person's own, and
//! stay; what is not coffer's in the data folder stays as well.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind as IoKind};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use coffer_protocol::grants::GrantBody;
use coffer_protocol::identity::WriterId;

use super::running::commit_error;
use super::{Node, status};
use crate::control::{Answer, ControlError, ErasedCopy, ErrorKind, Question, Reply, Session};
use crate::vault::Core;
use crate::vault::identity;

/// Present from the moment a copy is to go until it is gone.
const MARK: &str = "erasing";
/// What coffer makes in a data folder beside the keys, which go first, and the lock, which goes last.
const MADE: [&str; 8] = [
    "vault.redb",
    "blobs",
    "index.sqlite",
    "index.sqlite-wal",
    "index.sqlite-shm",
    "scratch",
    "coffer.log",
    "coffer.log.1",
];

/// `erase`.
pub async fn erase(node: &Arc<Node>, session: &mut Session) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let look = running.vault.inspect(look).await.map_err(commit_error)?;
    if !look.is_out {
        let message =
            "this device belongs to the vault: only one that was put out of it erases its copy";
        return Err(ControlError::conflict(message).with_code("not-revoked"));
    }
    let only = status::only_here(&running, &look.taken).await?;
    if only.changes > 0 || only.files > 0 {
        let message = format!(
            "nothing was erased: {} and {} here are not known to be anywhere else",
            told(only.changes, "change", "changes"),
            told(only.files, "file", "files"),
        );
        return Err(ControlError::conflict(message).with_code("only-here"));
    }
    let name = running.vault.device_label();
    let question = Question::EraseCopy {
        name: name.clone(),
        data_dir: node.data_dir().to_path_buf(),
    };
    match session.ask(question).await? {
        Answer::Name(typed) if typed.trim() == name => {}
        _ => {
            let message = "nothing was erased: that is not the name of this device";
            return Err(ControlError::new(ErrorKind::Refused, message));
        }
    }
    let mut folders: Vec<_> = {
        let settings = running.folders.settings.read();
        let settings = settings.unwrap_or_else(PoisonError::into_inner);
        settings.values().map(|one| one.path.clone()).collect()
    };
    folders.sort();
    let dir = node.data_dir().to_path_buf();
    let marked = tokio::task::spawn_blocking(move || mark(&dir));
    marked
        .await
        .map_err(|error| ControlError::internal(error.to_string()))?
        .map_err(|error| ControlError::io("begin to erase", &error))?;
    node.erase.store(true, Ordering::Release);
    node.stop_soon();
    Ok(Reply::CopyErased(ErasedCopy {
        name,
        data_dir: node.data_dir().to_path_buf(),
        folders,
    }))
}

fn told(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// What the core knows of this device's being out.
struct Look {
    is_out: bool,
    /// How far its logs count where it was put out: so much of them its revokers had.
    taken: BTreeMap<WriterId, u64>,
}

fn look(core: &Core) -> Look {
    let state = core.state();
    let me = core.device();
    let mut taken = BTreeMap::new();
    let outs = state.membership.former().get(&me);
    for out in outs.into_iter().flat_map(|former| &former.outs) {
        let Some(grant) = state.membership.get(&out.grant) else {
            continue;
        };
        // A recovery key is no device, and keeps nothing.
        if let GrantBody::Revoke(revocation) = &grant.value().body
            && state.membership.is_member(&out.by)
        {
            for cutoff in &revocation.cutoffs {
                let most = taken.entry(cutoff.writer).or_default();
                *most = cutoff.seq.max(*most);
            }
        }
    }
    Look {
        is_out: state.is_out_for_good(),
        taken,
    }
}

fn mark(dir: &Path) -> io::Result<()> {
    File::create(dir.join(MARK))?.sync_all()?;
    File::open(dir)?.sync_all()
}

/// Whether a copy is to go that is not gone yet.
pub(super) fn is_begun(dir: &Path) -> bool {
    dir.join(MARK).exists()
}

/// Erases what coffer has in a data folder that nothing uses any more. Whoever calls holds its lock.
///
/// # Errors
/// What could not be removed. Whatever can be is; the mark stays, and the next start tries again.
pub(super) fn finish(dir: &Path) -> io::Result<()> {
    identity::destroy(dir)?;
    let mut failed = Ok(());
    for name in MADE {
        let place = dir.join(name);
        let removed = match std::fs::symlink_metadata(&place) {
            Ok(about) if about.is_dir() => std::fs::remove_dir_all(&place),
            Ok(_) => std::fs::remove_file(&place),
            Err(error) => Err(error),
        };
        if let Err(error) = removed
            && error.kind() != IoKind::NotFound
        {
            failed = Err(error);
        }
    }
    failed?;
    File::open(dir)?.sync_all()?;
    std::fs::remove_file(dir.join(MARK))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_coffers_goes_and_what_else_lies_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        for name in ["identity", "vault.redb", "index.sqlite", "letter.txt"] {
            std::fs::write(place(name), "x").unwrap();
        }
        std::fs::create_dir_all(place("blobs/data")).unwrap();
        mark(dir.path()).unwrap();
        assert!(is_begun(dir.path()));
        finish(dir.path()).unwrap();
        assert!(!is_begun(dir.path()));
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 1);
        assert!(place("letter.txt").exists());
    }

    #[test]
    fn an_erasure_that_broke_off_is_finished_whatever_was_gone() {
        let dir = tempfile::tempdir().unwrap();
        mark(dir.path()).unwrap();
        std::fs::write(dir.path().join("vault.redb"), "x").unwrap();
        finish(dir.path()).unwrap();
        assert!(!dir.path().join("vault.redb").exists());
        assert!(!is_begun(dir.path()));
    }
}
