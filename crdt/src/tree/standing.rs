//! Where each node stands: the folder that it is in, before names and the trash are looked at.
//!
//! Each node has a row of standings to go through ([`Level`]): within what it is merged into, in the folder that its
//! place names, in the folder before that, under the root. It starts at the first that applies. As long as there is a
//! cycle, its latest member (by stamp, writer and id of what put it where it stands) goes on to the next standing.
//!
//! A node stands at one place at a time, so cycles never share a node and it makes no difference which is broken
//! first: one set of documents has one outcome. And a cycle that would exist with everything at its first standing
//! has its latest member among the fallen afterwards. That is why it is enough, after any change, to put the fallen
//! and the changed nodes back to their first standing and to look for cycles above those.

use std::collections::{BTreeMap, BTreeSet};

use super::node::{Ix, Level, ROOT, Standing};
use super::{Tree, Work};
use crate::files::{Actor, FileId, Kind, Stamp};

/// Which nodes stand where, from above, and which wait for something.
#[derive(Default)]
pub(super) struct Standings {
    /// (a node, what stands in it or is merged into it).
    pub kids: BTreeSet<(Ix, Ix)>,
    /// (a folder that is not here, a node whose place names it).
    pub waits: BTreeSet<(FileId, Ix)>,
    /// (something, a node whose document says that it is merged into that).
    pub merges: BTreeSet<(FileId, Ix)>,
    /// Those that do not stand at their first standing.
    pub fallen: BTreeSet<Ix>,
}

impl Tree {
    /// What stands in a node or is merged into it.
    pub(super) fn kids(&self, x: Ix) -> impl Iterator<Item = Ix> + '_ {
        self.standings
            .kids
            .range((x, 0)..=(x, Ix::MAX))
            .map(|&(_, kid)| kid)
    }

    /// The index of a folder that is here.
    pub(super) fn folder(&self, id: FileId) -> Option<Ix> {
        if id == FileId::ROOT {
            return Some(ROOT);
        }
        self.ids
            .get(&id)
            .copied()
            .filter(|&x| self.node(x).kind == Kind::Folder)
    }

    /// All nodes whose documents refer to this id in a way that depends on whether it is here, and what it is.
    ///
    /// Called after it came, went or changed its kind; puts those whose folder it is in or out of the waiting ones.
    /// Only the going away of a folder, which happens when a document is purged, looks at all nodes.
    pub(super) fn referring(&mut self, id: FileId, was_folder: bool) -> BTreeSet<Ix> {
        let range = (id, 0)..=(id, Ix::MAX);
        let mut found: BTreeSet<Ix> = self
            .standings
            .merges
            .range(range.clone())
            .map(|&(_, x)| x)
            .collect();
        match (was_folder, self.folder(id).is_some()) {
            (false, true) => {
                let waiting: Vec<_> = self.standings.waits.range(range).copied().collect();
                for wait in waiting {
                    self.standings.waits.remove(&wait);
                    found.insert(wait.1);
                }
            }
            (true, false) => {
                for x in self
                    .indices()
                    .filter(|&x| self.node(x).parent == id)
                    .collect::<Vec<_>>()
                {
                    self.standings.waits.insert((id, x));
                    found.insert(x);
                }
            }
            _ => {}
        }
        found
    }

    /// Works out anew where the given nodes and the fallen ones stand, and moves those that stand elsewhere now.
    /// Returns these.
    pub(super) fn restand(&mut self, changed: BTreeSet<Ix>, work: &mut Work) -> Vec<Ix> {
        let mut before: BTreeMap<Ix, Standing> = BTreeMap::new();
        let fallen = std::mem::take(&mut self.standings.fallen);
        for &x in fallen.union(&changed) {
            before.insert(x, self.node(x).standing);
            let level = self.first_level(x);
            self.node_mut(x).standing = self.standing_at(x, level);
        }
        for x in before.keys().copied().collect::<Vec<_>>() {
            while let Some(member) = self.cycle_above(x) {
                let latest = self.latest_of_cycle(member);
                let standing = self.node(latest).standing;
                before.entry(latest).or_insert(standing);
                self.standings.fallen.insert(latest);
                self.node_mut(latest).standing = self.standing_at(latest, standing.level.next());
            }
        }
        debug_assert!(
            before.keys().all(|&x| self.cycle_above(x).is_none()),
            "every way up ends at the root, or walking it never ends"
        );
        let now: Vec<(Ix, Standing)> = before.keys().map(|&x| (x, self.node(x).standing)).collect();
        for (&x, &old) in &before {
            self.node_mut(x).standing = old;
        }
        let moved: Vec<(Ix, Standing)> = now
            .into_iter()
            .filter(|(x, new)| before[x] != *new)
            .collect();
        self.move_all(&moved, work);
        moved.into_iter().map(|(x, _)| x).collect()
    }

    /// Makes nodes stand elsewhere. One step for all before the next: halfway, there may be cycles.
    fn move_all(&mut self, moved: &[(Ix, Standing)], work: &mut Work) {
        for &(x, _) in moved {
            self.note(x);
            self.inherit_mark(x);
            self.unlist(x, work);
            work.relist.insert(x);
        }
        let mut merged = Vec::new();
        for &(x, new) in moved {
            let old = std::mem::replace(&mut self.node_mut(x).standing, new);
            if old.level == Level::Merged || new.level == Level::Merged {
                merged.push(x);
            }
            if old.up != new.up {
                self.standings.kids.remove(&(old.up, x));
                self.standings.kids.insert((new.up, x));
                if self.node(x).live {
                    self.node_mut(old.up).live_kids -= 1;
                    self.node_mut(new.up).live_kids += 1;
                }
            }
            work.review.extend([x, old.up, new.up]);
        }
        for x in merged {
            self.relist_kids(x, work);
        }
    }

    /// The standing that a node starts from.
    fn first_level(&self, x: Ix) -> Level {
        let node = self.node(x);
        let target = node
            .merging()
            .and_then(|merging| self.ids.get(&merging.into));
        match target {
            Some(&target) if self.node(target).kind == node.kind => Level::Merged,
            _ => Level::Place,
        }
    }

    fn standing_at(&self, x: Ix, level: Level) -> Standing {
        let node = self.node(x);
        let (up, waiting) = match level {
            Level::Merged => {
                let target = node
                    .merged
                    .as_deref()
                    .and_then(|merged| self.ids.get(&merged.into));
                (target.copied().unwrap_or(ROOT), false)
            }
            Level::Place => {
                let folder = self.folder(node.parent);
                (folder.unwrap_or(ROOT), folder.is_none())
            }
            Level::Previous => (self.folder(node.previous).unwrap_or(ROOT), false),
            Level::Top => (ROOT, false),
        };
        Standing { level, up, waiting }
    }

    /// A node on the cycle that the way up from here runs into, if it does. (Brent's algorithm: no memory needed.)
    fn cycle_above(&self, start: Ix) -> Option<Ix> {
        let (mut anchor, mut x) = (start, start);
        let (mut steps, mut limit) = (0u64, 1u64);
        while x != ROOT {
            x = self.node(x).standing.up;
            if x == anchor {
                return (x != ROOT).then_some(x);
            }
            steps += 1;
            if steps == limit {
                (anchor, steps, limit) = (x, 0, limit * 2);
            }
        }
        None
    }

    /// The member of a cycle that gives way.
    fn latest_of_cycle(&self, member: Ix) -> Ix {
        let mut latest = member;
        let mut x = self.node(member).standing.up;
        while x != member {
            if self.arrival(x) > self.arrival(latest) {
                latest = x;
            }
            x = self.node(x).standing.up;
        }
        latest
    }

    /// What put a node where it stands.
    fn arrival(&self, x: Ix) -> (Stamp, Actor, FileId) {
        let node = self.node(x);
        match (&node.merged, node.standing.level) {
            (Some(merged), Level::Merged) => (merged.stamp, merged.dot.writer, node.id),
            _ => (node.stamp, node.dot.writer, node.id),
        }
    }
}
