//! Proving the secret: the transcript, the key made from both, and the MACs under it.
//!
//! key = KDF("pairing key", secret ‖ transcript hash); each role and message has its own MAC key
//! below it, so that no proof can be sent back as the other side's. The transcript holds both device
//! ids, both nonces and everything else that was said before: a proof is worth nothing elsewhere.

use serde::Serialize;
use spake2::{Ed25519Group, Identity, Password, Spake2};
use zeroize::{Zeroize, Zeroizing};

use super::code::ShortCode;
use crate::codec;
use crate::domain;
use crate::identity::{DeviceId, Hash, VaultId};
use rand::CryptoRng;

/// A MAC or nonce.
pub(super) type Bytes32 = [u8; 32];

/// Bytes of a SPAKE2 message: the side, then a point of edwards25519.
pub(super) const SPAKE_LEN: usize = 33;

/// All that both sides know before the proofs.
#[derive(Serialize)]
pub(super) struct Transcript<'a> {
    pub(super) version: u16,
    pub(super) joiner: DeviceId,
    pub(super) inviter: DeviceId,
    /// Vault and end of validity of the invitation, where a link is used.
    pub(super) invitation: Option<(VaultId, u64)>,
    /// The joiner's `Start`, encoded.
    pub(super) start: &'a [u8],
    /// The inviter's `Challenge`, encoded.
    pub(super) challenge: &'a [u8],
}

/// The keys of one pairing.
pub(super) struct Keys {
    key: Zeroizing<Bytes32>,
    transcript: Hash,
}

impl Keys {
    /// From the link's secret or the outcome of SPAKE2.
    pub(super) fn new(secret: &Bytes32, transcript: &Transcript<'_>) -> Self {
        let transcript = Hash::of(domain::PAIRING_TRANSCRIPT, &[&codec::encode(transcript)]);
        let mut material = Zeroizing::new([0; 64]);
        material[..32].copy_from_slice(secret);
        material[32..].copy_from_slice(&transcript.0);
        Self {
            key: Zeroizing::new(blake3::derive_key(domain::PAIRING_KEY, &*material)),
            transcript,
        }
    }

    pub(super) fn joiner_proof(&self) -> Bytes32 {
        self.mac(domain::PAIRING_JOINER_PROOF, &[])
    }

    pub(super) fn inviter_proof(&self) -> Bytes32 {
        self.mac(domain::PAIRING_INVITER_PROOF, &[])
    }

    pub(super) fn request_mac(&self, request: &[u8]) -> Bytes32 {
        self.mac(domain::PAIRING_REQUEST, request)
    }

    /// Over the request as well: the welcome is for this device under this name and key.
    pub(super) fn welcome_mac(&self, request: &[u8], welcome: &[u8]) -> Bytes32 {
        let request = self.request_mac(request);
        self.mac(domain::PAIRING_WELCOME, &[&request, welcome].concat())
    }

    fn mac(&self, purpose: &str, message: &[u8]) -> Bytes32 {
        let key = Zeroizing::new(blake3::derive_key(purpose, &*self.key));
        let mut mac = blake3::Hasher::new_keyed(&key);
        mac.update(&self.transcript.0);
        mac.update(message);
        *mac.finalize().as_bytes()
    }
}

/// Compares two MACs in constant time.
pub(super) fn same(a: &Bytes32, b: &Bytes32) -> bool {
    blake3::Hash::from_bytes(*a) == blake3::Hash::from_bytes(*b)
}

/// One side of SPAKE2, which its message has gone out for.
pub(super) struct Spake(Spake2<Ed25519Group>);

impl Spake {
    /// The joiner's side (A).
    pub(super) fn joiner(
        code: &ShortCode,
        joiner: DeviceId,
        inviter: DeviceId,
        rng: &mut impl CryptoRng,
    ) -> (Self, Vec<u8>) {
        let (a, b) = (Identity::new(&joiner.0), Identity::new(&inviter.0));
        let (side, message) = Spake2::start_a_with_rng(&password(code), &a, &b, rng);
        (Self(side), message)
    }

    /// The inviter's side (B).
    pub(super) fn inviter(
        code: &ShortCode,
        joiner: DeviceId,
        inviter: DeviceId,
        rng: &mut impl CryptoRng,
    ) -> (Self, Vec<u8>) {
        let (a, b) = (Identity::new(&joiner.0), Identity::new(&inviter.0));
        let (side, message) = Spake2::start_b_with_rng(&password(code), &a, &b, rng);
        (Self(side), message)
    }

    /// The shared key; `None` if the other side's message is none.
    pub(super) fn finish(self, message: &[u8]) -> Option<Zeroizing<Bytes32>> {
        let mut shared = self.0.finish(message).ok()?;
        let key = shared.as_slice().try_into().ok().map(Zeroizing::new);
        shared.zeroize();
        key
    }
}

fn password(code: &ShortCode) -> Password {
    let text = Zeroizing::new(code.to_text());
    Password::new(text.as_bytes())
}
