//! Puts creations, moves and deletions in an order in which each can be done when its turn comes.
//!
//! Both directions use it: operations for the vault and steps for the disk. A name is taken only once it is free, a
//! folder is there before what goes into it and is emptied before it goes. Where names are exchanged (a for b, b for c,
//! c for a; a folder with one inside it) one of them is **parked** aside for a moment.

use std::collections::{BTreeMap, BTreeSet};

use coffer_crdt::files::FileId;

/// A name in a folder.
pub type Spot = (FileId, String);

/// Something that comes, goes or moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What.
    pub id: FileId,
    /// Where it is; `None` if it is to be created.
    pub from: Option<Spot>,
    /// Where it shall be; `None` if it is to go.
    pub to: Option<Spot>,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Do the change with this index.
    Do(usize),
    /// Put this one aside, where it is in nobody's way.
    Park(FileId),
}

/// Circles that the caller's parents may contain end a climb after so many folders.
const MAX_DEPTH: usize = 4096;

/// Orders `changes`. `occupant` says what has a name before the first of them, `parent` in which folder something is.
///
/// Every change has its turn exactly once. Where a name is taken by something that is not among the changes, its turn
/// comes all the same: whoever carries it out finds the name taken and says so.
pub fn schedule(
    changes: &[Change],
    occupant: impl Fn(&Spot) -> Option<FileId>,
    parent: impl Fn(FileId) -> Option<FileId>,
) -> Vec<Turn> {
    let mut board = Board::new(changes, occupant, parent);
    let mut open: Vec<usize> = (0..changes.len()).collect();
    while !open.is_empty() {
        let before = open.len();
        open.retain(|index| !board.attempt(*index));
        if open.len() == before {
            board.unblock(&mut open);
        }
    }
    board.turns
}

/// Where something is while turns are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    Spot(Spot),
    Parked,
    Nowhere,
}

struct Board<'a, O, P> {
    changes: &'a [Change],
    occupant: O,
    parent: P,
    pending: BTreeMap<FileId, usize>,
    at: BTreeMap<FileId, At>,
    taken: BTreeMap<Spot, Option<FileId>>,
    /// For each folder to go: how many changes below it are still to be done.
    below: BTreeMap<FileId, usize>,
    above: BTreeMap<usize, Vec<FileId>>,
    turns: Vec<Turn>,
}

impl<'a, O: Fn(&Spot) -> Option<FileId>, P: Fn(FileId) -> Option<FileId>> Board<'a, O, P> {
    fn new(changes: &'a [Change], occupant: O, parent: P) -> Self {
        let pending = changes
            .iter()
            .enumerate()
            .map(|(index, change)| (change.id, index))
            .collect();
        let going: BTreeSet<FileId> = changes
            .iter()
            .filter(|change| change.to.is_none())
            .map(|change| change.id)
            .collect();
        let (mut below, mut above) = (BTreeMap::new(), BTreeMap::new());
        if !going.is_empty() {
            for (index, change) in changes.iter().enumerate() {
                let mut folder = change.from.as_ref().map(|spot| spot.0);
                let mut folders = Vec::new();
                for _ in 0..MAX_DEPTH {
                    let Some(id) = folder else { break };
                    if going.contains(&id) {
                        *below.entry(id).or_insert(0) += 1;
                        folders.push(id);
                    }
                    folder = parent(id);
                }
                if !folders.is_empty() {
                    above.insert(index, folders);
                }
            }
        }
        Board {
            changes,
            occupant,
            parent,
            pending,
            at: BTreeMap::new(),
            taken: BTreeMap::new(),
            below,
            above,
            turns: Vec::new(),
        }
    }

    fn holder(&self, spot: &Spot) -> Option<FileId> {
        match self.taken.get(spot) {
            Some(holder) => *holder,
            None => (self.occupant)(spot),
        }
    }

    fn folder_of(&self, id: FileId) -> Option<FileId> {
        match self.at.get(&id) {
            Some(At::Spot(spot)) => Some(spot.0),
            Some(At::Parked | At::Nowhere) => None,
            None => (self.parent)(id),
        }
    }

    /// Whether `folder` is within `id`, or on the way to it something is parked.
    fn is_cut_off(&self, folder: FileId, id: FileId) -> bool {
        let mut at = Some(folder);
        for _ in 0..MAX_DEPTH {
            match at {
                Some(here) if here == id || self.at.get(&here) == Some(&At::Parked) => return true,
                Some(here) => at = self.folder_of(here),
                None => return false,
            }
        }
        true
    }

    fn attempt(&mut self, index: usize) -> bool {
        let change = &self.changes[index];
        match &change.to {
            None => {
                if self.below.get(&change.id).is_some_and(|count| *count > 0) {
                    return false;
                }
            }
            Some(spot) => {
                let folder_pending = self
                    .pending
                    .get(&spot.0)
                    .is_some_and(|at| self.changes[*at].from.is_none());
                let taken = self.holder(spot).is_some_and(|holder| holder != change.id);
                if folder_pending || taken || self.is_cut_off(spot.0, change.id) {
                    return false;
                }
            }
        }
        self.act(index);
        true
    }

    fn act(&mut self, index: usize) {
        let change = &self.changes[index];
        self.leave(change.id, change.from.as_ref());
        self.at
            .insert(change.id, change.to.clone().map_or(At::Nowhere, At::Spot));
        if let Some(spot) = &change.to {
            self.taken.insert(spot.clone(), Some(change.id));
        }
        self.pending.remove(&change.id);
        for folder in self.above.remove(&index).unwrap_or_default() {
            if let Some(count) = self.below.get_mut(&folder) {
                *count -= 1;
            }
        }
        self.turns.push(Turn::Do(index));
    }

    /// Frees the name that `id` has now.
    fn leave(&mut self, id: FileId, from: Option<&Spot>) {
        let spot = match self.at.get(&id) {
            Some(At::Spot(spot)) => Some(spot.clone()),
            Some(_) => None,
            None => from.cloned(),
        };
        if let Some(spot) = spot
            && self.holder(&spot) == Some(id)
        {
            self.taken.insert(spot, None);
        }
    }

    /// Nothing can be done as it is: parks one that stands in another's way, or gives up on one.
    fn unblock(&mut self, open: &mut Vec<usize>) {
        // Where a folder settled already is the goal, only the name can be taken.
        let settled = |board: &Self, id: FileId| {
            let mut at = Some(id);
            for _ in 0..MAX_DEPTH {
                match at {
                    Some(here) if board.pending.contains_key(&here) => return false,
                    Some(here) => at = board.folder_of(here),
                    None => return true,
                }
            }
            false
        };
        let found = open.iter().find_map(|index| {
            let spot = self.changes[*index].to.as_ref()?;
            let holder = self.holder(spot).filter(|holder| {
                self.pending.contains_key(holder) && *holder != self.changes[*index].id
            })?;
            settled(self, spot.0).then_some(holder)
        });
        match found {
            Some(holder) => {
                let from = self
                    .pending
                    .get(&holder)
                    .and_then(|index| self.changes[*index].from.clone());
                self.leave(holder, from.as_ref());
                self.at.insert(holder, At::Parked);
                self.turns.push(Turn::Park(holder));
            }
            None => {
                let index = open.remove(0);
                self.act(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(number: u8) -> FileId {
        FileId([number; 16])
    }

    /// A little disk that refuses what a real one refuses.
    #[derive(Clone, Default, Debug, PartialEq)]
    struct Disk {
        at: BTreeMap<FileId, Spot>,
        parked: BTreeSet<FileId>,
    }

    impl Disk {
        fn holder(&self, spot: &Spot) -> Option<FileId> {
            self.at
                .iter()
                .find(|(_, at)| *at == spot)
                .map(|(id, _)| *id)
        }

        fn within(&self, mut folder: FileId, id: FileId) -> bool {
            loop {
                if folder == id {
                    return true;
                }
                match self.at.get(&folder) {
                    Some(spot) => folder = spot.0,
                    None => return false,
                }
            }
        }

        fn carry_out(&mut self, changes: &[Change]) -> Vec<Turn> {
            let before = self.clone();
            let turns = schedule(
                changes,
                |spot| before.holder(spot),
                |id| before.at.get(&id).map(|spot| spot.0),
            );
            for turn in &turns {
                match turn {
                    Turn::Park(id) => {
                        assert!(self.at.remove(id).is_some());
                        self.parked.insert(*id);
                    }
                    Turn::Do(index) => {
                        let change = &changes[*index];
                        self.parked.remove(&change.id);
                        match &change.to {
                            None => {
                                self.at.remove(&change.id);
                                assert!(
                                    !self.at.values().any(|spot| spot.0 == change.id),
                                    "{change:?} is not empty"
                                );
                            }
                            Some(spot) => {
                                assert!(
                                    self.holder(spot).is_none_or(|holder| holder == change.id),
                                    "{spot:?} is taken"
                                );
                                assert!(
                                    spot.0 == FileId::ROOT || self.at.contains_key(&spot.0),
                                    "no folder for {change:?}"
                                );
                                assert!(!self.within(spot.0, change.id));
                                self.at.insert(change.id, spot.clone());
                            }
                        }
                    }
                }
            }
            assert!(self.parked.is_empty());
            turns
        }
    }

    fn disk(at: &[(u8, u8, &str)]) -> Disk {
        Disk {
            at: at
                .iter()
                .map(|(file, folder, name)| (id(*file), (id(*folder), (*name).to_owned())))
                .collect(),
            ..Disk::default()
        }
    }

    fn changes(disk: &Disk, to: &Disk) -> Vec<Change> {
        let ids: BTreeSet<FileId> = disk.at.keys().chain(to.at.keys()).copied().collect();
        ids.into_iter()
            .map(|id| Change {
                id,
                from: disk.at.get(&id).cloned(),
                to: to.at.get(&id).cloned(),
            })
            .filter(|change| change.from != change.to)
            .collect()
    }

    fn turns(from: &[(u8, u8, &str)], to: &[(u8, u8, &str)]) -> usize {
        let (mut from, to) = (disk(from), disk(to));
        let changes = changes(&from, &to);
        let turns = from.carry_out(&changes).len();
        assert_eq!(from, to);
        turns
    }

    #[test]
    fn chains_need_no_parking_and_exchanges_one() {
        assert_eq!(
            turns(&[(1, 0, "a"), (2, 0, "b")], &[(1, 0, "b"), (2, 0, "c")]),
            2
        );
        assert_eq!(
            turns(&[(1, 0, "a"), (2, 0, "b")], &[(1, 0, "b"), (2, 0, "a")]),
            3
        );
        assert_eq!(
            turns(
                &[(1, 0, "a"), (2, 0, "b"), (3, 0, "c")],
                &[(1, 0, "b"), (2, 0, "c"), (3, 0, "a")]
            ),
            4
        );
    }

    #[test]
    fn a_folder_goes_into_what_was_inside_it() {
        turns(&[(1, 0, "a"), (2, 1, "b")], &[(2, 0, "b"), (1, 2, "a")]);
        turns(&[(1, 0, "a"), (2, 1, "b")], &[(2, 0, "a"), (1, 2, "b")]);
        turns(
            &[(1, 0, "a"), (2, 1, "b"), (3, 2, "c")],
            &[(3, 0, "a"), (2, 3, "b"), (1, 2, "c")],
        );
    }

    #[test]
    fn a_file_takes_the_name_of_a_folder_that_goes_while_another_leaves_it() {
        turns(
            &[(1, 0, "a"), (2, 1, "x"), (3, 1, "y")],
            &[(4, 0, "a"), (2, 0, "x")],
        );
        turns(&[(1, 0, "a"), (2, 1, "a")], &[(2, 0, "a")]);
    }

    #[test]
    fn nothing_is_made_in_a_folder_that_is_aside() {
        turns(
            &[(2, 0, "b"), (1, 0, "c"), (3, 1, "c"), (4, 0, "a")],
            &[
                (2, 0, "c"),
                (3, 0, "a"),
                (1, 3, "a"),
                (8, 1, "c"),
                (4, 0, "b"),
            ],
        );
    }

    #[test]
    fn new_folders_come_before_what_goes_into_them() {
        turns(
            &[(1, 0, "f")],
            &[(9, 0, "new"), (8, 9, "newer"), (1, 8, "f")],
        );
        turns(&[(1, 0, "f")], &[(3, 0, "f"), (1, 3, "f")]);
    }

    /// Random trees of at most 9 files: parent is a smaller number, shuffled by `order`.
    fn random_tree() -> impl Strategy<Value = Vec<(u8, u8, u8)>> {
        (
            Just((1u8..10).collect::<Vec<_>>()).prop_shuffle(),
            proptest::collection::vec((any::<u8>(), 0u8..3), 0..9),
        )
            .prop_map(|(order, places)| {
                let mut tree: Vec<(u8, u8, u8)> = Vec::new();
                for (at, (parent, name)) in places.into_iter().enumerate() {
                    let parent = if at == 0 {
                        0
                    } else {
                        [0].iter()
                            .chain(&order[..at])
                            .copied()
                            .nth(usize::from(parent) % (at + 1))
                            .unwrap_or(0)
                    };
                    let parent = if tree.iter().any(|(file, _, _)| *file == parent) {
                        parent
                    } else {
                        0
                    };
                    if !tree
                        .iter()
                        .any(|(_, folder, other)| (*folder, *other) == (parent, name))
                    {
                        tree.push((order[at], parent, name));
                    }
                }
                tree
            })
    }

    proptest! {
        #[test]
        fn any_tree_becomes_any_other(from in random_tree(), to in random_tree()) {
            let build = |tree: &[(u8, u8, u8)]| Disk { at: tree.iter().map(|(file, folder, name)| (id(*file), (id(*folder), name.to_string()))).collect(), ..Disk::default() };
            let (mut from, to) = (build(&from), build(&to));
            let changes = changes(&from, &to);
            from.carry_out(&changes);
            prop_assert_eq!(from, to);
        }
    }
}
