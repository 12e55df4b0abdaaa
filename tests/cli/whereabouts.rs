//! Where contents are that are not here: who has them, who may, and why they do not come.

use std::fs;

use serde_json::{Value, json};

use crate::device::{Device, eventually, noise, pair_of_devices, write};
use crate::folders::Synced;
use crate::listener::Listener;

/// The contents that `a.txt` had, latest first: whether each is here, who has it, who may have it.
fn history(device: &Device) -> Vec<(Value, Value, Value)> {
    let rows = device.rows(&["file", "history", "Documents/a.txt"]);
    let place = |row: &Value| {
        (
            row["content"]["here"].clone(),
            row["on"].clone(),
            row["perhaps_on"].clone(),
        )
    };
    rows.iter().map(place).collect()
}

/// What names one of those contents.
fn revision(device: &Device, at: usize) -> String {
    let rows = device.rows(&["file", "history", "Documents/a.txt"]);
    rows[at]["revision"].as_str().unwrap().to_owned()
}

#[test]
fn history_says_of_each_content_who_has_it_who_may_and_what_nobody_has() {
    let mut synced = Synced::new(|here, _| write(&here.join("a.txt"), "first"));
    write(&synced.here.join("a.txt"), "second one");
    synced.settled();
    let here = (json!(true), json!([]), json!([]));
    let on_second = json!([{"name": "second", "connected": true, "paused": false}]);
    let there = (json!(false), on_second, json!([]));
    // What was overwritten here was put aside there.
    assert_eq!(history(&synced.first), [here.clone(), there.clone()]);
    let said = synced.first.ok(&["file", "history", "Documents/a.txt"]);
    assert!(said.contains("(on \"second\")"), "{said}");
    synced.second.ok(&["pause"]);
    let said = synced.first.ok(&["file", "history", "Documents/a.txt"]);
    assert!(said.contains("(on \"second\", paused there)"), "{said}");
    let former = revision(&synced.first, 1);
    let restore = ["file", "restore", "Documents/a.txt", "--at", &former];
    let refused = synced.first.run(&restore);
    refused.fails(6, "it is on \"second\", where transfers are paused");
    refused.fails(6, "`coffer resume` on that device");
    synced.second.ok(&["resume"]);

    synced.second.stop();
    write(&synced.here.join("a.txt"), "nobody ever had this one");
    eventually("it is known", || {
        synced.first.ok(&["folder", "rescan"]);
        history(&synced.first).len() == 3
    });
    write(&synced.here.join("a.txt"), "the last of all of them");
    eventually("it is known", || {
        synced.first.ok(&["folder", "rescan"]);
        history(&synced.first).len() == 4
    });
    let perhaps = (json!(false), json!([]), json!(["second"]));
    let is_so =
        || history(&synced.first)[1..] == [perhaps.clone(), perhaps.clone(), perhaps.clone()];
    // The second one was on both, and that is not stated of what is not present any more.
    eventually("who was asked is gone", is_so);
    let said = synced.first.ok(&["file", "history", "Documents/a.txt"]);
    assert!(
        said.contains("(perhaps on \"second\", which cannot be asked now)"),
        "{said}"
    );

    synced.second.start();
    synced.settled();
    let nowhere = (json!(false), json!([]), json!([]));
    let known =
        || history(&synced.first) == [here.clone(), nowhere.clone(), there.clone(), there.clone()];
    eventually("all devices were asked", known);
    let said = synced.first.ok(&["file", "history", "Documents/a.txt"]);
    assert!(said.contains("(on no device)"), "{said}");
    let revision = revision(&synced.first, 1);
    let got = ["file", "get", "Documents/a.txt", "old", "--at", &revision];
    synced
        .first
        .run(&got)
        .fails(6, "no other device is known to have it");
    let restore = ["file", "restore", "Documents/a.txt", "--at", &revision];
    let before = fs::read(synced.here.join("a.txt")).unwrap();
    synced
        .first
        .run(&restore)
        .fails(6, "no other device is known to have it");
    assert_eq!(fs::read(synced.here.join("a.txt")).unwrap(), before);
}

#[test]
fn who_is_paused_is_named_and_what_was_asked_for_comes_when_it_goes_on() {
    let (first, second) = pair_of_devices();
    second.ok(&["storage", "on-demand"]);
    write(&first.path("a.bin"), noise(1, 300_000));
    first.ok(&["file", "add", "a.bin"]);
    first.in_sync();
    first.ok(&["pause"]);
    let why = "it is on \"first\", where transfers are paused";
    let got = second.run(&["file", "get", "a.bin", "copy.bin"]);
    got.fails(6, why);
    assert!(
        got.err.contains("`coffer resume` on that device"),
        "{got:?}"
    );
    assert_eq!(second.status()["devices"][1]["paused"], true);
    assert!(
        second
            .ok(&["status"])
            .contains("transfers are paused there")
    );
    let pinned = second.ok(&["storage", "pin", "a.bin"]);
    assert!(
        pinned.contains(&format!("a.bin: its content is not on this device; {why}")),
        "{pinned}"
    );
    let said = second.ok(&["status"]);
    assert!(
        said.contains("1 file (300 kB); transfers are paused on first"),
        "{said}"
    );
    second.ok(&["file", "delete", "a.bin"]);
    let restored = second.run(&["trash", "restore", "a.bin"]);
    restored.fails(6, "did not come back");
    assert!(restored.out.contains(why), "{restored:?}");
    first.ok(&["resume"]);
    eventually(
        "it comes, and the pause is over for all who were told of it",
        || {
            let status = second.status();
            status["missing_here"]["files"] == 0 && status["devices"][1]["paused"] == false
        },
    );
    second.ok(&["file", "get", "a.bin", "copy.bin"]);
    assert!(fs::read(second.path("copy.bin")).unwrap() == noise(1, 300_000));
}

#[test]
fn what_was_deleted_in_a_folder_a_moment_ago_comes_out_of_the_trash_with_its_content() {
    let names = ["one.txt", "two.txt", "three.txt"];
    let synced = Synced::new(|here, _| {
        for name in names {
            write(&here.join(name), name);
        }
    });
    for name in names {
        fs::remove_file(synced.here.join(name)).unwrap();
        let path = format!("Documents/{name}");
        let restored = synced.first.run(&["trash", "restore", &path]);
        assert_eq!(restored.code, Some(0), "{restored:?}");
        assert!(restored.out.contains("is back"), "{restored:?}");
    }
    let tree = synced.settled();
    for name in names {
        assert_eq!(tree[name].as_deref(), Some(name.as_bytes()));
    }
    // The same by the other command, and a list right after.
    fs::remove_file(synced.here.join("one.txt")).unwrap();
    assert_eq!(synced.first.rows(&["trash", "list"]).len(), 1);
    synced.first.ok(&["file", "restore", "Documents/one.txt"]);
    assert_eq!(
        synced.settled()["one.txt"].as_deref(),
        Some(&b"one.txt"[..])
    );
}

#[test]
fn events_of_a_folder_tell_that_a_content_went_with_its_file_and_came_back() {
    let synced = Synced::new(|here, _| write(&here.join("a.txt"), "a"));
    let events = Listener::of(&synced.first);
    let told = |change: &'static str| {
        let event = events.until(move |event| {
            event["event"] == "file"
                && event["path"] == "Documents/a.txt"
                && event["change"] == change
        });
        (event["here"].clone(), event["made_here"].clone())
    };
    fs::remove_file(synced.here.join("a.txt")).unwrap();
    assert_eq!(told("deleted"), (json!(false), json!(true)));
    synced.first.ok(&["trash", "restore", "Documents/a.txt"]);
    assert_eq!(told("restored"), (json!(false), json!(true)));
    assert_eq!(told("fetched"), (json!(true), json!(false)));
}
