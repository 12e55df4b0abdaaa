//! The secrets of a space, and everything derived from them.
//!
//! Two secrets make a space readable. An [`EpochKey`] encrypts what is written during one epoch;
//! its id is a public commitment to it. A [`SpaceSecret`] seeds chunking and names chunks; it stays
//! the same through all epochs, so that bytes which are already held are recognised. All use is by
//! derivation under a context of [`domain`], never by the secret itself.
//!
//! Sealing of both to one recipient (HPKE) is in [`sealing`], the set of keys that a device holds in
//! [`keyring`], how a device's own keys are sealed on its disk in [`locked`]. Secrets are wiped from memory when dropped and do not print.

mod cipher;
mod keyring;
mod locked;
mod sealing;

pub(crate) use cipher::{BOX_OVERHEAD, open_box, seal_box};
pub use cipher::{CannotOpen, TAG_LEN};
pub(crate) use cipher::{one_time_key, open_in_place, seal_in_place};
pub use keyring::{KEYRING_MAX_EPOCHS, Keyring, KeyringError};
pub use locked::{LOCKED_LEN, LockKey};
pub use sealing::{BadSealingKey, SEALED_OVERHEAD, SealingKey, SealingPublic};

use std::fmt;

use rand::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::domain;
use crate::identity::{EpochId, Hash};

/// The key of one epoch of a space, with what is derived from it: on the heap, so that moving it leaves no copy behind.
#[derive(Clone)]
pub struct EpochKey {
    id: EpochId,
    keys: Box<EpochKeys>,
}

#[derive(Clone, Default, Zeroize, ZeroizeOnDrop)]
struct EpochKeys {
    secret: [u8; 32],
    frames: [u8; 32],
    entries: [u8; 32],
    ranges: [u8; 32],
    names: [u8; 32],
    held: [u8; 32],
    older: [u8; 32],
}

impl EpochKey {
    /// A fresh key for a new epoch.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *secret);
        Self::from_secret(&secret)
    }

    /// The key with these 32 random bytes.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        let mut keys = Box::<EpochKeys>::default();
        keys.secret.copy_from_slice(secret);
        keys.frames = blake3::derive_key(domain::EPOCH_FRAMES, secret);
        keys.entries = blake3::derive_key(domain::EPOCH_ENTRIES, secret);
        keys.ranges = blake3::derive_key(domain::EPOCH_RANGES, secret);
        keys.names = blake3::derive_key(domain::EPOCH_NAMES, secret);
        keys.held = blake3::derive_key(domain::EPOCH_HELD, secret);
        keys.older = blake3::derive_key(domain::EPOCH_OLDER, secret);
        Self {
            id: EpochId(blake3::derive_key(domain::EPOCH_ID, secret)),
            keys,
        }
    }

    /// Key below which frames' keys are.
    pub(crate) fn frames(&self) -> &[u8; 32] {
        &self.keys.frames
    }

    /// Key below which entries' keys are.
    pub(crate) fn entries(&self) -> &[u8; 32] {
        &self.keys.entries
    }

    /// Key below which ranges' keys are.
    pub(crate) fn ranges(&self) -> &[u8; 32] {
        &self.keys.ranges
    }

    /// Box key of names.
    pub(crate) fn names(&self) -> &[u8; 32] {
        &self.keys.names
    }

    /// Box key of held statements.
    pub(crate) fn held(&self) -> &[u8; 32] {
        &self.keys.held
    }

    /// Box key of the epochs before.
    pub(crate) fn older(&self) -> &[u8; 32] {
        &self.keys.older
    }

    /// The public commitment to this key: who holds a key can check that it is the epoch's.
    pub fn id(&self) -> EpochId {
        self.id
    }

    /// The 32 random bytes, for sealing and storage.
    pub fn secret_bytes(&self) -> &[u8; 32] {
        &self.keys.secret
    }
}

impl fmt::Debug for EpochKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EpochKey of {:?}", self.id)
    }
}

/// What stays secret and constant through all epochs of a space: on the heap, so that moving it leaves no copy behind.
#[derive(Clone)]
pub struct SpaceSecret {
    id: Hash,
    keys: Box<SpaceKeys>,
}

#[derive(Clone, Default, Zeroize, ZeroizeOnDrop)]
struct SpaceKeys {
    secret: [u8; 32],
    chunk: [u8; 32],
    frame: [u8; 32],
    content: [u8; 32],
    cdc: u64,
}

impl SpaceSecret {
    /// A fresh secret for a new space.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *secret);
        Self::from_secret(&secret)
    }

    /// The secret with these 32 random bytes.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        let cdc = Zeroizing::new(blake3::derive_key(domain::SPACE_CDC, secret));
        let mut seed = [0; 8];
        seed.copy_from_slice(&cdc[..8]);
        let mut keys = Box::<SpaceKeys>::default();
        keys.secret.copy_from_slice(secret);
        keys.chunk = blake3::derive_key(domain::SPACE_CHUNK, secret);
        keys.frame = blake3::derive_key(domain::SPACE_FRAME, secret);
        keys.content = blake3::derive_key(domain::SPACE_CONTENT, secret);
        keys.cdc = u64::from_le_bytes(seed);
        Self {
            id: Hash::of(domain::SPACE_SECRET_ID, &[secret]),
            keys,
        }
    }

    /// The public commitment to this secret, which every epoch grant of the space repeats.
    pub fn id(&self) -> Hash {
        self.id
    }

    /// The 32 random bytes, for sealing and storage.
    pub fn secret_bytes(&self) -> &[u8; 32] {
        &self.keys.secret
    }

    /// Seed of content-defined chunking: cut points tell an outsider nothing about known files.
    pub fn cdc_seed(&self) -> u64 {
        self.keys.cdc
    }

    /// The id of a chunk with this plaintext: equal bytes, equal id, within this space only.
    pub fn chunk_id(&self, plain: &[u8]) -> Hash {
        Hash(*blake3::keyed_hash(&self.keys.chunk, plain).as_bytes())
    }

    /// A hasher that ends in [`chunk_id`](Self::chunk_id), for plaintext that comes in pieces.
    pub fn chunk_hasher(&self) -> ChunkHasher {
        ChunkHasher(blake3::Hasher::new_keyed(&self.keys.chunk))
    }

    /// The id of a frame: keyed hash of its header and of the id of its payload. Its padding is all
    /// zero and of a length that follows from the header, so this commits to the frame's every byte
    /// while the payload of an uncompressed frame, which is the chunk, is hashed once for both ids.
    pub(crate) fn frame_id(&self, header: &[u8], payload_id: &Hash) -> Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.keys.frame);
        hasher.update(header).update(&payload_id.0);
        Hash(*hasher.finalize().as_bytes())
    }

    /// The hash of a file's content: over its length and its chunks' ids in order, so equal exactly
    /// when the bytes are equal and cut alike.
    pub fn content_hash<'a>(
        &self,
        size_bytes: u64,
        chunks: impl IntoIterator<Item = &'a Hash>,
    ) -> Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.keys.content);
        hasher.update(&size_bytes.to_le_bytes());
        for chunk in chunks {
            hasher.update(&chunk.0);
        }
        Hash(*hasher.finalize().as_bytes())
    }
}

impl fmt::Debug for SpaceSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpaceSecret {:?}", self.id)
    }
}

/// Computes a chunk's id from plaintext in pieces.
#[derive(Clone)]
pub struct ChunkHasher(blake3::Hasher);

impl ChunkHasher {
    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The id of all that was taken.
    pub fn finish(&self) -> Hash {
        Hash(*self.0.finalize().as_bytes())
    }
}

impl fmt::Debug for ChunkHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkHasher")
    }
}
