//! The power goes the instant after a promise was made.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::device::{Device, eventually, noise, pair, tree, write};
use crate::disk::Disk;

/// Documents offered; far more than are taken before the power goes.
const DOCUMENTS: usize = 20_000;

fn document(n: usize) -> Value {
    json!({ "n": n, "text": format!("document {n}") })
}

#[test]
fn every_acknowledged_document_is_there_after_a_power_loss() {
    let mut disk = Disk::new(256);
    // After the first acknowledgement, and in the middle of a stream of them.
    let mut before = 0;
    for (round, after) in [1, 40, 900].into_iter().enumerate() {
        let mut device = Device::with_data_folder("first", disk.path("data"));
        device.start();
        let doctype = format!("t{round}");
        let mut process = device
            .command(&["doc", "put", "--lines", "-", "--json"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = process.stdin.take().unwrap();
        let lines_of = doctype.clone();
        let writer = std::thread::spawn(move || {
            for n in 0..DOCUMENTS {
                let line =
                    json!({ "doctype": lines_of, "id": format!("d{n}"), "value": document(n) });
                if writeln!(input, "{line}").is_err() {
                    break;
                }
            }
        });
        let switch = disk.switch();
        let mut acks = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut acknowledged = 0;
        let mut take = |acks: &mut dyn Iterator<Item = std::io::Result<String>>| -> bool {
            let Some(Ok(line)) = acks.next() else {
                return false;
            };
            let ack: Value = serde_json::from_str(&line).unwrap();
            if ack.get("revision").is_some() {
                assert_eq!(ack["id"], format!("d{acknowledged}"));
                acknowledged += 1;
            }
            acknowledged < after
        };
        while take(&mut acks) {}
        switch.cut();
        // What was acknowledged in the meantime counts as well.
        device.kill();
        while acks.by_ref().next().is_some_and(|line| {
            let ack: Value = serde_json::from_str(&line.unwrap()).unwrap_or_default();
            if ack.get("revision").is_some() {
                acknowledged += 1;
            }
            true
        }) {}
        assert!(acknowledged >= after);
        process.wait().unwrap();
        writer.join().unwrap();
        drop(device);

        disk.again();
        let mut device = Device::with_data_folder("first", disk.path("data"));
        device.start();
        let found: std::collections::BTreeMap<String, Value> = device
            .rows(&["doc", "find", &doctype, "--limit", "1000000"])
            .into_iter()
            .map(|row| (row["id"].as_str().unwrap().to_owned(), row["value"].clone()))
            .collect();
        for n in 0..acknowledged {
            let id = format!("d{n}");
            assert_eq!(
                found.get(&id),
                Some(&document(n)),
                "{id} was acknowledged, after {after}"
            );
        }
        for (id, value) in &found {
            assert_eq!(*value, document(id[1..].parse().unwrap()), "{id}");
        }
        let all = device.status()["vault"]["documents"].as_u64().unwrap();
        assert!(
            all >= before + acknowledged as u64,
            "documents of an earlier round are lost"
        );
        before = all;
        device.stop();
        drop(device);
    }
}

#[test]
fn every_acknowledged_file_is_there_and_whole_after_a_power_loss() {
    let mut disk = Disk::new(256);
    for round in 0..3u64 {
        let mut device = Device::with_data_folder("first", disk.path("data"));
        device.start();
        let source = device.path("in");
        write(&source.join("large.bin"), noise(round, 9_000_000));
        for n in 0..50 {
            write(
                &source.join(format!("{n}.txt")),
                noise(1000 * (round + 1) + n, 2_000),
            );
        }
        let expected = tree(&source);
        let to = format!("round{round}");
        let switch = disk.switch();
        device.ok(&["file", "add", source.to_str().unwrap(), "--to", &to]);
        switch.cut();
        device.kill();
        drop(device);

        disk.again();
        let mut device = Device::with_data_folder("first", disk.path("data"));
        device.start();
        let copy = device.path("copy");
        device.ok(&["file", "get", &format!("{to}/in"), copy.to_str().unwrap()]);
        assert!(tree(&copy) == expected, "round {round} is not whole");
        device.stop();
    }
}

#[test]
fn folder_that_status_called_in_sync_is_there_and_whole_after_a_power_loss() {
    let mut disk = Disk::new(256);
    let mut first = Device::founded("first");
    let here = first.path("Documents");
    for n in 0..150 {
        write(&here.join(format!("small/{n}.txt")), noise(n, 2_000));
    }
    for n in 0..3 {
        write(
            &here.join(format!("large{n}.bin")),
            noise(1000 + n, 6_000_000),
        );
    }
    let expected = tree(&here);
    first.ok(&["folder", "add", here.to_str().unwrap(), "--yes"]);

    let mut second = Device::with_data_folder("second", disk.path("data"));
    second.start_with(&["--without-vault"]);
    let port = second.port();
    let there = disk.path("Documents");
    std::fs::create_dir(&there).unwrap();
    pair(&first, &second);
    let switch = disk.switch();
    second.ok(&[
        "folder",
        "add",
        there.to_str().unwrap(),
        "--yes",
        "--to",
        "Documents",
    ]);
    eventually("status says that nothing is left to do", || {
        let status = second.status();
        let folder = &status["folders"][0];
        status["idle"] == true && folder["state"] == "in-sync" && folder["files"] == 153
    });
    switch.cut();
    second.kill();
    drop(second);
    // What the first device is gone with cannot be fetched again: everything must have been on the disk.
    first.stop();

    disk.again();
    let found = tree(&there);
    assert_eq!(
        found.len(),
        expected.len(),
        "files are lost from the folder"
    );
    assert!(found == expected, "files of the folder are not whole");
    let mut second = Device::with_data_folder("second", disk.path("data"));
    second.listen_on(port);
    second.start();
    second.idle();
    let copy = second.path("copy");
    second.ok(&["file", "get", "Documents", copy.to_str().unwrap()]);
    assert!(tree(&copy) == expected, "the vault's copy is not whole");

    // Back together: nothing was taken for deleted or changed by a person.
    first.start();
    first.in_sync();
    second.in_sync();
    assert!(tree(&there) == expected && tree(&here) == expected);
    assert_eq!(first.status()["vault"]["files"], 153);
    second.stop();
}
