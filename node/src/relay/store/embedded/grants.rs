//! Grants, held statements and the host's own statement.

use std::collections::BTreeSet;

use bytes::Bytes;
use coffer_protocol::identity::{DeviceId, Hash, VaultId};
use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use super::super::{HeldStatement, StoreError, bounds};
use super::rows;
use super::tables::{self, all_of, key};
use super::vaults;
use crate::store::pieces;

pub fn put(
    write: &WriteTransaction,
    vault: VaultId,
    grants: Vec<(Hash, Bytes)>,
) -> Result<usize, StoreError> {
    let mut row = vaults::served(write, vault)?;
    let number = row.number.to_be_bytes();
    let mut ids = write.open_table(tables::GRANT_IDS)?;
    let mut new = Vec::new();
    let mut named = BTreeSet::new();
    for (id, bytes) in grants {
        if named.insert(id) && ids.get(&key(&[&number, &id.0]))?.is_none() {
            new.push((id, bytes));
        }
    }
    let bytes: usize = new.iter().map(|(_, bytes)| bytes.len()).sum();
    let there = usize::try_from(row.grant_bytes).unwrap_or(usize::MAX);
    bounds::all_grants(row.grants as usize + new.len(), there.saturating_add(bytes))?;
    if new.is_empty() {
        return Ok(0);
    }
    let mut table = write.open_table(tables::GRANTS)?;
    for (id, bytes) in &new {
        ids.insert(&key(&[&number, &id.0]), row.grants)?;
        pieces::write(
            &mut table,
            &key(&[&number, &row.grants.to_be_bytes()]),
            bytes,
        )?;
        row.grants += 1;
        row.grant_bytes += bytes.len() as u64;
    }
    vaults::keep(write, vault, &row)?;
    Ok(new.len())
}

pub fn all(read: &ReadTransaction, vault: VaultId) -> Result<Vec<Bytes>, StoreError> {
    let Some(row) = vaults::row(read, vault)? else {
        return Err(StoreError::NoVault(vault));
    };
    let grants = read.open_table(tables::GRANTS)?;
    (0..row.grants)
        .map(|order| {
            let key = key(&[&row.number.to_be_bytes(), &order.to_be_bytes()]);
            let bytes = pieces::read(&grants, &key)?;
            bytes
                .map(Bytes::from)
                .ok_or_else(|| rows::damaged("grants"))
        })
        .collect()
}

pub fn put_held(
    write: &WriteTransaction,
    vault: VaultId,
    statement: &HeldStatement,
) -> Result<bool, StoreError> {
    let number = vaults::served(write, vault)?.number;
    let mut held = write.open_table(tables::HELD)?;
    let key: [u8; 38] = key(&[&number.to_be_bytes(), &statement.device.0]);
    let last = held
        .get(&key)?
        .map(|row| counter(row.value()))
        .transpose()?;
    match last {
        Some(last) if last >= statement.counter => return Ok(false),
        Some(_) => {}
        None => {
            let (first, last) = all_of::<38>(number);
            let rows = held.range::<&[u8; 38]>(&first..=&last)?;
            let firsts = rows.filter(|row| {
                row.as_ref()
                    .is_ok_and(|(key, _)| key.value()[36..] == [0, 0])
            });
            bounds::one_more_device(firsts.count())?;
        }
    }
    pieces::remove(&mut held, &key)?;
    let row = [&statement.counter.to_be_bytes()[..], &statement.bytes].concat();
    pieces::write(&mut held, &key, &row)?;
    Ok(true)
}

pub fn held(read: &ReadTransaction, vault: VaultId) -> Result<Vec<HeldStatement>, StoreError> {
    let (first, last) = all_of::<38>(vaults::number(read, vault)?);
    let table = read.open_table(tables::HELD)?;
    let mut statements: Vec<HeldStatement> = Vec::new();
    for found in table.range::<&[u8; 38]>(&first..=&last)? {
        let key = *found?.0.value();
        if key[36..] != [0, 0] {
            continue;
        }
        let (counter, bytes) = split(pieces::read(&table, &key)?.unwrap_or_default())?;
        statements.push(HeldStatement {
            device: DeviceId(rows::array_at(&key, 4)),
            counter,
            bytes,
        });
    }
    Ok(statements)
}

/// The number of the last statement, and the statement if there is one in this life of the vault.
pub fn host_statement(
    read: &ReadTransaction,
    number: u32,
) -> Result<(u64, Option<Bytes>), StoreError> {
    let table = read.open_table(tables::STATEMENTS)?;
    match pieces::read(&table, &key(&[&number.to_be_bytes()]))? {
        Some(row) => {
            let (counter, bytes) = split(row)?;
            Ok((counter, (!bytes.is_empty()).then_some(bytes)))
        }
        None => Ok((0, None)),
    }
}

/// Has statements go on from above `counter`, with none that is kept.
pub fn begin_statements(
    write: &WriteTransaction,
    number: u32,
    counter: u64,
) -> Result<(), StoreError> {
    let mut table = write.open_table(tables::STATEMENTS)?;
    let key: [u8; 6] = key(&[&number.to_be_bytes()]);
    let last = match table.get(&key)? {
        Some(row) => self::counter(row.value())?,
        None => 0,
    };
    pieces::remove(&mut table, &key)?;
    pieces::write(&mut table, &key, &counter.max(last).to_be_bytes())?;
    Ok(())
}

pub fn put_host_statement(
    write: &WriteTransaction,
    vault: VaultId,
    counter: u64,
    statement: &[u8],
) -> Result<bool, StoreError> {
    let number = vaults::served(write, vault)?.number;
    let mut table = write.open_table(tables::STATEMENTS)?;
    let key: [u8; 6] = key(&[&number.to_be_bytes()]);
    let last = match table.get(&key)? {
        Some(row) => self::counter(row.value())?,
        None => 0,
    };
    if last.checked_add(1) != Some(counter) {
        return Ok(false);
    }
    pieces::remove(&mut table, &key)?;
    pieces::write(
        &mut table,
        &key,
        &[&counter.to_be_bytes()[..], statement].concat(),
    )?;
    Ok(true)
}

/// The counter in front of a statement.
fn counter(row: &[u8]) -> Result<u64, StoreError> {
    match row.first_chunk::<8>() {
        Some(counter) => Ok(u64::from_be_bytes(*counter)),
        None => Err(rows::damaged("statements")),
    }
}

fn split(row: Vec<u8>) -> Result<(u64, Bytes), StoreError> {
    let counter = counter(&row)?;
    Ok((counter, Bytes::from(row).slice(8..)))
}
