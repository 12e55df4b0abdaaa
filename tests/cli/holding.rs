//! What a device says that it holds, it holds: large files that were replaced, the same file on two devices, a folder
//! that is away.

use std::fs;

use crate::device::{eventually, noise, write};
use crate::folders::Synced;
use crate::listener::Listener;

/// A content whose list of chunks is too long to stand in the file's document.
const LARGE: usize = 4_000_000;

#[test]
fn large_file_that_was_replaced_is_not_damaged_and_what_it_was_is_not_said_to_be_here() {
    let mut synced = Synced::new(|here, _| write(&here.join("film"), noise(1, LARGE)));
    synced.second.stop();
    write(&synced.here.join("film.new"), noise(2, LARGE));
    fs::rename(synced.here.join("film.new"), synced.here.join("film")).unwrap();
    let first = &synced.first;
    eventually("what it was is only on the other device", || {
        first.ok(&["folder", "rescan"]);
        let history = first.rows(&["file", "history", "Documents/film"]);
        history.len() == 2
            && history[0]["content"]["here"] == true
            && history[1]["content"]["here"] == false
    });
    assert_eq!(first.row(&["check"])["damaged_count"], 0);
    assert_eq!(first.status()["missing_here"]["files"], 0);
    synced.second.start();
    synced.settled();
    for device in [&synced.first, &synced.second] {
        assert_eq!(device.row(&["check"])["damaged_count"], 0);
        assert_eq!(device.status()["missing_here"]["files"], 0);
    }
}

#[test]
fn large_file_whose_bytes_moved_within_it_is_not_damaged() {
    let synced = Synced::new(|here, _| write(&here.join("song"), noise(7, LARGE)));
    let song = synced.here.join("song");
    // A tag is put before it, as a program does that writes a new file; and one that writes into the file takes it away.
    write(
        &synced.here.join("song.new"),
        [noise(8, 1000), noise(7, LARGE)].concat(),
    );
    fs::rename(synced.here.join("song.new"), &song).unwrap();
    for bytes in [[noise(8, 1000), noise(7, LARGE)].concat(), noise(7, LARGE)] {
        write(&song, &bytes);
        synced.first.ok(&["folder", "rescan"]);
        synced.settled();
        assert!(fs::read(synced.there.join("song")).unwrap() == bytes);
        for device in [&synced.first, &synced.second] {
            let checked = device.row(&["check"]);
            assert_eq!(
                (&checked["damaged_count"], &checked["repaired"]),
                (&0.into(), &0.into())
            );
            assert_eq!(device.status()["missing_here"]["files"], 0);
        }
    }
}

#[test]
fn the_same_large_file_that_came_to_both_devices_while_they_were_off_is_here_on_both() {
    let mut synced = Synced::new(|here, _| write(&here.join("old"), "old"));
    synced.first.stop();
    synced.second.stop();
    for folder in [&synced.here, &synced.there] {
        write(&folder.join("photo"), noise(3, LARGE));
    }
    synced.first.start();
    synced.second.start();
    synced.settled();
    for device in [&synced.first, &synced.second] {
        eventually("nothing is missing, and both know it", || {
            let status = device.status();
            status["missing_here"]["files"] == 0
                && status["storage"]["at_risk"]["files"] == 0
                && status["devices"][1]["holding"]["lacks"]["files"] == 0
        });
        // It is one file to a person, whatever the vault has of it.
        assert_eq!(device.row(&["storage", "show"])["kept"]["files"], 2);
    }
}

#[test]
fn nobody_counts_on_a_device_for_a_folder_that_is_away() {
    let synced = Synced::new(|here, _| write(&here.join("film"), noise(4, LARGE)));
    let (first, second) = (&synced.first, &synced.second);
    let aside = first.path("unplugged");
    fs::rename(&synced.here, &aside).unwrap();
    let relies = || second.status()["devices"][1]["holding"]["keeps_all"] == true;
    eventually("the other device knows", || {
        first.ok(&["folder", "rescan"]);
        !relies()
    });
    let status = second.status();
    assert_eq!(status["in_sync"], false, "the other has something to do");
    assert_eq!(status["devices"][1]["holding"]["awaits"], 1);
    assert!(second.ok(&["status"]).contains("`coffer status` there"));
    let said = first.ok(&["status"]);
    assert!(said.contains("coffer folder remove"), "{said}");
    second.ok(&["folder", "remove", synced.there.to_str().unwrap()]);
    second.ok(&["storage", "on-demand"]);
    second.ok(&["storage", "limit", "0"]);
    let evictable = second.row(&["storage", "show"])["evictable"].clone();
    assert_eq!(evictable["files"], 0, "the last copy that can be had");
    let film = || second.row(&["file", "list", "Documents/film"])["content"]["here"].clone();
    eventually("its bytes were taken over", || film() == true);
    first
        .run(&["folder", "remove", synced.here.to_str().unwrap()])
        .fails(5, "cannot be copied into the vault now");
    fs::rename(&aside, &synced.here).unwrap();
    eventually("it counts again, and the other may let go", || {
        first.ok(&["folder", "rescan"]);
        relies() && film() == false
    });
    second.in_sync();
}

#[test]
fn what_a_folder_held_is_here_all_the_time_while_its_syncing_ends() {
    let synced = Synced::new(|here, _| write(&here.join("film"), noise(5, LARGE)));
    let second = &synced.second;
    let events = Listener::of(second);
    second.ok(&["folder", "remove", synced.there.to_str().unwrap()]);
    synced.first.in_sync();
    second.in_sync();
    second.ok(&["doc", "put", "io.cozy.notes", "after", "{}"]);
    // Had it counted as not here for a moment, it would be told that it has come.
    events.until(|event| {
        assert_ne!(event["change"], "fetched", "{event}");
        event["event"] == "document"
    });
    second.ok(&["file", "get", "Documents/film", "copy"]);
}
