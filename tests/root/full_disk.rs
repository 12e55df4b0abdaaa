//! A disk that is full: said clearly, nothing harmed, and it goes on once there is room.

use std::path::Path;

use crate::device::{Device, eventually, noise, pair, tree, write};
use crate::disk::Disk;

/// Fills what is left with a file; gives its path.
pub fn fill(disk: &Disk) -> std::path::PathBuf {
    use std::io::Write;
    let path = disk.path("filler");
    let mut file = std::fs::File::create(&path).unwrap();
    let block = vec![7; 64 << 10];
    while file.write_all(&block).is_ok() {}
    while file.write_all(&block[..512]).is_ok() {}
    let _ = file.sync_all();
    path
}

fn got(device: &Device, path: &str, to: &Path) -> Vec<u8> {
    device.ok(&["file", "get", path, to.to_str().unwrap(), "--overwrite"]);
    std::fs::read(to).unwrap()
}

#[test]
fn full_disk_is_told_and_harms_nothing_and_it_goes_on_when_there_is_room() {
    let disk = Disk::new(96);
    let mut device = Device::with_data_folder("first", disk.path("data"));
    device.start();
    write(&device.path("kept.bin"), noise(1, 3_000_000));
    write(&device.path("large.bin"), noise(2, 12_000_000));
    device.ok(&["file", "add", "kept.bin"]);
    device.ok(&["doc", "put", "t", "kept", "{\"n\":1}"]);

    let filler = fill(&disk);
    device
        .run(&["file", "add", "large.bin"])
        .fails(13, "make room on the disk");
    let copy = device.path("copy.bin");
    // Documents may still fit into what the database has; they are either kept or refused, never half.
    let mut written = 0;
    let mut refused = None;
    for n in 0..2000 {
        let value = serde_json::json!({ "text": "x".repeat(60_000), "n": n }).to_string();
        let outcome = device.run(&["doc", "put", "big", &n.to_string(), &value]);
        match outcome.code {
            Some(0) => written += 1,
            _ => {
                refused = Some(outcome);
                break;
            }
        }
    }
    refused
        .expect("at some point the disk is full")
        .fails(13, "make room on the disk");

    std::fs::remove_file(&filler).unwrap();
    let check = |device: &Device| {
        assert_eq!(device.row(&["doc", "get", "t", "kept"])["value"]["n"], 1);
        assert!(got(device, "kept.bin", &copy) == noise(1, 3_000_000));
        assert_eq!(device.rows(&["doc", "list", "big"]).len(), written);
    };
    check(&device);
    device.ok(&["file", "add", "large.bin"]);
    device.ok(&["doc", "put", "t", "after", "{\"n\":2}"]);
    assert!(got(&device, "large.bin", &copy) == noise(2, 12_000_000));
    device.stop();
    device.start();
    check(&device);
    assert!(got(&device, "large.bin", &copy) == noise(2, 12_000_000));
    device.stop();
}

#[test]
fn start_on_a_full_disk_is_told_or_works_and_harms_nothing() {
    let disk = Disk::new(96);
    let mut device = Device::with_data_folder("first", disk.path("data"));
    device.start();
    device.ok(&["doc", "put", "t", "kept", "{\"n\":1}"]);
    device.stop();
    let filler = fill(&disk);
    let outcome = device.run(&["doc", "get", "t", "kept"]);
    assert!([Some(0), Some(13)].contains(&outcome.code), "{outcome:?}");
    let _ = device.run(&["stop"]);
    std::fs::remove_file(&filler).unwrap();
    device.start();
    assert_eq!(device.row(&["doc", "get", "t", "kept"])["value"]["n"], 1);
    device.stop();
}

#[test]
fn folder_on_a_full_disk_is_told_of_and_catches_up_when_there_is_room() {
    let disk = Disk::new(96);
    let mut first = Device::founded("first");
    let here = first.path("Documents");
    write(&here.join("early.txt"), "early");
    first.ok(&["folder", "add", here.to_str().unwrap(), "--yes"]);
    let mut second = Device::with_data_folder("second", disk.path("data"));
    second.start_with(&["--without-vault"]);
    pair(&first, &second);
    let there = disk.path("Documents");
    second.ok(&["folder", "add", there.to_str().unwrap(), "--yes"]);
    eventually("the folders are the same", || tree(&there) == tree(&here));

    let filler = fill(&disk);
    write(&here.join("large.bin"), noise(1, 12_000_000));
    write(&here.join("early.txt"), "changed");
    first.ok(&["folder", "rescan"]);
    eventually("the full disk is told of", || {
        let status = second.status();
        status["warnings"].to_string().contains("low-space") && first.status()["in_sync"] == false
    });
    // Whatever is seen there is whole.
    for (path, bytes) in tree(&there) {
        let text = bytes.unwrap_or_default();
        assert_eq!(path, "early.txt");
        assert!(text == b"early" || text == b"changed", "{text:?}");
    }

    std::fs::remove_file(&filler).unwrap();
    eventually("everything is there", || tree(&there) == tree(&here));
    first.in_sync();
    second.stop();
    first.stop();
}
