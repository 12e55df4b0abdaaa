//! Hosts that have lost what they had confirmed, and how far what they confirm is relied on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::device::{Device, eventually, in_time, noise, pair_of_devices, write};
use crate::host::Host;
use crate::liar::Liar;

const MB: usize = 1 << 20;

/// A device with a file, and a host that holds it.
fn filled() -> (Device, Host) {
    let (device, host) = (Device::founded("first"), Host::started());
    add_file(&device, "letter", 1);
    device.ok(&["relay", "add", &host.invite("1GiB"), "--name", "attic"]);
    holds_everything(&device, 1);
    (device, host)
}

fn add_file(device: &Device, name: &str, seed: u64) {
    let path = device.path(name);
    write(&path, noise(seed, MB));
    device.ok(&["file", "add", path.to_str().unwrap()]);
}

/// Waits until so many hosts are known to hold all that this device has.
#[track_caller]
fn holds_everything(device: &Device, hosts: usize) {
    eventually("the hosts hold everything", || {
        let rows = device.status()["hosts"].clone();
        let rows = rows.as_array().unwrap();
        rows.len() == hosts && rows.iter().all(|row| row["holding"]["everything"] == true)
    });
}

/// What the host keeps contents in, while it does not run.
fn packs(host: &Host) -> Vec<PathBuf> {
    let found = packs_now(host);
    assert!(!found.is_empty(), "the host keeps no contents");
    found
}

/// The same, which may be none.
fn packs_now(host: &Host) -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "pack")
            {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&host.data, &mut found);
    found
}

#[track_caller]
fn named_as(device: &Device, code: &str) {
    eventually("it is named", || {
        let status = device.status();
        let troubles = status["hosts"][0]["troubles"].as_array().unwrap().clone();
        let warnings = status["warnings"].as_array().unwrap().clone();
        let has = |rows: &[Value], code: &str| rows.iter().any(|row| row["code"] == code);
        has(&troubles, code) && has(&warnings, &format!("host-{code}"))
    });
}

/// Waits until nothing is held against any host.
#[track_caller]
fn nothing_is_wrong(device: &Device) {
    eventually("it is named no longer", || {
        let hosts = device.status()["hosts"].clone();
        let mut hosts = hosts.as_array().unwrap().iter();
        hosts.all(|host| host["troubles"].as_array().is_none_or(Vec::is_empty))
    });
    let warnings = device.status()["warnings"].to_string();
    assert!(!warnings.contains("host-"), "{warnings}");
}

#[test]
fn a_host_whose_disk_damages_contents_is_named_and_gets_them_anew_and_is_named_no_longer() {
    let (device, mut host) = filled();
    for seed in 2..8 {
        add_file(&device, &format!("letter {seed}"), seed);
    }
    holds_everything(&device, 1);
    host.stop();
    for pack in packs(&host) {
        let len = std::fs::metadata(&pack).unwrap().len();
        std::fs::write(&pack, noise(99, len as usize)).unwrap();
    }
    host.start();
    // One of them is asked for; the others are found by the host, which reads all of them then.
    named_as(&device, "lost-contents");
    nothing_is_wrong(&device);
    holds_everything(&device, 1);
}

#[test]
fn a_host_that_holds_things_back_is_named_until_it_does_not() {
    let liar = Liar::started();
    let (mut first, mut second) = pair_of_devices();
    add_file(&first, "letter", 1);
    let invitation = liar.host.invite("1GiB");
    first.ok(&["relay", "add", &invitation, "--name", "attic"]);
    for device in [&first, &second] {
        eventually("the host is known", || {
            device.status()["hosts"][0]["name"] == "attic"
        });
        holds_everything(device, 1);
    }
    second.stop();
    first.ok(&["doc", "put", "notes", "ada", r#"{"text":"kept back"}"#]);
    holds_everything(&first, 1);
    first.stop();
    liar.lies(true);
    second.start();
    let troubles = |device: &Device| device.status()["hosts"][0]["troubles"].to_string();
    in_time("it is named", Duration::from_secs(300), || {
        let troubles = troubles(&second);
        troubles.contains("withholds") && troubles.contains("unproven")
    });
    let said = second.ok(&["status"]);
    assert!(said.contains("does not pass on everything"), "{said}");
    assert!(said.contains("does not answer"), "{said}");
    second.run(&["doc", "get", "notes", "ada"]).fails(3, "ada");
    liar.lies(false);
    in_time("it is named no longer", Duration::from_secs(120), || {
        troubles(&second) == "[]"
    });
    assert!(
        second
            .ok(&["doc", "get", "notes", "ada"])
            .contains("kept back")
    );
}

#[test]
fn a_host_that_lost_contents_is_named_and_gets_them_again() {
    let (device, mut host) = filled();
    host.stop();
    for pack in packs(&host) {
        std::fs::remove_file(pack).unwrap();
    }
    host.start();
    named_as(&device, "lost-contents");
    eventually("the contents are there again", || {
        let bytes = |pack: &PathBuf| std::fs::metadata(pack).map_or(0, |found| found.len());
        packs_now(&host).iter().map(bytes).sum::<u64>() > MB as u64
    });
    holds_everything(&device, 1);
}

#[test]
fn a_host_holds_everything_although_an_earlier_content_is_nowhere_any_more() {
    let device = Device::founded("first");
    let folder = device.path("folder");
    let letter = folder.join("letter");
    write(&letter, noise(1, MB));
    let dir = folder.to_str().unwrap();
    device.ok(&["folder", "add", dir, "--to", "papers", "--yes"]);
    device.idle();
    let versions = |count: usize| {
        eventually("the content is recorded", || {
            let rows = device.rows(&["file", "history", "papers/letter"]);
            rows.len() == count
        });
    };
    versions(1);
    // Written over in its place: nobody has what was there.
    let overwrite = |seed| {
        let mut file = std::fs::File::options().write(true).open(&letter).unwrap();
        std::io::Write::write_all(&mut file, &noise(seed, MB)).unwrap();
    };
    overwrite(2);
    versions(2);
    let mut attic = Host::started();
    device.ok(&["relay", "add", &attic.invite("1GiB"), "--name", "attic"]);
    holds_everything(&device, 1);
    let elsewhere = || device.status()["hosts"][0]["holding"]["earlier_elsewhere"].clone();
    assert_eq!(elsewhere(), 1);
    assert!(
        device
            .ok(&["status"])
            .contains("but for earlier contents of 1 file")
    );
    // The host has the second one now, and loses it after a third one was written over it.
    overwrite(3);
    versions(3);
    holds_everything(&device, 1);
    attic.stop();
    for pack in packs(&attic) {
        std::fs::remove_file(pack).unwrap();
    }
    attic.start();
    named_as(&device, "lost-contents");
    nothing_is_wrong(&device);
    holds_everything(&device, 1);
    // A new host can take its place.
    let cellar = Host::started();
    device.ok(&["relay", "add", &cellar.invite("1GiB"), "--name", "cellar"]);
    holds_everything(&device, 2);
    device.ok(&["relay", "remove", "attic"]);
    // What comes back is brought.
    overwrite(1);
    versions(4);
    holds_everything(&device, 1);
    assert_eq!(elsewhere(), 1);
    overwrite(2);
    versions(5);
    eventually("all of them are there", || elsewhere() == 0);
    holds_everything(&device, 1);
}

#[test]
fn nothing_is_at_risk_that_two_hosts_hold_against_which_nothing_is_known() {
    let (device, host) = filled();
    let at_risk = || device.status()["storage"]["at_risk"].clone();
    // One host is not enough, but it has the content.
    assert_eq!(at_risk()["files"], 1);
    assert_eq!(at_risk()["only_here"]["files"], 0);
    assert!(device.ok(&["status"]).contains("At risk"));
    let mut second = Host::started();
    device.ok(&["relay", "add", &second.invite("1GiB"), "--name", "cellar"]);
    holds_everything(&device, 2);
    assert_eq!(at_risk()["files"], 0);
    // What comes while one of them is away is at risk until it is back.
    second.stop();
    add_file(&device, "diary", 2);
    eventually("one host has it", || {
        device.status()["hosts"][0]["holding"]["everything"] == true
    });
    let status = at_risk();
    assert_eq!(status["files"], 1, "{status}");
    assert_eq!(status["names"], serde_json::json!(["diary"]));
    second.start();
    holds_everything(&device, 2);
    assert_eq!(at_risk()["files"], 0);
    // One that turns out to have lost contents counts no more.
    second.stop();
    for pack in packs(&second) {
        std::fs::remove_file(pack).unwrap();
    }
    second.start();
    eventually("it is found out", || {
        device.status()["hosts"][1]["troubles"][0]["code"] == "lost-contents"
    });
    assert_eq!(at_risk()["files"], 2);
    drop(host);
}
