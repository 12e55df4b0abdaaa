//! What entries promise.

use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

use super::*;
use crate::codec::{self, CodecError};
use crate::domain;
use crate::identity::{DeviceKey, Hash, SpaceId, VaultId, WriterId};
use crate::keys::EpochKey;

const VAULT: VaultId = VaultId([1; 32]);
const HEADS: [Hash; 2] = [Hash([3; 32]), Hash([4; 32])];

fn key() -> DeviceKey {
    DeviceKey::from_secret([2; 32])
}

fn epoch() -> EpochKey {
    EpochKey::from_secret(&[5; 32])
}

fn params(seq: u64, prev: Hash) -> EntryParams<'static> {
    EntryParams {
        vault: VAULT,
        space: SpaceId::HOME,
        writer: WriterId {
            device: key().id(),
            incarnation: 0,
        },
        seq,
        prev,
        grant_heads: &HEADS,
    }
}

fn body(changes: usize) -> Body {
    let change = |n: usize| Change {
        doctype: "io.cozy.contacts".into(),
        id: format!("contact-{n}"),
        bytes: Hash::of("test", &[&n.to_le_bytes()]).0.repeat(3),
    };
    Body {
        clock: [(params(1, Hash::ZERO).writer, (7, Hash([7; 32])))]
            .into_iter()
            .collect(),
        changes: (0..changes).map(change).collect(),
    }
}

fn seal(params: &EntryParams<'_>, body: &Body) -> Result<Entry, EntryError> {
    seal_entry(
        &key(),
        params,
        body,
        &epoch(),
        &mut ChaCha12Rng::seed_from_u64(6),
    )
}

fn entry() -> Entry {
    seal(&params(1, Hash::ZERO), &body(3)).unwrap()
}

/// `entry` with its header changed by `change`, signed again by its writer.
fn resigned(mut entry: Entry, change: impl FnOnce(&mut Header)) -> Entry {
    change(&mut entry.header);
    let header = codec::encode(&entry.header);
    entry.signature = key().sign(domain::ENTRY_SIGNATURE, &header);
    entry
}

#[test]
fn an_entry_returns_from_its_bytes_and_opens() {
    for changes in [0, 1, 3, 500] {
        let sealed = seal(&params(1, Hash::ZERO), &body(changes)).unwrap();
        let bytes = sealed.encode();
        let read = Entry::decode(&bytes).unwrap();
        assert_eq!(read, sealed);
        assert_eq!(read.verify(&VAULT), Ok(()));
        assert_eq!(open_entry(&read, &epoch()), Ok(body(changes)));
        assert_eq!(Entry::decode_header(&bytes), Ok(read.header));
    }
}

/// Neither along a log nor at one place of it, where a device that was set back to an earlier state writes anew.
#[test]
fn no_two_entries_are_sealed_under_one_key() {
    let mut rng = ChaCha12Rng::seed_from_u64(9);
    let mut keys = std::collections::BTreeSet::new();
    let (mut prev, mut total) = (Hash::ZERO, 0);
    for seq in 1..=8 {
        for changes in 1..=3 {
            let entry = seal_entry(
                &key(),
                &params(seq, prev),
                &body(changes),
                &epoch(),
                &mut rng,
            );
            let entry = entry.unwrap();
            // A key shows itself by what it makes of the same bytes.
            let mut sealed = vec![0; 16];
            crate::keys::seal_in_place(&entry.header.body_key(&epoch()), b"", &mut sealed, 0);
            keys.insert(sealed);
            total += 1;
            if changes == 3 {
                prev = entry.header.hash();
            }
        }
    }
    assert_eq!(keys.len(), total);
}

#[test]
fn entries_chain_by_their_headers() {
    let first = entry();
    let second = seal(&params(2, first.header_hash()), &body(1)).unwrap();
    assert_eq!(second.header.prev, first.header_hash());
    assert_ne!(second.header_hash(), first.header_hash());
}

#[test]
fn another_vault_writer_body_or_epoch_is_refused_for_what_it_is() {
    let other = VaultId([9; 32]);
    assert_eq!(entry().verify(&other), Err(EntryError::WrongVault(VAULT)));

    let mut forged = entry();
    forged.header.writer.device = DeviceKey::from_secret([8; 32]).id();
    assert_eq!(forged.verify(&VAULT), Err(EntryError::BadSignature));

    let mut swapped = entry();
    swapped.body = seal(&params(1, Hash::ZERO), &body(2)).unwrap().body;
    assert_eq!(swapped.verify(&VAULT), Err(EntryError::WrongBody));

    assert_eq!(
        open_entry(&entry(), &EpochKey::from_secret(&[6; 32])),
        Err(EntryError::WrongEpoch(epoch().id()))
    );
}

#[test]
fn a_body_opens_only_in_the_entry_it_was_written_for() {
    // Signed by the writer itself, so the signature fits: the encryption still refuses.
    type Change = fn(&mut Header);
    let moves: [Change; 6] = [
        |header| header.seq = 2,
        |header| header.prev = Hash([1; 32]),
        |header| header.space = SpaceId([1; 16]),
        |header| header.writer.incarnation = 1,
        |header| header.salt[0] ^= 1,
        |header| header.grant_heads.truncate(1),
    ];
    for (n, change) in moves.into_iter().enumerate() {
        let moved = resigned(entry(), change);
        assert_eq!(moved.verify(&VAULT), Ok(()), "{n}");
        assert_eq!(
            open_entry(&moved, &epoch()),
            Err(EntryError::CannotOpen),
            "{n}"
        );
    }
}

#[test]
fn an_inconsistent_header_is_refused_even_when_signed() {
    type Change = fn(&mut Header);
    let changes: [Change; 6] = [
        |header| header.seq = 0,
        |header| header.seq = 2,
        |header| header.prev = Hash([1; 32]),
        |header| header.grant_heads.clear(),
        |header| header.grant_heads.reverse(),
        |header| header.body_len += 1,
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let bytes = resigned(entry(), change).encode();
        assert_eq!(Entry::decode(&bytes), Err(EntryError::Inconsistent), "{n}");
    }
}

#[test]
fn a_newer_entry_is_refused_as_newer() {
    let bytes = resigned(entry(), |header| header.version = 9).encode();
    let newer = CodecError::Newer {
        found: 9,
        supported: 1,
    };
    assert_eq!(Entry::decode(&bytes), Err(EntryError::Codec(newer)));
}

#[test]
fn what_is_over_a_bound_is_not_written() {
    let at = params(1, Hash::ZERO);
    let with = |change: Change| Body {
        changes: vec![change],
        ..Body::default()
    };
    let change = body(1).changes.remove(0);
    let too_large = [
        with(Change {
            doctype: "d".repeat(DOCTYPE_MAX_LEN + 1),
            ..change.clone()
        }),
        with(Change {
            id: "i".repeat(ID_MAX_LEN + 1),
            ..change.clone()
        }),
        with(Change {
            bytes: vec![0; CHANGE_MAX_LEN + 1],
            ..change.clone()
        }),
        Body {
            changes: vec![
                Change {
                    bytes: vec![0; CHANGE_MAX_LEN],
                    ..change.clone()
                };
                17
            ],
            ..Body::default()
        },
        Body {
            changes: vec![change.clone(); BODY_MAX_CHANGES + 1],
            ..Body::default()
        },
    ];
    for body in too_large {
        assert!(matches!(seal(&at, &body), Err(EntryError::TooLarge(_))));
    }
    let heads: Vec<Hash> = (0..17).map(|n| Hash([n; 32])).collect();
    let crowded = EntryParams {
        grant_heads: &heads,
        ..at.clone()
    };
    assert!(matches!(
        seal(&crowded, &body(1)),
        Err(EntryError::TooLarge(_))
    ));
    let other = DeviceKey::from_secret([8; 32]);
    let mut rng = ChaCha12Rng::seed_from_u64(6);
    assert_eq!(
        seal_entry(&other, &at, &body(1), &epoch(), &mut rng),
        Err(EntryError::NotTheWriter)
    );
    assert_eq!(
        seal(&params(2, Hash::ZERO), &body(1)),
        Err(EntryError::Inconsistent)
    );
}

#[test]
fn more_noise_than_an_entry_holds_is_not_written() {
    let noise: Vec<u8> = (0..CHANGE_MAX_LEN / 32)
        .flat_map(|n| Hash::of("noise", &[&n.to_le_bytes()]).0)
        .collect();
    let change = Change {
        bytes: noise,
        ..body(1).changes.remove(0)
    };
    let mut changes = vec![change; 5];
    for (n, change) in changes.iter_mut().enumerate() {
        for byte in &mut change.bytes {
            *byte = byte.wrapping_mul(2 * u8::try_from(n).unwrap() + 3);
        }
    }
    let body = Body {
        changes,
        ..Body::default()
    };
    let sealed = seal(&params(1, Hash::ZERO), &body);
    assert_eq!(sealed, Err(EntryError::TooLarge("the sealed body")));
}

#[test]
fn the_longest_header_is_within_its_bound() {
    let heads: Vec<Hash> = (0..16).map(|n| Hash([n; 32])).collect();
    let mut params = params(u64::MAX, Hash([1; 32]));
    params.grant_heads = &heads;
    params.writer.incarnation = u32::MAX;
    let mut longest = seal(&params, &body(1)).unwrap().header;
    longest.body_len = u32::MAX;
    longest.version = u16::MAX;
    assert!(codec::encode(&longest).len() <= HEADER_MAX_LEN);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn an_altered_entry_is_refused(at: prop::sample::Index, flip in 1u8..) {
        let mut bytes = entry().encode();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let read = Entry::decode(&bytes).and_then(|entry| entry.verify(&VAULT));
        prop_assert!(read.is_err(), "byte {}", at);
        prop_assert!(Entry::decode(&bytes[..at]).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_no_entry(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Entry::decode(&bytes).is_err());
        let _ = Entry::decode_header(&bytes);
        if let Some(version) = bytes.first_mut() {
            *version = 1;
        }
        prop_assert!(Entry::decode(&bytes).is_err());
        let _ = Entry::decode_header(&bytes);
        let _ = codec::decode::<Body>(&bytes, BODY_MAX_LEN);
    }

    #[test]
    fn any_body_returns(
        changes in prop::collection::vec(("[a-z.]{0,20}", ".{0,20}", prop::collection::vec(any::<u8>(), 0..200)), 0..20),
    ) {
        let changes = changes.into_iter().map(|(doctype, id, bytes)| Change { doctype, id, bytes });
        let body = Body { changes: changes.collect(), ..body(0) };
        let sealed = seal(&params(1, Hash::ZERO), &body).unwrap();
        prop_assert_eq!(open_entry(&sealed, &epoch()), Ok(body));
    }
}
