//! What is in the trash.
//!
//! A deletion covers a node if it is written to the node or to anything that the node stands in, and its clock has
//! seen both the node's place and its content, and the places of the folders in between: what somebody else moved into
//! the deleted folder was not in it for the deleter, with all that is in it. Several devices may delete one thing at the
//! same time, each having seen something else: those are several deletions, and each covers what it covers alone. A file that is covered is in the trash; a
//! folder is if it is covered and nothing live stands in it. So whatever the deleter had not seen survives, with the
//! folders that lead to it.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::node::{Ix, ROOT};
use super::{Tree, Work};
use crate::files::{Kind, Trash};

/// One of the deletions written to a node.
#[derive(Clone, Copy)]
pub(super) struct Deletion {
    pub at: Ix,
    /// Its number among those.
    number: usize,
}

impl Tree {
    /// Works out anew what is covered: for a node whose standing or deletion changed, and for all below it.
    ///
    /// Costs nothing where no deletion is or was written above, otherwise as much as there is below.
    pub(super) fn recover(&mut self, x: Ix, work: &mut Work) {
        let is_below = self.above(x).any(|y| self.node(y).is_deleted());
        let node = self.node(x);
        if !is_below && !node.under_trash && !node.is_deleted() {
            return;
        }
        let above: BTreeSet<Ix> = self.above(x).collect();
        let mut flipped = Vec::new();
        let mut stack = vec![(x, is_below, Rc::new(self.reaching(x, false)))];
        while let Some((y, is_below, mut deletions)) = stack.pop() {
            let own = self.node(y).is_deleted();
            if own {
                Rc::make_mut(&mut deletions).extend(self.own_deletions(y));
            }
            self.node_mut(y).under_trash = is_below || own;
            if self.cover(y, &deletions) {
                flipped.push(y);
            }
            if !deletions.iter().all(|&d| self.reaches_into(d, y)) {
                Rc::make_mut(&mut deletions).retain(|&d| self.reaches_into(d, y));
            }
            let kids = self.kids(y);
            stack.extend(kids.map(|kid| (kid, is_below || own, deletions.clone())));
        }
        // From below, so that each folder is looked at when what stands in it is settled.
        for y in flipped.into_iter().rev() {
            self.review(y, Some((x, &above)), work);
        }
        work.review.push(x);
    }

    /// Works out anew whether one node is covered, after its place or content was written. If that also moved it,
    /// [`Tree::recover`] is to follow for what is below.
    pub(super) fn recover_alone(&mut self, x: Ix, work: &mut Work) {
        if self.node(x).under_trash {
            let deletions = self.reaching(x, true);
            self.cover(x, &deletions);
        }
        work.review.push(x);
    }

    /// Decides anew whether a node is live, and if that changed, whether what it stands in is.
    ///
    /// `within` names the top of a subtree being gone through, and what is above it: nodes below the top are not told
    /// of one by one but by a mark on the top.
    pub(super) fn review(
        &mut self,
        mut y: Ix,
        within: Option<(Ix, &BTreeSet<Ix>)>,
        work: &mut Work,
    ) {
        while y != ROOT {
            let node = self.node(y);
            let has_live_kids = node.live_kids > 0;
            let live = match (node.is_merged(), node.kind) {
                (true, _) => has_live_kids,
                (false, Kind::Folder) => !node.covered || has_live_kids,
                (false, _) => !node.covered,
            };
            if live == node.live {
                return;
            }
            match within {
                Some((top, above)) if y != top && !above.contains(&y) => self.mark(top),
                _ => self.note(y),
            }
            let node = self.node_mut(y);
            node.live = live;
            let up = node.standing.up;
            work.relist.insert(y);
            let live_kids = &mut self.node_mut(up).live_kids;
            *live_kids = if live { *live_kids + 1 } else { *live_kids - 1 };
            y = up;
        }
    }

    /// Sets whether a node is covered by one of these deletions; true if that is new.
    fn cover(&mut self, y: Ix, deletions: &[Deletion]) -> bool {
        let node = self.node(y);
        let covered = deletions
            .iter()
            .filter_map(|&d| self.written(d))
            .any(|deletion| node.is_covered_by(deletion));
        std::mem::replace(&mut self.node_mut(y).covered, covered) != covered
    }

    /// What deletions reach a node, from below: its own (if `own` says so), and those of what it stands in.
    pub(super) fn reaching(&self, x: Ix, own: bool) -> Vec<Deletion> {
        let mut between: Vec<Ix> = Vec::new();
        let mut found: Vec<Deletion> = Vec::new();
        if own {
            found.extend(self.own_deletions(x));
        }
        for y in self.above(x) {
            let reaches = |&d: &Deletion| between.iter().all(|&way| self.reaches_into(d, way));
            found.extend(self.own_deletions(y).filter(reaches));
            between.push(y);
        }
        found
    }

    /// The deletions that cover a node: its own and those of what it stands in, from below.
    pub(super) fn covering(&self, x: Ix) -> impl Iterator<Item = (Ix, &Trash)> {
        let deletions = self.reaching(x, true).into_iter();
        deletions
            .filter_map(|deletion| Some((deletion.at, self.written(deletion)?)))
            .filter(move |(_, deletion)| self.node(x).is_covered_by(deletion))
    }

    fn own_deletions(&self, x: Ix) -> impl Iterator<Item = Deletion> + use<> {
        let count = self.node(x).deletions().count();
        (0..count).map(move |number| Deletion { at: x, number })
    }

    fn written(&self, deletion: Deletion) -> Option<&Trash> {
        self.node(deletion.at).deletions().nth(deletion.number)
    }

    /// Whether a deletion reaches what is in a folder below what was deleted, or in that itself: its author had seen that
    /// folder where it is.
    fn reaches_into(&self, deletion: Deletion, folder: Ix) -> bool {
        let dot = self.node(folder).dot;
        deletion.at == folder || self.written(deletion).is_some_and(|by| by.covers(dot))
    }

    /// What a node stands in, from below, without the root.
    pub(super) fn above(&self, x: Ix) -> impl Iterator<Item = Ix> + '_ {
        let up = |y: Ix| Some(self.node(y).standing.up).filter(|&up| up != ROOT);
        std::iter::successors(up(x), move |&y| up(y))
    }
}
