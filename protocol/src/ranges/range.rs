//! The bytes of a range: head, signature, sealed body.

use rand::CryptoRng;
use ring::aead::LessSafeKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::content::{Content, ContentError, Naming};
use crate::codec::{self, Bytes, CodecError};
use crate::identity::{DeviceId, DeviceKey, EpochId, Hash, Signature, SpaceId, VaultId, WriterId};
use crate::keys::{self, EpochKey, TAG_LEN};
use crate::log::{Body, Header};
use crate::{domain, padded, version};

/// Bytes of the longest sealed body: what is asked for, kept and checked at a time.
pub const RANGE_MAX_BODY_LEN: usize = 1 << 20;
/// Bytes of the longest plaintext of one, decompressed.
pub const RANGE_MAX_PLAIN_LEN: usize = 16 << 20;
/// Bytes of the longest encoded head.
pub const HEAD_MAX_LEN: usize = 512;
/// Bytes of the longest encoded range.
pub const RANGE_MAX_LEN: usize = HEAD_MAX_LEN + 80 + RANGE_MAX_BODY_LEN;

/// Why a range was not made, taken or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// The bytes are not a range.
    #[error("not a range: {0}")]
    Codec(#[from] CodecError),
    /// What it is to hold, or holds, is not what a range holds.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// Its numbers, hashes or lengths contradict each other.
    #[error("the range's head is inconsistent")]
    Inconsistent,
    /// It belongs to another vault.
    #[error("the range is of vault {0}")]
    WrongVault(VaultId),
    /// Its maker did not sign this head.
    #[error("the range's signature does not fit its maker")]
    BadSignature,
    /// The body is not the one that the head names.
    #[error("the range's body does not fit its head")]
    WrongBody,
    /// It was sealed under an epoch whose key this is not.
    #[error("the range is of epoch {0}")]
    WrongEpoch(EpochId),
    /// The body does not open, or what opens is not a body.
    #[error("the range's body does not open")]
    CannotOpen,
    /// What opens is not what the head names.
    #[error("the range holds something other than its head says")]
    WrongRoot,
}

/// The public part of a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// [`version::RANGE`].
    pub version: u16,
    /// The vault.
    pub vault: VaultId,
    /// The space.
    pub space: SpaceId,
    /// Whose log it is of.
    pub writer: WriterId,
    /// The first entry that it stands for; at least 1.
    pub from: u64,
    /// The last; at least `from`.
    pub to: u64,
    /// The hash of the header before the first; [`Hash::ZERO`] where there is none.
    pub prev: Hash,
    /// The hash of the header of the last: what clocks name once they have the range.
    pub last: Hash,
    /// Who made it, and signs: the writer's device, or the keeper of a closed log.
    pub maker: DeviceId,
    /// The epoch under whose key the body is sealed.
    pub epoch: EpochId,
    /// Random, so that no two bodies share a key.
    pub salt: [u8; 32],
    /// [`Content::root`] of what it holds.
    pub root: Hash,
    /// Bytes of the sealed body.
    pub body_len: u32,
    /// Hash of the sealed body.
    pub body_hash: Hash,
}

impl Head {
    /// The hash by which attestations name the range.
    pub fn id(&self) -> Hash {
        Hash::of(domain::RANGE_ID, &[&codec::encode(self)])
    }

    /// What the body's encryption vouches for: this head before it knew its body.
    fn associated_data(&self) -> Vec<u8> {
        codec::encode(&Head {
            body_len: 0,
            body_hash: Hash::ZERO,
            ..*self
        })
    }

    /// KDF(epoch key, "range", vault, space, writer, from, to, salt): below a key of its own, never an entry's.
    fn body_key(&self, epoch: &EpochKey) -> LessSafeKey {
        keys::one_time_key(
            epoch.ranges(),
            &[
                &self.vault.0,
                &self.space.0,
                &self.writer.device.0,
                &self.writer.incarnation.to_le_bytes(),
                &self.from.to_le_bytes(),
                &self.to.to_le_bytes(),
                &self.salt,
            ],
        )
    }

    fn is_consistent(&self) -> bool {
        self.from > 0
            && self.from <= self.to
            && (self.from == 1) == (self.prev == Hash::ZERO)
            && self.last != Hash::ZERO
    }
}

/// One record in the place of many entries: signed, encrypted, checkable without any key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The public part.
    pub head: Head,
    /// The maker's signature of the head.
    pub signature: Signature,
    /// The sealed body.
    #[serde(with = "Bytes::<RANGE_MAX_BODY_LEN>")]
    pub body: Vec<u8>,
}

impl Range {
    /// The bytes that are stored and sent.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode_onto(
            self,
            Vec::with_capacity(HEAD_MAX_LEN + 80 + self.body.len()),
        )
    }

    /// Reads a range, of which nothing is believed until [`verify`](Self::verify).
    pub fn decode(bytes: &[u8]) -> Result<Self, RangeError> {
        let range: Self = codec::decode_versioned(bytes, RANGE_MAX_LEN, version::RANGE)?;
        let body_len = u32::try_from(range.body.len()).map_err(|_| RangeError::Inconsistent)?;
        if !range.head.is_consistent() || range.head.body_len != body_len {
            return Err(RangeError::Inconsistent);
        }
        Ok(range)
    }

    /// The head alone, of a range that was stored: of the first [`HEAD_MAX_LEN`] bytes. Nothing is checked.
    pub fn decode_head(bytes: &[u8]) -> Result<Head, RangeError> {
        codec::check_version(bytes, version::RANGE)?;
        let (head, _) = codec::decode_prefix::<Head>(bytes).map_err(|_| CodecError::Malformed)?;
        Ok(head)
    }

    /// Checks that this is a range of `vault` which its maker signed, body included. Whether the maker may make it is a
    /// question to the grants ([`may_make`](super::may_make)); whether it holds what the entries do, one to whoever has
    /// the keys.
    pub fn verify(&self, vault: &VaultId) -> Result<(), RangeError> {
        if self.head.vault != *vault {
            return Err(RangeError::WrongVault(self.head.vault));
        }
        if self.head.body_hash != Hash::of(domain::RANGE_BODY_HASH, &[&self.body]) {
            return Err(RangeError::WrongBody);
        }
        let head = codec::encode(&self.head);
        self.head
            .maker
            .verify(domain::RANGE_SIGNATURE, &head, &self.signature)
            .map_err(|_| RangeError::BadSignature)
    }
}

/// Which entries a range stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeParams {
    /// The vault.
    pub vault: VaultId,
    /// The space.
    pub space: SpaceId,
    /// Whose log.
    pub writer: WriterId,
    /// The first entry, from 1.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// The hash of the header before the first; [`Hash::ZERO`] for the first of the log.
    pub prev: Hash,
    /// The hash of the last one's header.
    pub last: Hash,
}

/// Makes the range that holds `content` under `epoch`, signed with `key`.
/// [`ContentError::TooLarge`] where that does not fit into one.
pub fn seal_range(
    key: &DeviceKey,
    params: &RangeParams,
    content: &Content,
    naming: Naming,
    epoch: &EpochKey,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Range, RangeError> {
    content.check(params.from, params.to, naming)?;
    let plain = Zeroizing::new(codec::encode(content));
    if plain.len() > RANGE_MAX_PLAIN_LEN {
        return Err(ContentError::TooLarge("what it holds").into());
    }
    let mut salt = [0; 32];
    rng.fill_bytes(&mut salt);
    let mut head = Head {
        version: version::RANGE,
        vault: params.vault,
        space: params.space,
        writer: params.writer,
        from: params.from,
        to: params.to,
        prev: params.prev,
        last: params.last,
        maker: key.id(),
        epoch: epoch.id(),
        salt,
        root: content.root(naming),
        body_len: 0,
        body_hash: Hash::ZERO,
    };
    if !head.is_consistent() {
        return Err(RangeError::Inconsistent);
    }
    let mut sealed = Vec::new();
    padded::pack(&plain, true, &mut sealed);
    if sealed.len() + TAG_LEN > RANGE_MAX_BODY_LEN {
        return Err(ContentError::TooLarge("the sealed body").into());
    }
    keys::seal_in_place(
        &head.body_key(epoch),
        &head.associated_data(),
        &mut sealed,
        0,
    );
    head.body_len =
        u32::try_from(sealed.len()).map_err(|_| ContentError::TooLarge("the sealed body"))?;
    head.body_hash = Hash::of(domain::RANGE_BODY_HASH, &[&sealed]);
    let signature = key.sign(domain::RANGE_SIGNATURE, &codec::encode(&head));
    Ok(Range {
        head,
        signature,
        body: sealed,
    })
}

/// Makes a range of as many of these entries, from the first on, as fit into one; `None` where not even two do, or there
/// are no two: then the first is best left as it is. Documents that were `purged` are left out.
pub fn seal_longest(
    key: &DeviceKey,
    entries: &[(Header, Body)],
    purged: impl Fn(&Hash) -> bool,
    naming: Naming,
    epoch: &EpochKey,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Option<Range>, RangeError> {
    let mut take = entries.len();
    while take >= 2 {
        let (Some((first, _)), Some((last, _))) = (entries.first(), entries.get(take - 1)) else {
            return Ok(None);
        };
        let params = RangeParams {
            vault: first.vault,
            space: first.space,
            writer: first.writer,
            from: first.seq,
            to: last.seq,
            prev: first.prev,
            last: last.hash(),
        };
        let run = entries[..take].iter().map(|(header, body)| (header, body));
        let made = Content::of(run, naming)
            .map_err(RangeError::from)
            .and_then(|content| {
                let content = content.without(&purged, naming);
                seal_range(key, &params, &content, naming, epoch, rng)
            });
        match made {
            Ok(range) => return Ok(Some(range)),
            Err(RangeError::Content(ContentError::TooLarge(_))) => take -= take.div_ceil(4),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Opens the body of a range that was [verified](Range::verify), and checks that it holds what the head says.
pub fn open_range(range: &Range, epoch: &EpochKey, naming: Naming) -> Result<Content, RangeError> {
    let head = &range.head;
    if head.epoch != epoch.id() {
        return Err(RangeError::WrongEpoch(head.epoch));
    }
    let mut sealed = range.body.clone();
    let packed = keys::open_in_place(&head.body_key(epoch), &head.associated_data(), &mut sealed)
        .map_err(|_| RangeError::CannotOpen)?;
    let unpacked =
        padded::unpack(packed, RANGE_MAX_PLAIN_LEN).map_err(|_| RangeError::CannotOpen)?;
    let mut plain = Vec::new();
    let plain = match unpacked.compressed {
        false => unpacked.payload,
        true => {
            padded::decompress(unpacked.payload, unpacked.plain_len, &mut plain)
                .map_err(|_| RangeError::CannotOpen)?;
            &plain
        }
    };
    let content: Content = codec::decode(plain, RANGE_MAX_PLAIN_LEN)?;
    content.check(head.from, head.to, naming)?;
    match content.root(naming) == head.root {
        true => Ok(content),
        false => Err(RangeError::WrongRoot),
    }
}
