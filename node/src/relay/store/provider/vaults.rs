//! Invitations, vaults, their members and when those were here.

use bytes::Bytes;
use coffer_protocol::identity::{DeviceId, Hash, VaultId};
use deadpool_postgres::{GenericClient, Transaction};
use tokio_postgres::Row;

use super::super::{
    Consumed, Invitation, MAX_VAULTS_OF, StoreError, Totals, Usage, VaultRecord, bounds,
};
use super::database::{
    VAULT, VaultRow, bytes32, device_at, found, given, hash_at, kept, locked, number_at, row, rows,
    run, served,
};

pub async fn page(
    client: &impl GenericClient,
    after: Option<VaultId>,
    max: usize,
) -> Result<Vec<VaultRecord>, StoreError> {
    let after = after.as_ref().map(|vault| &vault.0[..]);
    let sql = format!(
        "SELECT {VAULT} FROM vaults WHERE $1::bytea IS NULL OR vault > $1 ORDER BY vault LIMIT $2"
    );
    let max = kept(bounds::page(max) as u64);
    rows(client, &sql, &[&after, &max])
        .await?
        .iter()
        .map(|row| Ok(VaultRow::read(row)?.record))
        .collect()
}

pub async fn totals(client: &impl GenericClient) -> Result<Totals, StoreError> {
    let sql = "SELECT count(*), coalesce(sum(entries), 0)::bigint, \
        coalesce(sum(entry_bytes), 0)::bigint, coalesce(sum(blobs), 0)::bigint, \
        coalesce(sum(blob_bytes), 0)::bigint, \
        least(coalesce(sum(quota), 0), 9223372036854775807)::bigint FROM vaults";
    let Some(row) = row(client, sql, &[]).await? else {
        return Ok(Totals::default());
    };
    Ok(Totals {
        vaults: number_at(&row, 0)?,
        usage: Usage {
            entries: number_at(&row, 1)?,
            entry_bytes: number_at(&row, 2)?,
            blobs: number_at(&row, 3)?,
            blob_bytes: number_at(&row, 4)?,
        },
        quota: number_at(&row, 5)?,
    })
}

const INVITATION: &str = "id, proof, quota, made_ms, expires_ms, used_by, used_ms";

fn read_invitation(row: &Row) -> Result<Invitation, StoreError> {
    let check: &[u8] = row.try_get(1)?;
    let used_ms: Option<i64> = row.try_get(6)?;
    let used = match used_ms {
        Some(at) => Some((VaultId(bytes32(row, 5)?), given(at))),
        None => None,
    };
    Ok(Invitation {
        id: hash_at(row, 0)?,
        check: Bytes::copy_from_slice(check),
        quota: number_at(row, 2)?,
        made_ms: number_at(row, 3)?,
        expires_ms: number_at(row, 4)?,
        used,
    })
}

pub async fn add_invitation(
    client: &impl GenericClient,
    invitation: &Invitation,
) -> Result<(), StoreError> {
    let count = row(client, "SELECT count(*) FROM invitations", &[]).await?;
    let count = count.map_or(Ok(0), |row| number_at(&row, 0))?;
    bounds::one_more_invitation(count)?;
    let (used_by, used_ms) = match &invitation.used {
        Some((vault, at)) => (Some(&vault.0[..]), Some(kept(*at))),
        None => (None, None),
    };
    let sql = format!(
        "INSERT INTO invitations ({INVITATION}) VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT DO NOTHING"
    );
    run(
        client,
        &sql,
        &[
            &&invitation.id.0[..],
            &&invitation.check[..],
            &kept(invitation.quota),
            &kept(invitation.made_ms),
            &kept(invitation.expires_ms),
            &used_by,
            &used_ms,
        ],
    )
    .await
    .map(|_| ())
}

pub async fn invitation(
    client: &impl GenericClient,
    id: Hash,
) -> Result<Option<Invitation>, StoreError> {
    let sql = format!("SELECT {INVITATION} FROM invitations WHERE id = $1");
    let found = row(client, &sql, &[&&id.0[..]]).await?;
    found.as_ref().map(read_invitation).transpose()
}

pub async fn invitations(
    client: &impl GenericClient,
    after: Option<Hash>,
    max: usize,
) -> Result<Vec<Invitation>, StoreError> {
    let after = after.as_ref().map(|id| &id.0[..]);
    let sql = format!(
        "SELECT {INVITATION} FROM invitations WHERE $1::bytea IS NULL OR id > $1 \
         ORDER BY id LIMIT $2"
    );
    let max = kept(bounds::page(max) as u64);
    let found = rows(client, &sql, &[&after, &max]).await?;
    found.iter().map(read_invitation).collect()
}

pub async fn remove_invitation(client: &impl GenericClient, id: Hash) -> Result<bool, StoreError> {
    let sql = "DELETE FROM invitations WHERE id = $1";
    Ok(run(client, sql, &[&&id.0[..]]).await? > 0)
}

pub async fn consume(
    transaction: &Transaction<'_>,
    id: Hash,
    vault: VaultId,
    epoch: [u8; 16],
    now_ms: u64,
) -> Result<Consumed, StoreError> {
    // Whoever locks the invitation first gets it; the other reads then that it was used.
    let sql = format!("SELECT {INVITATION} FROM invitations WHERE id = $1 FOR UPDATE");
    let Some(row) = row(transaction, &sql, &[&&id.0[..]]).await? else {
        return Ok(Consumed::Unknown);
    };
    let invitation = read_invitation(&row)?;
    match invitation.used {
        Some((by, _)) => {
            let served = found(transaction, vault).await?;
            return Ok(match served.filter(|_| by == vault) {
                Some(row) => Consumed::Before(row.record),
                None => Consumed::Spent,
            });
        }
        None if now_ms >= invitation.expires_ms => return Ok(Consumed::Expired),
        None => {}
    }
    run(
        transaction,
        "UPDATE invitations SET used_by = $2, used_ms = $3 WHERE id = $1",
        &[&&id.0[..], &&vault.0[..], &kept(now_ms)],
    )
    .await?;
    run(
        transaction,
        "INSERT INTO vaults (vault, epoch, quota, added_ms) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (vault) DO UPDATE SET quota = greatest(vaults.quota, excluded.quota), \
         epoch = excluded.epoch, statement = NULL, \
         statement_counter = greatest(vaults.statement_counter, $4)",
        &[
            &&vault.0[..],
            &&epoch[..],
            &kept(invitation.quota),
            &kept(now_ms),
        ],
    )
    .await?;
    Ok(Consumed::Now(served(transaction, vault).await?.record))
}

pub async fn set_members(
    transaction: &Transaction<'_>,
    vault: VaultId,
    members: &[DeviceId],
) -> Result<(), StoreError> {
    let number = locked(transaction, vault).await?.number;
    let sql = "DELETE FROM members WHERE number = $1";
    run(transaction, sql, &[&number]).await?;
    let members: Vec<&[u8]> = members.iter().map(|device| &device.0[..]).collect();
    run(
        transaction,
        "INSERT INTO members (number, device, vault) \
         SELECT DISTINCT $1::bigint, device, $3::bytea FROM unnest($2::bytea[]) AS device",
        &[&number, &members, &&vault.0[..]],
    )
    .await
    .map(|_| ())
}

pub async fn of_device(
    client: &impl GenericClient,
    device: DeviceId,
) -> Result<Vec<VaultId>, StoreError> {
    let sql = "SELECT vault FROM members WHERE device = $1 ORDER BY vault LIMIT $2";
    let max = kept(MAX_VAULTS_OF as u64);
    let found = rows(client, sql, &[&&device.0[..], &max]).await?;
    found
        .iter()
        .map(|row| bytes32(row, 0).map(VaultId))
        .collect()
}

pub async fn note_seen(
    transaction: &Transaction<'_>,
    vault: VaultId,
    device: DeviceId,
    at_ms: u64,
) -> Result<(), StoreError> {
    let number = locked(transaction, vault).await?.number;
    let sql = "SELECT count(*) FROM seen WHERE number = $1 AND device <> $2";
    let others = row(transaction, sql, &[&number, &&device.0[..]]).await?;
    let others = others.map_or(Ok(0), |row| number_at(&row, 0))?;
    bounds::one_more_device(usize::try_from(others).unwrap_or(usize::MAX))?;
    run(
        transaction,
        "INSERT INTO seen (number, device, at_ms) VALUES ($1, $2, $3) \
         ON CONFLICT (number, device) DO UPDATE SET at_ms = greatest(seen.at_ms, excluded.at_ms)",
        &[&number, &&device.0[..], &kept(at_ms)],
    )
    .await
    .map(|_| ())
}

pub async fn seen(
    client: &impl GenericClient,
    vault: VaultId,
) -> Result<Vec<(DeviceId, u64)>, StoreError> {
    let number = served(client, vault).await?.number;
    let sql = "SELECT device, at_ms FROM seen WHERE number = $1 ORDER BY device";
    let found = rows(client, sql, &[&number]).await?;
    found
        .iter()
        .map(|row| Ok((device_at(row, 0)?, number_at(row, 1)?)))
        .collect()
}

/// Takes a vault out of those that are served, and notes that all under its number is to be erased.
pub async fn begin_erasing(
    transaction: &Transaction<'_>,
    vault: VaultId,
    receipt: &[u8],
    now_ms: u64,
) -> Result<Option<i64>, StoreError> {
    let number = match locked(transaction, vault).await {
        Ok(row) => row.number,
        Err(StoreError::NoVault(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let sql = "DELETE FROM vaults WHERE number = $1";
    run(transaction, sql, &[&number]).await?;
    let sql = "DELETE FROM members WHERE number = $1";
    run(transaction, sql, &[&number]).await?;
    let sql = "INSERT INTO erasing (number) VALUES ($1)";
    run(transaction, sql, &[&number]).await?;
    run(
        transaction,
        "INSERT INTO receipts (vault, at_ms, receipt) VALUES ($1, $2, $3) \
         ON CONFLICT (vault) DO UPDATE SET at_ms = excluded.at_ms, receipt = excluded.receipt",
        &[&&vault.0[..], &kept(now_ms), &receipt],
    )
    .await?;
    Ok(Some(number))
}

pub async fn receipt(
    client: &impl GenericClient,
    vault: VaultId,
) -> Result<Option<Bytes>, StoreError> {
    let sql = "SELECT receipt FROM receipts WHERE vault = $1";
    let Some(row) = row(client, sql, &[&&vault.0[..]]).await? else {
        return Ok(None);
    };
    let receipt: &[u8] = row.try_get(0)?;
    Ok(Some(Bytes::copy_from_slice(receipt)))
}

pub async fn forget(transaction: &Transaction<'_>, before_ms: u64) -> Result<u64, StoreError> {
    let before = kept(before_ms);
    let sql = "DELETE FROM receipts WHERE at_ms < $1";
    let receipts = run(transaction, sql, &[&before]).await?;
    let sql = "DELETE FROM invitations WHERE expires_ms < $1";
    Ok(receipts + run(transaction, sql, &[&before]).await?)
}
