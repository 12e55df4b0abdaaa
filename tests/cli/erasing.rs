//! A device that was put out of the vault erases its copy.

use serde_json::json;

use crate::device::{Device, eventually, noise, pair_of_devices, write};

fn warned(device: &Device) -> bool {
    let warnings = device.status()["warnings"].to_string();
    warnings.contains("\"revoked\"") && warnings.contains("coffer erase")
}

#[test]
fn a_device_that_was_put_out_erases_its_copy_once_its_name_is_typed() {
    let (first, phone) = pair_of_devices();
    first.ok(&["doc", "put", "notes", "kept", "{}"]);
    write(&phone.path("a.bin"), noise(3, 90_000));
    phone.ok(&["file", "add", phone.path("a.bin").to_str().unwrap()]);
    let folder = phone.path("folder");
    write(&folder.join("letter.txt"), b"dear");
    phone.ok(&["folder", "add", folder.to_str().unwrap(), "--yes"]);
    first.in_sync();
    phone.in_sync();

    phone
        .run(&["erase", "--name", "second"])
        .fails(4, "belongs to the vault");
    first.ok(&["device", "revoke", "second", "--yes"]);
    eventually("it is told, and offered to erase", || warned(&phone));
    // A yes is no name.
    phone
        .run(&["erase", "--yes"])
        .fails(5, "name of this device");
    phone
        .run(&["erase", "--name", "first"])
        .fails(5, "not the name");
    phone.ok(&["doc", "get", "notes", "kept"]);

    let erased = phone.row(&["erase", "--name", "second"]);
    assert_eq!(
        (&erased["name"], &erased["folders"]),
        (&json!("second"), &json!([folder]))
    );
    for gone in ["identity", "vault.redb", "blobs", "index.sqlite", "erasing"] {
        assert!(!phone.data.join(gone).exists(), "{gone}");
    }
    assert_eq!(std::fs::read(folder.join("letter.txt")).unwrap(), b"dear");
    phone.run(&["doc", "list"]).fails(11, "no vault");
    // The others have all of it.
    first.ok(&["doc", "get", "notes", "kept"]);
    let got = first.path("got.bin");
    first.ok(&["file", "get", "a.bin", got.to_str().unwrap()]);
    assert_eq!(std::fs::read(got).unwrap(), noise(3, 90_000));
}

#[test]
fn what_only_a_device_that_was_put_out_has_is_not_erased() {
    let (mut first, mut phone) = pair_of_devices();
    phone.stop();
    first.ok(&["device", "revoke", "second", "--yes"]);
    first.stop();
    // It does not know yet.
    phone.start();
    phone.ok(&["doc", "put", "notes", "nowhere else", "{}"]);
    first.start();
    eventually("it is told", || warned(&phone));
    phone
        .run(&["erase", "--name", "second"])
        .fails(4, "not known to be anywhere else");
    phone.ok(&["doc", "get", "notes", "nowhere else"]);
}
