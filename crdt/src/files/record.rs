//! The state of a file as a record, for whoever keeps it beside the document that it was read from.
//!
//! A record is the postcard encoding of the [`FileState`]; where there are deletions beside the latest one, which is rare,
//! their list follows. A record without it is one of a file that has none.

use super::document::MAX_DELETIONS;
use super::{FileState, Trash};

/// A record that cannot be read, or a state that cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record of a file is damaged")]
pub struct RecordError;

impl FileState {
    /// The record of this state.
    ///
    /// # Errors
    /// [`RecordError`]; a state that was read from a document can be written.
    pub fn to_record(&self) -> Result<Vec<u8>, RecordError> {
        let mut bytes = postcard::to_stdvec(self).map_err(|_| RecordError)?;
        if !self.also_deleted.is_empty() {
            bytes = postcard::to_extend(&self.also_deleted, bytes).map_err(|_| RecordError)?;
        }
        Ok(bytes)
    }

    /// Reads what [`FileState::to_record`] wrote.
    ///
    /// # Errors
    /// [`RecordError`] for anything else.
    pub fn from_record(bytes: &[u8]) -> Result<FileState, RecordError> {
        let (mut state, rest) =
            postcard::take_from_bytes::<FileState>(bytes).map_err(|_| RecordError)?;
        if !rest.is_empty() {
            let (deletions, rest) =
                postcard::take_from_bytes::<Vec<Trash>>(rest).map_err(|_| RecordError)?;
            if !rest.is_empty() || deletions.is_empty() || deletions.len() >= MAX_DELETIONS {
                return Err(RecordError);
            }
            state.also_deleted = deletions;
        }
        Ok(state)
    }
}
