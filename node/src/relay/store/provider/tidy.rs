//! Housekeeping: erasures that were interrupted, packs that nothing names, packs of which little is named, and many
//! small packs that are better one. Several processes may do it at once: each step is safe to do twice.

use bytes::Bytes;
use coffer_protocol::blobs::is_blob;
use coffer_protocol::identity::{Hash, VaultId};

use super::super::runs::Place;
use super::super::{StoreError, Tidied};
use super::blobs::{begin_pack, finish_pack};
use super::database::{bytes32, connection, hash_at, kept, locked, number_at, row, rows, run};
use super::objects::HEADER;
use super::{Inner, verify};

/// Packs that go in one piece of housekeeping.
const GOING: i64 = 100;
/// Rewrites in one piece of housekeeping.
const REWRITES: i64 = 4;
/// Packs that are rewritten into one, at most: below a MiB each if they are several.
const TOGETHER: usize = 15;
/// Small packs of a vault from which they are made one.
const MANY_SMALL: i64 = 16;
/// Rows of a table that one statement of an erasure takes away.
const ERASE_ROWS: i64 = 20_000;

/// One piece of housekeeping.
pub async fn tidy(inner: &Inner) -> Result<Tidied, StoreError> {
    let client = connection(&inner.pool).await?;
    let sql = "SELECT number FROM erasing ORDER BY number LIMIT 1";
    if let Some(found) = row(&client, sql, &[]).await? {
        drop(client);
        let more = erase_some(inner, found.try_get(0)?).await?;
        return Ok(Tidied {
            more,
            ..Tidied::default()
        });
    }
    drop(client);
    let mut tidied = rewrite_some(inner).await?;
    let (packs, freed_bytes) = remove_passing(inner).await?;
    tidied.packs = packs;
    tidied.freed_bytes = freed_bytes;
    tidied.more |= packs >= GOING.unsigned_abs();
    Ok(tidied)
}

/// Removes objects that were never finished, or have been replaced, some time ago.
async fn remove_passing(inner: &Inner) -> Result<(u64, u64), StoreError> {
    let client = connection(&inner.pool).await?;
    let linger = kept(inner.linger.as_millis() as u64);
    let found = rows(
        &client,
        "SELECT pack, number, len FROM packs \
         WHERE state <> 1 AND since <= now() - $1::bigint * interval '1 millisecond' LIMIT $2",
        &[&linger, &GOING],
    )
    .await?;
    let (mut packs, mut bytes) = (0, 0);
    for row in found {
        let (pack, number): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        // Taken first, so that a slow writer of it finds out.
        let sql = "UPDATE packs SET state = 2 WHERE pack = $1 AND state <> 1";
        if run(&client, sql, &[&pack]).await? == 0 {
            continue;
        }
        inner.objects.remove(number, pack.unsigned_abs()).await?;
        let sql = "DELETE FROM packs WHERE pack = $1 AND state = 2";
        run(&client, sql, &[&pack]).await?;
        packs += 1;
        bytes += number_at(&row, 2)?;
    }
    Ok((packs, bytes))
}

async fn rewrite_some(inner: &Inner) -> Result<Tidied, StoreError> {
    let client = connection(&inner.pool).await?;
    let wasteful = rows(
        &client,
        "SELECT number, ARRAY[pack] FROM packs WHERE state = 1 AND live * 2 < len LIMIT $1",
        &[&REWRITES],
    )
    .await?;
    let small = rows(
        &client,
        "SELECT number, array_agg(pack ORDER BY pack) FROM packs \
         WHERE state = 1 AND len < 1048576 GROUP BY number HAVING count(*) >= $2 LIMIT $1",
        &[&REWRITES, &MANY_SMALL],
    )
    .await?;
    drop(client);
    let mut tidied = Tidied::default();
    let mut done = 0;
    for row in wasteful.iter().chain(&small) {
        let mut packs: Vec<i64> = row.try_get(1)?;
        packs.truncate(TOGETHER);
        match rewrite(inner, row.try_get(0)?, &packs).await? {
            Rewritten::Moved(bytes) => {
                tidied.moved_bytes += bytes;
                done += 1;
            }
            Rewritten::Damaged(vault) => {
                done += vault.iter().count();
                tidied.damaged.extend(vault);
            }
            Rewritten::Not => {}
        }
    }
    tidied.more = done > 0;
    Ok(tidied)
}

/// What became of packs that were to be rewritten.
enum Rewritten {
    /// So many bytes are in a new one.
    Moved(u64),
    /// Some blobs were damaged, and are forgotten if they still lay there; the rest is for the next time.
    Damaged(Option<VaultId>),
    /// The vault is gone, or somebody else did it.
    Not,
}

/// Writes what is used of some packs of a vault into a new one.
async fn rewrite(inner: &Inner, number: i64, packs: &[i64]) -> Result<Rewritten, StoreError> {
    let client = connection(&inner.pool).await?;
    let sql = "SELECT vault FROM vaults WHERE number = $1";
    let Some(found) = row(&client, sql, &[&number]).await? else {
        return Ok(Rewritten::Not);
    };
    let vault = VaultId(bytes32(&found, 0)?);
    let sql = "SELECT id, pack, place, len FROM blobs WHERE pack = ANY($1) ORDER BY pack, place";
    let live = rows(&client, sql, &[&packs]).await?;
    let new = match live.is_empty() {
        true => None,
        false => Some(begin_pack(&client, number).await?),
    };
    drop(client);
    let mut blobs: Vec<(Hash, Bytes)> = Vec::with_capacity(live.len());
    let mut from: Vec<i64> = Vec::with_capacity(live.len());
    let mut damaged = Vec::new();
    for row in &live {
        let (pack, len) = (number_at(row, 1)?, number_at(row, 3)?);
        let offset = u32::try_from(number_at(row, 2)?)
            .map_err(|_| StoreError::Damaged("the place of a blob".into()))?;
        let id = hash_at(row, 0)?;
        let read = inner.objects.read(number, pack, offset, len as usize);
        match read.await {
            Ok(Some(bytes)) if is_blob(&id, &bytes) => {
                blobs.push((id, bytes));
                from.push(kept(pack));
            }
            Ok(_) | Err(StoreError::Damaged(_)) => {
                let len = u32::try_from(len).unwrap_or(u32::MAX);
                damaged.push((id, Place { pack, offset, len }));
            }
            Err(error) => return Err(error),
        }
    }
    if !damaged.is_empty() {
        // Or another process was faster: then they have other places, and stay. What was begun is found later.
        let forgotten = verify::forget(inner, vault, number, &damaged).await?;
        return Ok(Rewritten::Damaged((!forgotten.is_empty()).then_some(vault)));
    }
    let places = match new {
        Some(pack) => inner.objects.write(number, pack, &blobs).await?,
        None => Vec::new(),
    };
    let ids: Vec<&[u8]> = blobs.iter().map(|(id, _)| &id.0[..]).collect();
    let offsets: Vec<i64> = places.iter().map(|place| i64::from(place.offset)).collect();
    let moved: u64 = blobs.iter().map(|(_, bytes)| bytes.len() as u64).sum();

    let mut client = connection(&inner.pool).await?;
    let transaction = client.transaction().await?;
    match locked(&transaction, vault).await {
        Ok(row) if row.number == number => {}
        Ok(_) | Err(StoreError::NoVault(_)) => return Ok(Rewritten::Not),
        Err(error) => return Err(error),
    }
    if let Some(pack) = new {
        // One that was freed meanwhile is not brought back.
        let stays = rows(
            &transaction,
            "UPDATE blobs SET pack = $2, place = moved.place \
             FROM unnest($3::bytea[], $4::bigint[], $5::bigint[]) AS moved(id, pack, place) \
             WHERE blobs.number = $1 AND blobs.id = moved.id AND blobs.pack = moved.pack \
             RETURNING blobs.len",
            &[&number, &kept(pack), &ids, &from, &offsets],
        )
        .await?;
        let mut used = 0;
        for row in &stays {
            used += u64::from(HEADER) + number_at(row, 0)?;
        }
        let len = moved + u64::from(HEADER) * blobs.len() as u64;
        finish_pack(&transaction, pack, len, used).await?;
    }
    // Those who read a place before this step still find its bytes for a while.
    let sql = "UPDATE packs SET state = 2, since = now() WHERE pack = ANY($1) AND state = 1";
    let retired = run(&transaction, sql, &[&packs]).await?;
    if retired < packs.len() as u64 {
        return Ok(Rewritten::Not);
    }
    transaction.commit().await?;
    Ok(Rewritten::Moved(moved))
}

/// Goes on erasing all under a number that is served no more; says whether there is more to do.
pub async fn erase_some(inner: &Inner, number: i64) -> Result<bool, StoreError> {
    let client = connection(&inner.pool).await?;
    let sql = "SELECT pack FROM packs WHERE number = $1 AND state <> 0 LIMIT $2";
    let packs = rows(&client, sql, &[&number, &GOING]).await?;
    for row in &packs {
        let pack: i64 = row.try_get(0)?;
        inner.objects.remove(number, pack.unsigned_abs()).await?;
        let sql = "DELETE FROM packs WHERE pack = $1";
        run(&client, sql, &[&pack]).await?;
    }
    let mut more = packs.len() as i64 == GOING;
    for table in [
        "entries", "ranges", "said", "blobs", "released", "grants", "heads", "held", "seen",
    ] {
        let sql = format!(
            "DELETE FROM {table} WHERE ctid = ANY(ARRAY(\
             SELECT ctid FROM {table} WHERE number = $1 LIMIT $2))"
        );
        more |= run(&client, &sql, &[&number, &ERASE_ROWS]).await? == ERASE_ROWS.unsigned_abs();
    }
    if !more {
        // A pack that is being written stays noted until its writer or the next tidying removes it.
        let sql = "DELETE FROM erasing WHERE number = $1";
        run(&client, sql, &[&number]).await?;
    }
    Ok(more)
}
