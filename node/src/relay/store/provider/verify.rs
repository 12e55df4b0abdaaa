//! Blobs whose bytes the object storage has damaged or lost: found by reading them again, and forgotten.
//!
//! A place that was read is named once more in the step that forgets it: as no pack's number is used again, a blob that was
//! moved or put anew meanwhile has another place, and stays.

use coffer_protocol::blobs::is_blob;
use coffer_protocol::identity::{Hash, VaultId};

use super::super::runs::Place;
use super::super::{StoreError, What};
use super::Inner;
use super::blobs::{count_out, places};
use super::database::{connection, hash_at, kept, locked, rows, run};
use super::listening::notify;

/// Reads blobs again, and forgets those that are not whole.
pub async fn verify(inner: &Inner, vault: VaultId, ids: &[Hash]) -> Result<Vec<Hash>, StoreError> {
    let (number, places) = places(inner, vault, ids).await?;
    let mut damaged = Vec::new();
    for (id, place) in places {
        if !is_whole(inner, number, &id, place).await? {
            damaged.push((id, place));
        }
    }
    if damaged.is_empty() {
        return Ok(Vec::new());
    }
    forget(inner, vault, number, &damaged).await
}

/// Whether the bytes at a place are those of the blob.
async fn is_whole(inner: &Inner, number: i64, id: &Hash, place: Place) -> Result<bool, StoreError> {
    let read = inner
        .objects
        .read(number, place.pack, place.offset, place.len as usize);
    match read.await {
        Ok(bytes) => Ok(bytes.is_some_and(|bytes| is_blob(id, &bytes))),
        Err(StoreError::Damaged(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Forgets blobs that still lie where they were found damaged.
pub async fn forget(
    inner: &Inner,
    vault: VaultId,
    number: i64,
    damaged: &[(Hash, Place)],
) -> Result<Vec<Hash>, StoreError> {
    let mut client = connection(&inner.pool).await?;
    let transaction = client.transaction().await?;
    let row = locked(&transaction, vault).await?;
    if row.number != number {
        return Ok(Vec::new());
    }
    let ids: Vec<&[u8]> = damaged.iter().map(|(id, _)| &id.0[..]).collect();
    let packs: Vec<i64> = damaged.iter().map(|(_, place)| kept(place.pack)).collect();
    let offsets: Vec<i64> = damaged
        .iter()
        .map(|(_, place)| i64::from(place.offset))
        .collect();
    let gone = rows(
        &transaction,
        "DELETE FROM blobs USING unnest($2::bytea[], $3::bigint[], $4::bigint[]) AS damaged(id, pack, place) \
         WHERE blobs.number = $1 AND blobs.id = damaged.id AND blobs.pack = damaged.pack \
         AND blobs.place = damaged.place RETURNING blobs.pack, blobs.len, blobs.id",
        &[&number, &ids, &packs, &offsets],
    )
    .await?;
    let forgotten: Vec<Hash> = gone
        .iter()
        .map(|row| hash_at(row, 2))
        .collect::<Result<_, _>>()?;
    let names: Vec<&[u8]> = forgotten.iter().map(|id| &id.0[..]).collect();
    let sql = "DELETE FROM released WHERE number = $1 AND id = ANY($2)";
    run(&transaction, sql, &[&number, &names]).await?;
    count_out(&transaction, row, &gone).await?;
    notify(&transaction, &inner.instance, vault, What::Blobs).await?;
    transaction.commit().await?;
    Ok(forgotten)
}
