//! The brake: half of a folder deleted or most of it rewritten at once is not passed on until a person says so.

use std::fs;

use serde_json::Value;

use crate::device::{Device, eventually, tree, write};
use crate::folders::Synced;
use crate::listener::Listener;

const FILES: usize = 60;

fn sixty() -> Synced {
    Synced::new(|here, _| {
        for n in 0..FILES {
            write(
                &here.join(format!("{}/{n}.txt", n % 2)),
                format!("text {n}"),
            );
        }
    })
}

fn delete_half(synced: &Synced) {
    for n in 0..30 {
        fs::remove_file(synced.here.join(format!("{}/{n}.txt", n % 2))).unwrap();
    }
}

/// Waits until the folder rests, and gives what it says of itself.
#[track_caller]
fn resting(device: &Device, gone: u64, rewritten: u64) -> Value {
    let mut found = Value::Null;
    eventually("the folder rests", || {
        found = device.rows(&["folder", "list"]).remove(0);
        found["state"] == "braked"
            && found["brake"]["gone"] == gone
            && found["brake"]["rewritten"] == rewritten
    });
    found
}

#[test]
fn half_of_a_folder_deleted_at_once_stays_elsewhere_until_a_person_confirms() {
    let synced = sixty();
    let before = tree(&synced.there);
    let events = Listener::of(&synced.first);
    synced.first.at_once(|| delete_half(&synced));
    let folder = resting(&synced.first, 30, 0);
    assert_eq!(folder["brake"]["names"].as_array().unwrap().len(), 20);
    let told = events.until(|event| event["event"] == "brake" && event["gone"] == 30);
    assert_eq!(told["on"], true);
    let status = synced.first.status();
    let warnings = status["warnings"].as_array().unwrap();
    let warning = warnings
        .iter()
        .find(|warning| warning["code"] == "folder-braked")
        .unwrap_or_else(|| panic!("{status}"));
    assert!(warning["text"].as_str().unwrap().contains("folder undo"));
    assert_eq!(status["idle"], false);
    let text = synced.first.ok(&["folder", "list"]);
    assert!(text.contains("30 files disappeared at once"), "{text}");
    assert_eq!(tree(&synced.there), before, "nothing is deleted elsewhere");
    assert_eq!(
        synced
            .second
            .rows(&["file", "list", "Documents", "--recursive"])
            .len(),
        FILES + 2
    );
    synced.first.ok(&["folder", "confirm", "Documents"]);
    events.until(|event| event["event"] == "brake" && event["on"] == false);
    assert_eq!(synced.settled().values().flatten().count(), 30);
    synced
        .first
        .run(&["folder", "confirm", "Documents"])
        .fails(4, "nothing is held back");
}

#[test]
fn half_of_a_folder_deleted_while_nothing_ran_comes_back_when_a_person_says_so() {
    let mut synced = sixty();
    let before = tree(&synced.here);
    synced.first.stop();
    delete_half(&synced);
    synced.first.start();
    resting(&synced.first, 30, 0);
    // Not even the next start takes it for meant.
    synced.first.stop();
    synced.first.start();
    resting(&synced.first, 30, 0);
    let undone = synced.first.row(&["folder", "undo", "Documents"]);
    assert_eq!(undone["gone"], 30, "{undone}");
    assert_eq!(synced.settled(), before);
}

#[test]
fn nobody_lets_go_of_what_another_device_may_have_lost() {
    let synced = sixty();
    let (before, second) = (tree(&synced.here), &synced.second);
    synced.first.at_once(|| delete_half(&synced));
    resting(&synced.first, 30, 0);
    let relies = || second.status()["devices"][1]["holding"]["keeps_all"] == true;
    eventually("the other device knows", || !relies());
    second.ok(&["folder", "remove", synced.there.to_str().unwrap()]);
    second.ok(&["storage", "on-demand"]);
    second.ok(&["storage", "limit", "0"]);
    let evictable = second.row(&["storage", "show"])["evictable"].clone();
    assert_eq!(evictable["files"], 0, "half of them are the last copies");
    synced.first.ok(&["folder", "undo", "Documents"]);
    eventually("all are back", || tree(&synced.here) == before);
    eventually("then the other device lets go", || {
        let files = second.rows(&["file", "list", "Documents", "--recursive"]);
        let mut contents = files.iter().filter(|row| row["content"].is_object());
        contents.all(|row| row["content"]["here"] == false)
    });
}

#[test]
fn most_of_a_folder_rewritten_at_once_comes_back_and_the_new_bytes_are_kept_aside() {
    let synced = sixty();
    let before = tree(&synced.here);
    let mut gibberish: Vec<String> = (0..40).map(|n| format!("gibberish {n}")).collect();
    synced.first.at_once(|| {
        for (n, text) in gibberish.iter().enumerate() {
            write(&synced.here.join(format!("{}/{n}.txt", n % 2)), text);
        }
    });
    resting(&synced.first, 0, 40);
    let undone = synced.first.row(&["folder", "undo", "Documents"]);
    assert_eq!(undone["rewritten"], 40, "{undone}");
    assert_eq!(synced.settled(), before);
    let mut kept: Vec<String> = fs::read_dir(synced.here.join(".vault/kept"))
        .unwrap()
        .filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok())
        .filter(|text| text.starts_with("gibberish"))
        .collect();
    kept.sort();
    gibberish.sort();
    assert_eq!(kept, gibberish);
}

#[test]
fn deleting_knowingly_in_the_vault_is_carried_out_without_a_question() {
    let synced = sixty();
    synced.second.ok(&["file", "delete", "Documents/0"]);
    eventually("it is deleted here", || !synced.here.join("0").exists());
    assert_eq!(synced.settled().values().flatten().count(), 30);
}
