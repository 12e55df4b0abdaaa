//! `coffer backup`: a folder on a disk of its own is enough to get everything back.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::device::{Device, eventually, noise, tree, write};
use crate::recovery::{vault_of, with_words};
use crate::secrets::{in_a_terminal, words_of};

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of UTF-8")
}

/// The data files of a backup.
fn data_files(dir: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir.join("DATA")).into_iter().flatten();
    let mut files: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
    files.sort();
    files
}

/// Everything that a device holds, as plain files.
fn everything(device: &Device, name: &str) -> std::collections::BTreeMap<String, Option<Vec<u8>>> {
    let dir = device.path(name);
    device.ok(&["export", text(&dir)]);
    tree(&dir)
}

/// Adds a file of these bytes to the vault's top, in the place of one of that name.
fn add(device: &Device, name: &str, bytes: &[u8]) {
    let synced = device.path("synced");
    write(&synced.join(name), bytes);
    device.idle();
}

/// A device with a folder in sync.
fn with_folder(name: &'static str) -> Device {
    let device = Device::founded(name);
    let synced = device.path("synced");
    std::fs::create_dir(&synced).unwrap();
    device.ok(&["folder", "add", text(&synced), "--yes"]);
    device
}

#[test]
fn all_comes_back_from_the_words_and_a_backup_when_every_device_is_gone() {
    let mut lost = with_folder("lost");
    lost.ok(&["doc", "put", "notes", "ada", r#"{"text":"still here"}"#]);
    add(&lost, "a.bin", &noise(5, 5_300_000));
    add(&lost, "b.txt", b"first");
    let stick = tempfile::tempdir().unwrap();
    let dir = stick.path().join("coffer");
    lost.ok(&["backup", text(&dir)]);
    // What is replaced in a folder in sync is on no other device; the backup has it.
    add(&lost, "b.txt", b"second");
    add(&lost, "thrown.txt", b"in the trash");
    lost.ok(&["file", "delete", "synced/thrown.txt"]);
    lost.idle();
    let words = words_of(&in_a_terminal(&lost, &["recovery", "show"]));
    let vault = vault_of(&lost);
    let done = lost.row(&["backup", text(&dir)]);
    assert_eq!((&done["run"], &done["missing"]), (&2.into(), &0.into()));
    assert_eq!(lost.status()["backup"]["everything"], true);
    let had = everything(&lost, "before");
    lost.stop();
    std::fs::remove_dir_all(&lost.data).unwrap();

    let new = Device::waiting("new");
    let arguments = ["recover", "--backup", text(&dir), "--name", "new", "--json"];
    let other = Device::founded("other");
    let wrong = words_of(&in_a_terminal(&other, &["recovery", "show"]));
    with_words(&new, &arguments, &wrong, &vault).fails(5, "words");
    with_words(&new, &arguments, &words, &vault_of(&other)).fails(5, "another vault");

    let back = with_words(&new, &arguments, &words, &vault);
    assert_eq!(back.code, Some(0), "{}", back.err);
    let back: Value = serde_json::from_str(&back.out).unwrap();
    assert_eq!(
        (&back["vault"], &back["confirmed"]),
        (&vault.as_str().into(), &false.into())
    );
    assert_eq!(everything(&new, "after"), had);
    let revisions = new.rows(&["file", "history", "synced/b.txt"]);
    let earlier = revisions[1]["revision"].as_str().unwrap();
    assert_eq!(
        new.ok(&["file", "get", "synced/b.txt", "-", "--at", earlier]),
        "first"
    );
    new.ok(&["trash", "restore", "synced/thrown.txt"]);
    assert_eq!(
        new.ok(&["file", "get", "synced/thrown.txt", "-"]),
        "in the trash"
    );
    assert!(
        new.status()["warnings"]
            .to_string()
            .contains("not-confirmed-fresh")
    );

    // It is a device like any other: it writes, and backs up to the same folder.
    new.ok(&["doc", "put", "notes", "after", "{}"]);
    assert_eq!(new.status()["backup"], Value::Null);
    let again = new.row(&["backup", text(&dir)]);
    assert_eq!(again["run"], 3);
    let verified = new.row(&["backup", "verify", text(&dir)]);
    assert_eq!(
        (&verified["flaws"], &verified["inside"]["missing"]),
        (&Value::Array(vec![]), &0.into())
    );
    // Asked once more, it takes what it lacks, which is nothing.
    let more = with_words(&new, &arguments, &words, &vault);
    assert_eq!(more.code, Some(0), "{}", more.err);
    assert_eq!(new.rows(&["device", "list"]).len(), 2);
}

#[test]
fn a_device_that_comes_back_from_a_backup_is_known_to_those_that_are_left() {
    let left = Device::founded("left");
    left.ok(&["doc", "put", "notes", "a", "{}"]);
    let words = words_of(&in_a_terminal(&left, &["recovery", "show"]));
    let vault = vault_of(&left);
    let dir = left.path("stick");
    left.ok(&["backup", text(&dir)]);
    left.ok(&["doc", "put", "notes", "later", "{}"]);

    let new = Device::waiting("new");
    let at = format!("127.0.0.1:{}", left.port());
    let arguments = ["recover", "--backup", text(&dir), "--json"];
    let back = with_words(
        &new,
        &[&arguments[..], &["--at", &at]].concat(),
        &words,
        &vault,
    );
    assert_eq!(back.code, Some(0), "{}", back.err);
    let back: Value = serde_json::from_str(&back.out).unwrap();
    assert_eq!(
        (&back["sources"], &back["confirmed"]),
        (&2.into(), &true.into())
    );
    new.in_sync();
    assert_eq!(new.rows(&["doc", "list"]).len(), 2);

    // One that nobody could be told of is told of later, by the same command.
    let apart = Device::waiting("apart");
    let back = with_words(&apart, &arguments, &words, &vault);
    assert_eq!(back.code, Some(0), "{}", back.err);
    assert_eq!(apart.rows(&["doc", "list"]).len(), 1);
    let back = with_words(
        &apart,
        &[&arguments[..], &["--at", &at]].concat(),
        &words,
        &vault,
    );
    assert_eq!(back.code, Some(0), "{}", back.err);
    eventually("it has what came later", || {
        apart.run(&["doc", "get", "notes", "later"]).code == Some(0)
    });
}

#[test]
fn a_later_run_writes_only_what_is_new_and_earlier_ones_can_be_read() {
    let device = with_folder("first");
    add(&device, "large.bin", &noise(1, 3_000_000));
    add(&device, "Papers/letter.txt", b"as it was");
    device.ok(&["doc", "put", "notes", "a", r#"{"n":1}"#]);
    let dir = device.path("stick");
    let first = device.row(&["backup", text(&dir)]);
    assert!(first["added_bytes"].as_u64() > Some(3_000_000), "{first}");

    add(&device, "Papers/letter.txt", b"as it is");
    add(&device, "new.txt", b"new");
    assert_eq!(device.status()["backup"]["everything"], false);
    let second = device.row(&["backup", text(&dir)]);
    assert!(second["added_bytes"].as_u64() < Some(20_000), "{second}");
    let runs = device.rows(&["backup", "list", text(&dir)]);
    assert_eq!(runs.len(), 2);

    let to = device.path("old");
    let restore = ["backup", "restore", text(&dir), "--to", text(&to)];
    let row = device.row(&[&restore[..], &["--path", "synced/Papers", "--at", "1"]].concat());
    assert_eq!((&row["files"], &row["run"]["run"]), (&1.into(), &1.into()));
    assert_eq!(
        std::fs::read(to.join("Papers/letter.txt")).unwrap(),
        b"as it was"
    );
    let none = [&restore[..], &["--path", "synced/new.txt", "--at", "1"]].concat();
    device.run(&none).fails(3, "new.txt");
    device
        .run(&[&restore[..], &["--at", "1999-12-31"]].concat())
        .fails(4, "not empty");
    let to = device.path("all");
    let restore = ["backup", "restore", text(&dir), "--to", text(&to)];
    device
        .run(&[&restore[..], &["--at", "1999-12-31"]].concat())
        .fails(3, "of that time");
    device.ok(&restore);
    assert_eq!(tree(&to), everything(&device, "now"));
}

#[test]
fn a_run_that_was_killed_is_gone_on_with_and_all_of_it_is_whole() {
    let mut device = with_folder("first");
    add(&device, "large.bin", &noise(1, 40_000_000));
    let dir = device.path("stick");
    let mut run = device
        .command(&["backup", text(&dir)])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("it writes", || !data_files(&dir).is_empty());
    device.kill();
    let _ = run.wait().unwrap();
    device.start();
    let done = device.row(&["backup", text(&dir)]);
    assert_eq!(done["missing"], 0);
    let verified = device.row(&["backup", "verify", text(&dir)]);
    assert_eq!(verified["flaws"], Value::Array(vec![]));
    assert_eq!(verified["inside"]["contents"], 1);
    let unfinished = data_files(&dir)
        .iter()
        .any(|file| file.ends_with("NEW.TMP"));
    assert!(!unfinished);
}

#[test]
fn a_flipped_byte_is_named_and_somebody_without_the_vault_sees_it_too() {
    let device = with_folder("first");
    add(&device, "a.bin", &noise(1, 100_000));
    let dir = device.path("stick");
    device.ok(&["backup", text(&dir)]);
    let stranger = Device::new("stranger");
    let seen = stranger.row(&["backup", "verify", text(&dir)]);
    assert_eq!(
        (&seen["flaws"], &seen["inside"]),
        (&Value::Array(vec![]), &Value::Null)
    );
    let to = stranger.path("to");
    stranger
        .run(&["backup", "restore", text(&dir), "--to", text(&to)])
        .fails(5, "recovery kit");

    let file = data_files(&dir).remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    for who in [&device, &stranger] {
        let found = who.run(&["backup", "verify", text(&dir)]);
        found.fails(15, "wrong with the backup");
        assert!(
            found.out.contains("wrong: DATA/00000001.CBD at byte"),
            "{found:?}"
        );
    }
}

#[test]
fn what_was_deleted_for_good_is_taken_out_of_the_backup() {
    let device = with_folder("first");
    add(&device, "kept.bin", &noise(1, 200_000));
    add(&device, "gone.bin", &noise(2, 200_000));
    let dir = device.path("stick");
    device.ok(&["backup", text(&dir)]);
    std::fs::remove_file(device.path("synced/gone.bin")).unwrap();
    device.idle();
    let kept = device.row(&["backup", text(&dir)]);
    assert_eq!(kept["freed_bytes"], 0);
    device.ok(&["trash", "empty", "--yes"]);
    let purged = device.row(&["backup", text(&dir)]);
    assert!(purged["freed_bytes"].as_u64() > Some(200_000), "{purged}");
    assert!(purged["total_bytes"].as_u64() < Some(300_000), "{purged}");
    let verified = device.row(&["backup", "verify", text(&dir)]);
    assert_eq!(
        (&verified["flaws"], &verified["inside"]["contents"]),
        (&Value::Array(vec![]), &1.into())
    );
}

#[test]
fn a_folder_that_is_something_else_is_refused() {
    let device = with_folder("first");
    let mine = device.path("letters");
    write(&mine.join("dear.txt"), "dear");
    device.run(&["backup", text(&mine)]).fails(4, "not empty");
    assert_eq!(tree(&mine).len(), 1);
    let away = device.path("not/there");
    device.run(&["backup", text(&away)]).fails(12, "not/there");
    let within = device.path("synced/backup");
    device.run(&["backup", text(&within)]).fails(2, "in sync");

    let dir = device.path("stick");
    device.ok(&["backup", text(&dir)]);
    let other = Device::founded("other");
    other.run(&["backup", text(&dir)]).fails(4, "another vault");
    write(&dir.join("COFFER.TXT"), "coffer backup 2\r\n");
    device.run(&["backup", text(&dir)]).fails(16, "newer");
    device
        .run(&["backup", "verify", text(&mine)])
        .fails(3, "no backup");
}
