//! What grants of version 2 say: who goes, and who may do something else from now on.

use serde::{Deserialize, Serialize};

use super::Role;
use crate::codec::List;
use crate::identity::{DeviceId, Hash, WriterId};

/// Logs of one device that a cutoff is fixed for: one for each time that its data folder was copied or
/// restored.
pub const MAX_CUTOFFS: usize = 256;
/// Grants of one device that a revocation can undo.
pub const MAX_UNDONE: usize = 256;

/// Up to where a log counts whatever comes to light later: what the author of the grant had of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cutoff {
    /// The log.
    pub writer: WriterId,
    /// The last entry that counts, at least 1.
    pub seq: u64,
    /// The hash of its header.
    pub header: Hash,
}

/// Puts a device out of the vault, for good: its key may be in anybody's hands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// The device.
    pub device: DeviceId,
    /// How far its logs count, ascending by writer. Of a log that is not named nothing does.
    #[serde(with = "List::<MAX_CUTOFFS>")]
    pub cutoffs: Vec<Cutoff>,
    /// Grants of the device that the author knew and that shall not count all the same, ascending:
    /// above all the device's own revocation of others.
    #[serde(with = "List::<MAX_UNDONE>")]
    pub undone: Vec<Hash>,
    /// The owner who may compact the device's closed logs.
    pub keeper: Option<DeviceId>,
    /// When, in milliseconds since 1970, by the author's clock.
    pub created_ms: u64,
}

/// Gives a device that is in the vault another role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleChange {
    /// The device.
    pub device: DeviceId,
    /// What it may do from now on; never, or always, a relay host.
    pub role: Role,
    /// Where it may no longer write: how far its logs count. Else none.
    #[serde(with = "List::<MAX_CUTOFFS>")]
    pub cutoffs: Vec<Cutoff>,
    /// When, in milliseconds since 1970, by the author's clock.
    pub created_ms: u64,
}
