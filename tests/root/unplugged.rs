//! The disk of a synced folder that is taken away and brought back while coffer runs.

use crate::device::{Device, eventually, write};
use crate::disk::Disk;

#[test]
fn disk_of_a_synced_folder_can_be_unmounted_while_coffer_runs_and_goes_on_when_it_is_back() {
    let mut disk = Disk::new(32);
    let device = Device::founded("desk");
    let folder = disk.path("photos");
    write(&folder.join("one.jpg"), b"1");
    device.ok(&[
        "folder",
        "add",
        folder.to_str().unwrap(),
        "--to",
        "Photos",
        "--yes",
    ]);
    let state = || device.status()["folders"][0]["state"].clone();
    eventually("the folder is in sync", || state() == "in-sync");

    eventually("the disk is let go", || disk.let_go());
    eventually("the device says so", || state() == "not-there");
    assert_eq!(device.rows(&["file", "list", "Photos"]).len(), 1);
    assert!(device.rows(&["trash", "list"]).is_empty());

    disk.bring_back();
    write(&folder.join("two.jpg"), b"2");
    device.ok(&["folder", "rescan"]);
    eventually("it goes on", || {
        state() == "in-sync" && device.rows(&["file", "list", "Photos"]).len() == 2
    });
    assert!(device.rows(&["trash", "list"]).is_empty());
    eventually("the disk is let go again", || disk.let_go());
}
