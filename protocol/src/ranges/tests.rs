//! What ranges promise.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

use super::*;
use crate::codec;
use crate::domain;
use crate::grants::{self, NewDevice, Role};
use crate::identity::{DeviceId, DeviceKey, Hash, SpaceId, VaultId, WriterId};
use crate::keys::{EpochKey, SealingKey};
use crate::log::{self, Body, Change, EntryParams, Header};
use crate::relay::freeing::{COUNTS_FOR_MS, Member};

const VAULT: VaultId = VaultId([1; 32]);

fn naming(doctype: &str, id: &str) -> Hash {
    Hash::of("test names", &[doctype.as_bytes(), b"/", id.as_bytes()])
}

fn key(n: u8) -> DeviceKey {
    DeviceKey::from_secret([n; 32])
}

fn epoch() -> EpochKey {
    EpochKey::from_secret(&[5; 32])
}

fn rng() -> ChaCha12Rng {
    ChaCha12Rng::seed_from_u64(6)
}

fn writer() -> WriterId {
    WriterId {
        device: key(2).id(),
        incarnation: 0,
    }
}

/// A log of which each entry has changes of these documents, with the grant heads given.
fn log_of(entries: &[(Vec<u8>, u8)]) -> Vec<(Header, Body)> {
    let mut log: Vec<(Header, Body)> = Vec::new();
    for (n, (documents, head)) in entries.iter().enumerate() {
        let prev = log.last().map_or(Hash::ZERO, |(header, _)| header.hash());
        let seq = n as u64 + 1;
        let changes = documents.iter().map(|document| Change {
            doctype: "notes".into(),
            id: format!("note {document}"),
            bytes: format!("change {n} of {document}").into_bytes(),
        });
        let clock = (n > 0).then_some((writer(), (n as u64, prev)));
        let body = Body {
            clock: clock.into_iter().collect(),
            changes: changes.collect(),
        };
        let params = EntryParams {
            vault: VAULT,
            space: SpaceId::HOME,
            writer: writer(),
            seq,
            prev,
            grant_heads: &[Hash([*head; 32])],
        };
        let entry = log::seal_entry(&key(2), &params, &body, &epoch(), &mut rng()).unwrap();
        log.push((entry.header, body));
    }
    log
}

fn some_log() -> Vec<(Header, Body)> {
    log_of(&[(vec![1, 2], 3), (vec![1], 3), (vec![], 4), (vec![3, 1], 4)])
}

fn content(log: &[(Header, Body)]) -> Content {
    Content::of(log.iter().map(|(header, body)| (header, body)), naming).unwrap()
}

fn nothing(_: &Hash) -> bool {
    false
}

fn range_of(log: &[(Header, Body)], purged: impl Fn(&Hash) -> bool) -> Range {
    seal_longest(&key(2), log, purged, naming, &epoch(), &mut rng())
        .unwrap()
        .unwrap()
}

/// `range` with its head changed, signed again by its maker.
fn resigned(mut range: Range, change: impl FnOnce(&mut Head)) -> Range {
    change(&mut range.head);
    let head = codec::encode(&range.head);
    range.signature = key(2).sign(domain::RANGE_SIGNATURE, &head);
    range
}

#[test]
fn a_range_returns_from_its_bytes_and_holds_every_change_in_its_order() {
    let log = some_log();
    let range = range_of(&log, nothing);
    let read = Range::decode(&range.encode()).unwrap();
    assert_eq!(read, range);
    assert_eq!(read.verify(&VAULT), Ok(()));
    assert_eq!((read.head.from, read.head.to), (1, 4));
    assert_eq!(read.head.prev, Hash::ZERO);
    assert_eq!(read.head.last, log[3].0.hash());
    let opened = open_range(&read, &epoch(), naming).unwrap();
    assert_eq!(opened, content(&log));
    let said: Vec<u64> = opened.said().iter().map(|said| said.seq).collect();
    assert_eq!(said, [2, 4]);
    let of_one = |changes: Vec<Change>| -> Vec<Vec<u8>> {
        let of_it = changes.into_iter().filter(|change| change.id == "note 1");
        of_it.map(|change| change.bytes).collect()
    };
    let written = log.iter().flat_map(|(_, body)| body.changes.clone());
    assert_eq!(
        of_one(opened.into_changes().collect()),
        of_one(written.collect())
    );
}

#[test]
fn what_is_moved_altered_or_signed_by_another_is_refused_for_what_it_is() {
    let log = some_log();
    let range = range_of(&log, nothing);
    let other = VaultId([9; 32]);
    assert_eq!(range.verify(&other), Err(RangeError::WrongVault(VAULT)));
    let mut forged = range.clone();
    forged.head.maker = key(8).id();
    assert_eq!(forged.verify(&VAULT), Err(RangeError::BadSignature));
    let mut spliced = range.clone();
    spliced.body = range_of(&log[1..], nothing).body;
    assert_eq!(spliced.verify(&VAULT), Err(RangeError::WrongBody));
    let wrong = EpochKey::from_secret(&[6; 32]);
    let refused = open_range(&range, &wrong, naming);
    assert_eq!(refused, Err(RangeError::WrongEpoch(epoch().id())));
    // Signed by the maker itself: the encryption, or the root, refuses.
    let changes: [fn(&mut Head); 8] = [
        |head| head.from = 2,
        |head| head.to = 5,
        |head| head.prev = Hash([1; 32]),
        |head| head.last = Hash([1; 32]),
        |head| head.writer.incarnation = 1,
        |head| head.space = SpaceId([1; 16]),
        |head| head.salt = [0; 32],
        |head| head.root = Hash([1; 32]),
    ];
    for change in changes {
        let moved = resigned(range.clone(), change);
        assert_eq!(moved.verify(&VAULT), Ok(()));
        let refused = open_range(&moved, &epoch(), naming);
        assert_eq!(refused, Err(RangeError::CannotOpen), "{:?}", moved.head);
    }
}

#[test]
fn a_range_that_leaves_something_out_is_told_from_one_that_does_not() {
    let log = some_log();
    let whole = content(&log);
    let all = range_of(&log, nothing);
    let opened = open_range(&all, &epoch(), naming).unwrap();
    assert_eq!(opened.compare(&whole, nothing, naming), Ok(()));
    // An entry less, as if it had said nothing; a document less; a document called purged that was not.
    let mut short = log.clone();
    short[1].1.changes.clear();
    assert_eq!(
        content(&short).compare(&whole, nothing, naming),
        Err(Difference::Root)
    );
    let name = naming("notes", "note 1");
    let purged = |found: &Hash| *found == name;
    let without = open_range(&range_of(&log, purged), &epoch(), naming).unwrap();
    assert_eq!(
        without.compare(&whole, nothing, naming),
        Err(Difference::LeftOut(name))
    );
    assert_eq!(without.compare(&whole, purged, naming), Ok(()));
    assert!(without.into_changes().all(|change| change.id != "note 1"));
    // What an entry said of membership is part of it.
    let mut other_heads = log.clone();
    other_heads[3].1.clock = Default::default();
    assert_eq!(
        content(&other_heads).compare(&whole, nothing, naming),
        Err(Difference::Root)
    );
}

#[test]
fn a_range_made_anew_without_what_was_purged_has_the_same_root_and_is_smaller() {
    let log = some_log();
    let name = naming("notes", "note 1");
    let whole = open_range(&range_of(&log, nothing), &epoch(), naming).unwrap();
    let before = codec::encode(&whole);
    let again = whole.clone().without(|found| *found == name, naming);
    assert_eq!(again.root(naming), whole.root(naming));
    let secret = b"change 1 of 1";
    let holds = |bytes: &[u8]| bytes.windows(secret.len()).any(|window| window == secret);
    assert!(holds(&before) && !holds(&codec::encode(&again)));
    // And again: nothing is left to be left out.
    assert_eq!(again.clone().without(|found| *found == name, naming), again);
}

#[test]
fn entries_that_do_not_follow_each_other_make_no_range() {
    let log = some_log();
    let of = |entries: &[&(Header, Body)]| {
        let entries = entries.iter().map(|entry| (&entry.0, &entry.1));
        Content::of(entries, naming)
    };
    assert_eq!(of(&[]), Err(ContentError::NotARun));
    assert_eq!(of(&[&log[0], &log[2]]), Err(ContentError::NotARun));
    assert_eq!(of(&[&log[1], &log[0]]), Err(ContentError::NotARun));
    let other = log_of(&[(vec![9], 3), (vec![1], 3)]);
    assert_eq!(of(&[&log[0], &other[1]]), Err(ContentError::NotARun));
}

#[test]
fn as_many_entries_as_fit_make_one_range_and_one_that_is_too_large_stays() {
    let mut log = log_of(&vec![(vec![1], 3); 12]);
    for (n, (_, body)) in log.iter_mut().enumerate() {
        let noise: Vec<u8> = (0..6000u32)
            .flat_map(|at| Hash::of("noise", &[&at.to_le_bytes(), &n.to_le_bytes()]).0)
            .collect();
        body.changes[0].bytes = noise;
    }
    let range = range_of(&log, nothing);
    assert!(range.head.to < 6 && range.head.to >= 2, "{}", range.head.to);
    assert!(range.encode().len() <= RANGE_MAX_LEN);
    let alone = seal_longest(&key(2), &log[..1], nothing, naming, &epoch(), &mut rng());
    assert_eq!(alone, Ok(None));
}

#[test]
fn keystrokes_take_a_tenth_of_their_entries() {
    let log = log_of(&vec![(vec![1], 3); 1000]);
    let entries: usize = log
        .iter()
        .map(|(header, _)| codec::encode(header).len() + 65 + header.body_len as usize)
        .sum();
    let range = range_of(&log, nothing).encode().len();
    assert!(range * 10 < entries, "{range} of {entries}");
}

fn attested(head: &Head, by: &[(u8, bool)]) -> Vec<SignedAttestation> {
    by.iter()
        .map(|(n, compared)| Attestation::sign(&key(*n), head, *compared).unwrap())
        .collect()
}

fn members(devices: &[(u8, Role, u64)]) -> Vec<Member> {
    let member = |(n, role, heard_ms): &(u8, Role, u64)| Member {
        device: key(*n).id(),
        role: *role,
        heard_ms: *heard_ms,
    };
    devices.iter().map(member).collect()
}

#[test]
fn entries_are_dropped_only_once_another_device_compared_and_all_that_count_have_the_range() {
    let head = range_of(&some_log(), nothing).head;
    let now = COUNTS_FOR_MS * 2;
    let all = members(&[
        (2, Role::Owner, now),
        (3, Role::Member, now),
        (4, Role::Reader, now),
        (9, Role::Relay, now),
    ]);
    let may = |by: &[(u8, bool)]| may_replace(&head, &attested(&head, by), &all, now);
    assert!(!may(&[]));
    assert!(!may(&[(2, true)]), "the maker alone");
    assert!(!may(&[(2, true), (3, true)]), "one has not got it yet");
    assert!(
        !may(&[(2, true), (3, false), (4, false)]),
        "nobody compared"
    );
    assert!(
        !may(&[(3, false), (4, false), (9, true)]),
        "a host has no keys"
    );
    assert!(!may(&[(3, false), (4, false), (7, true)]), "a stranger");
    assert!(may(&[(3, true), (4, false)]));
    assert!(may(&[(3, false), (4, true), (2, true)]));
    // Silent for long, a device does not hold up the others; but it cannot be the one that compared by saying nothing.
    let silent = members(&[
        (2, Role::Owner, now),
        (3, Role::Owner, now),
        (4, Role::Owner, 0),
    ]);
    assert!(may_replace(
        &head,
        &attested(&head, &[(3, true)]),
        &silent,
        now
    ));
    // A device by itself compacts nothing away.
    let alone = members(&[(2, Role::Owner, now)]);
    assert!(!may_replace(
        &head,
        &attested(&head, &[(2, true)]),
        &alone,
        now
    ));
    // What was said of another range counts for nothing.
    let other = range_of(&some_log()[..3], nothing).head;
    let said = attested(&other, &[(3, true), (4, true)]);
    assert!(!may_replace(&head, &said, &all, now));
}

#[test]
fn an_open_log_is_compacted_by_its_writer_and_a_closed_one_by_the_keeper_within_the_cutoff() {
    let sealing = |n: u8| SealingKey::of_device(&key(n));
    let mut founded = grants::found(&key(1), &sealing(1), "first", 1, &mut rng()).unwrap();
    for n in [2, 3] {
        let (public, membership) = (sealing(n).public(), &mut founded.membership);
        let new = NewDevice {
            device: key(n).id(),
            sealing: &public,
            role: Role::Owner,
            name: "another",
        };
        let grant = membership
            .admit(&key(1), &founded.keyring, &new, 1, &mut rng())
            .unwrap();
        membership.insert(grant).unwrap();
    }
    let mut head = range_of(&some_log(), nothing).head;
    let made_by = |head: &Head, n: u8| Head {
        maker: key(n).id(),
        ..*head
    };
    let may = |membership: &grants::Membership, head: &Head| -> Vec<u8> {
        let makers = [1, 2, 3, 4].into_iter();
        makers
            .filter(|n| may_make(membership, &made_by(head, *n)))
            .collect()
    };
    assert_eq!(may(&founded.membership, &head), [2]);
    let cutoff = grants::Cutoff {
        writer: writer(),
        seq: 4,
        header: head.last,
    };
    let revoke = founded
        .membership
        .revoke(&key(1), key(2).id(), vec![cutoff], &[], 2)
        .unwrap();
    founded.membership.insert(revoke).unwrap();
    assert_eq!(may(&founded.membership, &head), [1]);
    let keepers: Vec<DeviceId> = keepers(&founded.membership, &key(2).id())
        .into_iter()
        .collect();
    assert_eq!(keepers, [key(1).id()]);
    head.to = 5;
    assert_eq!(may(&founded.membership, &head), [0u8; 0]);
    head.writer.device = key(7).id();
    assert_eq!(may(&founded.membership, &head), [0u8; 0]);
}

fn logs() -> impl Strategy<Value = Vec<(Header, Body)>> {
    let entry = (prop::collection::vec(0u8..4, 0..4), 3u8..6);
    prop::collection::vec(entry, 2..12).prop_map(|mut entries| {
        // Heads do not come back once others took their place.
        entries.sort_by_key(|(_, head)| *head);
        log_of(&entries)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn equal_roots_mean_equal_changes(log in logs(), at in any::<prop::sample::Index>(), purged in 0u8..4) {
        let whole = content(&log);
        let name = naming("notes", &format!("note {purged}"));
        let range = range_of(&log, |found| *found == name);
        let opened = open_range(&range, &epoch(), naming).unwrap();
        prop_assert_eq!(opened.compare(&whole, |found| *found == name, naming), Ok(()));
        let kept: BTreeSet<Vec<u8>> = opened.into_changes().map(|change| change.bytes).collect();
        let written = log.iter().flat_map(|(_, body)| &body.changes);
        let expected: BTreeSet<Vec<u8>> = written
            .filter(|change| naming(&change.doctype, &change.id) != name)
            .map(|change| change.bytes.clone())
            .collect();
        prop_assert_eq!(kept, expected);
        // One change less, anywhere, shows.
        let mut short = log.clone();
        let with: Vec<usize> = (0..log.len()).filter(|n| !log[*n].1.changes.is_empty()).collect();
        if !with.is_empty() {
            short[with[at.index(with.len())]].1.changes.pop();
            prop_assert_eq!(content(&short).compare(&whole, nothing, naming), Err(Difference::Root));
        }
    }

    #[test]
    fn arbitrary_and_altered_bytes_never_panic_and_never_pass(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let _ = Range::decode(&bytes);
        let _ = SignedAttestation::decode(&bytes);
        let range = range_of(&some_log(), nothing);
        let mut altered = range.encode();
        let at = at.index(altered.len());
        altered[at] ^= 1 << bit;
        if let Ok(read) = Range::decode(&altered) {
            prop_assert!(read.verify(&VAULT).is_err(), "byte {}", at);
        }
        let mut said = Attestation::sign(&key(3), &range.head, true).unwrap().bytes().to_vec();
        let at = at % said.len();
        said[at] ^= 1 << bit;
        prop_assert!(SignedAttestation::decode(&said).is_err());
        prop_assert!(Range::decode(&range.encode()[..at]).is_err());
    }
}
