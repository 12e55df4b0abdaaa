//! What may be a document: its type and id, and how large it may become.

use coffer_crdt::change::ChangeHash;
use coffer_crdt::document::Document;
use coffer_protocol::log::{DOCTYPE_MAX_LEN, ID_MAX_LEN};
use serde_json::Value;

use super::purging;
use super::request::{CommitError, MAX_DOCUMENT};
use super::work::FILES;
use crate::store::documents::Row;

/// An edit is measured by what it leaves where it writes, or the document takes on the disk, more bytes than these.
/// Reading all of the document for each letter typed into a small one would cost more than the letter; what many small
/// edits can add unmeasured is bounded, for each takes room on the disk.
const MEASURED_FROM: usize = 64 << 10;

/// Checks type and id of an ordinary document.
pub(super) fn check_name(doctype: &str, id: &str) -> Result<(), CommitError> {
    if doctype == FILES {
        return Err(CommitError::Invalid(
            "files and folders are changed with the file commands, not as documents".into(),
        ));
    }
    if doctype == purging::DOCTYPE {
        return Err(CommitError::Invalid(
            "what was purged is written down by `coffer doc purge` alone".into(),
        ));
    }
    for (what, name, max) in [("type", doctype, DOCTYPE_MAX_LEN), ("id", id, ID_MAX_LEN)] {
        if name.is_empty() || name.len() > max || name.chars().any(char::is_control) {
            return Err(CommitError::Invalid(format!(
                "a document's {what} has 1 to {max} bytes and no control characters"
            )));
        }
    }
    Ok(())
}

/// Whether a value is small enough to be a document.
pub(super) fn check_size(value: &Value) -> Result<(), CommitError> {
    match json_len(value) > MAX_DOCUMENT {
        true => Err(CommitError::TooLarge),
        false => Ok(()),
    }
}

/// Whether a document that was edited, from the state at `before`, is small enough. One that is too large (others may
/// have made it so at the same time) can still be made smaller.
pub(super) fn check_edited(
    document: &Document,
    before: &[ChangeHash],
    patch: &Value,
    row: &Row,
) -> Result<(), CommitError> {
    let inline: usize = row.inline.iter().map(Vec::len).sum();
    let stored = row.base_len as usize + row.batches_len as usize + inline;
    if stored <= MEASURED_FROM && json_len(patch) <= MEASURED_FROM {
        return Ok(());
    }
    let len = json_len(&document.json());
    let grows = || {
        let before = document.json_at(before);
        before.map_or(true, |before| json_len(&before) < len)
    };
    match len > MAX_DOCUMENT && grows() {
        true => Err(CommitError::TooLarge),
        false => Ok(()),
    }
}

/// Bytes of a value as JSON text.
fn json_len(value: &Value) -> usize {
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).map_or(usize::MAX, |()| count.0)
}

/// Counts what is written to it.
struct Count(usize);

impl std::io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
