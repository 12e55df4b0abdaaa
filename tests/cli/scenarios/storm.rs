//! More events than anybody can follow.
//!
//! `COFFER_STORM_S=30 cargo test -p coffer --test program -- storm` lasts half a minute; usually it is a few seconds.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::setting;
use crate::device::{Device, eventually, tree, write};
use crate::folders::Synced;

/// Events of the file system in a second.
const EVENTS_PER_S: u64 = 10_000;
/// How long it lasts if nobody says otherwise, in seconds.
const USUAL_S: u64 = 3;
/// What the node may need on top of what it needed before, in KiB. Ten thousand noted folders and fifty thousand noted
/// files are some 10 MiB; the rest is looking at the disk and the files that come and go.
const MORE_KIB: u64 = 96 << 10;

/// The most memory that a node ever had, in KiB.
fn peak_kib(device: &Device) -> u64 {
    let pid = device.status()["pid"].to_string();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux tells");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("Linux tells");
    let number = line.trim().trim_end_matches(" kB");
    number.parse().expect("a number")
}

/// One step of the storm; gives how many events it makes at least.
fn gust(dir: &Path, step: u64) -> u64 {
    let place = |n: u64| dir.join(format!("{}/{}", n % 25, n % 400));
    let file = place(step);
    match step % 5 {
        // Made (or emptied), written, closed.
        0 | 2 => {
            write(&file, step.to_le_bytes());
            3
        }
        1 => {
            let from = place(step - 1);
            let _ = fs::rename(
                from,
                dir.join(format!("{}/moved {}", step % 25, step % 400)),
            );
            2
        }
        3 => {
            let _ = fs::remove_file(place(step.wrapping_sub(201)));
            1
        }
        _ => {
            write(&dir.join("0/log"), step.to_le_bytes());
            3
        }
    }
}

#[test]
fn storm_of_events_ends_in_sync_and_costs_bounded_memory() {
    let seconds = setting("COFFER_STORM_S", USUAL_S);
    let synced = Synced::new(|here, _| {
        for n in 0..25 {
            fs::create_dir(here.join(n.to_string())).unwrap();
        }
    });
    let before = peak_kib(&synced.first);
    let (begun, mut events, mut step) = (Instant::now(), 0, 0);
    while events < seconds * EVENTS_PER_S {
        // No faster than said; on a machine that is too slow, as fast as it can.
        let due = begun + Duration::from_micros(events * 1_000_000 / EVENTS_PER_S);
        if let Some(early) = due.checked_duration_since(Instant::now()) {
            std::thread::sleep(early);
        }
        for _ in 0..50 {
            events += gust(&synced.here, step);
            step += 1;
        }
    }
    let lasted = begun.elapsed();
    let left = tree(&synced.here);
    eventually("the storm is recorded", || {
        synced.first.ok(&["folder", "rescan"]);
        let state = synced.first.status()["folders"][0]["state"].clone();
        // So much came, went and was rewritten that the brake may hold it; it was meant.
        if state == "braked" {
            let dir = synced.here.to_str().unwrap();
            synced.first.run(&["folder", "confirm", dir]);
        }
        state == "in-sync"
    });
    synced.settled();
    assert!(tree(&synced.there) == left, "not what was left");
    let after = peak_kib(&synced.first);
    println!("{events} events in {lasted:?}; peak memory {before} KiB before, {after} KiB after");
    assert!(
        after < before + MORE_KIB,
        "{before} KiB before, {after} KiB after"
    );
    assert!(synced.conflict_copies().is_empty());
}
