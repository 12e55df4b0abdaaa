//! What a grant says, and its bytes.

use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::GrantError;
use super::change::{Revocation, RoleChange};
use crate::codec::{Bytes, List};
use crate::domain;
use crate::identity::{DeviceId, EpochId, Hash, SpaceId, VaultId};
use crate::keys::{
    self, BOX_OVERHEAD, EpochKey, Keyring, SEALED_OVERHEAD, SealingKey, SealingPublic, SpaceSecret,
};
use crate::recovery::RecoveryPublic;
use crate::signed::{Signable, Verified};
use crate::version;

/// Parents that a grant may name, as many as a header of an entry names heads.
pub const MAX_PARENTS: usize = crate::log::MAX_GRANT_HEADS;
/// Seals in one grant: every device and the recovery key.
pub const MAX_SEALS: usize = 256;
/// Epochs that one epoch may follow.
pub const MAX_EPOCH_PARENTS: usize = 16;
/// Bytes of the longest grant, signature included: [`MAX_SEALS`] seals of some 1.3 KB.
pub const GRANT_MAX_LEN: usize = 384 << 10;
/// Bytes of the longest device name.
pub const DEVICE_NAME_MAX_LEN: usize = 127;

/// Names are padded to a multiple of this many bytes before they are sealed.
const NAME_STEP: usize = 32;
const SEALED_NAME_MAX_LEN: usize = 1 + DEVICE_NAME_MAX_LEN + BOX_OVERHEAD;
const SEALED_KEYS_LEN: usize = 64 + SEALED_OVERHEAD;
const OLDER_KEY_LEN: usize = 32 + BOX_OVERHEAD;

/// What a device may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Reads, writes, and admits others.
    Owner,
    /// Reads and writes.
    Member,
    /// Reads.
    Reader,
    /// Keeps and forwards ciphertext; holds no key.
    Relay,
}

impl Role {
    /// Whether it is given the keys of the space.
    pub fn holds_keys(self) -> bool {
        self != Role::Relay
    }

    /// Whether entries of its log count.
    pub fn writes(self) -> bool {
        matches!(self, Role::Owner | Role::Member)
    }
}

/// One signed membership operation.
pub type SignedGrant = Verified<Grant>;

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// [`version::GRANT`], or for what was possible before it the version of then: see
    /// [`GrantBody::version`].
    pub version: u16,
    /// The vault; [`VaultId::NONE`] in the genesis grant.
    pub vault: VaultId,
    /// The grants that the author knew and that no other it knew builds on, ascending. None in the
    /// genesis grant, and only there.
    #[serde(with = "List::<MAX_PARENTS>")]
    pub parents: Vec<Hash>,
    /// Who signs: an owner, or since version 2 the recovery key.
    pub author: DeviceId,
    /// What is granted.
    pub body: GrantBody,
}

/// What a grant does. A further kind comes with a further version of grants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GrantBody {
    /// Begins a vault. Its author is the first device, an owner.
    Genesis {
        /// The way back in when all devices are lost.
        recovery: RecoveryPublic,
        /// To what is sealed for the first device.
        sealing: SealingPublic,
        /// The first device's name.
        name: SealedName,
        /// When, in milliseconds since 1970, by the author's clock.
        created_ms: u64,
        /// Random, so that no two vaults have the same id.
        salt: [u8; 32],
    },
    /// Begins an epoch of a space, or with its first epoch the space.
    Epoch(EpochGrant),
    /// Admits a device; renews its name, sealing key and seals if it was admitted before.
    Admit {
        /// The device.
        device: DeviceId,
        /// To what is sealed for it.
        sealing: SealingPublic,
        /// What it may do.
        role: Role,
        /// Its name.
        name: SealedName,
        /// The keys of the present epochs for it; none for a relay.
        #[serde(with = "List::<MAX_SEALS>")]
        seals: Vec<Seal>,
        /// When, in milliseconds since 1970, by the author's clock.
        created_ms: u64,
    },
    /// Puts a device out of the vault. Since version 2, like those below.
    Revoke(Revocation),
    /// Gives a device another role.
    Role(RoleChange),
    /// Puts another recovery key in the place of the present one.
    Replace {
        /// The new one.
        recovery: RecoveryPublic,
        /// When, in milliseconds since 1970, by the author's clock.
        created_ms: u64,
    },
}

impl GrantBody {
    /// The version that a grant with this body has: the first in which it was possible.
    pub(super) fn version(&self, by_recovery_key: bool) -> u16 {
        match self {
            _ if by_recovery_key => version::GRANT,
            Self::Genesis { .. } | Self::Epoch(_) | Self::Admit { .. } => 1,
            Self::Revoke(_) | Self::Role(_) | Self::Replace { .. } => version::GRANT,
        }
    }
}

/// A new epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochGrant {
    /// The space.
    pub space: SpaceId,
    /// The commitment to the new key.
    pub epoch: EpochId,
    /// The commitment to the space's secret, the same in all its epochs.
    pub secret: Hash,
    /// The epochs that it follows, ascending, each with its key for who has the new one.
    #[serde(with = "List::<MAX_EPOCH_PARENTS>")]
    pub parents: Vec<OlderEpoch>,
    /// The keys for the recovery key and for each key-holding device, ascending by recipient.
    #[serde(with = "List::<MAX_SEALS>")]
    pub seals: Vec<Seal>,
}

/// An older epoch, with its key sealed under the newer one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OlderEpoch {
    /// The older epoch.
    pub epoch: EpochId,
    /// Its 32 bytes, boxed under the newer epoch's key.
    #[serde(with = "Bytes::<OLDER_KEY_LEN>")]
    pub sealed: Vec<u8>,
}

/// Whom a seal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Recipient {
    /// The vault's recovery key.
    Recovery,
    /// A device.
    Device(DeviceId),
}

/// An epoch's key and its space's secret, for one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Who can open it.
    pub recipient: Recipient,
    /// The epoch whose key it holds.
    pub epoch: EpochId,
    /// HPKE: encapsulated key ‖ ciphertext of 64 bytes ‖ tag.
    #[serde(with = "Bytes::<SEALED_KEYS_LEN>")]
    pub sealed: Vec<u8>,
}

/// A device's name, readable for who holds the epoch's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedName {
    /// The epoch under which it is sealed.
    pub epoch: EpochId,
    /// Length, name and zeros, boxed.
    #[serde(with = "Bytes::<SEALED_NAME_MAX_LEN>")]
    pub sealed: Vec<u8>,
}

impl Signable for Grant {
    const CONTEXT: &'static str = domain::GRANT_SIGNATURE;
    const VERSION: u16 = version::GRANT;
    const MAX_LEN: usize = GRANT_MAX_LEN;

    fn signer(&self) -> DeviceId {
        self.author
    }
}

impl SignedGrant {
    /// The grant's id: a hash of what is signed, without the signature.
    pub fn id(&self) -> Hash {
        Hash::of(domain::GRANT_ID, &[self.message()])
    }

    /// The vault it belongs to; for a genesis grant the one that it begins.
    pub fn vault(&self) -> VaultId {
        match self.value().body {
            GrantBody::Genesis { .. } => VaultId(self.id().0),
            _ => self.value().vault,
        }
    }
}

impl Recipient {
    /// What the seal's encryption vouches for besides the keys: no device's id is shorter than the
    /// recovery key's empty one.
    fn associated_data(&self) -> &[u8] {
        match self {
            Recipient::Recovery => &[],
            Recipient::Device(device) => &device.0,
        }
    }
}

/// HPKE's `info`: what the seal is for. The vault is left out because the first epoch's keys are
/// older than the vault's id; the signature of the grant binds it.
fn seal_info(space: SpaceId, epoch: EpochId) -> Vec<u8> {
    [domain::SEAL.as_bytes(), &[0], &space.0, &epoch.0].concat()
}

impl Seal {
    pub(super) fn new(
        recipient: Recipient,
        to: &SealingPublic,
        space: SpaceId,
        key: &EpochKey,
        secret: &SpaceSecret,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Self {
        let mut plain = Zeroizing::new([0; 64]);
        plain[..32].copy_from_slice(key.secret_bytes());
        plain[32..].copy_from_slice(secret.secret_bytes());
        Self {
            recipient,
            epoch: key.id(),
            sealed: to.seal(
                &seal_info(space, key.id()),
                recipient.associated_data(),
                &*plain,
                rng,
            ),
        }
    }

    /// The keys, if they open and are the ones that `epoch` and `secret` commit to.
    pub(super) fn open(
        &self,
        with: &SealingKey,
        space: SpaceId,
        secret: &Hash,
    ) -> Result<(EpochKey, SpaceSecret), GrantError> {
        let bad = GrantError::BadSeal(self.epoch);
        let info = seal_info(space, self.epoch);
        let plain = with
            .open(&info, self.recipient.associated_data(), &self.sealed)
            .map_err(|_| bad.clone())?;
        let (key, rest) = plain.split_first_chunk::<32>().ok_or_else(|| bad.clone())?;
        let rest: &[u8; 32] = rest.try_into().map_err(|_| bad.clone())?;
        let (key, opened) = (EpochKey::from_secret(key), SpaceSecret::from_secret(rest));
        if key.id() != self.epoch || opened.id() != *secret {
            return Err(bad);
        }
        Ok((key, opened))
    }
}

impl OlderEpoch {
    pub(super) fn new(
        older: &EpochKey,
        newer: &EpochKey,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Self {
        Self {
            epoch: older.id(),
            sealed: keys::seal_box(newer.older(), &older.id().0, older.secret_bytes(), rng),
        }
    }

    /// The older key, if it opens under the newer and is the one that its id commits to.
    pub(super) fn open(&self, newer: &EpochKey) -> Result<EpochKey, GrantError> {
        let bad = GrantError::BadSeal(self.epoch);
        let plain =
            keys::open_box(newer.older(), &self.epoch.0, &self.sealed).map_err(|_| bad.clone())?;
        let secret = <&[u8; 32]>::try_from(&plain[..]).map_err(|_| bad.clone())?;
        let key = EpochKey::from_secret(secret);
        if key.id() == self.epoch {
            Ok(key)
        } else {
            Err(bad)
        }
    }
}

impl SealedName {
    /// Seals the name of `device`, of at most [`DEVICE_NAME_MAX_LEN`] bytes.
    pub fn new(
        name: &str,
        device: &DeviceId,
        key: &EpochKey,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, GrantError> {
        let len = u8::try_from(name.len())
            .ok()
            .filter(|len| usize::from(*len) <= DEVICE_NAME_MAX_LEN)
            .ok_or(GrantError::NameTooLong(name.len()))?;
        let mut plain = Zeroizing::new(vec![len]);
        plain.extend_from_slice(name.as_bytes());
        let padded = plain.len().next_multiple_of(NAME_STEP);
        plain.resize(padded, 0);
        Ok(Self {
            epoch: key.id(),
            sealed: keys::seal_box(key.names(), &device.0, &plain, rng),
        })
    }

    /// The name of `device`, if `keyring` has the epoch's key.
    pub fn open(&self, device: &DeviceId, keyring: &Keyring) -> Result<String, GrantError> {
        let key = keyring.epoch(&self.epoch).ok_or(GrantError::BadName)?;
        let plain = keys::open_box(key.names(), &device.0, &self.sealed)
            .map_err(|_| GrantError::BadName)?;
        let (len, rest) = plain.split_first().ok_or(GrantError::BadName)?;
        let (name, padding) = rest
            .split_at_checked(usize::from(*len))
            .ok_or(GrantError::BadName)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(GrantError::BadName);
        }
        String::from_utf8(name.to_vec()).map_err(|_| GrantError::BadName)
    }
}
