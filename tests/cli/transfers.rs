//! Limits, pauses, and the check of everything, through the real program.

use std::path::{Path, PathBuf};

use redb::{ReadableTable, TableDefinition};
use serde_json::Value;

use crate::device::{Device, eventually, noise, pair_of_devices, write};
use crate::listener::Listener;

const DOCUMENTS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("documents_2");
const ENTRIES: TableDefinition<&[u8; 46], &[u8]> = TableDefinition::new("entries_1");

fn limits(device: &Device) -> Value {
    device.row(&["limits", "show"])
}

fn both_in_sync(first: &Device, second: &Device) {
    first.in_sync();
    second.in_sync();
}

/// Files that `device` knows of and does not hold.
fn missing_files(device: &Device) -> u64 {
    device.status()["missing_here"]["files"].as_u64().unwrap()
}

#[test]
fn limits_are_set_shown_and_kept_over_a_restart() {
    let mut device = Device::founded("first");
    assert_eq!(limits(&device)["up"], Value::Null);
    device.ok(&["limits", "set", "--up", "2MB", "--down", "500 kB/s"]);
    device.ok(&["limits", "set", "--down", "none"]);
    let said = device.ok(&["pause", "--for", "2h"]);
    assert!(
        said.contains("up 2.0 MB/s") && said.contains("paused until"),
        "{said}"
    );
    device.stop();
    device.start();
    let shown = limits(&device);
    assert_eq!(
        (&shown["up"], &shown["down"]),
        (&2_000_000.into(), &Value::Null)
    );
    assert!(shown["paused"]["until_ms"].as_u64().is_some(), "{shown}");
    assert_eq!(device.status()["limits"], shown);
    assert!(device.ok(&["status"]).contains("Paused     until 2"));
    assert_eq!(device.row(&["resume"])["paused"], Value::Null);
    device.run(&["limits", "set"]).fails(2, "--up");
    device
        .run(&["limits", "set", "--up", "12"])
        .fails(2, "1000");
    device
        .run(&["limits", "set", "--up", "fast"])
        .fails(2, "2MB");
    device.run(&["pause", "--for", "soon"]).fails(2, "1h");
}

#[test]
fn while_paused_documents_flow_and_contents_wait_on_either_side() {
    let (first, second) = pair_of_devices();
    for paused in [&second, &first] {
        paused.ok(&["pause"]);
        let name = format!("{}.bin", paused.name);
        write(&first.path(&name), noise(7, 400_000 + name.len()));
        first.ok(&["file", "add", &name]);
        first.ok(&[
            "doc",
            "put",
            "io.cozy.notes",
            paused.name,
            r#"{"title": "t"}"#,
        ]);
        let arrived = ["doc", "get", "io.cozy.notes", paused.name];
        eventually("the document arrives", || {
            second.run(&arrived).code == Some(0)
        });
        eventually("the file is known", || missing_files(&second) == 1);
        let got = second.run(&["file", "get", &name, "copy.bin", "--overwrite"]);
        assert_eq!(got.code, Some(6), "{got:?}");
        if paused.name == "second" {
            assert!(got.err.contains("coffer resume"), "{got:?}");
            assert!(got.err.contains("transfers are paused"), "{got:?}");
            assert!(!got.err.contains("cannot be reached"), "{got:?}");
        } else {
            let why = "it is on \"first\", where transfers are paused";
            assert!(got.err.contains(why), "{got:?}");
        }
        assert_eq!(missing_files(&second), 1);
        paused.ok(&["resume"]);
        second.in_sync();
        second.ok(&["file", "get", &name, "copy.bin", "--overwrite"]);
        assert_eq!(
            std::fs::read(second.path("copy.bin")).unwrap(),
            std::fs::read(first.path(&name)).unwrap()
        );
    }
}

#[test]
fn what_a_limit_holds_back_comes_when_it_is_lifted() {
    let (first, second) = pair_of_devices();
    first.ok(&["limits", "set", "--up", "5kB"]);
    let bytes = noise(8, 5_000_000);
    write(&first.path("big.bin"), &bytes);
    first.ok(&["file", "add", "big.bin"]);
    eventually("the transfer has begun", || {
        let status = second.status();
        status["transfers"]
            .as_array()
            .is_some_and(|transfers| !transfers.is_empty())
    });
    // A thousand seconds' worth: not there, and what status tells of the rate is what goes.
    let status = second.status();
    assert_eq!(status["missing_here"]["files"], 1, "{status}");
    let done = status["transfers"][0]["bytes_done"].as_u64().unwrap_or(0);
    assert!(done < 1_000_000, "{status}");
    first.ok(&["limits", "set", "--up", "none"]);
    second.in_sync();
    // What has gone through is under way no more, on neither side.
    for device in [&first, &second] {
        device.in_sync();
        let status = device.status();
        assert_eq!(
            status["transfers"].as_array().map(Vec::len),
            Some(0),
            "{status}"
        );
    }
    second.ok(&["file", "get", "big.bin"]);
    assert_eq!(std::fs::read(second.path("big.bin")).unwrap(), bytes);
}

/// Files of the blob store, largest first.
fn stored(device: &Device) -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "data")
            {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&device.data.join("blobs"), &mut found);
    found.sort_by_key(|path| std::cmp::Reverse(std::fs::metadata(path).unwrap().len()));
    found
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = at.min(bytes.len() - 1);
    bytes[at] ^= 0x40;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn check_finds_flipped_bytes_and_fetches_them_from_the_other_device() {
    let (mut first, second) = pair_of_devices();
    write(&first.path("in/big.bin"), noise(9, 900_000));
    write(&first.path("in/small.bin"), noise(10, 30_000));
    first.ok(&["file", "add", "in"]);
    first.in_sync();
    second.in_sync();
    let clean = second.row(&["check"]);
    assert_eq!(
        (&clean["repaired"], &clean["damaged_count"]),
        (&0.into(), &0.into())
    );
    assert!(
        clean["pieces"].as_u64() >= Some(2) && clean["records"].as_u64() >= Some(1),
        "{clean}"
    );
    for path in stored(&second) {
        flip(&path, 20_000);
    }
    let report = second.row(&["check"]);
    assert_eq!(report["repaired"], 2, "{report}");
    assert_eq!(report["damaged_count"], 0, "{report}");
    second.idle();
    for name in ["in/big.bin", "in/small.bin"] {
        second.ok(&["file", "get", name, "copy", "--overwrite"]);
        let (copy, original) = (second.path("copy"), first.path(name));
        assert_eq!(
            std::fs::read(copy).unwrap(),
            std::fs::read(original).unwrap()
        );
    }
    assert_eq!(second.row(&["check"])["repaired"], 0);

    // With nobody to ask it is named, and said until it is whole again.
    first.stop();
    for path in stored(&second) {
        flip(&path, 300);
    }
    let failed = second.run(&["check", "--json"]);
    failed.fails(15, "could not be repaired");
    let report: Value = serde_json::from_str(&failed.out).unwrap();
    let names: Vec<&str> = report["damaged"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|damage| damage["name"].as_str())
        .collect();
    assert!(
        names.contains(&"in/big.bin") && names.contains(&"in/small.bin"),
        "{report}"
    );
    let status = second.ok(&["status"]);
    assert!(status.contains("Damaged: in/big.bin"), "{status}");
    second.run(&["check"]).fails(15, "could not be repaired");
    first.start();
    second.in_sync();
    // It is said no longer as soon as it is whole, not only at the next check.
    assert!(!second.ok(&["status"]).contains("Damaged"));
    assert_eq!(second.row(&["check"])["damaged_count"], 0);
    assert!(!second.ok(&["status"]).contains("Damaged"));
}

#[test]
fn repairing_one_file_has_no_other_count_as_not_here() {
    let (first, second) = pair_of_devices();
    write(&first.path("in/film.bin"), noise(21, 4_000_000));
    first.ok(&["file", "add", "in"]);
    both_in_sync(&first, &second);
    let large = stored(&second);
    write(&first.path("small.bin"), noise(22, 300_000));
    first.ok(&["file", "add", "small.bin"]);
    both_in_sync(&first, &second);
    let events = Listener::of(&second);
    for path in stored(&second) {
        if !large.contains(&path) {
            flip(&path, 20_000);
        }
    }
    let report = second.row(&["check"]);
    assert_eq!(report["repaired"], 1, "{report}");
    both_in_sync(&first, &second);
    first.ok(&["doc", "put", "io.cozy.notes", "after", "{}"]);
    events.until(|event| {
        assert_ne!(event["path"], "in/film.bin", "{event}");
        event["event"] == "document"
    });
}

#[test]
fn damage_of_an_earlier_content_names_the_file_and_is_over_when_the_rule_keeps_it_no_longer() {
    let device = Device::founded("first");
    write(&device.path("thesis.bin"), noise(23, 300_000));
    device.ok(&["file", "add", "thesis.bin", "--to", "Papers/thesis.bin"]);
    for path in stored(&device) {
        flip(&path, 20_000);
    }
    write(&device.path("thesis.bin"), noise(24, 300_000));
    device.ok(&["file", "add", "thesis.bin", "--to", "Papers/thesis.bin"]);
    let failed = device.run(&["check"]);
    failed.fails(15, "could not be repaired");
    let named = "Papers/thesis.bin: an earlier content of it, of 2";
    assert!(failed.out.contains(named), "{failed:?}");
    assert!(device.ok(&["status"]).contains(named));
    device.run(&["check"]).fails(15, "could not be repaired");
    let nothing = [
        "--all", "0s", "--hourly", "0s", "--daily", "0s", "--weekly", "0s",
    ];
    device.ok(&[&["versions", "set"][..], &nothing].concat());
    eventually("nobody misses it any more", || {
        !device.ok(&["status"]).contains("Damaged")
    });
    assert_eq!(device.row(&["check"])["damaged_count"], 0);
}

#[test]
fn what_has_come_of_a_large_file_is_not_left_to_come() {
    let (first, second) = pair_of_devices();
    first.ok(&["limits", "set", "--up", "300kB"]);
    let size = 6_000_000;
    write(&first.path("big.bin"), noise(25, size));
    first.ok(&["file", "add", "big.bin"]);
    let is_part = |left: &Value| {
        left.as_u64()
            .is_some_and(|left| left > 0 && left < size as u64)
    };
    eventually("a part of it has come", || {
        let status = second.status();
        is_part(&status["transfers"][0]["bytes_left"]) && is_part(&status["missing_here"]["bytes"])
    });
    first.ok(&["limits", "set", "--up", "none"]);
    both_in_sync(&first, &second);
    assert_eq!(second.status()["missing_here"]["bytes"], 0);
}

#[test]
fn a_file_that_was_changed_behind_its_time_is_a_change_and_no_damage() {
    let (first, second) = pair_of_devices();
    let bytes = noise(11, 700_000);
    write(&first.path("docs/a.bin"), &bytes);
    first.ok(&["folder", "add", "docs", "--to", "Docs", "--yes"]);
    first.in_sync();
    second.in_sync();
    let file = first.path("docs/a.bin");
    let meta = std::fs::metadata(&file).unwrap();
    flip(&file, 5);
    std::fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_modified(meta.modified().unwrap())
        .unwrap();
    // Its inode tells that it was changed. What no inode tells, a disk that forgets, the tests of the blobs show.
    let report = first.row(&["check"]);
    assert_eq!(report["damaged_count"], 0, "{report}");
    first.in_sync();
    second.in_sync();
    second.ok(&["file", "get", "Docs/a.bin"]);
    assert_ne!(std::fs::read(second.path("a.bin")).unwrap(), bytes);
}

#[test]
fn a_damaged_document_is_put_together_again_and_a_damaged_record_is_named() {
    let mut device = Device::founded("first");
    for n in 0..3 {
        let id = format!("n{n}");
        device.ok(&["doc", "put", "io.cozy.notes", &id, r#"{"title": "one"}"#]);
        device.ok(&["doc", "edit", "io.cozy.notes", &id, "title=two"]);
    }
    device.stop();
    let database = redb::Database::open(device.data.join("vault.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut documents = transaction.open_table(DOCUMENTS).unwrap();
        let row = documents
            .iter()
            .unwrap()
            .map(Result::unwrap)
            .find_map(|(key, value)| {
                let bytes = value.value().to_vec();
                bytes
                    .windows(2)
                    .any(|pair| pair == b"n1")
                    .then(|| (*key.value(), bytes))
            });
        let (key, mut bytes) = row.expect("the document's row");
        let last = bytes.len() - 3;
        bytes[last] ^= 0xff;
        documents.insert(&key, &bytes[..]).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    device.start();
    let report = device.row(&["check"]);
    assert_eq!(report["repaired"], 1, "{report}");
    assert_eq!(report["damaged_count"], 0, "{report}");
    let value = device.row(&["doc", "get", "io.cozy.notes", "n1"]);
    assert!(value.to_string().contains("two"), "{value}");
    assert_eq!(device.row(&["check"])["repaired"], 0);

    device.stop();
    let database = redb::Database::open(device.data.join("vault.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut entries = transaction.open_table(ENTRIES).unwrap();
        let (key, mut bytes) = {
            let (key, value) = entries.iter().unwrap().nth(1).unwrap().unwrap();
            (*key.value(), value.value().to_vec())
        };
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        entries.insert(&key, &bytes[..]).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    device.start();
    let failed = device.run(&["check"]);
    failed.fails(15, "could not be repaired");
    assert!(
        failed.out.contains("change 2 of device first"),
        "{failed:?}"
    );
}
