//! What people wrote, what they gave up, and what may be gone for other reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::super::cloud::content_hash;
use super::disk::VirtualDisk;

/// Bytes that are being written, in a file that is still open.
pub struct Slow {
    pub disk: Arc<VirtualDisk>,
    pub ino: u64,
    pub born: u64,
    pub whole: Vec<u8>,
}

/// What people did.
#[derive(Default)]
pub struct Ledger {
    serial: u64,
    /// Contents that somebody wrote whole.
    pub written: BTreeSet<Arc<Vec<u8>>>,
    /// Contents that somebody deleted or overwrote where they saw them.
    pub given_up: BTreeSet<Arc<Vec<u8>>>,
    /// Hashes of contents that somebody gave up in the vault itself, where nobody sees bytes: halves of something, that a loss
    /// of power left, which may come back to the folder as something whole.
    given_up_unread: BTreeSet<[u8; 32]>,
    /// Contents that somebody moved out of the folder, and on which devices: there they are.
    pub outside: BTreeMap<Arc<Vec<u8>>, BTreeSet<usize>>,
    /// Contents that were lost with the power before anybody said to have them.
    pub excused: BTreeSet<Arc<Vec<u8>>>,
    /// Beginnings of contents, which nobody meant to keep.
    pub halves: BTreeSet<Arc<Vec<u8>>>,
    /// Contents that somebody had given up, and that are wanted again for the sake of these copies alone.
    copies: BTreeMap<Arc<Vec<u8>>, Vec<TheCopy>>,
    /// Files that are being written.
    pub slow: Vec<Slow>,
}

/// A copy of a file, as somebody made it.
struct TheCopy {
    disk: Arc<VirtualDisk>,
    ino: u64,
    born: u64,
}

impl Ledger {
    /// A content that never was before. Many have the same length, as edits often do.
    pub fn content(&mut self, dice: &mut ChaCha8Rng) -> Vec<u8> {
        self.serial += 1;
        let filling = [0, 0, 0, 5, 300][dice.random_range(0..5)];
        let mut bytes = format!("content {:06}", self.serial).into_bytes();
        bytes.resize(bytes.len() + filling, b'.');
        bytes
    }

    /// Somebody wrote a content whole.
    pub fn wrote(&mut self, bytes: &[u8]) {
        self.written.insert(Arc::new(bytes.to_vec()));
    }

    /// What somebody wanted gone, and has once more, in a copy.
    pub fn want_again(&mut self, bytes: &Arc<Vec<u8>>, disk: &Arc<VirtualDisk>, ino: u64) {
        let unread = self.given_up_unread.remove(&content_hash(bytes));
        if self.given_up.remove(bytes) || unread || self.copies.contains_key(bytes) {
            let born = disk.look(|image| image.inodes[&ino].born);
            let copies = self.copies.entry(bytes.clone()).or_default();
            copies.push(TheCopy {
                disk: disk.clone(),
                ino,
                born,
            });
        }
    }

    /// Somebody deleted or overwrote contents where they saw them.
    pub fn give_up(&mut self, contents: impl IntoIterator<Item = Arc<Vec<u8>>>) {
        for bytes in contents {
            self.copies.remove(&bytes);
            self.given_up.insert(bytes);
        }
    }

    /// Somebody deleted or overwrote the content of this hash.
    pub fn give_up_hash(&mut self, hash: &[u8; 32]) {
        let written = self.written.iter();
        let found = written.filter(|bytes| content_hash(bytes) == *hash);
        let found: Vec<_> = found.cloned().collect();
        if found.is_empty() {
            self.given_up_unread.insert(*hash);
        }
        self.give_up(found);
    }

    /// The power of a disk failed. What is wanted for the sake of copies that were lost with it, before anybody had seen
    /// to them, is as given up as it was before them.
    pub fn lost_copies(&mut self, disk: &Arc<VirtualDisk>) {
        let given_up = &mut self.given_up;
        self.copies.retain(|bytes, copies| {
            copies.retain(|copy| {
                let is_there = disk.look(|image| {
                    let inode = image.inodes.get(&copy.ino);
                    inode.is_some_and(|inode| inode.born == copy.born && inode.bytes == *bytes)
                });
                !Arc::ptr_eq(&copy.disk, disk) || is_there
            });
            if copies.is_empty() {
                given_up.insert(bytes.clone());
            }
            !copies.is_empty()
        });
    }

    /// Whether somebody has a file open and has written only the beginning of what it shall hold.
    pub fn is_begun(&self, disk: &Arc<VirtualDisk>, ino: u64) -> bool {
        let born = disk.look(|image| image.inodes.get(&ino).map(|inode| inode.born));
        let mut slow = self.slow.iter();
        slow.any(|slow| Arc::ptr_eq(&slow.disk, disk) && slow.ino == ino && Some(slow.born) == born)
    }

    /// The hashes of all contents that may be gone.
    pub fn all_gone(&self) -> impl Iterator<Item = [u8; 32]> {
        let known = self
            .given_up
            .iter()
            .chain(&self.excused)
            .chain(self.outside.keys())
            .chain(&self.halves);
        known
            .map(|bytes| content_hash(bytes))
            .chain(self.given_up_unread.iter().copied())
    }

    /// Whether a content may be gone.
    pub fn may_be_gone(&self, bytes: &Arc<Vec<u8>>) -> bool {
        [&self.given_up, &self.excused]
            .iter()
            .any(|gone| gone.contains(bytes))
            || self.outside.contains_key(bytes)
            || self.given_up_unread.contains(&content_hash(bytes))
    }

    /// The copies, by disk and inode, for whose sake alone a content is wanted that somebody had given up.
    pub fn wanted_copies(&self, bytes: &Arc<Vec<u8>>) -> Vec<(&Arc<VirtualDisk>, u64)> {
        let copies = self.copies.get(bytes).into_iter().flatten();
        copies.map(|copy| (&copy.disk, copy.ino)).collect()
    }
}
