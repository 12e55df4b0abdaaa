//! Grants, logs, clocks and statements.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use bytes::Bytes;
use coffer_protocol::identity::{Hash, VaultId, WriterId};
use coffer_protocol::log::Clock;
use deadpool_postgres::{GenericClient, Transaction};
use tokio_postgres::Row;

use super::super::logs::Logs;
use super::super::{
    Appended, HeldStatement, MAX_APPEND, NewEntry, StoreError, StoredEntry, bounds,
};
use super::database::{
    device_at, given_counter, hash_at, keep_usage, kept, kept_counter, locked, number_at, row,
    rows, run, served,
};

pub async fn put_grants(
    transaction: &Transaction<'_>,
    vault: VaultId,
    grants: Vec<(Hash, Bytes)>,
) -> Result<usize, StoreError> {
    let vault = locked(transaction, vault).await?;
    let asked: Vec<&[u8]> = grants.iter().map(|(id, _)| &id.0[..]).collect();
    let sql = "SELECT id FROM grants WHERE number = $1 AND id = ANY($2)";
    let there = rows(transaction, sql, &[&vault.number, &asked]).await?;
    let mut known = there
        .iter()
        .map(|row| hash_at(row, 0))
        .collect::<Result<BTreeSet<_>, _>>()?;
    let new: Vec<_> = grants.iter().filter(|(id, _)| known.insert(*id)).collect();
    let bytes: usize = new.iter().map(|(_, bytes)| bytes.len()).sum();
    let (count, before) = (vault.record.grants as usize, vault.grant_bytes as usize);
    bounds::all_grants(count + new.len(), before.saturating_add(bytes))?;
    if new.is_empty() {
        return Ok(0);
    }
    let places: Vec<i64> = (count as i64..).take(new.len()).collect();
    let ids: Vec<&[u8]> = new.iter().map(|(id, _)| &id.0[..]).collect();
    let bodies: Vec<&[u8]> = new.iter().map(|(_, body)| &body[..]).collect();
    run(
        transaction,
        "INSERT INTO grants (number, place, id, body) \
         SELECT $1::bigint, * FROM unnest($2::bigint[], $3::bytea[], $4::bytea[])",
        &[&vault.number, &places, &ids, &bodies],
    )
    .await?;
    run(
        transaction,
        "UPDATE vaults SET grants = grants + $2, grant_bytes = grant_bytes + $3 WHERE number = $1",
        &[&vault.number, &(new.len() as i64), &(bytes as i64)],
    )
    .await?;
    Ok(new.len())
}

pub async fn grants(client: &impl GenericClient, vault: VaultId) -> Result<Vec<Bytes>, StoreError> {
    let number = served(client, vault).await?.number;
    let sql = "SELECT body FROM grants WHERE number = $1 ORDER BY place";
    let found = rows(client, sql, &[&number]).await?;
    found.iter().map(|row| body_at(row, 0)).collect()
}

pub(super) fn body_at(row: &Row, column: usize) -> Result<Bytes, StoreError> {
    let body: &[u8] = row.try_get(column)?;
    Ok(Bytes::copy_from_slice(body))
}

pub(super) fn writer_at(row: &Row, column: usize) -> Result<WriterId, StoreError> {
    let incarnation = number_at(row, column + 1)?;
    Ok(WriterId {
        device: device_at(row, column)?,
        incarnation: u32::try_from(incarnation)
            .map_err(|_| StoreError::Damaged("an incarnation".into()))?,
    })
}

/// All ends of logs of a vault.
pub(super) async fn heads(
    client: &impl GenericClient,
    number: i64,
) -> Result<BTreeMap<WriterId, (u64, Hash)>, StoreError> {
    let sql = "SELECT device, incarnation, seq, header FROM heads WHERE number = $1";
    let found = rows(client, sql, &[&number]).await?;
    found
        .iter()
        .map(|row| Ok((writer_at(row, 0)?, (number_at(row, 2)?, hash_at(row, 3)?))))
        .collect()
}

/// Columns of entries, as PostgreSQL takes many rows at once.
#[derive(Default)]
struct Columns<'a> {
    devices: Vec<&'a [u8]>,
    incarnations: Vec<i64>,
    seqs: Vec<i64>,
    headers: Vec<&'a [u8]>,
    bodies: Vec<&'a [u8]>,
}

impl<'a> Columns<'a> {
    fn of(entries: impl Iterator<Item = &'a NewEntry>) -> Self {
        let mut columns = Self::default();
        for entry in entries {
            columns.devices.push(&entry.writer.device.0);
            columns
                .incarnations
                .push(i64::from(entry.writer.incarnation));
            columns.seqs.push(kept(entry.seq));
            columns.headers.push(&entry.header.0);
            columns.bodies.push(&entry.bytes);
        }
        columns
    }
}

pub async fn append(
    transaction: &Transaction<'_>,
    vault: VaultId,
    entries: &[NewEntry],
) -> Result<Vec<Appended>, StoreError> {
    let vault = locked(transaction, vault).await?;
    let heads = heads(transaction, vault.number).await?;
    let mut there = there(transaction, vault.number, &heads, entries).await?;
    let mut logs = Logs::new(heads.len(), vault.record.usage, vault.record.quota);
    let mut outcomes = Vec::with_capacity(entries.len());
    for entry in entries {
        if !logs.knows(&entry.writer) {
            logs.set(entry.writer, heads.get(&entry.writer).copied());
        }
        let at = (entry.writer, entry.seq);
        let known = there.get(&at).copied();
        let outcome = logs.next(entry, |_| Ok(known))?;
        if outcome == Appended::Stored {
            there.insert(at, entry.header);
        }
        outcomes.push(outcome);
    }
    if logs.usage == vault.record.usage {
        return Ok(outcomes);
    }
    let stored = entries.iter().zip(&outcomes);
    let stored = stored.filter(|(_, outcome)| **outcome == Appended::Stored);
    let columns = Columns::of(stored.map(|(entry, _)| entry));
    run(
        transaction,
        "INSERT INTO entries (number, device, incarnation, seq, header, body) \
         SELECT $1::bigint, * FROM unnest($2::bytea[], $3::bigint[], $4::bigint[], $5::bytea[], \
         $6::bytea[])",
        &[
            &vault.number,
            &columns.devices,
            &columns.incarnations,
            &columns.seqs,
            &columns.headers,
            &columns.bodies,
        ],
    )
    .await?;
    let (mut devices, mut incarnations) = (Vec::new(), Vec::new());
    let (mut seqs, mut headers) = (Vec::new(), Vec::new());
    for (writer, seq, header) in logs.ends() {
        devices.push(writer.device.0.to_vec());
        incarnations.push(i64::from(writer.incarnation));
        seqs.push(kept(seq));
        headers.push(header.0.to_vec());
    }
    run(
        transaction,
        "INSERT INTO heads (number, device, incarnation, seq, header) \
         SELECT $1::bigint, * FROM unnest($2::bytea[], $3::bigint[], $4::bigint[], $5::bytea[]) \
         ON CONFLICT (number, device, incarnation) \
         DO UPDATE SET seq = excluded.seq, header = excluded.header",
        &[&vault.number, &devices, &incarnations, &seqs, &headers],
    )
    .await?;
    keep_usage(transaction, vault.number, &logs.usage).await?;
    Ok(outcomes)
}

/// Header hashes of those of these entries' numbers at which an entry is there.
async fn there(
    transaction: &Transaction<'_>,
    number: i64,
    heads: &BTreeMap<WriterId, (u64, Hash)>,
    entries: &[NewEntry],
) -> Result<BTreeMap<(WriterId, u64), Hash>, StoreError> {
    let is_there = |entry: &&NewEntry| {
        let head = heads.get(&entry.writer);
        head.is_some_and(|(last, _)| (1..=*last).contains(&entry.seq))
    };
    let columns = Columns::of(entries.iter().filter(is_there));
    if columns.seqs.is_empty() {
        return Ok(BTreeMap::new());
    }
    let found = rows(
        transaction,
        "SELECT device, incarnation, seq, header FROM entries \
         JOIN unnest($2::bytea[], $3::bigint[], $4::bigint[]) AS asked(device, incarnation, seq) \
         USING (device, incarnation, seq) WHERE number = $1",
        &[
            &number,
            &columns.devices,
            &columns.incarnations,
            &columns.seqs,
        ],
    )
    .await?;
    found
        .iter()
        .map(|row| Ok(((writer_at(row, 0)?, number_at(row, 2)?), hash_at(row, 3)?)))
        .collect()
}

/// Entries that are asked of the database at once: their bytes are not known before.
const READ_AT_ONCE: u64 = 256;

pub async fn read(
    client: &impl GenericClient,
    vault: VaultId,
    writer: WriterId,
    seqs: RangeInclusive<u64>,
    max_bytes: usize,
) -> Result<Vec<StoredEntry>, StoreError> {
    let number = served(client, vault).await?.number;
    let mut room = bounds::Room::new(max_bytes);
    let mut entries = Vec::new();
    let mut next = (*seqs.start()).max(1);
    while next <= *seqs.end() && entries.len() < MAX_APPEND {
        let last = next.saturating_add(READ_AT_ONCE - 1).min(*seqs.end());
        // The sum before a row decides, so that no more is read than is given.
        let found = rows(
            client,
            "SELECT seq, body FROM (SELECT seq, body, \
             sum(length(body)) OVER (ORDER BY seq) - length(body) AS before \
             FROM entries WHERE number = $1 AND device = $2 AND incarnation = $3 \
             AND seq BETWEEN $4 AND $5) AS log WHERE before <= $6 ORDER BY seq",
            &[
                &number,
                &&writer.device.0[..],
                &i64::from(writer.incarnation),
                &kept(next),
                &kept(last),
                &(max_bytes.min(super::super::MAX_APPEND_BYTES) as i64),
            ],
        )
        .await?;
        if found.is_empty() {
            break;
        }
        for row in &found {
            let (seq, bytes) = (number_at(row, 0)?, body_at(row, 1)?);
            if seq != next || !room.takes(bytes.len()) {
                return Ok(entries);
            }
            entries.push(StoredEntry { seq, bytes });
            next += 1;
        }
    }
    Ok(entries)
}

pub async fn clock(client: &impl GenericClient, number: i64) -> Result<Clock, StoreError> {
    Ok(heads(client, number).await?.into_iter().collect())
}

pub async fn put_held(
    transaction: &Transaction<'_>,
    vault: VaultId,
    statement: &HeldStatement,
) -> Result<bool, StoreError> {
    let number = locked(transaction, vault).await?.number;
    let sql = "SELECT count(*) FROM held WHERE number = $1 AND device <> $2";
    let device = &statement.device.0[..];
    let others = row(transaction, sql, &[&number, &device]).await?;
    let others = others.map_or(Ok(0), |row| number_at(&row, 0))?;
    bounds::one_more_device(usize::try_from(others).unwrap_or(usize::MAX))?;
    let changed = run(
        transaction,
        "INSERT INTO held (number, device, counter, body) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (number, device) DO UPDATE SET counter = excluded.counter, \
         body = excluded.body WHERE held.counter < excluded.counter",
        &[
            &number,
            &device,
            &kept_counter(statement.counter),
            &&statement.bytes[..],
        ],
    )
    .await?;
    Ok(changed > 0)
}

pub async fn held(
    client: &impl GenericClient,
    vault: VaultId,
) -> Result<Vec<HeldStatement>, StoreError> {
    let number = served(client, vault).await?.number;
    let sql = "SELECT device, counter, body FROM held WHERE number = $1 ORDER BY device";
    let found = rows(client, sql, &[&number]).await?;
    found
        .iter()
        .map(|row| {
            Ok(HeldStatement {
                device: device_at(row, 0)?,
                counter: given_counter(row.try_get(1)?),
                bytes: body_at(row, 2)?,
            })
        })
        .collect()
}

/// The number of the last statement, and the statement if there is one in this life of the vault.
pub async fn host_statement(
    client: &impl GenericClient,
    number: i64,
) -> Result<(u64, Option<Bytes>), StoreError> {
    let sql = "SELECT statement_counter, statement IS NULL, coalesce(statement, '') FROM vaults \
        WHERE number = $1";
    match row(client, sql, &[&number]).await? {
        Some(row) => {
            let is_none: bool = row.try_get(1)?;
            let statement = body_at(&row, 2)?;
            Ok((number_at(&row, 0)?, (!is_none).then_some(statement)))
        }
        None => Ok((0, None)),
    }
}

pub async fn put_host_statement(
    transaction: &Transaction<'_>,
    vault: VaultId,
    counter: u64,
    statement: &[u8],
) -> Result<bool, StoreError> {
    let number = locked(transaction, vault).await?.number;
    let Some(before) = counter.checked_sub(1) else {
        return Ok(false);
    };
    let changed = run(
        transaction,
        "UPDATE vaults SET statement_counter = $3, statement = $4 \
         WHERE number = $1 AND statement_counter = $2",
        &[&number, &kept(before), &kept(counter), &statement],
    )
    .await?;
    Ok(changed > 0)
}
