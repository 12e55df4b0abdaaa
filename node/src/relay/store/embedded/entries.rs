//! Logs: their entries, and how far each goes.

use std::ops::RangeInclusive;

use bytes::Bytes;
use coffer_protocol::identity::{DeviceId, Hash, VaultId, WriterId};
use coffer_protocol::log::Clock;
use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use super::super::logs::Logs;
use super::super::{Appended, NewEntry, StoreError, StoredEntry, bounds};
use super::rows::{self, array_at, u32_at, u64_at};
use super::tables::{self, all_of, key};
use super::vaults;
use crate::store::pieces;

pub fn append(
    write: &WriteTransaction,
    vault: VaultId,
    entries: Vec<NewEntry>,
) -> Result<Vec<Appended>, StoreError> {
    let mut row = vaults::served(write, vault)?;
    let mut table = write.open_table(tables::ENTRIES)?;
    let mut heads = write.open_table(tables::HEADS)?;
    let (first, last) = all_of::<40>(row.number);
    let writers = heads.range::<&[u8; 40]>(&first..=&last)?.count();
    let mut logs = Logs::new(writers, row.usage, row.quota);
    let mut outcomes = Vec::with_capacity(entries.len());
    for entry in entries {
        if !logs.knows(&entry.writer) {
            let head = heads.get(&head_key(row.number, &entry.writer))?;
            logs.set(entry.writer, head.map(|head| decode_head(head.value())));
        }
        let at = entry_key(row.number, &entry.writer, entry.seq);
        let outcome = logs.next(&entry, |_| {
            let there = table.get(&at)?;
            there
                .map(|there| header(there.value()).map(Hash))
                .transpose()
        })?;
        if outcome == Appended::Stored {
            let value = [&entry.header.0[..], &entry.bytes].concat();
            pieces::write(&mut table, &at, &value)?;
        }
        outcomes.push(outcome);
    }
    if row.usage != logs.usage {
        for (writer, seq, header) in logs.ends() {
            let value = key(&[&seq.to_be_bytes(), &header.0]);
            heads.insert(&head_key(row.number, writer), &value)?;
        }
        row.usage = logs.usage;
        vaults::keep(write, vault, &row)?;
    }
    Ok(outcomes)
}

pub fn read(
    read: &ReadTransaction,
    vault: VaultId,
    writer: WriterId,
    seqs: RangeInclusive<u64>,
    max_bytes: usize,
) -> Result<Vec<StoredEntry>, StoreError> {
    let number = vaults::number(read, vault)?;
    let table = read.open_table(tables::ENTRIES)?;
    let mut room = bounds::Room::new(max_bytes);
    let mut entries = Vec::new();
    for seq in (*seqs.start()).max(1)..=*seqs.end() {
        let found = pieces::read(&table, &entry_key(number, &writer, seq))?;
        let Some(value) = found else { break };
        header(&value)?;
        let bytes = Bytes::from(value).slice(Hash::LEN..);
        if !room.takes(bytes.len()) {
            break;
        }
        entries.push(StoredEntry { seq, bytes });
    }
    Ok(entries)
}

pub fn clock(read: &ReadTransaction, number: u32) -> Result<Clock, StoreError> {
    let (first, last) = all_of::<40>(number);
    let heads = read.open_table(tables::HEADS)?;
    heads
        .range::<&[u8; 40]>(&first..=&last)?
        .map(|found| {
            let (key, head) = found?;
            let writer = WriterId {
                device: DeviceId(array_at(key.value(), 4)),
                incarnation: u32_at(key.value(), 36),
            };
            Ok((writer, decode_head(head.value())))
        })
        .collect()
}

pub(super) fn entry_key(number: u32, writer: &WriterId, seq: u64) -> [u8; 50] {
    key(&[
        &number.to_be_bytes(),
        &writer.device.0,
        &writer.incarnation.to_be_bytes(),
        &seq.to_be_bytes(),
    ])
}

pub(super) fn head_key(number: u32, writer: &WriterId) -> [u8; 40] {
    key(&[
        &number.to_be_bytes(),
        &writer.device.0,
        &writer.incarnation.to_be_bytes(),
    ])
}

pub(super) fn decode_head(head: &[u8; 40]) -> (u64, Hash) {
    (u64_at(head, 0), Hash(array_at(head, 8)))
}

/// The header hash in front of an entry.
pub(super) fn header(value: &[u8]) -> Result<[u8; 32], StoreError> {
    let header = value.first_chunk::<32>().copied();
    header.ok_or_else(|| rows::damaged("entries"))
}
