//! Relay hosts, from the side of devices: adding and removing them, what goes by way of them, and hosts that lie.

use serde_json::Value;

use crate::device::{Device, eventually, noise, pair_of_devices, tree, write};
use crate::host::Host;

/// The row of the one host in use.
fn host_of(device: &Device) -> Value {
    device.status()["hosts"][0].clone()
}

fn holds_everything(device: &Device) -> bool {
    host_of(device)["holding"]["everything"] == true
}

/// Waits until the host is known to hold all that this device has.
#[track_caller]
fn brought(device: &Device) {
    eventually("the host holds everything", || holds_everything(device));
}

fn add(device: &Device, host: &Host, quota: &str) {
    let said = device.row(&["relay", "add", &host.invite(quota)]);
    assert_eq!(said["host"]["name"], "attic");
}

#[test]
fn two_devices_that_are_never_up_together_exchange_documents_and_a_folder_through_a_host() {
    let host = Host::started();
    let (mut first, mut second) = pair_of_devices();
    add(&first, &host, "1GiB");
    eventually("the other device knows the host", || {
        host_of(&second)["name"] == "attic"
    });
    let (mine, theirs) = (first.path("mine"), second.path("theirs"));
    for (device, dir) in [(&first, &mine), (&second, &theirs)] {
        std::fs::create_dir(dir).unwrap();
        device.ok(&[
            "folder",
            "add",
            dir.to_str().unwrap(),
            "--to",
            "shared",
            "--yes",
        ]);
    }
    first.in_sync();
    second.stop();
    for n in 0..40 {
        write(&mine.join(format!("small/{n}.bin")), noise(n, 3_000));
    }
    write(&mine.join("large.bin"), noise(99, 3 << 20));
    first.ok(&[
        "doc",
        "put",
        "notes",
        "ada",
        r#"{"text":"by way of the host"}"#,
    ]);
    eventually("the folder is recorded", || {
        first.status()["folders"][0]["files"] == 41
    });
    brought(&first);
    first.stop();
    second.start();
    eventually("everything came", || tree(&mine) == tree(&theirs));
    assert!(
        second
            .ok(&["doc", "get", "notes", "ada"])
            .contains("by way of the host")
    );
    // And the other way: the first one was away.
    write(&theirs.join("answer.txt"), b"back");
    eventually("it is recorded", || {
        second.status()["folders"][0]["files"] == 42
    });
    brought(&second);
    second.stop();
    first.start();
    eventually("the answer came", || mine.join("answer.txt").exists());
}

#[test]
fn a_device_that_was_admitted_while_the_host_was_away_makes_itself_known() {
    let mut host = Host::started();
    let mut first = Device::founded("first");
    add(&first, &host, "1GiB");
    first.ok(&["doc", "put", "notes", "ada", "{}"]);
    brought(&first);
    host.stop();
    let second = Device::waiting("second");
    crate::device::pair(&first, &second);
    first.stop();
    host.start();
    eventually("the host knows the second device", || {
        host_of(&second)["holding"]["everything"] == true
    });
}

#[test]
fn changing_hosts_fills_the_new_one_and_leaves_a_signed_receipt_of_the_old_one() {
    let (old, mut new) = (Host::started(), Host::started());
    let device = Device::founded("first");
    let file = device.path("file.bin");
    write(&file, noise(1, 2 << 20));
    device.ok(&["file", "add", file.to_str().unwrap()]);
    add(&device, &old, "1GiB");
    brought(&device);
    device
        .run(&["relay", "add", &new.invite("1GiB")])
        .fails(4, "--name");
    let invitation = new.invite("1GiB");
    device.ok(&["relay", "add", &invitation, "--name", "cellar"]);
    eventually("both hold everything", || {
        let hosts = device.status()["hosts"].clone();
        let hosts = hosts.as_array().unwrap();
        hosts.len() == 2
            && hosts
                .iter()
                .all(|host| host["holding"]["everything"] == true)
    });
    let said = device.row(&["relay", "remove", "attic"]);
    assert!(
        said["host"]["receipt"]["bytes"].as_u64().unwrap() > 2 << 20,
        "{said}"
    );
    assert_eq!(host_of(&device)["name"], "cellar");
    let kept = device.rows(&["relay", "list"]);
    assert_eq!(kept.len(), 2);
    assert_eq!(kept[1]["in_use"], false);
    assert_eq!(kept[1]["receipt"], said["host"]["receipt"]);
    // Nothing of it is a document of people's.
    assert!(device.rows(&["doc", "list"]).is_empty());
    // An invitation serves one vault.
    let stranger = Device::founded("stranger");
    stranger
        .run(&["relay", "add", &invitation])
        .fails(7, "relay invite");
    stranger
        .run(&["relay", "remove", "attic"])
        .fails(3, "relay list");
    // One that is gone for good cannot be asked.
    new.stop();
    device
        .run(&["relay", "remove", "cellar"])
        .fails(6, "--without-erasing");
    device.ok(&["relay", "remove", "cellar", "--without-erasing"]);
}

#[test]
fn a_device_that_knows_the_old_host_only_is_not_left_behind_unasked() {
    let (old, new) = (Host::started(), Host::started());
    let (first, mut second) = pair_of_devices();
    add(&first, &old, "1GiB");
    eventually("the other device knows the host", || {
        host_of(&second)["name"] == "attic"
    });
    brought(&first);
    second.stop();
    let invitation = new.invite("1GiB");
    first.ok(&["relay", "add", &invitation, "--name", "cellar"]);
    let removed = first.run(&["relay", "remove", "attic"]);
    removed.fails(5, "needs an answer");
    assert!(first.status()["hosts"].as_array().unwrap().len() == 2);
    // It comes to the old one, and hears of the new one there.
    second.start();
    eventually("it knows both", || {
        second.status()["hosts"].as_array().unwrap().len() == 2
    });
    eventually("that is known", || {
        first.run(&["relay", "remove", "attic"]).code == Some(0)
    });
}

#[test]
fn changing_hosts_takes_along_what_only_the_old_one_has() {
    let (old, new) = (Host::started(), Host::started());
    let device = Device::founded("first");
    let folder = device.path("folder");
    let (letter, former) = (folder.join("letter"), noise(1, 3 << 20));
    write(&letter, &former);
    let dir = folder.to_str().unwrap();
    device.ok(&["folder", "add", dir, "--to", "papers", "--yes"]);
    device.idle();
    add(&device, &old, "1GiB");
    brought(&device);
    let history = || device.rows(&["file", "history", "papers/letter"]);
    let revision = history()[0]["revision"].as_str().unwrap().to_owned();
    // Written over in its place: of what was there only the host has a copy.
    let mut file = std::fs::File::options().write(true).open(&letter).unwrap();
    std::io::Write::write_all(&mut file, &noise(2, 3 << 20)).unwrap();
    drop(file);
    eventually("it is recorded", || history().len() == 2);
    brought(&device);
    device.ok(&["relay", "add", &new.invite("1GiB"), "--name", "cellar"]);
    eventually("both hold everything", || {
        let hosts = device.status()["hosts"].clone();
        let mut hosts = hosts.as_array().unwrap().iter();
        hosts.all(|host| {
            let holding = &host["holding"];
            holding["everything"] == true && holding["earlier_elsewhere"] == 0
        })
    });
    device.ok(&["relay", "remove", "attic"]);
    device.ok(&["file", "get", "papers/letter", "got", "--at", &revision]);
    assert!(std::fs::read(device.path("got")).unwrap() == former);
}

#[test]
fn a_host_that_put_the_vault_out_is_named_until_it_is_added_anew() {
    let host = Host::started();
    let device = Device::founded("first");
    add(&device, &host, "1GiB");
    device.ok(&["doc", "put", "notes", "ada", "{}"]);
    brought(&device);
    let vault = device.status()["vault"]["id"].as_str().unwrap().to_owned();
    let removed = host.run(&["relay", "vault", "remove", &vault, "--yes"]);
    assert_eq!(removed.code, Some(0), "{removed:?}");
    eventually("it is named", || {
        host_of(&device)["troubles"][0]["code"] == "not-kept"
    });
    assert!(host_of(&device)["holding"].is_null());
    assert!(device.ok(&["status"]).contains("does not keep your vault"));
    add(&device, &host, "1GiB");
    brought(&device);
    assert_eq!(host_of(&device)["troubles"], serde_json::json!([]));
}

#[test]
fn a_full_host_is_named_and_what_it_holds_stays() {
    let host = Host::started();
    let device = Device::founded("first");
    add(&device, &host, "16MiB");
    let path = |name: &str| device.path(name);
    write(&path("fits.bin"), noise(1, 6 << 20));
    device.ok(&["file", "add", path("fits.bin").to_str().unwrap()]);
    brought(&device);
    // More than is ever on its way at a time: what was made ready is given up when the host turns out to be full.
    write(&path("more.bin"), noise(2, 64 << 20));
    device.ok(&["file", "add", path("more.bin").to_str().unwrap()]);
    eventually("a person is told", || {
        let status = device.status();
        status["hosts"][0]["holding"]["fill"] == "full"
            && status["warnings"]
                .as_array()
                .unwrap()
                .iter()
                .any(|warning| warning["code"] == "host-full")
    });
    let row = host_of(&device);
    assert_eq!(row["holding"]["everything"], false);
    assert_eq!(row["holding"]["lacks"]["files"], 1);
    assert!(device.ok(&["status"]).contains("full"));
    // Documents go on: deleting must.
    device.ok(&["doc", "put", "notes", "ada", "{}"]);
    eventually("the host has the change", || {
        host_of(&device)["holding"]["lacks"]["changes"] == 0
    });
}

#[test]
fn a_host_that_was_put_back_to_an_earlier_state_is_named_and_filled_again() {
    let mut host = Host::started();
    let device = Device::founded("first");
    add(&device, &host, "1GiB");
    device.ok(&["doc", "put", "notes", "ada", "{}"]);
    brought(&device);
    host.stop();
    let copy = host.path("copy");
    copy_folder(&host.data, &copy);
    host.start();
    let file = device.path("file.bin");
    write(&file, noise(1, 1 << 20));
    device.ok(&["file", "add", file.to_str().unwrap()]);
    brought(&device);
    host.stop();
    std::fs::remove_dir_all(&host.data).unwrap();
    std::fs::rename(&copy, &host.data).unwrap();
    host.start();
    eventually("it is found out", || {
        host_of(&device)["troubles"][0]["code"] == "rolled-back"
    });
    brought(&device);
    let warnings = device.status()["warnings"].clone();
    assert!(
        warnings.to_string().contains("host-rolled-back"),
        "{warnings}"
    );
    assert!(warnings.to_string().contains("relay add"), "{warnings}");
}

#[test]
fn a_host_that_was_put_back_and_is_added_anew_is_as_good_as_new_on_every_device() {
    let mut host = Host::started();
    let (mut first, second) = pair_of_devices();
    add(&first, &host, "1GiB");
    first.ok(&["doc", "put", "notes", "ada", "{}"]);
    for device in [&first, &second] {
        eventually("it is known", || host_of(device)["name"] == "attic");
        brought(device);
    }
    host.stop();
    let copy = host.path("copy");
    copy_folder(&host.data, &copy);
    host.start();
    let file = first.path("file.bin");
    write(&file, noise(1, 1 << 20));
    first.ok(&["file", "add", file.to_str().unwrap()]);
    for number in 0..5 {
        let id = format!("n{number}");
        second.ok(&["doc", "put", "notes", &id, "{}"]);
        brought(&second);
    }
    brought(&first);
    host.stop();
    std::fs::remove_dir_all(&host.data).unwrap();
    std::fs::rename(&copy, &host.data).unwrap();
    host.start();
    let is_clean = |device: &Device| {
        let row = host_of(device);
        row["troubles"].as_array().is_none_or(Vec::is_empty)
            && row["holding"]["everything"] == true
            && !device.status()["warnings"].to_string().contains("host-")
    };
    for device in [&first, &second] {
        eventually("it is found out", || {
            host_of(device)["troubles"]
                .to_string()
                .contains("rolled-back")
        });
    }
    add(&first, &host, "1GiB");
    for device in [&first, &second] {
        eventually("it is as good as new", || is_clean(device));
    }
    // What each remembers, and tells the other of what the host once said, changes nothing.
    first.stop();
    second.ok(&["doc", "put", "notes", "ben", "{}"]);
    brought(&second);
    first.start();
    for device in [&first, &second] {
        eventually("it stays so", || is_clean(device));
    }
    assert!(first.ok(&["relay", "list"]).contains("attic"));
}

#[test]
fn nonsense_is_no_invitation_and_each_command_says_the_way_out() {
    let device = Device::founded("first");
    for nonsense in ["coffer:pair/1/ABC", "nowhere.png", ""] {
        device
            .run(&["relay", "add", nonsense])
            .fails(2, "relay invite");
    }
    device
        .run(&["relay", "add", "coffer:relay/1/ABC"])
        .fails(15, "relay invite");
    assert!(device.ok(&["relay", "list"]).contains("relay add"));
    for help in ["add", "list", "remove"] {
        assert!(device.ok(&["relay", help, "--help"]).contains("Examples"));
    }
}

#[test]
fn a_host_is_found_by_its_name_and_an_unknown_name_is_said() {
    let mut host = Host::started();
    let mut device = Device::founded("first");
    // The invitation has a name in it that nobody knows.
    host.stop();
    host.start_with(&[("COFFER_RELAY_NETWORK_ANNOUNCE", "nowhere.invalid")]);
    let invitation = host.invite("1GiB");
    device
        .run(&["relay", "add", &invitation])
        .fails(6, "nowhere.invalid");
    device
        .run(&["relay", "add", &invitation, "--at", "no place"])
        .fails(2, "relay.example.org");
    let at = format!("localhost:{}", host.port());
    let said = device.row(&["relay", "add", &invitation, "--at", &at]);
    let shown = format!("localhost:{}/tcp", host.port());
    assert_eq!(said["host"]["addresses"][0], shown, "{said}");
    device.ok(&["doc", "put", "notes", "ada", "{}"]);
    brought(&device);
    // And again by that name after a start.
    device.stop();
    device.start();
    device.ok(&["doc", "put", "notes", "ben", "{}"]);
    brought(&device);
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    let done = std::process::Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status()
        .unwrap();
    assert!(done.success());
}
