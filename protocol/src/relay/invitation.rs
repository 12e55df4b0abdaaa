//! The invitation that a host makes and a person carries to one of their devices.
//!
//! `coffer:relay/1/<base 32>`, a link like that of [pairing](crate::pairing): as text, or as a QR code. It says
//! which host, where it is, and how much it will keep, and holds a secret. Whoever has it can bind one
//! vault to the host, until it expires. The host keeps [`id`](HostInvitation::id), a hash of the secret: what
//! lies on its disk is of no use to who reads it.

use std::fmt;

use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::codec::{self, CodecError, Text};
use crate::domain;
use crate::identity::{DeviceId, Hash};
use crate::link_text::{ADDRESS_MAX_LEN, Addresses, BadLink, LinkKind, clean};
use crate::version;

/// How long an invitation stays valid unless the host's person says otherwise, in milliseconds: seven
/// days, as it may be mailed to somebody.
pub const HOST_LINK_LIFETIME_MS: u64 = 7 * 24 * 3_600_000;
/// Most addresses in an invitation: two families, two transports, and a name for each.
pub const MAX_HOST_ADDRESSES: usize = 8;
/// Most bytes of a host's name.
pub const HOST_NAME_MAX_LEN: usize = 64;

/// Most bytes of the content: its addresses and some 160 bytes beside them.
const MAX_LEN: usize = 256 + MAX_HOST_ADDRESSES * (ADDRESS_MAX_LEN + 2);

const KIND: LinkKind = LinkKind {
    prefix: "coffer:relay/",
    version: version::HOST_INVITATION,
    checksum: domain::HOST_LINK_CHECKSUM,
    max_len: MAX_LEN,
};

/// What a device needs to find a host and to be let in.
#[derive(Clone, PartialEq, Eq)]
pub struct HostInvitation {
    /// The host; its libp2p PeerId is this key.
    pub host: DeviceId,
    /// What it calls itself: one line of visible text, 1 to [`HOST_NAME_MAX_LEN`] bytes.
    pub name: String,
    /// Where it may be reached, as multiaddr text; the reader checks that it is one.
    pub addresses: Vec<String>,
    /// The one-time secret.
    pub secret: [u8; 32],
    /// Bytes of entries and blobs that the host will keep of the vault.
    pub quota_bytes: u64,
    /// End of validity, in milliseconds since 1970 by the host's clock.
    pub expires_ms: u64,
}

/// Why a text is no invitation to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostLinkError {
    /// It is something else altogether.
    #[error("this is not an invitation of a host")]
    Foreign,
    /// It began as one, but letters are missing or wrong.
    #[error("the host's invitation is damaged or incomplete")]
    Damaged,
    /// A later program made it.
    #[error("the host's invitation comes from a newer version of coffer")]
    Newer,
    /// Its time is over.
    #[error("the host's invitation has expired")]
    Expired,
}

impl From<BadLink> for HostLinkError {
    fn from(bad: BadLink) -> Self {
        match bad {
            BadLink::Foreign => Self::Foreign,
            BadLink::Damaged => Self::Damaged,
            BadLink::Newer => Self::Newer,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Wire {
    version: u16,
    host: DeviceId,
    #[serde(with = "Text::<HOST_NAME_MAX_LEN>")]
    name: String,
    addresses: Addresses<MAX_HOST_ADDRESSES>,
    secret: [u8; 32],
    quota_bytes: u64,
    expires_ms: u64,
}

impl HostInvitation {
    /// A fresh invitation. Addresses that are no plain text, or too many, are left out; what cannot be
    /// shown is left out of the name, and a name with nothing left becomes `host`.
    pub fn new(
        host: DeviceId,
        name: &str,
        addresses: &[String],
        quota_bytes: u64,
        expires_ms: u64,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Self {
        let mut secret = [0; 32];
        rng.fill_bytes(&mut secret);
        Self {
            host,
            name: host_name(name),
            addresses: Addresses::<MAX_HOST_ADDRESSES>::new(addresses)
                .into_plain()
                .unwrap_or_default(),
            secret,
            quota_bytes,
            expires_ms,
        }
    }

    /// The name under which the host keeps an invitation with this secret.
    pub fn id_of(secret: &[u8; 32]) -> Hash {
        Hash::of(domain::HOST_INVITATION_ID, &[secret])
    }

    /// The name under which the host keeps this invitation.
    pub fn id(&self) -> Hash {
        Self::id_of(&self.secret)
    }

    /// The link. A secret until it is used or has expired.
    pub fn to_link(&self) -> String {
        let content = Zeroizing::new(codec::encode(&Wire {
            version: version::HOST_INVITATION,
            host: self.host,
            name: self.name.clone(),
            addresses: Addresses::new(&self.addresses),
            secret: self.secret,
            quota_bytes: self.quota_bytes,
            expires_ms: self.expires_ms,
        }));
        KIND.write(&content)
    }

    /// The link in capitals, for a QR code.
    pub fn to_qr_text(&self) -> String {
        self.to_link().to_uppercase()
    }

    /// Reads a link, or the text of a QR code, at the time `now_ms`.
    pub fn parse(text: &str, now_ms: u64) -> Result<Self, HostLinkError> {
        let content = KIND.read(text)?;
        let wire = codec::decode_versioned::<Wire>(&content, MAX_LEN, version::HOST_INVITATION)
            .map_err(|error| match error {
                CodecError::Newer { .. } => HostLinkError::Newer,
                _ => HostLinkError::Damaged,
            })?;
        let addresses = wire.addresses.into_plain();
        let invitation = Self {
            host: wire.host,
            addresses: addresses.ok_or(HostLinkError::Damaged)?,
            secret: wire.secret,
            quota_bytes: wire.quota_bytes,
            expires_ms: wire.expires_ms,
            name: wire.name,
        };
        if host_name(&invitation.name) != invitation.name || !invitation.host.is_valid() {
            return Err(HostLinkError::Damaged);
        }
        if invitation.is_expired(now_ms) {
            return Err(HostLinkError::Expired);
        }
        Ok(invitation)
    }

    /// Whether its time is over. Both clocks may be wrong: the host's own check decides.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        now_ms >= self.expires_ms
    }
}

/// `name` as a host can have it: one line of visible text, never empty.
pub(super) fn host_name(name: &str) -> String {
    match clean(name, HOST_NAME_MAX_LEN) {
        name if name.is_empty() => "host".to_owned(),
        name => name,
    }
}

impl fmt::Debug for HostInvitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostInvitation")
            .field("host", &self.host)
            .field("name", &self.name)
            .field("addresses", &self.addresses)
            .field("quota_bytes", &self.quota_bytes)
            .field("expires_ms", &self.expires_ms)
            .finish_non_exhaustive()
    }
}

impl Drop for HostInvitation {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}
