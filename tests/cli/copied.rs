//! A data folder that was copied: two nodes with one device's keys. Neither impersonates the other, and nothing is lost.

use std::path::Path;

use crate::device::{Device, eventually, eventually_within, noise, pair_of_devices, write};

/// Copies a data folder as people do while the program runs: file by file, without its socket.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (kind, to) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &to);
        } else if kind.is_file() {
            std::fs::copy(entry.path(), &to).unwrap();
        }
    }
}

/// Looks until it is so, for as long as a few turns of either copy take.
#[track_caller]
fn in_turns(what: &str, is_so: impl FnMut() -> bool) {
    eventually_within(std::time::Duration::from_secs(90), what, is_so);
}

fn has(device: &Device, id: &str) -> bool {
    device.run(&["doc", "get", "notes", id]).code == Some(0)
}

#[test]
fn both_copies_of_a_data_folder_are_written_to_and_nothing_of_either_is_lost() {
    let (mut first, mut second) = pair_of_devices();
    first.ok(&["doc", "put", "notes", "before", "{}"]);
    first.in_sync();
    first.idle();
    let folder = first.path("copied");
    copy(&first.data, &folder);
    // Apart from the others, both are written to, and to the same document as well.
    second.stop();
    let mut copied = Device::with_data_folder("copied", folder);
    copied.start();
    let warnings = copied.status()["warnings"].to_string();
    assert!(warnings.contains("data-folder-moved"), "{warnings}");
    first.ok(&["doc", "put", "notes", "here", "{}"]);
    first.ok(&["doc", "edit", "notes", "before", "one=1"]);
    copied.ok(&["doc", "put", "notes", "there", "{}"]);
    copied.ok(&["doc", "edit", "notes", "before", "two=2"]);

    // The copy is back first.
    first.stop();
    second.start();
    eventually("the other device has what the copy wrote", || {
        has(&second, "there")
    });
    copied.stop();
    first.start();
    eventually("the other device has what the first wrote", || {
        has(&second, "here")
    });
    eventually("the first has what the copy wrote", || has(&first, "there"));

    // One after the other: what one writes comes to the other by way of the third.
    first.ok(&["doc", "put", "notes", "here again", "{}"]);
    eventually("the other device has that too", || {
        has(&second, "here again")
    });
    first.stop();
    copied.start();
    copied.ok(&["doc", "put", "notes", "there again", "{}"]);
    eventually("the other device has that too", || {
        has(&second, "there again")
    });
    let has_all = |device: &Device| {
        for id in ["here", "there", "here again", "there again"] {
            eventually("everybody has everything", || has(device, id));
        }
        let merged = &device.row(&["doc", "get", "notes", "before"])["value"];
        assert_eq!((&merged["one"], &merged["two"]), (&1.into(), &2.into()));
    };
    has_all(&copied);
    copied.stop();
    first.start();
    has_all(&first);
    has_all(&second);
}

/// Puts a data folder back to what `earlier` has of it, in its place: each file stays the file that it was.
fn put_back(data: &Path, earlier: &Path) {
    for entry in std::fs::read_dir(data).unwrap() {
        let entry = entry.unwrap();
        let (path, before) = (entry.path(), earlier.join(entry.file_name()));
        if path.is_dir() {
            put_back(&path, &before);
        } else if before.exists() {
            std::fs::write(&path, std::fs::read(&before).unwrap()).unwrap();
        } else {
            std::fs::remove_file(&path).unwrap();
        }
    }
}

/// Both have all that was written in either state of a data folder that was put back.
fn both_have_all(first: &Device, second: &Device) {
    for device in [first, second] {
        for id in ["long ago", "since", "now", "later"] {
            eventually("everybody has everything", || has(device, id));
        }
        eventually("both edits of one document are there", || {
            let merged = &device.row(&["doc", "get", "notes", "long ago"])["value"];
            (&merged["one"], &merged["two"]) == (&1.into(), &2.into())
        });
    }
}

#[test]
fn a_data_folder_that_was_put_back_in_its_place_loses_nothing_of_before_and_after() {
    let (mut first, mut second) = pair_of_devices();
    second.ok(&["doc", "put", "notes", "long ago", "{}"]);
    second.in_sync();
    second.stop();
    let earlier = second.path("earlier");
    copy(&second.data, &earlier);
    second.start();
    second.ok(&["doc", "put", "notes", "since", "{}"]);
    second.ok(&["doc", "edit", "notes", "long ago", "one=1"]);
    second.in_sync();
    second.stop();

    // It writes before it meets anybody who has what it wrote after that.
    first.stop();
    put_back(&second.data, &earlier);
    second.start();
    assert!(!has(&second, "since"));
    second.ok(&["doc", "put", "notes", "now", "{}"]);
    second.ok(&["doc", "edit", "notes", "long ago", "two=2"]);
    first.start();
    second.ok(&["doc", "put", "notes", "later", "{}"]);
    both_have_all(&first, &second);

    // Once more, and it meets the other before it writes.
    second.stop();
    put_back(&second.data, &earlier);
    second.start();
    // What the other had said before that state is not what it has.
    second.in_sync();
    assert!(has(&second, "later") && has(&second, "since"));
    both_have_all(&first, &second);
    second.ok(&["doc", "put", "notes", "last", "{}"]);
    eventually("the other device has that too", || has(&first, "last"));
    first.in_sync();
}

/// The id of a device.
fn id_of(device: &Device) -> String {
    let rows = device.rows(&["device", "list"]);
    let own = rows.iter().find(|row| row["this"] == true).unwrap();
    own["id"].as_str().unwrap().to_owned()
}

/// Two nodes with the keys of `original` at once, and `other`, which is to have all that either writes. All have all in the
/// end; and it takes no restart.
fn both_at_once(original: &Device, other: &Device) {
    original.ok(&["doc", "put", "notes", "before", "{}"]);
    original.in_sync();
    original.idle();
    let folder = original.path("copied");
    copy(&original.data, &folder);
    let mut copied = Device::with_data_folder("copied", folder);
    copied.start();

    // Some of it before they have been talked to by turns, and some after.
    for round in ["1", "2"] {
        let file = format!("by the copy {round}.bin");
        write(&copied.path(&file), noise(7, 200_000));
        copied.ok(&["file", "add", copied.path(&file).to_str().unwrap()]);
        for (device, name) in [(original, "original"), (&copied, "copy"), (other, "other")] {
            let id = format!("{name} {round}");
            device.ok(&["doc", "put", "notes", &id, "{}"]);
            device.ok(&[
                "doc",
                "edit",
                "notes",
                "before",
                &format!("{name}{round}=1"),
            ]);
        }
        for device in [other, original, &copied] {
            for name in ["original", "copy", "other"] {
                let id = format!("{name} {round}");
                in_turns(&format!("{} has {id}", device.name), || has(device, &id));
            }
            let got = device.path("got.bin");
            let get = ["file", "get", &file, got.to_str().unwrap(), "--overwrite"];
            in_turns("everybody has the file", || {
                device.run(&get).code == Some(0)
            });
            assert_eq!(std::fs::read(&got).unwrap(), noise(7, 200_000));
        }
        in_turns("it is said that there are two", || {
            other.status()["warnings"]
                .to_string()
                .contains("device-twice")
        });
    }
    for device in [original, &copied, other] {
        in_turns("the edits are merged", || {
            let merged = &device.row(&["doc", "get", "notes", "before"])["value"];
            merged.as_object().is_some_and(|fields| fields.len() == 6)
        });
    }
    copied.stop();
    // The one that is left is a device like others again.
    original.ok(&["doc", "put", "notes", "alone", "{}"]);
    eventually("the other device has that", || has(other, "alone"));
    other.in_sync();
    let warnings = other.status()["warnings"].to_string();
    assert!(!warnings.contains("device-twice"), "{warnings}");
}

/// Who opens the sessions is a matter of keys: both ways.
#[test]
fn two_copies_of_a_data_folder_that_run_at_once_lose_nothing() {
    let (first, second) = pair_of_devices();
    let (smaller, larger) = match id_of(&first) < id_of(&second) {
        true => (first, second),
        false => (second, first),
    };
    both_at_once(&smaller, &larger);
}

#[test]
fn two_copies_that_others_open_sessions_to_lose_nothing_either() {
    let (first, second) = pair_of_devices();
    let (smaller, larger) = match id_of(&first) < id_of(&second) {
        true => (first, second),
        false => (second, first),
    };
    both_at_once(&larger, &smaller);
}
