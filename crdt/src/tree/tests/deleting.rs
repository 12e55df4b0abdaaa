//! What a deletion reaches, and what it leaves because the deleter had not seen it.

use super::{DAY, LAPTOP, PHONE, file, folder, id, list, only, tree};
use crate::files::{Dot, FileId, FileState, Stamp, Trash};
use crate::tree::Changed;

#[test]
fn deleting_a_folder_takes_what_the_deleter_had_seen() {
    let docs = folder(FileId::ROOT, "docs", 1);
    let mut tree = tree(&[
        (1, docs.clone()),
        (2, file(id(1), "seen", 2, 0)),
        (3, file(id(1), "unseen", 9, 0)),
    ]);
    tree.set(id(1), &docs.clone().deleted(5, 0));
    assert_eq!(list(&tree, id(1)), ["unseen"]);
    assert_eq!(
        list(&tree, FileId::ROOT),
        ["docs"],
        "a folder with surviving content stays"
    );
    assert_eq!(tree.trashed().collect::<Vec<_>>(), [id(2)]);
    assert_eq!(
        tree.take_changed(),
        [Changed {
            id: id(1),
            subtree: true
        }]
    );
    tree.set(id(1), &docs.clone().deleted(9, 0));
    assert_eq!(list(&tree, FileId::ROOT), Vec::<String>::new());
    assert_eq!(tree.trashed().collect::<Vec<_>>(), [id(1)]);
    assert!(tree.shown(id(3)).unwrap().trashed);
    assert_eq!(tree.path(id(3)), None);
    tree.set(
        id(1),
        &FileState {
            trash: Some(Trash::restored(
                Stamp::from_ms(DAY),
                Dot {
                    writer: LAPTOP,
                    seq: 12,
                },
            )),
            ..docs
        },
    );
    assert_eq!(list(&tree, id(1)), ["seen", "unseen"]);
    assert_eq!(
        tree.take_changed(),
        [Changed {
            id: id(1),
            subtree: true
        }]
    );
}

#[test]
fn an_edit_that_the_deleter_had_not_seen_brings_a_file_back() {
    let a = file(FileId::ROOT, "a", 1, 0).deleted(5, 5);
    let mut tree = tree(&[(1, a.clone())]);
    assert!(tree.shown(id(1)).unwrap().trashed);
    let mut edited = a.clone();
    edited.content = file(FileId::ROOT, "a", 6, 1).by_phone().content;
    tree.set(id(1), &edited);
    assert!(!tree.shown(id(1)).unwrap().trashed);
    assert_eq!(tree.take_changed(), only(1));
}

#[test]
fn what_is_in_the_trash_takes_no_name_away() {
    let mut tree = tree(&[
        (1, file(FileId::ROOT, "a", 1, 1).deleted(1, 0)),
        (2, file(FileId::ROOT, "a", 2, 2)),
    ]);
    assert_eq!(list(&tree, FileId::ROOT), ["a"]);
    tree.set(id(1), &file(FileId::ROOT, "a", 1, 1));
    assert_eq!(tree.lookup(FileId::ROOT, "a"), Some(id(1)));
    assert_eq!(tree.take_changed().len(), 2);
}

#[test]
fn moving_into_a_deleted_folder_what_the_deleter_had_not_seen_there_saves_it() {
    let tree = tree(&[
        (1, folder(FileId::ROOT, "docs", 1).deleted(5, 0)),
        (2, file(FileId::ROOT, "a", 2, 0).moved(id(1), "a", 6)),
    ]);
    assert_eq!(tree.path(id(2)).as_deref(), Some("docs/a"));
}

/// The laptop saw a file come into the folder and the phone saw it edited, and both deleted the folder: neither had seen
/// the edited file in it.
#[test]
fn of_deletions_at_the_same_time_each_takes_what_it_had_seen_itself() {
    let docs = folder(FileId::ROOT, "docs", 1);
    let mut edited = file(id(1), "a", 6, 0);
    if let Some(content) = &mut edited.content {
        content.dot = Dot {
            writer: PHONE,
            seq: 6,
        };
    }
    let laptop = docs.clone().deleted(6, 0).trash.unwrap();
    let phone = docs.clone().deleted(5, 6).trash.unwrap();
    let both = |one: &Trash, other: &Trash| FileState {
        trash: Some(one.clone()),
        also_deleted: vec![other.clone()],
        ..docs.clone()
    };
    let mut tree = tree(&[
        (1, both(&laptop, &phone)),
        (2, edited.clone()),
        (3, file(id(1), "only the laptop's", 6, 1)),
        (4, file(id(1), "only the phone's", 6, 2).by_phone()),
    ]);
    assert_eq!(list(&tree, id(1)), ["a"]);
    assert!(tree.deletion(id(2)).is_none());
    assert_eq!(tree.deletion(id(3)), Some(&laptop));
    assert_eq!(tree.deletion(id(4)), Some(&phone));
    // Whoever deletes it once more has seen it.
    tree.set(id(1), &docs.clone().deleted(6, 6));
    assert!(list(&tree, FileId::ROOT).is_empty());
    tree.set(id(1), &both(&phone, &laptop));
    assert_eq!(list(&tree, id(1)), ["a"]);
}

#[test]
fn a_folder_moved_into_a_deleted_one_unseen_by_the_deleter_keeps_what_is_in_it() {
    let mut tree = tree(&[
        (1, folder(FileId::ROOT, "docs", 1).deleted(5, 0)),
        (
            2,
            folder(FileId::ROOT, "photos", 2).moved(id(1), "photos", 6),
        ),
        (3, file(id(2), "a", 3, 0)),
    ]);
    assert_eq!(tree.path(id(3)).as_deref(), Some("docs/photos/a"));
    // Where the deleter had seen it there, the deletion reaches all of it.
    let seen = folder(FileId::ROOT, "photos", 2).moved(id(1), "photos", 4);
    tree.set(id(2), &seen);
    assert!(tree.shown(id(3)).unwrap().trashed);
    assert!(tree.deletion(id(3)).is_some());
    tree.set(
        id(2),
        &folder(FileId::ROOT, "photos", 2).moved(id(1), "photos", 6),
    );
    assert!(!tree.shown(id(3)).unwrap().trashed);
}
