//! Files and folders as documents.
//!
//! A file, folder or symbolic link is a document of doctype `io.cozy.files` whose root fields are **registers**: each
//! is one scalar of bytes that is replaced as a whole. Where it stands is the register [`Place`], what it holds is
//! [`Content`]; [`Trash`] and [`MergedInto`] say what a person did with it. Of several concurrent values of a register
//! the one with the greatest (stamp, writer) counts: time decides, as people expect, not Automerge's operation counters.
//!
//! ```text
//! stamp.rs      hybrid logical clock, dots
//! names.rs      which names a file may have, and how those are shown that it may not
//! conflict_names.rs  names of conflict copies: made and read
//! registers.rs  the registers and their bytes
//! date.rs       dates as text
//! times.rs      times that were changed without the bytes
//! lasting.rs    tags of contents, and what goes from the trash for good
//! document.rs   registers <-> documents: first change, read, edit, history of contents, JSON
//! record.rs     what was read from a document, for whoever keeps it beside that
//! ```
//!
//! What the registers of all files together look like as a tree of folders is [`crate::tree`]'s business.
//! Layouts: docs/protocol/files.md.

pub mod conflict_names;
pub mod date;
pub mod document;
pub mod lasting;
pub mod names;
pub mod record;
pub mod registers;
pub mod stamp;
#[cfg(test)]
mod tests;
pub mod times;

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

pub use crate::change::Actor;
pub use conflict_names::{ConflictMark, conflict_name};
pub use document::{
    FileError, FilePatch, FileState, contents, edit, first_change, inspect_first, read, read_first,
    rivals, to_json,
};
pub use lasting::{Purge, Tag};
pub use names::{MAX_NAME_BYTES, NameError, check_name};
pub use registers::{Content, MergedInto, Place, RegisterError, Trash};
pub use stamp::{Dot, Hlc, MAX_SKEW_MS, Stamp};
pub use times::Times;

/// The doctype of the documents of this module.
pub const DOCTYPE: &str = "io.cozy.files";

/// The id of a file document: 16 random bytes, written as 32 lower-case hexadecimal digits where a document id is text.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileId(pub [u8; 16]);

impl FileId {
    /// The folder in which everything stands. It has no document, cannot be moved or deleted, and has an empty name.
    pub const ROOT: FileId = FileId([0; 16]);
}

impl fmt::Display for FileId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "FileId({})", hex::encode(&self.0[..4]))
    }
}

/// A text that is no [`FileId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a file: 32 lower-case hexadecimal digits were expected")]
pub struct FileIdError;

impl FromStr for FileId {
    type Err = FileIdError;

    /// Reads exactly what `Display` writes: upper-case digits are refused, so that an id has one spelling.
    fn from_str(text: &str) -> Result<FileId, FileIdError> {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(FileIdError);
        }
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id).map_err(|_| FileIdError)?;
        Ok(FileId(id))
    }
}

/// What a file document stands for. It is written once, in the first change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link, whose target is in its [`Content`].
    Symlink,
}
