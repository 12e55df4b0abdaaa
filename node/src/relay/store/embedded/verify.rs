//! Blobs whose bytes the disk has damaged or lost: found by reading them again, and forgotten.
//!
//! A place that was read is named once more in the transaction that forgets it: as no pack's number is used again, a blob
//! that was moved or put anew meanwhile has another place, and stays.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use coffer_protocol::blobs::is_blob;
use coffer_protocol::identity::{Hash, VaultId};
use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use super::super::StoreError;
use super::blobs::{blob_key, forget_in_pack};
use super::rows::{self, Place, VaultRow};
use super::tables::{self, all_of};
use super::writer::Writer;
use super::{Inner, vaults};

/// Reads blobs again, and forgets those that are not whole. Blocks for the disk.
pub fn verify(
    inner: &Inner,
    writer: &Writer,
    vault: VaultId,
    ids: &[Hash],
) -> Result<Vec<Hash>, StoreError> {
    let (number, places) = inner.shared.read(|read| places(read, vault, ids))?;
    let mut damaged = BTreeMap::new();
    for (id, place) in places {
        if inner.whole(number, &id, place)?.is_none() {
            damaged.insert(id, place);
        }
    }
    if damaged.is_empty() {
        return Ok(Vec::new());
    }
    writer.write_blocking(move |write| {
        let mut row = vaults::served(write, vault)?;
        if row.number != number {
            return Ok(Vec::new());
        }
        let gone = forget(write, &mut row, &damaged)?;
        vaults::keep(write, vault, &row)?;
        Ok(gone)
    })
}

fn places(
    read: &ReadTransaction,
    vault: VaultId,
    ids: &[Hash],
) -> Result<(u32, Vec<(Hash, Place)>), StoreError> {
    let number = vaults::number(read, vault)?;
    let table = read.open_table(tables::BLOBS)?;
    let mut found = Vec::new();
    for id in ids {
        if let Some(place) = table.get(&blob_key(number, id))? {
            found.push((*id, Place::decode(place.value())));
        }
    }
    Ok((number, found))
}

/// Forgets blobs that still lie where they were found damaged, and counts them no more in `row`, which the caller keeps.
pub fn forget(
    write: &WriteTransaction,
    row: &mut VaultRow,
    damaged: &BTreeMap<Hash, Place>,
) -> Result<Vec<Hash>, StoreError> {
    let mut table = write.open_table(tables::BLOBS)?;
    let mut released = write.open_table(tables::RELEASED)?;
    let mut packs = write.open_table(tables::PACKS)?;
    let mut gone = Vec::new();
    for (id, place) in damaged {
        let key = blob_key(row.number, id);
        let now = table.get(&key)?.map(|now| Place::decode(now.value()));
        if now != Some(*place) {
            continue;
        }
        table.remove(&key)?;
        released.remove(&key)?;
        forget_in_pack(&mut packs, row.number, *place)?;
        row.usage.remove_blob(place.len as usize);
        gone.push(*id);
    }
    Ok(gone)
}

/// What is used of a pack, in its order, by the rows that point into it.
pub fn used_of(
    table: &impl ReadableTable<&'static [u8; 36], &'static [u8; 12]>,
    number: u32,
    pack: u32,
) -> Result<Vec<(Hash, Place)>, StoreError> {
    let (first, last) = all_of::<36>(number);
    let mut used = Vec::new();
    for found in table.range::<&[u8; 36]>(&first..=&last)? {
        let (key, place) = found?;
        let place = Place::decode(place.value());
        if place.pack == pack {
            used.push((Hash(rows::array_at(key.value(), 4)), place));
        }
    }
    used.sort_unstable_by_key(|(_, place)| *place);
    Ok(used)
}

impl Inner {
    /// The bytes of a blob, if they can be had and are those of its id.
    pub(super) fn whole(
        &self,
        number: u32,
        id: &Hash,
        place: Place,
    ) -> Result<Option<Bytes>, StoreError> {
        match self
            .packs
            .read(number, place.pack, place.offset, place.len as usize)
        {
            Ok(bytes) => Ok(is_blob(id, &bytes).then_some(bytes)),
            Err(error) if is_lost(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether an error of reading says that the bytes are gone, and not that they cannot be read now.
fn is_lost(error: &io::Error) -> bool {
    let unreadable = rustix::io::Errno::IO.raw_os_error();
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof
    ) || error.raw_os_error() == Some(unreadable)
}
