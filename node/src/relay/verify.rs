//! What a host believes of entries that a device sends: nothing that it cannot check.
//!
//! An entry is taken if it is of this vault, of a writer whom the grants let write, of a space of the vault, signed by
//! that writer, body included, and the very next in its log. The body stays closed: the host has no key. Pure, so that it
//! runs beside the runtime.
//!
//! Of a log that grants have closed, what is within the cutoff is taken. What is beyond counts only by what is said inside
//! of bodies, so it is taken from other devices of the vault alone, who pass on only what they took in themselves, and
//! from a reader itself only what is no longer than saying what it has seen.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use coffer_protocol::grants::{Membership, Writing};
use coffer_protocol::identity::{DeviceId, Hash, SpaceId, VaultId, WriterId};
use coffer_protocol::log::{CLOCK_MAX_LEN, Clock, Entry};
use coffer_protocol::replication::Rejection;

use super::store::NewEntry;

/// What entries are checked against.
pub struct Ground {
    /// The vault.
    pub vault: VaultId,
    /// Who sent them.
    pub from: DeviceId,
    /// What counts of each of the logs that they are of; nothing of those that are not here.
    pub writing: BTreeMap<WriterId, Writing>,
    /// Its spaces.
    pub spaces: BTreeSet<SpaceId>,
    /// What is durable here.
    pub clock: Clock,
}

/// Longest entry by which a reader says what it has seen: a clock, and what is around it.
const MAX_SAID: usize = CLOCK_MAX_LEN + 4096;

/// What counts of the logs that entries are of.
pub fn writing(membership: &Membership, entries: &[Vec<u8>]) -> BTreeMap<WriterId, Writing> {
    let headers = entries
        .iter()
        .filter_map(|bytes| Entry::decode_header(bytes).ok());
    let writers: BTreeSet<WriterId> = headers.map(|header| header.writer).collect();
    let may = |writer: &WriterId| {
        let role = membership.role(&writer.device);
        role.is_none_or(|role| role.holds_keys())
    };
    writers
        .into_iter()
        .filter(may)
        .map(|writer| (writer, membership.writing(&writer)))
        .collect()
}

/// What was found.
#[derive(Default)]
pub struct Checked {
    /// To be stored, in this order.
    pub good: Vec<NewEntry>,
    /// Why others were not taken; the first of each log.
    pub refused: Vec<Rejection>,
}

/// Checks the entries of one message. Those that are here already are passed over. After one that is refused, nothing
/// more of its log is taken; after one that cannot be read, nothing more at all.
pub fn check(ground: &Ground, entries: Vec<Vec<u8>>) -> Checked {
    let mut checked = Checked::default();
    let mut refused: BTreeSet<WriterId> = BTreeSet::new();
    let mut ends: BTreeMap<WriterId, (u64, Hash)> = BTreeMap::new();
    for bytes in entries {
        let Ok(entry) = Entry::decode(&bytes) else {
            checked.refused.push(Rejection::Invalid);
            break;
        };
        let writer = entry.header.writer;
        let end = ends
            .get(&writer)
            .copied()
            .or_else(|| ground.clock.get(&writer))
            .unwrap_or((0, Hash::ZERO));
        if refused.contains(&writer) || entry.header.seq <= end.0 {
            continue;
        }
        match check_one(ground, end, &entry, bytes.len()) {
            Ok(()) => {
                let header = entry.header_hash();
                ends.insert(writer, (entry.header.seq, header));
                checked.good.push(NewEntry {
                    writer,
                    seq: entry.header.seq,
                    prev: entry.header.prev,
                    header,
                    bytes: Bytes::from(bytes),
                });
            }
            Err(why) => {
                refused.insert(writer);
                checked.refused.push(why);
            }
        }
    }
    checked
}

fn check_one(
    ground: &Ground,
    end: (u64, Hash),
    entry: &Entry,
    len: usize,
) -> Result<(), Rejection> {
    let header = &entry.header;
    let writing = ground.writing.get(&header.writer);
    if !ground.spaces.contains(&header.space) {
        return Err(Rejection::UnknownWriter);
    }
    match writing {
        None | Some(Writing::Unknown) => return Err(Rejection::UnknownWriter),
        Some(Writing::Open) => {}
        Some(Writing::Closed {
            upto,
            says_what_it_saw,
        }) => match upto {
            Some((last, _)) if header.seq < *last => {}
            Some((last, ours)) if header.seq == *last => {
                let theirs = entry.header_hash();
                if *ours != theirs {
                    return Err(Rejection::Forked {
                        writer: header.writer,
                        seq: *last,
                        ours: *ours,
                        theirs,
                    });
                }
            }
            _ if ground.from != header.writer.device => {}
            _ if *says_what_it_saw && len <= MAX_SAID => {}
            _ => return Err(Rejection::NotYet),
        },
    }
    // The signature first: what an unsigned header says of its place means nothing.
    if entry.verify(&ground.vault).is_err() {
        return Err(Rejection::Invalid);
    }
    if header.seq > end.0 + 1 {
        return Err(Rejection::Gap);
    }
    if header.prev != end.1 {
        return Err(Rejection::Forked {
            writer: header.writer,
            seq: end.0,
            ours: end.1,
            theirs: header.prev,
        });
    }
    Ok(())
}
