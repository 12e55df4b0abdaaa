//! Honesty: what a replica says is true of what a power cut at that moment would leave on its disk.

use std::collections::BTreeSet;
use std::sync::Arc;

use coffer_crdt::chunks::ChunkRoot;
use coffer_crdt::files::FileId;
use coffer_node::store::{self, StoreError, logs, ranges, tables};
use coffer_node::vault::state::{open_held, read_tree};
use coffer_protocol::log::{Clock, Entry};
use coffer_protocol::ranges::Range;
use coffer_protocol::replication::Message;
use redb::{Database, ReadableDatabase};

use super::{check_acknowledged, file_rows};
use crate::replica::Replica;

/// What a disk was last seen to hold; it only grows, so that it need not be opened for each message.
#[derive(Default)]
pub struct Durably {
    clock: Clock,
    /// Syncs of the disk when it was looked at.
    looked_at: Option<u64>,
    /// The last own statement that was checked, and the disk's syncs when it was.
    stated: (Vec<u8>, u64),
}

impl Durably {
    /// The disk was replaced by its crash image.
    pub fn forget_image(&mut self) {
        self.looked_at = None;
    }
}

/// Checks that all that a core counts as done is on its disk, when it says so to its person.
pub fn check_durable(replica: &mut Replica) {
    let Some(node) = &replica.node else { return };
    let clock = node.core.state().clock.clone();
    assert!(
        has_durably(replica, &clock),
        "{} acknowledges what its disk does not hold",
        replica.name
    );
}

/// Checks that what a replica acknowledged is on its disk after a start.
pub fn check_start(replica: &Replica) {
    check_acknowledged(&replica.name, &durable(replica), &replica.acknowledged);
}

/// Opens what a power cut at this moment would leave.
fn durable(replica: &Replica) -> Arc<Database> {
    store::open_with(replica.disk.durable()).unwrap_or_else(|error| {
        panic!(
            "{}: the durable image cannot be opened: {error}",
            replica.name
        )
    })
}

/// Whether the replica's durable store has all entries of `clock`, and really has them.
fn has_durably(replica: &mut Replica, clock: &Clock) -> bool {
    if replica.durably.clock.covers_clock(clock) {
        return true;
    }
    let syncs = replica.disk.syncs();
    if replica.durably.looked_at != Some(syncs) {
        let database = durable(replica);
        let there = stored_clock(&database, &replica.durably.clock)
            .unwrap_or_else(|error| panic!("{}: {error}", replica.name));
        replica.durably.clock = there;
        replica.durably.looked_at = Some(syncs);
    }
    replica.durably.clock.covers_clock(clock)
}

/// Where the logs of a store end, by the entries in it; those up to `known` were looked at before.
fn stored_clock(database: &Database, known: &Clock) -> Result<Clock, StoreError> {
    let read = database.begin_read()?;
    let clock = logs::read_clock(&read)?;
    assert!(
        clock.covers_clock(known),
        "the durable store has lost entries"
    );
    for (writer, last, hash) in clock.iter() {
        let mut seq = known.seq(writer) + 1;
        while seq <= last {
            let kept = ranges::read_at(&read, *writer, seq)?;
            if let Some(kept) = kept.filter(|kept| kept.marks.alone && kept.head.from <= seq) {
                let (head, bytes) = (
                    &kept.head,
                    ranges::read_range(&read, *writer, kept.head.to)?,
                );
                let range = Range::decode(&bytes.unwrap_or_default())
                    .unwrap_or_else(|error| panic!("a stored range cannot be read: {error}"));
                assert_eq!(range.head, *head, "a range is not the one that is noted");
                assert!(
                    head.to < last || head.last == hash,
                    "the end of a log names another entry than its range"
                );
                seq = head.to + 1;
                continue;
            }
            let entries = logs::read_entries(&read, *writer, seq, last, usize::MAX)?;
            assert!(
                !entries.is_empty(),
                "the end of a log is stored without its entry {seq}"
            );
            for bytes in entries {
                let entry = Entry::decode(&bytes)
                    .unwrap_or_else(|error| panic!("a stored entry cannot be read: {error}"));
                assert_eq!(
                    (entry.header.writer, entry.header.seq),
                    (*writer, seq),
                    "a stored entry stands in another's place"
                );
                assert!(
                    seq < last || entry.header_hash() == hash,
                    "the end of a log names another entry"
                );
                seq += 1;
            }
        }
    }
    Ok(clock)
}

/// Checks what a replica is about to say.
pub fn check_honesty(replicas: &mut [Replica], place: usize, message: &Message) {
    match message {
        Message::Hello { clock, .. }
        | Message::Clock(clock)
        | Message::NeedEntries { clock, .. } => {
            let replica = &mut replicas[place];
            assert!(
                has_durably(replica, clock),
                "{} announces entries that its disk does not hold",
                replica.name
            );
        }
        Message::Held { device, statement } => {
            let Some(node) = &replicas[place].node else {
                return;
            };
            let state = node.core.state();
            let held = open_held(statement, &state.vault, &state.keyring).unwrap_or_else(|error| {
                panic!(
                    "{} passes on a statement that cannot be read: {error}",
                    replicas[place].name
                )
            });
            assert_eq!(
                held.device, *device,
                "a statement is passed on as another device's"
            );
            let true_of_one = replicas
                .iter_mut()
                .filter(|replica| replica.device == *device)
                .any(|replica| has_durably(replica, &held.entries));
            assert!(
                true_of_one,
                "{} passes on a statement of entries that no disk of its device holds",
                replicas[place].name
            );
        }
        Message::Grants { .. }
        | Message::Entries(_)
        | Message::NeedGrants { .. }
        | Message::Ranges(_)
        | Message::NeedRanges { .. }
        | Message::Range { .. }
        | Message::Attestations(_)
        | Message::Again { .. }
        | Message::Bye { .. } => {}
    }
}

/// Checks a replica's own newest statement against its disk, if it is new.
pub fn check_statement(replica: &mut Replica) {
    let Some(node) = &replica.node else { return };
    let Some((held, bytes)) = &node.core.state().own_held else {
        return;
    };
    // Until a moment after a change, the last statement may lag behind; what it says when the core is content with it
    // must be true, and a new one at once.
    let mark = (bytes.clone(), replica.disk.syncs());
    let stated = &replica.durably.stated;
    let same = mark.0 == stated.0 || stated.0.is_empty();
    // Who is out, or has no key to say it under, can say nothing.
    let state = node.core.state();
    let mute = state.is_out() || state.sealing_epoch().is_none();
    if ((node.core.held_is_stale() || mute) && same) || mark == *stated {
        return;
    }
    let held = held.clone();
    replica.durably.stated = mark;
    assert!(
        has_durably(replica, &held.entries),
        "{} states entries that its disk does not hold",
        replica.name
    );
    let missing = missing_bytes(&durable(replica), &replica.bytes, &held.chunks)
        .unwrap_or_else(|error| panic!("{}: {error}", replica.name));
    if held.more_missing == 0 {
        for id in &missing {
            assert!(
                held.exceptions.contains(&id.to_string()),
                "{} states that it holds the bytes of {id}, and does not: {held:?}",
                replica.name
            );
        }
    } else {
        let counted = held.exceptions.len() as u64 + held.more_missing;
        assert!(
            counted >= missing.len() as u64,
            "{} counts {counted} files without bytes and lacks {}",
            replica.name,
            missing.len()
        );
    }
}

/// Files that are shown outside of the trash, have a content that `upto` covers, and whose bytes are not all here.
fn missing_bytes(
    database: &Database,
    bytes: &BTreeSet<(FileId, [u8; 32])>,
    upto: &Clock,
) -> Result<Vec<FileId>, StoreError> {
    let tree = read_tree(database)?;
    let read = database.begin_read()?;
    let placement = read.open_table(tables::PLACEMENT)?;
    let mut missing = Vec::new();
    for (id, state) in file_rows(database)? {
        let Some(content) = &state.content else {
            continue;
        };
        let covered = upto
            .iter()
            .any(|(writer, seq, _)| writer.actor() == content.dot.writer && seq >= content.dot.seq);
        // One that is shown as another and lies in the trash itself adds nothing to what the other holds.
        let unseen = tree
            .shown(id)
            .is_some_and(|shown| shown.trashed || (shown.same_as.is_some() && state.is_in_trash()));
        if !covered || unseen {
            continue;
        }
        let here = match &content.root {
            ChunkRoot::Indirect { .. } => bytes.contains(&(id, content.hash)),
            ChunkRoot::Inline(list) => {
                let mut all = true;
                for chunk in &list.chunks {
                    all &= placement.get(&chunk.blob)?.is_some();
                }
                all
            }
        };
        if !here {
            missing.push(id);
        }
    }
    Ok(missing)
}
