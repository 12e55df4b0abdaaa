//! What a simulated node has on its disk: stand-ins for entries and grants.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::codec;
use crate::identity::{DeviceId, Hash, WriterId};
use crate::log::Clock;

/// Stands for an entry; `writer` and `seq` are what the shell reads from its header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) writer: WriterId,
    pub(super) seq: u64,
    pub(super) prev: Hash,
    pub(super) salt: u64,
}

impl Entry {
    pub(super) fn hash(&self) -> Hash {
        Hash(*blake3::hash(&codec::encode(self)).as_bytes())
    }
}

/// Stands for a grant that admits one device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Grant {
    pub(super) parents: Vec<Hash>,
    pub(super) admits: DeviceId,
}

impl Grant {
    pub(super) fn hash(&self) -> Hash {
        Hash(*blake3::hash(&codec::encode(self)).as_bytes())
    }
}

/// What survives a crash.
#[derive(Default)]
pub(super) struct Disk {
    /// Each entry with its hash.
    pub(super) logs: BTreeMap<WriterId, Vec<(Entry, Hash)>>,
    pub(super) grants: BTreeMap<Hash, Grant>,
    pub(super) held: BTreeMap<DeviceId, Vec<u8>>,
}

impl Disk {
    pub(super) fn clock(&self) -> Clock {
        let mut clock = Clock::new();
        for (writer, log) in &self.logs {
            if let Some((last, hash)) = log.last() {
                clock.observe(*writer, last.seq, *hash);
            }
        }
        clock
    }

    pub(super) fn heads(&self) -> Vec<Hash> {
        let parents: BTreeSet<Hash> = self
            .grants
            .values()
            .flat_map(|grant| grant.parents.iter().copied())
            .collect();
        self.grants
            .keys()
            .filter(|id| !parents.contains(id))
            .copied()
            .collect()
    }

    pub(super) fn admits(&self, device: DeviceId) -> bool {
        self.grants.values().any(|grant| grant.admits == device)
    }

    /// Grants that someone with `heads` lacks, parents first.
    pub(super) fn missing(&self, heads: &[Hash]) -> Vec<Vec<u8>> {
        let mut known = BTreeSet::new();
        let mut walk: Vec<Hash> = heads.to_vec();
        while let Some(id) = walk.pop() {
            if let Some(grant) = self.grants.get(&id)
                && known.insert(id)
            {
                walk.extend(&grant.parents);
            }
        }
        let mut order = Vec::new();
        while let Some(grant) = self.grants.values().find(|grant| {
            !known.contains(&grant.hash()) && grant.parents.iter().all(|p| known.contains(p))
        }) {
            known.insert(grant.hash());
            order.push(codec::encode(grant));
        }
        order
    }

    /// Whether `clock` claims nothing that is not here.
    pub(super) fn backs(&self, clock: &Clock) -> bool {
        clock.iter().all(|(writer, seq, hash)| {
            self.logs
                .get(writer)
                .and_then(|log| log.get(seq as usize - 1))
                .is_some_and(|(_, have)| *have == hash)
        })
    }
}
