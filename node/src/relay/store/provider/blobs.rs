//! Blobs: their places in the database, their bytes in packs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use coffer_protocol::identity::{DeviceId, Hash, VaultId};
use deadpool_postgres::{GenericClient, Transaction};
use futures::stream::{self, BoxStream, StreamExt};
use tokio_postgres::Row;

use super::super::runs::{self, Place, Run};
use super::super::{Blob, Freed, Put, Released, StoreError, Usage, What, bounds, charge};
use super::Inner;
use super::database::{
    VaultRow, connection, device_at, hash_at, keep_usage, kept, locked, number_at, row, rows, run,
    served,
};
use super::listening::notify;
use super::objects::HEADER;

/// Reads of the object storage that are under way for one who takes many blobs: each takes some ten milliseconds.
const READS: usize = 4;

fn keys(ids: &[Hash]) -> Vec<&[u8]> {
    ids.iter().map(|id| &id.0[..]).collect()
}

/// Which of these blobs are here.
async fn there(
    client: &impl GenericClient,
    number: i64,
    ids: &[Hash],
) -> Result<BTreeSet<Hash>, StoreError> {
    let sql = "SELECT id FROM blobs WHERE number = $1 AND id = ANY($2)";
    let found = rows(client, sql, &[&number, &keys(ids)]).await?;
    found.iter().map(|row| hash_at(row, 0)).collect()
}

/// What becomes of blobs that are put, in their order; counts those that are stored.
fn judge(
    ids: &[(Hash, usize)],
    mut there: BTreeSet<Hash>,
    usage: &mut Usage,
    quota: u64,
) -> Vec<Put> {
    let each = ids.iter().map(|(id, len)| {
        if there.contains(id) {
            Put::Had
        } else if usage.fits_blob(*len, quota) {
            usage.add_blob(*len);
            there.insert(*id);
            Put::Stored
        } else {
            Put::Full
        }
    });
    each.collect()
}

pub async fn put(
    inner: &Inner,
    vault: VaultId,
    blobs: Vec<(Hash, Bytes)>,
) -> Result<Vec<Put>, StoreError> {
    let ids: Vec<(Hash, usize)> = blobs.iter().map(|(id, bytes)| (*id, bytes.len())).collect();
    let names: Vec<Hash> = blobs.iter().map(|(id, _)| *id).collect();
    let mut connection = connection(&inner.pool).await?;
    let found = served(&connection, vault).await?;
    let here = there(&connection, found.number, &names).await?;
    let mut usage = found.record.usage;
    let wanted = judge(&ids, here, &mut usage, found.record.quota);
    let new: Vec<_> = blobs
        .into_iter()
        .zip(&wanted)
        .filter(|(_, put)| **put == Put::Stored)
        .map(|(blob, _)| blob)
        .collect();
    let mut written = None;
    if !new.is_empty() {
        let pack = begin_pack(&connection, found.number).await?;
        // The connection is not kept from others while the bytes travel.
        drop(connection);
        let places = inner.objects.write(found.number, pack, &new).await?;
        written = Some(Written {
            pack,
            places: new.iter().map(|(id, _)| *id).zip(places).collect(),
        });
        connection = super::database::connection(&inner.pool).await?;
    }
    let transaction = connection.transaction().await?;
    let plan = Plan {
        number: found.number,
        ids: &ids,
        wanted: &wanted,
        written: written.as_ref(),
    };
    let committed = commit_put(inner, &transaction, vault, &plan).await;
    match committed {
        Ok((outcomes, is_used)) => {
            transaction.commit().await?;
            if let Some(written) = written.filter(|_| !is_used) {
                inner.objects.remove(found.number, written.pack).await?;
            }
            Ok(outcomes)
        }
        Err(error) => {
            drop(transaction);
            // What nothing names goes at once if it can, and else with the next tidying.
            if let Some(written) = written {
                let _ = inner.objects.remove(found.number, written.pack).await;
            }
            Err(error)
        }
    }
}

/// What was decided before anything was written, and what was written then.
struct Plan<'a> {
    number: i64,
    ids: &'a [(Hash, usize)],
    wanted: &'a [Put],
    written: Option<&'a Written>,
}

struct Written {
    pack: u64,
    places: BTreeMap<Hash, Place>,
}

/// Notes that a pack is going to be written, so that it is found if nothing comes of it.
pub async fn begin_pack(client: &impl GenericClient, number: i64) -> Result<u64, StoreError> {
    let sql = "INSERT INTO packs (number) VALUES ($1) RETURNING pack";
    let row = row(client, sql, &[&number]).await?;
    row.map_or_else(
        || Err(StoreError::Failed("a pack got no number".into())),
        |row| number_at(&row, 0),
    )
}

/// Notes that a pack is in use. Refused if the pack was taken for abandoned meanwhile.
pub async fn finish_pack(
    transaction: &Transaction<'_>,
    pack: u64,
    len: u64,
    live: u64,
) -> Result<(), StoreError> {
    let sql = "UPDATE packs SET state = 1, len = $2, live = $3 WHERE pack = $1 AND state = 0";
    match run(transaction, sql, &[&kept(pack), &kept(len), &kept(live)]).await? {
        1 => Ok(()),
        _ => Err(StoreError::Unavailable(
            "writing to the object storage took too long".into(),
        )),
    }
}

/// Gives what became of each blob, and whether anything of the pack is used.
async fn commit_put(
    inner: &Inner,
    transaction: &Transaction<'_>,
    vault: VaultId,
    plan: &Plan<'_>,
) -> Result<(Vec<Put>, bool), StoreError> {
    let (ids, written) = (plan.ids, plan.written);
    let now = locked(transaction, vault).await?;
    let number = now.number;
    if number != plan.number {
        return Err(StoreError::NoVault(vault));
    }
    let names: Vec<Hash> = ids.iter().map(|(id, _)| *id).collect();
    let here = there(transaction, number, &names).await?;
    let is_written = |id: &Hash| written.is_some_and(|written| written.places.contains_key(id));
    let mut usage = now.record.usage;
    let mut outcomes = judge(ids, here, &mut usage, now.record.quota);
    let mut stored = Vec::new();
    for (at, ((id, len), outcome)) in ids.iter().zip(&mut outcomes).enumerate() {
        if *outcome == Put::Stored {
            if !is_written(id) {
                if plan.wanted[at] == Put::Had {
                    // Freed since the first look, and so it was not written.
                    return Err(StoreError::Unavailable("a blob was freed meanwhile".into()));
                }
                *outcome = Put::Full;
                usage.remove_blob(*len);
                continue;
            }
            stored.push(*id);
        }
    }
    let had: Vec<&[u8]> = ids
        .iter()
        .zip(&outcomes)
        .filter(|(_, outcome)| **outcome == Put::Had)
        .map(|((id, _), _)| &id.0[..])
        .collect();
    if !had.is_empty() {
        let sql = "DELETE FROM released WHERE number = $1 AND id = ANY($2)";
        run(transaction, sql, &[&number, &had]).await?;
    }
    let Some(written) = written.filter(|_| !stored.is_empty()) else {
        if let Some(written) = written {
            let sql = "DELETE FROM packs WHERE pack = $1";
            run(transaction, sql, &[&kept(written.pack)]).await?;
        }
        return Ok((outcomes, false));
    };
    insert_places(transaction, number, &stored, &written.places).await?;
    let bytes = |places: &mut dyn Iterator<Item = &Place>| -> u64 {
        places
            .map(|place| u64::from(HEADER) + u64::from(place.len))
            .sum()
    };
    let len = bytes(&mut written.places.values());
    let live = bytes(&mut stored.iter().filter_map(|id| written.places.get(id)));
    finish_pack(transaction, written.pack, len, live).await?;
    keep_usage(transaction, number, &usage).await?;
    notify(transaction, &inner.instance, vault, What::Blobs).await?;
    Ok((outcomes, true))
}

async fn insert_places(
    transaction: &Transaction<'_>,
    number: i64,
    ids: &[Hash],
    places: &BTreeMap<Hash, Place>,
) -> Result<(), StoreError> {
    let places: Vec<&Place> = ids.iter().filter_map(|id| places.get(id)).collect();
    let packs: Vec<i64> = places.iter().map(|place| kept(place.pack)).collect();
    let offsets: Vec<i64> = places.iter().map(|place| i64::from(place.offset)).collect();
    let lens: Vec<i64> = places.iter().map(|place| i64::from(place.len)).collect();
    run(
        transaction,
        "INSERT INTO blobs (number, id, pack, place, len) \
         SELECT $1::bigint, * FROM unnest($2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[])",
        &[&number, &keys(ids), &packs, &offsets, &lens],
    )
    .await
    .map(|_| ())
}

pub async fn have(
    client: &impl GenericClient,
    vault: VaultId,
    ids: &[Hash],
) -> Result<Vec<bool>, StoreError> {
    let number = served(client, vault).await?.number;
    let there = there(client, number, ids).await?;
    Ok(ids.iter().map(|id| there.contains(id)).collect())
}

pub async fn claim(
    transaction: &Transaction<'_>,
    vault: VaultId,
    ids: &[Hash],
) -> Result<Vec<bool>, StoreError> {
    let number = locked(transaction, vault).await?.number;
    let sql = "DELETE FROM released WHERE number = $1 AND id = ANY($2)";
    run(transaction, sql, &[&number, &keys(ids)]).await?;
    have(transaction, vault, ids).await
}

pub async fn list(
    client: &impl GenericClient,
    vault: VaultId,
    after: Option<Hash>,
    max: usize,
) -> Result<Vec<Hash>, StoreError> {
    let number = served(client, vault).await?.number;
    let after = after.as_ref().map_or(&[][..], |id| &id.0[..]);
    let sql = "SELECT id FROM blobs WHERE number = $1 AND id > $2 ORDER BY id LIMIT $3";
    let max = kept(bounds::page(max) as u64);
    let found = rows(client, sql, &[&number, &after, &max]).await?;
    found.iter().map(|row| hash_at(row, 0)).collect()
}

pub async fn release(
    transaction: &Transaction<'_>,
    vault: VaultId,
    device: DeviceId,
    ids: &[Hash],
    now_ms: u64,
) -> Result<(), StoreError> {
    let number = locked(transaction, vault).await?.number;
    let ids = keys(ids);
    let sql = "SELECT max(devices) FROM (SELECT count(*) AS devices FROM released \
        WHERE number = $1 AND id = ANY($2) AND device <> $3 GROUP BY id) AS others";
    let most = row(transaction, sql, &[&number, &ids, &&device.0[..]]).await?;
    let most: Option<i64> = most.map_or(Ok(None), |row| row.try_get(0))?;
    bounds::one_more_device(usize::try_from(most.unwrap_or(0)).unwrap_or(usize::MAX))?;
    run(
        transaction,
        "INSERT INTO released (number, id, device, at_ms) \
         SELECT $1::bigint, id, $3::bytea, $4::bigint FROM blobs \
         WHERE number = $1 AND id = ANY($2) ON CONFLICT DO NOTHING",
        &[&number, &ids, &&device.0[..], &kept(now_ms)],
    )
    .await
    .map(|_| ())
}

fn group(found: &[Row]) -> Result<Vec<Released>, StoreError> {
    let mut all: Vec<Released> = Vec::new();
    for row in found {
        let id = hash_at(row, 0)?;
        let by = (device_at(row, 1)?, number_at(row, 2)?);
        match all.last_mut() {
            Some(last) if last.id == id => last.by.push(by),
            _ => all.push(Released { id, by: vec![by] }),
        }
    }
    Ok(all)
}

pub async fn released(
    client: &impl GenericClient,
    vault: VaultId,
    after: Option<Hash>,
    max: usize,
) -> Result<Vec<Released>, StoreError> {
    let number = served(client, vault).await?.number;
    let after = after.as_ref().map_or(&[][..], |id| &id.0[..]);
    let max = kept(bounds::page(max) as u64);
    let found = rows(
        client,
        "SELECT id, device, at_ms FROM released WHERE number = $1 AND id IN \
         (SELECT DISTINCT id FROM released WHERE number = $1 AND id > $2 ORDER BY id LIMIT $3) \
         ORDER BY id, device",
        &[&number, &after, &max],
    )
    .await?;
    group(&found)
}

pub async fn free(
    transaction: &Transaction<'_>,
    vault: VaultId,
    blobs: Vec<Released>,
) -> Result<Freed, StoreError> {
    let vault = locked(transaction, vault).await?;
    let asked: Vec<Hash> = blobs.iter().map(|released| released.id).collect();
    let found = rows(
        transaction,
        "SELECT id, device, at_ms FROM released WHERE number = $1 AND id = ANY($2) \
         ORDER BY id, device",
        &[&vault.number, &keys(&asked)],
    )
    .await?;
    let now: BTreeMap<Hash, Vec<(DeviceId, u64)>> = group(&found)?
        .into_iter()
        .map(|released| (released.id, released.by))
        .collect();
    let unchanged = |released: &&Released| now.get(&released.id) == Some(&released.by);
    let going: Vec<Hash> = blobs
        .iter()
        .filter(unchanged)
        .map(|released| released.id)
        .collect();
    if going.is_empty() {
        return Ok(Freed::default());
    }
    let sql = "DELETE FROM released WHERE number = $1 AND id = ANY($2)";
    run(transaction, sql, &[&vault.number, &keys(&going)]).await?;
    let gone = rows(
        transaction,
        "DELETE FROM blobs WHERE number = $1 AND id = ANY($2) RETURNING pack, len",
        &[&vault.number, &keys(&going)],
    )
    .await?;
    count_out(transaction, vault, &gone).await
}

/// Counts blobs no more that were deleted: `gone` are their packs and lengths.
pub(super) async fn count_out(
    transaction: &Transaction<'_>,
    vault: VaultRow,
    gone: &[Row],
) -> Result<Freed, StoreError> {
    let mut freed = Freed::default();
    let mut usage = vault.record.usage;
    let mut packs: BTreeMap<i64, i64> = BTreeMap::new();
    for row in gone {
        let len = number_at(row, 1)?;
        usage.remove_blob(len as usize);
        freed.blobs += 1;
        freed.bytes += charge(len as usize);
        *packs.entry(row.try_get(0)?).or_default() += i64::from(HEADER) + kept(len);
    }
    let (packs, bytes): (Vec<i64>, Vec<i64>) = packs.into_iter().unzip();
    run(
        transaction,
        "UPDATE packs SET live = live - gone.bytes \
         FROM unnest($1::bigint[], $2::bigint[]) AS gone(pack, bytes) \
         WHERE packs.pack = gone.pack",
        &[&packs, &bytes],
    )
    .await?;
    keep_usage(transaction, vault.number, &usage).await?;
    Ok(freed)
}

/// Where blobs are, and the number of their vault.
pub(super) async fn places(
    inner: &Inner,
    vault: VaultId,
    ids: &[Hash],
) -> Result<(i64, BTreeMap<Hash, Place>), StoreError> {
    let connection = connection(&inner.pool).await?;
    let number = served(&connection, vault).await?.number;
    let sql = "SELECT id, pack, place, len FROM blobs WHERE number = $1 AND id = ANY($2)";
    let found = rows(&connection, sql, &[&number, &keys(ids)]).await?;
    let cut = |number: u64| {
        u32::try_from(number).map_err(|_| StoreError::Damaged("the place of a blob".into()))
    };
    let read = |row: &Row| {
        let place = Place {
            pack: number_at(row, 1)?,
            offset: cut(number_at(row, 2)?)?,
            len: cut(number_at(row, 3)?)?,
        };
        Ok((hash_at(row, 0)?, place))
    };
    let places = found.iter().map(read).collect::<Result<_, StoreError>>()?;
    Ok((number, places))
}

pub async fn range(
    inner: &Inner,
    vault: VaultId,
    id: Hash,
    offset: u64,
    len: u32,
) -> Result<Option<Bytes>, StoreError> {
    // A pack may go between the two, because it was rewritten: then the blob has another place.
    for _ in 0..3 {
        let (number, places) = places(inner, vault, &[id]).await?;
        let Some(place) = places.get(&id) else {
            return Ok(None);
        };
        let part = bounds::part(u64::from(place.len), offset, len);
        let (at, len) = (place.offset + part.start as u32, part.end - part.start);
        let read = inner.objects.read(number, place.pack, at, len as usize);
        if let Some(bytes) = read.await? {
            return Ok(Some(bytes));
        }
    }
    Err(StoreError::Damaged("a pack is gone".into()))
}

pub fn get(
    inner: Arc<Inner>,
    vault: VaultId,
    ids: Vec<Hash>,
) -> BoxStream<'static, Result<Blob, StoreError>> {
    let ids: Arc<[Hash]> = ids.into();
    let plan = plan_get(Arc::clone(&inner), vault, Arc::clone(&ids));
    stream::once(plan)
        .flat_map(move |plan| match plan {
            Ok((number, missing, runs)) => {
                let (inner, ids) = (Arc::clone(&inner), Arc::clone(&ids));
                let found = stream::iter(runs)
                    .map(move |run| {
                        read_run(Arc::clone(&inner), vault, number, run, Arc::clone(&ids))
                    })
                    .buffered(READS)
                    .flat_map(|read| match read {
                        Ok(blobs) => stream::iter(blobs).map(Ok).boxed(),
                        Err(error) => stream::iter([Err(error)]).boxed(),
                    });
                stream::iter(missing)
                    .map(|index| Ok(Blob { index, bytes: None }))
                    .chain(found)
                    .boxed()
            }
            Err(error) => stream::iter([Err(error)]).boxed(),
        })
        .scan(false, |failed, blob| {
            let over = std::mem::replace(failed, blob.is_err());
            std::future::ready((!over).then_some(blob))
        })
        .boxed()
}

async fn plan_get(
    inner: Arc<Inner>,
    vault: VaultId,
    ids: Arc<[Hash]>,
) -> Result<(i64, Vec<usize>, Vec<Run>), StoreError> {
    let (number, places) = places(&inner, vault, &ids).await?;
    let mut missing = Vec::new();
    let mut found = Vec::new();
    for (index, id) in ids.iter().enumerate() {
        match places.get(id) {
            Some(place) => found.push((*place, index)),
            None => missing.push(index),
        }
    }
    Ok((number, missing, runs::plan(found)))
}

async fn read_run(
    inner: Arc<Inner>,
    vault: VaultId,
    number: i64,
    run: Run,
    ids: Arc<[Hash]>,
) -> Result<Vec<Blob>, StoreError> {
    let read = inner
        .objects
        .read(number, run.pack(), run.offset(), run.len());
    let mut blobs = Vec::with_capacity(run.blobs.len());
    match read.await? {
        Some(bytes) => {
            for (index, part) in run.blobs {
                let bytes = Some(bytes.slice(part));
                blobs.push(Blob { index, bytes });
            }
        }
        None => {
            for (index, _) in run.blobs {
                let bytes = range(&inner, vault, ids[index], 0, u32::MAX).await?;
                blobs.push(Blob { index, bytes });
            }
        }
    }
    Ok(blobs)
}
