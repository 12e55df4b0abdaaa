//! The rules of the tree, one by one, and against a plain recomputation.

mod deleting;
mod properties;
mod purging;
mod reference;
mod restoring;

use crate::chunks::ChunkRoot;
use crate::files::{
    Content, Dot, FileId, FileState, Kind, MergedInto, Place, Stamp, Trash, check_name,
};
use crate::tree::{Changed, Tree};

const DAY: i64 = 1_795_305_600_000; // 2026-11-22
const LAPTOP: [u8; 16] = [1; 16];
const PHONE: [u8; 16] = [2; 16];

fn id(n: u8) -> FileId {
    FileId([n; 16])
}

/// What the laptop puts somewhere as its entry `seq`, that many milliseconds into the day.
fn place(parent: FileId, name: &str, seq: u64) -> Place {
    Place::new(
        parent,
        name,
        Stamp::from_ms(DAY + seq as i64),
        Dot {
            writer: LAPTOP,
            seq,
        },
        "laptop",
    )
}

fn folder(parent: FileId, name: &str, seq: u64) -> FileState {
    FileState {
        kind: Kind::Folder,
        created_ms: DAY,
        place: place(parent, name, seq),
        content: None,
        trash: None,
        also_deleted: Vec::new(),
        merged_into: None,
    }
}

fn file(parent: FileId, name: &str, seq: u64, bytes: u8) -> FileState {
    let place = place(parent, name, seq);
    let (stamp, dot) = (place.stamp, place.dot);
    let content = Content {
        size: 0,
        mtime_ms: DAY,
        executable: false,
        hash: [bytes; 32],
        target: None,
        root: ChunkRoot::empty(),
        stamp,
        dot,
    };
    FileState {
        kind: Kind::File,
        content: Some(content),
        ..folder(parent, "", seq)
    }
    .at(place)
}

impl FileState {
    fn at(self, place: Place) -> FileState {
        FileState { place, ..self }
    }

    /// As moved by the laptop.
    fn moved(&self, parent: FileId, name: &str, seq: u64) -> FileState {
        let to = place(parent, name, seq);
        self.clone()
            .at(self.place.moved(parent, name, to.stamp, to.dot, "laptop"))
    }

    /// As if all of it had been written by the phone.
    fn by_phone(mut self) -> FileState {
        self.place.dot.writer = PHONE;
        self.place.label = "phone".into();
        if let Some(content) = &mut self.content {
            content.dot.writer = PHONE;
        }
        self
    }

    /// Deleted by one who had seen this much of the laptop's and the phone's log.
    fn deleted(mut self, laptop: u64, phone: u64) -> FileState {
        let clock = [(LAPTOP, laptop), (PHONE, phone)].into();
        self.trash = Some(Trash {
            clock,
            stamp: Stamp::from_ms(DAY + 1000),
            dot: Dot {
                writer: LAPTOP,
                seq: laptop + 1,
            },
        });
        self
    }

    fn merged(mut self, into: FileId) -> FileState {
        self.merged_into = Some(MergedInto::of(
            &self,
            into,
            Stamp::from_ms(DAY + 2000),
            Dot {
                writer: LAPTOP,
                seq: 99,
            },
        ));
        self
    }
}

fn tree(states: &[(u8, FileState)]) -> Tree {
    let mut tree = Tree::new();
    states.iter().for_each(|(n, state)| tree.set(id(*n), state));
    tree.take_changed();
    tree
}

fn list(tree: &Tree, parent: FileId) -> Vec<String> {
    tree.children(parent)
        .map(|(name, _)| name.to_string())
        .collect()
}

fn only(n: u8) -> Vec<Changed> {
    vec![Changed {
        id: id(n),
        subtree: false,
    }]
}

#[test]
fn paths_lead_to_files_and_back() {
    let tree = tree(&[
        (1, folder(FileId::ROOT, "photos", 1)),
        (2, folder(id(1), "2026", 2)),
        (3, file(id(2), "a.jpg", 3, 0)),
    ]);
    assert_eq!(tree.path(id(3)).as_deref(), Some("photos/2026/a.jpg"));
    assert_eq!(tree.resolve("/photos//2026/a.jpg/"), Some(id(3)));
    assert_eq!(tree.resolve(""), Some(FileId::ROOT));
    assert_eq!(tree.path(FileId::ROOT).as_deref(), Some(""));
    assert_eq!(tree.resolve("photos/2025"), None);
    assert_eq!(tree.lookup(id(9), "a.jpg"), None);
    assert_eq!((tree.len(), tree.is_empty()), (3, false));
}

#[test]
fn in_a_cycle_the_latest_move_falls_back_to_the_folder_it_came_from() {
    // Both stood under "top"; the laptop moved a into b, the phone, later, b into a.
    let (a, b) = (folder(id(9), "a", 1), folder(id(9), "b", 2));
    let mut tree = tree(&[
        (9, folder(FileId::ROOT, "top", 3)),
        (1, a.clone()),
        (2, b.clone()),
    ]);
    tree.set(id(1), &a.moved(id(2), "a", 10));
    assert_eq!(tree.path(id(1)).as_deref(), Some("top/b/a"));
    tree.set(id(2), &b.moved(id(1), "b", 11).by_phone());
    assert_eq!(tree.path(id(1)).as_deref(), Some("top/b/a"));
    assert_eq!(tree.path(id(2)).as_deref(), Some("top/b"));
    // Nothing of b's place was rewritten: once a leaves, b is where the phone put it.
    assert_eq!(tree.get(id(2)).unwrap().place.parent, id(1));
    tree.take_changed();
    tree.set(id(1), &a.moved(FileId::ROOT, "a", 12));
    assert_eq!(tree.path(id(2)).as_deref(), Some("a/b"));
    assert_eq!(
        tree.take_changed()
            .iter()
            .map(|line| line.id)
            .collect::<Vec<_>>(),
        [id(1), id(2)]
    );
}

#[test]
fn in_a_cycle_without_a_way_back_the_latest_stands_under_the_root() {
    let (a, b) = (folder(id(2), "a", 1), folder(id(1), "b", 2));
    let first = tree(&[(1, a.clone()), (2, b.clone())]);
    let second = tree(&[(2, b), (1, a)]);
    for tree in [first, second] {
        assert_eq!(tree.path(id(1)).as_deref(), Some("b/a"));
        assert!(!tree.shown(id(2)).unwrap().waiting);
    }
}

#[test]
fn a_folder_in_itself_stands_under_the_root() {
    let tree = tree(&[(1, folder(id(1), "a", 1))]);
    assert_eq!(tree.path(id(1)).as_deref(), Some("a"));
}

#[test]
fn what_arrives_before_its_folder_waits_under_the_root_under_a_telling_name() {
    let mut tree = tree(&[
        (2, file(id(1), "a.txt", 2, 0)),
        (3, file(id(1), "a.txt", 3, 1)),
    ]);
    let shown = tree.shown(id(2)).unwrap();
    assert!(shown.waiting && shown.parent == FileId::ROOT);
    assert_eq!(
        &*shown.name,
        format!("a (waiting for its folder, {}).txt", id(2))
    );
    tree.set(id(1), &folder(FileId::ROOT, "docs", 1));
    assert_eq!(tree.path(id(2)).as_deref(), Some("docs/a.txt"));
    assert_eq!(list(&tree, FileId::ROOT), ["docs"]);
    assert_eq!(tree.take_changed().len(), 3);
    tree.remove(id(1));
    assert!(tree.shown(id(2)).unwrap().waiting);
    assert_eq!(tree.take_changed().len(), 3);
}

#[test]
fn a_file_is_no_folder_to_stand_in() {
    let tree = tree(&[
        (1, file(FileId::ROOT, "a", 1, 0)),
        (2, file(id(1), "b", 2, 0)),
    ]);
    assert!(tree.shown(id(2)).unwrap().waiting);
}

#[test]
fn different_files_of_one_name_both_stay_and_the_later_says_where_it_is_from() {
    let mut tree = tree(&[(1, file(FileId::ROOT, "a.txt", 1, 1))]);
    tree.set(id(2), &file(FileId::ROOT, "a.txt", 2, 2).by_phone());
    assert_eq!(
        list(&tree, FileId::ROOT),
        ["a (conflict from phone, 2026-11-22).txt", "a.txt"]
    );
    assert_eq!(tree.take_changed(), only(2));
    // The earlier one goes: the later one has the name.
    tree.set(id(1), &file(FileId::ROOT, "b.txt", 3, 1));
    assert_eq!(tree.lookup(FileId::ROOT, "a.txt"), Some(id(2)));
    assert_eq!(tree.take_changed().len(), 2);
}

#[test]
fn an_earlier_file_that_comes_later_takes_the_name() {
    let mut tree = tree(&[(2, file(FileId::ROOT, "a.txt", 2, 2).by_phone())]);
    tree.set(id(1), &file(FileId::ROOT, "a.txt", 1, 1));
    assert_eq!(tree.lookup(FileId::ROOT, "a.txt"), Some(id(1)));
    assert_eq!(tree.take_changed().len(), 2);
}

#[test]
fn conflict_names_that_are_taken_get_the_id() {
    let taken = "a (conflict from laptop, 2026-11-22).txt";
    let mut tree = tree(&[
        (1, file(FileId::ROOT, "a.txt", 1, 1)),
        (2, file(FileId::ROOT, "a.txt", 2, 2)),
        (3, file(FileId::ROOT, "a.txt", 3, 3)),
    ]);
    let third = format!("a (conflict from laptop, 2026-11-22, {}).txt", id(3));
    assert_eq!(tree.lookup(FileId::ROOT, taken), Some(id(2)));
    assert_eq!(tree.lookup(FileId::ROOT, &third), Some(id(3)));
    // Something that is really called so comes before both, and its going gives the name back.
    tree.set(id(4), &file(FileId::ROOT, taken, 4, 4));
    let second = format!("a (conflict from laptop, 2026-11-22, {}).txt", id(2));
    assert_eq!(tree.lookup(FileId::ROOT, taken), Some(id(4)));
    assert_eq!(tree.lookup(FileId::ROOT, &second), Some(id(2)));
    assert_eq!(
        tree.take_changed()
            .iter()
            .map(|line| line.id)
            .collect::<Vec<_>>(),
        [id(2), id(4)]
    );
    tree.remove(id(4));
    assert_eq!(tree.lookup(FileId::ROOT, taken), Some(id(2)));
    // And so does the going of who had it.
    tree.remove(id(2));
    assert_eq!(tree.lookup(FileId::ROOT, taken), Some(id(3)));
}

#[test]
fn a_conflict_about_a_conflict_copy_is_named_after_the_original() {
    let copy = "a (conflict from laptop, 2026-11-22).txt";
    let tree = tree(&[
        (1, file(FileId::ROOT, "a.txt", 1, 1)),
        (2, file(FileId::ROOT, copy, 2, 2)),
        (3, file(FileId::ROOT, copy, 3, 3).by_phone()),
        (4, file(FileId::ROOT, copy, 4, 4)),
        (5, file(FileId::ROOT, "a.txt", 5, 5).by_phone()),
    ]);
    let name = |n: u8| tree.shown(id(n)).unwrap().name.to_string();
    assert_eq!(name(2), copy);
    assert_eq!(name(3), "a (conflict from phone, 2026-11-22).txt");
    assert_eq!(
        name(4),
        format!("a (conflict from laptop, 2026-11-22, {}).txt", id(4))
    );
    // Two copies that want one name, of two groups: the earlier has it.
    assert_eq!(
        name(5),
        format!("a (conflict from phone, 2026-11-22, {}).txt", id(5))
    );
}

#[test]
fn folders_of_one_name_show_as_one_with_all_that_they_list() {
    let (a, b) = (
        folder(FileId::ROOT, "docs", 1),
        folder(FileId::ROOT, "docs", 2).by_phone(),
    );
    let mut tree = tree(&[
        (1, a),
        (2, b.clone()),
        (3, file(id(1), "x", 3, 0)),
        (4, file(id(2), "y", 4, 0)),
    ]);
    assert_eq!(list(&tree, FileId::ROOT), ["docs"]);
    assert_eq!(list(&tree, id(1)), ["x", "y"]);
    assert_eq!(list(&tree, id(2)), ["x", "y"]);
    assert_eq!(tree.shown(id(4)).unwrap().parent, id(1));
    assert_eq!(
        (
            tree.representative(id(2)),
            tree.group(id(1)),
            tree.group(id(2))
        ),
        (id(1), vec![id(2)], vec![id(2)])
    );
    // Renaming one without merging takes them apart, and tells of what stood in it.
    tree.set(id(2), &b.moved(FileId::ROOT, "papers", 5));
    assert_eq!(tree.path(id(4)).as_deref(), Some("papers/y"));
    assert_eq!(
        tree.take_changed()
            .iter()
            .map(|line| line.id)
            .collect::<Vec<_>>(),
        [id(2), id(4)]
    );
}

#[test]
fn folders_in_united_folders_unite_too() {
    let tree = tree(&[
        (1, folder(FileId::ROOT, "docs", 1)),
        (2, folder(FileId::ROOT, "docs", 2)),
        (3, folder(id(1), "tax", 3)),
        (4, folder(id(2), "tax", 4)),
        (5, file(id(4), "a", 5, 0)),
        (6, file(id(3), "a", 6, 1)),
    ]);
    assert_eq!(tree.path(id(5)).as_deref(), Some("docs/tax/a"));
    assert_eq!(
        tree.path(id(6)).as_deref(),
        Some("docs/tax/a (conflict from laptop, 2026-11-22)")
    );
}

#[test]
fn merged_folders_stay_one_whatever_becomes_of_the_name() {
    let (a, b) = (
        folder(FileId::ROOT, "docs", 1),
        folder(FileId::ROOT, "docs", 2),
    );
    let mut tree = tree(&[(1, a.clone()), (2, b.clone()), (4, file(id(2), "y", 4, 0))]);
    tree.set(id(2), &b.clone().merged(id(1)));
    tree.set(id(1), &a.moved(FileId::ROOT, "papers", 5));
    assert_eq!(tree.path(id(4)).as_deref(), Some("papers/y"));
    assert_eq!(tree.shown(id(2)).unwrap().same_as, Some(id(1)));
    assert_eq!(tree.group(id(1)), []);
    // Somebody who did not know of the merging moved the second one: that counts.
    let mut moved = b.clone().merged(id(1));
    moved.place = b.moved(FileId::ROOT, "mine", 6).by_phone().place;
    tree.set(id(2), &moved);
    assert_eq!(tree.path(id(4)).as_deref(), Some("mine/y"));
}

#[test]
fn an_edit_that_the_merging_had_not_seen_is_not_hidden() {
    let (a, b) = (file(FileId::ROOT, "a", 1, 7), file(FileId::ROOT, "a", 2, 7));
    let mut tree = tree(&[(1, a), (2, b.clone().merged(id(1)))]);
    assert_eq!(list(&tree, FileId::ROOT), ["a"]);
    let mut edited = b.clone().merged(id(1));
    edited.content = file(FileId::ROOT, "a", 3, 8).by_phone().content;
    tree.set(id(2), &edited);
    assert_eq!(
        list(&tree, FileId::ROOT),
        ["a", "a (conflict from laptop, 2026-11-22)"]
    );
}

#[test]
fn two_files_merged_into_each_other_show_once() {
    let tree = tree(&[
        (1, file(FileId::ROOT, "a", 1, 7).merged(id(2))),
        (2, file(FileId::ROOT, "a", 2, 7).merged(id(1))),
    ]);
    assert_eq!(list(&tree, FileId::ROOT), ["a"]);
}

#[test]
fn no_shown_name_is_unsafe_on_disk() {
    let names = [
        "",
        ".",
        "..",
        "a/b",
        "../../etc/passwd",
        "nul\0",
        &"x".repeat(300),
    ];
    let mut tree = Tree::new();
    for (n, name) in (1..).zip(names) {
        tree.set(id(n), &file(FileId::ROOT, name, u64::from(n), n));
    }
    assert_eq!(tree.children(FileId::ROOT).count(), names.len());
    for (name, found) in tree.children(FileId::ROOT) {
        assert_eq!(check_name(name), Ok(()));
        assert_eq!(tree.resolve(name), Some(found));
    }
    assert_eq!(tree.get(id(4)).unwrap().place.name, "a/b");
}

#[test]
fn nothing_can_be_said_of_the_root() {
    let mut tree = Tree::new();
    tree.set(FileId::ROOT, &folder(id(1), "a", 1).deleted(9, 9));
    assert!(tree.is_empty() && tree.shown(FileId::ROOT).is_none());
    assert_eq!(tree.take_changed(), []);
}

#[test]
fn what_went_and_came_back_is_not_told() {
    let a = folder(FileId::ROOT, "a", 1);
    let mut tree = tree(&[(1, a.clone())]);
    tree.set(id(1), &a.moved(FileId::ROOT, "b", 2));
    tree.set(id(1), &a);
    assert_eq!(tree.take_changed(), []);
}

/// A folder was deleted and, as the deleter had not seen, moved into one that stood in it: the cycle takes that one out
/// of the deleted folder, and with it things of which nothing was told because they were below.
#[test]
fn what_leaves_a_deleted_folder_before_the_changes_are_taken_is_told_of() {
    let outer = folder(FileId::ROOT, "outer", 1).deleted(20, 20);
    let inner = folder(id(3), "inner", 2).moved(id(1), "inner", 10);
    let mut start = vec![
        (1, folder(FileId::ROOT, "outer", 1)),
        (2, inner.clone()),
        (3, folder(FileId::ROOT, "old", 3)),
    ];
    start.push((4, file(id(2), "file", 4, 0)));
    let moved = outer.clone().moved(id(2), "outer", 5).by_phone();

    let mut tree = tree(&start[..3]);
    tree.set(id(1), &outer);
    tree.set(id(1), &moved);
    assert_eq!(tree.path(id(2)).as_deref(), Some("old/inner"));
    tree.set(id(2), &inner.clone().deleted(20, 20));
    assert!(tree.shown(id(2)).unwrap().trashed);
    assert_eq!(
        tree.take_changed()
            .iter()
            .map(|line| line.id)
            .collect::<Vec<_>>(),
        [id(1), id(2)]
    );

    let mut tree = self::tree(&start);
    tree.set(id(1), &outer);
    tree.set(id(2), &inner.deleted(20, 20));
    tree.set(id(1), &moved);
    assert!(tree.shown(id(4)).unwrap().trashed);
    assert!(!tree.below(id(1)).any(|below| below == id(4)));
    assert!(tree.take_changed().contains(&Changed {
        id: id(2),
        subtree: true
    }));
}

#[test]
fn moving_a_folder_of_many_tells_of_that_folder_only() {
    let docs = folder(FileId::ROOT, "docs", 1);
    let mut tree = tree(&[(1, docs.clone()), (2, folder(FileId::ROOT, "old", 2))]);
    for n in 0..2_000u32 {
        let mut each = [9; 16];
        each[..4].copy_from_slice(&n.to_be_bytes());
        tree.set(FileId(each), &file(id(1), &format!("{n}"), 3, 0));
    }
    tree.take_changed();
    tree.set(id(1), &docs.moved(id(2), "documents", 4));
    assert_eq!(tree.take_changed(), only(1));
    assert_eq!(tree.children(id(1)).count(), 2_000);
}

#[test]
fn a_very_deep_tree_is_no_danger() {
    let mut tree = Tree::new();
    let deep = |n: u32| {
        let mut each = [9; 16];
        each[..4].copy_from_slice(&n.to_be_bytes());
        FileId(each)
    };
    let depth = 3_000;
    for n in (0..depth).rev() {
        let parent = if n == 0 { FileId::ROOT } else { deep(n - 1) };
        tree.set(deep(n), &folder(parent, "d", u64::from(n)));
    }
    assert_eq!(
        tree.path(deep(depth - 1)).unwrap().len() as u32,
        2 * depth - 1
    );
    tree.take_changed();
    tree.set(
        deep(0),
        &folder(FileId::ROOT, "d", 0).deleted(u64::from(depth), 0),
    );
    assert_eq!(
        tree.take_changed(),
        [Changed {
            id: deep(0),
            subtree: true
        }]
    );
    assert_eq!(tree.below(deep(0)).count() as u32, depth - 1);
    assert!(tree.shown(deep(depth - 1)).unwrap().trashed);
    // All of it in its own last folder.
    tree.set(deep(0), &folder(deep(depth - 1), "d", 1_000_000));
    assert_eq!(tree.path(deep(0)).as_deref(), Some("d"));
}

fn deleted(mut state: FileState, writer: [u8; 16], seq: u64) -> FileState {
    state.trash = Some(Trash {
        clock: [(LAPTOP, 100), (PHONE, seq)].into(),
        stamp: Stamp::from_ms(DAY + 1000 + seq as i64),
        dot: Dot { writer, seq },
    });
    state
}
