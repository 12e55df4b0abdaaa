//! What comes back with a folder.

use super::{DAY, LAPTOP, PHONE, deleted, file, folder, id};
use crate::files::{FileId, FileState, Stamp};
use crate::tree::Tree;

const MINUTE: i64 = 60_000;

/// Deleted by itself, so long after the day began.
fn gone(state: FileState, writer: [u8; 16], seq: u64, ms: i64) -> FileState {
    let mut state = deleted(state, writer, seq);
    if let Some(trash) = &mut state.trash {
        trash.stamp = Stamp::from_ms(DAY + ms);
    }
    state
}

fn with(tree: &Tree, folder: u8) -> Vec<FileId> {
    let mut found = tree.deleted_with(id(folder), 10 * MINUTE as u64);
    found.sort();
    found
}

#[test]
fn what_was_deleted_shortly_before_its_folder_comes_back_with_it() {
    let mut tree = Tree::new();
    let end = 60 * MINUTE;
    tree.set(id(1), &gone(folder(FileId::ROOT, "d", 1), LAPTOP, 20, end));
    let inner = gone(folder(id(1), "inner", 2), LAPTOP, 15, end - MINUTE);
    tree.set(id(2), &inner);
    let in_inner = file(id(2), "a", 3, 1);
    tree.set(id(3), &gone(in_inner, LAPTOP, 10, end - 10 * MINUTE));
    // Long before, by another device, and in the same stroke as the folder.
    let old = file(id(1), "old", 4, 1);
    tree.set(id(4), &gone(old, LAPTOP, 9, end - 10 * MINUTE - 1));
    let others = file(id(1), "others", 5, 1);
    tree.set(id(5), &gone(others, PHONE, 7, end - MINUTE));
    tree.set(id(6), &file(id(1), "last", 6, 1));
    // Elsewhere at the same time.
    let elsewhere = file(FileId::ROOT, "elsewhere", 7, 1);
    tree.set(id(7), &gone(elsewhere, LAPTOP, 11, end - MINUTE));
    assert_eq!(with(&tree, 1), [id(2), id(3)]);
    assert_eq!(with(&tree, 2), [id(3)]);
    assert_eq!(with(&tree, 3), []);
    assert_eq!(with(&tree, 9), []);
}

#[test]
fn of_several_of_one_name_only_the_last_one_comes_back() {
    let mut tree = Tree::new();
    let end = 60 * MINUTE;
    tree.set(id(1), &gone(folder(FileId::ROOT, "d", 1), LAPTOP, 20, end));
    let first = file(id(1), "a", 2, 1);
    tree.set(id(2), &gone(first, LAPTOP, 10, end - 2 * MINUTE));
    let second = file(id(1), "a", 3, 2);
    tree.set(id(3), &gone(second, LAPTOP, 11, end - MINUTE));
    assert_eq!(with(&tree, 1), [id(3)]);
    // One that went with the folder is later than both.
    tree.set(id(4), &file(id(1), "a", 4, 3));
    assert_eq!(with(&tree, 1), []);
}

#[test]
fn with_what_is_not_in_the_trash_nothing_comes_back() {
    let mut tree = Tree::new();
    tree.set(id(1), &folder(FileId::ROOT, "d", 1));
    tree.set(id(2), &gone(file(id(1), "a", 2, 1), LAPTOP, 10, 0));
    assert_eq!(with(&tree, 1), []);
}
