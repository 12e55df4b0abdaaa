//! All files of a synced folder, one portion after the other.

use std::collections::{BTreeSet, VecDeque};

use coffer_crdt::files::FileId;

/// All files of a synced folder, folder by folder, to be put in question some at a time.
#[derive(Default)]
pub(super) struct Survey {
    order: VecDeque<FileId>,
    left: BTreeSet<FileId>,
}

impl Survey {
    pub fn new(files: impl Iterator<Item = FileId>) -> Survey {
        let order: VecDeque<FileId> = files.collect();
        Survey {
            left: order.iter().copied().collect(),
            order,
        }
    }

    /// These after all others.
    pub fn add(&mut self, files: impl Iterator<Item = FileId>) {
        for id in files {
            if self.left.insert(id) {
                self.order.push_back(id);
            }
        }
    }

    /// The next `count` at most.
    pub fn take(&mut self, count: usize) -> BTreeSet<FileId> {
        let mut taken = BTreeSet::new();
        while taken.len() < count
            && let Some(id) = self.order.pop_front()
        {
            if self.left.remove(&id) {
                taken.insert(id);
            }
        }
        taken
    }

    pub fn left(&self) -> &BTreeSet<FileId> {
        &self.left
    }

    pub fn len(&self) -> usize {
        self.left.len()
    }
}
