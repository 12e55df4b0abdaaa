//! The tree that all files, folders and links together are.
//!
//! [`Tree`] is told the state of every file document, in any order and as often as it changes, and says what stands
//! where and under which name. What it shows is a function of the *set* of states: two devices that know the same
//! documents show the same tree. It is kept up to date in steps and stores no paths, so that moving a folder costs the
//! same whatever is in it. It does not read or write documents, and its repairs are never written to them.
//!
//! ```text
//! node.rs      what is kept of one document
//! standing.rs  which folder it is in: cycles, missing folders, merging
//! trash.rs     what is in the trash
//! purging.rs   what went from it for good
//! listing.rs   what folders list: one name, several nodes
//! changes.rs   what is shown otherwise than before
//! every.rs     one look at all of it
//! ```
//!
//! The rules, each on top of those before it (docs/protocol/files.md has them with examples):
//!
//! 1. **Standing.** A node stands in the folder that its place names. If that is not here, or no folder, the node
//!    *waits*: it is listed under the root by a name that says so. One that is [merged](crate::files::MergedInto) into
//!    another of its kind stands within that one, and what stands in it counts as standing in that one. In a cycle, the
//!    member that came latest (stamp, writer, id) falls back: from the merging to its place, from there to the previous
//!    folder, and then to the root.
//! 2. **Trash.** A deletion reaches the node that it is written to and all that stands in it, as far down as its clock
//!    has seen the places of the folders in between, and covers those whose place and content its clock has seen. Deletions that devices made at the same time
//!    stay apart: what each had seen goes, not what only all together had. A covered file is in the trash; a covered folder is unless something live
//!    stands in it. What is in the trash is listed by no folder and takes no name away.
//! 3. **Names.** Unsafe names are shown escaped. Live nodes of one folder and name: folders are shown as one with all
//!    that they list, files of equal content are shown as one; the earliest (stamp, writer, id) stands for them.
//!    Of what is different then, the earliest has the name, the others get `name (conflict from <label>, <date>).ext`,
//!    with the id after the date where that is taken.

mod changes;
mod every;
mod listing;
mod node;
mod purging;
mod restoring;
mod standing;
mod trash;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::files::{FileId, FileState, Kind, Purge};
use changes::Changes;
use listing::{Line, Listing};
use node::{Ix, NONE, Node, ROOT};
use standing::Standings;

pub use changes::Changed;
pub use every::Every;
pub use node::{ContentBrief, Known};

/// How a file, folder or link is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The folder that lists it. For what is in the trash: the one that would.
    pub parent: FileId,
    /// The name that it is listed under: safe on disk, and unlike all others of the folder. For what is in the trash:
    /// its own name, and there may be others.
    pub name: Arc<str>,
    /// What it is.
    pub kind: Kind,
    /// Whether it is in the trash.
    pub trashed: bool,
    /// The one that stands for it. `parent`, `name`, `trashed` and `waiting` are that one's; no folder lists this one.
    pub same_as: Option<FileId>,
    /// Its folder has not arrived. It is listed under the root until then; a synced folder should rather wait, too.
    pub waiting: bool,
}

/// The tree of all files. See the module's documentation for its rules.
pub struct Tree {
    /// By index; the first is the root. Places of removed ones are used again.
    nodes: Vec<Node>,
    vacant: Vec<Ix>,
    ids: BTreeMap<FileId, Ix>,
    /// Labels of devices, each kept once.
    labels: BTreeSet<Arc<str>>,
    standings: Standings,
    listing: Listing,
    changes: Changes,
    revision: u64,
    /// What documents say of purging. Few do, so it is not kept with the nodes.
    purges: BTreeMap<FileId, Purge>,
}

/// What is left to do for the change being worked in.
#[derive(Default)]
struct Work {
    /// Nodes that may have become live, or have ceased to be.
    review: Vec<Ix>,
    /// Nodes that may be on the wrong list.
    relist: BTreeSet<Ix>,
    /// Groups that have gained or lost members.
    groups: BTreeSet<Line>,
    /// Nodes that must choose a name.
    rename: BTreeSet<Ix>,
}

impl Default for Tree {
    fn default() -> Tree {
        Tree::new()
    }
}

impl Tree {
    /// A tree of nothing but the root.
    pub fn new() -> Tree {
        Tree {
            nodes: vec![Node::root()],
            vacant: Vec::new(),
            ids: BTreeMap::new(),
            labels: BTreeSet::new(),
            standings: Standings::default(),
            listing: Listing::default(),
            changes: Changes::default(),
            revision: 0,
            purges: BTreeMap::new(),
        }
    }

    /// Takes in the present state of a document. Anything said of [`FileId::ROOT`] is ignored.
    ///
    /// Costs O(log n + depth + others of the same folder and name), and besides that in proportion to what is shown
    /// otherwise: what a deletion reaches, what two folders list that become one, what waited for this folder. While
    /// cycles exist, each change of a place also looks at the nodes that fell back because of them.
    pub fn set(&mut self, id: FileId, state: &FileState) {
        self.revision += 1;
        if id == FileId::ROOT {
            return;
        }
        let label = self.label(&state.place.label);
        let mut work = Work::default();
        let (x, was_folder, restands, deletion_changed) = match self.ids.get(&id) {
            Some(&x) => {
                let node = self.node(x);
                let same_place = node.has_place(&state.place);
                let same_content = node.has_content(state.content.as_ref());
                let same_merging = node.merged.as_deref() == state.merged_into.as_ref();
                let same_kind = node.kind == state.kind;
                let same_trash = node.has_trash(state);
                if same_place && same_content && same_merging && same_kind && same_trash {
                    self.node_mut(x).created_ms = state.created_ms;
                    return;
                }
                let was_folder = node.kind == Kind::Folder;
                let restands = !(same_place
                    && same_merging
                    && same_kind
                    && (same_content || node.merged.is_none()));
                self.note(x);
                self.unlist(x, &mut work);
                self.forget_references(x);
                self.node_mut(x).write(state, label);
                (x, was_folder, restands, !same_trash)
            }
            None => {
                self.note_absent(id);
                (self.add(Node::new(id, state, label)), false, true, true)
            }
        };
        self.remember_references(x);
        let moved = match restands {
            true => {
                let mut changed = self.referring(id, was_folder);
                changed.insert(x);
                self.restand(changed, &mut work)
            }
            false => Vec::new(),
        };
        // Whether a deletion reaches what is in a folder depends on the folder's place.
        let reaches_below = self.node(x).under_trash && self.kids(x).next().is_some();
        if deletion_changed || reaches_below {
            self.recover(x, &mut work);
        } else {
            self.recover_alone(x, &mut work);
        }
        work.review.push(x);
        work.relist.insert(x);
        self.finish(moved, work);
    }

    /// Forgets a document, when it was purged. What stood in it waits for its folder from then on.
    ///
    /// Looks at every node; purging is rare.
    pub fn remove(&mut self, id: FileId) {
        self.revision += 1;
        let Some(&x) = self.ids.get(&id) else { return };
        let mut work = Work::default();
        let was_folder = self.node(x).kind == Kind::Folder;
        self.note(x);
        self.inherit_mark(x);
        self.unlist(x, &mut work);
        self.forget_references(x);
        self.standings.fallen.remove(&x);
        self.ids.remove(&id);
        let changed = self.referring(id, was_folder);
        let moved = self.restand(changed, &mut work);
        let (up, live) = (self.node(x).standing.up, self.node(x).live);
        self.standings.kids.remove(&(up, x));
        self.node_mut(up).live_kids -= u32::from(live);
        self.node_mut(x).live = false;
        work.review.retain(|&y| y != x);
        work.relist.remove(&x);
        work.review.push(up);
        self.vacant.push(x);
        self.finish(moved, work);
    }

    /// Grows with each [`Tree::set`] and [`Tree::remove`]: as long as it is the same, so is all that is shown.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// What was last set for a document.
    pub fn get(&self, id: FileId) -> Option<Known<'_>> {
        self.ids.get(&id).map(|&x| self.node(x).known())
    }

    /// How it is shown; `None` for the root and for what is not known.
    pub fn shown(&self, id: FileId) -> Option<Shown> {
        let x = *self.ids.get(&id)?;
        let shown = self.stand_in(x);
        let node = self.node(shown);
        let parent = if node.dir != NONE {
            node.dir
        } else {
            self.stand_in(node.standing.up)
        };
        Some(Shown {
            parent: self.node(parent).id,
            name: self.listed_name(shown).clone(),
            kind: node.kind,
            trashed: !node.live,
            same_as: (shown != x).then_some(node.id),
            waiting: node.standing.waiting,
        })
    }

    /// What a folder lists, in bytewise order of names. For one of several folders shown as one: what they list.
    pub fn children(&self, parent: FileId) -> impl Iterator<Item = (&Arc<str>, FileId)> {
        let dir = self.index(parent).map_or(NONE, |x| self.stand_in(x));
        let empty: Arc<str> = Arc::from("");
        let range = (dir, empty.clone())..(dir.saturating_add(1), empty);
        let mut own = self.listing.groups.range(range.clone()).peekable();
        let mut other = self.listing.aliases.range(range).peekable();
        std::iter::from_fn(move || {
            let other_is_next = match (own.peek(), other.peek()) {
                (Some((a, _)), Some((b, _))) => b < a,
                (mine, _) => mine.is_none(),
            };
            let line = if other_is_next {
                other.next()?.0
            } else {
                own.next()?.0
            };
            self.listed(line).map(|x| (&line.1, self.node(x).id))
        })
    }

    /// The one that a folder lists under a name.
    pub fn lookup(&self, parent: FileId, name: &str) -> Option<FileId> {
        let dir = self.stand_in(self.index(parent)?);
        self.listed(&(dir, Arc::from(name)))
            .map(|x| self.node(x).id)
    }

    /// The one at a path such as `photos/2026/a.jpg`; the root for an empty one. Slashes at the ends, or several in a
    /// row, make no difference; `.` and `..` are not understood.
    pub fn resolve(&self, path: &str) -> Option<FileId> {
        path.split('/')
            .filter(|name| !name.is_empty())
            .try_fold(FileId::ROOT, |folder, name| self.lookup(folder, name))
    }

    /// The path of what is listed somewhere (or of what stands for it), without a slash before; empty for the root.
    /// `None` for what is in the trash or not known.
    pub fn path(&self, id: FileId) -> Option<String> {
        let mut x = self.stand_in(self.index(id)?);
        let mut names = Vec::new();
        while x != ROOT {
            let dir = self.node(x).dir;
            if dir == NONE {
                return None;
            }
            names.push(&**self.listed_name(x));
            x = dir;
        }
        names.reverse();
        Some(names.join("/"))
    }

    /// What is in the trash, without what is below something else that is, and without what was purged. Looks at every
    /// node.
    pub fn trashed(&self) -> impl Iterator<Item = FileId> {
        self.ids
            .iter()
            .filter(|&(_, &x)| {
                let node = self.node(x);
                let up = self.stand_in(node.standing.up);
                !node.live
                    && !node.is_merged()
                    && !self.purged(x)
                    && (self.node(up).live || self.purged(up))
            })
            .map(|(&id, _)| id)
    }

    /// Everything that stands in a folder or below, in the trash or not, each after what it stands in. What is merged
    /// into a folder is below it; what is only shown as one with it ([`Tree::group`]) is not.
    pub fn below(&self, id: FileId) -> impl Iterator<Item = FileId> {
        let mut left: Vec<Ix> = self
            .index(id)
            .map(|x| self.kids(x).collect())
            .unwrap_or_default();
        std::iter::from_fn(move || {
            let x = left.pop()?;
            left.extend(self.kids(x));
            Some(self.node(x).id)
        })
    }

    /// The one that stands for it: itself, unless it is shown as another. Operations should be done on that one.
    pub fn representative(&self, id: FileId) -> FileId {
        self.index(id)
            .map_or(id, |x| self.node(self.stand_in(x)).id)
    }

    /// Those that are shown as one with it by their name and likeness alone, without its [`Tree::representative`].
    ///
    /// A person's operation on it must mark each of them [`MergedInto`](crate::files::MergedInto) the representative,
    /// in the same log entry: otherwise they come apart when that one is renamed or changed.
    pub fn group(&self, id: FileId) -> Vec<FileId> {
        let Some(shown) = self.index(id).map(|x| self.stand_in(x)) else {
            return Vec::new();
        };
        let members = self
            .group_of(shown)
            .iter()
            .filter(|&&x| self.node(x).same == shown);
        members.map(|&x| self.node(x).id).collect()
    }

    /// How many documents the tree knows.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// True if it knows none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// What is left once standings are clear: trash, then lists.
    fn finish(&mut self, moved: Vec<Ix>, mut work: Work) {
        for x in moved {
            self.recover(x, &mut work);
        }
        for x in std::mem::take(&mut work.review) {
            self.review(x, None, &mut work);
        }
        self.settle_lists(&mut work);
    }

    /// Puts a node under the root, until its folder is found.
    fn add(&mut self, node: Node) -> Ix {
        let id = node.id;
        let x = match self.vacant.pop() {
            Some(x) => {
                self.nodes[x as usize] = node;
                x
            }
            None => {
                // An eighth at a time instead of the double: most of the tree's memory is here.
                if self.nodes.len() == self.nodes.capacity() {
                    self.nodes.reserve_exact(self.nodes.len() / 8 + 16);
                }
                self.nodes.push(node);
                (self.nodes.len() - 1) as Ix
            }
        };
        self.ids.insert(id, x);
        self.standings.kids.insert((ROOT, x));
        x
    }

    fn remember_references(&mut self, x: Ix) {
        let node = self.node(x);
        let (parent, merged) = (
            node.parent,
            node.merged.as_deref().map(|merged| merged.into),
        );
        if self.folder(parent).is_none() {
            self.standings.waits.insert((parent, x));
        }
        if let Some(into) = merged {
            self.standings.merges.insert((into, x));
        }
    }

    fn forget_references(&mut self, x: Ix) {
        let node = self.node(x);
        let (parent, merged) = (
            node.parent,
            node.merged.as_deref().map(|merged| merged.into),
        );
        self.standings.waits.remove(&(parent, x));
        if let Some(into) = merged {
            self.standings.merges.remove(&(into, x));
        }
    }

    fn label(&mut self, label: &str) -> Arc<str> {
        if let Some(known) = self.labels.get(label) {
            return known.clone();
        }
        let label: Arc<str> = Arc::from(label);
        self.labels.insert(label.clone());
        label
    }

    fn index(&self, id: FileId) -> Option<Ix> {
        if id == FileId::ROOT {
            Some(ROOT)
        } else {
            self.ids.get(&id).copied()
        }
    }

    /// All nodes but the root.
    fn indices(&self) -> impl Iterator<Item = Ix> + '_ {
        self.ids.values().copied()
    }

    fn node(&self, x: Ix) -> &Node {
        &self.nodes[x as usize]
    }

    fn node_mut(&mut self, x: Ix) -> &mut Node {
        &mut self.nodes[x as usize]
    }
}
