//! What requests about relay hosts say and answer.

use serde::{Deserialize, Serialize};

use super::{Missing, Reach};

/// A host that keeps the encrypted copy of the vault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostRow {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Addresses at which it may be reached, `HOST:PORT/transport`.
    pub addresses: Vec<String>,
    /// Whether it is in use.
    pub in_use: bool,
    /// When it was added.
    pub added_ms: u64,
    /// How it is reached; absent for one that is not in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reach: Option<Reach>,
    /// Bytes of sealed contents that came from it since coffer was started here.
    pub contents_in: u64,
    /// Bytes of sealed contents that went to it since coffer was started here.
    pub contents_out: u64,
    /// What it holds, by its own last signed statement to this device; absent before it made one, and where it says that it does not keep
    /// the vault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holding: Option<HostHolding>,
    /// Bytes that it promised to keep.
    pub quota_bytes: u64,
    /// What is wrong with it.
    pub troubles: Vec<HostTrouble>,
    /// Its signed receipt for having erased the vault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<HostReceipt>,
}

/// What a host holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostHolding {
    /// When it said so, by its own clock.
    pub as_of_ms: u64,
    /// It holds all changes and contents that are known here, but for those of `earlier_elsewhere`.
    pub everything: bool,
    /// What it lacks of what is known here; absent while this is being found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacks: Option<Missing>,
    /// Files of which it lacks earlier contents, or what lies in the trash, that this device does not have either: another
    /// device may bring them, or nobody has them any more.
    #[serde(default)]
    pub earlier_elsewhere: u64,
    /// Bytes of changes that it keeps.
    pub change_bytes: u64,
    /// Sealed pieces of contents that it keeps.
    pub pieces: u64,
    /// Their bytes.
    pub content_bytes: u64,
    /// How full this vault's share of it is.
    pub fill: HostFill,
}

/// How full a vault's share of a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostFill {
    /// There is room.
    Room,
    /// At least 90 % are used.
    NearlyFull,
    /// All of it is used, or something did not fit any more.
    Full,
}

/// Something that is wrong with a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostTrouble {
    /// `rolled-back`, `contradicts`, `began-anew`, `withholds`, `lost-contents`, `unproven`, `not-kept` or `forged`.
    pub code: String,
    /// A sentence without a full stop, whose subject is the host.
    pub text: String,
    /// When it was seen first, by this device's clock.
    pub first_ms: u64,
    /// When it was seen last.
    pub last_ms: u64,
}

/// A host's signed word that it erased the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReceipt {
    /// When, by the host's clock.
    pub at_ms: u64,
    /// Sealed pieces of contents that it erased.
    pub pieces: u64,
    /// Bytes of changes and contents that it erased.
    pub bytes: u64,
    /// The receipt as it was signed, in hex.
    pub signed: String,
}
