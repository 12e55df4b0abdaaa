//! A device's keys in a file that opens only with a passphrase, or with a secret that the system's password store keeps.
//!
//! The file `identity`, version 2, integers little-endian:
//!
//! ```text
//! "coffer-i" · 2 u8 · 1 u8 · memory KiB u32 · passes u32 · lanes u32 · salt[32] · sealed[112] · BLAKE3[32]    passphrase
//! "coffer-i" · 2 u8 · 2 u8 · id[16] · sealed[112] · BLAKE3[32]                                                login
//! ```
//!
//! What is sealed is bound to all that stands before it. docs/storage/tables.md says the same, docs/protocol/keys.md how a
//! passphrase becomes a key.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use coffer_protocol::keys::{LOCKED_LEN, LockKey};
use rand::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

use super::identity::{CHECK_LEN, Identity, LOCKED, MAGIC};
use crate::store::StoreError;

const BY_PASSPHRASE: u8 = 1;
const BY_LOGIN: u8 = 2;
/// Where what tells the two apart begins.
const ABOUT: usize = 8 + 1 + 1;
const SALT_LEN: usize = 32;
/// Bytes of the name under which the password store keeps a secret.
const ID_LEN: usize = 16;

/// What a try at a passphrase costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Cost {
    /// What a passphrase is sealed with now: RFC 9106's second recommendation (64 MiB, 4 lanes) with twice its passes,
    /// which comes to about half a second on a small computer. That is done once a start.
    pub const NOW: Cost = Cost {
        memory_kib: 64 << 10,
        passes: 6,
        lanes: 4,
    };
    /// The most that is done on the word of a file: 1 GiB, and some tens of seconds.
    const MOST: Cost = Cost {
        memory_kib: 1 << 20,
        passes: 64,
        lanes: 16,
    };

    /// Whether a passphrase sealed so should be sealed anew.
    pub fn is_less_than(&self, other: &Cost) -> bool {
        self.memory_kib < other.memory_kib || self.passes < other.passes
    }

    fn params(&self) -> Result<Params, StoreError> {
        let within = self.memory_kib <= Cost::MOST.memory_kib
            && self.passes <= Cost::MOST.passes
            && self.lanes <= Cost::MOST.lanes;
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32));
        params.ok().filter(|_| within).ok_or_else(altered)
    }
}

/// How a device's keys are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Under a passphrase.
    Passphrase {
        /// What a try costs.
        cost: Cost,
        /// Makes the same passphrase another key elsewhere.
        salt: [u8; SALT_LEN],
    },
    /// Under a secret that the system's password store keeps.
    Login {
        /// Under which name.
        id: [u8; ID_LEN],
    },
}

/// Why keys were not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another passphrase or secret; or damage, which nobody can tell from it.
    #[error("this is not the passphrase")]
    Wrong,
    /// There is not as much memory as a try takes.
    #[error("there is not enough memory to check the passphrase")]
    Memory,
}

/// A device's keys, sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locked {
    by: By,
    sealed: [u8; LOCKED_LEN],
}

impl Locked {
    /// Seals keys under a passphrase. Takes as long as a try at it, and as much memory.
    pub fn by_passphrase(
        identity: &Identity,
        passphrase: &str,
        cost: Cost,
        rng: &mut impl CryptoRng,
    ) -> Result<Locked, Refused> {
        let mut salt = [0; SALT_LEN];
        rng.fill_bytes(&mut salt);
        let by = By::Passphrase { cost, salt };
        let key = stretch(passphrase, &cost, &salt)?;
        Ok(Locked::seal(by, &key, identity, rng))
    }

    /// Seals keys under a secret that is kept under the name `id`.
    pub fn by_login(
        identity: &Identity,
        id: [u8; ID_LEN],
        secret: &[u8; 32],
        rng: &mut impl CryptoRng,
    ) -> Locked {
        Locked::seal(By::Login { id }, &LockKey::of_login(secret), identity, rng)
    }

    fn seal(by: By, key: &LockKey, identity: &Identity, rng: &mut impl CryptoRng) -> Locked {
        let bytes = key.seal(&identity.key, &identity.sealing, &about(&by), rng);
        let mut sealed = [0; LOCKED_LEN];
        sealed.copy_from_slice(&bytes);
        Locked { by, sealed }
    }

    /// How they are sealed.
    pub fn by(&self) -> &By {
        &self.by
    }

    /// The name of the secret that the password store keeps for it, if that is how they are sealed.
    pub fn login(&self) -> Option<[u8; ID_LEN]> {
        match self.by {
            By::Login { id } => Some(id),
            By::Passphrase { .. } => None,
        }
    }

    /// Opens keys that are sealed under a passphrase. Takes about half a second, and the memory of [`Cost`].
    pub fn open_with_passphrase(&self, passphrase: &str) -> Result<Identity, Refused> {
        let By::Passphrase { cost, salt } = &self.by else {
            return Err(Refused::Wrong);
        };
        self.open(&stretch(passphrase, cost, salt)?)
    }

    /// Opens keys that are sealed under a secret of the password store.
    pub fn open_with_login(&self, secret: &[u8; 32]) -> Result<Identity, Refused> {
        self.open(&LockKey::of_login(secret))
    }

    fn open(&self, key: &LockKey) -> Result<Identity, Refused> {
        let opened = key.open(&self.sealed, &about(&self.by));
        let (key, sealing) = opened.map_err(|_| Refused::Wrong)?;
        Ok(Identity { key, sealing })
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = about(&self.by);
        bytes.extend_from_slice(&self.sealed);
        let check = blake3::hash(&bytes);
        bytes.extend_from_slice(check.as_bytes());
        bytes
    }

    /// Reads a file without its checksum, of which version and checksum were found right.
    pub(super) fn parse(bytes: &[u8]) -> Result<Locked, StoreError> {
        let (by, sealed) = match (bytes.get(ABOUT - 1), bytes.get(ABOUT..)) {
            (Some(&BY_PASSPHRASE), Some(rest)) if rest.len() == 12 + SALT_LEN + LOCKED_LEN => {
                let number = |at: usize| {
                    let mut four = [0; 4];
                    four.copy_from_slice(&rest[at..at + 4]);
                    u32::from_le_bytes(four)
                };
                let cost = Cost {
                    memory_kib: number(0),
                    passes: number(4),
                    lanes: number(8),
                };
                cost.params()?;
                let mut salt = [0; SALT_LEN];
                salt.copy_from_slice(&rest[12..12 + SALT_LEN]);
                (By::Passphrase { cost, salt }, &rest[12 + SALT_LEN..])
            }
            (Some(&BY_LOGIN), Some(rest)) if rest.len() == ID_LEN + LOCKED_LEN => {
                let mut id = [0; ID_LEN];
                id.copy_from_slice(&rest[..ID_LEN]);
                (By::Login { id }, &rest[ID_LEN..])
            }
            // Another way of sealing comes with another version of the file.
            _ => return Err(altered()),
        };
        let sealed = sealed.try_into().map_err(|_| altered())?;
        Ok(Locked { by, sealed })
    }
}

/// All that stands before what is sealed.
fn about(by: &By) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ABOUT + 12 + SALT_LEN + LOCKED_LEN + CHECK_LEN);
    bytes.extend_from_slice(MAGIC);
    bytes.push(LOCKED);
    match by {
        By::Passphrase { cost, salt } => {
            bytes.push(BY_PASSPHRASE);
            for number in [cost.memory_kib, cost.passes, cost.lanes] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.extend_from_slice(salt);
        }
        By::Login { id } => {
            bytes.push(BY_LOGIN);
            bytes.extend_from_slice(id);
        }
    }
    bytes
}

/// Argon2id. What it leaves in memory is wiped.
fn stretch(passphrase: &str, cost: &Cost, salt: &[u8; SALT_LEN]) -> Result<LockKey, Refused> {
    let params = cost.params().map_err(|_| Refused::Memory)?;
    let mut memory: Vec<Block> = Vec::new();
    let blocks = params.block_count();
    memory
        .try_reserve_exact(blocks)
        .map_err(|_| Refused::Memory)?;
    memory.resize(blocks, Block::new());
    let mut key = Zeroizing::new([0; 32]);
    let stretched = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(passphrase.as_bytes(), salt, &mut key[..], &mut memory[..]);
    memory.iter_mut().for_each(Zeroize::zeroize);
    // Lengths and cost were checked: nothing else can be wrong.
    stretched.map_err(|_| Refused::Memory)?;
    Ok(LockKey::of_passphrase(&key))
}

fn altered() -> StoreError {
    StoreError::Damaged("the file \"identity\" is cut short or altered".into())
}

#[cfg(test)]
#[path = "locked/tests.rs"]
mod tests;
