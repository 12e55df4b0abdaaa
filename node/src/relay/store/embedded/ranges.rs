//! Ranges, and what was said of them.

use bytes::Bytes;
use coffer_protocol::identity::{DeviceId, Hash, VaultId, WriterId};
use coffer_protocol::ranges::{Head, Range};
use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use super::super::logs::{Place, place_of};
use super::super::{Appended, KeptRange, MAX_WRITERS, NewRange, StoreError};
use super::entries::{decode_head, entry_key, head_key, header};
use super::rows::{self, array_at};
use super::tables::{self, all_of, key};
use super::vaults;
use crate::store::pieces;

/// A row of [`tables::RANGE_HEADS`]: whether the range is alone, and its head.
fn decode_row(row: &[u8]) -> Result<(bool, Head), StoreError> {
    let damaged = || rows::damaged("range heads");
    let (alone, head) = row.split_first().ok_or_else(damaged)?;
    let head = Range::decode_head(head).map_err(|_| damaged())?;
    Ok((*alone == 1, head))
}

fn encode_row(alone: bool, head: &Head) -> Vec<u8> {
    let mut row = vec![u8::from(alone)];
    row.extend(coffer_protocol::codec::encode(head));
    row
}

pub fn put(
    write: &WriteTransaction,
    vault: VaultId,
    range: &NewRange,
) -> Result<Appended, StoreError> {
    let mut row = vaults::served(write, vault)?;
    let (head, number) = (&range.head, row.number);
    let mut ends = write.open_table(tables::HEADS)?;
    let mut heads = write.open_table(tables::RANGE_HEADS)?;
    let mut ranges = write.open_table(tables::RANGES)?;
    let end = ends.get(&head_key(number, &head.writer))?;
    let end = end.map(|end| decode_head(end.value()));
    if end.is_none() {
        let (first, last) = all_of::<40>(number);
        if ends.range::<&[u8; 40]>(&first..=&last)?.count() >= MAX_WRITERS {
            return Ok(Appended::TooManyWriters);
        }
    }
    let mut others = Vec::new();
    let (first, last) = (
        range_head_key(number, &head.writer, head.from),
        range_head_key(number, &head.writer, u64::MAX),
    );
    for found in heads.range::<&[u8; 48]>(&first..=&last)? {
        let (alone, other) = decode_row(found?.1.value())?;
        if other.from > head.to {
            break;
        }
        others.push((alone, other.to));
    }
    let entries = write.open_table(tables::ENTRIES)?;
    let place = place_of(head, end, others.iter().map(|(alone, _)| *alone), |seq| {
        let entry = entries.get(&entry_key(number, &head.writer, seq))?;
        entry
            .map(|entry| header(entry.value()).map(Hash))
            .transpose()
    })?;
    if let Place::Refused(why) = place {
        return Ok(why);
    }
    if !row.usage.fits_entry(range.bytes.len(), row.quota) {
        return Ok(Appended::Full);
    }
    for (_, to) in others {
        let place = range_key(number, &head.writer, to);
        let gone = pieces::read(&ranges, &place)?.unwrap_or_default();
        row.usage.remove_entry(gone.len());
        pieces::remove(&mut ranges, &place)?;
        heads.remove(&range_head_key(number, &head.writer, to))?;
        let (first, last) = around(number, &head.writer, to);
        let mut said = write.open_table(tables::SAID)?;
        said.retain_in::<&[u8; 80], _>(&first..=&last, |_, _| false)?;
    }
    row.usage.add_entry(range.bytes.len());
    pieces::write(
        &mut ranges,
        &range_key(number, &head.writer, head.to),
        &range.bytes,
    )?;
    let alone = place == Place::After;
    heads.insert(
        &range_head_key(number, &head.writer, head.to),
        &encode_row(alone, head)[..],
    )?;
    if alone {
        let value = key(&[&head.to.to_be_bytes(), &head.last.0]);
        ends.insert(&head_key(number, &head.writer), &value)?;
    }
    vaults::keep(write, vault, &row)?;
    Ok(Appended::Stored)
}

pub fn drop_entries(
    write: &WriteTransaction,
    vault: VaultId,
    writer: WriterId,
    to: u64,
) -> Result<u64, StoreError> {
    let mut row = vaults::served(write, vault)?;
    let mut heads = write.open_table(tables::RANGE_HEADS)?;
    let place = range_head_key(row.number, &writer, to);
    let Some((alone, head)) = heads
        .get(&place)?
        .map(|found| decode_row(found.value()))
        .transpose()?
    else {
        return Ok(0);
    };
    if alone {
        return Ok(0);
    }
    let before = row.usage.entry_bytes;
    let mut entries = write.open_table(tables::ENTRIES)?;
    for seq in head.from..=to {
        let at = entry_key(row.number, &writer, seq);
        if let Some(value) = pieces::read(&entries, &at)? {
            row.usage
                .remove_entry(value.len().saturating_sub(Hash::LEN));
            pieces::remove(&mut entries, &at)?;
        }
    }
    heads.insert(&place, &encode_row(true, &head)[..])?;
    vaults::keep(write, vault, &row)?;
    Ok(before - row.usage.entry_bytes)
}

pub fn put_said(
    write: &WriteTransaction,
    vault: VaultId,
    (writer, to): (WriterId, u64),
    device: DeviceId,
    said: &[u8],
) -> Result<(), StoreError> {
    let number = vaults::served(write, vault)?.number;
    let heads = write.open_table(tables::RANGE_HEADS)?;
    if heads.get(&range_head_key(number, &writer, to))?.is_some() {
        let mut table = write.open_table(tables::SAID)?;
        table.insert(&said_key(number, &writer, to, &device), said)?;
    }
    Ok(())
}

pub fn all(read: &ReadTransaction, vault: VaultId) -> Result<Vec<KeptRange>, StoreError> {
    let number = vaults::number(read, vault)?;
    let (first, last) = all_of::<48>(number);
    let heads = read.open_table(tables::RANGE_HEADS)?;
    let table = read.open_table(tables::SAID)?;
    let mut ranges = Vec::new();
    for found in heads.range::<&[u8; 48]>(&first..=&last)? {
        let (alone, head) = decode_row(found?.1.value())?;
        let (first, last) = around(number, &head.writer, head.to);
        let mut said = Vec::new();
        for found in table.range::<&[u8; 80]>(&first..=&last)? {
            let (key, value) = found?;
            let device = DeviceId(array_at(key.value(), 48));
            said.push((device, Bytes::copy_from_slice(value.value())));
        }
        ranges.push(KeptRange { head, alone, said });
    }
    Ok(ranges)
}

pub fn range(
    read: &ReadTransaction,
    vault: VaultId,
    writer: WriterId,
    to: u64,
) -> Result<Option<Bytes>, StoreError> {
    let number = vaults::number(read, vault)?;
    let table = read.open_table(tables::RANGES)?;
    let found = pieces::read(&table, &range_key(number, &writer, to))?;
    Ok(found.map(Bytes::from))
}

fn range_head_key(number: u32, writer: &WriterId, to: u64) -> [u8; 48] {
    key(&[
        &number.to_be_bytes(),
        &writer.device.0,
        &writer.incarnation.to_be_bytes(),
        &to.to_be_bytes(),
    ])
}

fn range_key(number: u32, writer: &WriterId, to: u64) -> [u8; 50] {
    key(&[&range_head_key(number, writer, to)])
}

fn said_key(number: u32, writer: &WriterId, to: u64, device: &DeviceId) -> [u8; 80] {
    key(&[&range_head_key(number, writer, to), &device.0])
}

fn around(number: u32, writer: &WriterId, to: u64) -> ([u8; 80], [u8; 80]) {
    (
        said_key(number, writer, to, &DeviceId([0; 32])),
        said_key(number, writer, to, &DeviceId([0xff; 32])),
    )
}
