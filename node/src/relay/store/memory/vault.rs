//! One vault of the model: what is kept of it, and what each operation does to that.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use coffer_protocol::blobs::is_blob;
use coffer_protocol::identity::{DeviceId, Hash, VaultId, WriterId};
use coffer_protocol::log::Clock;

use super::super::{
    Appended, Freed, HeldStatement, MAX_WRITERS, NewEntry, Put, Released, StoreError, StoredEntry,
    Usage, VaultRecord, bounds, charge,
};

#[derive(Clone)]
pub(super) struct Vault {
    pub epoch: [u8; 16],
    pub quota: u64,
    pub added_ms: u64,
    pub usage: Usage,
    pub members: BTreeSet<DeviceId>,
    pub seen: BTreeMap<DeviceId, u64>,
    pub grants: Vec<(Hash, Bytes)>,
    pub logs: BTreeMap<WriterId, Vec<(Hash, Bytes)>>,
    pub held: BTreeMap<DeviceId, HeldStatement>,
    pub counter: u64,
    pub statement: Option<Bytes>,
    pub blobs: BTreeMap<Hash, Kept>,
}

/// A blob, and who released it when.
#[derive(Clone)]
pub(super) struct Kept {
    pub bytes: Bytes,
    /// How much it was when it came, which is what counts.
    pub len: usize,
    pub released: BTreeMap<DeviceId, u64>,
}

impl Kept {
    fn released_by(&self) -> Vec<(DeviceId, u64)> {
        self.released.iter().map(|(by, at)| (*by, *at)).collect()
    }
}

impl Vault {
    /// One that begins to be served.
    pub fn new(epoch: [u8; 16], added_ms: u64) -> Vault {
        Vault {
            epoch,
            quota: 0,
            added_ms,
            usage: Usage::default(),
            members: BTreeSet::new(),
            seen: BTreeMap::new(),
            grants: Vec::new(),
            logs: BTreeMap::new(),
            held: BTreeMap::new(),
            counter: 0,
            statement: None,
            blobs: BTreeMap::new(),
        }
    }

    /// Another life begins.
    pub fn begin_anew(&mut self, epoch: [u8; 16], now_ms: u64) {
        self.epoch = epoch;
        self.statement = None;
        self.counter = self.counter.max(now_ms);
    }

    pub fn record(&self, vault: VaultId) -> VaultRecord {
        VaultRecord {
            vault,
            epoch: self.epoch,
            quota: self.quota,
            added_ms: self.added_ms,
            usage: self.usage,
            grants: self.grants.len() as u32,
        }
    }

    pub fn clock(&self) -> Clock {
        self.logs
            .iter()
            .filter_map(|(writer, log)| Some((*writer, (log.len() as u64, log.last()?.0))))
            .collect()
    }

    pub fn append(&mut self, entry: NewEntry) -> Appended {
        let log = self.logs.get(&entry.writer);
        let there = |seq: u64| -> Option<Hash> {
            let index = usize::try_from(seq.checked_sub(1)?).ok()?;
            log.and_then(|log| log.get(index)).map(|(hash, _)| *hash)
        };
        if let Some(ours) = there(entry.seq) {
            return match ours == entry.header {
                true => Appended::Had,
                false => Appended::Forked {
                    seq: entry.seq,
                    ours,
                },
            };
        }
        let last = log.map_or(0, |log| log.len() as u64);
        if entry.seq != last + 1 {
            return Appended::Gap { last };
        }
        if let Some(ours) = there(last).filter(|ours| *ours != entry.prev) {
            return Appended::Forked { seq: last, ours };
        }
        if log.is_none() && self.logs.len() >= MAX_WRITERS {
            return Appended::TooManyWriters;
        }
        if !self.usage.fits_entry(entry.bytes.len(), self.quota) {
            return Appended::Full;
        }
        self.usage.add_entry(entry.bytes.len());
        let log = self.logs.entry(entry.writer).or_default();
        log.push((entry.header, entry.bytes));
        Appended::Stored
    }

    pub fn entries(
        &self,
        writer: &WriterId,
        from: u64,
        to: u64,
        max_bytes: usize,
    ) -> Vec<StoredEntry> {
        let mut room = bounds::Room::new(max_bytes);
        let log = self.logs.get(writer).map_or(&[][..], Vec::as_slice);
        (1u64..)
            .zip(log)
            .filter(|(seq, _)| (from..=to).contains(seq))
            .take_while(|(_, (_, bytes))| room.takes(bytes.len()))
            .map(|(seq, (_, bytes))| StoredEntry {
                seq,
                bytes: bytes.clone(),
            })
            .collect()
    }

    pub fn put_grants(&mut self, grants: Vec<(Hash, Bytes)>) -> Result<usize, StoreError> {
        let mut known: BTreeSet<Hash> = self.grants.iter().map(|(id, _)| *id).collect();
        let new: Vec<_> = grants
            .into_iter()
            .filter(|(id, _)| known.insert(*id))
            .collect();
        let there = self.grants.iter().chain(&new).map(|(_, bytes)| bytes.len());
        bounds::all_grants(known.len(), there.sum())?;
        let count = new.len();
        self.grants.extend(new);
        Ok(count)
    }

    pub fn put_held(&mut self, statement: HeldStatement) -> Result<bool, StoreError> {
        match self.held.get(&statement.device) {
            Some(old) if old.counter >= statement.counter => return Ok(false),
            Some(_) => {}
            None => bounds::one_more_device(self.held.len())?,
        }
        self.held.insert(statement.device, statement);
        Ok(true)
    }

    pub fn state(&mut self, counter: u64, statement: Bytes) -> bool {
        let next = self.counter.checked_add(1) == Some(counter);
        if next {
            self.counter = counter;
            self.statement = Some(statement);
        }
        next
    }

    pub fn have(&mut self, ids: &[Hash], claim: bool) -> Vec<bool> {
        let look = |id| match self.blobs.get_mut(id) {
            Some(blob) => {
                if claim {
                    blob.released.clear();
                }
                true
            }
            None => false,
        };
        ids.iter().map(look).collect()
    }

    pub fn put(&mut self, id: Hash, bytes: Bytes) -> Put {
        if let Some(blob) = self.blobs.get_mut(&id) {
            blob.released.clear();
            return Put::Had;
        }
        let len = bytes.len();
        if !self.usage.fits_blob(len, self.quota) {
            return Put::Full;
        }
        self.usage.add_blob(len);
        let released = BTreeMap::new();
        let blob = Kept {
            bytes,
            len,
            released,
        };
        self.blobs.insert(id, blob);
        Put::Stored
    }

    pub fn verify(&mut self, ids: Vec<Hash>) -> Vec<Hash> {
        let mut gone = ids;
        gone.retain(|id| {
            let damaged = self.blobs.get(id);
            let damaged = damaged.is_some_and(|blob| !is_blob(id, &blob.bytes));
            if damaged {
                self.remove(id);
            }
            damaged
        });
        gone
    }

    fn remove(&mut self, id: &Hash) -> usize {
        let len = self.blobs.remove(id).map_or(0, |blob| blob.len);
        self.usage.remove_blob(len);
        len
    }

    pub fn release(
        &mut self,
        device: DeviceId,
        ids: &[Hash],
        now_ms: u64,
    ) -> Result<(), StoreError> {
        for blob in ids.iter().filter_map(|id| self.blobs.get(id)) {
            if !blob.released.contains_key(&device) {
                bounds::one_more_device(blob.released.len())?;
            }
        }
        for id in ids {
            if let Some(blob) = self.blobs.get_mut(id) {
                blob.released.entry(device).or_insert(now_ms);
            }
        }
        Ok(())
    }

    pub fn released(&self, after: Option<Hash>, max: usize) -> Vec<Released> {
        super::page(&self.blobs, after, usize::MAX)
            .filter(|(_, blob)| !blob.released.is_empty())
            .take(max)
            .map(|(id, blob)| Released {
                id: *id,
                by: blob.released_by(),
            })
            .collect()
    }

    pub fn free(&mut self, blobs: Vec<Released>) -> Freed {
        let mut freed = Freed::default();
        for Released { id, by } in blobs {
            let released = self.blobs.get(&id).map(Kept::released_by);
            if by.is_empty() || released.is_none_or(|now| now != by) {
                continue;
            }
            freed.blobs += 1;
            freed.bytes += charge(self.remove(&id));
        }
        freed
    }
}
