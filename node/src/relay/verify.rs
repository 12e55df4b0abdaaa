//! What a host believes of entries that a device sends: nothing that it cannot check.
//!
//! An entry is taken if it is of this vault, of a writer whom the grants let write, of a space of the vault, signed by
//! that writer, body included, and the very next in its log. The body stays closed: the host has no key. Pure, so that it
//! runs beside the runtime.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use coffer_protocol::grants::Role;
use coffer_protocol::identity::{DeviceId, Hash, SpaceId, VaultId, WriterId};
use coffer_protocol::log::{Clock, Entry};
use coffer_protocol::replication::Rejection;

use super::store::NewEntry;

/// What entries are checked against.
pub struct Ground {
    /// The vault.
    pub vault: VaultId,
    /// Who is in it, and as what.
    pub roles: BTreeMap<DeviceId, Role>,
    /// Its spaces.
    pub spaces: BTreeSet<SpaceId>,
    /// What is durable here.
    pub clock: Clock,
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
        match check_one(ground, end, &entry) {
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

fn check_one(ground: &Ground, end: (u64, Hash), entry: &Entry) -> Result<(), Rejection> {
    let header = &entry.header;
    let role = ground.roles.get(&header.writer.device);
    if !role.is_some_and(|role| role.writes()) || !ground.spaces.contains(&header.space) {
        return Err(Rejection::UnknownWriter);
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
