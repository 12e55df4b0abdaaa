//! What is said of devices that are put out, and of who did what.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a device that was revoked had, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRevoked {
    /// Its name.
    pub name: String,
    /// Its id.
    pub device: String,
    /// Whether it could read the vault; a relay host cannot.
    pub held_keys: bool,
    /// When it last said what it holds, in milliseconds since 1970.
    pub last_heard_ms: Option<u64>,
    /// Whether it then had all that this device has.
    pub had_everything: bool,
    /// Accounts whose passwords it could read, at most 50.
    pub accounts: Vec<String>,
    /// Since when it cannot read what is written, in milliseconds since 1970.
    pub changed_ms: u64,
    /// Devices that are connected, and know of it at once.
    pub told: u64,
}

/// A copy that a device erases after it was put out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasedCopy {
    /// The device's name.
    pub name: String,
    /// The data folder.
    pub data_dir: PathBuf,
    /// Folders that were kept in sync: the files in them stay.
    pub folders: Vec<PathBuf>,
}

/// When the lock was changed, and how often it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockStatus {
    /// When this device first saw the present key, in milliseconds since 1970.
    pub seen_ms: Option<u64>,
    /// How often an owner device changes it by itself, in seconds; absent: never.
    pub every_s: Option<u64>,
    /// What is wrong with the vault's setting, where the default stands in for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The recovery kit. It opens everything.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryKit {
    /// The vault's id.
    pub vault: String,
    /// The 24 words.
    pub words: Vec<String>,
    /// The text of the QR code: all of it.
    pub code: String,
    /// The hosts that it names, with where they are.
    pub hosts: Vec<String>,
}

impl std::fmt::Debug for RecoveryKit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecoveryKit")
            .field("vault", &self.vault)
            .finish_non_exhaustive()
    }
}

/// One signed act upon the membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRow {
    /// Its id.
    pub id: String,
    /// What was done.
    pub what: String,
    /// Which device did it.
    pub by: String,
    /// To which device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The role that it has from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// When, in milliseconds since 1970, by the clock of the device that did it, where it says so; of the present key, when this
    /// device first saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<u64>,
    /// `yes`, `no` (a revocation undid it) or `contested` (two devices put each other out).
    pub counts: String,
}
