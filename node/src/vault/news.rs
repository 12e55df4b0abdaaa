//! How files differ from before, for those who follow along.

use coffer_crdt::files::{Content, FileId, FileState};
use coffer_crdt::tree::{ContentBrief, Known};

/// A file that was touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileNews {
    /// Which.
    pub id: FileId,
    /// How it differs from before.
    pub change: FileChange,
    /// Whether its content counted as not here after that.
    pub wanted: bool,
}

/// How a file differs from before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileChange {
    /// It is new.
    Added,
    /// Its bytes are others.
    Changed,
    /// It stands elsewhere or has another name.
    Moved,
    /// It went to the trash.
    Deleted,
    /// It came back from there.
    Restored,
    /// None of that: something was noted of it, such as a tag, or a content that lost.
    Noted,
}

impl FileChange {
    /// From what the tree knew to what it knows.
    pub(super) fn between(before: Option<&Known<'_>>, after: &FileState) -> FileChange {
        let Some(before) = before else {
            return FileChange::Added;
        };
        let was_deleted = before.trash.is_some_and(|trash| !trash.is_restored());
        let is_deleted = after
            .trash
            .as_ref()
            .is_some_and(|trash| !trash.is_restored());
        match (was_deleted, is_deleted) {
            (false, true) => FileChange::Deleted,
            (true, false) => FileChange::Restored,
            _ if before.place != after.place => FileChange::Moved,
            _ if is_same(before.content, after.content.as_ref()) => FileChange::Noted,
            _ => FileChange::Changed,
        }
    }
}

/// Whether a content and its time are what they were.
fn is_same(before: Option<&ContentBrief>, after: Option<&Content>) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => before.dot == after.dot && before.mtime_ms == after.mtime_ms,
        (before, after) => before.is_none() && after.is_none(),
    }
}
