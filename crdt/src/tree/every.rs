//! One look at everything, for those who count: as cheap as it can be, for a vault may have very many files.

use super::node::{ContentBrief, NONE};
use super::{Ix, Tree};
use crate::files::{FileId, Kind};

/// One document, as [`Tree::every`] shows it.
#[derive(Clone, Copy, Debug)]
pub struct Every<'t> {
    /// Which.
    pub id: FileId,
    /// What it is.
    pub kind: Kind,
    /// Its content, without where its bytes are.
    pub content: Option<&'t ContentBrief>,
    /// Whether what stands for it is in the trash.
    pub trashed: bool,
    /// Whether it is shown as itself, and not as another.
    pub is_itself: bool,
    /// The name that it is shown under, if it is shown as itself; else its own.
    pub name: &'t str,
}

impl Tree {
    /// Everything that the tree knows, by id, in the trash or not.
    pub fn every(&self) -> impl Iterator<Item = Every<'_>> {
        self.ids.iter().map(|(&id, &x)| self.seen(id, x))
    }

    fn seen(&self, id: FileId, x: Ix) -> Every<'_> {
        let node = self.node(x);
        let is_itself = !node.is_merged() && node.same == NONE;
        let live = if is_itself {
            node.live
        } else {
            self.node(self.stand_in(x)).live
        };
        Every {
            id,
            kind: node.kind,
            content: node.content.as_ref(),
            trashed: !live,
            is_itself,
            name: if is_itself {
                self.listed_name(x)
            } else {
                &node.name
            },
        }
    }
}
