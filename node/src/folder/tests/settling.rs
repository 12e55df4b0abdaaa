//! Conflicts, found in the tree and settled in it.

use std::slice;

use super::super::conflicts::{Conflict, Keep, conflicts, conflicts_with, settle};
use super::planner::pair;
use super::puppet::{Puppet, sync};
use crate::folder::FolderVault;
use crate::vault::request::{CommitRequest, ContentDraft};
use coffer_crdt::files::FileId;

fn found(device: &Puppet) -> Vec<Conflict> {
    conflicts(&device.vault.tree(), FileId::ROOT)
}

/// Both change a file without knowing of each other.
fn apart(a: &mut Puppet, b: &mut Puppet, name: &str) {
    a.write(name, "old");
    sync(a, b);
    a.write(name, "by a");
    b.write(name, "by b!");
    sync(a, b);
}

fn carry_out(device: &Puppet, conflict: &Conflict, keep: Keep) {
    let content = device.vault.file_contents(&[conflict.copy]).unwrap();
    let content = content.into_iter().next().flatten();
    let draft = content.map(|content| ContentDraft {
        size: content.size,
        mtime_ms: content.mtime_ms,
        executable: content.executable,
        hash: content.hash,
        target: content.target,
        root: content.root,
    });
    let operations = settle(&device.vault.tree(), conflict, keep, draft);
    let request = CommitRequest {
        operations,
        ..CommitRequest::default()
    };
    device.vault.commit_now(request).unwrap();
}

#[test]
fn a_conflict_is_the_same_on_all_devices_and_settled_for_all() {
    for keep in [Keep::Mine, Keep::Theirs, Keep::Both] {
        let (mut a, mut b) = pair();
        apart(&mut a, &mut b, "f.txt");
        let conflict = found(&a).remove(0);
        assert_eq!(found(&b), slice::from_ref(&conflict));
        assert_eq!(
            conflicts_with(&a.vault.tree(), conflict.original),
            slice::from_ref(&conflict)
        );
        let before = a.listing();
        let copy = b.vault.tree().path(conflict.copy).unwrap();
        carry_out(&b, &conflict, keep);
        sync(&mut a, &mut b);
        assert!(found(&a).is_empty() && found(&b).is_empty());
        assert_eq!(a.listing(), b.listing());
        let stays = if keep == Keep::Theirs { &copy } else { "f.txt" };
        assert_eq!(a.listing()["f.txt"], before[stays]);
        assert_eq!(a.listing().len(), if keep == Keep::Both { 2 } else { 1 });
    }
}

#[test]
fn what_was_settled_is_left_alone_by_later_conflicts_of_the_day() {
    let (mut a, mut b) = pair();
    apart(&mut a, &mut b, "log");
    let conflict = found(&a).remove(0);
    carry_out(&a, &conflict, Keep::Both);
    sync(&mut a, &mut b);
    let ordinary = a.vault.tree().path(conflict.copy).unwrap();
    let text = a.listing()[&ordinary].clone();
    for round in 0..20 {
        a.write("log", &format!("a {round}"));
        b.write("log", &format!("b {round} "));
        sync(&mut a, &mut b);
    }
    assert_eq!(a.listing(), b.listing());
    assert_eq!(a.listing()[&ordinary], text);
    assert!(a.listing().len() <= 12, "{:?}", a.listing());
    assert_eq!(found(&a).len(), a.listing().len() - 2);
    for conflict in found(&b) {
        carry_out(&b, &conflict, Keep::Mine);
    }
    sync(&mut a, &mut b);
    assert_eq!(a.listing().len(), 2, "{:?}", a.listing());
}

#[test]
fn a_device_that_comes_late_to_a_settled_conflict_does_not_begin_it_again() {
    let cloud = std::sync::Arc::new(super::cloud::Cloud::default());
    let mut devices = [1, 2, 3].map(|number| Puppet::new(number, cloud.clone()));
    let [a, b, late] = &mut devices;
    a.write("f", "old");
    sync(a, b);
    a.write("f", "by a");
    a.settle();
    // The third has seen one of the two when it goes away.
    late.vault.pull(&a.vault);
    late.settle();
    b.write("f", "by b!");
    sync(a, b);
    let conflict = found(a).remove(0);
    carry_out(a, &conflict, Keep::Mine);
    sync(a, b);
    late.vault.pull(&a.vault);
    late.settle();
    sync(a, late);
    sync(a, b);
    assert_eq!(a.listing().len(), 1, "{:?}", a.listing());
    assert_eq!(a.listing(), late.listing());
}

#[test]
fn a_folder_and_a_file_of_one_name_are_a_conflict_too() {
    for keep in [Keep::Mine, Keep::Theirs, Keep::Both] {
        let (mut a, mut b) = pair();
        a.write("thing", "a file");
        b.write("thing/inside", "in a folder");
        sync(&mut a, &mut b);
        let conflict = found(&a).remove(0);
        assert_eq!(found(&b), slice::from_ref(&conflict));
        carry_out(&a, &conflict, keep);
        sync(&mut a, &mut b);
        assert!(found(&a).is_empty() && found(&b).is_empty());
        assert_eq!(a.listing(), b.listing());
        let names: Vec<String> = a.listing().into_keys().collect();
        assert_eq!(names.iter().filter(|name| *name == "thing").count(), 1);
        assert!(
            !names.iter().any(|name| name.contains("conflict")),
            "{names:?}"
        );
    }
}

#[test]
fn copies_that_became_equal_or_lost_their_original_are_no_conflict() {
    let (mut a, mut b) = pair();
    apart(&mut a, &mut b, "f");
    let copy = a.vault.tree().path(found(&a)[0].copy).unwrap();
    let text = a.listing()["f"].clone().unwrap();
    a.write(&copy, &text);
    sync(&mut a, &mut b);
    assert!(found(&b).is_empty());
    a.write(&copy, "different again");
    sync(&mut a, &mut b);
    assert_eq!(found(&b).len(), 1);
    a.remove("f");
    sync(&mut a, &mut b);
    assert!(found(&b).is_empty());
}
