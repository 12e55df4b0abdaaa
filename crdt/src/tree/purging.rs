//! What went from the trash for good.
//!
//! A purge reaches the node that it is written to and all that stands in it, as a deletion does, and of those whatever
//! its author had seen *in the trash*: place, content, and a deletion that covers them. A node that a later deletion
//! brought into the trash again, after a restoration that the author had not seen, stays there.
//!
//! Nothing that is shown depends on it, so nothing is kept up to date: who asks pays for the way up.

use std::collections::BTreeSet;

use super::Tree;
use super::node::Ix;
use crate::files::{FileId, Purge, Trash};

impl Tree {
    /// Takes in what a document says of purging.
    pub fn set_purge(&mut self, id: FileId, purge: Option<Purge>) {
        match purge {
            Some(purge) => self.purges.insert(id, purge),
            None => self.purges.remove(&id),
        };
    }

    /// Whether it went from the trash for good: nothing of it need be kept.
    pub fn is_purged(&self, id: FileId) -> bool {
        self.index(id).is_some_and(|x| self.purged(x))
    }

    /// All that went from the trash for good. Looks at every node below what was purged.
    pub fn purged_ids(&self) -> BTreeSet<FileId> {
        let tops = self.purges.keys().copied();
        tops.flat_map(|top| std::iter::once(top).chain(self.below(top)))
            .filter(|id| self.is_purged(*id))
            .collect()
    }

    /// The deletion by which it is in the trash: its own, or of what it stands in. `None` for what is not in the trash.
    pub fn deletion(&self, id: FileId) -> Option<&Trash> {
        let x = self.index(id).filter(|&x| !self.node(x).live)?;
        self.covering(x).map(|(_, deletion)| deletion).next()
    }

    /// Whether a deletion of something that it stands in brought it into the trash, whatever its own says.
    pub fn is_deleted_from_above(&self, id: FileId) -> bool {
        self.index(id)
            .is_some_and(|x| self.covering(x).any(|(at, _)| at != x))
    }

    pub(super) fn purged(&self, x: Ix) -> bool {
        let node = self.node(x);
        if self.purges.is_empty() || node.live {
            return false;
        }
        let deletions: Vec<&Trash> = self.covering(x).map(|(_, deletion)| deletion).collect();
        self.way_up(x)
            .filter_map(|y| self.purges.get(&self.node(y).id))
            .any(|purge| {
                purge.covers(node.dot)
                    && node
                        .content
                        .as_ref()
                        .is_none_or(|content| purge.covers(content.dot))
                    && deletions.iter().any(|deletion| purge.covers(deletion.dot))
            })
    }

    fn way_up(&self, x: Ix) -> impl Iterator<Item = Ix> + '_ {
        std::iter::once(x).chain(self.above(x))
    }
}
