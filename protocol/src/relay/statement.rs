//! What a host says about one vault that it keeps.
//!
//! Like a device's [held statement](crate::held) it is signed, replaceable, and about what is durable; unlike
//! it, it is clear, as a host holds no key. It travels as
//! [`Message::Held`](crate::replication::Message::Held) with the host as the device: whoever receives one tells
//! by the [role](crate::grants::Role) of the device which kind it is. Devices pass hosts' statements on to each
//! other, so that a host which tells two of them different things has signed the proof.

use serde::{Deserialize, Serialize};

use crate::identity::{DeviceId, StoreId, VaultId};
use crate::log::{CLOCK_MAX_LEN, Clock};
use crate::signed::{SIGNATURE_LEN, Signable, SignedError, Verified};
use crate::{domain, version};

/// Bytes of the longest statement as it is sent: a clock, two keys, an id and eight numbers.
pub const HOST_STATEMENT_MAX_LEN: usize = CLOCK_MAX_LEN + 256 + SIGNATURE_LEN;

/// What a host durably has of a vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostState {
    /// [`version::HOST_STATEMENT`].
    pub version: u16,
    /// The vault.
    pub vault: VaultId,
    /// Which host says so, and signs.
    pub host: DeviceId,
    /// The store that it says it of.
    pub store: StoreId,
    /// Grows with every statement about this store.
    pub counter: u64,
    /// When, in milliseconds since 1970, by the host's clock.
    pub at_ms: u64,
    /// Every entry up to here is durable.
    pub entries: Clock,
    /// Bytes of those entries.
    pub entry_bytes: u64,
    /// Blobs that are durable.
    pub blobs: u64,
    /// Bytes of those blobs.
    pub blob_bytes: u64,
    /// Bytes of both together that the host will keep.
    pub quota_bytes: u64,
}

/// A statement that its host did sign.
pub type HostStatement = Verified<HostState>;

/// Why a statement was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostStatementError {
    /// Not a statement, or not signed by the host that it is of.
    #[error("not a statement of a host: {0}")]
    Signed(#[from] SignedError),
    /// It is of another vault.
    #[error("the host's statement is of vault {0}")]
    WrongVault(VaultId),
    /// It is of another host.
    #[error("the statement is of host {0}")]
    WrongHost(DeviceId),
}

impl Signable for HostState {
    const CONTEXT: &'static str = domain::HOST_STATEMENT_SIGNATURE;
    const VERSION: u16 = version::HOST_STATEMENT;
    const MAX_LEN: usize = HOST_STATEMENT_MAX_LEN;

    fn signer(&self) -> DeviceId {
        self.host
    }
}

impl HostState {
    /// Bytes that count against the quota.
    pub fn used_bytes(&self) -> u64 {
        self.entry_bytes.saturating_add(self.blob_bytes)
    }

    /// Whether this takes the place of `older` where one is kept for each host: the host said it later of the
    /// same store, or, of another store, at a later time. Who judges hosts uses [`freshness`](super::freshness).
    pub fn replaces(&self, older: &HostState) -> bool {
        if (self.vault, self.host) != (older.vault, older.host) {
            return false;
        }
        match self.store == older.store {
            true => self.counter > older.counter,
            false => self.at_ms > older.at_ms,
        }
    }
}

impl HostStatement {
    /// Reads a statement of `host` about `vault` and checks its signature. Whether the host is in the
    /// vault is a question to the grants.
    pub fn read(
        bytes: &[u8],
        vault: &VaultId,
        host: &DeviceId,
    ) -> Result<Self, HostStatementError> {
        let statement = Self::decode(bytes)?;
        let state = statement.value();
        if state.vault != *vault {
            return Err(HostStatementError::WrongVault(state.vault));
        }
        if state.host != *host {
            return Err(HostStatementError::WrongHost(state.host));
        }
        Ok(statement)
    }
}
