//! Sealed identity files: what opens them, what does not, and their bytes.

use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::*;
use crate::vault::identity::{self, Stored};

/// As cheap as it gets, for tests that are not about the cost.
const CHEAP: Cost = Cost {
    memory_kib: 64,
    passes: 1,
    lanes: 1,
};

const BY_PASSPHRASE_HEX: &str = include_str!("frozen/by-passphrase.hex");
const BY_LOGIN_HEX: &str = include_str!("frozen/by-login.hex");

fn identity() -> Identity {
    Identity {
        key: coffer_protocol::identity::DeviceKey::from_secret([1; 32]),
        sealing: coffer_protocol::keys::SealingKey::from_seed([2; 32]),
    }
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(1)
}

fn by_passphrase() -> Locked {
    Locked::by_passphrase(&identity(), "open sesame", CHEAP, &mut rng()).unwrap()
}

fn by_login() -> Locked {
    Locked::by_login(&identity(), [3; 16], &[4; 32], &mut rng())
}

/// What a data folder with this file holds.
fn read(bytes: &[u8]) -> Result<Option<Stored>, StoreError> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("identity"), bytes).unwrap();
    identity::read(dir.path())
}

fn locked(bytes: &[u8]) -> Locked {
    match read(bytes) {
        Ok(Some(Stored::Locked(locked))) => locked,
        _ => panic!("not a locked file"),
    }
}

fn is_ours(opened: Result<Identity, Refused>) -> bool {
    opened.is_ok_and(|opened| {
        opened.key.id() == identity().key.id()
            && opened.sealing.seed_bytes() == identity().sealing.seed_bytes()
    })
}

#[test]
fn keys_open_with_their_passphrase_only() {
    let locked = locked(&by_passphrase().to_bytes());
    assert!(is_ours(locked.open_with_passphrase("open sesame")));
    for wrong in ["", "open sesam", "open sesame ", "Open sesame"] {
        let refused = locked.open_with_passphrase(wrong).err();
        assert_eq!(refused, Some(Refused::Wrong), "{wrong:?}");
    }
    assert_eq!(locked.open_with_login(&[4; 32]).err(), Some(Refused::Wrong));
}

#[test]
fn keys_open_with_the_secret_of_their_login_only() {
    let locked = locked(&by_login().to_bytes());
    assert_eq!(locked.login(), Some([3; 16]));
    assert!(is_ours(locked.open_with_login(&[4; 32])));
    assert_eq!(locked.open_with_login(&[5; 32]).err(), Some(Refused::Wrong));
    assert_eq!(locked.open_with_passphrase("").err(), Some(Refused::Wrong));
}

#[test]
fn a_sealed_file_holds_no_key_as_it_is_and_is_another_each_time() {
    let mut other_salt = ChaCha20Rng::seed_from_u64(2);
    let again = Locked::by_passphrase(&identity(), "open sesame", CHEAP, &mut other_salt).unwrap();
    assert_ne!(again, by_passphrase());
    for bytes in [by_passphrase().to_bytes(), by_login().to_bytes()] {
        for secret in [[1; 8], [2; 8]] {
            assert!(!bytes.windows(8).any(|part| part == secret));
        }
    }
}

#[test]
fn no_bit_can_be_altered_not_even_with_the_checksum_made_right() {
    for (bytes, opens) in [(by_passphrase().to_bytes(), 0), (by_login().to_bytes(), 1)] {
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            assert!(read(&altered).is_err(), "byte {at}");
            let body = altered.len() - 32;
            let check = blake3::hash(&altered[..body]);
            altered[body..].copy_from_slice(check.as_bytes());
            if at < body
                && let Ok(Some(Stored::Locked(locked))) = read(&altered)
            {
                let opened = match opens {
                    0 => locked.open_with_passphrase("open sesame"),
                    _ => locked.open_with_login(&[4; 32]),
                };
                assert!(opened.is_err(), "byte {at}");
            }
            assert!(read(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}

#[test]
fn a_file_cannot_ask_for_more_work_than_anybody_would_do() {
    for (memory_kib, passes, lanes) in [(2 << 20, 1, 1), (64, 65, 1), (1024, 1, 17), (0, 1, 1)] {
        let mut locked = by_passphrase();
        locked.by = By::Passphrase {
            cost: Cost {
                memory_kib,
                passes,
                lanes,
            },
            salt: [0; 32],
        };
        assert!(matches!(
            read(&locked.to_bytes()),
            Err(StoreError::Damaged(_))
        ));
    }
}

#[test]
fn less_memory_or_fewer_passes_cost_less() {
    assert!(CHEAP.is_less_than(&Cost::NOW));
    assert!(!Cost::NOW.is_less_than(&Cost::NOW));
    let fewer = Cost {
        passes: Cost::NOW.passes - 1,
        memory_kib: 2 * Cost::NOW.memory_kib,
        lanes: Cost::NOW.lanes,
    };
    assert!(fewer.is_less_than(&Cost::NOW));
    assert!(!Cost::NOW.is_less_than(&CHEAP));
}

#[test]
fn files_are_written_and_read_as_in_version_2() {
    let bytes = |hex: &str| hex::decode(hex.split_whitespace().collect::<String>()).unwrap();
    assert_eq!(
        hex::encode(by_passphrase().to_bytes()),
        hex::encode(bytes(BY_PASSPHRASE_HEX)),
        "by passphrase"
    );
    assert_eq!(
        hex::encode(by_login().to_bytes()),
        hex::encode(bytes(BY_LOGIN_HEX)),
        "by login"
    );
    assert!(is_ours(
        locked(&bytes(BY_PASSPHRASE_HEX)).open_with_passphrase("open sesame")
    ));
    assert!(is_ours(
        locked(&bytes(BY_LOGIN_HEX)).open_with_login(&[4; 32])
    ));
}

#[test]
fn a_file_of_a_later_version_is_refused_as_newer() {
    let mut bytes = by_login().to_bytes();
    bytes[8] = 3;
    assert!(matches!(
        read(&bytes),
        Err(StoreError::Newer { found: 3, known: 2 })
    ));
}

/// RFC 9106, 5.3, is with a secret and associated data, which are not used here; this is of the reference program:
/// `echo -n "password" | argon2 somesalt -id -t 2 -m 16 -p 1 -r`.
#[test]
fn the_stretching_is_argon2id() {
    let params = Params::new(1 << 16, 2, 1, Some(32)).unwrap();
    let mut out = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(b"password", b"somesalt", &mut out)
        .unwrap();
    assert_eq!(
        hex::encode(out),
        "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7"
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let whole = [&MAGIC[..], &[LOCKED], &bytes].concat();
        let _ = Locked::parse(&whole);
        let check = blake3::hash(&whole);
        let _ = read(&[&whole[..], check.as_bytes()].concat());
    }
}
