//! Folders on disk that are kept in sync: what happens on one side happens on the other.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::device::{Device, eventually, noise, pair_of_devices, tree, write};

pub type Tree = BTreeMap<String, Option<Vec<u8>>>;

/// Two devices that keep a folder of each in sync with `Documents`, and those two folders.
pub struct Synced {
    pub first: Device,
    pub second: Device,
    pub here: PathBuf,
    pub there: PathBuf,
}

impl Synced {
    pub fn new(fill: impl FnOnce(&PathBuf, &PathBuf)) -> Synced {
        let (first, second) = pair_of_devices();
        let (here, there) = (first.path("Documents"), second.path("Documents"));
        fs::create_dir(&here).unwrap();
        fs::create_dir(&there).unwrap();
        fill(&here, &there);
        let synced = Synced {
            first,
            second,
            here,
            there,
        };
        add(&synced.first, &synced.here);
        synced.first.in_sync();
        add(&synced.second, &synced.there);
        synced.settled();
        synced
    }

    /// Waits until both folders hold the same, and both devices say that nothing is left to do.
    #[track_caller]
    pub fn settled(&self) -> Tree {
        eventually("both folders are the same and at rest", || {
            self.rescan();
            self.first.in_sync();
            self.second.in_sync();
            tree(&self.here) == tree(&self.there) && at_rest(&self.first) && at_rest(&self.second)
        });
        tree(&self.here)
    }

    /// Has both devices look now: what a test did before is then recorded.
    pub fn rescan(&self) {
        self.first.ok(&["folder", "rescan"]);
        self.second.ok(&["folder", "rescan"]);
    }

    pub fn conflict_copies(&self) -> Vec<String> {
        tree(&self.here)
            .into_keys()
            .filter(|path| path.contains("(conflict"))
            .collect()
    }
}

fn add(device: &Device, dir: &std::path::Path) {
    device.ok(&["folder", "add", dir.to_str().unwrap(), "--yes"]);
}

fn at_rest(device: &Device) -> bool {
    let status = device.status();
    let folder = &status["folders"][0];
    status["idle"] == true
        && folder["state"] == "in-sync"
        && folder["to_record"] == 0
        && folder["to_write"] == 0
}

#[test]
fn added_changed_and_deleted_files_follow_on_the_other_side_without_a_command() {
    let synced = Synced::new(|here, _| write(&here.join("old.txt"), "old"));
    let (here, there) = (&synced.here, &synced.there);
    write(&here.join("sub/new.bin"), noise(1, 1_500_000));
    eventually("the new file is there", || {
        fs::read(there.join("sub/new.bin")).is_ok_and(|bytes| bytes == noise(1, 1_500_000))
    });
    write(&there.join("sub/new.bin"), noise(2, 1_000_000));
    eventually("the change is here", || {
        fs::read(here.join("sub/new.bin")).is_ok_and(|bytes| bytes == noise(2, 1_000_000))
    });
    fs::remove_file(there.join("old.txt")).unwrap();
    eventually("the deletion is here", || !here.join("old.txt").exists());
    fs::remove_dir_all(here.join("sub")).unwrap();
    eventually("the folder is deleted there", || {
        !there.join("sub").exists()
    });
    assert!(synced.settled().is_empty());
    // What was deleted can be had back.
    synced.second.ok(&["file", "restore", "Documents/old.txt"]);
    eventually("it is back on both", || {
        here.join("old.txt").exists() && there.join("old.txt").exists()
    });
}

#[test]
fn moved_file_and_renamed_folder_keep_identity_and_history() {
    let synced = Synced::new(|here, _| {
        for n in 0..30 {
            write(&here.join(format!("trip/day{n}.txt")), format!("day {n}"));
        }
        write(&here.join("note.txt"), "note");
    });
    let (here, there) = (&synced.here, &synced.there);
    let id_of = |path: &str| {
        let rows = synced.first.rows(&["file", "list", path]);
        rows[0]["id"].clone()
    };
    let note = id_of("Documents/note.txt");
    let day = id_of("Documents/trip/day7.txt");
    fs::rename(here.join("trip"), here.join("journey")).unwrap();
    fs::create_dir(here.join("kept")).unwrap();
    fs::rename(here.join("note.txt"), here.join("kept/moved.txt")).unwrap();
    let expected = tree(here);
    eventually("both names are there", || tree(there) == expected);
    synced.settled();
    assert_eq!(id_of("Documents/kept/moved.txt"), note);
    assert_eq!(id_of("Documents/journey/day7.txt"), day);
    fs::rename(there.join("journey"), there.join("kept/journey")).unwrap();
    let expected = tree(there);
    eventually("the second move is here", || tree(here) == expected);
    synced.settled();
    assert_eq!(id_of("Documents/kept/journey/day7.txt"), day);
}

#[test]
fn first_merge_of_two_folders_with_the_same_files_makes_no_copies() {
    let synced = Synced::new(|here, there| {
        for n in 0..20 {
            let bytes = noise(n, 10_000 + usize::try_from(n).unwrap() * 997);
            write(&here.join(format!("same/{n}.bin")), &bytes);
            write(&there.join(format!("same/{n}.bin")), &bytes);
        }
        write(&here.join("only-here.txt"), "here");
        write(&there.join("only-there.txt"), "there");
    });
    let files = synced.settled();
    assert_eq!(files.values().flatten().count(), 22, "{:?}", files.keys());
    assert!(synced.conflict_copies().is_empty());
    let status = synced.first.status();
    assert_eq!(status["vault"]["files"], 22, "{status}");
}

#[test]
fn first_merge_tells_what_it_will_do_and_does_nothing_unasked() {
    let (first, second) = pair_of_devices();
    for (device, text) in [(&first, "one"), (&second, "two")] {
        write(&device.path("Documents/same.txt"), "same");
        write(&device.path("Documents/different.txt"), text);
    }
    add(&first, &first.path("Documents"));
    first.in_sync();
    let asked = second.run(&["folder", "add", "Documents"]);
    assert_eq!(asked.code, Some(5), "{asked:?}");
    for line in [
        "1 the same",
        "1 different on both sides",
        "Nothing is deleted",
    ] {
        assert!(asked.err.contains(line), "{asked:?}");
    }
    assert!(second.rows(&["folder", "list"]).is_empty());
    assert_eq!(
        fs::read(second.path("Documents/different.txt")).unwrap(),
        b"two"
    );
}

#[test]
fn first_merge_keeps_both_of_a_file_that_differs() {
    let synced = Synced::new(|here, there| {
        write(&here.join("letter.txt"), "as written here");
        write(&there.join("letter.txt"), "as written there");
    });
    let files = synced.settled();
    let mut texts: Vec<_> = files
        .values()
        .flatten()
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .collect();
    texts.sort();
    assert_eq!(
        texts,
        ["as written here", "as written there"],
        "{:?}",
        files.keys()
    );
    assert_eq!(synced.conflict_copies().len(), 1);
}

#[test]
fn file_edited_on_both_sides_apart_makes_one_conflict_copy_on_both() {
    let mut synced = Synced::new(|here, _| write(&here.join("plan.txt"), "the plan"));
    synced.second.stop();
    write(&synced.here.join("plan.txt"), "the plan of the first");
    synced.first.ok(&["folder", "rescan"]);
    synced.first.idle();
    synced.first.stop();
    synced.second.start();
    write(&synced.there.join("plan.txt"), "the plan of the second");
    synced.second.ok(&["folder", "rescan"]);
    synced.second.idle();
    synced.first.start();
    let files = synced.settled();
    let mut texts: Vec<_> = files
        .values()
        .flatten()
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .collect();
    texts.sort();
    assert_eq!(
        texts,
        ["the plan of the first", "the plan of the second"],
        "{:?}",
        files.keys()
    );
    assert_eq!(synced.conflict_copies().len(), 1, "{:?}", files.keys());
    assert!(files.contains_key("plan.txt"));
}

#[test]
fn what_happened_while_coffer_was_off_is_found_at_the_next_start() {
    let mut synced = Synced::new(|here, _| {
        write(&here.join("stays.txt"), "stays");
        write(&here.join("goes.txt"), "goes");
        write(&here.join("changes.txt"), "before");
        write(&here.join("old/name.txt"), "name");
    });
    synced.first.stop();
    fs::remove_file(synced.here.join("goes.txt")).unwrap();
    write(&synced.here.join("changes.txt"), "afterwards");
    fs::rename(synced.here.join("old"), synced.here.join("new")).unwrap();
    write(&synced.here.join("comes.txt"), "comes");
    let expected = tree(&synced.here);
    synced.first.start();
    eventually("all of it is there", || tree(&synced.there) == expected);
    assert_eq!(synced.settled(), expected);
}

#[test]
fn folder_that_is_gone_is_not_taken_for_deleted_files() {
    let synced = Synced::new(|here, _| write(&here.join("precious.txt"), "precious"));
    // As a disk that is not mounted.
    fs::rename(&synced.here, synced.first.path("elsewhere")).unwrap();
    synced.first.run(&["folder", "rescan"]);
    eventually("the folder is missed", || {
        let status = synced.first.status();
        let state = &status["folders"][0]["state"];
        state == "not-there" || state == "stopped"
    });
    assert_eq!(
        fs::read(synced.there.join("precious.txt")).unwrap(),
        b"precious"
    );
    assert_eq!(synced.second.rows(&["file", "list", "Documents"]).len(), 1);
}

#[test]
fn removed_folder_keeps_its_files_and_follows_no_longer() {
    let synced = Synced::new(|here, _| write(&here.join("a.txt"), "a"));
    synced
        .second
        .ok(&["folder", "remove", synced.there.to_str().unwrap()]);
    write(&synced.here.join("later.txt"), "later");
    synced.first.ok(&["folder", "rescan"]);
    synced.first.in_sync();
    assert_eq!(
        tree(&synced.there).into_keys().collect::<Vec<_>>(),
        ["a.txt"]
    );
    assert!(synced.second.rows(&["folder", "list"]).is_empty());
    assert_eq!(synced.second.rows(&["file", "list", "Documents"]).len(), 2);
}

#[test]
fn folder_says_what_is_in_sync_and_when_it_was_last_looked_through() {
    let device = Device::founded("first");
    let here = device.path("Documents");
    write(&here.join("a/b/c.txt"), "c");
    device.ok(&["folder", "add", "Documents", "--yes"]);
    device.idle();
    let counted = device.row(&["folder", "rescan"]);
    let counts = |row: &serde_json::Value| (row["files"].as_u64(), row["folders"].as_u64());
    assert_eq!(counts(&counted), (Some(1), Some(2)), "{counted}");
    let first = counted["scanned_ms"].as_u64().expect("a time");
    let again = device.row(&["folder", "rescan"]);
    assert!(again["scanned_ms"].as_u64() > Some(first), "{again}");
}

#[test]
fn what_came_before_its_folder_does_not_stay_on_the_disk_twice() {
    let (first, second) = pair_of_devices();
    let (here, there) = (first.path("Photos"), second.path("Photos"));
    fs::create_dir(&here).unwrap();
    for n in 0..6 {
        write(&here.join(format!("{n}.jpg")), noise(n, 1_000_000));
    }
    first.ok(&[
        "folder",
        "add",
        &here.to_string_lossy(),
        "--to",
        "Photos",
        "--yes",
    ]);
    first.in_sync();
    second.in_sync();
    assert!(second.stored() >= 6_000_000, "it keeps what it was sent");
    second.ok(&[
        "folder",
        "add",
        &there.to_string_lossy(),
        "--to",
        "Photos",
        "--yes",
    ]);
    second.in_sync();
    assert_eq!(tree(&there).len(), 6);
    // Emptying the trash has it look at all that is in the store.
    fs::remove_file(there.join("0.jpg")).unwrap();
    second.ok(&["folder", "rescan"]);
    eventually("it is in the trash", || {
        !second.rows(&["trash", "list"]).is_empty()
    });
    second.ok(&["trash", "empty", "--yes"]);
    eventually(
        "only the folder holds them, but for what is in the trash",
        || second.stored() < 1_100_000,
    );
    second.ok(&["check"]);
    second.ok(&["file", "get", "Photos/3.jpg", "copy.jpg"]);
    assert!(fs::read(second.path("copy.jpg")).unwrap() == noise(3, 1_000_000));
}

#[test]
fn a_folder_that_is_not_there_is_made_and_said_and_a_misspelt_path_is_refused() {
    let device = Device::founded("first");
    write(&device.path("Documents/a.txt"), "a");
    let refused = device.run(&["folder", "add", "Documnets/2026", "--yes"]);
    refused.fails(3, "Documents");
    assert!(!device.path("Documnets").exists());
    let added = device.run(&["folder", "add", "Documnets", "--yes"]);
    assert_eq!(added.code, Some(0), "{added:?}");
    assert!(added.err.contains("a new, empty folder"), "{added:?}");
    assert!(added.err.contains("Documents"), "{added:?}");
    let row = device.row(&["folder", "add", "Music", "--yes"]);
    assert_eq!(row["created"], true, "{row}");
    let row = device.row(&["folder", "add", "Documents", "--yes"]);
    assert_eq!(row["created"], false, "{row}");
}

#[test]
fn a_folder_of_which_the_vault_has_its_own_in_the_trash_says_where_it_was() {
    let device = Device::founded("first");
    write(&device.path("Docs/a.txt"), "a");
    device.ok(&["folder", "add", "Docs", "--to", "Home/Docs", "--yes"]);
    device.idle();
    device.ok(&["file", "delete", "Home/Docs"]);
    let row = || device.row(&["folder", "list"]);
    eventually("it is said", || row()["in_trash"] == true);
    assert_eq!(row()["to"], "Home/Docs");
    let said = device.ok(&["folder", "list"]);
    assert!(said.contains("Home/Docs (in the trash)"), "{said}");
}
