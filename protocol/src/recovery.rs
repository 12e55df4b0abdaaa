//! The recovery key: the way back into a vault when every device is lost.
//!
//! It is 32 random bytes, written down by a person as 24 words (BIP 39, English) and then kept on no
//! device. From them come a signing key and a sealing key; the genesis grant names both public
//! halves, and every epoch's key is sealed to it. Until the person has confirmed the words, the
//! device that made them keeps them sealed under a key of its own ([`RecoveryKey::seal_at_rest`]).
//! What is printed with them is a [`Kit`]; [`Asker`] and [`Keeper`] are the conversation by which a vault
//! comes back.

mod asking;
mod kit;

pub use asking::{
    Asker, AskerStep, Keeper, KeeperStep, MAX_RECOVER_GRANTS, MAX_RECOVER_MESSAGE, Proof,
    RECOVER_TIMEOUT_MS, RecoverError,
};
pub use kit::{Kit, KitError, KitHost, MAX_KIT_ADDRESSES, MAX_KIT_HOSTS};

use std::fmt;

use bip39::{Language, Mnemonic};
use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::codec;
use crate::domain;
use crate::identity::{DeviceId, DeviceKey, VaultId};
use crate::keys::{self, CannotOpen, SealingKey, SealingPublic};
use crate::version;

/// Words of a written-down recovery key.
pub const WORDS: usize = 24;

/// The public halves of a recovery key, as the genesis grant names them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryPublic {
    /// With what it signs.
    pub signing: DeviceId,
    /// To what is sealed for it.
    pub sealing: SealingPublic,
}

/// Why words are not a recovery key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    /// There have to be 24.
    #[error("a recovery key has {WORDS} words, these are {0}")]
    Count(usize),
    /// One of them, counted from 1, is not in the list.
    #[error("word {0} is not one of the list")]
    Unknown(usize),
    /// All are in the list, but at least one is wrong or in the wrong place.
    #[error("the words do not belong together: one is wrong, or the order is")]
    Checksum,
}

/// Why a recovery key at rest was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AtRestError {
    /// The bytes are of another form, or of a later program.
    #[error("the stored recovery key is damaged: {0}")]
    Codec(#[from] codec::CodecError),
    /// Another device's or vault's, or altered.
    #[error("the stored recovery key is not of this device and vault")]
    CannotOpen(#[from] CannotOpen),
}

/// The recovery key itself. Wiped from memory when dropped.
#[derive(Clone)]
pub struct RecoveryKey {
    entropy: Zeroizing<[u8; 32]>,
}

impl RecoveryKey {
    /// A fresh key.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut entropy = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *entropy);
        Self { entropy }
    }

    /// The key that is written down as `words`: 24 of them, of any case, between any white space.
    pub fn from_words(words: &str) -> Result<Self, WordsError> {
        let lower = Zeroizing::new(words.to_lowercase());
        let count = lower.split_whitespace().count();
        if count != WORDS {
            return Err(WordsError::Count(count));
        }
        let mnemonic = Mnemonic::parse_in_normalized(Language::English, &lower).map_err(
            |error| match error {
                bip39::Error::UnknownWord(index) => WordsError::Unknown(index + 1),
                _ => WordsError::Checksum,
            },
        )?;
        let mut entropy = Zeroizing::new([0; 32]);
        let (mut bytes, len) = mnemonic.to_entropy_array();
        if len == entropy.len() {
            entropy.copy_from_slice(&bytes[..len]);
        }
        bytes.zeroize();
        if len == entropy.len() {
            Ok(Self { entropy })
        } else {
            Err(WordsError::Checksum)
        }
    }

    /// The 24 words, with one space between each.
    pub fn words(&self) -> Zeroizing<String> {
        let mnemonic = Mnemonic::from_entropy_in(Language::English, &*self.entropy)
            .expect("32 bytes are a length that BIP 39 has");
        // The words themselves are static; only their order is the secret.
        let mut words = Zeroizing::new(String::with_capacity(WORDS * 9));
        for word in mnemonic.words() {
            if !words.is_empty() {
                words.push(' ');
            }
            words.push_str(word);
        }
        words
    }

    /// With what this key signs.
    pub fn signing(&self) -> DeviceKey {
        DeviceKey::from_secret(blake3::derive_key(domain::RECOVERY_SIGNING, &*self.entropy))
    }

    /// With what it opens what was sealed for it.
    pub fn sealing(&self) -> SealingKey {
        SealingKey::from_seed(blake3::derive_key(domain::RECOVERY_SEALING, &*self.entropy))
    }

    /// What the genesis grant says of it.
    pub fn public(&self) -> RecoveryPublic {
        RecoveryPublic {
            signing: self.signing().id(),
            sealing: self.sealing().public(),
        }
    }

    /// The form in which the device that made this key keeps it until a person has confirmed the
    /// words: sealed under a key derived from the device's own, for this vault only.
    pub fn seal_at_rest(
        &self,
        device: &DeviceKey,
        vault: &VaultId,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Vec<u8> {
        codec::encode(&AtRest {
            version: version::RECOVERY,
            sealed: keys::seal_box(&at_rest_key(device), &vault.0, &*self.entropy, rng),
        })
    }

    /// Opens what [`seal_at_rest`](Self::seal_at_rest) made.
    pub fn open_at_rest(
        bytes: &[u8],
        device: &DeviceKey,
        vault: &VaultId,
    ) -> Result<Self, AtRestError> {
        let stored: AtRest = codec::decode_versioned(bytes, AT_REST_MAX_LEN, version::RECOVERY)?;
        let plain = keys::open_box(&at_rest_key(device), &vault.0, &stored.sealed)?;
        let entropy = <[u8; 32]>::try_from(&plain[..]).map_err(|_| CannotOpen)?;
        Ok(Self {
            entropy: Zeroizing::new(entropy),
        })
    }
}

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryKey")
    }
}

const AT_REST_SEALED_LEN: usize = 32 + keys::BOX_OVERHEAD;
const AT_REST_MAX_LEN: usize = 8 + AT_REST_SEALED_LEN;

#[derive(Serialize, Deserialize)]
struct AtRest {
    version: u16,
    #[serde(with = "codec::Bytes::<AT_REST_SEALED_LEN>")]
    sealed: Vec<u8>,
}

fn at_rest_key(device: &DeviceKey) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(blake3::derive_key(
        domain::RECOVERY_AT_REST,
        &*device.secret_bytes(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha12Rng;

    fn of(byte: u8) -> RecoveryKey {
        RecoveryKey {
            entropy: Zeroizing::new([byte; 32]),
        }
    }

    /// Trezor's published vectors of BIP 39.
    #[test]
    fn words_are_bip_39s() {
        let zeros = format!("{}art", "abandon ".repeat(23));
        assert_eq!(*of(0).words(), zeros);
        let ones = format!("{}vote", "zoo ".repeat(23));
        assert_eq!(*of(0xff).words(), ones);
    }

    #[test]
    fn words_return_the_key_in_any_case_and_spacing() {
        let key = RecoveryKey::generate(&mut ChaCha12Rng::seed_from_u64(3));
        let typed = key.words().to_uppercase().replace(' ', "\n  ");
        let again = RecoveryKey::from_words(&typed).unwrap();
        assert_eq!(again.public(), key.public());
    }

    #[test]
    fn wrong_words_say_what_is_wrong() {
        let words = RecoveryKey::generate(&mut ChaCha12Rng::seed_from_u64(3)).words();
        let mut list: Vec<&str> = words.split(' ').collect();
        assert_eq!(
            RecoveryKey::from_words(&list[..23].join(" ")).unwrap_err(),
            WordsError::Count(23)
        );
        list.swap(0, 1);
        assert_eq!(
            RecoveryKey::from_words(&list.join(" ")).unwrap_err(),
            WordsError::Checksum
        );
        list[4] = "coffer";
        assert_eq!(
            RecoveryKey::from_words(&list.join(" ")).unwrap_err(),
            WordsError::Unknown(5)
        );
        assert_eq!(
            RecoveryKey::from_words("").unwrap_err(),
            WordsError::Count(0)
        );
    }

    #[test]
    fn at_rest_it_opens_only_on_its_device_for_its_vault() {
        let mut rng = ChaCha12Rng::seed_from_u64(4);
        let (key, device) = (
            RecoveryKey::generate(&mut rng),
            DeviceKey::generate(&mut rng),
        );
        let vault = VaultId([1; 32]);
        let stored = key.seal_at_rest(&device, &vault, &mut rng);
        let opened = RecoveryKey::open_at_rest(&stored, &device, &vault).unwrap();
        assert_eq!(*opened.words(), *key.words());

        let other = DeviceKey::generate(&mut rng);
        for refused in [
            RecoveryKey::open_at_rest(&stored, &other, &vault),
            RecoveryKey::open_at_rest(&stored, &device, &VaultId([2; 32])),
        ] {
            assert_eq!(refused.unwrap_err(), AtRestError::CannotOpen(CannotOpen));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_words_and_bytes_never_panic(text: String, bytes: Vec<u8>) {
            let _ = RecoveryKey::from_words(&text);
            prop_assert!(RecoveryKey::open_at_rest(&bytes, &DeviceKey::from_secret([1; 32]), &VaultId::NONE).is_err());
        }
    }
}
