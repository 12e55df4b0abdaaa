//! What the rest of a node may ask of the vault, and what it answers.
//!
//! A [`CommitRequest`] is all or nothing: either every operation and row in it is durable when the answer comes,
//! or none of it is there. Requests that arrive while a commit is under way share the next one.

use coffer_crdt::change::ChangeHash;
use coffer_crdt::chunks::ChunkRoot;
use coffer_crdt::files::{Content, FileId, Kind, Stamp};
use coffer_crdt::retention::VersionId;
use coffer_protocol::identity::{DeviceId, Hash};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;

use super::collect::Collect;
use super::storage::StorageChange;
use crate::blobs::placement::{ChunkRow, Placement};
use crate::blobs::{Hold, Imported};
use crate::hosts::HostChange;

/// One thing that a person or a program does to the vault. The variants' fields are what their names say.
#[derive(Clone, Debug)]
#[expect(
    missing_docs,
    reason = "each variant explains its fields where that is needed"
)]
pub enum Operation {
    /// Makes the document's JSON equal to `value` by the smallest set of changes; creates it if it is not there. `texts` are
    /// JSON pointers of fields that are text which several people may type into, beyond those of the doctype. `base` are
    /// the heads of the state that `value` was made from: what came after them stays. Without any it is the present one.
    PutDocument {
        doctype: String,
        id: String,
        value: Value,
        texts: Vec<String>,
        base: Vec<ChangeHash>,
    },
    /// Applies a JSON merge patch (RFC 7396). With `must_exist` an absent document is an error, else it is created.
    MergeDocument {
        doctype: String,
        id: String,
        patch: Value,
        texts: Vec<String>,
        base: Vec<ChangeHash>,
        must_exist: bool,
    },
    /// Deletes a document; an edit that another device makes meanwhile keeps it alive.
    DeleteDocument { doctype: String, id: String },
    /// Purges a document: nothing of it is kept anywhere, and nothing is ever taken under its type and id again.
    PurgeDocument { doctype: String, id: String },
    /// Adds a file or folder. `id` is fresh and random, chosen by the caller.
    CreateFile {
        id: FileId,
        kind: Kind,
        parent: FileId,
        name: String,
        content: Option<ContentDraft>,
        created_ms: i64,
    },
    /// Adds a copy of a content that a file has beside the one that it shows. `written` is when that was put there, and the
    /// copy's content counts as put there then: so it is known which of several it is a copy of.
    CreateCopy {
        id: FileId,
        parent: FileId,
        name: String,
        content: ContentDraft,
        written: Stamp,
        created_ms: i64,
    },
    /// Moves or renames.
    MoveFile {
        id: FileId,
        parent: FileId,
        name: String,
    },
    /// Gives a file new bytes. `replaces` is the hash of the content that whoever decided this had seen there: where
    /// another one has come meanwhile, the answer is [`CommitError::Changed`]. `None` replaces whatever is there.
    SetContent {
        id: FileId,
        content: ContentDraft,
        replaces: Option<[u8; 32]>,
    },
    /// Gives a file another modification time (milliseconds since 1970), and leaves its bytes. `of` is the hash of the
    /// content that it is for: where another one has come meanwhile, the answer is [`CommitError::Changed`].
    SetTime {
        id: FileId,
        mtime_ms: i64,
        of: [u8; 32],
    },
    /// Moves a file, or a folder with all that this device has seen in it, to the trash.
    TrashFile { id: FileId },
    /// Takes a file or folder out of the trash.
    RestoreFile { id: FileId },
    /// Purges a file or folder that is in the trash, with all that is in the trash below it: what this device has seen
    /// of it is kept nowhere any more.
    PurgeFile { id: FileId },
    /// Tags one of the contents that a file had, so that it is kept for ever; without a label, takes the tag away.
    TagFile {
        id: FileId,
        version: VersionId,
        label: Option<String>,
    },
    /// Marks a file or folder that shows as one with `into` as merged into it, so that the two stay one.
    MergeFileInto { id: FileId, into: FileId },
}

/// A file's bytes as [`crate::blobs`] imported them, before the vault gives them a stamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentDraft {
    /// Length of the plaintext in bytes.
    pub size: u64,
    /// Modification time in milliseconds since 1970.
    pub mtime_ms: i64,
    /// The owner's executable bit.
    pub executable: bool,
    /// Keyed hash over the chunk ids: equal exactly when the bytes are.
    pub hash: [u8; 32],
    /// The target of a symbolic link.
    pub target: Option<String>,
    /// Where the chunks are listed.
    pub root: ChunkRoot,
}

impl ContentDraft {
    /// What a file with this content is.
    pub fn kind(&self) -> Kind {
        match self.target {
            Some(_) => Kind::Symlink,
            None => Kind::File,
        }
    }
}

impl From<&Content> for ContentDraft {
    fn from(content: &Content) -> Self {
        ContentDraft {
            size: content.size,
            mtime_ms: content.mtime_ms,
            executable: content.executable,
            hash: content.hash,
            target: content.target.clone(),
            root: content.root.clone(),
        }
    }
}

impl From<&Imported> for ContentDraft {
    fn from(imported: &Imported) -> Self {
        ContentDraft {
            size: imported.size,
            mtime_ms: imported.mtime_ms(),
            executable: imported.executable,
            hash: imported.hash,
            target: None,
            root: imported.root.clone(),
        }
    }
}

/// A row of a synced folder's state: what file `file` looked like on disk when disk and vault last agreed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderRow {
    /// The parent's file id in the vault as applied on disk.
    pub parent: [u8; 16],
    /// The name on disk.
    pub name: String,
    /// 0 file, 1 folder, 2 symbolic link.
    pub kind: u8,
    /// Inode number.
    pub inode: u64,
    /// Length in bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i128,
    /// Change time in nanoseconds since 1970.
    pub ctime_ns: i128,
    /// The owner's executable bit.
    pub executable: bool,
    /// Content hash (as in [`ContentDraft::hash`]) that the disk held; zeros for folders.
    pub hash: [u8; 32],
}

/// Why the brake of a synced folder holds a file, and what bringing it back takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BrakedFile {
    /// It is gone from the disk; the vault was not told.
    Gone,
    /// It has other bytes on disk; the vault was not told.
    Changed,
    /// Its deletion was recorded shortly before the brake took hold: it is in the trash.
    Deleted,
    /// Its new bytes, or the new name that it got with them, were recorded shortly before the brake took hold.
    Rewritten {
        /// Content hash before, if new bytes were.
        before: Option<[u8; 32]>,
        /// Its folder and name before, if a new name was.
        place: Option<([u8; 16], String)>,
    },
}

/// A folder of this machine that is kept in sync with a folder of the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderSetting {
    /// Absolute path of this machine.
    pub path: PathBuf,
    /// The folder in the vault.
    pub folder: FileId,
}

/// What a file of a synced folder no longer holds. Void if its row has changed since that was found out.
#[derive(Clone, Debug)]
pub struct Left {
    /// The folder's number.
    pub folder: u32,
    /// The file.
    pub file: FileId,
    /// The content hash that its row has; none where it has no row.
    pub now: Option<[u8; 32]>,
    /// The blobs.
    pub blobs: Vec<Hash>,
}

/// Changes to make in one durable step.
#[derive(Clone, Debug, Default)]
pub struct CommitRequest {
    /// Operations, in order; later ones see earlier ones.
    pub operations: Vec<Operation>,
    /// Places where the bytes of blobs now are; they join those known before.
    pub placements: Vec<(Hash, Placement)>,
    /// Places where they are no longer.
    pub displaced: Vec<(Hash, Placement)>,
    /// Chunk ids now held, so that equal data is named again and not sealed again.
    pub chunks: Vec<(Hash, ChunkRow)>,
    /// Folder state: (folder number, file, row or removal).
    pub folder_rows: Vec<(u32, FileId, Option<FolderRow>)>,
    /// Files that a synced folder's brake holds: (folder number, file, why or no longer).
    pub folder_brakes: Vec<(u32, FileId, Option<BrakedFile>)>,
    /// Files whose present content (by its hash) is now held whole and durable here.
    pub held: Vec<(FileId, [u8; 32])>,
    /// Where devices were reached: replaces what was known.
    pub addresses: Vec<(DeviceId, Vec<String>)>,
    /// Synced folders of this device: (number, setting or removal). Removing one also removes its rows.
    pub folders: Vec<(u32, Option<FolderSetting>)>,
    /// A person has confirmed the recovery words: forget them.
    pub forget_recovery: bool,
    /// The index has all up to this transaction durably: its feed rows can go.
    pub prune_feed: Option<u64>,
    /// Files to look at again: are all their bytes here?
    pub recheck: Vec<FileId>,
    /// Look at every file again whose list of chunks is in its document: places of bytes were found wrong. Of others the
    /// vault cannot tell: those that lack bytes are to be named in [`CommitRequest::recheck`].
    pub recheck_all: bool,
    /// What keeps the blobs that this names from being freed until it is durable.
    pub holds: Vec<Hold>,
    /// What the collector wants done.
    pub collect: Option<Box<Collect>>,
    /// Files whose bytes need not be fetched: they are in the trash.
    pub unwanted: Vec<FileId>,
    /// Documents (doctype, id) to be looked at anew, and put together again where they cannot be read.
    pub mend: Vec<(String, String)>,
    /// Settings of this device: (name in [`crate::store::tables::meta`], value).
    pub meta: Vec<(&'static str, Vec<u8>)>,
    /// What this device keeps.
    pub storage: Vec<StorageChange>,
    /// Synced folders that are not there now, stopped or rest, or do so no longer: (number, whether it is away). Not
    /// durable.
    pub folders_away: Vec<(u32, bool)>,
    /// Blobs that files of synced folders no longer hold.
    pub left: Vec<Left>,
    /// What is known of relay hosts.
    pub hosts: Vec<HostChange>,
}

/// What became of a request.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// Number of the durable transaction; the index can be awaited up to it.
    pub transaction: u64,
    /// Documents that were created or changed, (doctype, id), in the order of the operations; unchanged ones are left out.
    pub changed: Vec<(String, String)>,
    /// For each operation, the heads that the document stands at right after it; none where nothing was different, and
    /// for files.
    pub revisions: Vec<Vec<ChangeHash>>,
    /// For [`CommitRequest::collect`]: the blobs that have no places any more; `None` where too much had changed.
    pub collected: Option<Vec<Hash>>,
}

/// The largest document accepted, in bytes of JSON text: one that every device can load.
pub const MAX_DOCUMENT: usize = 4 << 20;

/// Why a request was not carried out. Nothing of it is there.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// The document or file named is not in the vault.
    #[error("{0} is not in this vault")]
    NotFound(String),
    /// A value, name or id that cannot be stored.
    #[error("{0}")]
    Invalid(String),
    /// A document that would be larger than [`MAX_DOCUMENT`].
    #[error("a document may have {} MiB as JSON", MAX_DOCUMENT >> 20)]
    TooLarge,
    /// Another item already has this place.
    #[error("{0} already exists")]
    Exists(String),
    /// The document was purged: nothing is kept under its type and id.
    #[error("{0} was purged, so nothing can be kept under its type and id")]
    Purged(String),
    /// What was to be replaced is not there any more: something newer is.
    #[error("{0} was changed meanwhile")]
    Changed(String),
    /// It was worked out from a state that has changed since.
    #[error("the vault changed meanwhile")]
    Meanwhile,
    /// This device was put out of the vault.
    #[error("this device is not in the vault any more, so nothing can be written here")]
    PutOut,
    /// This device may only read.
    #[error("this device may read the vault, not change it")]
    ReadOnly,
    /// A device was revoked, and there is no key yet that it does not know.
    #[error(
        "a device was revoked and the vault's key is being changed: an owner device has to be reached before this one can write again"
    )]
    NoKey,
    /// The disk is full.
    #[error("the disk is full")]
    DiskFull,
    /// Reading or writing the data folder failed.
    #[error("the data folder could not be read or written: {0}")]
    Storage(String),
    /// The vault is shutting down.
    #[error("the vault is stopping")]
    Stopping,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Table `folder_brakes_1`.
    #[test]
    fn what_a_brake_holds_is_encoded_as_it_always_was() {
        let rewritten = BrakedFile::Rewritten {
            before: Some([7; 32]),
            place: Some(([9; 16], "a".into())),
        };
        for (held, bytes) in [
            (BrakedFile::Gone, "00".to_owned()),
            (BrakedFile::Changed, "01".to_owned()),
            (BrakedFile::Deleted, "02".to_owned()),
            (
                rewritten,
                format!("0301{}01{}0161", "07".repeat(32), "09".repeat(16)),
            ),
        ] {
            assert_eq!(hex::encode(postcard::to_stdvec(&held).unwrap()), bytes);
            let bytes = hex::decode(bytes).unwrap();
            assert_eq!(postcard::from_bytes::<BrakedFile>(&bytes).unwrap(), held);
        }
    }
}
