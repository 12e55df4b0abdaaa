//! The registers of a file document, and their bytes.
//!
//! A register's value is one version byte and the postcard encoding of the type, in the one way that postcard writes
//! it: bytes that decode but encode differently are refused, so that a value has one spelling everywhere. Every
//! length is bounded. What a device of a later version wrote is reported as such and never guessed at.
//!
//! A name that no file system takes is *not* refused here: another program may have written it, and a file must not
//! vanish for its name. [`super::names`] shows it under a safe one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Actor, Dot, FileId, FileState, Kind, Stamp};
use crate::chunks::{ChunkRoot, MAX_CHUNK};

/// The longest name that is read, in bytes; longer than any that may be written (255), for other programs' sake.
pub const MAX_FOREIGN_NAME_BYTES: usize = 4096;

/// The longest device label, in bytes.
pub const MAX_LABEL_BYTES: usize = 256;

/// The longest target of a symbolic link, in bytes (Linux's PATH_MAX).
pub const MAX_TARGET_BYTES: usize = 4096;

/// The most writers that a deleter's clock may name: 24 bytes each, so that the register stays under 100 KiB.
pub const MAX_CLOCK_WRITERS: usize = 4096;

/// Why the value of a register cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The bytes end early, go on too long, or are not the one way to write their value.
    #[error("the field {0:?} is damaged")]
    Damaged(&'static str),
    /// Written by a later version of coffer.
    #[error(
        "the field {field:?} has version {version}, which this version of coffer does not know"
    )]
    Newer {
        /// The root key of the document.
        field: &'static str,
        /// The version byte found.
        version: u8,
    },
    /// A length or number is beyond its bound.
    #[error("the field {field:?} is out of bounds: {what}")]
    OutOfBounds {
        /// The root key of the document.
        field: &'static str,
        /// What is too long, or does not fit together.
        what: &'static str,
    },
}

/// Where a file stands: the register `place`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The folder, [`FileId::ROOT`] for the top.
    pub parent: FileId,
    /// The name within the folder; see [`super::names`] for what it may be.
    pub name: String,
    /// When it was put there.
    pub stamp: Stamp,
    /// The entry that put it there.
    pub dot: Dot,
    /// What its owner calls the device that put it there: conflict names show it. Up to [`MAX_LABEL_BYTES`].
    pub label: String,
    /// The folder that it stood in before the last move to another folder: where it falls back to when moves on
    /// several devices made a cycle. The parent itself for a file that never moved.
    pub previous: FileId,
}

/// What a file or symbolic link holds: the register `content`. Folders have none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Bytes of the file; for a symbolic link the length of its target.
    pub size: u64,
    /// Milliseconds since 1970 (UTC) when the bytes were last modified, by the file system that they came from.
    pub mtime_ms: i64,
    /// Whether the file may be executed by its owner.
    pub executable: bool,
    /// Keyed hash over the ids of the chunks (for a symbolic link: over its target): equal within a space if and only
    /// if the bytes are equal.
    pub hash: [u8; 32],
    /// Where a symbolic link points, up to [`MAX_TARGET_BYTES`]; `None` for a file.
    pub target: Option<String>,
    /// Where the bytes are; an empty list for a symbolic link.
    pub root: ChunkRoot,
    /// When this content was put there.
    pub stamp: Stamp,
    /// The entry that put it there.
    pub dot: Dot,
}

/// That a file or folder was moved to the trash, or taken out of it: the register `trash`.
///
/// Only what the deleter had seen goes: a value whose dot the clock does not cover stays visible, in the file itself
/// and, for a folder, in everything below it. Taking out of the trash is a later value with an empty clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trash {
    /// What the deleter had seen: writer → number of that writer's last entry. It includes the deleter's own writer,
    /// up to the entry before the deletion (or the deletion's own, if the same entry holds earlier changes).
    pub clock: BTreeMap<Actor, u64>,
    /// When it was deleted or restored.
    pub stamp: Stamp,
    /// The entry that did so.
    pub dot: Dot,
}

/// That a file or folder was shown as one with another, and a person's operation made the two one for good:
/// the register `merged_into`.
///
/// It holds for exactly the values that the operation saw. A move or an edit that comes from elsewhere makes it void,
/// so that nothing is hidden that nobody has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergedInto {
    /// The file or folder that stands for both.
    pub into: FileId,
    /// The dot of this file's place at the time.
    pub place: Dot,
    /// The dot of this file's content at the time.
    pub content: Option<Dot>,
    /// When they were merged.
    pub stamp: Stamp,
    /// The entry that did so.
    pub dot: Dot,
}

impl Place {
    /// The place of a new file or folder.
    pub fn new(
        parent: FileId,
        name: impl Into<String>,
        stamp: Stamp,
        dot: Dot,
        label: impl Into<String>,
    ) -> Place {
        Place {
            parent,
            name: name.into(),
            stamp,
            dot,
            label: cut_label(label.into()),
            previous: parent,
        }
    }

    /// The place after a move or renaming of what stands here: remembers the folder that it leaves.
    pub fn moved(
        &self,
        parent: FileId,
        name: impl Into<String>,
        stamp: Stamp,
        dot: Dot,
        label: &str,
    ) -> Place {
        let previous = if parent == self.parent {
            self.previous
        } else {
            self.parent
        };
        Place {
            parent,
            name: name.into(),
            stamp,
            dot,
            label: cut_label(label.to_owned()),
            previous,
        }
    }
}

impl Trash {
    /// The value that takes something out of the trash.
    pub fn restored(stamp: Stamp, dot: Dot) -> Trash {
        Trash {
            clock: BTreeMap::new(),
            stamp,
            dot,
        }
    }

    /// Whether this value takes out of the trash rather than put in.
    pub fn is_restored(&self) -> bool {
        self.clock.is_empty()
    }

    /// Whether the deleter had seen what was written with that dot.
    pub fn covers(&self, dot: Dot) -> bool {
        self.clock
            .get(&dot.writer)
            .is_some_and(|&seen| dot.seq <= seen)
    }
}

impl MergedInto {
    /// Merges a file in its present state into another.
    pub fn of(state: &FileState, into: FileId, stamp: Stamp, dot: Dot) -> MergedInto {
        let content = state.content.as_ref().map(|content| content.dot);
        MergedInto {
            into,
            place: state.place.dot,
            content,
            stamp,
            dot,
        }
    }
}

/// A value that is replaced as a whole and lives under one root key of a file document.
pub(super) trait Register: Serialize + DeserializeOwned {
    /// The root key.
    const FIELD: &'static str;
    /// The version byte that is written, and the only one that is read.
    const VERSION: u8 = 1;
    /// The largest encoding, in bytes: more is refused before it is parsed.
    const MAX_BYTES: usize;

    /// What is out of bounds, if anything.
    fn flaw(&self) -> Option<&'static str>;

    /// The bytes of this value.
    fn encode(&self) -> Result<Vec<u8>, RegisterError> {
        if let Some(what) = self.flaw() {
            return Err(RegisterError::OutOfBounds {
                field: Self::FIELD,
                what,
            });
        }
        postcard::to_stdvec(&(Self::VERSION, self)).map_err(|_| RegisterError::Damaged(Self::FIELD))
    }

    /// Reads what [`Register::encode`] wrote, and only that.
    fn decode(bytes: &[u8]) -> Result<Self, RegisterError> {
        let damaged = RegisterError::Damaged(Self::FIELD);
        let Some((&version, body)) = bytes.split_first() else {
            return Err(damaged);
        };
        if version > Self::VERSION {
            return Err(RegisterError::Newer {
                field: Self::FIELD,
                version,
            });
        }
        if version == 0 || bytes.len() > Self::MAX_BYTES {
            return Err(damaged);
        }
        let Ok(value) = postcard::from_bytes::<Self>(body) else {
            return Err(damaged);
        };
        if value.encode()? != bytes {
            return Err(damaged);
        }
        Ok(value)
    }
}

impl Register for Kind {
    const FIELD: &'static str = "type";
    const MAX_BYTES: usize = 8;

    fn flaw(&self) -> Option<&'static str> {
        None
    }
}

/// When a file or folder was made, in milliseconds since 1970 (UTC): the register `created_at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct CreatedAt(pub i64);

impl Register for CreatedAt {
    const FIELD: &'static str = "created_at";
    const MAX_BYTES: usize = 16;

    fn flaw(&self) -> Option<&'static str> {
        None
    }
}

impl Register for Place {
    const FIELD: &'static str = "place";
    const MAX_BYTES: usize = MAX_FOREIGN_NAME_BYTES + MAX_LABEL_BYTES + 128;

    fn flaw(&self) -> Option<&'static str> {
        if self.name.len() > MAX_FOREIGN_NAME_BYTES {
            Some("the name is too long")
        } else if self.label.len() > MAX_LABEL_BYTES {
            Some("the label of the device is too long")
        } else {
            None
        }
    }
}

impl Register for Content {
    const FIELD: &'static str = "content";
    const MAX_BYTES: usize = MAX_TARGET_BYTES + 4096 + crate::chunks::MAX_LIST_EPOCHS * 32;

    fn flaw(&self) -> Option<&'static str> {
        if self.root.check().is_err() {
            return Some("the chunk list is not sound");
        }
        match (&self.target, &self.root) {
            (Some(target), _) if target.len() > MAX_TARGET_BYTES => {
                Some("the target of the link is too long")
            }
            (Some(target), ChunkRoot::Inline(list))
                if list.is_empty() && self.size == target.len() as u64 =>
            {
                None
            }
            (Some(_), _) => Some("a link has no bytes but its target"),
            (None, ChunkRoot::Inline(list)) if list.len_bytes() == self.size => None,
            (None, ChunkRoot::Inline(_)) => Some("the size is not that of the chunks"),
            (None, ChunkRoot::Indirect { .. }) if self.size > u64::from(MAX_CHUNK) * (1 << 20) => {
                Some("the file is too large")
            }
            (None, ChunkRoot::Indirect { .. }) => None,
        }
    }
}

impl Register for Trash {
    const FIELD: &'static str = "trash";
    const MAX_BYTES: usize = MAX_CLOCK_WRITERS * 26 + 64;

    fn flaw(&self) -> Option<&'static str> {
        (self.clock.len() > MAX_CLOCK_WRITERS).then_some("the clock names too many writers")
    }
}

impl Register for MergedInto {
    const FIELD: &'static str = "merged_into";
    const MAX_BYTES: usize = 128;

    fn flaw(&self) -> Option<&'static str> {
        None
    }
}

/// Cuts a device's label to [`MAX_LABEL_BYTES`] at a character boundary.
fn cut_label(mut label: String) -> String {
    label.truncate(label.floor_char_boundary(MAX_LABEL_BYTES));
    label
}
