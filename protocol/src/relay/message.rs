//! Leaving blobs with a host, and asking after them: `/coffer/relay-blobs/1`.
//!
//! A device opens a stream and sends [`Request`]s, each one length-prefixed frame; a `Put` is followed by its
//! blobs, each a [`PutHeader`] and then its bytes, outside of frames. The host answers each request in turn with
//! one frame, an [`Answer`]. A device may send the next request before the answer to the last has come. Getting
//! blobs is the batch GET of [`blobs`](crate::blobs), on a stream of its own.
//!
//! The host reads a `Put` to its end before it answers, also when it refuses it: what a stream carries is
//! never ambiguous. It answers `Stored` only when all of it is durable, and takes all or nothing of it.

use serde::{Deserialize, Serialize};

use super::erase::{SignedOrder, SignedReceipt};
use crate::blobs::MAX_BLOB;
use crate::codec::{self, Bytes, CodecError, List};
use crate::identity::{Hash, VaultId};
use crate::signed::Signable;

/// Most blobs that are asked after at once: 128 KiB on the wire.
pub const MAX_HAVE: usize = 4096;
/// Most blobs of one `Put`: so that a batch of the smallest is one durable write for thousands.
pub const MAX_PUT: usize = 4096;
/// Most bytes of all blobs of one `Put`: four of the largest. Either side may hold that much in memory.
pub const MAX_PUT_BYTES: u64 = 16 << 20;
/// Most ids of one answer to `List`: 256 KiB on the wire.
pub const MAX_LIST: usize = 8192;
/// Most ids of one `Release`.
pub const MAX_RELEASE: usize = 8192;
/// Most bytes of a range: enough that who lost the blob cannot guess them.
pub const MAX_RANGE: usize = 4096;
/// Most bytes of an encoded request.
pub const MAX_REQUEST: usize = 64 + MAX_RELEASE * Hash::LEN;
/// Most bytes of an encoded answer.
pub const MAX_ANSWER: usize = 64 + MAX_LIST * Hash::LEN;

const SIGNED_MAX_LEN: usize = <super::EraseOrder as Signable>::MAX_LEN;

/// What a device asks of a host. Every one but `Erase` is for members of the vault in any role that holds keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Which of these blobs do you have? Answered by [`Answer::Have`].
    Have {
        /// The vault.
        vault: VaultId,
        /// At most [`MAX_HAVE`].
        #[serde(with = "List::<MAX_HAVE>")]
        ids: Vec<Hash>,
        /// Whether the asker names these blobs. That takes back every release of those that are there, by
        /// whatever device of the vault.
        claim: bool,
    },
    /// Keep the blobs that follow. Claims them too. Answered by [`Answer::Stored`].
    Put {
        /// The vault.
        vault: VaultId,
        /// How many follow: 1 to [`MAX_PUT`].
        count: u16,
        /// Bytes of all of them, without their headers: at most [`MAX_PUT_BYTES`].
        bytes: u64,
    },
    /// Which blobs do you have of this vault? Answered by [`Answer::Listed`].
    List {
        /// The vault.
        vault: VaultId,
        /// Only ids greater than this; [`Hash::ZERO`] to begin.
        after: Hash,
        /// At most so many, and at most [`MAX_LIST`].
        max: u16,
    },
    /// The asker names these blobs no longer. Answered by [`Answer::Released`].
    Release {
        /// The vault.
        vault: VaultId,
        /// At most [`MAX_RELEASE`].
        #[serde(with = "List::<MAX_RELEASE>")]
        ids: Vec<Hash>,
    },
    /// Show some bytes of a blob. Answered by [`Answer::Range`].
    Range {
        /// The vault.
        vault: VaultId,
        /// The blob.
        id: Hash,
        /// Where they begin.
        offset: u32,
        /// How many, at most [`MAX_RANGE`]; fewer come if the blob ends before.
        len: u16,
    },
    /// Erase the vault. Answered by [`Answer::Erased`].
    Erase {
        /// A [`SignedOrder`], encoded.
        #[serde(with = "Bytes::<SIGNED_MAX_LEN>")]
        order: Vec<u8>,
    },
}

/// Why a host does not do what it was asked: a number, so that a later program's reasons decode too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal(pub u16);

impl Refusal {
    /// It does not keep this vault, or the asker is not in it, or not in a role that may ask this. Which of
    /// these, a stranger is not told.
    pub const NOT_YOURS: Self = Self(1);
    /// The blobs do not fit into the quota. Nothing of them was kept.
    pub const FULL: Self = Self(2);
    /// The request, or the blobs that followed, are not as they must be.
    pub const MALFORMED: Self = Self(3);
    /// Too much at once; later.
    pub const BUSY: Self = Self(4);
    /// The host's disk, or whatever else it needs, fails. Later.
    pub const FAILING: Self = Self(5);
    /// The order to erase is for another store, or not by an owner.
    pub const ORDER: Self = Self(6);
}

/// What a host answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To `Have`: one bit for each id.
    Have(Bitmap),
    /// To `Put`: all of them are durable now.
    Stored {
        /// Bytes that count against the quota.
        used_bytes: u64,
        /// The quota.
        quota_bytes: u64,
    },
    /// To `List`: ids, ascending. Fewer than were asked for: there are no more.
    Listed(#[serde(with = "List::<MAX_LIST>")] Vec<Hash>),
    /// To `Release`: it is noted, durably.
    Released,
    /// To `Range`: the bytes; none if the host does not have the blob.
    Range(Option<RangeBytes>),
    /// To `Erase`: a [`SignedReceipt`], encoded.
    Erased(#[serde(with = "Bytes::<SIGNED_MAX_LEN>")] Vec<u8>),
    /// To anything.
    Refused {
        /// Why.
        why: Refusal,
        /// Bytes that count against the quota; 0 unless [`Refusal::FULL`].
        used_bytes: u64,
        /// The quota; 0 unless [`Refusal::FULL`].
        quota_bytes: u64,
    },
}

/// The bytes of a range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeBytes(#[serde(with = "Bytes::<MAX_RANGE>")] pub Vec<u8>);

/// One bit for each of up to [`MAX_HAVE`] ids, in their order; the least significant bit of a byte first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bitmap(#[serde(with = "Bytes::<{ MAX_HAVE / 8 }>")] Vec<u8>);

impl Bitmap {
    /// The bits of `have`, of which there are at most [`MAX_HAVE`].
    pub fn new(have: impl IntoIterator<Item = bool>) -> Self {
        let mut bytes = Vec::new();
        for (at, yes) in have.into_iter().take(MAX_HAVE).enumerate() {
            if at % 8 == 0 {
                bytes.push(0);
            }
            if let Some(byte) = bytes.last_mut() {
                *byte |= u8::from(yes) << (at % 8);
            }
        }
        Self(bytes)
    }

    /// Whether it has one bit for each of `count` ids, and no other set.
    pub fn fits(&self, count: usize) -> bool {
        let spare = self.0.len() * 8 - count.min(self.0.len() * 8);
        self.0.len() == count.div_ceil(8)
            && self
                .0
                .last()
                .is_none_or(|last| u32::from(*last) < (1 << (8 - spare)))
    }

    /// The bit of the id at this index; `false` beyond the end.
    pub fn get(&self, index: usize) -> bool {
        self.0
            .get(index / 8)
            .is_some_and(|byte| byte & (1 << (index % 8)) != 0)
    }
}

impl Request {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a request of at most [`MAX_REQUEST`] bytes, and checks its numbers.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let request: Self = codec::decode(bytes, MAX_REQUEST)?;
        let sound = match &request {
            Self::Put { count, bytes, .. } => {
                (1..=MAX_PUT).contains(&usize::from(*count)) && *bytes <= MAX_PUT_BYTES
            }
            Self::List { max, .. } => (1..=MAX_LIST).contains(&usize::from(*max)),
            Self::Range { len, .. } => (1..=MAX_RANGE).contains(&usize::from(*len)),
            Self::Have { .. } | Self::Release { .. } | Self::Erase { .. } => true,
        };
        sound.then_some(request).ok_or(CodecError::Malformed)
    }

    /// The vault that it is about; an order to erase says it itself, and is to be checked.
    pub fn vault(&self) -> Option<VaultId> {
        match self {
            Self::Have { vault, .. }
            | Self::Put { vault, .. }
            | Self::List { vault, .. }
            | Self::Release { vault, .. }
            | Self::Range { vault, .. } => Some(*vault),
            Self::Erase { order } => SignedOrder::decode(order)
                .ok()
                .map(|order| order.value().vault),
        }
    }
}

impl Answer {
    /// The refusal for this reason, which has nothing to do with the quota.
    pub fn refused(why: Refusal) -> Self {
        Self::Refused {
            why,
            used_bytes: 0,
            quota_bytes: 0,
        }
    }

    /// The answer to an order that was followed.
    pub fn erased(receipt: &SignedReceipt) -> Self {
        Self::Erased(receipt.bytes().to_vec())
    }

    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads an answer of at most [`MAX_ANSWER`] bytes; whether it fits the request is the asker's to check.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, MAX_ANSWER)
    }
}

/// What stands in front of each blob of a `Put`: its id, and its length as u32, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutHeader {
    /// BLAKE3 hash of the bytes that follow.
    pub id: Hash,
    /// How many follow.
    pub len: u32,
}

impl PutHeader {
    /// Length of the encoded header in bytes.
    pub const LEN: usize = Hash::LEN + 4;

    /// The bytes.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..Hash::LEN].copy_from_slice(&self.id.0);
        bytes[Hash::LEN..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    /// Reads a header; no blob is empty or longer than [`MAX_BLOB`].
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self, CodecError> {
        let mut id = [0; Hash::LEN];
        id.copy_from_slice(&bytes[..Hash::LEN]);
        let [.., a, b, c, d] = *bytes;
        let len = u32::from_le_bytes([a, b, c, d]);
        if len == 0 || len as usize > MAX_BLOB {
            return Err(CodecError::Malformed);
        }
        Ok(Self { id: Hash(id), len })
    }

    /// Whether these are the bytes that the header announces.
    pub fn fits(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.len as usize && *blake3::hash(bytes).as_bytes() == self.id.0
    }
}
