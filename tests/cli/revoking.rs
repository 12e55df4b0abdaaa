//! A lost device is put out, devices get other roles, and the key changes: three nodes, one of them off meanwhile.

use serde_json::{Value, json};

use crate::device::{Device, eventually, pair, pair_of_devices};

const NOTES: &str = "io.cozy.notes";

fn put(device: &Device, id: &str) {
    let value = json!({ "title": id }).to_string();
    device.ok(&["doc", "put", NOTES, id, &value]);
}

fn has(device: &Device, id: &str) -> bool {
    device.run(&["doc", "get", NOTES, id]).code == Some(0)
}

fn names(device: &Device) -> Vec<String> {
    let rows = device.rows(&["device", "list"]);
    let names = rows
        .iter()
        .map(|row| row["name"].as_str().unwrap().to_owned());
    names.collect()
}

#[test]
fn a_revoked_device_learns_nothing_more_and_one_that_was_off_hears_of_it_first() {
    let (first, mut second) = pair_of_devices();
    let phone = Device::waiting("phone");
    pair(&first, &phone);
    second.in_sync();
    put(&phone, "before");
    for device in [&first, &second] {
        eventually("the phone's document arrives", || has(device, "before"));
    }
    second.stop();

    first
        .run(&["device", "revoke", "nobody", "--yes"])
        .fails(3, "nobody");
    let report = first.row(&["device", "revoke", "phone", "--yes"]);
    assert_eq!(report["name"], "phone");
    assert_eq!(report["held_keys"], true);
    assert_eq!(names(&first).len(), 2);
    put(&first, "after");

    // It is told, and says so when somebody writes there.
    let attempt = ["doc", "put", NOTES, "late", "{}"];
    eventually("the phone hears that it is out", || {
        phone
            .run(&attempt)
            .err
            .contains("not in the vault any more")
    });
    let warnings = phone.status()["warnings"].to_string();
    assert!(warnings.contains("\"revoked\""), "{warnings}");
    second.start();
    eventually("what was written after arrives", || has(&second, "after"));
    assert_eq!(names(&second).len(), 2);
    assert!(has(&second, "before"));
    first.in_sync();
    second.in_sync();
    assert!(!has(&phone, "after"));
    for device in [&first, &second] {
        let log = device.rows(&["device", "log"]);
        let revoked: Vec<&Value> = log.iter().filter(|row| row["what"] == "revoked").collect();
        assert_eq!(revoked.len(), 1);
        assert_eq!(
            (&revoked[0]["device"], &revoked[0]["by"]),
            (&json!("phone"), &json!("first"))
        );
        assert!(!has(device, "late"));
    }
}

#[test]
fn a_reader_reads_and_is_held_to_it() {
    let (first, second) = pair_of_devices();
    first.ok(&["device", "role", "second", "reader"]);
    eventually("the reader hears of it", || {
        second
            .run(&["doc", "put", NOTES, "mine", "{}"])
            .err
            .contains("may read the vault")
    });
    put(&first, "news");
    eventually("the reader reads", || has(&second, "news"));
    second
        .run(&["device", "revoke", "first", "--yes"])
        .fails(2, "");
    first.ok(&["device", "role", "second", "owner"]);
    eventually("it may write again", || {
        second.run(&["doc", "put", NOTES, "mine", "{}"]).code == Some(0)
    });
    eventually("what it writes arrives", || has(&first, "mine"));
    first.ok(&["relock"]);
    put(&first, "under the new key");
    eventually("it is read under the new key", || {
        has(&second, "under the new key")
    });
}
