//! A file's modification time, set without touching the bytes.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::device::{eventually, pair_of_devices, write};

fn at(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
}

fn set_time(path: &Path, ms: u64) {
    fs::File::open(path).unwrap().set_modified(at(ms)).unwrap();
}

fn has_time(path: &Path, ms: u64) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.modified().unwrap() == at(ms))
}

#[test]
fn a_time_that_somebody_sets_is_set_on_the_other_device_and_nothing_else_changes() {
    let (mut first, second) = pair_of_devices();
    let (here, there) = (first.path("Photos"), second.path("Photos"));
    for (device, dir) in [(&first, &here), (&second, &there)] {
        fs::create_dir(dir).unwrap();
        device.ok(&["folder", "add", dir.to_str().unwrap(), "--yes"]);
        device.in_sync();
    }
    for name in ["a.jpg", "b.jpg"] {
        write(&here.join(name), name);
    }
    eventually("both files are there", || {
        there.join("a.jpg").exists() && there.join("b.jpg").exists()
    });
    first.in_sync();
    second.in_sync();
    let versions = || second.rows(&["file", "history", "Photos/a.jpg"]).len();
    let before = versions();

    set_time(&here.join("a.jpg"), 1_000_000_000_123);
    eventually("the time came over", || {
        has_time(&there.join("a.jpg"), 1_000_000_000_123)
    });
    second.in_sync();
    set_time(&there.join("a.jpg"), 1_100_000_000_000);
    eventually("one came back", || {
        has_time(&here.join("a.jpg"), 1_100_000_000_000)
    });
    first.in_sync();
    assert_eq!(versions(), before, "no content was made of it");

    // Found by looking, after a stop, though nobody watched.
    first.stop();
    set_time(&here.join("b.jpg"), 1_200_000_000_456);
    first.start();
    eventually("the time came over", || {
        has_time(&there.join("b.jpg"), 1_200_000_000_456)
    });
    second.in_sync();
    for dir in [&here, &there] {
        assert_eq!(fs::read(dir.join("b.jpg")).unwrap(), b"b.jpg");
        assert_eq!(
            fs::read_dir(dir).unwrap().count(),
            3,
            "two files and .vault"
        );
    }
    assert!(has_time(&here.join("a.jpg"), 1_100_000_000_000));
    assert!(has_time(&there.join("a.jpg"), 1_100_000_000_000));
}
