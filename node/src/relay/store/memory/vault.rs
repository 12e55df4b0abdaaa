//! One vault of the model: what is kept of it, and what each operation does to that.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use coffer_protocol::blobs::is_blob;
use coffer_protocol::identity::{DeviceId, Hash, VaultId, WriterId};
use coffer_protocol::log::Clock;
use coffer_protocol::ranges::Head;

use super::super::logs::{Place, overlap, place_of};
use super::super::{
    Appended, Freed, HeldStatement, KeptRange, MAX_WRITERS, NewEntry, NewRange, Put, Released,
    StoreError, StoredEntry, Usage, VaultRecord, bounds, charge,
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
    pub logs: BTreeMap<WriterId, Log>,
    pub held: BTreeMap<DeviceId, HeldStatement>,
    pub counter: u64,
    pub statement: Option<Bytes>,
    pub blobs: BTreeMap<Hash, Kept>,
}

/// A log.
#[derive(Clone, Default)]
pub(super) struct Log {
    end: Option<(u64, Hash)>,
    entries: BTreeMap<u64, (Hash, Bytes)>,
    /// By last entry.
    pub ranges: BTreeMap<u64, RangeKept>,
}

/// A range, and what was said of it.
#[derive(Clone)]
pub(super) struct RangeKept {
    head: Head,
    pub bytes: Bytes,
    alone: bool,
    pub said: BTreeMap<DeviceId, Bytes>,
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
            .filter_map(|(writer, log)| Some((*writer, log.end?)))
            .collect()
    }

    pub fn append(&mut self, entry: NewEntry) -> Appended {
        let log = self.logs.get(&entry.writer);
        let end = log.and_then(|log| log.end);
        let last = end.map_or(0, |(seq, _)| seq);
        if (1..=last).contains(&entry.seq) {
            let ours = log.and_then(|log| log.entries.get(&entry.seq));
            return match ours {
                Some((ours, _)) if *ours != entry.header => Appended::Forked {
                    seq: entry.seq,
                    ours: *ours,
                },
                _ => Appended::Had,
            };
        }
        if entry.seq != last + 1 {
            return Appended::Gap { last };
        }
        if let Some((seq, ours)) = end.filter(|(_, ours)| *ours != entry.prev) {
            return Appended::Forked { seq, ours };
        }
        if end.is_none() && self.logs.len() >= MAX_WRITERS {
            return Appended::TooManyWriters;
        }
        if !self.usage.fits_entry(entry.bytes.len(), self.quota) {
            return Appended::Full;
        }
        self.usage.add_entry(entry.bytes.len());
        let log = self.logs.entry(entry.writer).or_default();
        log.end = Some((entry.seq, entry.header));
        log.entries.insert(entry.seq, (entry.header, entry.bytes));
        Appended::Stored
    }

    pub fn put_range(
        &mut self,
        NewRange { head, bytes }: NewRange,
    ) -> Result<Appended, StoreError> {
        let begun = self.logs.contains_key(&head.writer);
        if !begun && self.logs.len() >= MAX_WRITERS {
            return Ok(Appended::TooManyWriters);
        }
        let mut log = self.logs.get(&head.writer).cloned().unwrap_or_default();
        let stretch = (head.from, head.to);
        let overlaps = |range: &RangeKept| overlap((range.head.from, range.head.to), stretch);
        let others = log.ranges.values().filter(|range| overlaps(range));
        let others: Vec<bool> = others.map(|range| range.alone).collect();
        let header_at = |seq: u64| Ok(log.entries.get(&seq).map(|(header, _)| *header));
        let place = place_of(&head, log.end, others, header_at)?;
        if let Place::Refused(why) = place {
            return Ok(why);
        }
        if !self.usage.fits_entry(bytes.len(), self.quota) {
            return Ok(Appended::Full);
        }
        let usage = &mut self.usage;
        log.ranges.retain(|_, range| {
            let goes = overlaps(range);
            if goes {
                usage.remove_entry(range.bytes.len());
            }
            !goes
        });
        usage.add_entry(bytes.len());
        let alone = place == Place::After;
        if alone {
            log.end = Some((head.to, head.last));
        }
        let (writer, to) = (head.writer, head.to);
        let said = BTreeMap::new();
        let range = RangeKept {
            head,
            bytes,
            alone,
            said,
        };
        log.ranges.insert(to, range);
        self.logs.insert(writer, log);
        Ok(Appended::Stored)
    }

    pub fn drop_entries(&mut self, writer: &WriterId, to: u64) -> u64 {
        let Some(log) = self.logs.get_mut(writer) else {
            return 0;
        };
        let Some(range) = log.ranges.get_mut(&to).filter(|range| !range.alone) else {
            return 0;
        };
        range.alone = true;
        let before = self.usage.entry_bytes;
        for seq in range.head.from..=to {
            if let Some((_, bytes)) = log.entries.remove(&seq) {
                self.usage.remove_entry(bytes.len());
            }
        }
        before - self.usage.entry_bytes
    }

    pub fn ranges(&self) -> Vec<KeptRange> {
        let all = self.logs.values().flat_map(|log| log.ranges.values());
        all.map(|range| KeptRange {
            head: range.head.clone(),
            alone: range.alone,
            said: range.said.clone().into_iter().collect(),
        })
        .collect()
    }

    pub fn entries(
        &self,
        writer: &WriterId,
        from: u64,
        to: u64,
        max_bytes: usize,
    ) -> Vec<StoredEntry> {
        let mut room = bounds::Room::new(max_bytes);
        let Some(log) = self.logs.get(writer).filter(|_| from <= to) else {
            return Vec::new();
        };
        let from = from.max(1);
        (from..=to)
            .map_while(|seq| Some((seq, &log.entries.get(&seq)?.1)))
            .take_while(|(_, bytes)| room.takes(bytes.len()))
            .map(|(seq, bytes)| StoredEntry {
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
