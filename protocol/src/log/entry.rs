//! Entries: header, signature, sealed body.

use rand::CryptoRng;
use ring::aead::LessSafeKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::body::{BODY_MAX_CHANGES, BODY_MAX_LEN, Body, Change};
use super::clock::CLOCK_MAX_WRITERS;
use crate::codec::{self, Bytes, CodecError, List};
use crate::identity::{DeviceKey, EpochId, Hash, Signature, SpaceId, VaultId, WriterId};
use crate::keys::{self, EpochKey, TAG_LEN};
use crate::{domain, padded, version};

/// Grant heads that a header may name. Honest devices see one, or a few after working apart.
pub const MAX_GRANT_HEADS: usize = 16;
/// Bytes of the longest sealed body.
pub const ENTRY_MAX_BODY_LEN: usize = 4 << 20;
/// Bytes of the longest encoded header.
pub const HEADER_MAX_LEN: usize = 256 + 32 * MAX_GRANT_HEADS;
/// Bytes of the longest encoded entry.
pub const ENTRY_MAX_LEN: usize = HEADER_MAX_LEN + 80 + ENTRY_MAX_BODY_LEN;

/// Why an entry was not made, taken or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The bytes are not an entry.
    #[error("not an entry: {0}")]
    Codec(#[from] CodecError),
    /// Number, predecessor, grant heads or body length contradict each other.
    #[error("the entry's header is inconsistent")]
    Inconsistent,
    /// It belongs to another vault.
    #[error("the entry is of vault {0}")]
    WrongVault(VaultId),
    /// The writer did not sign this header.
    #[error("the entry's signature does not fit its writer")]
    BadSignature,
    /// The body is not the one that the header names.
    #[error("the entry's body does not fit its header")]
    WrongBody,
    /// It was sealed under an epoch whose key this is not.
    #[error("the entry is of epoch {0}")]
    WrongEpoch(EpochId),
    /// The body does not open, or what opens is not a body.
    #[error("the entry's body does not open")]
    CannotOpen,
    /// The signing key is not the writer's.
    #[error("the key does not belong to the writer")]
    NotTheWriter,
    /// More than one entry can carry; it has to be split.
    #[error("{0} is over the bound of an entry")]
    TooLarge(&'static str),
}

/// The public part of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`version::ENTRY`].
    pub version: u16,
    /// The vault.
    pub vault: VaultId,
    /// The space.
    pub space: SpaceId,
    /// The author.
    pub writer: WriterId,
    /// The entry's number in its log, from 1.
    pub seq: u64,
    /// Hash of the previous entry's header; [`Hash::ZERO`] in the first.
    pub prev: Hash,
    /// The epoch under whose key the body is sealed.
    pub epoch: EpochId,
    /// Random, so that no two bodies share a key.
    pub salt: [u8; 32],
    /// The heads of the grants that the author knew, ascending, at most [`MAX_GRANT_HEADS`].
    #[serde(with = "List::<MAX_GRANT_HEADS>")]
    pub grant_heads: Vec<Hash>,
    /// Bytes of the sealed body.
    pub body_len: u32,
    /// Hash of the sealed body.
    pub body_hash: Hash,
}

impl Header {
    /// The hash by which the next entry, and clocks, name this one.
    pub fn hash(&self) -> Hash {
        Hash::of(domain::HEADER_HASH, &[&codec::encode(self)])
    }

    /// What the body's encryption vouches for: this header before it knew its body.
    fn associated_data(&self) -> Vec<u8> {
        codec::encode(&Header {
            body_len: 0,
            body_hash: Hash::ZERO,
            grant_heads: self.grant_heads.clone(),
            ..*self
        })
    }

    /// KDF(epoch key, "entry", vault, space, writer, salt).
    pub(super) fn body_key(&self, epoch: &EpochKey) -> LessSafeKey {
        keys::one_time_key(
            epoch.entries(),
            &[
                &self.vault.0,
                &self.space.0,
                &self.writer.device.0,
                &self.writer.incarnation.to_le_bytes(),
                &self.salt,
            ],
        )
    }

    fn is_consistent(&self) -> bool {
        self.seq > 0
            && (self.seq == 1) == (self.prev == Hash::ZERO)
            && !self.grant_heads.is_empty()
            && self.grant_heads.is_sorted_by(|a, b| a < b)
    }
}

/// One record of a writer's log: signed, encrypted, checkable without any key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The public part.
    pub header: Header,
    /// The writer's signature of the header.
    pub signature: Signature,
    /// The sealed body.
    #[serde(with = "Bytes::<ENTRY_MAX_BODY_LEN>")]
    pub body: Vec<u8>,
}

impl Entry {
    /// The bytes that are stored and sent.
    pub fn encode(&self) -> Vec<u8> {
        let room = Vec::with_capacity(HEADER_MAX_LEN + 80 + self.body.len());
        codec::encode_onto(self, room)
    }

    /// Reads an entry, of which nothing is believed until [`verify`](Self::verify).
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let entry: Self = codec::decode_versioned(bytes, ENTRY_MAX_LEN, version::ENTRY)?;
        let body_len = u32::try_from(entry.body.len()).map_err(|_| EntryError::Inconsistent)?;
        if !entry.header.is_consistent() || entry.header.body_len != body_len {
            return Err(EntryError::Inconsistent);
        }
        Ok(entry)
    }

    /// Reads only the header of an encoded entry that was decoded before and stored since.
    pub fn decode_header(bytes: &[u8]) -> Result<Header, EntryError> {
        codec::check_version(bytes, version::ENTRY)?;
        let (header, _) =
            codec::decode_prefix::<Header>(bytes).map_err(|_| CodecError::Malformed)?;
        Ok(header)
    }

    /// The hash by which the next entry, and clocks, name this one.
    pub fn header_hash(&self) -> Hash {
        self.header.hash()
    }

    /// Checks that this is an entry of `vault` which its writer signed, body included. Whether that
    /// writer may write there is a question to the grants.
    pub fn verify(&self, vault: &VaultId) -> Result<(), EntryError> {
        if self.header.vault != *vault {
            return Err(EntryError::WrongVault(self.header.vault));
        }
        if self.header.body_hash != Hash::of(domain::BODY_HASH, &[&self.body]) {
            return Err(EntryError::WrongBody);
        }
        self.header
            .writer
            .device
            .verify(
                domain::ENTRY_SIGNATURE,
                &codec::encode(&self.header),
                &self.signature,
            )
            .map_err(|_| EntryError::BadSignature)
    }
}

/// Where in which log an entry goes.
#[derive(Clone, Debug)]
pub struct EntryParams<'a> {
    /// The vault.
    pub vault: VaultId,
    /// The space.
    pub space: SpaceId,
    /// The author; its device is the one whose key signs.
    pub writer: WriterId,
    /// The entry's number, from 1.
    pub seq: u64,
    /// Hash of the previous entry's header; [`Hash::ZERO`] for the first.
    pub prev: Hash,
    /// The heads of the grants that the author knows; ascending, 1 to [`MAX_GRANT_HEADS`].
    pub grant_heads: &'a [Hash],
}

/// Makes the entry that says `body` under `epoch`, signed with the writer's key. It is refused when
/// it is too large for one entry ([`EntryError::TooLarge`]), or its parameters contradict each other.
pub fn seal_entry(
    key: &DeviceKey,
    params: &EntryParams<'_>,
    body: &Body,
    epoch: &EpochKey,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Entry, EntryError> {
    if key.id() != params.writer.device {
        return Err(EntryError::NotTheWriter);
    }
    let plain = encode_body(body)?;
    let mut salt = [0; 32];
    rng.fill_bytes(&mut salt);
    let mut header = Header {
        version: version::ENTRY,
        vault: params.vault,
        space: params.space,
        writer: params.writer,
        seq: params.seq,
        prev: params.prev,
        epoch: epoch.id(),
        salt,
        grant_heads: params.grant_heads.to_vec(),
        body_len: 0,
        body_hash: Hash::ZERO,
    };
    if header.grant_heads.len() > MAX_GRANT_HEADS {
        return Err(EntryError::TooLarge("the number of grant heads"));
    }
    if !header.is_consistent() {
        return Err(EntryError::Inconsistent);
    }
    let mut sealed = Vec::new();
    padded::pack(&plain, true, &mut sealed);
    if sealed.len() + TAG_LEN > ENTRY_MAX_BODY_LEN {
        return Err(EntryError::TooLarge("the sealed body"));
    }
    keys::seal_in_place(
        &header.body_key(epoch),
        &header.associated_data(),
        &mut sealed,
        0,
    );
    header.body_len =
        u32::try_from(sealed.len()).map_err(|_| EntryError::TooLarge("the sealed body"))?;
    header.body_hash = Hash::of(domain::BODY_HASH, &[&sealed]);
    let signature = key.sign(domain::ENTRY_SIGNATURE, &codec::encode(&header));
    Ok(Entry {
        header,
        signature,
        body: sealed,
    })
}

fn encode_body(body: &Body) -> Result<Zeroizing<Vec<u8>>, EntryError> {
    if body.clock.len() > CLOCK_MAX_WRITERS {
        return Err(EntryError::TooLarge("the number of writers in the clock"));
    }
    if body.changes.len() > BODY_MAX_CHANGES {
        return Err(EntryError::TooLarge("the number of changes"));
    }
    if !body.changes.iter().all(Change::is_bounded) {
        return Err(EntryError::TooLarge("a change"));
    }
    let plain = Zeroizing::new(codec::encode(body));
    if plain.len() > BODY_MAX_LEN {
        return Err(EntryError::TooLarge("the body"));
    }
    Ok(plain)
}

/// Opens the body of an entry that was [verified](Entry::verify).
pub fn open_entry(entry: &Entry, epoch: &EpochKey) -> Result<Body, EntryError> {
    let header = &entry.header;
    if header.epoch != epoch.id() {
        return Err(EntryError::WrongEpoch(header.epoch));
    }
    let mut sealed = entry.body.clone();
    let packed = keys::open_in_place(
        &header.body_key(epoch),
        &header.associated_data(),
        &mut sealed,
    )
    .map_err(|_| EntryError::CannotOpen)?;
    let unpacked = padded::unpack(packed, BODY_MAX_LEN).map_err(|_| EntryError::CannotOpen)?;
    if !unpacked.compressed {
        return Ok(codec::decode(unpacked.payload, BODY_MAX_LEN)?);
    }
    let mut plain = Vec::new();
    padded::decompress(unpacked.payload, unpacked.plain_len, &mut plain)
        .map_err(|_| EntryError::CannotOpen)?;
    Ok(codec::decode(&plain, BODY_MAX_LEN)?)
}
