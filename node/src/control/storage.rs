//! What this device keeps of the vault, and what would be lost with it.

use serde::{Deserialize, Serialize};

/// What this device keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageStatus {
    /// Whether everything is kept here.
    pub mode: StorageMode,
    /// Folders and files that are on demand or pinned.
    pub rules: Vec<StorageRule>,
    /// Bytes that contents on demand may take; no limit if absent.
    pub limit: Option<u64>,
    /// Contents on demand that are here now.
    pub used: Amount,
    /// Those of them that may be dropped now: enough other devices are known to keep them.
    pub evictable: Amount,
    /// Contents on demand that are not here.
    pub elsewhere: Amount,
    /// Contents that are to be here for good, and are.
    pub kept: Amount,
    /// Contents of which fewer copies are known than are wanted.
    pub at_risk: AtRisk,
    /// Of what a command has just said is to be kept: files that are not here and do not come now.
    #[serde(default, skip_serializing_if = "super::is_zero")]
    pub lacking_count: u64,
    /// Which, and why; of very many only the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacking: Vec<super::Skipped>,
}

/// Whether everything is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StorageMode {
    /// Every content is kept here, for other devices too.
    #[default]
    Full,
    /// The vault is on demand, but for what is pinned.
    OnDemand,
    /// Some folders are on demand.
    Mixed,
}

/// What a person said about a folder or file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageRule {
    /// Path in the vault, empty for all of it; its id where it is in the trash or gone.
    pub path: String,
    /// `on-demand`, `full` or `pinned`.
    pub rule: String,
}

/// How many contents, and how large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Files.
    pub files: u64,
    /// Bytes of their contents.
    pub bytes: u64,
}

impl Amount {
    /// Whether there are none.
    pub fn is_nothing(&self) -> bool {
        *self == Amount::default()
    }

    /// One file more.
    pub fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

/// Contents of which fewer copies are known than are wanted: one other device that keeps them, or two hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AtRisk {
    /// All of them.
    #[serde(flatten)]
    pub all: Amount,
    /// Those that only this device is known to have, and no host.
    pub only_here: Amount,
    /// Those that no device is known to have, and no host.
    pub nowhere: Amount,
    /// Paths of some, at most twenty.
    pub names: Vec<String>,
}

/// What to do with a folder or file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeepAs {
    /// Fetch contents when they are asked for.
    OnDemand,
    /// Keep everything. For the whole vault: forget all other settings.
    Full,
    /// Keep it whatever is said of the folder around it.
    Pin,
    /// No longer.
    Unpin,
}
