//! Invitations, vaults, their members and when those were here.

use bytes::Bytes;
use coffer_protocol::identity::{DeviceId, Hash, VaultId};
use redb::{ReadTransaction, ReadableTable, WriteTransaction};
use std::ops::Bound::{Excluded, Unbounded};

use super::super::{
    Consumed, Invitation, MAX_VAULTS_OF, StoreError, Totals, Usage, VaultRecord, bounds,
};
use super::grants;
use super::rows::{self, InvitationRow, VaultRow};
use super::tables::{self, all_of, key};

/// The row of a vault that is served.
pub fn row(read: &ReadTransaction, vault: VaultId) -> Result<Option<VaultRow>, StoreError> {
    let vaults = read.open_table(tables::VAULTS)?;
    let found = vaults.get(&vault.0)?;
    found
        .map(|row| rows::decode("vaults", row.value()))
        .transpose()
}

/// The number of a vault that is served.
pub fn number(read: &ReadTransaction, vault: VaultId) -> Result<u32, StoreError> {
    match row(read, vault)? {
        Some(row) => Ok(row.number),
        None => Err(StoreError::NoVault(vault)),
    }
}

/// The row of a vault that is served, to be changed.
pub fn served(write: &WriteTransaction, vault: VaultId) -> Result<VaultRow, StoreError> {
    let vaults = write.open_table(tables::VAULTS)?;
    match vaults.get(&vault.0)? {
        Some(row) => rows::decode("vaults", row.value()),
        None => Err(StoreError::NoVault(vault)),
    }
}

/// Writes the row of a vault.
pub fn keep(write: &WriteTransaction, vault: VaultId, row: &VaultRow) -> Result<(), StoreError> {
    let mut vaults = write.open_table(tables::VAULTS)?;
    vaults.insert(&vault.0, &rows::encode(row)?[..])?;
    Ok(())
}

pub fn page(
    read: &ReadTransaction,
    after: Option<VaultId>,
    max: usize,
) -> Result<Vec<VaultRecord>, StoreError> {
    let vaults = read.open_table(tables::VAULTS)?;
    let from = after.as_ref().map_or(Unbounded, |id| Excluded(&id.0));
    vaults
        .range::<&[u8; 32]>((from, Unbounded))?
        .take(bounds::page(max))
        .map(|found| {
            let (id, row) = found?;
            let row: VaultRow = rows::decode("vaults", row.value())?;
            Ok(row.record(VaultId(*id.value())))
        })
        .collect()
}

pub fn totals(read: &ReadTransaction) -> Result<Totals, StoreError> {
    let mut totals = Totals::default();
    for found in read.open_table(tables::VAULTS)?.iter()? {
        let row: VaultRow = rows::decode("vaults", found?.1.value())?;
        totals.add(&row.usage, row.quota);
    }
    Ok(totals)
}

pub fn add_invitation(write: &WriteTransaction, invitation: Invitation) -> Result<(), StoreError> {
    use redb::ReadableTableMetadata;
    let mut invitations = write.open_table(tables::INVITATIONS)?;
    let id = invitation.id.0;
    if invitations.get(&id)?.is_none() {
        bounds::one_more_invitation(invitations.len()?)?;
        let row = rows::encode(&InvitationRow::new(invitation))?;
        invitations.insert(&id, &row[..])?;
    }
    Ok(())
}

pub fn invitation(read: &ReadTransaction, id: Hash) -> Result<Option<Invitation>, StoreError> {
    let invitations = read.open_table(tables::INVITATIONS)?;
    let Some(row) = invitations.get(&id.0)? else {
        return Ok(None);
    };
    let row: InvitationRow = rows::decode("invitations", row.value())?;
    Ok(Some(row.invitation(id)))
}

pub fn invitations(
    read: &ReadTransaction,
    after: Option<Hash>,
    max: usize,
) -> Result<Vec<Invitation>, StoreError> {
    let invitations = read.open_table(tables::INVITATIONS)?;
    let from = after.as_ref().map_or(Unbounded, |id| Excluded(&id.0));
    invitations
        .range::<&[u8; 32]>((from, Unbounded))?
        .take(bounds::page(max))
        .map(|found| {
            let (id, row) = found?;
            let row: InvitationRow = rows::decode("invitations", row.value())?;
            Ok(row.invitation(Hash(*id.value())))
        })
        .collect()
}

pub fn consume(
    write: &WriteTransaction,
    id: Hash,
    vault: VaultId,
    epoch: [u8; 16],
    now_ms: u64,
) -> Result<Consumed, StoreError> {
    let mut invitations = write.open_table(tables::INVITATIONS)?;
    let found = match invitations.get(&id.0)? {
        Some(row) => rows::decode::<InvitationRow>("invitations", row.value())?,
        None => return Ok(Consumed::Unknown),
    };
    let mut invitation = found;
    let served = match served(write, vault) {
        Ok(row) => Some(row),
        Err(StoreError::NoVault(_)) => None,
        Err(error) => return Err(error),
    };
    match invitation.used {
        Some((by, _)) => {
            return Ok(match served.filter(|_| by == vault) {
                Some(row) => Consumed::Before(row.record(vault)),
                None => Consumed::Spent,
            });
        }
        None if now_ms >= invitation.expires_ms => return Ok(Consumed::Expired),
        None => invitation.used = Some((vault, now_ms)),
    }
    let mut row = match served {
        Some(row) => {
            grants::begin_statements(write, row.number, now_ms)?;
            VaultRow { epoch, ..row }
        }
        None => VaultRow {
            number: next_number(write)?,
            epoch,
            quota: 0,
            added_ms: now_ms,
            usage: Usage::default(),
            grants: 0,
            grant_bytes: 0,
            next_pack: 0,
        },
    };
    row.quota = row.quota.max(invitation.quota);
    invitations.insert(&id.0, &rows::encode(&invitation)?[..])?;
    keep(write, vault, &row)?;
    Ok(Consumed::Now(row.record(vault)))
}

fn next_number(write: &WriteTransaction) -> Result<u32, StoreError> {
    let mut meta = write.open_table(tables::META)?;
    let number = meta
        .get(tables::NEXT_NUMBER)?
        .map_or(0, |next| next.value());
    let next = number
        .checked_add(1)
        .ok_or_else(|| StoreError::Failed("no number is left for a vault".into()))?;
    meta.insert(tables::NEXT_NUMBER, next)?;
    Ok(number)
}

pub fn set_members(
    write: &WriteTransaction,
    vault: VaultId,
    mut devices: Vec<DeviceId>,
) -> Result<(), StoreError> {
    let number = served(write, vault)?.number;
    devices.sort_unstable();
    devices.dedup();
    remove_members(write, number)?;
    let mut members = write.open_table(tables::MEMBERS)?;
    for device in &devices {
        members.insert(&member(device, number), &vault.0)?;
    }
    let all: Vec<u8> = devices.iter().flat_map(|device| device.0).collect();
    write
        .open_table(tables::MEMBERS_OF)?
        .insert(number, &all[..])?;
    Ok(())
}

fn member(device: &DeviceId, number: u32) -> [u8; 36] {
    key(&[&device.0, &number.to_be_bytes()])
}

fn remove_members(write: &WriteTransaction, number: u32) -> Result<(), StoreError> {
    let mut members = write.open_table(tables::MEMBERS)?;
    let mut members_of = write.open_table(tables::MEMBERS_OF)?;
    if let Some(devices) = members_of.remove(number)? {
        for device in devices.value().as_chunks::<32>().0 {
            members.remove(&member(&DeviceId(*device), number))?;
        }
    }
    Ok(())
}

pub fn of_device(read: &ReadTransaction, device: DeviceId) -> Result<Vec<VaultId>, StoreError> {
    let members = read.open_table(tables::MEMBERS)?;
    let (first, last) = (member(&device, 0), member(&device, u32::MAX));
    let mut vaults = members
        .range::<&[u8; 36]>(&first..=&last)?
        .map(|found| Ok(VaultId(*found?.1.value())))
        .collect::<Result<Vec<_>, StoreError>>()?;
    vaults.sort_unstable();
    vaults.truncate(MAX_VAULTS_OF);
    Ok(vaults)
}

pub fn note_seen(
    write: &WriteTransaction,
    vault: VaultId,
    device: DeviceId,
    at_ms: u64,
) -> Result<(), StoreError> {
    let number = served(write, vault)?.number;
    let mut seen = write.open_table(tables::SEEN)?;
    let key = key(&[&number.to_be_bytes(), &device.0]);
    let last = seen.get(&key)?.map(|at| at.value());
    if last.is_none() {
        let (first, last) = all_of::<36>(number);
        let there = seen.range::<&[u8; 36]>(&first..=&last)?.count();
        bounds::one_more_device(there)?;
    }
    if last.is_none_or(|last| last < at_ms) {
        seen.insert(&key, at_ms)?;
    }
    Ok(())
}

pub fn seen(read: &ReadTransaction, vault: VaultId) -> Result<Vec<(DeviceId, u64)>, StoreError> {
    let (first, last) = all_of::<36>(number(read, vault)?);
    read.open_table(tables::SEEN)?
        .range::<&[u8; 36]>(&first..=&last)?
        .map(|found| {
            let (key, at) = found?;
            Ok((DeviceId(rows::array_at(key.value(), 4)), at.value()))
        })
        .collect()
}

/// Takes a vault out of those that are served, and notes that all under its number is to be erased.
pub fn begin_erasing(
    write: &WriteTransaction,
    vault: VaultId,
    receipt: &[u8],
    now_ms: u64,
) -> Result<Option<u32>, StoreError> {
    let number = match served(write, vault) {
        Ok(row) => row.number,
        Err(StoreError::NoVault(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    write.open_table(tables::VAULTS)?.remove(&vault.0)?;
    write.open_table(tables::ERASING)?.insert(number, ())?;
    remove_members(write, number)?;
    let row = [&now_ms.to_be_bytes()[..], receipt].concat();
    write
        .open_table(tables::RECEIPTS)?
        .insert(&vault.0, &row[..])?;
    Ok(Some(number))
}

pub fn receipt(read: &ReadTransaction, vault: VaultId) -> Result<Option<Bytes>, StoreError> {
    let receipts = read.open_table(tables::RECEIPTS)?;
    match receipts.get(&vault.0)? {
        Some(row) => match row.value().split_at_checked(8) {
            Some((_, receipt)) => Ok(Some(Bytes::copy_from_slice(receipt))),
            None => Err(rows::damaged("receipts")),
        },
        None => Ok(None),
    }
}

pub fn forget(write: &WriteTransaction, before_ms: u64) -> Result<u64, StoreError> {
    let mut receipts = write.open_table(tables::RECEIPTS)?;
    let is_old = |row: &[u8]| row.len() >= 8 && rows::u64_at(row, 0) < before_ms;
    let mut forgotten = 0;
    for gone in receipts.extract_if(|_, row| is_old(row))? {
        gone?;
        forgotten += 1;
    }
    let mut invitations = write.open_table(tables::INVITATIONS)?;
    let is_old = |row: &[u8]| {
        rows::decode::<InvitationRow>("invitations", row)
            .is_ok_and(|invitation| invitation.expires_ms < before_ms)
    };
    for gone in invitations.extract_if(|_, row| is_old(row))? {
        gone?;
        forgotten += 1;
    }
    Ok(forgotten)
}
