//! Devices with little room: names without contents, fetching, pinning, dropping, and when dropping is refused.

use serde_json::Value;

use crate::device::{Device, eventually, noise, pair_of_devices, write};

const MB: usize = 1_000_000;

/// Adds a file of a million bytes.
fn add(device: &Device, name: &str, seed: u64) {
    write(&device.path(name), noise(seed, MB));
    device.ok(&["file", "add", name, "--to", name]);
}

/// Whether the content of a file is on the device.
fn is_here(device: &Device, path: &str) -> bool {
    device.row(&["file", "list", path])["content"]["here"] == true
}

fn storage(device: &Device) -> Value {
    device.row(&["storage", "show"])
}

fn get(device: &Device, path: &str, seed: u64) {
    let to = format!("got-{seed}");
    device.ok(&["file", "get", path, &to, "--overwrite"]);
    assert!(std::fs::read(device.path(&to)).unwrap() == noise(seed, MB));
}

fn both_in_sync(first: &Device, second: &Device) {
    first.in_sync();
    second.in_sync();
}

#[test]
fn a_device_on_demand_has_names_fetches_what_is_asked_for_and_drops_what_was_not_asked_for_longest()
{
    let (mut first, second) = pair_of_devices();
    let kept = second.row(&["storage", "on-demand"]);
    assert_eq!(kept["mode"], "on-demand");
    for (name, seed) in [("a", 1), ("b", 2), ("c", 3)] {
        add(&first, name, seed);
    }
    // In sync is who has what it is to have.
    both_in_sync(&first, &second);
    let rows = second.rows(&["file", "list"]);
    assert_eq!(rows.len(), 3);
    for row in &rows {
        assert_eq!(row["content"]["size"], MB, "{row}");
        assert_eq!(row["content"]["here"], false, "{row}");
    }
    assert_eq!(second.status()["missing_here"]["files"], 0);
    assert_eq!(second.status()["storage"]["elsewhere"]["bytes"], 3 * MB);
    assert!(second.stored() < MB as u64);
    // The other device says the same of it, and what would be lost with itself.
    let status = first.status();
    let said = &status["devices"][1]["holding"];
    assert_eq!(said["keeps_all"], false);
    assert_eq!(said["lacks"]["files"], 3);
    assert_eq!(status["storage"]["at_risk"]["only_here"]["files"], 3);

    second.ok(&["storage", "limit", "2.5MB"]);
    get(&second, "a", 1);
    get(&second, "b", 2);
    assert!(is_here(&second, "a") && is_here(&second, "b"));
    eventually("the other device knows", || {
        first.status()["devices"][1]["holding"]["lacks"]["files"] == 1
    });
    get(&second, "a", 1);
    get(&second, "c", 3);
    eventually("what was asked for first is dropped", || {
        !is_here(&second, "b")
    });
    assert!(is_here(&second, "a") && is_here(&second, "c"));
    eventually("its bytes are gone", || {
        second.stored() < 2 * MB as u64 + 300_000
    });
    both_in_sync(&first, &second);
    // What is pinned is fetched, stays, and takes nothing of the limit.
    let pinned = second.row(&["storage", "pin", "b"]);
    assert_eq!(pinned["rules"][1]["rule"], "pinned");
    eventually("it is fetched", || is_here(&second, "b"));
    second.ok(&["file", "move", "b", "Elsewhere/renamed"]);
    second.ok(&["storage", "limit", "0"]);
    eventually("all else is dropped", || {
        !is_here(&second, "a") && !is_here(&second, "c")
    });
    both_in_sync(&first, &second);
    assert!(is_here(&second, "Elsewhere/renamed"));
    assert_eq!(storage(&second)["kept"]["files"], 1);

    first.stop();
    eventually("it is noticed", || {
        second.status()["devices"][1]["connected"] == false
    });
    get(&second, "Elsewhere/renamed", 2);
    let refused = second.run(&["file", "get", "a", "nothing"]);
    refused.fails(6, "\"first\"");
    assert!(!second.path("nothing").exists());
    second
        .run(&["storage", "unpin", "c"])
        .fails(4, "is not pinned");
    first.start();
    second.ok(&["storage", "full"]);
    both_in_sync(&first, &second);
    assert!(is_here(&second, "a") && is_here(&second, "c"));
    assert_eq!(first.status()["storage"]["at_risk"]["files"], 0);
}

#[test]
fn nothing_is_dropped_that_the_other_device_lacks_or_may_drop_too() {
    let (mut first, mut second) = pair_of_devices();
    // Both are on demand, and both keep what they have, whatever the limit.
    add(&first, "a", 1);
    both_in_sync(&first, &second);
    for device in [&first, &second] {
        device.ok(&["storage", "on-demand"]);
        device.ok(&["storage", "limit", "0"]);
    }
    for device in [&first, &second] {
        eventually("it knows what the other said", || {
            device.status()["devices"][1]["holding"]["keeps_all"] == false
        });
        assert_eq!(storage(device)["evictable"]["files"], 0);
        assert_eq!(device.status()["storage"]["at_risk"]["files"], 1);
    }
    // It outlasts a restart of both: what was announced before counts anew.
    for device in [&mut first, &mut second] {
        device.stop();
        device.start();
    }
    both_in_sync(&first, &second);
    assert!(is_here(&first, "a") && is_here(&second, "a"));
    // One of them keeps everything again: then the other may let go.
    first.ok(&["storage", "full"]);
    eventually("it is dropped", || !is_here(&second, "a"));
    assert!(is_here(&first, "a"));

    // What the other device does not have yet stays, and is at risk.
    first.stop();
    add(&second, "b", 2);
    eventually("it is noticed", || {
        second.status()["devices"][1]["connected"] == false
    });
    let shown = storage(&second);
    assert_eq!(shown["used"]["bytes"], MB);
    assert_eq!(shown["evictable"]["files"], 0);
    assert_eq!(shown["at_risk"]["only_here"]["files"], 1);
    assert_eq!(shown["at_risk"]["names"], serde_json::json!(["b"]));
    first.start();
    eventually("it is dropped once it is elsewhere", || {
        !is_here(&second, "b")
    });
    get(&first, "b", 2);
    assert_eq!(storage(&second)["at_risk"]["files"], 0);
}

#[test]
fn a_folder_is_on_demand_and_a_synced_one_has_its_contents() {
    let (first, second) = pair_of_devices();
    add(&first, "Pictures/p", 1);
    add(&first, "Papers/q", 2);
    add(&first, "Music/m", 3);
    both_in_sync(&first, &second);
    for folder in ["Pictures", "Music"] {
        second.ok(&["storage", "on-demand", folder]);
    }
    assert_eq!(storage(&second)["mode"], "mixed");
    second.ok(&["storage", "limit", "0"]);
    eventually("what is on demand is dropped", || {
        !is_here(&second, "Pictures/p") && !is_here(&second, "Music/m")
    });
    assert!(is_here(&second, "Papers/q"));
    let folder = second.path("Music");
    second.ok(&["folder", "add", folder.to_str().unwrap()]);
    both_in_sync(&first, &second);
    assert!(std::fs::read(folder.join("m")).unwrap() == noise(3, MB));
    // Moved out of the folder that is on demand, it is fetched; moved into it, it may go.
    second.ok(&["file", "move", "Pictures/p", "Papers/p"]);
    eventually("it is fetched", || is_here(&second, "Papers/p"));
    both_in_sync(&first, &second);
    first.ok(&["file", "move", "Papers/q", "Pictures/q"]);
    both_in_sync(&first, &second);
    eventually("it is dropped", || !is_here(&second, "Pictures/q"));
    second.ok(&["storage", "full", "Pictures"]);
    eventually("all of the folder is here", || {
        is_here(&second, "Pictures/q")
    });
}

#[test]
fn parts_of_a_content_that_are_left_here_count_and_go() {
    let (first, mut second) = pair_of_devices();
    second.ok(&["storage", "on-demand"]);
    second.ok(&["storage", "limit", "100MB"]);
    write(&first.path("film"), noise(1, 20 * MB));
    first.ok(&["file", "add", "film", "--to", "film"]);
    both_in_sync(&first, &second);
    second.ok(&["file", "get", "film", "got"]);
    assert!(is_here(&second, "film"));
    // The disk loses one of its pieces.
    second.kill();
    let pieces = std::fs::read_dir(second.data.join("blobs/data")).unwrap();
    let largest = pieces
        .map(|piece| piece.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "data"))
        .max_by_key(|path| path.metadata().unwrap().len());
    std::fs::remove_file(largest.unwrap()).unwrap();
    second.start();
    both_in_sync(&first, &second);
    assert!(!is_here(&second, "film"));
    assert!(second.stored() > 10 * MB as u64);
    second.ok(&["storage", "limit", "5MB"]);
    eventually("what is left of it is gone", || second.stored() < MB as u64);
    second.ok(&["storage", "limit", "none"]);
    second.ok(&["file", "get", "film", "again"]);
    assert!(std::fs::read(second.path("again")).unwrap() == noise(1, 20 * MB));
    assert!(is_here(&second, "film"));
}
