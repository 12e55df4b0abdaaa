//! Modification times that somebody sets without touching the bytes.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use super::planner::pair;
use super::puppet::{Puppet, sync};

/// Sets a file's time to so many milliseconds since 1970.
fn set_time(device: &Puppet, name: &str, ms: u64) {
    let file = std::fs::File::open(device.path(name)).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_millis(ms))
        .unwrap();
}

fn time(device: &Puppet, name: &str) -> u64 {
    let modified = std::fs::metadata(device.path(name)).unwrap().modified();
    let since = modified.unwrap().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap().as_millis()).unwrap()
}

/// Two devices that hold `f`, "old".
fn both() -> (Puppet, Puppet) {
    let (mut a, mut b) = pair();
    a.write("f", "old");
    sync(&mut a, &mut b);
    (a, b)
}

fn conflicts(a: &Puppet, b: &Puppet) -> usize {
    a.conflicts + b.conflicts + a.listing().len() - 1
}

#[test]
fn a_time_comes_over_without_the_bytes_and_does_not_come_back() {
    let (mut a, mut b) = both();
    let operations = a.vault.operations();
    set_time(&a, "f", 1_000_000_000_123);
    assert_eq!(a.local(), 1);
    b.vault.pull(&a.vault);
    assert_eq!(b.remote(None), 0, "contents written");
    assert_eq!(time(&b, "f"), 1_000_000_000_123);
    assert_eq!(
        b.local(),
        1,
        "read once more, as a write in between leaves no trace"
    );
    assert_eq!(b.local(), 0);
    sync(&mut a, &mut b);
    assert_eq!(a.vault.operations() - operations, 1);
    assert_eq!(b.vault.operations(), 0);
    // Back, and both the time and the bit at once.
    set_time(&b, "f", 1_000_000_000_000);
    sync(&mut a, &mut b);
    assert_eq!(time(&a, "f"), 1_000_000_000_000);
    set_time(&b, "f", 5_000);
    std::fs::set_permissions(b.path("f"), PermissionsExt::from_mode(0o755)).unwrap();
    sync(&mut a, &mut b);
    let mode = std::fs::metadata(a.path("f")).unwrap().permissions().mode();
    assert_eq!((time(&a, "f"), mode & 0o100), (5_000, 0o100));
    assert_eq!(conflicts(&a, &b), 0);
}

#[test]
fn less_than_the_vault_keeps_is_no_other_time() {
    let (mut a, mut b) = both();
    set_time(&a, "f", 1_000);
    sync(&mut a, &mut b);
    let operations = a.vault.operations();
    let file = std::fs::File::open(a.path("f")).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_nanos(1_000_999_999))
        .unwrap();
    sync(&mut a, &mut b);
    assert_eq!(a.vault.operations(), operations);
}

#[test]
fn a_time_never_stands_against_bytes_that_are_written_elsewhere() {
    for touch_comes_first in [true, false] {
        let (mut a, mut b) = both();
        set_time(&a, "f", 5_000);
        b.write("f", "by b!");
        if touch_comes_first {
            a.local();
            b.local();
        } else {
            b.local();
            a.local();
        }
        let written = time(&b, "f");
        sync(&mut a, &mut b);
        for device in [&a, &b] {
            assert_eq!(device.listing()["f"].as_deref(), Some("by b!"));
            assert_eq!(time(device, "f"), written);
        }
        assert_eq!(conflicts(&a, &b), 0);
    }
}

#[test]
fn of_two_times_set_apart_one_is_everywhere() {
    let (mut a, mut b) = both();
    set_time(&a, "f", 5_000);
    set_time(&b, "f", 6_000);
    a.local();
    b.local();
    sync(&mut a, &mut b);
    assert_eq!(time(&a, "f"), time(&b, "f"));
    assert!([5_000, 6_000].contains(&time(&a, "f")));
    // One that is not in the vault yet when the other arrives is the later.
    set_time(&a, "f", 7_000);
    a.local();
    set_time(&b, "f", 8_000);
    b.vault.pull(&a.vault);
    b.remote(None);
    sync(&mut a, &mut b);
    assert_eq!((time(&a, "f"), time(&b, "f")), (8_000, 8_000));
    assert_eq!(conflicts(&a, &b), 0);
}

#[test]
fn a_bit_that_is_set_leaves_a_time_that_was_set_elsewhere() {
    let (mut a, mut b) = both();
    set_time(&a, "f", 5_000);
    a.local();
    b.vault.pull(&a.vault);
    std::fs::set_permissions(b.path("f"), PermissionsExt::from_mode(0o755)).unwrap();
    sync(&mut a, &mut b);
    for device in [&a, &b] {
        let mode = std::fs::metadata(device.path("f")).unwrap().permissions();
        assert_eq!((time(device, "f"), mode.mode() & 0o100), (5_000, 0o100));
    }
}

#[test]
fn a_time_brings_back_nothing_that_was_deleted() {
    let (mut a, mut b) = both();
    b.remove("f");
    b.local();
    set_time(&a, "f", 5_000);
    a.local();
    sync(&mut a, &mut b);
    assert!(a.listing().is_empty() && b.listing().is_empty());
}

#[test]
fn equal_files_that_meet_have_one_time() {
    let (mut a, mut b) = pair();
    a.write("f", "same");
    b.write("f", "same");
    set_time(&a, "f", 5_000);
    set_time(&b, "f", 6_000);
    sync(&mut a, &mut b);
    assert_eq!(time(&a, "f"), time(&b, "f"));
    assert_eq!(conflicts(&a, &b), 0);
}
