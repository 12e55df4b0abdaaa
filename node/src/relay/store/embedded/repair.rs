//! What is put right when a store is opened.
//!
//! A crash leaves packs, or ends of packs, that no row names: they go. A disk that lost a file, or a person who removed
//! one, leaves rows that name bytes which are not there: those rows go too, so that the host says honestly what it has
//! and the devices bring the blobs again.

use std::collections::BTreeMap;

use redb::{Database, ReadableDatabase, ReadableTable};

use super::super::StoreError;
use super::blobs::{forget_in_pack, pack_key};
use super::packs::Packs;
use super::rows::{self, PackRow, Place, VaultRow, u32_at};
use super::tables::{self, all_of};
use super::tidy::remove_orphans;
use super::verify;

/// What was repaired when a store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Packs that no row named, and that were removed: what an unclean stop leaves.
    pub orphans: u64,
    /// Blobs whose bytes were gone, and which are no longer said to be here.
    pub lost: u64,
}

/// Puts right what can be.
pub fn repair(database: &Database, packs: &Packs) -> Result<Repaired, StoreError> {
    let rows = pack_rows(database)?;
    let mut served: Vec<u32> = rows.keys().map(|(number, _)| *number).collect();
    served.dedup();
    let orphans = remove_orphans(packs, |number, pack| match pack {
        Some(pack) => rows.contains_key(&(number, pack)),
        None => served.binary_search(&number).is_ok(),
    })?;
    let mut short: BTreeMap<u32, BTreeMap<u32, u64>> = BTreeMap::new();
    for ((number, pack), row) in &rows {
        let found = match packs.file(*number, *pack).metadata() {
            Ok(found) => found.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error.into()),
        };
        if found < u64::from(row.len) {
            short.entry(*number).or_default().insert(*pack, found);
        }
    }
    let mut lost = 0;
    if !short.is_empty() {
        lost = forget_lost(database, &short)?;
        tracing::warn!(blobs = lost, "packs of the host's store were cut short");
    }
    Ok(Repaired { orphans, lost })
}

fn pack_rows(database: &Database) -> Result<BTreeMap<(u32, u32), PackRow>, StoreError> {
    let packs = database.begin_read()?.open_table(tables::PACKS)?;
    packs
        .iter()?
        .map(|found| {
            let (key, row) = found?;
            let key = key.value();
            Ok((
                (u32_at(key, 0), u32_at(key, 4)),
                PackRow::decode(row.value()),
            ))
        })
        .collect()
}

/// Forgets blobs of which bytes are beyond what is left of their packs.
fn forget_lost(
    database: &Database,
    short: &BTreeMap<u32, BTreeMap<u32, u64>>,
) -> Result<u64, StoreError> {
    let mut lost = 0;
    let mut write = database.begin_write()?;
    write.set_quick_repair(true);
    {
        let mut table = write.open_table(tables::BLOBS)?;
        let mut released = write.open_table(tables::RELEASED)?;
        let mut packs = write.open_table(tables::PACKS)?;
        let mut vaults = write.open_table(tables::VAULTS)?;
        let mut served = BTreeMap::new();
        for found in vaults.iter()? {
            let (vault, row) = found?;
            let row: VaultRow = rows::decode("vaults", row.value())?;
            served.insert(row.number, (*vault.value(), row));
        }
        for (number, cut) in short {
            let (first, last) = all_of::<36>(*number);
            let is_lost = |place: &Place| {
                let end = u64::from(place.end());
                cut.get(&place.pack).is_some_and(|left| end > *left)
            };
            let mut gone = Vec::new();
            for row in table.extract_from_if::<&[u8; 36], _>(&first..=&last, |_, place| {
                is_lost(&Place::decode(place))
            })? {
                let (key, place) = row?;
                gone.push((*key.value(), Place::decode(place.value())));
            }
            for (key, place) in &gone {
                released.remove(key)?;
                forget_in_pack(&mut packs, *number, *place)?;
                if let Some((_, row)) = served.get_mut(number) {
                    row.usage.remove_blob(place.len as usize);
                }
                lost += 1;
            }
            for pack in cut.keys() {
                let key = pack_key(*number, *pack);
                let row = packs.get(&key)?.map(|row| PackRow::decode(row.value()));
                match row.filter(|row| row.live > 0) {
                    // The next append goes behind the last blob that is there.
                    Some(row) => {
                        let used = verify::used_of(&table, *number, *pack)?;
                        let len = used.last().map_or(0, |(_, place)| place.end());
                        packs.insert(&key, &PackRow { len, ..row }.encode())?;
                    }
                    None => drop(packs.remove(&key)?),
                }
            }
            if let Some((vault, row)) = served.get(number) {
                vaults.insert(vault, &rows::encode(row)?[..])?;
            }
        }
    }
    write.commit()?;
    Ok(lost)
}
