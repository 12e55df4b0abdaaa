//! A vault leaves the host: at the order of an owner, who gets a signed receipt, or by the host's person.

use bytes::Bytes;
use coffer_protocol::grants::Role;
use coffer_protocol::identity::{DeviceId, Hash, StoreId, VaultId};
use coffer_protocol::relay::{Answer, EraseReceipt, Refusal, SignedOrder, SignedReceipt};
use coffer_protocol::version;

use super::host::{Host, now_ms};
use super::session::admitted;
use super::store::{Snapshot, StoreError};

/// Does what an order says, if it is an owner's, for this host and this very store. Asked again it gives the receipt of
/// what was done.
pub async fn on_order(host: &Host, device: DeviceId, order: &[u8]) -> Answer {
    let followed = follow(host, device, order).await;
    followed.unwrap_or_else(|error| {
        host.store_failed("erase a vault", &error);
        Answer::refused(Refusal::FAILING)
    })
}

async fn follow(host: &Host, device: DeviceId, bytes: &[u8]) -> Result<Answer, StoreError> {
    let Ok(order) = SignedOrder::decode(bytes) else {
        return Ok(Answer::refused(Refusal::MALFORMED));
    };
    let vault = order.value().vault;
    if let Some(receipt) = earlier(host, vault, &order).await? {
        return Ok(Answer::erased(&receipt));
    }
    let Some(resident) = admitted(host, vault, device).await else {
        return Ok(Answer::refused(Refusal::NOT_YOURS));
    };
    let Some(snapshot) = host.store.snapshot(vault).await? else {
        return Ok(Answer::refused(Refusal::NOT_YOURS));
    };
    let store = StoreId(snapshot.record.epoch);
    let is_owners = resident.role(&order.value().owner) == Some(Role::Owner);
    if !is_owners || SignedOrder::read(bytes, &vault, &host.id, &store).is_err() {
        return Ok(Answer::refused(Refusal::ORDER));
    }
    let receipt = receipt(host, vault, order.id(), &snapshot)?;
    erase(host, vault, &receipt).await?;
    Ok(Answer::erased(&receipt))
}

/// The receipt, where this very order was followed before.
async fn earlier(
    host: &Host,
    vault: VaultId,
    order: &SignedOrder,
) -> Result<Option<SignedReceipt>, StoreError> {
    if host.store.vault(vault).await?.is_some() {
        return Ok(None);
    }
    let receipt = host.store.receipt(vault).await?;
    Ok(receipt.and_then(|bytes| SignedReceipt::read(&bytes, order).ok()))
}

/// Erases a vault because the host's person says so. `false` if it is not served.
pub async fn by_hand(host: &Host, vault: VaultId) -> Result<bool, StoreError> {
    let Some(snapshot) = host.store.snapshot(vault).await? else {
        return Ok(false);
    };
    let receipt = receipt(host, vault, Hash::ZERO, &snapshot)?;
    erase(host, vault, &receipt).await
}

fn receipt(
    host: &Host,
    vault: VaultId,
    order: Hash,
    snapshot: &Snapshot,
) -> Result<SignedReceipt, StoreError> {
    let value = EraseReceipt {
        version: version::ERASE_RECEIPT,
        vault,
        host: host.id,
        order,
        at_ms: now_ms(),
        counter: snapshot.counter,
        blobs: snapshot.record.usage.blobs,
        bytes: snapshot.record.usage.bytes(),
    };
    SignedReceipt::sign(value, &host.key).map_err(|error| StoreError::Failed(error.to_string()))
}

async fn erase(host: &Host, vault: VaultId, receipt: &SignedReceipt) -> Result<bool, StoreError> {
    let bytes = Bytes::copy_from_slice(receipt.bytes());
    let erased = host.store.erase(vault, bytes, now_ms()).await;
    // Also when it failed halfway: nothing of it is served from the moment of the call.
    if let Some(resident) = host.vaults.remove(&vault) {
        resident.close_all().await;
    }
    if erased == Ok(true) {
        host.metrics.vaults_erased.inc();
        tracing::info!(vault = %host.marks.vault(vault), "a vault was erased");
    }
    erased
}
