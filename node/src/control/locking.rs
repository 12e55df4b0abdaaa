//! What a conversation says about locking a device: passphrases, and what a device's keys are sealed with.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// Longest passphrase in bytes: a page of text; more is a mistaken file.
pub const MAX_PASSPHRASE: usize = 4096;

/// What a person typed to lock or unlock a device. It is wiped from memory when dropped, and does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(Zeroizing<String>);

impl Serialize for Passphrase {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Passphrase {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Passphrase(Zeroizing::new(text)))
    }
}

impl Passphrase {
    /// From what was typed or read.
    pub fn new(text: Zeroizing<String>) -> Passphrase {
        Passphrase(text)
    }

    /// What was typed.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase")
    }
}

/// What a device's keys are sealed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    /// With nothing: whoever can read the files of this user has them.
    #[default]
    Nothing,
    /// With a passphrase, asked for whenever coffer starts.
    Passphrase,
    /// With a secret that the system's password store keeps, and hands out once its user has logged in.
    Login,
}
