//! The kinds of things that a person does in the simulation, and how often each.

use rand::{Rng, RngExt};

/// Every operation with its weight; none is zero.
pub const WEIGHTS: [(Act, u32); 21] = [
    (Act::Put, 8),
    (Act::MergeFields, 10),
    (Act::Type, 14),
    (Act::Erase, 3),
    (Act::Delete, 4),
    (Act::Purge, 3),
    (Act::Large, 2),
    (Act::CreateFolder, 5),
    (Act::CreateFile, 8),
    (Act::CreateLink, 2),
    (Act::Move, 12),
    (Act::Rename, 5),
    (Act::Content, 8),
    (Act::Trash, 5),
    (Act::Restore, 5),
    (Act::Merge, 3),
    (Act::Batch, 4),
    (Act::Arrived, 10),
    (Act::Displaced, 1),
    (Act::Refused, 3),
    (Act::PruneFeed, 1),
];

/// One kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// Puts a whole document.
    Put,
    /// Merges some fields into a document.
    MergeFields,
    /// Types a character into a text.
    Type,
    /// Erases a character of a text.
    Erase,
    /// Deletes a document.
    Delete,
    /// Purges a document.
    Purge,
    /// Puts much into one document, so that its past is folded.
    Large,
    /// Makes a folder.
    CreateFolder,
    /// Makes a file.
    CreateFile,
    /// Makes a symbolic link.
    CreateLink,
    /// Moves a file or folder into another folder.
    Move,
    /// Gives a file or folder a name that others have too.
    Rename,
    /// Gives a file other bytes.
    Content,
    /// Moves a file or folder to the trash.
    Trash,
    /// Takes it out again.
    Restore,
    /// Makes those that show as one one for good.
    Merge,
    /// Several of these in one request.
    Batch,
    /// Bytes of a file have arrived.
    Arrived,
    /// Bytes of a file are gone; they are looked for again.
    Displaced,
    /// Something that must be refused, and nothing of its request be done.
    Refused,
    /// The index has caught up.
    PruneFeed,
}

impl Act {
    /// Its name in the coverage.
    pub fn name(self) -> &'static str {
        match self {
            Act::Put => "put",
            Act::MergeFields => "merge fields",
            Act::Type => "type",
            Act::Erase => "erase",
            Act::Delete => "delete",
            Act::Purge => "purge",
            Act::Large => "large put",
            Act::CreateFolder => "create folder",
            Act::CreateFile => "create file",
            Act::CreateLink => "create link",
            Act::Move => "move",
            Act::Rename => "rename",
            Act::Content => "content",
            Act::Trash => "trash",
            Act::Restore => "restore",
            Act::Merge => "merge",
            Act::Batch => "batch",
            Act::Arrived => "bytes arrived",
            Act::Displaced => "bytes displaced",
            Act::Refused => "refused",
            Act::PruneFeed => "prune feed",
        }
    }

    /// A random one.
    pub fn draw(rng: &mut impl Rng) -> Act {
        let total: u32 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let mut at = rng.random_range(0..total);
        for (act, weight) in WEIGHTS {
            if at < weight {
                return act;
            }
            at -= weight;
        }
        Act::Put
    }
}
