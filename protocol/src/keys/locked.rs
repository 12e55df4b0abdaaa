//! A device's own keys as they lie on its disk where something must be known to use them: a passphrase, or a secret that
//! the system keeps for whoever is logged in.
//!
//! How a passphrase becomes 32 bytes, and where the file is, is the node's business. What is sealed is bound to the
//! bytes around it (the file's version, the cost of stretching), so that nobody can make the next try cheaper by
//! altering them.

use rand::CryptoRng;
use zeroize::Zeroizing;

use super::SealingKey;
use super::cipher::{BOX_OVERHEAD, CannotOpen, open_box, seal_box};
use crate::domain;
use crate::identity::DeviceKey;

/// Bytes of a device's two secrets.
const PLAIN_LEN: usize = 64;

/// Bytes of a device's keys, sealed.
pub const LOCKED_LEN: usize = PLAIN_LEN + BOX_OVERHEAD;

/// What a device's keys are sealed under.
pub struct LockKey(Zeroizing<[u8; 32]>);

impl LockKey {
    /// From a passphrase that was stretched to 32 bytes.
    pub fn of_passphrase(stretched: &[u8; 32]) -> LockKey {
        LockKey(Zeroizing::new(blake3::derive_key(
            domain::DEVICE_BY_PASSPHRASE,
            stretched,
        )))
    }

    /// From 32 random bytes that the system keeps.
    pub fn of_login(secret: &[u8; 32]) -> LockKey {
        LockKey(Zeroizing::new(blake3::derive_key(
            domain::DEVICE_BY_LOGIN,
            secret,
        )))
    }

    /// Seals a device's keys. `about` is what stands before them, and must be the same to open them.
    pub fn seal(
        &self,
        device: &DeviceKey,
        sealing: &SealingKey,
        about: &[u8],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Vec<u8> {
        let mut plain = Zeroizing::new([0; PLAIN_LEN]);
        plain[..32].copy_from_slice(&*device.secret_bytes());
        plain[32..].copy_from_slice(sealing.seed_bytes());
        seal_box(&self.0, about, &*plain, rng)
    }

    /// Opens what [`seal`](Self::seal) made.
    ///
    /// # Errors
    /// [`CannotOpen`]: another passphrase or secret, or altered bytes. Nobody can tell which.
    pub fn open(&self, sealed: &[u8], about: &[u8]) -> Result<(DeviceKey, SealingKey), CannotOpen> {
        let plain = open_box(&self.0, about, sealed)?;
        let (device, seed) = plain.split_at_checked(32).ok_or(CannotOpen)?;
        let mut secrets = [Zeroizing::new([0; 32]), Zeroizing::new([0; 32])];
        if seed.len() != 32 {
            return Err(CannotOpen);
        }
        secrets[0].copy_from_slice(device);
        secrets[1].copy_from_slice(seed);
        Ok((
            DeviceKey::from_secret(*secrets[0]),
            SealingKey::from_seed(*secrets[1]),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn a_devices_keys_open_only_under_what_sealed_them() {
        let mut rng = rand_chacha::ChaCha12Rng::seed_from_u64(1);
        let (device, sealing) = (
            DeviceKey::from_secret([1; 32]),
            SealingKey::from_seed([2; 32]),
        );
        let key = LockKey::of_passphrase(&[3; 32]);
        let sealed = key.seal(&device, &sealing, b"cost", &mut rng);
        assert_eq!(sealed.len(), LOCKED_LEN);
        let (opened, seed) = key.open(&sealed, b"cost").unwrap();
        assert_eq!(opened.secret_bytes(), device.secret_bytes());
        assert_eq!(seed.seed_bytes(), sealing.seed_bytes());
        assert!(key.open(&sealed, b"less").is_err());
        let wrong = LockKey::of_passphrase(&[4; 32]);
        assert!(wrong.open(&sealed, b"cost").is_err());
        let other_use = LockKey::of_login(&[3; 32]);
        assert!(other_use.open(&sealed, b"cost").is_err());
        let again = key.seal(&device, &sealing, b"cost", &mut rng);
        assert_ne!(again, sealed, "each sealing has a key of its own");
    }
}
