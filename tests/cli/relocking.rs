//! The lock is changed by itself when it is time.

use redb::ReadableTable;
use serde_json::Value;

use crate::device::{Device, eventually, pair_of_devices};

const META: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("meta_1");

fn locks(device: &Device) -> Vec<Value> {
    let mut rows = device.rows(&["device", "log"]);
    rows.retain(|row| {
        row["what"]
            .as_str()
            .unwrap()
            .starts_with("changed the lock")
    });
    rows
}

/// Has a device that does not run believe that it first saw the present key so long before.
fn backdate(device: &Device, by_s: u64) {
    let database = redb::Database::open(device.data.join("vault.redb")).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut table = write.open_table(META).unwrap();
        let noted = table.get("lock_seen_1").unwrap().unwrap().value().to_vec();
        let (epoch, at) = noted.split_at(32);
        let at = u64::from_be_bytes(at.try_into().unwrap()) - by_s * 1000;
        let noted = [epoch, &at.to_be_bytes()[..]].concat();
        table.insert("lock_seen_1", &noted[..]).unwrap();
    }
    write.commit().unwrap();
}

#[test]
fn the_lock_is_changed_by_itself_when_it_is_time_and_not_before() {
    let (mut first, second) = pair_of_devices();
    assert_eq!(first.status()["lock"]["every_s"], 365 * 86_400);
    first
        .run(&["relock", "--every", "1h"])
        .fails(2, "once a day");
    let set = first.row(&["relock", "--every", "30d"]);
    assert_eq!(set["every_s"], 30 * 86_400);
    eventually("the other device has the setting", || {
        second.status()["lock"]["every_s"] == 30 * 86_400
    });
    for device in [&first, &second] {
        eventually("the present lock is noted", || {
            device.status()["lock"]["seen_ms"].is_u64()
        });
    }
    let before = locks(&first).len();

    first.stop();
    backdate(&first, 20 * 86_400);
    first.start();
    // Whichever of the two owners comes first, it has waited long enough.
    first.stop();
    assert_eq!(locks(&second).len(), before);
    backdate(&first, 20 * 86_400);
    first.start();
    eventually("the lock is changed", || locks(&first).len() == before + 1);
    eventually("the other device hears of it", || {
        locks(&second).len() == before + 1
    });
    let newest = locks(&first).pop().unwrap();
    assert_eq!(newest["by"], "first");
    eventually("when that was is told", || {
        locks(&first).iter().any(|row| row["at_ms"].is_u64())
    });
    first.ok(&["doc", "put", "notes", "under the new key", "{}"]);
    eventually("it is read under the new key", || {
        second
            .run(&["doc", "get", "notes", "under the new key"])
            .code
            == Some(0)
    });
    first.ok(&["relock", "--every", "never"]);
    assert!(first.status()["lock"]["every_s"].is_null());
}
