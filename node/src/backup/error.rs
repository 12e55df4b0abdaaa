//! Why a backup could not be read or written.

use std::io;
use std::path::PathBuf;

/// What failed.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It holds something, and that is no backup.
    #[error("{0} is not empty and is no backup")]
    NotABackup(PathBuf),
    /// There is nothing.
    #[error("there is no backup in {0}")]
    NotThere(PathBuf),
    /// Made by a later program.
    #[error("the backup in {0} was made by a newer coffer")]
    Newer(PathBuf),
    /// Nothing in it can be read.
    #[error("the backup in {0} is damaged: {1}")]
    Damaged(PathBuf, &'static str),
    /// Of another vault.
    #[error("the backup in {0} is of another vault")]
    OtherVault(PathBuf),
    /// Somebody else writes it.
    #[error("another coffer is writing the backup in {0}")]
    InUse(PathBuf),
    /// The system refused.
    #[error("cannot {what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        error: io::Error,
    },
}

impl ArchiveError {
    /// For `map_err`.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> ArchiveError {
        let what = what.into();
        move |error| ArchiveError::Io { what, error }
    }
}
