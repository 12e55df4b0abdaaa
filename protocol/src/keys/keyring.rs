//! The keys that a device holds for one space.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::cipher::{CannotOpen, TAG_LEN, one_time_key, open_in_place, seal_in_place};
use super::{EpochKey, SpaceSecret};
use crate::codec::{self, Bytes, CodecError, List};
use crate::identity::{DeviceKey, EpochId, SpaceId, VaultId};
use crate::{domain, version};

/// Epochs that a keyring may hold: one rotation a week for 78 years.
pub const KEYRING_MAX_EPOCHS: usize = 4096;

/// Bytes of the largest keyring at rest.
const MAX_LEN: usize = 128 + 40 * KEYRING_MAX_EPOCHS;
/// Bytes that make the key of a sealed keyring its own.
const SALT_LEN: usize = 32;
/// Bytes of the largest sealed keyring: version, length, and what is sealed.
const SEALED_MAX_LEN: usize = 16 + SALT_LEN + MAX_LEN + TAG_LEN;

/// Why a keyring was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// The bytes are not a keyring.
    #[error("the keyring at rest is damaged: {0}")]
    Codec(#[from] CodecError),
    /// The epoch under which one writes is not among the keys.
    #[error("the keyring lacks the key of its current epoch {0}")]
    NoCurrent(EpochId),
    /// Sealed by another device or for another vault, or altered.
    #[error(transparent)]
    Sealed(#[from] CannotOpen),
}

/// All epoch keys of a space that this device was given, which of them is written under, and the
/// space's secret.
#[derive(Clone)]
pub struct Keyring {
    space: SpaceId,
    secret: SpaceSecret,
    epochs: BTreeMap<EpochId, EpochKey>,
    current: EpochId,
}

impl Keyring {
    /// A keyring with one epoch.
    pub fn new(space: SpaceId, secret: SpaceSecret, key: EpochKey) -> Self {
        let current = key.id();
        Self {
            space,
            secret,
            epochs: BTreeMap::from([(current, key)]),
            current,
        }
    }

    /// The space whose keys these are.
    pub fn space(&self) -> SpaceId {
        self.space
    }

    /// The space's secret.
    pub fn secret(&self) -> &SpaceSecret {
        &self.secret
    }

    /// The key under which this device writes now.
    pub fn current(&self) -> &EpochKey {
        &self.epochs[&self.current]
    }

    /// The key of `epoch`, if it was given to this device.
    pub fn epoch(&self, epoch: &EpochId) -> Option<&EpochKey> {
        self.epochs.get(epoch)
    }

    /// Every epoch whose key is held, in the order of their ids.
    pub fn epochs(&self) -> impl Iterator<Item = &EpochKey> {
        self.epochs.values()
    }

    /// Adds the key of another epoch. What is written under stays as it was.
    pub fn add(&mut self, key: EpochKey) {
        self.epochs.insert(key.id(), key);
    }

    /// From now on writes under `epoch`; false, and nothing changes, without its key.
    #[must_use]
    pub fn write_under(&mut self, epoch: EpochId) -> bool {
        let held = self.epochs.contains_key(&epoch);
        if held {
            self.current = epoch;
        }
        held
    }

    /// The form in which a device keeps it in its database: sealed under the device's own secret, for this vault only. So
    /// who cannot read that secret, because it is sealed under a passphrase, can read no key of the vault either.
    ///
    /// The same keyring gives the same bytes: what makes the sealing key its own is a keyed hash of what is sealed.
    pub fn seal_at_rest(&self, device: &DeviceKey, vault: &VaultId) -> Vec<u8> {
        let plain = self.to_bytes();
        let base = at_rest_key(device);
        let mut hasher = blake3::Hasher::new_keyed(&base);
        hasher.update(b"salt").update(&plain);
        let salt = *hasher.finalize().as_bytes();
        let mut sealed = Vec::with_capacity(SALT_LEN + plain.len() + TAG_LEN);
        sealed.extend_from_slice(&salt);
        sealed.extend_from_slice(&plain);
        seal_in_place(
            &one_time_key(&base, &[&salt]),
            &vault.0,
            &mut sealed,
            SALT_LEN,
        );
        codec::encode(&Sealed {
            version: version::SEALED_KEYRING,
            sealed,
        })
    }

    /// Opens what [`seal_at_rest`](Self::seal_at_rest) made.
    pub fn open_at_rest(
        bytes: &[u8],
        device: &DeviceKey,
        vault: &VaultId,
    ) -> Result<Self, KeyringError> {
        let stored: Sealed =
            codec::decode_versioned(bytes, SEALED_MAX_LEN, version::SEALED_KEYRING)?;
        let (salt, sealed) = stored.sealed.split_at_checked(SALT_LEN).ok_or(CannotOpen)?;
        let mut plain = Zeroizing::new(sealed.to_vec());
        let key = one_time_key(&at_rest_key(device), &[salt]);
        let len = open_in_place(&key, &vault.0, &mut plain)?.len();
        Self::from_bytes(&plain[..len])
    }

    /// All keys as they are. Whoever stores them protects them.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut stored = Stored {
            version: version::KEYRING,
            space: self.space,
            secret: *self.secret.secret_bytes(),
            current: self.current,
            epochs: self
                .epochs
                .values()
                .map(|key| *key.secret_bytes())
                .collect(),
        };
        let room = Vec::with_capacity(128 + 33 * stored.epochs.len());
        let bytes = Zeroizing::new(codec::encode_onto(&stored, room));
        stored.wipe();
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) made.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyringError> {
        let mut stored: Stored = codec::decode_secret(bytes, MAX_LEN, version::KEYRING)?;
        let epochs: BTreeMap<_, _> = stored
            .epochs
            .iter()
            .map(EpochKey::from_secret)
            .map(|key| (key.id(), key))
            .collect();
        let keyring = Self {
            space: stored.space,
            secret: SpaceSecret::from_secret(&stored.secret),
            current: stored.current,
            epochs,
        };
        stored.wipe();
        if !keyring.epochs.contains_key(&keyring.current) {
            return Err(KeyringError::NoCurrent(keyring.current));
        }
        Ok(keyring)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("space", &self.space)
            .field("epochs", &self.epochs.keys())
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

fn at_rest_key(device: &DeviceKey) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(blake3::derive_key(
        domain::KEYRING_AT_REST,
        &*device.secret_bytes(),
    ))
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    version: u16,
    #[serde(with = "Bytes::<SEALED_MAX_LEN>")]
    sealed: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u16,
    space: SpaceId,
    secret: [u8; 32],
    current: EpochId,
    #[serde(with = "List::<KEYRING_MAX_EPOCHS>")]
    epochs: Vec<[u8; 32]>,
}

impl Stored {
    fn wipe(&mut self) {
        self.secret.zeroize();
        self.epochs.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keyring() -> Keyring {
        let secret = SpaceSecret::from_secret(&[1; 32]);
        let mut keyring = Keyring::new(SpaceId::HOME, secret, EpochKey::from_secret(&[2; 32]));
        keyring.add(EpochKey::from_secret(&[3; 32]));
        keyring
    }

    #[test]
    fn a_keyring_returns_from_its_bytes() {
        let mut stored = keyring();
        let newer = EpochKey::from_secret(&[3; 32]).id();
        assert!(stored.write_under(newer));
        let read = Keyring::from_bytes(&stored.to_bytes()).unwrap();
        assert_eq!(read.current().id(), newer);
        assert_eq!(read.epochs().count(), 2);
        assert_eq!(read.secret().id(), stored.secret().id());
        assert_eq!(read.to_bytes(), stored.to_bytes());
    }

    #[test]
    fn sealed_it_opens_only_on_its_device_for_its_vault() {
        let (device, vault) = (DeviceKey::from_secret([4; 32]), VaultId([5; 32]));
        let sealed = keyring().seal_at_rest(&device, &vault);
        let opened = Keyring::open_at_rest(&sealed, &device, &vault).unwrap();
        assert_eq!(opened.to_bytes(), keyring().to_bytes());
        let cannot = KeyringError::Sealed(CannotOpen);
        let other = DeviceKey::from_secret([6; 32]);
        let refused = |device, vault| Keyring::open_at_rest(&sealed, device, vault).unwrap_err();
        assert_eq!(refused(&other, &vault), cannot);
        assert_eq!(refused(&device, &VaultId([6; 32])), cannot);
        for secret in [[1; 32], [2; 32], [3; 32]] {
            assert!(!sealed.windows(32).any(|bytes| bytes == secret));
        }
        let mut more = keyring();
        more.add(EpochKey::from_secret(&[7; 32]));
        let more = more.seal_at_rest(&device, &vault);
        assert_ne!(more[4..36], sealed[4..36], "another keyring, another key");
    }

    #[test]
    fn nothing_is_written_under_an_epoch_without_its_key() {
        let mut keyring = keyring();
        let before = keyring.current().id();
        assert!(!keyring.write_under(EpochId([9; 32])));
        assert_eq!(keyring.current().id(), before);
    }

    #[test]
    fn a_keyring_without_its_current_key_is_refused() {
        let stored = Stored {
            version: version::KEYRING,
            space: SpaceId::HOME,
            secret: [1; 32],
            current: EpochId([9; 32]),
            epochs: vec![[2; 32]],
        };
        assert_eq!(
            Keyring::from_bytes(&codec::encode(&stored)).unwrap_err(),
            KeyringError::NoCurrent(EpochId([9; 32]))
        );
    }

    #[test]
    fn keys_do_not_print() {
        let printed = format!("{:?} {:?}", keyring(), keyring().current());
        assert!(!printed.contains(&hex::encode([2u8; 8])), "{printed}");
        assert!(!printed.contains("[2, 2"), "{printed}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Keyring::from_bytes(&bytes);
            let device = DeviceKey::from_secret([1; 32]);
            prop_assert!(Keyring::open_at_rest(&bytes, &device, &VaultId::NONE).is_err());
        }
    }
}
