//! Membership: who is in the vault, decided by signed grants alone.
//!
//! Grants form a hash-linked graph. It starts with the genesis grant, whose hash is the vault's id;
//! every other names the grants that its author knew as its parents. Whoever has the vault's id can
//! check everything from there, in whatever order the grants come, and reads the same from them as
//! everyone else ([`Membership`]). A grant also carries the keys of the space, sealed to each
//! recipient, so that who is admitted can read without any further exchange.
//!
//! The rules stand in `docs/protocol/grants.md`. A grant is accepted if its author is an owner in the
//! reading of its ancestors, and what it says fits them; that never changes. Whether an accepted grant
//! *counts* depends on all that is there: a revocation undoes what its device did unseen.
//!
//! ```text
//! grant.rs       what a grant says, and its bytes     change.rs     those of version 2
//! membership.rs  the graph                            places.rs     sets of its grants
//! judgement.rs   which grants count                   reading.rs    what those that count say
//! checks.rs      what may follow a reading            issue.rs, revoking.rs   making grants
//! ```

mod change;
mod checks;
mod grant;
mod issue;
mod judgement;
mod membership;
mod places;
mod reading;
mod revoking;
#[cfg(test)]
mod tests;

pub use change::{Cutoff, MAX_CUTOFFS, MAX_UNDONE, Revocation, RoleChange};
pub use grant::{
    DEVICE_NAME_MAX_LEN, EpochGrant, GRANT_MAX_LEN, Grant, GrantBody, MAX_EPOCH_PARENTS,
    MAX_PARENTS, MAX_SEALS, OlderEpoch, Recipient, Role, Seal, SealedName, SignedGrant,
};
pub use issue::{Founded, NewDevice, found};
pub use membership::{Inserted, MAX_FROM_FORMER, MAX_GRANTS, MAX_WAITING, Membership};
pub use reading::{Device, Fate, Former, MAX_DEVICES, Opener, Out, Writing};

use crate::identity::{DeviceId, EpochId, Hash, SpaceId, VaultId};
use crate::signed::SignedError;

/// Why a grant was not made or not accepted, or did not give what was asked of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Not a grant, of a later version, oversized, or not signed by its author.
    #[error("not a grant of this vault: {0}")]
    Signed(#[from] SignedError),
    /// It is of another vault, or a genesis grant that is not this vault's.
    #[error("the grant belongs to vault {0}")]
    WrongVault(VaultId),
    /// Nobody admitted its author.
    #[error("device {0}, which signed the grant, is not in the vault")]
    UnknownAuthor(DeviceId),
    /// Its author was admitted, but not as an owner.
    #[error("device {0}, which signed the grant, is not an owner")]
    NotOwner(DeviceId),
    /// Its author, or whom it is about, was put out of the vault.
    #[error("device {0} was revoked")]
    Revoked(DeviceId),
    /// It claims another version than the first in which such a grant was possible.
    #[error("the grant is not of the version that it claims")]
    WrongVersion,
    /// Cutoffs that are not of the device, not ascending, or more than allowed.
    #[error("the cutoffs are not those of the device's logs")]
    BadCutoffs,
    /// What it undoes is not known, or not the device's.
    #[error("the grants to undo are not the device's")]
    BadUndone,
    /// Nobody revokes themselves or changes their own role.
    #[error("device {0} cannot do this to itself")]
    Oneself(DeviceId),
    /// The device has this role, or can never have it: a relay host holds no keys, all others do.
    #[error("device {0} cannot be given this role")]
    BadRole(DeviceId),
    /// The recovery key is the present one, or no usable key.
    #[error("this cannot be the recovery key")]
    BadRecovery,
    /// More void grants than are kept of devices that are out.
    #[error("{MAX_FROM_FORMER} grants of revoked devices are here already")]
    TooManyVoid,
    /// Parents are missing, too many, not in order, or given where there can be none.
    #[error("the grant's parents are not as they must be")]
    BadParents,
    /// The admitted device's key is none, or the recovery key.
    #[error("{0} cannot be a device")]
    BadDevice(DeviceId),
    /// A device that is in the vault cannot be admitted once more under another role.
    #[error("device {0} is in the vault with another role")]
    RoleChange(DeviceId),
    /// The vault has as many devices as it can.
    #[error("the vault has {MAX_DEVICES} devices, which is the most")]
    TooManyDevices,
    /// The seals are not exactly those that this grant must carry.
    #[error("the grant's seals are not for exactly those who must get them")]
    BadSeals,
    /// The epoch exists, or its parents or space secret do not fit the epochs before.
    #[error("epoch {0} does not fit the epochs before it")]
    BadEpoch(EpochId),
    /// More grants than a vault may have.
    #[error("the vault has {MAX_GRANTS} grants, which is the most")]
    TooManyGrants,
    /// Too many grants wait for parents that never came.
    #[error("{MAX_WAITING} grants wait for others already")]
    TooManyWaiting,
    /// The grants lack some of their ancestors.
    #[error("the grants do not reach back to the vault's beginning: {0} is missing")]
    Incomplete(Hash),
    /// No grant gives this recipient a key of the space.
    #[error("no grant gives the keys of space {0}")]
    NoKey(SpaceId),
    /// A seal for this recipient does not open, or does not hold what its grant commits to.
    #[error("the seal of epoch {0} does not hold the key that it promises")]
    BadSeal(EpochId),
    /// Longer than a device's name may be.
    #[error("a device's name has at most {DEVICE_NAME_MAX_LEN} bytes, this has {0}")]
    NameTooLong(usize),
    /// A sealed name that does not open.
    #[error("the device's name does not open")]
    BadName,
}
