//! Ranges in the place of entries that were gone when they were to be backed up.

use coffer_protocol::identity::EpochId;
use coffer_protocol::ranges::{Head, Range};
use coffer_protocol::replication::Message;
use coffer_protocol::{codec, domain};

use super::*;

/// A range of these entries, signed as they are; nobody opens it here.
fn range(made: &Made, from: u64, to: u64) -> (Head, Message) {
    let header = |seq: u64| match seq {
        0 => Hash::ZERO,
        _ => made.entries[seq as usize - 1].0,
    };
    let body = vec![5; 3000];
    let head = Head {
        version: 1,
        vault: made.vault,
        space: SpaceId::HOME,
        writer: made.writer,
        from,
        to,
        prev: header(from - 1),
        last: header(to),
        maker: made.key.id(),
        epoch: EpochId([1; 32]),
        salt: [2; 32],
        root: Hash([3; 32]),
        body_len: 3000,
        body_hash: Hash::of(domain::RANGE_BODY_HASH, &[&body]),
    };
    let range = Range {
        signature: made
            .key
            .sign(domain::RANGE_SIGNATURE, &codec::encode(&head)),
        head: head.clone(),
        body,
    };
    let message = Message::Range {
        range: range.encode(),
        attestations: vec![vec![9; 200]],
    };
    (head, message)
}

#[test]
fn a_range_stands_for_the_entries_that_were_gone() {
    let (made, dir) = (Made::with(6), tempfile::tempdir().unwrap());
    let dir = dir.path().join("backup");
    made.back_up(&dir, 2, &[], false);
    let (head, message) = range(&made, 1, 5);
    let mut writer = Writer::begin(&dir, made.vault).unwrap();
    writer.range(&head, &message).unwrap();
    made.add(&mut writer, 2, &[]);
    let (header, bytes) = &made.entries[5];
    writer.entry(made.writer, (6, *header), bytes).unwrap();
    writer
        .end(made.run(2, 6), 0, &made.key, None, false)
        .unwrap();
    // Also when the data files are written anew.
    for number in 3..5 {
        let archive = Archive::open(&dir).unwrap();
        assert_eq!(archive.clock(), made.run(1, 6).clock);
        let read = |from| archive.entries(made.writer, (from, 6), usize::MAX).unwrap();
        assert_eq!((read(1).len(), read(3).len(), read(6).len()), (2, 0, 1));
        let over = |seq| archive.range_over(made.writer, seq).unwrap();
        assert_eq!(over(3), Some(message.clone()));
        assert_eq!(over(6), None);
        let found = archive.verify(|_| true).unwrap();
        assert_eq!(found.flaws, []);
        let mut writer = Writer::begin(&dir, made.vault).unwrap();
        let blobs = [blob(number, 9000)];
        made.add(&mut writer, 6, &blobs[..(4 - number) as usize]);
        let none: &dyn Fn(&Hash) -> bool = &|_| false;
        writer
            .end(made.run(number, 6), 1, &made.key, Some(none), true)
            .unwrap();
    }
}
