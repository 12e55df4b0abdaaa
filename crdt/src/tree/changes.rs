//! What is shown otherwise than before.
//!
//! The first time that something about a node is about to change, how it is shown until then is noted; asked for the
//! changes, the tree compares. So what went back and forth in between is not told.
//!
//! A folder going to the trash, or coming back, takes with it what is below, which may be much. Those nodes are not
//! noted: a mark on the topmost one says that they must be looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Tree;
use super::node::{Ix, NONE};
use crate::files::{Dot, FileId, Kind, Stamp};

/// One line of what [`Tree::take_changed`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Changed {
    /// The file, folder or link that is shown otherwise, or came, or is no longer known.
    pub id: FileId,
    /// What is below it may have gone to the trash or come back from there, and is not told of one by one:
    /// [`Tree::below`] names it.
    pub subtree: bool,
}

/// What is to be told at the next [`Tree::take_changed`].
#[derive(Default)]
pub(super) struct Changes {
    noted: BTreeMap<FileId, Face>,
    marked: BTreeSet<FileId>,
}

/// How a node is shown, as far as it is told when it changes.
#[derive(PartialEq)]
enum Face {
    /// Not known.
    Absent,
    /// To be told in any case.
    Unclear,
    /// Shown as another.
    Hidden,
    Trashed {
        place: Dot,
        content: Option<Dot>,
    },
    Listed {
        parent: FileId,
        name: Arc<str>,
        kind: Kind,
        waiting: bool,
        content: Option<(Stamp, Dot, [u8; 32], i64)>,
    },
}

impl Tree {
    /// What is shown otherwise than when this was last called, by id.
    ///
    /// Told of are those whose folder, name, kind, content, its time, or waiting changed, which came to stand for themselves or
    /// to be shown as another, went to the trash or came back, came or went: themselves, not what is below them.
    /// Moving a folder tells of that folder only. Where two folders become one, everything is told of that stood in
    /// the one which is no longer shown. Where the deletion of a folder or its recall reaches what is below, that is
    /// not told of one by one: see [`Changed::subtree`]. Of one that is shown as another, nothing more is told.
    pub fn take_changed(&mut self) -> Vec<Changed> {
        let Changes { noted, marked } = std::mem::take(&mut self.changes);
        let differing = noted
            .into_iter()
            .filter(|(id, face)| *face != self.face(*id))
            .map(|(id, _)| id);
        let ids: BTreeSet<FileId> = differing.chain(marked.iter().copied()).collect();
        ids.into_iter()
            .map(|id| Changed {
                id,
                subtree: marked.contains(&id),
            })
            .collect()
    }

    /// To be called before anything changes in how a node is shown.
    pub(super) fn note(&mut self, x: Ix) {
        let id = self.node(x).id;
        if !self.changes.noted.contains_key(&id) {
            let face = if self.is_below_mark(x) {
                Face::Unclear
            } else {
                self.face(id)
            };
            self.changes.noted.insert(id, face);
        }
    }

    /// To be called before a node becomes known.
    pub(super) fn note_absent(&mut self, id: FileId) {
        self.changes.noted.entry(id).or_insert(Face::Absent);
    }

    /// Says that what is below a node must be looked at.
    pub(super) fn mark(&mut self, top: Ix) {
        let id = self.node(top).id;
        self.changes.marked.insert(id);
    }

    /// To be called before a node moves: what must be looked at below it will no longer be below the mark.
    pub(super) fn inherit_mark(&mut self, x: Ix) {
        if self.is_below_mark(x) && self.kids(x).next().is_some() {
            self.mark(x);
        }
    }

    fn is_below_mark(&self, x: Ix) -> bool {
        !self.changes.marked.is_empty()
            && self
                .above(x)
                .any(|y| self.changes.marked.contains(&self.node(y).id))
    }

    fn face(&self, id: FileId) -> Face {
        let Some(&x) = self.ids.get(&id) else {
            return Face::Absent;
        };
        let node = self.node(x);
        if node.is_merged() || node.same != NONE {
            return Face::Hidden;
        }
        if node.dir == NONE {
            return Face::Trashed {
                place: node.dot,
                content: node.content.as_ref().map(|content| content.dot),
            };
        }
        Face::Listed {
            parent: self.node(node.dir).id,
            name: self.listed_name(x).clone(),
            kind: node.kind,
            waiting: node.standing.waiting,
            content: node
                .content
                .as_ref()
                .map(|content| (content.stamp, content.dot, content.hash, content.mtime_ms)),
        }
    }
}
