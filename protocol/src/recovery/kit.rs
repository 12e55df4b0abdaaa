//! The recovery kit: what stands on the paper.
//!
//! `coffer:kit/1/<base 32>`, a link like that of [pairing](crate::pairing), in the QR code of the page: the recovery
//! key, the vault's id, and where its hosts are. Nobody but its person is ever sent it. Who types the words instead
//! also types the vault's id, or asks a device that knows it.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::RecoveryKey;
use crate::codec::{self, CodecError, List};
use crate::domain;
use crate::identity::{DeviceId, VaultId};
use crate::link_text::{ADDRESS_MAX_LEN, Addresses, BadLink, LinkKind};
use crate::version;

/// Most hosts that a kit names: more make the QR code too fine to print.
pub const MAX_KIT_HOSTS: usize = 3;
/// Most addresses of each.
pub const MAX_KIT_ADDRESSES: usize = 4;

const MAX_LEN: usize = 128 + MAX_KIT_HOSTS * (64 + MAX_KIT_ADDRESSES * (ADDRESS_MAX_LEN + 2));

const KIND: LinkKind = LinkKind {
    prefix: "coffer:kit/",
    version: version::KIT,
    checksum: domain::KIT_CHECKSUM,
    max_len: MAX_LEN,
};

/// What brings a vault back.
#[derive(Clone)]
pub struct Kit {
    /// The vault.
    pub vault: VaultId,
    /// The words.
    pub key: RecoveryKey,
    /// Its hosts when the kit was printed.
    pub hosts: Vec<KitHost>,
}

/// A host that a kit names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KitHost {
    /// The host; its libp2p PeerId is this key.
    pub host: DeviceId,
    /// Where it may be reached, as multiaddr text; the reader checks that it is one.
    pub addresses: Vec<String>,
}

/// Why a text is no kit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KitError {
    /// It is something else altogether.
    #[error("this is not a recovery kit")]
    Foreign,
    /// It began as one, but letters are missing or wrong.
    #[error("the recovery kit is damaged or incomplete")]
    Damaged,
    /// A later program made it.
    #[error("the recovery kit comes from a newer version of coffer")]
    Newer,
}

impl From<BadLink> for KitError {
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
    vault: VaultId,
    entropy: [u8; 32],
    #[serde(with = "List::<MAX_KIT_HOSTS>")]
    hosts: Vec<WireHost>,
}

#[derive(Serialize, Deserialize)]
struct WireHost {
    host: DeviceId,
    addresses: Addresses<MAX_KIT_ADDRESSES>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.entropy);
    }
}

impl Kit {
    /// A kit; hosts and addresses beyond those that it can name are left out.
    pub fn new(vault: VaultId, key: RecoveryKey, hosts: impl IntoIterator<Item = KitHost>) -> Self {
        let plain = |host: KitHost| KitHost {
            addresses: Addresses::<MAX_KIT_ADDRESSES>::new(&host.addresses)
                .into_plain()
                .unwrap_or_default(),
            ..host
        };
        Self {
            vault,
            key,
            hosts: hosts.into_iter().take(MAX_KIT_HOSTS).map(plain).collect(),
        }
    }

    /// The link in capitals, for a QR code. It opens everything.
    pub fn to_qr_text(&self) -> Zeroizing<String> {
        let hosts = self.hosts.iter().map(|host| WireHost {
            host: host.host,
            addresses: Addresses::new(&host.addresses),
        });
        let content = Zeroizing::new(codec::encode(&Wire {
            version: version::KIT,
            vault: self.vault,
            entropy: *self.key.entropy,
            hosts: hosts.collect(),
        }));
        let link = Zeroizing::new(KIND.write(&content));
        Zeroizing::new(link.to_uppercase())
    }

    /// Reads the text of the QR code, in any case and spacing.
    pub fn parse(text: &str) -> Result<Self, KitError> {
        let content = KIND.read(text)?;
        let mut wire =
            codec::decode_versioned::<Wire>(&content, MAX_LEN, version::KIT).map_err(|error| {
                match error {
                    CodecError::Newer { .. } => KitError::Newer,
                    _ => KitError::Damaged,
                }
            })?;
        let mut hosts = Vec::new();
        for host in std::mem::take(&mut wire.hosts) {
            if !host.host.is_valid() {
                return Err(KitError::Damaged);
            }
            hosts.push(KitHost {
                host: host.host,
                addresses: host.addresses.into_plain().ok_or(KitError::Damaged)?,
            });
        }
        let key = RecoveryKey {
            entropy: Zeroizing::new(wire.entropy),
        };
        Ok(Self {
            vault: wire.vault,
            key,
            hosts,
        })
    }
}

impl fmt::Debug for Kit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kit")
            .field("vault", &self.vault)
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::DeviceKey;

    fn kit() -> Kit {
        let host = KitHost {
            host: DeviceKey::from_secret([7; 32]).id(),
            addresses: vec!["/dns4/host.example/tcp/4100".into()],
        };
        let key = RecoveryKey {
            entropy: Zeroizing::new([9; 32]),
        };
        Kit::new(VaultId([3; 32]), key, [host])
    }

    #[test]
    fn a_kit_survives_being_printed_and_scanned() {
        let (printed, lower) = (kit().to_qr_text(), kit().to_qr_text().to_lowercase());
        for text in [&*printed, &lower] {
            let read = Kit::parse(text).unwrap();
            assert_eq!(read.vault, kit().vault);
            assert_eq!(read.hosts, kit().hosts);
            assert_eq!(*read.key.words(), *kit().key.words());
        }
        assert!(!format!("{:?}", kit()).contains("09"));
    }

    /// What is on paper is read by every later program.
    #[test]
    fn a_kit_is_written_as_it_always_was() {
        let frozen = include_str!("../../frozen/v1/kit.txt");
        assert_eq!(&*kit().to_qr_text(), frozen.trim());
    }

    #[test]
    fn a_kit_that_lost_a_letter_is_damaged() {
        let text = kit().to_qr_text();
        let cut = &text[..text.len() - 3];
        assert_eq!(Kit::parse(cut).unwrap_err(), KitError::Damaged);
        assert_eq!(
            Kit::parse("coffer:pair/1/aaaa").unwrap_err(),
            KitError::Foreign
        );
        assert_eq!(
            Kit::parse("COFFER:KIT/2/AAAA").unwrap_err(),
            KitError::Newer
        );
    }

    proptest! {
        #[test]
        fn arbitrary_texts_never_panic(text: String) {
            prop_assert!(Kit::parse(&text).is_err());
            let _ = Kit::parse(&format!("coffer:kit/1/{text}"));
        }
    }
}
