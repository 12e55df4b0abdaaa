//! Names and keys of the parties: devices, vaults, spaces, writers.
//!
//! A device is its Ed25519 public key, the same that libp2p makes its PeerId of. Beside it a device
//! has a key to which secrets are sealed ([`SealingKey`](crate::keys::SealingKey)). Every kind of
//! id has its own type: all are plain bytes, ordered, hex for people, raw on the wire.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use rand::CryptoRng;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

use crate::domain;

/// Text that is not the hexadecimal form of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} hexadecimal digits")]
pub struct ParseIdError {
    /// Digits that this kind of id has.
    pub expected: usize,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The raw bytes.
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut text = [0u8; 2 * $len];
                hex::encode_to_slice(self.0, &mut text).map_err(|_| fmt::Error)?;
                f.pad(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({}…)"), hex::encode(&self.0[..5]))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let mut bytes = [0u8; $len];
                hex::decode_to_slice(text, &mut bytes)
                    .map_err(|_| ParseIdError { expected: 2 * $len })?;
                Ok(Self(bytes))
            }
        }

        impl From<[u8; $len]> for $name {
            fn from(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
                } else {
                    <[u8; $len]>::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

id! {
    /// A BLAKE3 hash: of a grant, a header, a chunk, a frame, a blob. Where it is used says of what.
    Hash, 32
}
id! {
    /// A device: its Ed25519 public key (RFC 8032), the same as in its libp2p PeerId.
    DeviceId, 32
}
id! {
    /// A vault: the id of its genesis grant.
    VaultId, 32
}
id! {
    /// A space of a vault.
    SpaceId, 16
}
id! {
    /// An epoch of a space: the commitment to its key.
    EpochId, 32
}

id! {
    /// What a relay host keeps for one vault, from when it began to until it erases it: random, so that a
    /// host that lost everything cannot look like one that never did.
    StoreId, 16
}

impl Hash {
    /// No hash at all: what the first entry of a log names as its predecessor.
    pub const ZERO: Hash = Hash([0; 32]);

    /// The unkeyed hash of `parts` for the purpose that `context` names.
    pub fn of(context: &str, parts: &[&[u8]]) -> Hash {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        for part in parts {
            hasher.update(part);
        }
        Hash(*hasher.finalize().as_bytes())
    }
}

impl SpaceId {
    /// The space that every vault has.
    pub const HOME: SpaceId = SpaceId([0; 16]);
}

impl VaultId {
    /// Stands in the genesis grant, which cannot name itself.
    pub const NONE: VaultId = VaultId([0; 32]);
}

/// The author of one log: a device, and which of its lives. A data folder that was copied or
/// restored goes on as a new incarnation, so that no log ever forks by honest use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WriterId {
    /// The device.
    pub device: DeviceId,
    /// Counts the device's data folders, from 0.
    pub incarnation: u32,
}

impl WriterId {
    /// The 16 bytes that stand for this writer as an actor in documents: a truncated hash, of which
    /// a collision among the writers of one vault is out of reach (2^64 work to find any pair).
    pub fn actor(&self) -> [u8; 16] {
        let hash = Hash::of(
            domain::ACTOR,
            &[&self.device.0, &self.incarnation.to_le_bytes()],
        );
        let mut actor = [0; 16];
        actor.copy_from_slice(&hash.0[..16]);
        actor
    }
}

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.device, self.incarnation)
    }
}

impl fmt::Debug for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writer({:?}/{})", self.device, self.incarnation)
    }
}

/// An Ed25519 signature (RFC 8032).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({}…)", hex::encode(&self.0[..5]))
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = crate::codec::Bytes::<64>::deserialize(deserializer)?;
        let len = bytes.len();
        bytes
            .try_into()
            .map(Signature)
            .map_err(|_| de::Error::invalid_length(len, &"64 bytes"))
    }
}

/// A signature that does not belong to this key, purpose and message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not fit")]
pub struct BadSignature;

/// What is really signed: no context contains a NUL, so no two (context, message) pairs meet.
fn signed_bytes(context: &str, message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(context.len() + 1 + message.len());
    bytes.extend_from_slice(context.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(message);
    bytes
}

impl DeviceId {
    /// Checks `signature` over `message` for the purpose `context` (one of [`domain`]).
    ///
    /// Strict (RFC 8032 §5.1.7, and no small-order keys): one message has no second valid signature
    /// that a third party could make.
    pub fn verify(
        &self,
        context: &str,
        message: &[u8],
        signature: &Signature,
    ) -> Result<(), BadSignature> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| BadSignature)?;
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        key.verify_strict(&signed_bytes(context, message), &signature)
            .map_err(|_| BadSignature)
    }

    /// Whether these bytes are a key with which something could be signed at all.
    pub fn is_valid(&self) -> bool {
        VerifyingKey::from_bytes(&self.0).is_ok_and(|key| !key.is_weak())
    }
}

/// A device's signing key. Wiped from memory when dropped; on the heap, so that moving it leaves no copy behind.
#[derive(Clone)]
pub struct DeviceKey(Box<SigningKey>);

impl DeviceKey {
    /// A fresh key.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *secret);
        Self(Box::new(SigningKey::from_bytes(&secret)))
    }

    /// The key with this RFC 8032 secret.
    pub fn from_secret(secret: [u8; 32]) -> Self {
        let secret = Zeroizing::new(secret);
        Self(Box::new(SigningKey::from_bytes(&secret)))
    }

    /// The RFC 8032 secret, for the identity file and libp2p's keypair.
    pub fn secret_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The same on the heap, for who wipes it there: moving it leaves no copy behind.
    pub fn boxed_secret(&self) -> Box<[u8; 32]> {
        let mut secret = Box::new([0; 32]);
        secret.copy_from_slice(&self.secret_bytes()[..]);
        secret
    }

    /// The device that has this key.
    pub fn id(&self) -> DeviceId {
        DeviceId(self.0.verifying_key().to_bytes())
    }

    /// Signs `message` for the purpose `context` (one of [`domain`]).
    pub fn sign(&self, context: &str, message: &[u8]) -> Signature {
        Signature(self.0.sign(&signed_bytes(context, message)).to_bytes())
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceKey of {:?}", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use proptest::prelude::*;

    fn key() -> DeviceKey {
        let mut secret = [0; 32];
        hex::decode_to_slice(
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            &mut secret,
        )
        .unwrap();
        DeviceKey::from_secret(secret)
    }

    #[test]
    fn keys_are_rfc_8032s() {
        // §7.1, test 1.
        assert_eq!(
            key().id().to_string(),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
    }

    #[test]
    fn a_signature_fits_one_purpose_and_one_message() {
        let signature = key().sign(domain::GRANT_SIGNATURE, b"message");
        let id = key().id();
        let verify = |context, message: &[u8]| id.verify(context, message, &signature);
        assert_eq!(verify(domain::GRANT_SIGNATURE, b"message"), Ok(()));
        assert_eq!(
            verify(domain::HELD_SIGNATURE, b"message"),
            Err(BadSignature)
        );
        assert_eq!(
            verify(domain::GRANT_SIGNATURE, b"massage"),
            Err(BadSignature)
        );
    }

    #[test]
    fn keys_of_small_order_sign_nothing() {
        // The identity point: with it a signature of zeros would fit any message.
        let mut point = [0; 32];
        point[0] = 1;
        let id = DeviceId(point);
        assert!(!id.is_valid());
        let mut zeros = [0; 64];
        zeros[0] = 1;
        assert!(
            id.verify(domain::GRANT_SIGNATURE, b"", &Signature(zeros))
                .is_err()
        );
    }

    #[test]
    fn an_actor_tells_incarnations_apart_and_never_changes() {
        let mut writer = WriterId {
            device: key().id(),
            incarnation: 0,
        };
        let first = writer.actor();
        assert_eq!(hex::encode(first), "745df649aaa4a0b6cbf9ac437188609a");
        writer.incarnation = 1;
        assert_ne!(writer.actor(), first);
    }

    #[test]
    fn ids_are_raw_on_the_wire_and_hex_for_people() {
        let space = SpaceId([7; 16]);
        assert_eq!(codec::encode(&space), [7; 16]);
        assert_eq!(space.to_string().parse(), Ok(space));
        assert_eq!(format!("{space:?}"), "SpaceId(0707070707…)");
        assert!("07".parse::<SpaceId>().is_err());
        assert!("zz".repeat(16).parse::<SpaceId>().is_err());
    }

    proptest! {
        #[test]
        fn any_text_and_any_bytes_are_taken_calmly(text: String, bytes: [u8; 32], signature: Vec<u8>) {
            let _ = text.parse::<Hash>();
            let _ = DeviceId(bytes).verify(domain::ACTOR, &signature, &Signature([1; 64]));
            let _ = codec::decode::<Signature>(&signature, 80);
        }
    }
}
