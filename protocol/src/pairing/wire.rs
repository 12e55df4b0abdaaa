//! The messages of pairing and their bytes. Each is one length-prefixed frame of the stream, whose
//! content is the canonical encoding of [`ToInviter`] or [`ToJoiner`].
//!
//! `LookFor`, `Here`, `Start` and `Refused` are frozen for all versions; the rest belongs to the
//! version that the inviter chose in its `Challenge`.

use serde::{Deserialize, Serialize};

use super::PairingError;
use super::link::Addresses;
use super::proof::{Bytes32, SPAKE_LEN};
use crate::byte_strings::ByteStrings;
use crate::codec::{self, CodecError};
use crate::grants::{DEVICE_NAME_MAX_LEN, MAX_GRANTS};
use crate::identity::{Hash, VaultId};
use crate::keys::SealingPublic;
use crate::link_text::clean;
use crate::log::Clock;
use crate::replication::MAX_HEADS;

/// Most bytes of a message to the inviter, and of one to the joiner before the welcome: what a
/// stranger can make either side hold.
pub const MAX_TO_INVITER: usize = 4096;
/// Most bytes of the message that carries the welcome.
pub const MAX_WELCOME: usize = 16 << 20;
/// Most bytes of a device's name: what a grant holds.
pub const NAME_MAX_LEN: usize = DEVICE_NAME_MAX_LEN;

const PROGRAM_MAX_LEN: usize = 64;
const MAX_VERSIONS: usize = 16;

/// How the joiner says who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewDevice {
    /// What its person calls it: one line of visible text, 1 to [`NAME_MAX_LEN`] bytes.
    #[serde(with = "codec::Text::<NAME_MAX_LEN>")]
    pub name: String,
    /// The key to which the vault's secrets are sealed for it.
    pub sealing: SealingPublic,
    /// Its program and version, like `coffer 0.1.0`.
    #[serde(with = "codec::Text::<PROGRAM_MAX_LEN>")]
    pub program: String,
}

impl NewDevice {
    /// A description whose texts are cut and cleaned to what the other side accepts; a name with
    /// nothing left becomes `device`.
    pub fn new(name: &str, sealing: SealingPublic, program: &str) -> Self {
        let mut name = clean(name, NAME_MAX_LEN);
        if name.is_empty() {
            name.push_str("device");
        }
        Self {
            name,
            sealing,
            program: clean(program, PROGRAM_MAX_LEN),
        }
    }

    /// Whether its texts can be shown to a person as they are.
    pub(super) fn is_showable(&self) -> bool {
        !self.name.is_empty()
            && clean(&self.name, NAME_MAX_LEN) == self.name
            && clean(&self.program, PROGRAM_MAX_LEN) == self.program
    }
}

/// What the joiner is sent once it is admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The vault.
    pub vault: VaultId,
    /// Where the inviter may be reached, as multiaddr text.
    pub addresses: Vec<String>,
    /// All signed grants, parents first, the one that admits the joiner among them.
    pub grants: Vec<Vec<u8>>,
    /// Their heads.
    pub grant_heads: Vec<Hash>,
    /// What the inviter durably has: until the joiner has that, it is still on its way.
    pub clock: Clock,
}

#[derive(Serialize, Deserialize)]
struct WelcomeWire {
    vault: VaultId,
    addresses: Addresses,
    #[serde(with = "ByteStrings::<MAX_GRANTS, MAX_WELCOME>")]
    grants: Vec<Vec<u8>>,
    #[serde(with = "codec::List::<MAX_HEADS>")]
    grant_heads: Vec<Hash>,
    clock: Clock,
}

impl Welcome {
    /// The bytes; `None` if they would be more than a message holds.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let bytes = codec::encode(&WelcomeWire {
            vault: self.vault,
            addresses: Addresses::new(&self.addresses),
            grants: self.grants.clone(),
            grant_heads: self.grant_heads.iter().take(MAX_HEADS).copied().collect(),
            clock: self.clock.clone(),
        });
        // 64 bytes for the message around it.
        (bytes.len() + 64 <= MAX_WELCOME && self.grants.len() <= MAX_GRANTS).then_some(bytes)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let wire: WelcomeWire = codec::decode(bytes, MAX_WELCOME)?;
        Ok(Self {
            vault: wire.vault,
            addresses: wire.addresses.into_plain().ok_or(CodecError::Malformed)?,
            grants: wire.grants,
            grant_heads: wire.grant_heads,
            clock: wire.clock,
        })
    }
}

/// What the joiner says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ToInviter {
    /// Do you show a code with this nameplate?
    LookFor { nameplate: u8 },
    /// Begin.
    Start {
        #[serde(with = "codec::List::<MAX_VERSIONS>")]
        versions: Vec<u16>,
        nonce: Bytes32,
        method: Method,
    },
    /// The joiner knows the secret.
    Proof { mac: Bytes32 },
    /// Who the joiner is: an encoded [`NewDevice`].
    Request {
        #[serde(with = "codec::Bytes::<MAX_TO_INVITER>")]
        device: Vec<u8>,
        mac: Bytes32,
    },
}

/// Which secret the joiner has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Method {
    /// A link or QR code.
    Link,
    /// A typed code: the joiner's SPAKE2 message.
    Code(#[serde(with = "codec::Bytes::<SPAKE_LEN>")] Vec<u8>),
}

/// What the inviter says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ToJoiner {
    /// Whether it shows a code with that nameplate.
    Here { yes: bool },
    /// Prove it.
    Challenge {
        version: u16,
        nonce: Bytes32,
        /// The inviter's SPAKE2 message where a code is used.
        #[serde(with = "codec::Bytes::<SPAKE_LEN>")]
        spake: Vec<u8>,
    },
    /// The inviter knows the secret too.
    Proof { mac: Bytes32 },
    /// An encoded [`Welcome`].
    Welcome {
        #[serde(with = "codec::Bytes::<MAX_WELCOME>")]
        welcome: Vec<u8>,
        mac: Bytes32,
    },
    /// No; a number, so that a later program's reasons decode too.
    Refused { reason: u16 },
}

impl ToInviter {
    pub(super) fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, MAX_TO_INVITER)
    }
}

impl ToJoiner {
    pub(super) fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a message of at most `max` bytes.
    pub(super) fn decode(bytes: &[u8], max: usize) -> Result<Self, CodecError> {
        codec::decode(bytes, max)
    }
}

/// The answer to whatever a stranger sends while nobody is pairing here. The shell of a node without
/// an [`Inviter`](super::Inviter) sends it and closes.
pub fn not_inviting() -> Vec<u8> {
    refusal(PairingError::NotInviting)
}

/// The message that refuses for this reason.
pub(super) fn refusal(why: PairingError) -> Vec<u8> {
    let reason = match why {
        PairingError::NotInviting => 1,
        PairingError::WrongSecret => 2,
        PairingError::Expired => 3,
        PairingError::Used => 4,
        PairingError::Declined => 5,
        PairingError::NoCommonVersion => 6,
        PairingError::Withdrawn => 7,
        PairingError::TooLarge => 8,
        _ => 9,
    };
    ToJoiner::Refused { reason }.encode()
}

/// What a refusal of this number means to the joiner.
pub(super) fn refused(reason: u16) -> PairingError {
    match reason {
        1 => PairingError::NotInviting,
        2 => PairingError::WrongSecret,
        3 => PairingError::Expired,
        4 => PairingError::Used,
        5 => PairingError::Declined,
        6 => PairingError::NoCommonVersion,
        8 => PairingError::TooLarge,
        9 => PairingError::OutOfTurn,
        _ => PairingError::Withdrawn,
    }
}
