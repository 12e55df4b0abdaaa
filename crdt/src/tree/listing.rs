//! What folders list, and under which names.
//!
//! Live nodes of one folder and one name are a **group**. In it, folders are shown as one, and so are files of equal
//! content: the first of those alike (by stamp and writer of the place, then id) stands for them. What is left, if it
//! is more than one, is different things of one name: the first keeps it, each other is shown under a conflict name.
//!
//! A conflict name is the first of a row of candidates that is free. The one without an id is taken by the first of
//! those in the folder who would like it, and by none if something is really called that; the ones with an id are only
//! passed over if something is really called that. So a node's name depends on its own candidates alone, and changes
//! when one of these becomes free or taken, never with the order in which things arrived.
//!
//! What waits for its folder is listed under the root by a name of the same making, and belongs to no group.
//!
//! The folder that lists a node is the one that stands for what the node stands in. When that changes (two folders
//! became one, or two again), what stands in it is listed anew; since those are below, this comes to an end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::node::{Ix, Level, Likeness, NONE, ROOT};
use super::{Tree, Work};
use crate::files::Kind;
use crate::files::conflict_names::{conflict_name, conflict_name_with_id};
use crate::files::names::waiting_name;

/// A name within a folder.
pub(super) type Line = (Ix, Arc<str>);

/// Those of one folder and name.
pub(super) enum Group {
    One(Ix),
    /// Two or more; the first keeps the name, once the group is settled.
    Many(Vec<Ix>),
}

/// All folders' lists.
#[derive(Default)]
pub(super) struct Listing {
    /// The groups, by the names that their members really have.
    pub groups: BTreeMap<Line, Group>,
    /// Those that are listed under another name than their own.
    pub aliases: BTreeMap<Line, Ix>,
    /// The candidates that each of them has looked at; the last is its alias. Empty until it has chosen.
    tried: BTreeMap<Ix, Vec<Arc<str>>>,
    /// Who has looked at a candidate, and must look again when it becomes free or taken.
    wanted: BTreeMap<Line, BTreeSet<Ix>>,
}

impl Tree {
    /// The one that stands for a node.
    pub(super) fn stand_in(&self, mut x: Ix) -> Ix {
        loop {
            let node = self.node(x);
            x = match node.standing.level {
                Level::Merged => node.standing.up,
                _ if node.same != NONE => node.same,
                _ => return x,
            };
        }
    }

    /// The name that a listed node is listed under.
    pub(super) fn listed_name(&self, x: Ix) -> &Arc<str> {
        self.listing
            .tried
            .get(&x)
            .and_then(|tried| tried.last())
            .unwrap_or(&self.node(x).name)
    }

    /// The node that a folder lists under a name.
    pub(super) fn listed(&self, line: &Line) -> Option<Ix> {
        match self.listing.groups.get(line) {
            Some(Group::One(x)) => Some(*x),
            Some(Group::Many(members)) => members.first().copied(),
            None => self.listing.aliases.get(line).copied(),
        }
    }

    /// Those of a node's folder and name, itself among them.
    pub(super) fn group_of(&self, x: Ix) -> &[Ix] {
        let node = self.node(x);
        match self.listing.groups.get(&(node.dir, node.name.clone())) {
            Some(Group::Many(members)) if node.dir != NONE && !node.standing.waiting => members,
            _ => &[],
        }
    }

    /// Takes a node off the list that it is on, before its name, likeness, order, standing or life changes.
    /// The caller has noted the node itself.
    pub(super) fn unlist(&mut self, x: Ix, work: &mut Work) {
        let node = self.node(x);
        if node.dir == NONE {
            return;
        }
        let line = (node.dir, node.name.clone());
        let is_grouped = !node.standing.waiting;
        self.unname(x, work);
        self.stand_for_itself(x, work);
        if is_grouped {
            // Nothing may be shown as something that has left, not even until the group is settled again.
            let followers: Vec<Ix> = self
                .group_of(x)
                .iter()
                .copied()
                .filter(|&y| self.node(y).same == x)
                .collect();
            for y in followers {
                self.note(y);
                self.stand_for_itself(y, work);
            }
            let left = match self.listing.groups.get_mut(&line) {
                Some(Group::Many(members)) => {
                    members.retain(|&y| y != x);
                    members.first().copied().filter(|_| members.len() == 1)
                }
                _ => None,
            };
            match left {
                Some(last) => {
                    self.listing.groups.insert(line.clone(), Group::One(last));
                    work.groups.insert(line);
                }
                None if matches!(self.listing.groups.get(&line), Some(Group::One(_))) => {
                    self.listing.groups.remove(&line);
                    self.wake(&line, work);
                }
                None => {
                    work.groups.insert(line);
                }
            }
        }
        self.node_mut(x).dir = NONE;
    }

    /// Does all the listing that is to do.
    pub(super) fn settle_lists(&mut self, work: &mut Work) {
        loop {
            if let Some(x) = work.relist.pop_first() {
                self.relist(x, work);
            } else if let Some(line) = work.groups.pop_first() {
                self.settle_group(&line, work);
            } else if let Some(x) = work.rename.pop_first() {
                self.choose_name(x, work);
            } else {
                return;
            }
        }
    }

    /// Everything that stands in a node, or in what is merged into it, is to be listed anew.
    pub(super) fn relist_kids(&self, x: Ix, work: &mut Work) {
        let mut folders = vec![x];
        while let Some(folder) = folders.pop() {
            for kid in self.kids(folder) {
                if self.node(kid).is_merged() {
                    folders.push(kid);
                } else {
                    work.relist.insert(kid);
                }
            }
        }
    }

    /// Puts a node on the list where it belongs, unless it is there.
    fn relist(&mut self, x: Ix, work: &mut Work) {
        let node = self.node(x);
        let dir = match node.live && !node.is_merged() {
            true if node.standing.waiting => ROOT,
            true => self.stand_in(node.standing.up),
            false => NONE,
        };
        if dir == node.dir {
            return;
        }
        if node.dir != NONE {
            if dir != NONE {
                self.note(x);
            }
            self.unlist(x, work);
        }
        if dir == NONE {
            return;
        }
        let node = self.node_mut(x);
        node.dir = dir;
        if node.standing.waiting {
            self.listing.tried.insert(x, Vec::new());
            work.rename.insert(x);
            return;
        }
        let line = (dir, node.name.clone());
        match self.listing.groups.get_mut(&line) {
            None => {
                self.listing.groups.insert(line.clone(), Group::One(x));
                self.wake(&line, work);
            }
            Some(group) => {
                match group {
                    Group::One(y) => *group = Group::Many(vec![*y, x]),
                    Group::Many(members) => members.push(x),
                }
                work.groups.insert(line);
            }
        }
    }

    /// Decides who of a group stands for whom, and who must be called otherwise.
    fn settle_group(&mut self, line: &Line, work: &mut Work) {
        let mut members = match self.listing.groups.get(line) {
            None => return,
            Some(Group::One(x)) => vec![*x],
            Some(Group::Many(members)) => members.clone(),
        };
        members.sort_by(|&x, &y| self.node(x).order(self.node(y)));
        let mut firsts: BTreeMap<Likeness<'_>, Ix> = BTreeMap::new();
        let stand_ins: Vec<Ix> = members
            .iter()
            .map(|&x| *firsts.entry(self.node(x).likeness()).or_insert(x))
            .collect();
        for (&x, &stand_in) in members.iter().zip(&stand_ins) {
            let same = if stand_in == x { NONE } else { stand_in };
            if self.node(x).same != same {
                self.note(x);
                self.node_mut(x).same = same;
                self.relist_kids(x, work);
            }
            if stand_in == x && x != members[0] {
                if !self.listing.tried.contains_key(&x) {
                    self.note(x);
                    self.listing.tried.insert(x, Vec::new());
                }
                work.rename.insert(x);
            } else if self.listing.tried.contains_key(&x) {
                self.note(x);
                self.unname(x, work);
            }
        }
        if let Some(Group::Many(settled)) = self.listing.groups.get_mut(line) {
            *settled = members;
        }
    }

    /// Chooses the name of one that cannot have its own.
    fn choose_name(&mut self, x: Ix, work: &mut Work) {
        let Some(old) = self.listing.tried.get(&x).cloned() else {
            return;
        };
        let node = self.node(x);
        let (dir, is_file) = (node.dir, node.kind != Kind::Folder);
        let ms = i64::try_from(node.stamp.ms()).unwrap_or(i64::MAX);
        let candidate = |count: u32| match (node.standing.waiting, count) {
            (true, _) => waiting_name(&node.name, is_file, node.id, count + 1),
            (false, 0) => conflict_name(&node.name, is_file, &node.label, ms, 1),
            (false, _) => {
                conflict_name_with_id(&node.name, is_file, &node.label, ms, (node.id, count))
            }
        };
        let mut tried: Vec<Arc<str>> = Vec::new();
        for count in 0.. {
            let line = (dir, Arc::from(candidate(count)));
            let is_free =
                !self.listing.groups.contains_key(&line) && self.is_first_to_want(x, &line);
            tried.push(line.1);
            if is_free {
                break;
            }
        }
        if tried == old {
            return;
        }
        self.note(x);
        if let Some(alias) = old.last() {
            self.drop_alias(x, (dir, alias.clone()));
        }
        for name in old.iter().filter(|name| !tried.contains(name)) {
            self.stop_wanting(x, (dir, name.clone()), work);
        }
        for name in tried.iter().filter(|name| !old.contains(name)) {
            let line = (dir, name.clone());
            self.wake(&line, work);
            self.listing.wanted.entry(line).or_default().insert(x);
        }
        if let Some(alias) = tried.last() {
            self.listing.aliases.insert((dir, alias.clone()), x);
        }
        self.listing.tried.insert(x, tried);
    }

    /// Whether nobody before this node (in the order of its kind) would like this candidate.
    fn is_first_to_want(&self, x: Ix, line: &Line) -> bool {
        let wanting = self.listing.wanted.get(line);
        wanting.is_none_or(|all| {
            all.iter()
                .all(|&y| y == x || self.node(x).order(self.node(y)).is_lt())
        })
    }

    /// Gives a node its own name back.
    fn unname(&mut self, x: Ix, work: &mut Work) {
        let Some(tried) = self.listing.tried.remove(&x) else {
            return;
        };
        let dir = self.node(x).dir;
        work.rename.remove(&x);
        if let Some(alias) = tried.last() {
            self.drop_alias(x, (dir, alias.clone()));
        }
        for name in tried {
            self.stop_wanting(x, (dir, name), work);
        }
    }

    /// A node is shown as itself.
    fn stand_for_itself(&mut self, x: Ix, work: &mut Work) {
        if std::mem::replace(&mut self.node_mut(x).same, NONE) != NONE {
            self.relist_kids(x, work);
        }
    }

    fn drop_alias(&mut self, x: Ix, line: Line) {
        // Another may have taken it over since.
        if self.listing.aliases.get(&line) == Some(&x) {
            self.listing.aliases.remove(&line);
        }
    }

    fn stop_wanting(&mut self, x: Ix, line: Line, work: &mut Work) {
        if let Some(wanting) = self.listing.wanted.get_mut(&line) {
            wanting.remove(&x);
            if wanting.is_empty() {
                self.listing.wanted.remove(&line);
            } else {
                self.wake(&line, work);
            }
        }
    }

    /// A name became free or taken: those who would like it look again.
    fn wake(&self, line: &Line, work: &mut Work) {
        if let Some(wanting) = self.listing.wanted.get(line) {
            work.rename.extend(wanting);
        }
    }
}
