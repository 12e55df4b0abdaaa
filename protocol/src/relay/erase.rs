//! Leaving a host: an owner orders it to erase the vault, the host signs that it did.
//!
//! The order names the store, so that it cannot be played again to a host that serves the vault anew. The
//! receipt is kept on the devices: it proves what the host claimed, not what it did.

use serde::{Deserialize, Serialize};

use crate::identity::{DeviceId, Hash, StoreId, VaultId};
use crate::signed::{SIGNATURE_LEN, Signable, SignedError, Verified};
use crate::{domain, version};

/// Bytes of the longest order or receipt: keys, ids and numbers.
const MAX_LEN: usize = 256 + SIGNATURE_LEN;

/// An owner's order to erase all that a host keeps of a vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EraseOrder {
    /// [`version::ERASE_ORDER`].
    pub version: u16,
    /// The vault.
    pub vault: VaultId,
    /// The host that shall erase it.
    pub host: DeviceId,
    /// The store that the host shall erase, from its newest statement.
    pub store: StoreId,
    /// The owner that orders it, and signs.
    pub owner: DeviceId,
    /// When, in milliseconds since 1970, by the owner's clock.
    pub at_ms: u64,
}

/// The host's word that it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EraseReceipt {
    /// [`version::ERASE_RECEIPT`].
    pub version: u16,
    /// The vault.
    pub vault: VaultId,
    /// The host, which signs.
    pub host: DeviceId,
    /// [`SignedOrder::id`] of the order that it followed.
    pub order: Hash,
    /// When, in milliseconds since 1970, by the host's clock.
    pub at_ms: u64,
    /// The counter of its last statement about the store.
    pub counter: u64,
    /// Blobs that it erased.
    pub blobs: u64,
    /// Bytes of entries and blobs that it erased.
    pub bytes: u64,
}

/// An order that its owner did sign.
pub type SignedOrder = Verified<EraseOrder>;
/// A receipt that its host did sign.
pub type SignedReceipt = Verified<EraseReceipt>;

/// Why an order is not followed, or a receipt not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EraseError {
    /// It does not decode, or is not signed by whom it names.
    #[error("not signed by whom it names: {0}")]
    Signed(#[from] SignedError),
    /// It is for another vault, host or store, or answers another order.
    #[error("it is about something else")]
    Unrelated,
}

impl Signable for EraseOrder {
    const CONTEXT: &'static str = domain::ERASE_ORDER_SIGNATURE;
    const VERSION: u16 = version::ERASE_ORDER;
    const MAX_LEN: usize = MAX_LEN;

    fn signer(&self) -> DeviceId {
        self.owner
    }
}

impl Signable for EraseReceipt {
    const CONTEXT: &'static str = domain::ERASE_RECEIPT_SIGNATURE;
    const VERSION: u16 = version::ERASE_RECEIPT;
    const MAX_LEN: usize = MAX_LEN;

    fn signer(&self) -> DeviceId {
        self.host
    }
}

impl SignedOrder {
    /// What the receipt names it by.
    pub fn id(&self) -> Hash {
        Hash::of(domain::ERASE_ORDER_ID, &[self.bytes()])
    }

    /// Reads an order for `vault` that `host` keeps in `store`. Whether its signer is an owner is a
    /// question to the grants.
    pub fn read(
        bytes: &[u8],
        vault: &VaultId,
        host: &DeviceId,
        store: &StoreId,
    ) -> Result<Self, EraseError> {
        let order = Self::decode(bytes)?;
        let value = order.value();
        if (&value.vault, &value.host, &value.store) != (vault, host, store) {
            return Err(EraseError::Unrelated);
        }
        Ok(order)
    }
}

impl SignedReceipt {
    /// Reads the receipt for `order`.
    pub fn read(bytes: &[u8], order: &SignedOrder) -> Result<Self, EraseError> {
        let receipt = Self::decode(bytes)?;
        let (value, ordered) = (receipt.value(), order.value());
        if (value.vault, value.host, value.order) != (ordered.vault, ordered.host, order.id()) {
            return Err(EraseError::Unrelated);
        }
        Ok(receipt)
    }
}
