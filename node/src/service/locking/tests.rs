//! Replacing an identity file: whatever interrupts it leaves one that works, in a data folder that is where it was.

use redb::ReadableDatabase;

use super::*;
use crate::store::{self, records, tables};

const NAME: &str = "first";

/// A data folder with a vault, closed.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::generate(&mut random());
    identity.save(dir.path()).unwrap();
    let database = store::open(&dir.path().join(founding::DATABASE)).unwrap();
    let place = identity::binding(dir.path());
    founding::found(&database, &identity, NAME, &place, 1, &mut random()).unwrap();
    dir
}

fn open_identity(dir: &Path) -> Identity {
    match identity::read(dir).unwrap().unwrap() {
        Stored::Open(identity) => identity,
        Stored::Locked(sealed) => sealed.open_with_login(&[7; 32]).unwrap(),
    }
}

/// What a start makes of the folder: whether it takes it for moved, and under which incarnation it writes.
fn opened(dir: &Path) -> (bool, u32) {
    let database = store::open_existing(&dir.join(founding::DATABASE)).unwrap();
    let place = identity::binding(dir);
    let moved = founding::was_moved(&database, &place).unwrap();
    let core = founding::open(
        database.clone(),
        open_identity(dir),
        &place,
        Box::new(random()),
    )
    .unwrap();
    drop(core);
    let read = database.begin_read().unwrap();
    let meta = read.open_table(tables::META).unwrap();
    assert_eq!(
        records::get(&meta, tables::meta::NEXT_BINDING).unwrap(),
        None
    );
    let incarnation = records::get_u32(&meta, tables::meta::INCARNATION).unwrap();
    (moved, incarnation.unwrap())
}

fn sealed(dir: &Path) -> Vec<u8> {
    Locked::by_login(&open_identity(dir), [1; 16], &[7; 32], &mut random()).to_bytes()
}

fn is_locked(dir: &Path) -> bool {
    protection_of(&identity::read(dir).unwrap().unwrap()) == Protection::Login
}

#[test]
fn another_identity_file_does_not_look_like_a_copied_folder() {
    let dir = folder();
    let before = opened(dir.path());
    let database = store::open_existing(&dir.path().join(founding::DATABASE)).unwrap();
    swap(dir.path(), &database, &sealed(dir.path())).unwrap();
    drop(database);
    assert!(is_locked(dir.path()));
    assert_eq!(opened(dir.path()), (false, before.1));
    let plain = open_identity(dir.path()).to_bytes();
    let database = store::open_existing(&dir.path().join(founding::DATABASE)).unwrap();
    swap(dir.path(), &database, &plain).unwrap();
    drop(database);
    assert!(!is_locked(dir.path()));
    assert_eq!(opened(dir.path()), (false, before.1));
}

#[test]
fn wherever_it_is_interrupted_one_of_the_two_files_works() {
    for stopped_after in 0..4 {
        let dir = folder();
        let before = opened(dir.path());
        let bytes = sealed(dir.path());
        let database = store::open_existing(&dir.path().join(founding::DATABASE)).unwrap();
        if stopped_after == 0 {
            std::fs::write(dir.path().join("identity.new"), &bytes[..40]).unwrap();
        } else {
            let replacing = Replacing::write(dir.path(), &bytes).unwrap();
            if stopped_after >= 2 {
                let next = replacing.binding().unwrap();
                founding::expect_binding(&database, &next).unwrap();
            }
            if stopped_after >= 3 {
                replacing.finish().unwrap();
            }
        }
        drop(database);
        assert_eq!(is_locked(dir.path()), stopped_after == 3);
        // What a start does first.
        identity::remove_unfinished(dir.path());
        assert!(!dir.path().join("identity.new").exists());
        assert_eq!(opened(dir.path()), (false, before.1), "{stopped_after}");
        assert_eq!(opened(dir.path()), (false, before.1), "{stopped_after}");
    }
}

#[test]
fn what_was_replaced_is_written_over_unless_it_has_another_name() {
    let dir = folder();
    let file = dir.path().join("identity");
    let plain = std::fs::read(&file).unwrap();
    let held = std::fs::File::open(&file).unwrap();
    let content = |mut file: &std::fs::File| {
        use std::io::{Read, Seek};
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    };
    let bytes = sealed(dir.path());
    Replacing::write(dir.path(), &bytes)
        .unwrap()
        .finish()
        .unwrap();
    assert_eq!(content(&held), vec![0; plain.len()]);
    // A person's own second name for it is a backup of theirs.
    std::fs::hard_link(&file, dir.path().join("mine")).unwrap();
    let again = sealed(dir.path());
    Replacing::write(dir.path(), &again)
        .unwrap()
        .finish()
        .unwrap();
    assert_eq!(std::fs::read(dir.path().join("mine")).unwrap(), bytes);
}

#[test]
fn keys_of_a_vault_that_lay_open_are_sealed_when_it_is_opened() {
    let dir = folder();
    let path = dir.path().join(founding::DATABASE);
    let identity = open_identity(dir.path());
    let plain = {
        let database = store::open_existing(&path).unwrap();
        let core = founding::open(
            database.clone(),
            identity.clone(),
            &identity::binding(dir.path()),
            Box::new(random()),
        )
        .unwrap();
        let plain = core.state().keyring.to_bytes();
        drop(core);
        let write = database.begin_write().unwrap();
        {
            let mut meta = write.open_table(tables::META).unwrap();
            meta.remove(tables::meta::KEYRING).unwrap();
            meta.insert(tables::meta::KEYRING_1, &plain[..]).unwrap();
        }
        write.commit().unwrap();
        plain
    };
    opened(dir.path());
    let database = store::open_existing(&path).unwrap();
    let read = database.begin_read().unwrap();
    let meta = read.open_table(tables::META).unwrap();
    assert_eq!(records::get(&meta, tables::meta::KEYRING_1).unwrap(), None);
    let sealed = records::get(&meta, tables::meta::KEYRING).unwrap().unwrap();
    let vault = founding::vault_of(&database).unwrap().unwrap();
    let keyring =
        coffer_protocol::keys::Keyring::open_at_rest(&sealed, &identity.key, &vault).unwrap();
    assert_eq!(keyring.to_bytes(), plain);
}

#[test]
fn the_same_passphrase_typed_on_another_keyboard_is_the_same() {
    let composed = Passphrase::new(Zeroizing::new("caf\u{e9} au lait".into()));
    let decomposed = Passphrase::new(Zeroizing::new("cafe\u{301} au lait".into()));
    assert_eq!(normal(&composed).unwrap(), normal(&decomposed).unwrap());
    let grows = Passphrase::new(Zeroizing::new("\u{1d160}".repeat(1000)));
    let text = normal(&grows).unwrap();
    assert!(text.len() > grows.text().len());
    assert_eq!(text.capacity(), 3 * grows.text().len(), "it never grew");
    let long = Passphrase::new(Zeroizing::new("a".repeat(MAX_PASSPHRASE + 1)));
    assert!(normal(&long).is_err());
    assert!(!format!("{composed:?}").contains("lait"));
}
