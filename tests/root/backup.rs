//! A backup on a disk that is full, and on one that is pulled out in the middle.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::device::{Device, eventually, noise, write};
use crate::disk::Disk;
use crate::full_disk::fill;

/// A device with a file of so many bytes.
fn with_file(bytes: usize) -> Device {
    let device = Device::founded("first");
    write(&device.path("large.bin"), noise(1, bytes));
    device.ok(&["file", "add", "large.bin"]);
    device
}

fn is_whole(device: &Device, dir: &str) {
    let found = device.row(&["backup", "verify", dir]);
    assert_eq!(found["flaws"], json!([]));
    assert_eq!(found["inside"]["missing"], 0);
    assert_eq!(found["inside"]["contents"], 1);
}

#[test]
fn a_full_disk_is_told_and_the_next_backup_goes_on_when_there_is_room() {
    let disk = Disk::new(64);
    let device = with_file(12_000_000);
    let dir = disk.path("coffer");
    let dir = dir.to_str().unwrap();
    let filler = fill(&disk);
    device.run(&["backup", dir]).fails(13, "goes on from here");
    // Room for a part.
    let file = std::fs::File::options().write(true).open(&filler);
    let file = file.unwrap();
    let all = file.metadata().unwrap().len();
    file.set_len(all - (5 << 20)).unwrap();
    drop(file);
    device.run(&["backup", dir]).fails(13, "goes on from here");
    std::fs::remove_file(&filler).unwrap();
    device.ok(&["backup", dir]);
    is_whole(&device, dir);
}

#[test]
fn a_disk_that_is_pulled_out_in_the_middle_keeps_what_was_and_takes_what_is_new_later() {
    let mut disk = Disk::new(256);
    let device = Device::founded("first");
    device.ok(&["doc", "put", "notes", "a", "{}"]);
    let place = disk.path("coffer");
    let dir = place.to_str().unwrap();
    device.ok(&["backup", dir]);
    write(&device.path("large.bin"), noise(1, 60_000_000));
    device.ok(&["file", "add", "large.bin"]);

    let switch = disk.switch();
    let run = device
        .command(&["backup", dir])
        .stdout(Stdio::null())
        .spawn();
    let mut run = run.unwrap();
    eventually("it writes", || place.join("DATA/NEW.TMP").exists());
    switch.cut();
    assert_ne!(run.wait().unwrap().code(), Some(0));
    disk.again();

    let runs = device.rows(&["backup", "list", dir]);
    assert_eq!(runs.len(), 1, "{runs:?}");
    let found = device.row(&["backup", "verify", dir]);
    assert_eq!(found["flaws"], Value::Array(Vec::new()));
    device.ok(&["backup", dir]);
    is_whole(&device, dir);
}
