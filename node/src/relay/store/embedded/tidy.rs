//! Housekeeping: erasures that were interrupted, packs that nothing names, packs of which little is named.

use std::collections::BTreeMap;

use bytes::Bytes;
use coffer_protocol::identity::{Hash, VaultId};
use redb::{ReadTransaction, ReadableTable, Table, WriteTransaction};

use super::super::{StoreError, Tidied};
use super::blobs::{blob_key, open_pack, pack_key};
use super::packs::{HEADER, Packs};
use super::rows::{self, PackRow, Place, VaultRow, u32_at};
use super::tables::{self, all_of};
use super::writer::Writer;
use super::{EmbeddedStore, Inner, vaults, verify};

/// Rows of each table that one transaction of an erasure takes away, so that others need not wait for long.
const ERASE_ROWS: usize = 20_000;
/// Packs that one piece of housekeeping looks after.
const PACKS_AT_ONCE: usize = 8;

/// One piece of housekeeping.
pub async fn tidy(store: &EmbeddedStore) -> Result<Tidied, StoreError> {
    let writer = store.writer()?;
    if let Some(number) = store.read(first_erasing).await? {
        let inner = std::sync::Arc::clone(&store.inner);
        return super::blocking(move || erase_some(&inner, &writer, number)).await;
    }
    let wasteful = store.read(wasteful).await?;
    let many = wasteful.len() > PACKS_AT_ONCE;
    let mut tidied = Tidied::default();
    for (vault, pack) in wasteful.into_iter().take(PACKS_AT_ONCE) {
        let done = store
            .in_turn(vault, move |inner, writer| {
                rewrite(inner, writer, vault, pack)
            })
            .await?;
        tidied.packs += done.packs;
        tidied.moved_bytes += done.moved_bytes;
        tidied.freed_bytes += done.freed_bytes;
        tidied.damaged.extend(done.damaged);
    }
    tidied.more = many && tidied.packs > 0;
    Ok(tidied)
}

fn first_erasing(read: &ReadTransaction) -> Result<Option<u32>, StoreError> {
    let erasing = read.open_table(tables::ERASING)?;
    Ok(erasing.first()?.map(|(number, _)| number.value()))
}

/// Packs of which less than half is used, a few more than are looked after at once.
fn wasteful(read: &ReadTransaction) -> Result<Vec<(VaultId, u32)>, StoreError> {
    let packs = read.open_table(tables::PACKS)?;
    let mut found = Vec::new();
    for served in read.open_table(tables::VAULTS)?.iter()? {
        let (vault, row) = served?;
        let row: VaultRow = rows::decode("vaults", row.value())?;
        let (first, last) = all_of::<8>(row.number);
        for pack in packs.range::<&[u8; 8]>(&first..=&last)? {
            let (key, pack) = pack?;
            let pack = PackRow::decode(pack.value());
            if u64::from(pack.live) * 2 < u64::from(pack.len) {
                found.push((VaultId(*vault.value()), u32_at(key.value(), 4)));
                if found.len() > PACKS_AT_ONCE {
                    return Ok(found);
                }
            }
        }
    }
    Ok(found)
}

/// What is left of a pack that is rewritten.
struct Rest {
    number: u32,
    /// The pack to which it is appended.
    to: (u32, PackRow),
    whole: Vec<(Hash, Place, Bytes)>,
    damaged: BTreeMap<Hash, Place>,
}

/// Reads what is used of a pack; `None` if it is gone.
fn rest_of(inner: &Inner, vault: VaultId, old: u32) -> Result<Option<Rest>, StoreError> {
    inner.shared.read(|read| {
        let Some(row) = vaults::row(read, vault)? else {
            return Ok(None);
        };
        let packs = read.open_table(tables::PACKS)?;
        let Some(pack) = packs.get(&pack_key(row.number, old))? else {
            return Ok(None);
        };
        let pack = PackRow::decode(pack.value());
        let (mut whole, mut damaged) = (Vec::new(), BTreeMap::new());
        if pack.live > 0 {
            let table = read.open_table(tables::BLOBS)?;
            for (id, place) in verify::used_of(&table, row.number, old)? {
                match inner.whole(row.number, &id, place)? {
                    Some(bytes) => whole.push((id, place, bytes)),
                    None => drop(damaged.insert(id, place)),
                }
            }
        }
        let bytes: usize = whole.iter().map(|(_, _, bytes)| bytes.len()).sum();
        let mut to = open_pack(inner, read, row.number, row.next_pack, bytes, whole.len())?;
        if to.0 == old {
            to = (row.next_pack, PackRow::default());
        }
        Ok(Some(Rest {
            number: row.number,
            to,
            whole,
            damaged,
        }))
    })
}

/// Moves what is used of a pack to the newest, and removes it; what is damaged of it is forgotten. Runs in the vault's
/// turn.
fn rewrite(inner: &Inner, writer: &Writer, vault: VaultId, old: u32) -> Result<Tidied, StoreError> {
    let Some(rest) = rest_of(inner, vault, old)? else {
        return Ok(Tidied::default());
    };
    let (number, (new, row), damaged) = (rest.number, rest.to, rest.damaged);
    let blobs: Vec<_> = rest
        .whole
        .iter()
        .map(|(id, _, bytes)| (*id, bytes.clone()))
        .collect();
    let moved_bytes = blobs.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let places = match blobs.is_empty() {
        true => Vec::new(),
        false => inner.write_pack(number, new, row, &blobs)?,
    };
    let moves: Vec<_> = rest
        .whole
        .iter()
        .zip(places)
        .map(|((id, from, _), to)| (blob_key(number, id), *from, to))
        .collect();
    drop((rest.whole, blobs));
    let forgotten = writer.write_blocking(move |write| {
        let mut served = vaults::served(write, vault)?;
        if served.number != number {
            return Err(StoreError::NoVault(vault));
        }
        let forgotten = verify::forget(write, &mut served, &damaged)?;
        let mut table = write.open_table(tables::BLOBS)?;
        let mut packs = write.open_table(tables::PACKS)?;
        let mut pack = row;
        for (key, from, to) in &moves {
            pack.len = to.end();
            // One that was freed meanwhile is not brought back.
            let now = table.get(key)?.map(|now| Place::decode(now.value()));
            if now == Some(*from) {
                table.insert(key, &to.encode())?;
                pack.live += HEADER + to.len;
            }
        }
        packs.remove(&pack_key(number, old))?;
        if !moves.is_empty() {
            packs.insert(&pack_key(number, new), &pack.encode())?;
            served.next_pack = served.next_pack.max(new + 1);
        }
        vaults::keep(write, vault, &served)?;
        Ok(forgotten)
    })?;
    inner.boundaries.at("before removal of a pack");
    let freed_bytes = inner.packs.remove(number, old)?;
    Ok(Tidied {
        packs: 1,
        moved_bytes,
        freed_bytes,
        more: false,
        damaged: (!forgotten.is_empty())
            .then_some(vault)
            .into_iter()
            .collect(),
    })
}

/// Goes on erasing all under a number that is served no more.
pub fn erase_some(inner: &Inner, writer: &Writer, number: u32) -> Result<Tidied, StoreError> {
    let freed_bytes = inner.packs.remove_all(number)?;
    inner.boundaries.at("packs of an erased vault are gone");
    let more = writer.write_blocking(move |write| erase_rows(write, number))?;
    Ok(Tidied {
        freed_bytes,
        more,
        ..Tidied::default()
    })
}

/// Takes rows of a number away; says whether there are more.
fn erase_rows(write: &WriteTransaction, number: u32) -> Result<bool, StoreError> {
    let mut left = ERASE_ROWS;
    erase_in(&mut write.open_table(tables::ENTRIES)?, number, &mut left)?;
    erase_in(&mut write.open_table(tables::BLOBS)?, number, &mut left)?;
    erase_in(&mut write.open_table(tables::RELEASED)?, number, &mut left)?;
    erase_in(&mut write.open_table(tables::GRANTS)?, number, &mut left)?;
    erase_in(&mut write.open_table(tables::GRANT_IDS)?, number, &mut left)?;
    erase_in(&mut write.open_table(tables::HEADS)?, number, &mut left)?;
    erase_in(&mut write.open_table(tables::RANGES)?, number, &mut left)?;
    erase_in(
        &mut write.open_table(tables::RANGE_HEADS)?,
        number,
        &mut left,
    )?;
    erase_in(&mut write.open_table(tables::SAID)?, number, &mut left)?;
    erase_in(&mut write.open_table(tables::HELD)?, number, &mut left)?;
    erase_in(
        &mut write.open_table(tables::STATEMENTS)?,
        number,
        &mut left,
    )?;
    erase_in(&mut write.open_table(tables::SEEN)?, number, &mut left)?;
    erase_in(&mut write.open_table(tables::PACKS)?, number, &mut left)?;
    if left > 0 {
        write.open_table(tables::ERASING)?.remove(number)?;
    }
    Ok(left == 0)
}

fn erase_in<const N: usize, V: redb::Value + 'static>(
    table: &mut Table<'_, &'static [u8; N], V>,
    number: u32,
    left: &mut usize,
) -> Result<(), StoreError> {
    let (first, last) = all_of::<N>(number);
    let mut gone = table.extract_from_if::<&[u8; N], _>(&first..=&last, |_, _| true)?;
    while *left > 0 {
        match gone.next() {
            Some(row) => row.map(|_| *left -= 1)?,
            None => break,
        }
    }
    Ok(())
}

/// Removes what is in the folder of packs and belongs to no row.
pub fn remove_orphans(
    packs: &Packs,
    is_kept: impl Fn(u32, Option<u32>) -> bool,
) -> Result<u64, StoreError> {
    let mut removed = 0;
    for folder in std::fs::read_dir(&packs.0)? {
        let folder = folder?.path();
        let Some(number) = super::packs::number_of(&folder) else {
            continue;
        };
        if !is_kept(number, None) {
            removed += std::fs::read_dir(&folder)?.count() as u64;
            std::fs::remove_dir_all(&folder)?;
            continue;
        }
        for file in std::fs::read_dir(&folder)? {
            let file = file?.path();
            if let Some(pack) = super::packs::number_of(&file)
                && !is_kept(number, Some(pack))
            {
                std::fs::remove_file(&file)?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}
