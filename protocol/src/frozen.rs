//! Frozen examples: the bytes of every signed and sealed format, as version 1 writes them.
//!
//! What shipped is never read or written differently. A test that fails here has found a change of
//! format; the answer is a new version beside this one, not new hex.

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use crate::frame::{self, Expected};
use crate::grants::{self, Cutoff, Founded, Membership, NewDevice, Opener, Role, SignedGrant};
use crate::held::{Held, HeldStatement};
use crate::identity::{DeviceId, DeviceKey, Hash, SpaceId, VaultId, WriterId};
use crate::keys::{EpochKey, Keyring, LockKey, SealingKey, SpaceSecret};
use crate::log::{self, Body, Change, Clock, Entry, EntryParams};
use crate::ranges::{self, Attestation, Range, SignedAttestation};
use crate::recovery::RecoveryKey;

const GENESIS: &str = include_str!("../frozen/v1/genesis.hex");
const EPOCH: &str = include_str!("../frozen/v1/epoch.hex");
const ADMIT: &str = include_str!("../frozen/v1/admit.hex");
const REVOKE: &str = include_str!("../frozen/v2/revoke.hex");
const ROLE: &str = include_str!("../frozen/v2/role.hex");
const REPLACE: &str = include_str!("../frozen/v2/replace.hex");
const ENTRY: &str = include_str!("../frozen/v1/entry.hex");
const RANGE: &str = include_str!("../frozen/v1/range.hex");
const ATTESTATION: &str = include_str!("../frozen/v1/attestation.hex");
const HELD_1: &str = include_str!("../frozen/v1/held.hex");
const HELD: &str = include_str!("../frozen/v2/held.hex");
const FRAME: &str = include_str!("../frozen/v1/frame.hex");
const FRAME_ZSTD: &str = include_str!("../frozen/v1/frame-zstd.hex");
const KEYRING: &str = include_str!("../frozen/v1/keyring.hex");
const KEYRING_SEALED: &str = include_str!("../frozen/v1/keyring-sealed.hex");
const DEVICE_LOCKED: &str = include_str!("../frozen/v1/device-locked.hex");
const RECOVERY: &str = include_str!("../frozen/v1/recovery.hex");

/// The wrapped hex of a file as bytes.
fn bytes(hex: &str) -> Vec<u8> {
    hex::decode(hex.split_whitespace().collect::<String>()).unwrap()
}

fn assert_frozen(name: &str, made: &[u8], frozen: &str) {
    assert_eq!(hex::encode(made), hex::encode(bytes(frozen)), "{name}");
}

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn device(n: u8) -> (DeviceKey, SealingKey) {
    let key = DeviceKey::from_secret([n; 32]);
    let sealing = SealingKey::of_device(&key);
    (key, sealing)
}

fn founded() -> Founded {
    let (key, sealing) = device(1);
    grants::found(&key, &sealing, "laptop", 1_764_000_000_000, &mut rng(1)).unwrap()
}

fn admission(founded: &Founded) -> SignedGrant {
    let (phone, sealing) = device(2);
    let sealing = sealing.public();
    let new = NewDevice {
        device: phone.id(),
        sealing: &sealing,
        role: Role::Owner,
        name: "phone",
    };
    let (key, _) = device(1);
    founded
        .membership
        .admit(&key, &founded.keyring, &new, 1_764_000_000_001, &mut rng(2))
        .unwrap()
}

fn epoch() -> EpochKey {
    EpochKey::from_secret(&[3; 32])
}

fn secret() -> SpaceSecret {
    SpaceSecret::from_secret(&[4; 32])
}

/// Too short to be compressed, so that no zstd version decides about its bytes.
fn body() -> Body {
    let writer = WriterId {
        device: device(1).0.id(),
        incarnation: 0,
    };
    Body {
        clock: Clock::from_iter([(writer, (300, Hash([5; 32])))]),
        changes: vec![Change {
            doctype: "notes".into(),
            id: "ada".into(),
            bytes: vec![1, 2, 3],
        }],
    }
}

fn entry() -> Entry {
    let (key, _) = device(1);
    let params = EntryParams {
        vault: VaultId([6; 32]),
        space: SpaceId::HOME,
        writer: WriterId {
            device: key.id(),
            incarnation: 1,
        },
        seq: 301,
        prev: Hash([5; 32]),
        grant_heads: &[Hash([7; 32])],
    };
    log::seal_entry(&key, &params, &body(), &epoch(), &mut rng(3)).unwrap()
}

fn held() -> Held {
    Held {
        device: device(1).0.id(),
        counter: 9,
        entries: body().clock,
        chunks: Clock::new(),
        exceptions: vec!["0123".into()],
        more_missing: 1,
        pinned: true,
        unpinned_since: 0,
        awaited: 2,
        seen: Vec::new(),
        at_ms: 1_764_000_000_002,
    }
}

/// What version 2 added.
fn held_on_demand() -> Held {
    Held {
        pinned: false,
        unpinned_since: 7,
        awaited: 1,
        seen: vec![(device(3).0.id(), 12)],
        ..held()
    }
}

const LINE: &[u8] = b"a chunk of a file, a chunk of a file, a chunk of a file, a chunk of a file, a chunk of a file, and all\n";

#[test]
fn the_founding_and_an_admission_are_written_as_in_version_1() {
    let founded = founded();
    let grants: Vec<_> = founded.membership.grants().collect();
    assert_frozen("genesis", grants[0].1.bytes(), GENESIS);
    assert_frozen("epoch", grants[1].1.bytes(), EPOCH);
    assert_frozen("admit", admission(&founded).bytes(), ADMIT);
}

#[test]
fn grants_of_version_1_are_read() {
    let genesis = SignedGrant::decode(&bytes(GENESIS)).unwrap();
    let vault = genesis.vault();
    let list = [bytes(ADMIT), bytes(GENESIS), bytes(EPOCH)];
    let membership = Membership::from_bytes(vault, list).unwrap();
    let (phone, sealing) = device(2);
    let keyring = membership
        .keyring(SpaceId::HOME, Opener::Device(phone.id(), &sealing))
        .unwrap();
    assert_eq!(
        membership.device_name(&phone.id(), &keyring).as_deref(),
        Some("phone")
    );
    assert_eq!(keyring.to_bytes(), founded().keyring.to_bytes());
}

/// The phone makes a reader of the laptop; the recovery key revokes it, undoes that, and replaces itself.
fn taking_away() -> [SignedGrant; 3] {
    let mut founded = founded();
    let membership = &mut founded.membership;
    membership.insert(admission(&self::founded())).unwrap();
    let cutoffs = |device: DeviceId| {
        vec![Cutoff {
            writer: WriterId {
                device,
                incarnation: 7,
            },
            seq: 300,
            header: Hash([5; 32]),
        }]
    };
    let at = 1_764_000_000_002;
    let (laptop, (phone, _)) = (device(1).0.id(), device(2));
    let role = membership
        .change_role(&phone, laptop, Role::Reader, cutoffs(laptop), at)
        .unwrap();
    membership.insert(role.clone()).unwrap();
    let words = founded.recovery.signing();
    let undone = [role.id()];
    let revoke = membership
        .revoke(&words, phone.id(), cutoffs(phone.id()), &undone, at)
        .unwrap();
    membership.insert(revoke.clone()).unwrap();
    let next = RecoveryKey::generate(&mut rng(7)).public();
    let replace = membership.replace_recovery(&words, next, at).unwrap();
    membership.insert(replace.clone()).unwrap();
    [role, revoke, replace]
}

#[test]
fn what_takes_away_is_written_and_read_as_in_version_2() {
    let [role, revoke, replace] = taking_away();
    assert_frozen("role", role.bytes(), ROLE);
    assert_frozen("revoke", revoke.bytes(), REVOKE);
    assert_frozen("replace", replace.bytes(), REPLACE);
    let list = [GENESIS, EPOCH, ADMIT, ROLE, REVOKE, REPLACE].map(bytes);
    let vault = founded().membership.vault();
    let read = Membership::from_bytes(vault, list).unwrap();
    assert_eq!(read.devices().len(), 1);
    assert_eq!(read.former().len(), 1);
    assert_eq!(read.role(&device(1).0.id()), Some(Role::Owner));
}

#[test]
fn an_entry_is_written_and_read_as_in_version_1() {
    assert_frozen("entry", &entry().encode(), ENTRY);
    let read = Entry::decode(&bytes(ENTRY)).unwrap();
    assert_eq!(read.verify(&VaultId([6; 32])), Ok(()));
    assert_eq!(log::open_entry(&read, &epoch()), Ok(body()));
}

fn naming(doctype: &str, id: &str) -> Hash {
    Hash::of("frozen names", &[doctype.as_bytes(), id.as_bytes()])
}

/// A range of two entries, one of which wrote to a document that was purged since.
fn range() -> Range {
    let (key, _) = device(1);
    let writer = WriterId {
        device: key.id(),
        incarnation: 1,
    };
    let mut log = Vec::new();
    for (n, id) in ["ada", "bob"].into_iter().enumerate() {
        let mut body = body();
        body.clock = Clock::new();
        body.changes[0].id = id.into();
        let prev = log
            .last()
            .map_or(Hash::ZERO, |(header, _): &(log::Header, _)| header.hash());
        let params = EntryParams {
            vault: VaultId([6; 32]),
            space: SpaceId::HOME,
            writer,
            seq: n as u64 + 1,
            prev,
            grant_heads: &[naming("grant", "head")],
        };
        let entry = log::seal_entry(&key, &params, &body, &epoch(), &mut rng(3)).unwrap();
        log.push((entry.header, body));
    }
    let purged = |name: &Hash| *name == naming("notes", "bob");
    let made = ranges::seal_longest(&key, &log, purged, naming, &epoch(), &mut rng(8));
    made.unwrap().unwrap()
}

#[test]
fn a_range_and_an_attestation_are_written_and_read_as_in_version_1() {
    let vault = VaultId([6; 32]);
    assert_frozen("range", &range().encode(), RANGE);
    let read = Range::decode(&bytes(RANGE)).unwrap();
    assert_eq!(read.verify(&vault), Ok(()));
    let content = ranges::open_range(&read, &epoch(), naming).unwrap();
    let left_out: Vec<Hash> = content.left_out().collect();
    assert_eq!(left_out, [naming("notes", "bob")]);
    let changes: Vec<Change> = content.into_changes().collect();
    assert_eq!(changes, [body().changes[0].clone()]);
    let made = Attestation::sign(&device(2).0, &read.head, true).unwrap();
    assert_frozen("attestation", made.bytes(), ATTESTATION);
    let said = SignedAttestation::decode(&bytes(ATTESTATION)).unwrap();
    assert!(said.value().is_of(&read.head) && said.value().compared);
}

#[test]
fn a_held_statement_is_read_as_in_version_1() {
    let read = HeldStatement::read(&bytes(HELD_1), &VaultId([6; 32])).unwrap();
    assert_eq!(read.open(&epoch()), Ok(held()));
}

#[test]
fn a_held_statement_is_written_and_read_as_in_version_2() {
    let vault = VaultId([6; 32]);
    let (key, _) = device(1);
    let made = held_on_demand()
        .seal(&key, vault, SpaceId::HOME, &epoch(), &mut rng(4))
        .unwrap();
    assert_frozen("held", made.bytes(), HELD);
    let read = HeldStatement::read(&bytes(HELD), &vault).unwrap();
    assert_eq!(read.open(&epoch()), Ok(held_on_demand()));
}

#[test]
fn a_frame_is_written_and_read_as_in_version_1() {
    let made = frame::seal_frame(LINE, false, &secret(), &epoch()).unwrap();
    assert_frozen("frame", &made.bytes, FRAME);
    let ids = [made.ids.chunk, made.ids.frame, made.ids.blob].map(|id| id.to_string());
    assert_eq!(ids, FRAME_IDS);
    let mut out = Vec::new();
    let expected = made.ids.expected();
    frame::open_frame_into(&bytes(FRAME), &expected, &secret(), &epoch(), &mut out).unwrap();
    assert_eq!(out, LINE);
}

/// Only read: what zstd writes may differ between its versions, and nothing relies on it.
#[test]
fn a_compressed_frame_is_read_as_in_version_1() {
    let expected = Expected {
        chunk: FRAME_IDS[0].parse().unwrap(),
        frame: FRAME_ZSTD_ID.parse().unwrap(),
    };
    let mut out = Vec::new();
    frame::open_frame_into(&bytes(FRAME_ZSTD), &expected, &secret(), &epoch(), &mut out).unwrap();
    assert_eq!(out, LINE);
}

#[test]
fn what_is_stored_is_written_and_read_as_in_version_1() {
    let keyring = Keyring::new(SpaceId::HOME, secret(), epoch());
    assert_frozen("keyring", &keyring.to_bytes(), KEYRING);
    assert!(Keyring::from_bytes(&bytes(KEYRING)).is_ok());
    let ((key, sealing), vault) = (device(1), VaultId([7; 32]));
    let sealed = keyring.seal_at_rest(&key, &vault);
    assert_frozen("sealed keyring", &sealed, KEYRING_SEALED);
    assert!(Keyring::open_at_rest(&bytes(KEYRING_SEALED), &key, &vault).is_ok());
    let lock = LockKey::of_passphrase(&[8; 32]);
    let locked = lock.seal(&key, &sealing, b"about", &mut rng(9));
    assert_frozen("a device's keys", &locked, DEVICE_LOCKED);
    assert!(lock.open(&bytes(DEVICE_LOCKED), b"about").is_ok());

    let (key, _) = device(1);
    let recovery = RecoveryKey::generate(&mut rng(5));
    let vault = VaultId([6; 32]);
    let stored = recovery.seal_at_rest(&key, &vault, &mut rng(6));
    assert_frozen("recovery", &stored, RECOVERY);
    let read = RecoveryKey::open_at_rest(&bytes(RECOVERY), &key, &vault).unwrap();
    assert_eq!(*read.words(), *recovery.words());
}

/// Every derivation of [`docs/protocol/keys.md`]'s table that is not already in a format above.
#[test]
fn derivations_are_those_of_version_1() {
    let secret = secret();
    assert_eq!(epoch().id().to_string(), EPOCH_ID);
    assert_eq!(secret.id().to_string(), SECRET_ID);
    assert_eq!(secret.cdc_seed(), CDC_SEED);
    let chunk = secret.chunk_id(b"chunk");
    assert_eq!(secret.content_hash(5, [&chunk]).to_string(), CONTENT);
}

const FRAME_IDS: [&str; 3] = [
    "2d1bb6c4a2f0a81574ff04ecc93a1060a962fa4bd970a5406f1e748db5323d3b",
    "7a0f009816696e813d4cdb5119f87b5f9308adb21fa700f78cd88c2dd98e6673",
    "446ba4edaaa4e49a78247e0339eac21d0d72c298bb737fb679dd0ebbdf9aa6fe",
];
const FRAME_ZSTD_ID: &str = "14c9b01507332ccacbb8fd9608e9b093cd1f5a32fef0c11a31fcbb2236e1e9b7";
const EPOCH_ID: &str = "d66d1672241771aac81f6afd4a406542f381401e41d8b075f915012ffab47cf7";
const SECRET_ID: &str = "6afb336bc5845cfd432fa31979807a942ef4fe5df441535775e1f270db8ffbf0";
const CDC_SEED: u64 = 14_358_801_080_009_255_617;
const CONTENT: &str = "ca495707314b9c9154915048c7c4c2f1bdc3fda465f512d43f4c1b7c77e25c44";
