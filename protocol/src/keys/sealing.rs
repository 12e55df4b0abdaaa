//! Sealing to a device: HPKE (RFC 9180, base mode) with the hybrid post-quantum KEM X-Wing
//! (ML-KEM-768 and X25519), HKDF-SHA256 and ChaCha20-Poly1305.
//!
//! What is sealed today to be read by a device must stay closed to whoever records it and has a
//! quantum computer later; that is what the KEM is for. Base mode says nothing about the sender:
//! what carries a seal is signed.

use std::fmt;

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use rand::CryptoRng;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

use super::CannotOpen;
use crate::codec::Bytes;
use crate::domain;
use crate::identity::DeviceKey;

type PrivateKey = <XWing as Kem>::PrivateKey;
type PublicKey = <XWing as Kem>::PublicKey;
type EncappedKey = <XWing as Kem>::EncappedKey;

/// Bytes of the encapsulated key in front of the ciphertext.
const ENCAPPED_LEN: usize = 1120;

/// Bytes that sealing adds to a plaintext: the encapsulated key and the tag.
pub const SEALED_OVERHEAD: usize = ENCAPPED_LEN + 16;

/// Bytes that are not an X-Wing public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid sealing key")]
pub struct BadSealingKey;

/// The public key to which secrets for a device, or for the recovery key, are sealed. Always a valid
/// key: bytes are checked where they come in.
#[derive(Clone, PartialEq, Eq)]
pub struct SealingPublic {
    bytes: Box<[u8; SealingPublic::LEN]>,
}

impl SealingPublic {
    /// Length in bytes.
    pub const LEN: usize = 1216;

    /// Takes the raw form of an X-Wing public key, if it is one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadSealingKey> {
        PublicKey::from_bytes(bytes).map_err(|_| BadSealingKey)?;
        let bytes: [u8; Self::LEN] = bytes.try_into().map_err(|_| BadSealingKey)?;
        Ok(Self {
            bytes: Box::new(bytes),
        })
    }

    /// The raw form.
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.bytes
    }

    /// Seals `plain` so that only this key's owner opens it, and only with the same `info` (what it
    /// is for) and `aad` (whom it is for): encapsulated key ‖ ciphertext ‖ tag.
    pub fn seal(
        &self,
        info: &[u8],
        aad: &[u8],
        plain: &[u8],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Vec<u8> {
        let recipient =
            PublicKey::from_bytes(&self.bytes[..]).expect("checked when this key was made");
        let mut rng = rng;
        let (encapped, ciphertext) = hpke::single_shot_seal_with_rng::<
            ChaCha20Poly1305,
            HkdfSha256,
            XWing,
        >(
            &OpModeS::Base, &recipient, info, plain, aad, &mut rng
        )
        .expect("encapsulation to a valid key and one message cannot fail");
        let mut sealed = Vec::with_capacity(plain.len() + SEALED_OVERHEAD);
        sealed.extend_from_slice(&encapped.to_bytes());
        sealed.extend_from_slice(&ciphertext);
        sealed
    }
}

impl fmt::Debug for SealingPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingPublic({}…)", hex::encode(&self.bytes[..5]))
    }
}

impl Serialize for SealingPublic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.bytes[..])
    }
}

impl<'de> Deserialize<'de> for SealingPublic {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Bytes::<{ Self::LEN }>::deserialize(deserializer)?;
        Self::from_bytes(&bytes).map_err(de::Error::custom)
    }
}

/// The secret half: a 32-byte seed. Wiped from memory when dropped; on the heap, so that moving it leaves no copy behind.
#[derive(Clone)]
pub struct SealingKey {
    seed: Box<Zeroizing<[u8; 32]>>,
}

impl SealingKey {
    /// A fresh key.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        Self::from_seed(seed)
    }

    /// The key with this seed, which is X-Wing's decapsulation key.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self {
            seed: Box::new(Zeroizing::new(seed)),
        }
    }

    /// The key that belongs to a device's signing key, so that a device keeps one secret only.
    pub fn of_device(key: &DeviceKey) -> Self {
        Self::from_seed(blake3::derive_key(
            domain::DEVICE_SEALING,
            &*key.secret_bytes(),
        ))
    }

    /// The seed, for storage.
    pub fn seed_bytes(&self) -> &[u8; 32] {
        &self.seed
    }

    fn private(&self) -> PrivateKey {
        PrivateKey::from_bytes(&self.seed[..]).expect("any 32 bytes are a decapsulation key")
    }

    /// The public half.
    pub fn public(&self) -> SealingPublic {
        let bytes = XWing::sk_to_pk(&self.private()).to_bytes();
        SealingPublic::from_bytes(&bytes).expect("made from a private key")
    }

    /// Opens what [`SealingPublic::seal`] made for this key with the same `info` and `aad`.
    pub fn open(
        &self,
        info: &[u8],
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CannotOpen> {
        if sealed.len() < SEALED_OVERHEAD {
            return Err(CannotOpen);
        }
        let (encapped, ciphertext) = sealed.split_at(ENCAPPED_LEN);
        let encapped = EncappedKey::from_bytes(encapped).map_err(|_| CannotOpen)?;
        hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, XWing>(
            &OpModeR::Base,
            &self.private(),
            &encapped,
            info,
            ciphertext,
            aad,
        )
        .map(Zeroizing::new)
        .map_err(|_| CannotOpen)
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha12Rng;

    fn key() -> SealingKey {
        let mut seed = [0; 32];
        hex::decode_to_slice(XWING_SK, &mut seed).unwrap();
        SealingKey::from_seed(seed)
    }

    const XWING_SK: &str = "7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26";

    /// First vector of draft-connolly-cfrg-xwing-kem.
    #[test]
    fn keys_are_x_wings() {
        let public = key().public();
        assert_eq!(
            hex::encode(&public.as_bytes()[..16]),
            "e2236b35a8c24b39b10aa1323a96a919"
        );
        assert_eq!(
            hex::encode(&public.as_bytes()[1184..]),
            "859edb06eff389b27dce59844570216223593d4ba32d9abac8cd049040ef6534"
        );
    }

    /// The same vector: 64 bytes of randomness give this encapsulation, which leads our ciphertexts.
    #[test]
    fn encapsulation_is_x_wings() {
        struct Given(Vec<u8>);
        impl rand::TryRng for Given {
            type Error = std::convert::Infallible;
            fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
                Ok(0)
            }
            fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
                Ok(0)
            }
            fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
                out.copy_from_slice(&self.0[..out.len()]);
                Ok(())
            }
        }
        impl rand::TryCryptoRng for Given {}
        let randomness = concat!(
            "3cb1eea988004b93103cfb0aeefd2a686e01fa4a58e8a3639ca8a1e3f9ae57e2",
            "35b8cc873c23dc62b8d260169afa2f75ab916a58d974918835d25e6a435085b2"
        );
        let mut rng = Given(hex::decode(randomness).unwrap());
        let sealed = key().public().seal(b"", b"", b"", &mut rng);
        assert_eq!(
            hex::encode(&sealed[..16]),
            "b83aa828d4d62b9a83ceffe1d3d3bb1e"
        );
        assert_eq!(
            hex::encode(&sealed[1088..1120]),
            "e56f17576740ce2a32fc5145030145cfb97e63e0e41d354274a079d3e6fb2e15"
        );
    }

    #[test]
    fn only_the_recipient_opens_and_only_for_the_purpose() {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let sealed = key().public().seal(b"info", b"aad", b"plain", &mut rng);
        assert_eq!(sealed.len(), 5 + SEALED_OVERHEAD);
        assert_eq!(&**key().open(b"info", b"aad", &sealed).unwrap(), b"plain");
        assert!(key().open(b"else", b"aad", &sealed).is_err());
        assert!(key().open(b"info", b"else", &sealed).is_err());
        let other = SealingKey::generate(&mut rng);
        assert!(other.open(b"info", b"aad", &sealed).is_err());
    }

    #[test]
    fn a_devices_sealing_key_follows_from_its_signing_key() {
        let device = DeviceKey::from_secret([5; 32]);
        let (a, b) = (
            SealingKey::of_device(&device),
            SealingKey::of_device(&device),
        );
        assert_eq!(a.public(), b.public());
        assert_ne!(a.seed_bytes(), &*device.secret_bytes());
    }

    #[test]
    fn bytes_that_are_no_key_are_refused() {
        // ML-KEM's coefficients are below 3329: twelve set bits are none.
        assert!(SealingPublic::from_bytes(&[0xff; SealingPublic::LEN]).is_err());
        assert!(SealingPublic::from_bytes(&key().public().as_bytes()[1..]).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn altered_and_arbitrary_bytes_do_not_open(at: prop::sample::Index, flip in 1u8.., noise: Vec<u8>) {
            let mut rng = ChaCha12Rng::seed_from_u64(1);
            let mut sealed = key().public().seal(b"info", b"aad", b"plain", &mut rng);
            let at = at.index(sealed.len());
            sealed[at] ^= flip;
            prop_assert!(key().open(b"info", b"aad", &sealed).is_err());
            prop_assert!(key().open(b"info", b"aad", &sealed[..at]).is_err());
            prop_assert!(key().open(b"info", b"aad", &noise).is_err());
        }
    }
}
