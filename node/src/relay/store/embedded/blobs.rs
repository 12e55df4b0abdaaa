//! Blobs: kept, found, read, released and freed.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound::{Excluded, Included};
use std::sync::Arc;

use bytes::Bytes;
use coffer_protocol::identity::{DeviceId, Hash, VaultId};
use futures::stream::{self, BoxStream, StreamExt};
use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use super::super::runs::{self, Run};
use super::super::{Blob, Freed, Put, Released, StoreError, bounds};
use super::packs::{self, HEADER};
use super::rows::{self, PackRow, Place};
use super::tables::{self, all_of, key};
use super::writer::Writer;
use super::{Inner, blocking, vaults};

/// Reads that are under way for one who takes many blobs.
const READS: usize = 2;

/// Keeps blobs. Runs in the vault's turn.
pub fn put(
    inner: &Inner,
    writer: &Writer,
    vault: VaultId,
    blobs: Vec<(Hash, Bytes)>,
) -> Result<Vec<Put>, StoreError> {
    let ids: Arc<[(Hash, usize)]> = blobs.iter().map(|(id, bytes)| (*id, bytes.len())).collect();
    loop {
        let plan = inner
            .shared
            .read(|read| plan_put(inner, read, vault, &blobs))?;
        let places = match plan.new.is_empty() {
            true => Vec::new(),
            false => {
                let new: Vec<_> = plan.new.iter().map(|at| blobs[*at].clone()).collect();
                inner.write_pack(plan.number, plan.pack, plan.row, &new)?
            }
        };
        let ids = Arc::clone(&ids);
        let outcomes =
            writer.write_blocking(move |write| commit_put(write, vault, &plan, &places, &ids))?;
        // `None` if one that was here has been freed meanwhile: it has to be written after all.
        if let Some(outcomes) = outcomes {
            return Ok(outcomes);
        }
    }
}

/// What a put writes, decided before anything is written.
struct PutPlan {
    number: u32,
    pack: u32,
    row: PackRow,
    /// Which of the blobs are written: they are not here and fit.
    new: Vec<usize>,
    /// Which were here.
    had: Vec<usize>,
}

fn plan_put(
    inner: &Inner,
    read: &ReadTransaction,
    vault: VaultId,
    blobs: &[(Hash, Bytes)],
) -> Result<PutPlan, StoreError> {
    let Some(row) = vaults::row(read, vault)? else {
        return Err(StoreError::NoVault(vault));
    };
    let table = read.open_table(tables::BLOBS)?;
    let mut usage = row.usage;
    let mut new = BTreeMap::new();
    let mut had = Vec::new();
    for (at, (id, bytes)) in blobs.iter().enumerate() {
        if new.contains_key(id) {
            continue;
        }
        if table.get(&blob_key(row.number, id))?.is_some() {
            had.push(at);
        } else if usage.fits_blob(bytes.len(), row.quota) {
            usage.add_blob(bytes.len());
            new.insert(*id, at);
        }
    }
    let mut new: Vec<usize> = new.into_values().collect();
    new.sort_unstable();
    let bytes: usize = new.iter().map(|at| blobs[*at].1.len()).sum();
    let (pack, pack_row) = open_pack(inner, read, row.number, row.next_pack, bytes, new.len())?;
    Ok(PutPlan {
        number: row.number,
        pack,
        row: pack_row,
        new,
        had,
    })
}

/// The pack to which `count` blobs of `bytes` in all are appended: the newest if they fit, else a new one. One of which the
/// disk has lost something is left as it is.
pub fn open_pack(
    inner: &Inner,
    read: &ReadTransaction,
    number: u32,
    next_pack: u32,
    bytes: usize,
    count: usize,
) -> Result<(u32, PackRow), StoreError> {
    let packs = read.open_table(tables::PACKS)?;
    if let Some(pack) = next_pack.checked_sub(1)
        && let Some(row) = packs.get(&pack_key(number, pack))?
    {
        let row = PackRow::decode(row.value());
        let len = row.len as usize + bytes + count * HEADER as usize;
        if len <= packs::FULL as usize && inner.packs.has(number, pack, row) {
            return Ok((pack, row));
        }
    }
    Ok((next_pack, PackRow::default()))
}

impl Inner {
    /// Writes blobs into a pack, durably, and gives their places.
    pub(super) fn write_pack(
        &self,
        number: u32,
        pack: u32,
        row: PackRow,
        blobs: &[(Hash, Bytes)],
    ) -> Result<Vec<Place>, StoreError> {
        let written = self.packs.append(number, pack, row, blobs)?;
        self.boundaries.at("before sync of a pack");
        written.sync()?;
        self.boundaries.at("after sync of a pack");
        Ok(written.places)
    }
}

fn commit_put(
    write: &WriteTransaction,
    vault: VaultId,
    plan: &PutPlan,
    places: &[Place],
    ids: &[(Hash, usize)],
) -> Result<Option<Vec<Put>>, StoreError> {
    let mut row = vaults::served(write, vault)?;
    if row.number != plan.number {
        return Err(StoreError::NoVault(vault));
    }
    let mut table = write.open_table(tables::BLOBS)?;
    for at in &plan.had {
        if table.get(&blob_key(row.number, &ids[*at].0))?.is_none() {
            return Ok(None);
        }
    }
    let mut released = write.open_table(tables::RELEASED)?;
    let written: BTreeMap<usize, Place> = plan
        .new
        .iter()
        .copied()
        .zip(places.iter().copied())
        .collect();
    let mut pack = plan.row;
    let mut outcomes = Vec::with_capacity(ids.len());
    for (at, (id, len)) in ids.iter().enumerate() {
        let key = blob_key(row.number, id);
        let is_here = table.get(&key)?.is_some();
        if is_here {
            released.remove(&key)?;
            outcomes.push(Put::Had);
            continue;
        }
        // Entries that came since the plan was made may have taken the room.
        let place = written.get(&at);
        let Some(place) = place.filter(|_| row.usage.fits_blob(*len, row.quota)) else {
            outcomes.push(Put::Full);
            continue;
        };
        table.insert(&key, &place.encode())?;
        row.usage.add_blob(*len);
        pack.len = place.end();
        pack.live += HEADER + place.len;
        outcomes.push(Put::Stored);
    }
    if pack != plan.row {
        row.next_pack = row.next_pack.max(plan.pack + 1);
        let mut packs = write.open_table(tables::PACKS)?;
        packs.insert(&pack_key(row.number, plan.pack), &pack.encode())?;
        vaults::keep(write, vault, &row)?;
    }
    Ok(Some(outcomes))
}

pub fn have(read: &ReadTransaction, vault: VaultId, ids: &[Hash]) -> Result<Vec<bool>, StoreError> {
    let number = vaults::number(read, vault)?;
    let table = read.open_table(tables::BLOBS)?;
    ids.iter()
        .map(|id| Ok(table.get(&blob_key(number, id))?.is_some()))
        .collect()
}

pub fn is_any_released(
    read: &ReadTransaction,
    vault: VaultId,
    ids: &[Hash],
) -> Result<bool, StoreError> {
    let number = vaults::number(read, vault)?;
    let table = read.open_table(tables::RELEASED)?;
    for id in ids {
        if table.get(&blob_key(number, id))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

pub fn claim(
    write: &WriteTransaction,
    vault: VaultId,
    ids: &[Hash],
) -> Result<Vec<bool>, StoreError> {
    let number = vaults::served(write, vault)?.number;
    let table = write.open_table(tables::BLOBS)?;
    let mut released = write.open_table(tables::RELEASED)?;
    ids.iter()
        .map(|id| {
            let key = blob_key(number, id);
            released.remove(&key)?;
            Ok(table.get(&key)?.is_some())
        })
        .collect()
}

pub fn list(
    read: &ReadTransaction,
    vault: VaultId,
    after: Option<Hash>,
    max: usize,
) -> Result<Vec<Hash>, StoreError> {
    let number = vaults::number(read, vault)?;
    let table = read.open_table(tables::BLOBS)?;
    let (from, to) = above(number, after);
    table
        .range::<&[u8; 36]>((from.as_ref(), Included(&to)))?
        .take(bounds::page(max))
        .map(|found| Ok(Hash(rows::array_at(found?.0.value(), 4))))
        .collect()
}

pub fn release(
    write: &WriteTransaction,
    vault: VaultId,
    device: DeviceId,
    ids: &[Hash],
    now_ms: u64,
) -> Result<(), StoreError> {
    let number = vaults::served(write, vault)?.number;
    let table = write.open_table(tables::BLOBS)?;
    let mut released = write.open_table(tables::RELEASED)?;
    let mut changed = BTreeMap::new();
    for id in ids {
        let key = blob_key(number, id);
        if table.get(&key)?.is_none() {
            continue;
        }
        let mut by = match released.get(&key)? {
            Some(row) => rows::decode_released(row.value())?,
            None => Vec::new(),
        };
        if let Err(at) = by.binary_search_by_key(&device, |(device, _)| *device) {
            bounds::one_more_device(by.len())?;
            by.insert(at, (device, now_ms));
            changed.insert(key, rows::encode_released(&by));
        }
    }
    for (key, row) in changed {
        released.insert(&key, &row[..])?;
    }
    Ok(())
}

pub fn released(
    read: &ReadTransaction,
    vault: VaultId,
    after: Option<Hash>,
    max: usize,
) -> Result<Vec<Released>, StoreError> {
    let number = vaults::number(read, vault)?;
    let table = read.open_table(tables::RELEASED)?;
    let (from, to) = above(number, after);
    table
        .range::<&[u8; 36]>((from.as_ref(), Included(&to)))?
        .take(bounds::page(max))
        .map(|found| {
            let (key, row) = found?;
            Ok(Released {
                id: Hash(rows::array_at(key.value(), 4)),
                by: rows::decode_released(row.value())?,
            })
        })
        .collect()
}

pub fn free(
    write: &WriteTransaction,
    vault: VaultId,
    blobs: Vec<Released>,
) -> Result<Freed, StoreError> {
    let mut row = vaults::served(write, vault)?;
    let before = row.usage;
    let mut table = write.open_table(tables::BLOBS)?;
    let mut released = write.open_table(tables::RELEASED)?;
    let mut packs = write.open_table(tables::PACKS)?;
    let mut freed = Freed::default();
    for Released { id, by } in blobs {
        let key = blob_key(row.number, &id);
        let now = match released.get(&key)? {
            Some(now) => rows::decode_released(now.value())?,
            None => continue,
        };
        if now != by {
            continue;
        }
        released.remove(&key)?;
        let Some(place) = table
            .remove(&key)?
            .map(|place| Place::decode(place.value()))
        else {
            continue;
        };
        forget_in_pack(&mut packs, row.number, place)?;
        row.usage.remove_blob(place.len as usize);
        freed.blobs += 1;
    }
    freed.bytes = before.blob_bytes - row.usage.blob_bytes;
    if row.usage != before {
        vaults::keep(write, vault, &row)?;
    }
    Ok(freed)
}

/// Counts a place of a pack as used no more.
pub fn forget_in_pack(
    packs: &mut redb::Table<'_, &'static [u8; 8], &'static [u8; 8]>,
    number: u32,
    place: Place,
) -> Result<(), StoreError> {
    let key = pack_key(number, place.pack);
    let row = packs.get(&key)?.map(|row| PackRow::decode(row.value()));
    if let Some(mut row) = row {
        row.live = row.live.saturating_sub(HEADER + place.len);
        packs.insert(&key, &row.encode())?;
    }
    Ok(())
}

pub fn range(
    inner: &Inner,
    vault: VaultId,
    id: Hash,
    offset: u64,
    len: u32,
) -> Result<Option<Bytes>, StoreError> {
    inner.retry(|| {
        let found = inner.shared.read(|read| find(read, vault, &id));
        let Some((number, place)) = found? else {
            return Ok(None);
        };
        let part = bounds::part(u64::from(place.len), offset, len);
        let at = place.offset + part.start as u32;
        let len = (part.end - part.start) as usize;
        Ok(Some(inner.packs.read(number, place.pack, at, len)))
    })
}

fn find(
    read: &ReadTransaction,
    vault: VaultId,
    id: &Hash,
) -> Result<Option<(u32, Place)>, StoreError> {
    let number = vaults::number(read, vault)?;
    let table = read.open_table(tables::BLOBS)?;
    let place = table.get(&blob_key(number, id))?;
    Ok(place.map(|place| (number, Place::decode(place.value()))))
}

impl Inner {
    /// Finds and reads; once more if the pack went between the two, because it was rewritten. `Ok(None)` if there is
    /// nothing to read.
    fn retry<T>(
        &self,
        mut attempt: impl FnMut() -> Result<Option<io::Result<T>>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        for _ in 0..3 {
            match attempt()? {
                None => return Ok(None),
                Some(Ok(done)) => return Ok(Some(done)),
                Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
                Some(Err(error)) => return Err(error.into()),
            }
        }
        Err(StoreError::Damaged("a pack is gone".into()))
    }
}

pub fn get(
    inner: Arc<Inner>,
    vault: VaultId,
    ids: Vec<Hash>,
) -> BoxStream<'static, Result<Blob, StoreError>> {
    let ids: Arc<[Hash]> = ids.into();
    let asked = Arc::clone(&ids);
    let planning = Arc::clone(&inner);
    let plan = async move {
        planning
            .read(move |read| plan_get(read, vault, &asked))
            .await
    };
    stream::once(plan)
        .flat_map(move |plan| {
            let (missing, runs) = match plan {
                Ok((number, missing, runs)) => (missing, Ok((number, runs))),
                Err(error) => (Vec::new(), Err(error)),
            };
            let (inner, ids) = (Arc::clone(&inner), Arc::clone(&ids));
            let found = match runs {
                Ok((number, runs)) => stream::iter(runs)
                    .map(move |run| {
                        read_run(Arc::clone(&inner), vault, number, run, Arc::clone(&ids))
                    })
                    .buffered(READS)
                    .flat_map(|read| match read {
                        Ok(blobs) => stream::iter(blobs).map(Ok).boxed(),
                        Err(error) => stream::iter([Err(error)]).boxed(),
                    })
                    .boxed(),
                Err(error) => stream::iter([Err(error)]).boxed(),
            };
            stream::iter(missing)
                .map(|index| Ok(Blob { index, bytes: None }))
                .chain(found)
        })
        .scan(false, |failed, blob| {
            let over = std::mem::replace(failed, blob.is_err());
            std::future::ready((!over).then_some(blob))
        })
        .boxed()
}

type GetPlan = (u32, Vec<usize>, Vec<Run>);

fn plan_get(read: &ReadTransaction, vault: VaultId, ids: &[Hash]) -> Result<GetPlan, StoreError> {
    let number = vaults::number(read, vault)?;
    let table = read.open_table(tables::BLOBS)?;
    let mut missing = Vec::new();
    let mut found = Vec::new();
    for (index, id) in ids.iter().enumerate() {
        match table.get(&blob_key(number, id))? {
            Some(place) => found.push((Place::decode(place.value()).whole(), index)),
            None => missing.push(index),
        }
    }
    Ok((number, missing, runs::plan(found)))
}

async fn read_run(
    inner: Arc<Inner>,
    vault: VaultId,
    number: u32,
    run: Run,
    ids: Arc<[Hash]>,
) -> Result<Vec<Blob>, StoreError> {
    blocking(move || {
        let pack = u32::try_from(run.pack()).map_err(|_| rows::damaged("blobs"))?;
        match inner.packs.read(number, pack, run.offset(), run.len()) {
            Ok(bytes) => Ok(run
                .blobs
                .into_iter()
                .map(|(index, part)| Blob {
                    index,
                    bytes: Some(bytes.slice(part)),
                })
                .collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let each = run.blobs.iter().map(|(index, _)| {
                    let bytes = range(&inner, vault, ids[*index], 0, u32::MAX)?;
                    Ok(Blob {
                        index: *index,
                        bytes,
                    })
                });
                each.collect()
            }
            Err(error) => Err(error.into()),
        }
    })
    .await
}

pub fn blob_key(number: u32, id: &Hash) -> [u8; 36] {
    key(&[&number.to_be_bytes(), &id.0])
}

pub fn pack_key(number: u32, pack: u32) -> [u8; 8] {
    key(&[&number.to_be_bytes(), &pack.to_be_bytes()])
}

/// The keys of a vault's blobs above `after`.
fn above(number: u32, after: Option<Hash>) -> (std::ops::Bound<[u8; 36]>, [u8; 36]) {
    let (first, last) = all_of::<36>(number);
    let from = match after {
        Some(id) => Excluded(blob_key(number, &id)),
        None => Included(first),
    };
    (from, last)
}
