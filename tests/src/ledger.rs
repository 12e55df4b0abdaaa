//! What was acknowledged to somebody, and so must be in effect for ever.

use std::collections::{BTreeMap, BTreeSet};

use coffer_crdt::change::ChangeHash;
use coffer_crdt::files::FileId;

/// Changes that a replica acknowledged, by document.
pub type Acknowledged = BTreeMap<(String, String), BTreeSet<ChangeHash>>;

/// A character that somebody typed into a text: each is typed once in a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Typed {
    /// Its typing was acknowledged.
    pub acknowledged: bool,
    /// Somebody set out to erase it.
    pub erasing: bool,
    /// Its erasing was acknowledged.
    pub erased: bool,
}

/// The fleet's book.
#[derive(Default)]
pub struct Ledger {
    /// By document id of a typed text: its characters.
    pub typed: BTreeMap<String, BTreeMap<char, Typed>>,
    /// Files whose making was acknowledged.
    pub files: BTreeSet<FileId>,
    /// Documents that somebody set out to purge.
    pub purging: BTreeSet<(String, String)>,
    /// Files and folders that somebody set out to move to the trash.
    pub trashing: BTreeSet<FileId>,
    /// Files that somebody set out to merge into others.
    pub merging: BTreeSet<FileId>,
    next_char: u32,
}

impl Ledger {
    /// A character that was never typed before.
    pub fn fresh_char(&mut self) -> char {
        self.next_char += 1;
        char::from_u32(0x4e00 + self.next_char).unwrap_or('?')
    }
}
