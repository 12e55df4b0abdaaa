//! That a file's modification time was changed and its bytes were not: the register `times`.
//!
//! The time that a content came with stands in the content itself. A later change of the time alone is a register of its
//! own, so that it never takes the place of bytes that somebody writes elsewhere meanwhile. It holds for exactly the
//! content that it was set for; of any other it says nothing. Whoever reads a file gets its content with the time that
//! counts.

use serde::{Deserialize, Serialize};

use super::document::{Stamped, sound_values};
use super::registers::Register;
use super::{Content, Dot, Stamp};
use crate::retention::VersionId;
use crate::{Document, ScalarValue};

/// A modification time that was set to a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// Milliseconds since 1970 (UTC).
    pub mtime_ms: i64,
    /// The content that it was set to.
    pub content: VersionId,
    /// When it was set.
    pub stamp: Stamp,
    /// The entry that did so.
    pub dot: Dot,
}

impl Register for Times {
    const FIELD: &'static str = "times";
    const MAX_BYTES: usize = 128;

    fn flaw(&self) -> Option<&'static str> {
        None
    }
}

impl Stamped for Times {
    fn stamp(&self) -> (Stamp, Dot) {
        (self.stamp, self.dot)
    }
}

impl Times {
    /// The time that counts among these for a content: the one set last of those that were set to it.
    pub fn among<'a>(all: impl IntoIterator<Item = &'a Times>, content: &Content) -> Option<i64> {
        let version = content.version();
        let own = all.into_iter().filter(|times| times.content == version);
        own.max_by_key(|times| (times.stamp, times.dot, times.mtime_ms))
            .map(|times| times.mtime_ms)
    }
}

/// The times that were set to contents of a file, as far as they can be read: a new one must be stamped after them.
pub fn times(document: &Document) -> Vec<Times> {
    read(&document.get_all_scalars(Times::FIELD))
}

/// Gives a content the time that was set to it, if any was. A time that cannot be read is passed over: it is not worth
/// the file.
pub(super) fn set_in(values: &[ScalarValue], content: &mut Content) {
    if let Some(mtime_ms) = Times::among(&read(values), content) {
        content.mtime_ms = mtime_ms;
    }
}

fn read(values: &[ScalarValue]) -> Vec<Times> {
    let each = values.iter();
    each.filter_map(|value| sound_values(std::slice::from_ref(value)).ok())
        .flatten()
        .map(|(times, _)| times)
        .collect()
}
