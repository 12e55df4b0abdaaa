//! First starts, second starts, ends, and data folders that cannot be used.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::device::{Device, Invitation, READY_WITHIN, SOON, first_line};

/// The promise for an end by signal.
const ENDED_WITHIN: Duration = Duration::from_secs(5);

#[test]
fn first_start_creates_a_vault_and_is_ready_within_ten_seconds_without_home_and_terminal() {
    let device = Device::new("alone");
    let begun = Instant::now();
    let mut node = device
        .command(&["start", "--no-discovery", "--listen=127.0.0.1", "--port=0"])
        .env_clear()
        .env("COFFER_DATA_DIR", &device.data)
        .spawn()
        .unwrap();
    let line = first_line(node.stdout.take().unwrap(), SOON).unwrap_or_default();
    let took = begun.elapsed();
    let ended = device.run(&["stop"]);
    let status = node.wait().unwrap();
    assert!(line.starts_with("ready: "), "{line}");
    assert!(line.contains(device.data.to_str().unwrap()), "{line}");
    assert!(
        line.contains("pair"),
        "it does not say how to add a device: {line}"
    );
    assert!(took < READY_WITHIN, "{took:?}");
    assert_eq!((ended.code, status.code()), (Some(0), Some(0)));
}

#[test]
fn interrupt_and_terminate_end_it_with_zero_within_five_seconds() {
    let mut device = Device::founded("ending");
    for signal in ["INT", "TERM"] {
        let (status, took) = device.signal(signal);
        assert_eq!(status.code(), Some(0), "{signal}: {status:?}");
        assert!(took < ENDED_WITHIN, "{signal}: {took:?}");
        device.start();
    }
    device.stop();
}

#[test]
fn second_start_on_the_same_data_folder_is_told_so_and_harms_nothing() {
    let device = Device::founded("one");
    device.ok(&["doc", "put", "t", "a", "{\"n\":1}"]);
    for arguments in [&["start"][..], &["start", "--background"], &[]] {
        device.run(arguments).fails(9, "coffer is running already");
    }
    assert_eq!(device.row(&["doc", "get", "t", "a"])["value"]["n"], 1);
}

#[test]
fn taken_port_makes_it_pick_another_and_say_so() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut device = Device::new("crowded");
    device.listen_on(port);
    let ready = device.start_with(&[]);
    assert_ne!(device.port(), port);
    let notes = ready["notes"].to_string();
    assert!(notes.contains(&port.to_string()), "{ready}");
}

#[test]
fn any_free_port_is_one_number_and_told_the_same_everywhere() {
    let mut device = Device::new("anywhere");
    let ready = device.start_with(&[]);
    let invitation = Invitation::of(&device, &["--accept"]);
    let places = |value: &serde_json::Value| -> Vec<String> {
        let told = value.as_array().unwrap().iter();
        let mut told: Vec<String> = told.map(|one| one.as_str().unwrap().to_owned()).collect();
        told.sort();
        told
    };
    let told = places(&ready["addresses"]);
    let port = device.port();
    let expected = ["quic", "tcp"].map(|over| format!("127.0.0.1:{port}/{over}"));
    assert_eq!(told, expected);
    assert_eq!(places(&device.status()["listening"]), told);
    assert_eq!(places(&invitation.said["addresses"]), told);
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert!(std::net::UdpSocket::bind(("127.0.0.1", port)).is_err());
}

#[test]
fn commands_start_coffer_in_the_background_where_a_vault_is() {
    let mut device = Device::founded("quiet");
    device.ok(&["doc", "put", "t", "a", "{\"n\":1}"]);
    device.stop();
    device.run(&["stop"]).fails(10, "not running");
    // A command that needs the vault starts it; what it starts outlives the command.
    let found = device.row(&["doc", "get", "t", "a"]);
    assert_eq!(found["value"]["n"], 1);
    assert_eq!(device.status()["running"], true);
    device.ok(&["stop"]);
    assert_eq!(device.status()["running"], false);
}

#[test]
fn status_starts_nothing() {
    let device = Device::new("untouched");
    device.run(&["status"]);
    assert!(!device.data.join("vault.redb").exists());
}

#[test]
fn data_folder_of_a_newer_layout_is_refused_and_unharmed() {
    const META: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("meta_1");
    let mut device = Device::founded("behind");
    device.ok(&["doc", "put", "t", "a", "{\"n\":1}"]);
    device.stop();
    let set_layout = |layout: u32| {
        let database = redb::Database::open(device.data.join("vault.redb")).unwrap();
        let write = database.begin_write().unwrap();
        let before = {
            let mut table = write.open_table(META).unwrap();
            table
                .insert("layout", &layout.to_be_bytes()[..])
                .unwrap()
                .map(|value| value.value().to_vec())
        };
        write.commit().unwrap();
        before.unwrap()
    };
    let ours = set_layout(4000);
    device
        .run(&["start", "--listen=127.0.0.1", "--no-discovery", "--port=0"])
        .fails(16, "newer coffer");
    device.run(&["doc", "list"]).fails(16, "newer");
    device.run(&["status"]).fails(16, "newer");
    set_layout(u32::from_be_bytes(ours.try_into().unwrap()));
    device.start();
    assert_eq!(device.row(&["doc", "get", "t", "a"])["value"]["n"], 1);
}

#[test]
fn data_folder_without_permission_is_refused_with_a_clear_error() {
    let device = Device::new("locked-out");
    std::fs::create_dir(device.path("locked")).unwrap();
    let locked = device.path("locked");
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o500)).unwrap();
    // Root may write everywhere; proc takes nothing from anybody.
    let is_root = std::fs::write(locked.join("probe"), "").is_ok();
    let inner = if is_root {
        std::path::PathBuf::from("/proc/coffer")
    } else {
        locked.join("data")
    };
    let outcome = device.run(&["start", "--data-dir", inner.to_str().unwrap()]);
    assert!([Some(14), Some(12)].contains(&outcome.code), "{outcome:?}");
    assert!(outcome.err.contains("error: cannot"), "{outcome:?}");
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn damaged_data_folder_is_refused_with_a_way_out_and_nothing_is_put_in_its_place() {
    const HERE: &[&str] = &["start", "--listen=127.0.0.1", "--no-discovery", "--port=0"];
    let mut device = Device::founded("harmed");
    device.ok(&["doc", "put", "t", "a", "{\"n\":1}"]);
    device.stop();
    let (vault, blobs) = ("vault.redb", "blobs/blobs.db");
    for (name, harm, said) in [
        (vault, None, "vault.redb is missing"),
        (vault, Some(0), "vault.redb is empty"),
        (vault, Some(9_000), "vault.redb is not as coffer wrote it"),
        (blobs, Some(9_000), "blobs.db is not as coffer wrote it"),
        ("identity", None, "the file identity is missing"),
    ] {
        let path = device.data.join(name);
        let whole = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        if let Some(length) = harm {
            std::fs::write(&path, vec![b'x'; length]).unwrap();
        }
        let refused = device.run(HERE);
        refused.fails(15, said);
        assert_eq!(refused.out, "");
        assert!(
            refused.err.contains("hint: put the data folder back"),
            "{refused:?}"
        );
        device.run(&["doc", "list"]).fails(15, said);
        if name != blobs {
            device.run(&["status"]).fails(15, said);
        }
        // What is not there was not made either.
        assert_eq!(path.exists(), harm.is_some(), "{name}");
        std::fs::write(&path, whole).unwrap();
    }
    device.start();
    assert_eq!(device.row(&["doc", "get", "t", "a"])["value"]["n"], 1);
}

#[test]
fn join_that_failed_leaves_no_vault_and_says_why_in_words() {
    let mut device = Device::new("lonely");
    let at = |place| ["join", "42-7GKD-M3XP", "--at", place];
    let refused = device.run(&at("nowhere.invalid:26333"));
    refused.fails(6, "nobody knows \"nowhere.invalid\"");
    let refused = device.run(&at("127.0.0.1:1"));
    refused.fails(6, "error: no device answers there: ");
    let begun = refused.err.starts_with("looking for the other device");
    assert!(begun && !refused.err.contains("/ip4/"), "{refused:?}");
    assert_eq!(device.status()["has_vault"], false);
    let said = device.ok(&["status"]);
    assert!(said.starts_with("There is no vault"), "{said}");
    device.run(&["doc", "list"]).fails(11, "no vault");
    assert_eq!(device.start_with(&[])["created"], true);
}

#[test]
fn copied_data_folder_is_told_of_once() {
    let mut device = Device::founded("first");
    let told = |device: &Device| {
        let warnings = device.status()["warnings"].to_string();
        warnings.contains("data-folder-moved")
    };
    assert!(!told(&device));
    device.stop();
    let copy = device.path("copy");
    std::fs::rename(&device.data, &copy).unwrap();
    let status = std::process::Command::new("cp")
        .arg("-r")
        .args([&copy, &device.data])
        .status();
    assert!(status.unwrap().success());
    device.start();
    assert!(told(&device));
    device.stop();
    device.start();
    assert!(!told(&device));
}

#[test]
fn address_of_another_machine_is_not_listened_on() {
    let device = Device::new("elsewhere");
    let start = ["start", "--no-discovery", "--listen", "192.0.2.1"];
    device.run(&start).fails(
        2,
        "192.0.2.1 is no address of this device\nhint: give an address",
    );
}

#[test]
fn file_in_place_of_the_data_folder_is_refused() {
    let device = Device::new("mistaken");
    std::fs::write(&device.data, "precious").unwrap();
    for arguments in [&["start"][..], &["status"], &["doc", "list"], &["init"]] {
        device.run(arguments).fails(2, "is not a folder");
    }
    assert_eq!(std::fs::read(&device.data).unwrap(), b"precious");
}
