//! Files of the vault without a synced folder: added, listed, fetched, moved, deleted, restored.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::device::{Device, eventually, noise, pair_of_devices, tree, write};

/// Paths that a listing shows, sorted.
fn paths(rows: &[Value]) -> Vec<String> {
    let mut paths: Vec<_> = rows
        .iter()
        .map(|row| row["path"].as_str().unwrap().to_owned())
        .collect();
    paths.sort();
    paths
}

#[test]
fn tree_added_on_one_device_is_fetched_whole_on_the_other() {
    let (first, second) = pair_of_devices();
    let photos = first.path("photos");
    write(&photos.join("one.jpg"), noise(1, 700_000));
    write(&photos.join("2026/two.jpg"), noise(2, 3_000_000));
    write(&photos.join("2026/empty.txt"), "");
    write(&photos.join("run.sh"), "#!/bin/sh\n");
    std::fs::set_permissions(
        photos.join("run.sh"),
        std::fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    let added = first.row(&["file", "add", photos.to_str().unwrap(), "--to", "Media"]);
    assert_eq!(added["files"], 4, "{added}");
    first.in_sync();
    let listed = second.rows(&["file", "list", "Media", "-r"]);
    assert_eq!(
        paths(&listed),
        [
            "Media/photos",
            "Media/photos/2026",
            "Media/photos/2026/empty.txt",
            "Media/photos/2026/two.jpg",
            "Media/photos/one.jpg",
            "Media/photos/run.sh"
        ]
    );
    let copy = second.path("copy");
    second.ok(&["file", "get", "Media/photos", copy.to_str().unwrap()]);
    assert_eq!(tree(&copy), tree(&photos));
    let mode = std::fs::metadata(copy.join("run.sh"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o100, 0o100);
}

#[test]
fn file_is_changed_moved_deleted_and_restored_with_its_history() {
    let (first, second) = pair_of_devices();
    let letter = first.path("letter.txt");
    write(&letter, "first words");
    first.ok(&["file", "add", "letter.txt", "--to", "Papers/letter.txt"]);
    first.in_sync();
    write(&second.path("letter.txt"), "second words");
    second.ok(&["file", "add", "letter.txt", "--to", "Papers/letter.txt"]);
    second.in_sync();
    let read = |device: &Device, arguments: &[&str]| {
        device.ok(&[&["file", "get"], arguments, &["-"]].concat())
    };
    assert_eq!(read(&first, &["Papers/letter.txt"]), "second words");

    first
        .run(&["file", "history", "Papers"])
        .fails(2, "is a folder");
    let history = first.rows(&["file", "history", "Papers/letter.txt"]);
    assert_eq!(history.len(), 2, "{history:?}");
    let earlier = history[1]["revision"].as_str().unwrap();
    assert_eq!(history[1]["device"], "first");
    assert_eq!(
        read(&first, &["Papers/letter.txt", "--at", earlier]),
        "first words"
    );

    first.ok(&["file", "move", "Papers/letter.txt", "Archive/old.txt"]);
    first.in_sync();
    assert_eq!(read(&second, &["Archive/old.txt"]), "second words");
    second
        .run(&["file", "get", "Papers/letter.txt", "-"])
        .fails(3, "error: ");

    second.ok(&["file", "delete", "Archive/old.txt", "--yes"]);
    second.in_sync();
    first
        .run(&["file", "get", "Archive/old.txt", "-"])
        .fails(3, "error: ");
    assert_eq!(
        paths(&first.rows(&["file", "list", "--trash"])),
        ["Archive/old.txt"]
    );
    first.ok(&["file", "restore", "Archive/old.txt"]);
    first.in_sync();
    assert_eq!(read(&second, &["Archive/old.txt"]), "second words");
    second.ok(&["file", "restore", "Archive/old.txt", "--at", earlier]);
    second.in_sync();
    assert_eq!(read(&first, &["Archive/old.txt"]), "first words");
}

#[test]
fn adding_again_what_is_there_changes_nothing() {
    let device = Device::founded("first");
    write(&device.path("in/a.bin"), noise(3, 300_000));
    write(&device.path("in/b.txt"), "b");
    device.ok(&["file", "add", "in"]);
    let again = device.row(&["file", "add", "in"]);
    assert_eq!(
        (&again["files"], &again["unchanged"]),
        (&0.into(), &2.into()),
        "{again}"
    );
    assert_eq!(device.rows(&["file", "history", "in/a.bin"]).len(), 1);
}

#[test]
fn what_is_on_disk_is_not_replaced_unasked() {
    let device = Device::founded("first");
    write(&device.path("a.txt"), "in the vault");
    device.ok(&["file", "add", "a.txt"]);
    write(&device.path("a.txt"), "on the disk");
    device
        .run(&["file", "get", "a.txt"])
        .fails(4, "--overwrite");
    assert_eq!(std::fs::read(device.path("a.txt")).unwrap(), b"on the disk");
    device.ok(&["file", "get", "a.txt", "--overwrite"]);
    assert_eq!(
        std::fs::read(device.path("a.txt")).unwrap(),
        b"in the vault"
    );
}

#[test]
fn names_that_no_file_system_takes_are_refused_and_named() {
    let device = Device::founded("first");
    write(&device.path("a.txt"), "a");
    let long = "x".repeat(256);
    for name in ["a/../b", "..", &long, "a//..//b"] {
        let outcome = device.run(&["file", "add", "a.txt", "--to", name]);
        assert_eq!(outcome.code, Some(2), "{name}: {outcome:?}");
        assert!(outcome.err.starts_with("error: "), "{name}: {outcome:?}");
    }
    assert!(device.rows(&["file", "list", "-r"]).is_empty());
    // One file that cannot be taken does not keep the others out.
    use std::os::unix::ffi::OsStrExt;
    let odd = std::ffi::OsStr::from_bytes(b"not-\xff-text");
    write(&device.path("in/good.txt"), "good");
    write(&device.path("in").join(odd), "odd");
    let added = device.row(&["file", "add", "in"]);
    assert_eq!(added["files"], 1, "{added}");
    assert_eq!(
        added["skipped"].as_array().map(Vec::len),
        Some(1),
        "{added}"
    );
    assert!(
        added["skipped"][0]["path"]
            .as_str()
            .unwrap()
            .contains("not-"),
        "{added}"
    );
}

#[test]
fn file_without_permission_is_named_and_the_rest_goes_on() {
    let device = Device::founded("first");
    write(&device.path("in/good.txt"), "good");
    write(&device.path("in/locked.txt"), "locked");
    let locked = device.path("in/locked.txt");
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o000)).unwrap();
    let is_root = std::fs::read(&locked).is_ok();
    let added = device.row(&["file", "add", "in"]);
    let expected = if is_root { 2 } else { 1 };
    assert_eq!(added["files"], expected, "{added}");
    if !is_root {
        assert!(
            added["skipped"][0]["path"]
                .as_str()
                .unwrap()
                .contains("locked.txt"),
            "{added}"
        );
    }
    device
        .run(&["file", "add", "absent.txt"])
        .fails(3, "absent.txt");
}

#[test]
fn adding_nothing_of_what_was_named_fails() {
    let device = Device::founded("first");
    device
        .run(&["file", "add", "/dev/zero"])
        .fails(4, "nothing was added: /dev/zero: it is neither a file");
    write(&device.path("a.txt"), "a");
    let partly = device.run(&["file", "add", "/dev/zero", "a.txt"]);
    assert_eq!(partly.code, Some(0), "{partly:?}");
    assert!(partly.err.contains("left out: /dev/zero"), "{partly:?}");
}

#[test]
fn export_is_complete() {
    let (first, second) = pair_of_devices();
    write(&first.path("in/a.bin"), noise(4, 2_000_000));
    write(&first.path("in/sub/b.txt"), "b");
    first.ok(&["file", "add", "in"]);
    for id in ["ana", "bo/b", "..", "c d"] {
        let value = serde_json::json!({ "name": id, "n": 1 }).to_string();
        first.ok(&["doc", "put", "io.cozy.contacts", id, &value]);
    }
    first.in_sync();
    let out = second.path("everything");
    let said = second.row(&["export", out.to_str().unwrap()]);
    assert_eq!(
        (&said["documents"], &said["files"]),
        (&4.into(), &2.into()),
        "{said}"
    );
    assert_eq!(said["skipped"], serde_json::json!([]), "{said}");
    let exported = tree(&out);
    let contents: Vec<_> = exported.values().flatten().collect();
    assert!(contents.contains(&&noise(4, 2_000_000)));
    assert!(
        exported.keys().any(|path| path.ends_with("in/sub/b.txt")),
        "{:?}",
        exported.keys()
    );
    let mut names: Vec<String> = exported
        .iter()
        .filter(|(path, _)| path.ends_with(".json"))
        .filter_map(|(_, bytes)| serde_json::from_slice::<Value>(bytes.as_ref()?).ok())
        .filter_map(|value| {
            Some(
                value
                    .get("name")
                    .or_else(|| value.get("value")?.get("name"))?
                    .as_str()?
                    .to_owned(),
            )
        })
        .collect();
    names.sort();
    assert_eq!(names, ["..", "ana", "bo/b", "c d"]);
    // It never mixes with what is there.
    second
        .run(&["export", out.to_str().unwrap()])
        .fails(4, "empty");
    let file = out.join("documents/taken");
    std::fs::write(&file, "").unwrap();
    second
        .run(&["export", file.to_str().unwrap()])
        .fails(2, "is not a folder");
}

#[test]
fn contents_arrive_without_being_asked_for() {
    let (first, mut second) = pair_of_devices();
    second.stop();
    write(&first.path("a.bin"), noise(5, 5_000_000));
    first.ok(&["file", "add", "a.bin"]);
    assert_eq!(first.status()["only_here"]["files"], 1);
    second.start();
    first.in_sync();
    assert_eq!(first.status()["only_here"]["files"], 0);
    drop(first);
    eventually("it is known to be here", || {
        second.rows(&["file", "list"])[0]["content"]["here"] == true
    });
    second.ok(&["file", "get", "a.bin"]);
    assert_eq!(
        std::fs::read(second.path("a.bin")).unwrap(),
        noise(5, 5_000_000)
    );
}
