//! `kill -9` in the middle of things: nothing acknowledged is lost, nothing half-written is seen, and both devices agree
//! in the end.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::device::{Device, eventually, noise, pair_of_devices, tree, write};

/// Documents written while the node is killed.
const DOCUMENTS: usize = 20_000;
/// Acknowledgements after which it is killed.
const ACKNOWLEDGED: usize = 600;

fn document(n: usize) -> Value {
    json!({ "n": n, "text": format!("document {n}"), "half": n / 2 })
}

/// Ids and contents of all documents of type `t`.
fn documents(device: &Device) -> BTreeMap<String, Value> {
    device
        .rows(&["doc", "find", "t", "--limit", "1000000"])
        .into_iter()
        .map(|row| (row["id"].as_str().unwrap().to_owned(), row["value"].clone()))
        .collect()
}

/// Writes documents until the node is killed, and gives how many were acknowledged.
fn put_until_killed(device: &mut Device) -> usize {
    let mut process = device
        .command(&["doc", "put", "--lines", "-", "--json"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = process.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        for n in 0..DOCUMENTS {
            let line = json!({ "doctype": "t", "id": format!("d{n:05}"), "value": document(n) });
            if writeln!(input, "{line}").is_err() {
                break;
            }
        }
    });
    let mut acknowledged = 0;
    for line in BufReader::new(process.stdout.take().unwrap()).lines() {
        let Ok(ack) = serde_json::from_str::<Value>(&line.unwrap()) else {
            continue;
        };
        if ack.get("revision").is_some() {
            assert_eq!(ack["id"], format!("d{acknowledged:05}"), "{ack}");
            acknowledged += 1;
        }
        if acknowledged == ACKNOWLEDGED {
            device.kill();
        }
    }
    assert_ne!(process.wait().unwrap().code(), Some(0));
    writer.join().unwrap();
    assert!(acknowledged >= ACKNOWLEDGED);
    acknowledged
}

/// Every acknowledged document is there, and whatever is there is whole.
fn holds_whole(device: &Device, acknowledged: usize) -> BTreeMap<String, Value> {
    let found = documents(device);
    for n in 0..acknowledged {
        let id = format!("d{n:05}");
        assert!(found.contains_key(&id), "{id} was acknowledged and is lost");
    }
    for (id, value) in &found {
        let n: usize = id[1..].parse().unwrap();
        assert_eq!(*value, document(n), "{id}");
    }
    found
}

#[test]
fn writer_killed_in_the_middle_of_many_documents_loses_none_that_was_acknowledged() {
    let (mut first, second) = pair_of_devices();
    let acknowledged = put_until_killed(&mut first);
    first.start();
    let found = holds_whole(&first, acknowledged);
    first.in_sync();
    second.in_sync();
    assert_eq!(documents(&second), found);
    // It goes on as if nothing had been.
    first.ok(&["doc", "put", "u", "after", "{\"n\":1}"]);
    first.in_sync();
    assert_eq!(second.row(&["doc", "get", "u", "after"])["value"]["n"], 1);
}

#[test]
fn reader_killed_in_the_middle_of_many_documents_gets_them_all() {
    let (first, mut second) = pair_of_devices();
    let lines: String = (0..DOCUMENTS)
        .map(|n| {
            format!(
                "{}\n",
                json!({ "doctype": "t", "id": format!("d{n:05}"), "value": document(n) })
            )
        })
        .collect();
    write(&first.path("all.jsonl"), lines);
    let process = first
        .command(&["doc", "put", "--lines", "all.jsonl", "--json"])
        .spawn()
        .unwrap();
    eventually("some have arrived", || {
        second.status()["vault"]["documents"].as_u64() > Some(0)
    });
    second.kill();
    assert_eq!(process.wait_with_output().unwrap().status.code(), Some(0));
    second.start();
    first.in_sync();
    second.in_sync();
    assert_eq!(holds_whole(&second, DOCUMENTS).len(), DOCUMENTS);
}

/// A folder of files large enough to be caught on the way.
fn fill(dir: &std::path::Path) {
    for n in 0..6 {
        write(&dir.join(format!("large{n}.bin")), noise(n, 20_000_000));
    }
    for n in 0..200 {
        write(&dir.join(format!("small/{n}.txt")), noise(100 + n, 3_000));
    }
}

/// What is visible in `part` is in `whole` as well, and the same.
fn nothing_half_written(part: &std::path::Path, whole: &std::path::Path) {
    let whole = tree(whole);
    for (path, bytes) in tree(part) {
        assert!(
            whole.get(&path) == Some(&bytes),
            "{path} is visible and is not whole"
        );
    }
}

/// Waits until contents are on the way to `device`.
fn in_the_middle(device: &Device) {
    eventually("contents are on the way", || {
        let status = device.status();
        let arrived = status["transfers"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|transfer| {
                transfer["direction"] == "in" && transfer["bytes_done"].as_u64() > Some(0)
            });
        arrived || status["folders"][0]["files"].as_u64() > Some(0)
    });
}

/// A transfer of a folder during which `killed` dies and starts again.
fn folder_transfer(kill_the_reader: bool) {
    let (mut first, mut second) = pair_of_devices();
    let (here, there) = (first.path("Documents"), second.path("Documents"));
    fill(&here);
    std::fs::create_dir(&there).unwrap();
    second.ok(&["folder", "add", there.to_str().unwrap(), "--yes"]);
    first.ok(&["folder", "add", here.to_str().unwrap(), "--yes"]);
    in_the_middle(&second);
    let killed = if kill_the_reader {
        &mut second
    } else {
        &mut first
    };
    killed.kill();
    nothing_half_written(&there, &here);
    killed.start();
    eventually("everything is there", || tree(&there) == tree(&here));
    first.in_sync();
    second.in_sync();
    assert_eq!(second.status()["vault"]["files"], 206);
}

#[test]
fn reader_killed_in_the_middle_of_a_transfer_shows_nothing_half_written_and_ends_whole() {
    folder_transfer(true);
}

#[test]
fn writer_killed_in_the_middle_of_a_transfer_shows_nothing_half_written_and_ends_whole() {
    folder_transfer(false);
}

#[test]
fn acknowledged_file_survives_a_kill_at_once() {
    let mut device = Device::founded("first");
    write(&device.path("a.bin"), noise(1, 4_000_000));
    for round in 0..3 {
        let to = format!("kept/{round}.bin");
        device.ok(&["file", "add", "a.bin", "--to", &to]);
        device.kill();
        device.start();
        let out = device.path(&format!("{round}.bin"));
        device.ok(&["file", "get", &to, out.to_str().unwrap()]);
        assert_eq!(std::fs::read(out).unwrap(), noise(1, 4_000_000));
    }
    assert_eq!(device.rows(&["file", "list", "kept"]).len(), 3);
}
