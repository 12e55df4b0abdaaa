//! `backup`: a folder with all of the vault, encrypted, and what can be done with one.
//!
//! ```text
//! gather.rs    which contents the vault keeps, and of what they are made
//! make.rs      a run: what the folder lacks is added, what is not needed any more goes
//! known.rs     which backups this device made, for `status`
//! scratch.rs   a vault put together from a folder for a moment, to read in it
//! verify.rs    is all of it whole?
//! restore.rs   files of it as they were at some run
//! recover.rs   a device gets everything from it
//! ```

mod gather;
mod known;
mod make;
mod recover;
mod restore;
mod scratch;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use known::status;
pub use make::make;
pub use recover::recover;
pub use restore::restore;
pub use verify::verify;

use super::Node;
use crate::backup::{Archive, ArchiveError, Run};
use crate::control::{BackupRun, ControlError, ErrorKind, Reply};

/// `backup list`.
pub async fn list(dir: PathBuf) -> Result<Reply, ControlError> {
    let runs = blocking(move || {
        let archive = Archive::open(&dir).map_err(archive_error)?;
        archive.runs().map_err(archive_error)
    });
    let runs = runs.await?.iter().map(row).collect();
    Ok(Reply::Backups { runs })
}

/// One of these at a time: each may take all that the disks give.
fn alone(node: &Node) -> Result<tokio::sync::MutexGuard<'_, ()>, ControlError> {
    node.backing_up.try_lock().map_err(|_| {
        ControlError::conflict("coffer is at work on a backup already").with_code("backup-running")
    })
}

async fn open(dir: &Path) -> Result<Arc<Archive>, ControlError> {
    let dir = dir.to_path_buf();
    blocking(move || Archive::open(&dir).map(Arc::new).map_err(archive_error)).await
}

fn row(run: &Run) -> BackupRun {
    BackupRun {
        run: run.number,
        at_ms: run.at_ms,
        device: run.device.to_string(),
        contents: run.contents,
        content_bytes: run.content_bytes,
        missing: run.missing,
        missing_bytes: run.missing_bytes,
        missing_earlier: run.missing_earlier,
    }
}

/// A failure of a backup's folder, for a person.
fn archive_error(error: ArchiveError) -> ControlError {
    let text = error.to_string();
    let (kind, code) = match error {
        ArchiveError::NotABackup(_) => (ErrorKind::Conflict, "not-a-backup"),
        ArchiveError::NotThere(_) => (ErrorKind::NotFound, "no-backup"),
        ArchiveError::Newer(_) => (ErrorKind::NewerVersion, "newer-backup"),
        ArchiveError::Damaged(..) => (ErrorKind::Damaged, "damaged-backup"),
        ArchiveError::OtherVault(_) => (ErrorKind::Conflict, "other-vault"),
        ArchiveError::InUse(_) => (ErrorKind::Conflict, "backup-running"),
        ArchiveError::Io { what, error } => {
            let told = ControlError::io(what, &error);
            return match told.kind {
                ErrorKind::DiskFull => told.with_code("backup-disk-full"),
                ErrorKind::Permission => told.with_code("backup-permission"),
                _ => told,
            };
        }
    };
    ControlError::new(kind, text).with_code(code)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ControlError> + Send + 'static,
) -> Result<T, ControlError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| ControlError::internal(error.to_string()))?
}

/// Tells blocking work that nobody waits for it any more, when it is dropped.
#[derive(Default)]
struct Leave(Arc<AtomicBool>);

/// Whether to stop.
#[derive(Clone)]
struct Left(Arc<AtomicBool>);

impl Leave {
    fn left(&self) -> Left {
        Left(self.0.clone())
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Left {
    fn check(&self) -> Result<(), ControlError> {
        match self.0.load(Ordering::Acquire) {
            true => Err(ControlError::new(
                ErrorKind::Cancelled,
                "the work on the backup was ended",
            )),
            false => Ok(()),
        }
    }
}
