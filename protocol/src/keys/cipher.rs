//! AES-256-GCM under keys that are each used for one message only.
//!
//! No nonce is ever chosen: every message has its own key, derived from its base key and either the
//! hash of exactly what is sealed or 32 random bytes, and the nonce is zero.

use rand::CryptoRng;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

/// Bytes that authentication adds to a plaintext.
pub const TAG_LEN: usize = 16;

/// Random bytes at the front of a sealed box.
const SALT_LEN: usize = 32;

/// Bytes that [`seal_box`] adds to a plaintext.
pub(crate) const BOX_OVERHEAD: usize = SALT_LEN + TAG_LEN;

/// What is sealed does not open: another key, other associated data, or altered bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sealed bytes do not open with this key")]
pub struct CannotOpen;

/// The key for the one message that `unique` stands for.
pub(crate) fn one_time_key(base: &[u8; 32], unique: &[&[u8]]) -> LessSafeKey {
    let mut hasher = blake3::Hasher::new_keyed(base);
    for part in unique {
        hasher.update(part);
    }
    let key = Zeroizing::new(*hasher.finalize().as_bytes());
    let key = UnboundKey::new(&AES_256_GCM, &*key).expect("an AES-256 key has 32 bytes");
    LessSafeKey::new(key)
}

fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// Encrypts `message[from..]` in place and appends the tag.
pub(crate) fn seal_in_place(key: &LessSafeKey, aad: &[u8], message: &mut Vec<u8>, from: usize) {
    let tag = key
        .seal_in_place_separate_tag(zero_nonce(), Aad::from(aad), &mut message[from..])
        .expect("a message is far below AES-GCM's limit of 64 GiB");
    message.extend_from_slice(tag.as_ref());
}

/// Decrypts `sealed` (ciphertext and tag) in place; gives the plaintext part of it.
pub(crate) fn open_in_place<'a>(
    key: &LessSafeKey,
    aad: &[u8],
    sealed: &'a mut [u8],
) -> Result<&'a mut [u8], CannotOpen> {
    key.open_in_place(zero_nonce(), Aad::from(aad), sealed)
        .map_err(|_| CannotOpen)
}

/// Seals a short message under `base`: salt ‖ ciphertext ‖ tag.
pub(crate) fn seal_box(
    base: &[u8; 32],
    aad: &[u8],
    plain: &[u8],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(plain.len() + BOX_OVERHEAD);
    sealed.resize(SALT_LEN, 0);
    rng.fill_bytes(&mut sealed);
    let key = one_time_key(base, &[&sealed]);
    sealed.extend_from_slice(plain);
    seal_in_place(&key, aad, &mut sealed, SALT_LEN);
    sealed
}

/// Opens what [`seal_box`] made.
pub(crate) fn open_box(
    base: &[u8; 32],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, CannotOpen> {
    if sealed.len() < BOX_OVERHEAD {
        return Err(CannotOpen);
    }
    let (salt, sealed) = sealed.split_at(SALT_LEN);
    let mut plain = Zeroizing::new(sealed.to_vec());
    let len = open_in_place(&one_time_key(base, &[salt]), aad, &mut plain)?.len();
    plain.truncate(len);
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    /// McGrew and Viega's test case 14: AES-256, all zero.
    #[test]
    fn the_cipher_is_aes_256_gcm_with_a_zero_nonce() {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[0; 32]).unwrap());
        let mut message = vec![0; 16];
        seal_in_place(&key, &[], &mut message, 0);
        assert_eq!(
            hex::encode(message),
            "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"
        );
    }

    #[test]
    fn a_box_opens_only_with_its_key_data_and_bytes() {
        let mut rng = rand_chacha::ChaCha12Rng::seed_from_u64(1);
        let sealed = seal_box(&[1; 32], b"aad", b"plain", &mut rng);
        assert_eq!(sealed.len(), 5 + BOX_OVERHEAD);
        assert_eq!(&**open_box(&[1; 32], b"aad", &sealed).unwrap(), b"plain");
        assert!(open_box(&[2; 32], b"aad", &sealed).is_err());
        assert!(open_box(&[1; 32], b"other", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert!(open_box(&[1; 32], b"aad", &altered).is_err(), "byte {at}");
            assert!(
                open_box(&[1; 32], b"aad", &sealed[..at]).is_err(),
                "cut {at}"
            );
        }
    }
}
