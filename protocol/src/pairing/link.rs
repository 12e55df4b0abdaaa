//! The invitation that a QR code or link carries to the joining device.
//!
//! `coffer:pair/1/<base 32>`: the canonical bytes of [`Invitation`], as `link_text` writes all links.
//! [`Invitation::to_qr_text`] is all upper case, for the alphanumeric mode of QR codes.
//!
//! Whoever has the link can pair once, until it expires, if the person at the inviter agrees.

use std::fmt;

use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::codec::{self, CodecError};
use crate::domain;
use crate::identity::{DeviceId, VaultId};
use crate::link_text::{self, BadLink, LinkKind};
use crate::version;

/// How long a link stays valid unless the person says otherwise, in milliseconds.
pub const LINK_LIFETIME_MS: u64 = 10 * 60_000;
/// Most addresses in an invitation or welcome; a QR code stays readable with four.
pub const MAX_ADDRESSES: usize = 16;
/// Most bytes of one address; a relayed one has some 150.
pub const MAX_ADDRESS_LEN: usize = link_text::ADDRESS_MAX_LEN;

/// Most bytes of an invitation: its addresses and some 120 bytes beside them.
const MAX_LEN: usize = 256 + MAX_ADDRESSES * (MAX_ADDRESS_LEN + 2);

/// What the joining device needs to find an inviter and to prove that it was invited.
#[derive(Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The vault to join.
    pub vault: VaultId,
    /// The device that invites; its libp2p PeerId is this key.
    pub inviter: DeviceId,
    /// Where it may be reached, as multiaddr text; the reader checks that it is one.
    pub addresses: Vec<String>,
    /// The one-time secret.
    pub secret: [u8; 32],
    /// End of validity, in milliseconds since 1970 by the inviter's clock.
    pub expires_ms: u64,
}

/// Why a text is no invitation to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It is something else altogether.
    #[error("this is not a coffer pairing link")]
    Foreign,
    /// It began as a pairing link, but letters are missing or wrong.
    #[error("the pairing link is damaged or incomplete")]
    Damaged,
    /// A later program made it.
    #[error("the pairing link comes from a newer version of coffer")]
    Newer,
    /// Its time is over.
    #[error("the pairing link has expired")]
    Expired,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    version: u16,
    vault: VaultId,
    inviter: DeviceId,
    addresses: Addresses,
    secret: [u8; 32],
    expires_ms: u64,
}

/// Bounded addresses on the wire.
pub(super) type Addresses = link_text::Addresses<MAX_ADDRESSES>;

const KIND: LinkKind = LinkKind {
    prefix: "coffer:pair/",
    version: version::INVITATION,
    checksum: domain::LINK_CHECKSUM,
    max_len: MAX_LEN,
};

impl From<BadLink> for LinkError {
    fn from(bad: BadLink) -> Self {
        match bad {
            BadLink::Foreign => Self::Foreign,
            BadLink::Damaged => Self::Damaged,
            BadLink::Newer => Self::Newer,
        }
    }
}

impl Invitation {
    /// A fresh invitation. Addresses that are no plain text, or too many, are left out.
    pub fn new(
        vault: VaultId,
        inviter: DeviceId,
        addresses: &[String],
        expires_ms: u64,
        rng: &mut impl CryptoRng,
    ) -> Self {
        let mut secret = [0; 32];
        rng.fill_bytes(&mut secret);
        Self {
            vault,
            inviter,
            addresses: Addresses::new(addresses).into_plain().unwrap_or_default(),
            secret,
            expires_ms,
        }
    }

    /// The link. A secret until it is used or has expired.
    pub fn to_link(&self) -> String {
        let content = Zeroizing::new(codec::encode(&Wire {
            version: version::INVITATION,
            vault: self.vault,
            inviter: self.inviter,
            addresses: Addresses::new(&self.addresses),
            secret: self.secret,
            expires_ms: self.expires_ms,
        }));
        KIND.write(&content)
    }

    /// The link in capitals, for a QR code.
    pub fn to_qr_text(&self) -> String {
        self.to_link().to_uppercase()
    }

    /// Reads a link, or the text of a QR code, at the time `now_ms`.
    pub fn parse(text: &str, now_ms: u64) -> Result<Self, LinkError> {
        let invitation = Self::read(text)?;
        if invitation.is_expired(now_ms) {
            return Err(LinkError::Expired);
        }
        Ok(invitation)
    }

    /// Whether its time is over. Both clocks may be wrong: the inviter's own check decides.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        now_ms >= self.expires_ms
    }

    fn read(text: &str) -> Result<Self, LinkError> {
        let content = KIND.read(text)?;
        let wire = codec::decode_versioned::<Wire>(&content, MAX_LEN, version::INVITATION)
            .map_err(|error| match error {
                CodecError::Newer { .. } => LinkError::Newer,
                _ => LinkError::Damaged,
            })?;
        Ok(Self {
            vault: wire.vault,
            inviter: wire.inviter,
            addresses: wire.addresses.into_plain().ok_or(LinkError::Damaged)?,
            secret: wire.secret,
            expires_ms: wire.expires_ms,
        })
    }
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitation")
            .field("vault", &self.vault)
            .field("inviter", &self.inviter)
            .field("addresses", &self.addresses)
            .field("expires_ms", &self.expires_ms)
            .finish_non_exhaustive()
    }
}

impl Drop for Invitation {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn invitation() -> Invitation {
        Invitation {
            vault: VaultId(std::array::from_fn(|i| i as u8)),
            inviter: DeviceId(std::array::from_fn(|i| 100 + i as u8)),
            addresses: vec!["/ip4/192.168.1.20/udp/4242/quic-v1".into()],
            secret: std::array::from_fn(|i| 200 + i as u8),
            expires_ms: 1_793_000_000_000,
        }
    }

    const FROZEN: &str = "coffer:pair/1/AEAACAQDAQCQMBYIBEFAWDANBYHRAEISCMKBKFQXDAMRUGY4DUPB6ZDFMZTWQ2LKNNWG23TPOBYXE43UOV3HO6DZPJ5XY7L6P6AIDAUDAERC62LQGQXTCOJSFYYTMOBOGEXDEMBPOVSHALZUGI2DEL3ROVUWGLLWGHEMTSWLZTG45T6Q2HJNHVGV23L5RWO23PON3XW74DQ6FY7E4XTOPAEUQO4ZONGN5OMYU";

    #[test]
    fn frozen_link() {
        assert_eq!(invitation().to_link(), FROZEN);
        assert_eq!(Invitation::parse(FROZEN, 0), Ok(invitation()));
    }

    #[test]
    fn the_qr_text_fits_the_alphanumeric_mode_and_reads_back() {
        let text = invitation().to_qr_text();
        assert!(
            text.bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b"$%*+-./: ".contains(&b))
        );
        assert_eq!(Invitation::parse(&text, 0), Ok(invitation()));
    }

    #[test]
    fn a_link_that_mail_wrapped_still_reads() {
        let mut text = invitation().to_link();
        text.insert_str(40, "\r\n  ");
        assert_eq!(
            Invitation::parse(&format!(" {text}\n"), 0),
            Ok(invitation())
        );
    }

    #[test]
    fn each_kind_of_bad_link_is_named() {
        let link = invitation().to_link();
        for (text, error) in [
            ("", LinkError::Foreign),
            ("https://example.org/pair", LinkError::Foreign),
            ("coffer:pair/", LinkError::Damaged),
            ("coffer:pair/1/", LinkError::Damaged),
            ("coffer:pair/x/ABC", LinkError::Damaged),
            ("coffer:pair/2/ABC", LinkError::Newer),
            (&link[..link.len() - 2], LinkError::Damaged),
            (&link.replacen("AEAA", "AEAB", 1), LinkError::Damaged),
        ] {
            assert_eq!(Invitation::parse(text, 0), Err(error), "{text}");
        }
        assert_eq!(
            Invitation::parse(&link, invitation().expires_ms),
            Err(LinkError::Expired)
        );
    }

    #[test]
    fn a_later_format_inside_the_link_is_called_newer() {
        let text = KIND.write(&codec::encode(&(2u16, [0u8; 9])));
        assert_eq!(Invitation::parse(&text, 0), Err(LinkError::Newer));
    }

    #[test]
    fn addresses_that_would_confuse_a_terminal_are_refused() {
        let mut bad = invitation();
        bad.addresses = vec!["/dns/a\u{1b}[2J/tcp/1".into()];
        assert!(!bad.to_link().is_empty());
        assert_eq!(
            Invitation::parse(&bad.to_link(), 0).map(|i| i.addresses.len()),
            Ok(0)
        );
    }

    #[test]
    fn debug_hides_the_secret() {
        assert!(!format!("{:?}", invitation()).contains("secret"));
    }

    proptest! {
        #[test]
        fn every_invitation_reads_back(
            addresses in proptest::collection::vec("[!-~]{1,40}", 0..6),
            secret: [u8; 32],
            expires_ms in 1u64..,
        ) {
            let mut invitation = invitation();
            invitation.addresses = addresses;
            invitation.secret = secret;
            invitation.expires_ms = expires_ms;
            prop_assert_eq!(Invitation::parse(&invitation.to_link(), 0), Ok(invitation));
        }

        #[test]
        fn one_wrong_letter_is_noticed(at in 14usize..200, letter in "[A-Z2-7]") {
            let mut text = invitation().to_link();
            prop_assume!(text[at..=at] != letter);
            text.replace_range(at..=at, &letter);
            prop_assert_eq!(Invitation::parse(&text, 0), Err(LinkError::Damaged));
        }

        #[test]
        fn no_text_panics(text in "(coffer:pair/1/)?.{0,80}") {
            let _ = Invitation::parse(&text, 0);
        }
    }
}
