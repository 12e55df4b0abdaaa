//! What goes from the trash for good, and what does not.

use super::{DAY, LAPTOP, PHONE, deleted, file, folder, id};
use crate::files::{Dot, FileId, Purge, Stamp, Trash};
use crate::tree::Tree;

/// What the laptop purged as its entry `seq`, having seen that much of itself and the phone.
fn purge(seq: u64, phone: u64) -> Purge {
    Purge {
        clock: [(LAPTOP, seq), (PHONE, phone)].into(),
        stamp: Stamp::from_ms(DAY + seq as i64),
        dot: Dot {
            writer: LAPTOP,
            seq,
        },
    }
}

#[test]
fn purging_a_folder_reaches_what_was_in_the_trash_with_it() {
    let mut tree = Tree::new();
    tree.set(id(1), &deleted(folder(FileId::ROOT, "old", 1), PHONE, 5));
    tree.set(id(2), &file(id(1), "a", 2, 1));
    assert_eq!(tree.trashed().collect::<Vec<_>>(), [id(1)]);
    assert!(tree.deletion(id(2)).is_some_and(|trash| trash.dot.seq == 5));
    tree.set_purge(id(1), Some(purge(50, 5)));
    assert_eq!(tree.trashed().count(), 0);
    assert_eq!(tree.purged_ids(), [id(1), id(2)].into());
    // A file that came later lives, and so does its folder; the one that was purged stays purged.
    tree.set(id(3), &file(id(1), "new", 101, 2));
    assert_eq!(tree.path(id(3)).as_deref(), Some("old/new"));
    assert_eq!(tree.purged_ids(), [id(2)].into());
}

#[test]
fn what_was_brought_out_of_the_trash_meanwhile_is_not_purged() {
    let mut tree = Tree::new();
    let state = file(FileId::ROOT, "a", 1, 1);
    tree.set(id(1), &deleted(state.clone(), PHONE, 5));
    tree.set_purge(id(1), Some(purge(50, 5)));
    assert!(tree.is_purged(id(1)));
    // Restored, and deleted once more: the purge had seen neither.
    let mut restored = state.clone();
    restored.trash = Some(Trash::restored(
        Stamp::from_ms(DAY + 2000),
        Dot {
            writer: PHONE,
            seq: 6,
        },
    ));
    tree.set(id(1), &restored);
    assert!(!tree.is_purged(id(1)) && tree.path(id(1)).is_some());
    tree.set(id(1), &deleted(state.clone(), PHONE, 7));
    assert_eq!(tree.trashed().collect::<Vec<_>>(), [id(1)]);
    // Nor does an old purge reach what a folder's later deletion takes along.
    let mut tree = Tree::new();
    tree.set(id(1), &file(id(2), "a", 1, 1));
    tree.set_purge(id(1), Some(purge(50, 5)));
    tree.set(id(2), &deleted(folder(FileId::ROOT, "f", 2), PHONE, 7));
    assert_eq!(tree.trashed().collect::<Vec<_>>(), [id(2)]);
    assert!(tree.purged_ids().is_empty());
    // An edit that the purge had not seen keeps a file out of the trash altogether.
    let mut tree = Tree::new();
    tree.set(id(1), &deleted(file(FileId::ROOT, "a", 101, 1), PHONE, 5));
    tree.set_purge(id(1), Some(purge(50, 5)));
    assert!(!tree.is_purged(id(1)));
}
