//! A data folder that was copied: two nodes with one device's keys. Neither impersonates the other, and nothing is lost.

use std::path::Path;

use crate::device::{Device, eventually, pair_of_devices};

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

    // By turns, as of two with one key others talk to one at a time: what one writes comes to the other by way of the third.
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
