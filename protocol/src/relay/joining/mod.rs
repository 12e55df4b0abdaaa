//! Binding a vault to a host: `/coffer/relay-join/1`.
//!
//! libp2p has authenticated both keys before the first message, and the device knows the host's key from the
//! invitation: so the secret goes to its maker and to nobody else, encrypted, and needs no proof around it.
//!
//! ```text
//! device                                   host
//!   Join{versions, vault, secret}  ───────►        known by the secret's hash
//!                                  ◄───────  Welcome{version, sealing key, name, quota, store}
//!                                                  the device admits the host by a grant
//!   Bind{grants}                   ───────►        checked from the vault's id alone; stored
//!                                  ◄───────  Bound
//! ```
//!
//! An invitation binds one vault; the same vault may use it again, for a device that lost the answer. A device
//! of a bound vault that the host has not heard of, as it was admitted while the host was away, joins without
//! a secret: its grants speak for it. A stranger learns only that it is refused.

mod device;
mod host;

pub use device::{DeviceSide, DeviceStep};
pub use host::{HostSide, HostStep, Standing};

use serde::{Deserialize, Serialize};

use super::invitation::HOST_NAME_MAX_LEN;
use crate::byte_strings::ByteStrings;
use crate::codec::{self, CodecError, List, Text};
use crate::grants::{GRANT_MAX_LEN, MAX_GRANTS, Membership, Role};
use crate::identity::{DeviceId, StoreId, VaultId};
use crate::keys::SealingPublic;

/// Most bytes of a message other than `Bind`: what a stranger can make either side hold.
pub const MAX_JOIN_MESSAGE: usize = 4096;
/// Most bytes of `Bind`. A host reads it only after it has seen a secret or knows the vault.
pub const MAX_BIND: usize = 16 << 20;
/// How long a host waits for the next message of one that joins, in milliseconds.
pub const JOIN_TIMEOUT_MS: u64 = 30_000;

/// Most protocol versions that one Join names.
const MAX_VERSIONS: usize = 16;

/// Why a vault was not bound to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The other side sent what no message of joining is, or out of turn.
    #[error("the other side sent something that is not part of this conversation")]
    Malformed,
    /// The programs speak no version in common.
    #[error("the host runs a version of coffer that does this differently")]
    NoCommonVersion,
    /// Who answers is not the host that the invitation names.
    #[error("what answers at this address is not the host that made the invitation")]
    WrongHost,
    /// The host knows no such invitation, and does not keep this vault.
    #[error("the host does not know this invitation")]
    NotInvited,
    /// The invitation's time is over.
    #[error("the host's invitation has expired")]
    Expired,
    /// Another vault has used it.
    #[error("the invitation was used for another vault")]
    Used,
    /// The grants do not show what they must.
    #[error("the host does not accept this device: {0}")]
    Refused(#[from] BindError),
    /// Too much at once, or the host's disk fails. Later.
    #[error("the host cannot do this now")]
    Busy,
    /// This side could not make or store the grant.
    #[error("the host could not be admitted to the vault")]
    NotAdmitted,
    /// The connection ended in between.
    #[error("the connection to the host ended")]
    Disconnected,
}

/// Why grants do not bind a vault to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// They are not the whole of a vault's grants.
    #[error("the vault's grants are not valid")]
    Grants,
    /// The device that sends them is not in the vault, or in a role that may not bind it.
    #[error("the device may not do this for the vault")]
    Device,
    /// They do not admit this host as a host.
    #[error("the vault's grants do not admit the host")]
    Host,
}

/// A host, as it introduces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The key that is named in its admission; nothing is sealed to it.
    pub sealing: SealingPublic,
    /// What it calls itself.
    pub name: String,
    /// Bytes of entries and blobs that it will keep of the vault.
    pub quota_bytes: u64,
    /// The store that it will keep them in; of a vault that is not bound yet, the one that it will begin.
    pub store: StoreId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum ToHost {
    Join {
        #[serde(with = "List::<MAX_VERSIONS>")]
        versions: Vec<u16>,
        vault: VaultId,
        secret: Option<[u8; 32]>,
    },
    Bind {
        #[serde(with = "ByteStrings::<MAX_GRANTS, GRANT_MAX_LEN>")]
        grants: Vec<Vec<u8>>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum ToDevice {
    Welcome {
        version: u16,
        sealing: SealingPublic,
        #[serde(with = "Text::<HOST_NAME_MAX_LEN>")]
        name: String,
        quota_bytes: u64,
        store: StoreId,
    },
    Bound,
    Refused {
        reason: u16,
    },
}

impl ToDevice {
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, MAX_JOIN_MESSAGE)
    }
}

/// Whether these grants, sent by `device`, bind their vault to `host`, or let the device use it where the
/// vault is bound already (`bound`): then any role that holds keys will do. The grants must be merged with
/// those that the host has, so that old ones do not bring back who was revoked since.
pub fn check_binding(
    membership: &Membership,
    device: &DeviceId,
    host: &DeviceId,
    bound: bool,
) -> Result<(), BindError> {
    match membership.role(device) {
        Some(Role::Owner) => {}
        Some(role) if bound && role.holds_keys() => {}
        _ => return Err(BindError::Device),
    }
    match membership.role(host) {
        Some(Role::Relay) => Ok(()),
        _ => Err(BindError::Host),
    }
}

/// The number that stands for a reason on the wire.
fn reason(why: JoinError) -> u16 {
    match why {
        JoinError::NotInvited => 1,
        JoinError::Expired => 2,
        JoinError::Used => 3,
        JoinError::NoCommonVersion => 4,
        JoinError::Refused(BindError::Grants) => 5,
        JoinError::Refused(BindError::Device) => 6,
        JoinError::Refused(BindError::Host) => 7,
        JoinError::Malformed => 8,
        _ => 9,
    }
}

/// What a refusal of this number means to the device.
fn refused(reason: u16) -> JoinError {
    match reason {
        1 => JoinError::NotInvited,
        2 => JoinError::Expired,
        3 => JoinError::Used,
        4 => JoinError::NoCommonVersion,
        5 => JoinError::Refused(BindError::Grants),
        6 => JoinError::Refused(BindError::Device),
        7 => JoinError::Refused(BindError::Host),
        8 => JoinError::Malformed,
        _ => JoinError::Busy,
    }
}
