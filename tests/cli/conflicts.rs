//! Conflicts: told, listed alike on both devices, and settled for both by one of them.

use std::fs;

use serde_json::Value;

use crate::device::{Device, eventually, pair_of_devices, write};
use crate::folders::Synced;
use crate::listener::Listener;

/// Two devices that changed the same files apart.
fn apart(names: &[&str]) -> Synced {
    let mut synced = Synced::new(|here, _| {
        for name in names {
            write(&here.join(name), "as it was");
        }
    });
    synced.second.stop();
    for name in names {
        write(&synced.here.join(name), "written on the first");
    }
    synced.first.ok(&["folder", "rescan"]);
    synced.first.idle();
    synced.first.stop();
    synced.second.start();
    for name in names {
        write(&synced.there.join(name), "as written on the second");
    }
    synced.second.ok(&["folder", "rescan"]);
    synced.second.idle();
    synced.first.start();
    synced.settled();
    synced
}

#[track_caller]
fn conflicts(device: &Device) -> Vec<Value> {
    device.rows(&["folder", "conflicts"])
}

fn text(path: &Value) -> &str {
    path.as_str().unwrap()
}

#[test]
fn conflicts_are_listed_alike_on_both_devices_and_settled_by_one_for_both() {
    let synced = apart(&["mine.txt", "theirs.txt", "both.txt"]);
    let listed = conflicts(&synced.first);
    assert_eq!(listed, conflicts(&synced.second));
    assert_eq!(
        listed,
        synced.first.rows(&["folder", "conflicts", "Documents"])
    );
    let plain: Vec<&str> = listed.iter().map(|row| text(&row["path"])).collect();
    assert_eq!(
        plain,
        [
            "Documents/both.txt",
            "Documents/mine.txt",
            "Documents/theirs.txt"
        ]
    );
    for row in &listed {
        let (device, date) = (text(&row["device"]), text(&row["date"]));
        let name = text(&row["path"]).trim_end_matches(".txt");
        assert_eq!(
            text(&row["copy"]),
            format!("{name} (conflict from {device}, {date}).txt")
        );
        let sizes = [row["size"].as_u64(), row["copy_size"].as_u64()];
        assert!(
            sizes == [Some(20), Some(24)] || sizes == [Some(24), Some(20)],
            "{row}"
        );
    }
    let status = synced.first.status();
    assert_eq!(status["conflicts"], 3);
    assert_eq!(status["folders"][0]["conflict_count"], 3);
    let warnings = status["warnings"].to_string();
    assert!(warnings.contains("folder conflicts"), "{warnings}");

    let held = |row: &Value, key: &str| {
        fs::read(synced.here.parent().unwrap().join(text(&row[key]))).unwrap()
    };
    let [both, mine, theirs] = &listed[..] else {
        panic!("{listed:?}")
    };
    let (both_plain, both_copy) = (held(both, "path"), held(both, "copy"));
    let (mine_plain, theirs_copy) = (held(mine, "path"), held(theirs, "copy"));
    let events = Listener::of(&synced.second);
    // By a path of the disk, by a path of the vault, and by the name of the copy.
    synced
        .first
        .ok(&["folder", "settle", "Documents/mine.txt", "--keep", "mine"]);
    let told = events.until(|event| event["event"] == "conflict");
    assert_eq!(told["settled"], true);
    assert_eq!(told["path"], "Documents/mine.txt");
    let copy = synced.here.parent().unwrap().join(text(&theirs["copy"]));
    synced.first.ok(&[
        "folder",
        "settle",
        copy.to_str().unwrap(),
        "--keep",
        "theirs",
    ]);
    let settled = synced
        .second
        .row(&["folder", "settle", text(&both["copy"]), "--keep", "both"]);
    let ordinary = text(&settled["now"][0]["copy"])
        .trim_start_matches("Documents/")
        .to_owned();
    assert!(!ordinary.contains("conflict"), "{ordinary}");
    let files = synced.settled();
    for device in [&synced.first, &synced.second] {
        assert!(conflicts(device).is_empty());
        assert_eq!(device.status()["conflicts"], 0);
    }
    let of = |name: &str| files[name].clone().unwrap();
    assert_eq!(of("mine.txt"), mine_plain);
    assert_eq!(of("theirs.txt"), theirs_copy);
    assert_eq!(of("both.txt"), both_plain);
    assert_eq!(of(&ordinary), both_copy);
    assert_eq!(files.len(), 4, "{:?}", files.keys());
    // Nothing that lost is lost.
    let trash = synced.first.ok(&["file", "list", "--trash"]);
    for row in [mine, theirs] {
        let name = text(&row["copy"]).rsplit('/').next().unwrap();
        assert!(trash.contains(name), "{trash}");
    }
    let history = synced
        .first
        .rows(&["file", "history", "Documents/theirs.txt"]);
    assert!(history.len() >= 3, "{history:?}");
    synced
        .first
        .run(&["folder", "settle", "Documents/mine.txt", "--keep", "both"])
        .fails(4, "no conflict");
}

#[test]
fn two_new_files_of_one_name_are_a_conflict_that_can_be_settled() {
    let mut synced = Synced::new(|here, _| write(&here.join("other.txt"), "other"));
    synced.second.stop();
    write(&synced.here.join("new.txt"), "from the first");
    synced.first.ok(&["folder", "rescan"]);
    synced.first.idle();
    synced.first.stop();
    synced.second.start();
    write(&synced.there.join("new.txt"), "coming from the second");
    synced.second.ok(&["folder", "rescan"]);
    synced.second.idle();
    let events = Listener::of(&synced.second);
    synced.first.start();
    let told = events.until(|event| event["event"] == "conflict");
    assert_eq!(told["settled"], false);
    synced.settled();
    let listed = conflicts(&synced.first);
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(listed, conflicts(&synced.second));
    let copy = fs::read(
        synced
            .there
            .parent()
            .unwrap()
            .join(text(&listed[0]["copy"])),
    )
    .unwrap();
    synced
        .second
        .ok(&["folder", "settle", "Documents/new.txt", "--keep", "theirs"]);
    eventually("it is settled on the other device", || {
        conflicts(&synced.first).is_empty()
    });
    let files = synced.settled();
    assert_eq!(files.len(), 2, "{:?}", files.keys());
    assert_eq!(files["new.txt"].as_ref(), Some(&copy));
}

/// No folder is synced on either device: what loses is shown by the device that wrote it.
#[test]
fn a_file_that_commands_changed_apart_keeps_both_contents() {
    let (mut first, mut second) = pair_of_devices();
    let add = |device: &Device, text: &str| {
        write(&device.path("letter.txt"), text);
        device.ok(&["file", "add", "letter.txt", "--to", "Papers/letter.txt"]);
    };
    add(&first, "as it was");
    first.in_sync();
    second.stop();
    add(&first, "written on the first");
    first.stop();
    second.start();
    add(&second, "as written on the second");
    first.start();
    eventually("both list the conflict", || {
        let listed = conflicts(&first);
        listed.len() == 1 && listed == conflicts(&second)
    });
    let listed = conflicts(&first);
    let sizes = [&listed[0]["size"], &listed[0]["copy_size"]];
    assert_eq!(sizes.map(|size| size.as_u64()), [Some(24), Some(20)]);
    first.in_sync();
    second.in_sync();
    let copy = second.ok(&["file", "get", text(&listed[0]["copy"]), "-"]);
    assert_eq!(copy, "written on the first");
}
