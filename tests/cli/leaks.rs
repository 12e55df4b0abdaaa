//! Passphrase, words and keys are nowhere but where they belong: not in logs, not even at their most talkative, not in what
//! commands print, not in command lines, and not in the data folder of a device that has a passphrase.
//!
//! The search (`search.rs`) is tried first on a planted leak.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use coffer_protocol::identity::{DeviceKey, VaultId};
use coffer_protocol::keys::Keyring;
use redb::{ReadableDatabase, TableDefinition};

use crate::device::{Device, Outcome, START, eventually, write};
use crate::search::{FORMS, Found, Search, forms, mark, may_read_memory};
use crate::secrets::{in_a_terminal, words_of};

/// All that commands said.
#[derive(Default)]
struct Said(Vec<u8>);

impl Said {
    fn run(&mut self, device: &Device, arguments: &[&str]) -> Outcome {
        let mut command = device.command(arguments);
        command.env("COFFER_LOG", "trace");
        let outcome = Outcome::of(command.output().expect("coffer runs"));
        self.0.extend_from_slice(outcome.out.as_bytes());
        self.0.extend_from_slice(outcome.err.as_bytes());
        outcome
    }

    /// Both for people and for scripts.
    #[track_caller]
    fn ok(&mut self, device: &Device, arguments: &[&str]) {
        for json in [&[][..], &["--json"]] {
            let outcome = self.run(device, &[arguments, json].concat());
            assert_eq!(outcome.code, Some(0), "{arguments:?}: {outcome:?}");
        }
    }

    #[track_caller]
    fn fails(&mut self, device: &Device, arguments: &[&str], code: i32) {
        for json in [&[][..], &["--json"]] {
            let outcome = self.run(device, &[arguments, json].concat());
            assert_eq!(outcome.code, Some(code), "{arguments:?}: {outcome:?}");
        }
    }
}

/// Command lines of all processes, and such environments as can be read, for as long as it is there.
struct Processes {
    stop: Arc<AtomicBool>,
    seen: Option<std::thread::JoinHandle<BTreeSet<Vec<u8>>>>,
}

impl Processes {
    fn watched() -> Processes {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let seen = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !stopped.load(Ordering::Relaxed) {
                for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
                    for file in ["cmdline", "environ"] {
                        if let Ok(bytes) = std::fs::read(entry.path().join(file)) {
                            seen.insert(bytes);
                        }
                    }
                }
            }
            seen
        });
        Processes {
            stop,
            seen: Some(seen),
        }
    }

    fn end(mut self) -> BTreeSet<Vec<u8>> {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.seen.take().expect("once");
        seen.join().expect("it ends")
    }
}

/// The secrets of a device that is stopped and has no passphrase.
fn keys_of(data: &Path) -> Vec<(String, Vec<u8>)> {
    let identity = std::fs::read(data.join("identity")).expect("an identity file");
    let device: [u8; 32] = identity[9..41].try_into().expect("32 bytes");
    let mut keys = vec![
        ("device key".to_owned(), device.to_vec()),
        ("sealing seed".to_owned(), identity[41..73].to_vec()),
    ];
    let keyring = keyring_of(data, device);
    keys.push((
        "space secret".into(),
        keyring.secret().secret_bytes().to_vec(),
    ));
    for epoch in keyring.epochs() {
        keys.push(("epoch key".into(), epoch.secret_bytes().to_vec()));
    }
    keys
}

fn keyring_of(data: &Path, device: [u8; 32]) -> Keyring {
    const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta_1");
    let database = redb::Database::open(data.join("vault.redb")).expect("a database");
    let read = database.begin_read().expect("a reader");
    let meta = read.open_table(META).expect("a table");
    let value = |name: &str| meta.get(name).unwrap().expect(name).value().to_vec();
    let vault = VaultId(value("vault").try_into().expect("32 bytes"));
    Keyring::open_at_rest(&value("keyring_2"), &DeviceKey::from_secret(device), &vault)
        .expect("the keys of the vault")
}

#[test]
fn passphrase_words_and_keys_are_nowhere_to_be_found() {
    let device = Device::new("first");
    let mut said = Said::default();
    said.run(&device, START);
    device.ok(&["doc", "put", "t", "a", "{}"]);
    let words = words_of(&in_a_terminal(&device, &["recovery", "show"]));
    assert_eq!(words.len(), 24);
    device.ok(&["stop"]);
    let mut secrets = keys_of(&device.data);
    assert_eq!(secrets.len(), 4);
    let [first, second, wrong] = ["first", "second", "wrong"].map(mark);
    for passphrase in [&first, &second, &wrong] {
        secrets.push((passphrase.clone(), passphrase.clone().into_bytes()));
    }
    // Some of the words, in all the ways in which a program writes a list.
    for (number, part) in words.chunks(3).enumerate() {
        for between in [" ", "\n", ",", ", ", "\",\"", "\", \""] {
            secrets.push((format!("words {number}"), part.join(between).into_bytes()));
        }
    }
    let recovery = coffer_protocol::recovery::RecoveryKey::from_words(&words.join(" "))
        .expect("the words of a key");
    secrets.push((
        "recovery key".into(),
        recovery.signing().secret_bytes().to_vec(),
    ));
    let search = Search::named(&secrets);

    // The planted leak, in each form.
    let planted = secrets.iter().flat_map(|(_, secret)| forms(secret));
    let planted: Vec<u8> = planted.collect::<Vec<_>>().join(&b"  "[..]);
    write(&device.data.join("planted"), &planted);
    let found = search.disk(&device.data);
    assert_eq!(found.forms.len(), secrets.len() * FORMS, "planted");
    std::fs::remove_file(device.data.join("planted")).expect("it can be removed");

    let processes = Processes::watched();
    for (name, passphrase) in [("p1", &first), ("p2", &second), ("p3", &wrong)] {
        write(&device.path(name), passphrase);
    }
    said.run(&device, START);
    let set = &["passphrase", "set", "--new-file", "p1"];
    assert_eq!(said.run(&device, set).code, Some(0));
    said.ok(&device, &["status"]);
    said.fails(
        &device,
        &[
            "passphrase",
            "set",
            "--passphrase-file",
            "p3",
            "--new-file",
            "p2",
        ],
        5,
    );
    let change = &[
        "passphrase",
        "set",
        "--passphrase-file",
        "p1",
        "--new-file",
        "p2",
        "--json",
    ];
    assert_eq!(said.run(&device, change).code, Some(0));
    said.ok(&device, &["relock"]);
    said.ok(&device, &["device", "log"]);
    said.ok(&device, &["lock"]);
    said.fails(&device, &["unlock", "--passphrase-file", "p3"], 5);
    said.fails(&device, &["doc", "get", "t", "a"], 17);
    let pid = device.status()["pid"].as_u64().expect("a number") as u32;
    if may_read_memory(pid) {
        let told = search.told(&search.memory(pid));
        assert!(
            told.is_empty(),
            "in the memory of a locked coffer: {told:?}"
        );
    }
    eventually("the waiting for wrong guesses is over", || {
        said.run(&device, &["unlock", "--passphrase-file", "p2"])
            .code
            == Some(0)
    });
    said.ok(&device, &["doc", "get", "t", "a"]);
    if may_read_memory(pid) {
        // It is looked where something is: an open device has its keys in memory.
        assert!(!search.memory(pid).forms.is_empty());
    }
    assert_eq!(said.run(&device, &["stop"]).code, Some(0));
    // A start that is given a wrong one, and one that is given the right one.
    let started = said.run(
        &device,
        &[START, &["--passphrase-file", "p3", "--json"]].concat(),
    );
    assert_eq!(started.code, Some(5), "{started:?}");
    let started = said.run(&device, &[START, &["--passphrase-file", "p2"]].concat());
    assert_eq!(started.code, Some(0), "{started:?}");
    said.ok(&device, &["status"]);
    assert_eq!(said.run(&device, &["stop"]).code, Some(0));

    let mut printed = Found::default();
    search.look(&said.0, &mut printed);
    let mut processes_seen = Found::default();
    for bytes in processes.end() {
        search.look(&bytes, &mut processes_seen);
    }
    let on_disk = search.disk(&device.data);
    for (what, found) in [
        ("output of a command", &printed),
        ("command line or environment of a process", &processes_seen),
        ("data folder", &on_disk),
    ] {
        let told = search.told(found);
        assert!(told.is_empty(), "in the {what}: {told:?}");
        assert!(found.bytes > 1000, "{what}: {} bytes", found.bytes);
    }
    let log = std::fs::read_to_string(device.data.join("coffer.log")).expect("a log");
    assert!(log.contains("TRACE"), "the log tells all that it can");
    only_the_owners(&device.data);
}

/// A folder is closed to others, and so is every file and folder in it: whatever modes stand further below, nobody gets there.
fn only_the_owners(dir: &Path) {
    let entries = std::fs::read_dir(dir).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    for path in paths.chain([dir.to_path_buf()]) {
        let about = path.symlink_metadata().expect("an entry");
        let wanted = if about.is_dir() { 0o700 } else { 0o600 };
        let mode = about.permissions().mode() & 0o777;
        assert_eq!(mode, wanted, "{mode:o} of {}", path.display());
    }
}
