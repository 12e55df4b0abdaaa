//! What people do to a folder, and what becomes of it on the other side.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use super::cloud::Cloud;
use super::puppet::{Puppet, sync};

pub(super) fn pair() -> (Puppet, Puppet) {
    let cloud = Arc::new(Cloud::default());
    (Puppet::new(1, cloud.clone()), Puppet::new(2, cloud))
}

/// Both hold the files (path, bytes); what `a` then does is on both in the end. Returns what it took: files that `a`
/// read, operations it committed, contents that `b` wrote.
fn on_both(
    files: &[(&str, &str)],
    act: impl FnOnce(&Puppet),
) -> (Puppet, Puppet, (usize, usize, usize)) {
    let (mut a, mut b) = pair();
    for (path, bytes) in files {
        a.write(path, bytes);
    }
    sync(&mut a, &mut b);
    assert_eq!(a.listing(), b.listing());
    act(&a);
    let expected = a.listing();
    let operations = a.vault.operations();
    let read = a.local();
    let operations = a.vault.operations() - operations;
    b.vault.pull(&a.vault);
    let written = b.remote(None);
    assert_eq!(b.listing(), expected);
    sync(&mut a, &mut b);
    assert_eq!((a.listing(), b.listing()), (expected.clone(), expected));
    assert_eq!(a.conflicts + b.conflicts, 0);
    (a, b, (read, operations, written))
}

fn took(files: &[(&str, &str)], act: impl FnOnce(&Puppet)) -> (usize, usize, usize) {
    on_both(files, act).2
}

#[test]
fn new_files_and_folders_come_over() {
    assert_eq!(took(&[], |a| a.write("x/y/f", "1")), (1, 3, 1));
}

#[test]
fn a_renamed_file_is_one_operation_and_no_bytes() {
    assert_eq!(took(&[("f", "1")], |a| a.rename("f", "g")), (0, 1, 0));
}

#[test]
fn a_renamed_folder_is_one_operation_and_no_bytes() {
    assert_eq!(
        took(&[("d/f", "1"), ("d/e/g", "2")], |a| a.rename("d", "moved")),
        (0, 1, 0)
    );
}

#[test]
fn a_file_moved_into_a_new_folder_is_not_read_again() {
    assert_eq!(
        took(&[("f", "1")], |a| {
            std::fs::create_dir(a.path("new")).unwrap();
            a.rename("f", "new/f");
        }),
        (0, 2, 0)
    );
}

#[test]
fn exchanged_and_chained_names_move_nothing_but_names() {
    let swap = |a: &Puppet| {
        a.rename("a", "t");
        a.rename("b", "a");
        a.rename("t", "b");
    };
    assert_eq!(took(&[("a", "1"), ("b", "2")], swap), (0, 3, 0));
    assert_eq!(took(&[("a/x", "1"), ("b/y", "2")], swap), (0, 3, 0));
    let chain = |a: &Puppet| {
        a.rename("b", "c");
        a.rename("a", "b");
    };
    assert_eq!(took(&[("a", "1"), ("b", "2")], chain), (0, 2, 0));
}

#[test]
fn a_folder_changes_places_with_one_inside_it() {
    let act = |a: &Puppet| {
        a.rename("a/b", "t");
        a.rename("a", "t/a");
        a.rename("t", "b");
    };
    let (read, _, written) = took(&[("a/b/f", "1"), ("a/g", "2")], act);
    assert_eq!((read, written), (0, 0));
}

#[test]
fn a_file_saved_by_renaming_another_over_it_stays_the_same_file() {
    let save = |a: &Puppet| {
        a.write("f.tmp", "22");
        a.rename("f.tmp", "f");
    };
    let (a, _, took) = on_both(&[("f", "1")], save);
    assert_eq!(took, (1, 1, 1));
    assert_eq!(a.vault.listing().len(), 1);
}

#[test]
fn a_file_saved_with_a_backup_stays_the_same_file() {
    let save = |a: &Puppet| {
        a.rename("f", "f~");
        a.write("f", "22");
    };
    let (_, _, (_, operations, _)) = on_both(&[("f", "1")], save);
    assert_eq!(operations, 2, "new content for one, and a new file");
}

#[test]
fn a_file_moved_over_another_replaces_its_content() {
    let (a, _, _) = on_both(&[("a", "1"), ("b", "2")], |a| a.rename("a", "b"));
    assert_eq!(a.vault.listing().len(), 1);
}

#[test]
fn a_changed_file_is_read_and_written_once() {
    assert_eq!(
        took(&[("f", "1"), ("g", "2")], |a| a.write("f", "11")),
        (1, 1, 1)
    );
}

#[test]
fn a_file_that_moved_and_changed_is_both() {
    let act = |a: &Puppet| {
        a.rename("f", "g");
        a.write("g", "22");
    };
    assert_eq!(took(&[("f", "1")], act), (1, 2, 1));
}

#[test]
fn a_touched_file_is_read_and_brings_no_bytes() {
    let touch = |a: &Puppet| {
        let file = std::fs::File::options()
            .write(true)
            .open(a.path("f"))
            .unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
    };
    assert_eq!(took(&[("f", "1")], touch), (1, 1, 0));
}

#[test]
fn the_executable_bit_comes_over_without_bytes() {
    let act = |a: &Puppet| {
        std::fs::set_permissions(a.path("f"), std::fs::Permissions::from_mode(0o755)).unwrap()
    };
    let (_, b, took) = on_both(&[("f", "1")], act);
    assert_eq!(took, (1, 1, 0));
    assert_eq!(
        std::fs::metadata(b.path("f")).unwrap().permissions().mode() & 0o111,
        0o111
    );
}

#[test]
fn links_come_over_as_links() {
    let (_, b, _) = on_both(&[("f", "1")], |a| {
        std::os::unix::fs::symlink("../outside", a.path("link")).unwrap()
    });
    assert_eq!(
        std::fs::read_link(b.path("link")).unwrap().to_str(),
        Some("../outside")
    );
    let act = |a: &Puppet| {
        a.remove("f");
        std::os::unix::fs::symlink("x", a.path("f")).unwrap();
    };
    on_both(&[("f", "1")], act);
}

#[test]
fn a_deleted_folder_is_one_operation_and_its_files_are_kept() {
    let (_, b, took) = on_both(&[("d/f", "1"), ("d/e/g", "2"), ("h", "3")], |a| {
        a.remove("d")
    });
    assert_eq!(took, (0, 1, 0));
    assert_eq!(std::fs::read_dir(b.path(".vault/kept")).unwrap().count(), 2);
}

#[test]
fn a_file_takes_the_place_of_a_folder_and_back() {
    let act = |a: &Puppet| {
        a.remove("d");
        a.write("d", "file");
    };
    on_both(&[("d/f", "1")], act);
    let act = |a: &Puppet| {
        a.remove("f");
        a.write("f/inside", "2");
    };
    on_both(&[("f", "1")], act);
}

#[test]
fn the_hidden_places_name_can_be_used_in_folders() {
    on_both(&[("d/.vault/f", "1")], |a| a.write("d/.vault/g", "2"));
}

#[test]
fn both_contents_of_a_conflict_stay_and_the_same_is_none() {
    let (mut a, mut b) = pair();
    a.write("f.txt", "old");
    sync(&mut a, &mut b);
    a.write("f.txt", "by a");
    b.write("f.txt", "by b!");
    sync(&mut a, &mut b);
    assert_eq!(a.listing(), b.listing());
    let all: Vec<String> = a.listing().into_values().flatten().collect();
    assert_eq!(all.len(), 2);
    assert!(all.contains(&"by a".to_owned()) && all.contains(&"by b!".to_owned()));
    assert!(
        a.listing()
            .keys()
            .any(|name| name.starts_with("f (conflict from device ") && name.ends_with(").txt"))
    );
    a.write("g", "same");
    b.write("g", "same");
    let before = a.conflicts + b.conflicts;
    sync(&mut a, &mut b);
    assert_eq!(a.listing().len(), 3);
    assert_eq!(a.conflicts + b.conflicts, before);
}

#[test]
fn a_local_change_that_the_vault_has_another_for_becomes_the_copy() {
    let (mut a, mut b) = pair();
    a.write("f", "old");
    sync(&mut a, &mut b);
    a.write("f", "by a");
    a.settle();
    // B knows of A's change before it looks at its own disk.
    b.vault.pull(&a.vault);
    b.write("f", "by b!");
    b.settle();
    sync(&mut a, &mut b);
    assert_eq!(a.listing(), b.listing());
    assert_eq!(a.listing().get("f"), Some(&Some("by a".to_owned())));
    assert_eq!(
        a.listing().get("f (conflict from device 2, 2026-11-22)"),
        Some(&Some("by b!".to_owned()))
    );
}

#[test]
fn programs_that_rewrite_a_file_all_the_time_breed_no_copies() {
    let (mut a, mut b) = pair();
    a.write("log", "old");
    sync(&mut a, &mut b);
    for round in 0..30 {
        a.write("log", &format!("a {round}"));
        b.write("log", &format!("b {round} "));
        sync(&mut a, &mut b);
        assert_eq!(a.listing(), b.listing());
    }
    assert!(a.listing().len() <= 11, "{:?}", a.listing());
}

#[test]
fn an_edit_survives_a_deletion_that_had_not_seen_it() {
    let (mut a, mut b) = pair();
    a.write("d/f", "old");
    a.write("d/g", "old");
    sync(&mut a, &mut b);
    a.remove("d");
    b.write("d/f", "new");
    b.write("d/h", "added");
    sync(&mut a, &mut b);
    assert_eq!(a.listing(), b.listing());
    assert_eq!(a.listing().get("d/f"), Some(&Some("new".to_owned())));
    assert_eq!(a.listing().get("d/h"), Some(&Some("added".to_owned())));
    assert_eq!(a.listing().get("d/g"), None);
}

#[test]
fn a_deletion_does_not_hit_an_edit_that_was_on_its_way_to_the_disk() {
    let (mut a, mut b) = pair();
    a.write("f", "old");
    sync(&mut a, &mut b);
    a.write("f", "new");
    a.settle();
    b.vault.pull(&a.vault);
    b.remove("f");
    b.settle();
    sync(&mut a, &mut b);
    assert_eq!(b.listing().get("f"), Some(&Some("new".to_owned())));
}

#[test]
fn folders_that_hold_the_same_files_become_one_without_copies() {
    let (mut a, mut b) = pair();
    for device in [&a, &b] {
        device.write("photos/1.jpg", "one");
        device.write("photos/2.jpg", "two");
    }
    a.write("photos/a.jpg", "a");
    b.write("photos/b.jpg", "b");
    sync(&mut a, &mut b);
    assert_eq!(a.listing(), b.listing());
    assert_eq!(a.listing().len(), 5);
    assert_eq!(a.conflicts + b.conflicts, 0);
    // Whatever one does to such a file happens to the one file that it is now.
    a.rename("photos/1.jpg", "photos/one.jpg");
    b.write("photos/2.jpg", "changed");
    sync(&mut a, &mut b);
    assert_eq!(a.listing(), b.listing());
    assert_eq!(a.listing().len(), 5);
}

#[test]
fn a_second_device_that_comes_with_the_files_transfers_nothing() {
    let (mut a, mut b) = pair();
    for device in [&a, &b] {
        device.write("d/1", "one");
        device.write("d/2", "two");
    }
    a.settle();
    b.vault.pull(&a.vault);
    b.local();
    assert_eq!(b.vault.operations(), 0);
    assert_eq!(b.remote(None), 0);
    assert_eq!(a.listing(), b.listing());
}

#[test]
fn different_files_of_one_name_are_a_conflict_at_the_first_merge() {
    let (mut a, mut b) = pair();
    a.write("f.txt", "a");
    b.write("f.txt", "b");
    a.settle();
    b.vault.pull(&a.vault);
    sync(&mut a, &mut b);
    assert_eq!(a.listing(), b.listing());
    assert_eq!(a.listing().get("f.txt"), Some(&Some("a".to_owned())));
    assert_eq!(
        a.listing()
            .get("f (conflict from device 2, 2026-11-22).txt"),
        Some(&Some("b".to_owned()))
    );
}

#[test]
fn a_crash_at_any_step_is_repaired_by_the_next_start() {
    for at in 0..14 {
        let (mut a, mut b) = pair();
        for (path, bytes) in [
            ("a", "1"),
            ("b", "2"),
            ("d/f", "3"),
            ("d/g", "4"),
            ("gone", "5"),
            ("old/x", "6"),
        ] {
            a.write(path, bytes);
        }
        sync(&mut a, &mut b);
        a.rename("a", "t");
        a.rename("b", "a");
        a.rename("t", "b");
        a.rename("d", "e");
        a.write("e/f", "33");
        a.write("new/file", "7");
        a.remove("gone");
        a.remove("old");
        let expected = a.listing();
        a.local();
        b.vault.pull(&a.vault);
        b.remote(Some(at));
        b.restart();
        b.unpark();
        sync(&mut a, &mut b);
        assert_eq!(a.listing(), expected, "crash at {at}");
        assert_eq!(b.listing(), expected, "crash at {at}");
    }
}

#[test]
fn something_unexpected_in_the_way_is_never_overwritten() {
    let (mut a, mut b) = pair();
    a.write("f", "1");
    sync(&mut a, &mut b);
    a.write("f", "22");
    a.write("new", "by a");
    a.local();
    b.vault.pull(&a.vault);
    // Between planning and doing, a person writes both files; nothing of it was scanned.
    b.write("f", "by b!");
    b.write("new", "by b!");
    b.remote(None);
    sync(&mut a, &mut b);
    let contents: Vec<String> = b.listing().into_values().flatten().collect();
    for expected in ["22", "by a", "by b!"] {
        assert!(contents.contains(&expected.to_owned()), "{:?}", b.listing());
    }
}

#[test]
fn an_edit_survives_a_deletion_by_one_who_had_only_seen_another_edit() {
    let (mut a, mut b) = pair();
    a.write("f", "old");
    sync(&mut a, &mut b);
    a.write("f", "by a");
    a.settle();
    b.write("f", "by b!");
    b.settle();
    b.remove("f");
    b.settle();
    sync(&mut a, &mut b);
    assert_eq!(a.listing(), b.listing());
    assert_eq!(a.listing().get("f"), Some(&Some("by a".to_owned())));
}

#[test]
fn a_second_conflict_of_a_day_leaves_the_first_copy_alone() {
    let (mut a, mut b) = pair();
    a.write("f", "old");
    sync(&mut a, &mut b);
    let mut all = vec!["old".to_owned()];
    for round in 0..3 {
        a.write("f", &format!("a {round}"));
        b.write("f", &format!("b {round}!"));
        sync(&mut a, &mut b);
        all = a.listing().into_values().flatten().collect();
        assert_eq!(all.len(), round + 2, "{:?}", a.listing());
    }
    assert!(all.iter().any(|bytes| bytes.ends_with('!')));
}

#[test]
fn a_conflict_copy_that_goes_before_it_was_renamed_leaves_no_row_behind() {
    let (mut a, mut b) = pair();
    b.write("f", "by b");
    b.settle();
    a.vault.pull(&b.vault);
    a.write("f", "by a!");
    a.local();
    a.remove("f");
    a.remote(None);
    sync(&mut a, &mut b);
    assert_eq!(a.listing(), b.listing());
    assert_eq!(a.listing().get("f"), Some(&Some("by b".to_owned())));
}
