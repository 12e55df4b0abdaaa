//! Why a pass over a synced folder ends early.

use super::FolderError;
use crate::vault::CommitError;

/// Why a pass ended early.
#[derive(Debug)]
pub(super) enum Halt {
    /// The engine is being stopped.
    Stop,
    /// The folder, or its marker, is not there.
    Missing(String),
    /// It cannot go on until something outside of it changes.
    Failed(String),
}

impl From<FolderError> for Halt {
    fn from(error: FolderError) -> Halt {
        match error {
            FolderError::Missing(_) | FolderError::Unmarked(_) => Halt::Missing(error.to_string()),
            error => Halt::Failed(error.to_string()),
        }
    }
}

impl From<CommitError> for Halt {
    fn from(error: CommitError) -> Halt {
        match error {
            CommitError::Stopping => Halt::Stop,
            error => Halt::Failed(error.to_string()),
        }
    }
}
