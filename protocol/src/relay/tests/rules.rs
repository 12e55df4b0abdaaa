//! What a host frees, and what it still takes.

use proptest::prelude::*;

use super::super::freeing::{COUNTS_FOR_MS, GRACE_MS, Member, Word, may_free};
use super::super::quota::{Fill, MIN_RESERVE_BYTES, Usage};
use super::*;
use crate::identity::DeviceId;

const NOW: u64 = 2 * COUNTS_FOR_MS;

fn device(n: u8) -> DeviceId {
    DeviceId([n; 32])
}

fn member(n: u8, role: Role) -> Member {
    Member {
        device: device(n),
        role,
        heard_ms: NOW,
    }
}

#[test]
fn one_devices_word_frees_nothing_that_another_still_names() {
    let members = [member(1, Role::Owner), member(2, Role::Reader)];
    let long_ago = NOW - 2 * GRACE_MS;
    let word = |released| Word {
        claimed_ms: 0,
        released,
    };
    let one = [(device(1), long_ago)];
    assert!(!may_free(word(&one), &members, NOW, GRACE_MS));
    let same_twice = [(device(1), long_ago), (device(1), long_ago)];
    assert!(!may_free(word(&same_twice), &members, NOW, GRACE_MS));
    let stranger = [(device(1), long_ago), (device(3), long_ago)];
    assert!(!may_free(word(&stranger), &members, NOW, GRACE_MS));
    let both = [(device(1), long_ago), (device(2), long_ago)];
    assert!(may_free(word(&both), &members, NOW, GRACE_MS));
}

#[test]
fn a_claim_voids_what_was_released_before_it() {
    let members = [member(1, Role::Owner)];
    let released = [(device(1), 1_000)];
    let word = |claimed_ms| Word {
        claimed_ms,
        released: &released,
    };
    assert!(may_free(word(1_000), &members, NOW, GRACE_MS));
    assert!(!may_free(word(1_001), &members, NOW, GRACE_MS));
}

#[test]
fn the_grace_begins_with_the_last_device_and_is_not_put_off_by_repeating() {
    let members = [member(1, Role::Owner), member(2, Role::Owner)];
    let last = NOW - GRACE_MS;
    let released = [(device(1), 5), (device(2), last), (device(1), NOW)];
    let word = Word {
        claimed_ms: 0,
        released: &released,
    };
    assert!(may_free(word, &members, NOW, GRACE_MS));
    assert!(!may_free(word, &members, NOW - 1, GRACE_MS));
}

#[test]
fn hosts_and_devices_that_were_silent_for_long_have_no_say_and_nobody_is_not_everybody() {
    let mut silent = member(2, Role::Owner);
    silent.heard_ms = NOW - COUNTS_FOR_MS;
    let members = [member(1, Role::Owner), silent, member(9, Role::Relay)];
    let released = [(device(1), 0)];
    let word = Word {
        claimed_ms: 0,
        released: &released,
    };
    assert!(may_free(word, &members, NOW, GRACE_MS));
    assert!(!may_free(word, &members[1..], NOW, GRACE_MS));
    silent.heard_ms += 1;
    assert!(!may_free(word, &[members[0], silent], NOW, GRACE_MS));
}

#[test]
fn blobs_end_at_the_quota_and_entries_a_little_beyond() {
    let quota = 1_000_000_000;
    let usage = Usage {
        entry_bytes: 100_000_000,
        blob_bytes: 800_000_000,
    };
    assert!(usage.admits_blobs(quota, 100_000_000));
    assert!(!usage.admits_blobs(quota, 100_000_001));
    assert!(usage.admits_entries(quota, 150_000_000));
    assert!(!usage.admits_entries(quota, 150_000_001));
    let small = Usage::default();
    assert!(small.admits_entries(0, MIN_RESERVE_BYTES));
    assert!(!small.admits_blobs(0, 1));
}

#[test]
fn people_are_told_at_nine_tenths_and_when_it_is_full() {
    let fill = |blob_bytes| {
        Usage {
            entry_bytes: 1,
            blob_bytes,
        }
        .fill(1_000)
    };
    assert_eq!(fill(898), Fill::Room);
    assert_eq!(fill(899), Fill::Nearly);
    assert_eq!(fill(999), Fill::Full);
    assert_eq!(fill(u64::MAX), Fill::Full);
}

proptest! {
    #[test]
    fn nothing_is_freed_while_a_device_that_counts_has_not_released_it(
        devices in 1u8..6,
        claimed_ms in 0..NOW,
        released in prop::collection::vec((0u8..6, 0..NOW), 0..12),
        silent in 0u8..6,
    ) {
        let members: Vec<Member> = (0..devices)
            .map(|n| {
                let mut member = member(n, Role::Owner);
                member.heard_ms = if n == silent { 0 } else { NOW };
                member
            })
            .collect();
        let released: Vec<_> = released.into_iter().map(|(n, at)| (device(n), at)).collect();
        let word = Word { claimed_ms, released: &released };
        if may_free(word, &members, NOW, GRACE_MS) {
            for member in members.iter().filter(|member| member.heard_ms == NOW) {
                let long_ago = released.iter().any(|(device, at)| {
                    *device == member.device && *at >= claimed_ms && *at <= NOW - GRACE_MS
                });
                prop_assert!(long_ago);
            }
        }
    }
}
