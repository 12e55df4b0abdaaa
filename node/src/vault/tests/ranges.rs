//! Ranges among cores that talk to each other: made, compared, attested, taken.

use coffer_protocol::identity::WriterId;
use coffer_protocol::log::{self, Body, Entry, Header};
use coffer_protocol::ranges::{self, Content, Range, RangeParams};
use coffer_protocol::replication::Message;

use super::several::{joined, meet};
use super::*;
use crate::vault::continuity::Continuity;
use crate::vault::ranges::naming;

/// Entries of a stretch in these tests.
const STRETCH: u64 = 16;

/// One of three documents changes.
fn write(core: &mut Core, n: u32) {
    let operation = Operation::PutDocument {
        doctype: "t".into(),
        id: (n % 3).to_string(),
        value: serde_json::json!({ "n": n }),
        texts: Vec::new(),
        base: Vec::new(),
    };
    commit(core, vec![operation]).unwrap();
}

/// A vault whose first device has written more than two stretches, and a second device that has all of it.
fn two() -> (Core, Core) {
    let mut first = vault();
    let mut second = joined(&mut first, 2);
    for core in [&mut first, &mut second] {
        core.set_stretch(STRETCH);
    }
    for n in 0..40 {
        write(&mut first, n);
    }
    meet(&mut first, &mut second);
    (first, second)
}

/// Both say what they hold, and the first makes the ranges that it owes.
fn compact(first: &mut Core, second: &mut Core) {
    second.process(vec![Input::StateHeld], wall_ms());
    meet(first, second);
    while first.owes_range() {
        first.process(vec![Input::StateHeld], wall_ms());
    }
}

fn json(core: &Core, id: u32) -> Option<serde_json::Value> {
    let read = core.database().begin_read().unwrap();
    let key = crate::store::documents::DocumentKey::new("t", &id.to_string());
    let row = crate::store::documents::read_row(&read, key).unwrap()?;
    let document = crate::store::documents::read_document(&read, key, &row).unwrap();
    Some(document.json())
}

/// The entries of a log, opened.
fn opened(core: &Core, writer: WriterId, from: u64, to: u64) -> Vec<(Header, Body)> {
    let entries = core.entries(writer, from, to).unwrap();
    let open = |bytes: &Vec<u8>| {
        let entry = Entry::decode(bytes).unwrap();
        let key = core.state().keyring.epoch(&entry.header.epoch).unwrap();
        let body = log::open_entry(&entry, key).unwrap();
        (entry.header, body)
    };
    entries.iter().map(open).collect()
}

/// A range of these entries by the device of `core`, whatever they hold.
fn range_of(core: &mut Core, entries: &[(Header, Body)], content: &Content) -> Range {
    let (first, last) = (&entries[0].0, &entries[entries.len() - 1].0);
    let params = RangeParams {
        vault: first.vault,
        space: first.space,
        writer: first.writer,
        from: first.seq,
        to: last.seq,
        prev: first.prev,
        last: last.hash(),
    };
    let epoch = core.state().sealing_epoch().unwrap();
    let keyring = core.state().keyring.clone();
    ranges::seal_range(
        &core.identity.key,
        &params,
        content,
        naming,
        keyring.epoch(&epoch).unwrap(),
        &mut *core.rng,
    )
    .unwrap()
}

fn content_of(entries: &[(Header, Body)]) -> Content {
    Content::of(entries.iter().map(|(header, body)| (header, body)), naming).unwrap()
}

/// Hands a range to a core as from a device of its vault.
fn give(core: &mut Core, from: &Core, range: &Range) {
    let (device, message) = (
        from.device(),
        Message::Range {
            range: range.encode(),
            attestations: Vec::new(),
        },
    );
    core.process(vec![Input::Connected(device)], wall_ms());
    let hello = Message::Hello {
        versions: vec![1, 2],
        vault: from.state().vault,
        grant_heads: from.state().membership.heads(),
        clock: from.state().clock.clone(),
    };
    core.process(
        vec![
            Input::Message(device, hello),
            Input::Message(device, message),
        ],
        wall_ms(),
    );
    core.process(vec![Input::Disconnected(device)], wall_ms());
}

#[test]
fn stretches_that_another_device_has_become_ranges_and_it_says_that_they_are_the_same() {
    let (mut first, mut second) = two();
    assert!(!first.owes_range(), "nobody is known to have them");
    compact(&mut first, &mut second);
    assert_eq!(first.state().ranges.len(), 2);
    assert!(
        first
            .state()
            .ranges
            .values()
            .all(|range| range.said.is_empty())
    );
    meet(&mut first, &mut second);
    for core in [&first, &second] {
        let ranges = &core.state().ranges;
        assert_eq!(ranges.len(), 2);
        for range in ranges.values() {
            let said = &range.said[&second.device()];
            assert!(said.value().compared && range.marks.vouched_for && !range.marks.alone);
        }
    }
    assert_eq!(
        first
            .state()
            .ranges
            .values()
            .map(|range| range.name())
            .collect::<Vec<_>>(),
        second
            .state()
            .ranges
            .values()
            .map(|range| range.name())
            .collect::<Vec<_>>()
    );
    // As after a start.
    let (state, _) = crate::vault::state::State::read(first.database(), &first.identity).unwrap();
    assert_eq!(state.looked_at[&state.writer], 2 * STRETCH);
    assert_eq!(state.ranges.len(), 2);
}

#[test]
fn a_newcomer_takes_ranges_in_the_place_of_entries_and_has_the_same() {
    let (mut first, mut second) = two();
    compact(&mut first, &mut second);
    meet(&mut first, &mut second);
    let mut third = joined(&mut first, 3);
    meet(&mut first, &mut second);
    meet(&mut second, &mut third);
    assert_eq!(third.state().clock, second.state().clock);
    let writer = first.state().writer;
    assert!(third.entries(writer, 1, 40).unwrap().is_empty());
    assert!(third.entries(writer, STRETCH * 2, 40).unwrap().is_empty());
    assert!(
        !third
            .entries(writer, STRETCH * 2 + 1, 40)
            .unwrap()
            .is_empty()
    );
    for id in 0..3 {
        assert_eq!(json(&third, id), json(&first, id));
    }
    // It says that it has them, and not that it compared; and passes on what it has.
    let said = third.state().ranges.values().next().unwrap().said.clone();
    assert!(!said[&third.device()].value().compared);
    let mut fourth = joined(&mut third, 4);
    meet(&mut third, &mut fourth);
    assert_eq!(fourth.state().clock, third.state().clock);
    assert_eq!(json(&fourth, 1), json(&first, 1));
    meet(&mut first, &mut third);
    let ranges = first.state().ranges.values();
    assert!(
        ranges
            .into_iter()
            .all(|range| range.said.contains_key(&third.device()))
    );
}

#[test]
fn a_range_that_leaves_something_out_is_refused_by_who_has_the_entries() {
    let (mut first, mut second) = two();
    let writer = first.state().writer;
    let entries = opened(&first, writer, 1, STRETCH);
    let mut less = entries.clone();
    less[5].1.changes.clear();
    let range = range_of(&mut first, &entries, &content_of(&less));
    give(&mut second, &first, &range);
    assert!(second.state().ranges.is_empty());
    let range = range_of(&mut first, &entries, &content_of(&entries));
    give(&mut second, &first, &range);
    assert_eq!(second.state().ranges.len(), 1);
}

#[test]
fn who_lacks_the_entries_takes_no_range_on_the_word_of_its_maker() {
    let (mut first, _) = two();
    let entries = opened(&first, first.state().writer, 1, STRETCH);
    let range = range_of(&mut first, &entries, &content_of(&entries));
    let mut third = joined(&mut first, 3);
    give(&mut third, &first, &range);
    assert_eq!(third.state().clock.seq(&first.state().writer), 0);
    assert!(third.state().ranges.is_empty());
    // From who has them it gets the entries.
    meet(&mut first, &mut third);
    assert_eq!(third.state().clock, first.state().clock);
}

#[test]
fn who_has_the_first_entries_of_a_range_goes_on_with_the_rest_of_it() {
    let (mut first, mut second) = two();
    let writer = first.state().writer;
    let mut third = joined(&mut first, 3);
    let begun = first.entries(writer, 1, 40).unwrap()[..5].to_vec();
    third.take_in(begun, wall_ms()).unwrap();
    assert_eq!(third.state().clock.seq(&writer), 5);
    compact(&mut first, &mut second);
    meet(&mut first, &mut second);
    let known = first.state().ranges[&(writer, STRETCH)].clone();
    let said = known
        .said
        .values()
        .map(|said| said.bytes().to_vec())
        .collect();
    let range = first.run_of(writer, (1, 40), true).unwrap().unwrap();
    let Some(Message::Range { range, .. }) = range.message else {
        panic!("a range goes out first");
    };
    third.take_in_range(range, said, wall_ms()).unwrap();
    assert_eq!(third.state().clock.seq(&writer), STRETCH);
    meet(&mut first, &mut third);
    assert_eq!(json(&third, 2), json(&first, 2));
}

#[test]
fn a_newcomer_gets_each_range_once() {
    let (mut first, mut second) = two();
    compact(&mut first, &mut second);
    meet(&mut first, &mut second);
    let mut third = joined(&mut first, 3);
    let said = meet(&mut first, &mut third);
    let is_range = |message: &&Message| matches!(message, Message::Range { .. });
    assert_eq!(said.iter().filter(is_range).count(), 2);
    assert_eq!(third.state().ranges.len(), 2);
}

/// Says what it holds, and does what it owes.
fn rest(core: &mut Core) {
    core.process(vec![Input::StateHeld], wall_ms());
    while core.owes_range() {
        core.process(vec![Input::StateHeld], wall_ms());
    }
}

/// How many of these entries of the first device's log are here.
fn entries_of(core: &Core, first: &Core, from: u64, to: u64) -> usize {
    core.entries(first.state().writer, from, to).unwrap().len()
}

#[test]
fn entries_go_once_every_device_has_the_range_and_not_before() {
    let (mut first, mut second) = two();
    let mut third = joined(&mut first, 3);
    meet(&mut first, &mut third);
    meet(&mut first, &mut second);
    compact(&mut first, &mut second);
    meet(&mut first, &mut second);
    for core in [&mut first, &mut second] {
        rest(core);
    }
    for core in [&first, &second, &third] {
        assert_eq!(
            entries_of(core, &first, 1, 40),
            40,
            "the third was not asked"
        );
    }
    meet(&mut second, &mut third);
    meet(&mut first, &mut second);
    for core in [&mut first, &mut second, &mut third] {
        rest(core);
    }
    for core in [&first, &second, &third] {
        assert_eq!(entries_of(core, &first, 1, 40), 0);
        assert_eq!(entries_of(core, &first, STRETCH * 2 + 1, 40), 8);
        let alone = |range: &crate::vault::ranges::Known| range.marks.alone;
        assert!(core.state().ranges.values().all(alone));
    }
    // As after a start, and in no layout that an earlier program reads.
    let (state, _) = crate::vault::state::State::read(first.database(), &first.identity).unwrap();
    assert!(state.ranges.values().all(|range| range.marks.alone));
    assert_eq!(state.clock, first.state().clock);
    let read = first.database().begin_read().unwrap();
    let meta = read.open_table(crate::store::tables::META).unwrap();
    let layout = crate::store::records::get_u32(&meta, crate::store::tables::meta::LAYOUT);
    assert_eq!(layout.unwrap(), Some(crate::store::tables::LAYOUT));
    // Who comes now has all of it, and writing goes on.
    write(&mut first, 100);
    let mut fourth = joined(&mut first, 4);
    meet(&mut first, &mut fourth);
    assert_eq!(fourth.state().clock, first.state().clock);
    for id in 0..3 {
        assert_eq!(json(&fourth, id), json(&first, id));
    }
}

#[test]
fn a_device_that_was_silent_for_long_hinders_nothing_and_gets_the_range_when_it_is_back() {
    let mut first = vault();
    let mut second = joined(&mut first, 2);
    let mut third = joined(&mut first, 3);
    for core in [&mut first, &mut second, &mut third] {
        core.set_stretch(STRETCH);
    }
    for n in 0..5 {
        write(&mut first, n);
    }
    meet(&mut first, &mut third);
    third.process(vec![Input::StateHeld], wall_ms());
    meet(&mut first, &mut third);
    for n in 5..40 {
        write(&mut first, n);
    }
    meet(&mut first, &mut second);
    compact(&mut first, &mut second);
    meet(&mut first, &mut second);
    let later = wall_ms() + 91 * 24 * 3_600_000;
    // The second states anew, the third does not.
    write(&mut second, 101);
    second.process(vec![Input::StateHeld], later);
    meet(&mut first, &mut second);
    first.process(vec![Input::StateHeld], later);
    assert_eq!(entries_of(&first, &first, 1, 40), 0);
    meet(&mut first, &mut third);
    assert_eq!(third.state().clock, first.state().clock);
    for id in 0..3 {
        assert_eq!(json(&third, id), json(&first, id));
    }
}

#[test]
fn a_document_is_put_together_again_from_ranges() {
    let (mut first, mut second) = two();
    compact(&mut first, &mut second);
    meet(&mut first, &mut second);
    for core in [&mut first, &mut second] {
        rest(core);
    }
    assert_eq!(entries_of(&second, &first, 1, 40), 0);
    let before = json(&second, 2);
    let key = crate::store::documents::DocumentKey::new("t", "2");
    let write = second.database().begin_write().unwrap();
    {
        let mut rows = write.open_table(crate::store::tables::DOCUMENTS).unwrap();
        rows.insert(&key.0, &b"\xff\xff\xff"[..]).unwrap();
    }
    write.commit().unwrap();
    second.cache.clear();
    let request = CommitRequest {
        mend: vec![("t".into(), "2".into())],
        ..CommitRequest::default()
    };
    second.process(vec![Input::Commit(1, Box::new(request))], wall_ms());
    assert_eq!(json(&second, 2), before);
}

#[test]
fn what_was_purged_is_in_no_range_and_soon_in_no_log() {
    let (mut first, mut second) = two();
    compact(&mut first, &mut second);
    let ranges = first.state().ranges.len();
    let purge = Operation::PurgeDocument {
        doctype: "t".into(),
        id: "1".into(),
    };
    for n in 0..5 {
        put(&mut first, n);
    }
    commit(&mut first, vec![purge]).unwrap();
    meet(&mut first, &mut second);
    compact(&mut first, &mut second);
    assert_eq!(
        first.state().ranges.len(),
        ranges + 1,
        "what there is of the log"
    );
    meet(&mut first, &mut second);
    let (_, last) = first.state().ranges.last_key_value().unwrap();
    assert_eq!(last.head.to, 46);
    let read = first.database().begin_read().unwrap();
    let range = crate::store::ranges::read_range(&read, last.head.writer, last.head.to);
    let range = Range::decode(&range.unwrap().unwrap()).unwrap();
    let keyring = first.state().keyring.clone();
    let epoch = keyring.epoch(&range.head.epoch).unwrap();
    let content = ranges::open_range(&range, epoch, naming).unwrap();
    assert_eq!(content.left_out().collect::<Vec<_>>(), [naming("t", "1")]);
    assert!(last.said[&second.device()].value().compared);
}

#[test]
fn the_closed_log_of_a_device_that_is_out_is_compacted_by_the_owner_who_was_named() {
    let (mut first, mut second) = two();
    let mut third = joined(&mut first, 3);
    third.set_stretch(STRETCH);
    for n in 100..140 {
        write(&mut second, n);
    }
    for _ in 0..2 {
        meet(&mut first, &mut second);
        meet(&mut first, &mut third);
        third.process(vec![Input::StateHeld], wall_ms());
    }
    let device = second.device();
    let revoke = crate::vault::Manage {
        act: crate::vault::Act::Revoke {
            device,
            undone: Vec::new(),
        },
        words: None,
    };
    first.process(vec![Input::Manage(1, Box::new(revoke))], wall_ms());
    meet(&mut first, &mut third);
    let before = first.state().ranges.len();
    rest(&mut first);
    let of_second = |core: &Core| {
        let ranges = core.state().ranges.values();
        ranges
            .filter(|known| known.head.writer.device == device)
            .count()
    };
    assert!(of_second(&first) >= 2, "{before} ranges before");
    meet(&mut first, &mut third);
    meet(&mut first, &mut third);
    assert_eq!(of_second(&first), of_second(&third));
    for core in [&mut first, &mut third] {
        rest(core);
        let writer = second.state().writer;
        assert!(core.entries(writer, 1, 40).unwrap().is_empty());
    }
    for id in 0..3 {
        assert_eq!(json(&first, id), json(&third, id));
    }
}

#[test]
fn the_log_of_an_earlier_incarnation_is_compacted_by_its_device() {
    let (mut first, mut second) = two();
    let earlier = first.state().writer;
    let folder = tempfile::tempdir().unwrap();
    let start = |core: &mut Core| core.started(&Continuity::of(folder.path()), wall_ms());
    start(&mut first).unwrap();
    std::fs::write(crate::vault::identity::path(folder.path()), b"").unwrap();
    start(&mut first).unwrap();
    write(&mut first, 100);
    assert_ne!(first.state().writer, earlier);
    meet(&mut first, &mut second);
    compact(&mut first, &mut second);
    let ends: Vec<u64> = {
        let ranges = first.state().ranges.keys();
        let of_earlier = ranges.filter(|(writer, _)| *writer == earlier);
        of_earlier.map(|(_, to)| *to).collect()
    };
    assert_eq!(ends, [16, 32], "whole stretches");
    meet(&mut first, &mut second);
    for core in [&mut first, &mut second] {
        rest(core);
    }
    meet(&mut first, &mut second);
    for core in [&mut first, &mut second] {
        rest(core);
        assert!(core.entries(earlier, 1, 32).unwrap().is_empty());
    }
    assert_eq!(json(&first, 1), json(&second, 1));
}
