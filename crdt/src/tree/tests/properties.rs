//! The tree kept in steps shows what the plain recomputation shows, whatever is set in whatever order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::reference::{Picture, States, picture};
use crate::chunks::ChunkRoot;
use crate::files::{
    Content, Dot, FileId, FileState, Kind, MergedInto, Place, Stamp, Trash, check_name,
};
use crate::tree::{Shown, Tree};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The conflict name that the file `a.txt` gets from device `p` on the first day.
const TAKEN: &str = "a (conflict from p, 1970-01-01).txt";

#[derive(Clone, Debug)]
enum Step {
    Set(FileId, Box<FileState>),
    Remove(FileId),
    Take,
}

fn id() -> impl Strategy<Value = FileId> {
    (1u8..=9).prop_map(|n| FileId([n; 16]))
}

/// Any of those, the root, or one that never comes.
fn parent() -> impl Strategy<Value = FileId> {
    prop_oneof![6 => id(), 3 => Just(FileId::ROOT), 1 => Just(FileId([0xee; 16]))]
}

fn stamp() -> impl Strategy<Value = Stamp> {
    (0u64..4, 0u64..3).prop_map(|(day, count)| Stamp(((day * DAY_MS) << 16) + count))
}

fn dot() -> impl Strategy<Value = Dot> {
    (1u8..=3, 1u64..6).prop_map(|(writer, seq)| Dot {
        writer: [writer; 16],
        seq,
    })
}

fn place() -> impl Strategy<Value = Place> {
    let name = prop_oneof![
        4 => Just("a.txt"), 2 => Just("b"), 1 => Just(TAKEN), 1 => Just("a/b"), 1 => Just("c.txt"),
    ];
    let label = prop_oneof![3 => Just("p"), 1 => Just("q/")];
    (parent(), name, stamp(), dot(), label, parent()).prop_map(
        |(parent, name, stamp, dot, label, previous)| Place {
            parent,
            name: name.into(),
            stamp,
            dot,
            label: label.into(),
            previous,
        },
    )
}

fn content(kind: Kind) -> impl Strategy<Value = Option<Content>> {
    let content = (0u8..3, stamp(), dot()).prop_map(move |(hash, stamp, dot)| Content {
        size: 0,
        mtime_ms: 0,
        executable: false,
        hash: [hash; 32],
        target: (kind == Kind::Symlink).then(String::new),
        root: ChunkRoot::empty(),
        stamp,
        dot,
    });
    match kind {
        Kind::Folder => Just(None).boxed(),
        Kind::File | Kind::Symlink => proptest::option::weighted(0.9, content).boxed(),
    }
}

fn trash() -> impl Strategy<Value = Option<Trash>> {
    let clock =
        proptest::collection::btree_map((1u8..=3).prop_map(|writer| [writer; 16]), 1u64..6, 0..4);
    proptest::option::weighted(
        0.25,
        (clock, stamp(), dot()).prop_map(|(clock, stamp, dot)| Trash { clock, stamp, dot }),
    )
}

fn state() -> impl Strategy<Value = FileState> {
    let kind =
        prop_oneof![5 => Just(Kind::Folder), 4 => Just(Kind::File), 1 => Just(Kind::Symlink)];
    let merging =
        proptest::option::weighted(0.2, (id(), stamp(), dot(), proptest::bool::weighted(0.8)));
    (
        kind.prop_flat_map(|kind| (Just(kind), content(kind))),
        place(),
        (trash(), trash()),
        merging,
    )
        .prop_map(|((kind, content), place, (trash, also), merging)| {
            let is_deletion = |trash: &Trash| !trash.is_restored();
            let also =
                also.filter(|also| is_deletion(also) && trash.as_ref().is_some_and(is_deletion));
            let mut state = FileState {
                kind,
                created_ms: 0,
                place,
                content,
                trash,
                also_deleted: also.into_iter().collect(),
                merged_into: None,
            };
            state.merged_into = merging.map(|(into, stamp, dot, holds)| {
                let merged = MergedInto::of(&state, into, stamp, dot);
                if holds {
                    merged
                } else {
                    MergedInto {
                        place: Dot {
                            writer: [9; 16],
                            seq: 1,
                        },
                        ..merged
                    }
                }
            });
            state
        })
}

fn steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => (id(), state()).prop_map(|(id, state)| Step::Set(id, Box::new(state))),
        2 => id().prop_map(Step::Remove),
        3 => Just(Step::Take),
    ];
    proptest::collection::vec(step, 1..count)
}

/// How the reference says that one is shown, as far as changes of it are told.
#[derive(PartialEq)]
enum Face<'a> {
    Absent,
    Hidden,
    Trashed(&'a Dot, Option<&'a Dot>),
    Listed(&'a Shown, Option<(&'a [u8; 32], Stamp, Dot)>),
}

fn face<'a>(states: &'a States, picture: &'a Picture, id: FileId) -> Face<'a> {
    match (states.get(&id), picture.shown.get(&id)) {
        (
            Some(_),
            Some(Shown {
                same_as: Some(_), ..
            }),
        ) => Face::Hidden,
        (Some(state), Some(Shown { trashed: true, .. })) => Face::Trashed(
            &state.place.dot,
            state.content.as_ref().map(|content| &content.dot),
        ),
        (Some(state), Some(shown)) => Face::Listed(
            shown,
            state
                .content
                .as_ref()
                .map(|content| (&content.hash, content.stamp, content.dot)),
        ),
        _ => Face::Absent,
    }
}

/// Everything that the tree can be asked is as the reference has it.
fn check(tree: &Tree, states: &States, picture: &Picture) -> Result<(), TestCaseError> {
    prop_assert_eq!(tree.len(), states.len());
    for id in states.keys() {
        prop_assert_eq!(
            tree.shown(*id),
            picture.shown.get(id).cloned(),
            "shown {:?}",
            id
        );
    }
    let every: Vec<FileId> = tree.every().map(|every| every.id).collect();
    prop_assert_eq!(every, states.keys().copied().collect::<Vec<_>>());
    for every in tree.every() {
        let shown = &picture.shown[&every.id];
        prop_assert_eq!(every.trashed, shown.trashed);
        prop_assert_eq!(every.is_itself, shown.same_as.is_none());
        prop_assert!(!every.is_itself || *every.name == *shown.name);
    }
    let nothing = BTreeMap::new();
    for &folder in states.keys().chain([&FileId::ROOT]) {
        let stand_in = picture
            .shown
            .get(&folder)
            .and_then(|shown| shown.same_as)
            .unwrap_or(folder);
        prop_assert_eq!(tree.representative(folder), stand_in);
        let list: Vec<(String, FileId)> = tree
            .children(folder)
            .map(|(name, id)| (name.to_string(), id))
            .collect();
        let expected: Vec<(String, FileId)> = picture
            .lists
            .get(&stand_in)
            .unwrap_or(&nothing)
            .clone()
            .into_iter()
            .collect();
        for (name, id) in &expected {
            prop_assert_eq!(check_name(name), Ok(()));
            prop_assert_eq!(tree.lookup(folder, name), Some(*id));
        }
        prop_assert_eq!(list, expected);
        let below: BTreeSet<FileId> = tree.below(folder).collect();
        let expected: BTreeSet<FileId> = states
            .keys()
            .copied()
            .filter(|id| is_below(picture, *id, folder))
            .collect();
        prop_assert_eq!(below, expected);
    }
    for (&id, shown) in &picture.shown {
        let path = tree.path(id);
        prop_assert_eq!(path.is_none(), shown.trashed);
        if let Some(path) = path {
            prop_assert_eq!(tree.resolve(&path), Some(shown.same_as.unwrap_or(id)));
        }
        let group: BTreeSet<FileId> = tree.group(id).into_iter().collect();
        let stand_in = shown.same_as.unwrap_or(id);
        for (other, theirs) in &picture.shown {
            let is_united = *other != stand_in && theirs.same_as == Some(stand_in);
            prop_assert!(is_united || !group.contains(other));
            if is_united && !group.contains(other) {
                prop_assert!(
                    states[other].merged_into.is_some(),
                    "{:?} is left out of the group of {:?}",
                    other,
                    id
                );
            }
        }
    }
    let in_trash = |id: FileId| {
        picture
            .shown
            .get(&id)
            .is_some_and(|shown| shown.trashed && shown.same_as.is_none())
    };
    let topmost: Vec<FileId> = states
        .keys()
        .copied()
        .filter(|&id| in_trash(id) && !in_trash(picture.shown[&id].parent))
        .collect();
    prop_assert_eq!(tree.trashed().collect::<Vec<_>>(), topmost);
    Ok(())
}

fn is_below(picture: &Picture, mut id: FileId, folder: FileId) -> bool {
    while let Some(&up) = picture.ups.get(&id) {
        if up == folder {
            return true;
        }
        id = up;
    }
    false
}

/// What the tree tells is exactly what changed; below a mark it may tell of more. Marks are made only if some document
/// `was_deleted` at any moment since the last time.
fn check_changes(
    tree: &mut Tree,
    before: (&States, &Picture),
    now: (&States, &Picture),
    was_deleted: bool,
) -> Result<(), TestCaseError> {
    let told = tree.take_changed();
    let ids: BTreeSet<FileId> = before.0.keys().chain(now.0.keys()).copied().collect();
    let changed: BTreeSet<FileId> = ids
        .into_iter()
        .filter(|&id| face(before.0, before.1, id) != face(now.0, now.1, id))
        .collect();
    let by_name: BTreeSet<FileId> = told.iter().map(|line| line.id).collect();
    let marked: Vec<FileId> = told
        .iter()
        .filter(|line| line.subtree)
        .map(|line| line.id)
        .collect();
    if marked.is_empty() {
        prop_assert_eq!(&by_name, &changed);
    } else {
        // Also for a moment: what the deletion hid is told of, though it is as it was.
        prop_assert!(was_deleted);
    }
    for id in changed {
        prop_assert!(
            by_name.contains(&id) || marked.iter().any(|&top| is_below(now.1, id, top)),
            "{:?} changed untold",
            id
        );
    }
    prop_assert_eq!(tree.take_changed(), Vec::new());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn each_step_shows_what_full_recomputation_shows(steps in steps(30)) {
        let mut tree = Tree::new();
        let mut states = States::new();
        let mut taken = (States::new(), Picture::default());
        let mut was_deleted = false;
        for step in steps {
            match step {
                Step::Set(id, state) => {
                    tree.set(id, &state);
                    was_deleted |= state.trash.is_some();
                    states.insert(id, *state);
                }
                Step::Remove(id) => {
                    tree.remove(id);
                    states.remove(&id);
                }
                Step::Take => {
                    let now = picture(&states);
                    check_changes(&mut tree, (&taken.0, &taken.1), (&states, &now), was_deleted)?;
                    taken = (states.clone(), now);
                    was_deleted = states.values().any(|state| state.trash.is_some());
                }
            }
            check(&tree, &states, &picture(&states))?;
        }
    }

    #[test]
    fn any_order_of_arrival_shows_the_same(all in proptest::collection::btree_map(id(), state(), 1..10), order in any::<prop::sample::Index>()) {
        let expected = picture(&all);
        let mut ids: Vec<FileId> = all.keys().copied().collect();
        let middle = order.index(ids.len());
        ids.rotate_left(middle);
        for _ in 0..2 {
            let mut tree = Tree::new();
            for id in &ids {
                tree.set(*id, &all[id]);
            }
            check(&tree, &all, &expected)?;
            ids.reverse();
        }
    }

    #[test]
    fn setting_the_same_again_tells_of_nothing(all in proptest::collection::btree_map(id(), state(), 1..10)) {
        let mut tree = Tree::new();
        all.iter().for_each(|(id, state)| tree.set(*id, state));
        tree.take_changed();
        all.iter().for_each(|(id, state)| tree.set(*id, state));
        prop_assert_eq!(tree.take_changed(), Vec::new());
    }
}
