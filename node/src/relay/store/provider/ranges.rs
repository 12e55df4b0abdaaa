//! Ranges, and what was said of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use coffer_protocol::identity::{DeviceId, Hash, VaultId, WriterId};
use coffer_protocol::ranges::{Head, Range};
use deadpool_postgres::{GenericClient, Transaction};
use tokio_postgres::Row;

use super::super::logs::{Place, place_of};
use super::super::{Appended, KeptRange, MAX_WRITERS, NewRange, StoreError, charge};
use super::database::{
    device_at, hash_at, keep_usage, kept, locked, number_at, row, rows, run, served,
};
use super::entries::{body_at, heads, writer_at};

pub async fn put(
    transaction: &Transaction<'_>,
    vault: VaultId,
    range: &NewRange,
) -> Result<Appended, StoreError> {
    let vault = locked(transaction, vault).await?;
    let (number, head) = (vault.number, &range.head);
    let ends = heads(transaction, number).await?;
    let end = ends.get(&head.writer).copied();
    if end.is_none() && ends.len() >= MAX_WRITERS {
        return Ok(Appended::TooManyWriters);
    }
    let device = &head.writer.device.0[..];
    let incarnation = i64::from(head.writer.incarnation);
    let (from, to) = (kept(head.from), kept(head.to));
    let others = rows(
        transaction,
        "SELECT alone, length(body)::bigint FROM ranges WHERE number = $1 AND device = $2 \
         AND incarnation = $3 AND first <= $5 AND last >= $4",
        &[&number, &device, &incarnation, &from, &to],
    )
    .await?;
    let there = rows(
        transaction,
        "SELECT seq, header FROM entries WHERE number = $1 AND device = $2 AND incarnation = $3 \
         AND (seq = $4::bigint - 1 OR seq = $5)",
        &[&number, &device, &incarnation, &from, &to],
    )
    .await?;
    let there = there
        .iter()
        .map(|row| Ok((number_at(row, 0)?, hash_at(row, 1)?)))
        .collect::<Result<BTreeMap<u64, Hash>, StoreError>>()?;
    let (mut alone, mut usage) = (Vec::new(), vault.record.usage);
    for other in &others {
        alone.push(other.try_get(0)?);
    }
    let place = place_of(head, end, alone, |seq| Ok(there.get(&seq).copied()))?;
    if let Place::Refused(why) = place {
        return Ok(why);
    }
    if !usage.fits_entry(range.bytes.len(), vault.record.quota) {
        return Ok(Appended::Full);
    }
    for other in &others {
        usage.remove_entry(usize::try_from(number_at(other, 1)?).unwrap_or(usize::MAX));
    }
    usage.add_entry(range.bytes.len());
    for sql in [
        "DELETE FROM said USING ranges WHERE said.number = ranges.number \
         AND said.device = ranges.device AND said.incarnation = ranges.incarnation \
         AND said.last = ranges.last AND ranges.number = $1 AND ranges.device = $2 \
         AND ranges.incarnation = $3 AND ranges.first <= $5 AND ranges.last >= $4",
        "DELETE FROM ranges WHERE number = $1 AND device = $2 AND incarnation = $3 \
         AND first <= $5 AND last >= $4",
    ] {
        run(
            transaction,
            sql,
            &[&number, &device, &incarnation, &from, &to],
        )
        .await?;
    }
    let is_alone = place == Place::After;
    run(
        transaction,
        "INSERT INTO ranges (number, device, incarnation, first, last, alone, head, body) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        &[
            &number,
            &device,
            &incarnation,
            &from,
            &to,
            &is_alone,
            &coffer_protocol::codec::encode(head),
            &&range.bytes[..],
        ],
    )
    .await?;
    if is_alone {
        run(
            transaction,
            "INSERT INTO heads (number, device, incarnation, seq, header) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (number, device, incarnation) \
             DO UPDATE SET seq = excluded.seq, header = excluded.header",
            &[&number, &device, &incarnation, &to, &&head.last.0[..]],
        )
        .await?;
    }
    keep_usage(transaction, number, &usage).await?;
    Ok(Appended::Stored)
}

pub async fn drop_entries(
    transaction: &Transaction<'_>,
    vault: VaultId,
    writer: WriterId,
    to: u64,
) -> Result<u64, StoreError> {
    let vault = locked(transaction, vault).await?;
    let device = &writer.device.0[..];
    let incarnation = i64::from(writer.incarnation);
    let found = row(
        transaction,
        "UPDATE ranges SET alone = true WHERE number = $1 AND device = $2 AND incarnation = $3 \
         AND last = $4 AND NOT alone RETURNING first",
        &[&vault.number, &device, &incarnation, &kept(to)],
    )
    .await?;
    let Some(found) = found else {
        return Ok(0);
    };
    let gone = rows(
        transaction,
        "DELETE FROM entries WHERE number = $1 AND device = $2 AND incarnation = $3 \
         AND seq BETWEEN $4 AND $5 RETURNING length(body)::bigint",
        &[
            &vault.number,
            &device,
            &incarnation,
            &kept(number_at(&found, 0)?),
            &kept(to),
        ],
    )
    .await?;
    let (mut usage, mut freed) = (vault.record.usage, 0);
    for row in &gone {
        let len = usize::try_from(number_at(row, 0)?).unwrap_or(usize::MAX);
        usage.remove_entry(len);
        freed += charge(len);
    }
    keep_usage(transaction, vault.number, &usage).await?;
    Ok(freed)
}

pub async fn put_said(
    transaction: &Transaction<'_>,
    vault: VaultId,
    (writer, to): (WriterId, u64),
    device: DeviceId,
    said: &[u8],
) -> Result<(), StoreError> {
    let number = locked(transaction, vault).await?.number;
    run(
        transaction,
        "INSERT INTO said (number, device, incarnation, last, said_by, body) \
         SELECT number, device, incarnation, last, $5, $6 FROM ranges \
         WHERE number = $1 AND device = $2 AND incarnation = $3 AND last = $4 \
         ON CONFLICT (number, device, incarnation, last, said_by) \
         DO UPDATE SET body = excluded.body",
        &[
            &number,
            &&writer.device.0[..],
            &i64::from(writer.incarnation),
            &kept(to),
            &&device.0[..],
            &said,
        ],
    )
    .await?;
    Ok(())
}

pub async fn all(
    client: &impl GenericClient,
    vault: VaultId,
) -> Result<Vec<KeptRange>, StoreError> {
    let number = served(client, vault).await?.number;
    let sql = "SELECT device, incarnation, last, said_by, body FROM said WHERE number = $1 \
        ORDER BY device, incarnation, last, said_by";
    let mut said: BTreeMap<(WriterId, u64), Vec<(DeviceId, Bytes)>> = BTreeMap::new();
    for row in &rows(client, sql, &[&number]).await? {
        let place = (writer_at(row, 0)?, number_at(row, 2)?);
        let by = (device_at(row, 3)?, body_at(row, 4)?);
        said.entry(place).or_default().push(by);
    }
    let sql = "SELECT head, alone FROM ranges WHERE number = $1 ORDER BY device, incarnation, last";
    let found = rows(client, sql, &[&number]).await?;
    let kept = |row: &Row| {
        let head = head_at(row, 0)?;
        let said = said.remove(&(head.writer, head.to)).unwrap_or_default();
        Ok(KeptRange {
            alone: row.try_get(1)?,
            head,
            said,
        })
    };
    found.iter().map(kept).collect()
}

pub async fn range(
    client: &impl GenericClient,
    vault: VaultId,
    writer: WriterId,
    to: u64,
) -> Result<Option<Bytes>, StoreError> {
    let number = served(client, vault).await?.number;
    let found = row(
        client,
        "SELECT body FROM ranges WHERE number = $1 AND device = $2 AND incarnation = $3 \
         AND last = $4",
        &[
            &number,
            &&writer.device.0[..],
            &i64::from(writer.incarnation),
            &kept(to),
        ],
    )
    .await?;
    found.map(|row| body_at(&row, 0)).transpose()
}

fn head_at(row: &Row, column: usize) -> Result<Head, StoreError> {
    let bytes: &[u8] = row.try_get(column)?;
    Range::decode_head(bytes).map_err(|_| StoreError::Damaged("the head of a range".into()))
}
