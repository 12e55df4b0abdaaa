//! What requests about the trash and earlier contents say and answer.

use serde::{Deserialize, Serialize};

use super::Amount;

/// Something in the trash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrashRow {
    /// Path in the vault that it had.
    pub path: String,
    /// Its id.
    pub id: String,
    /// Whether it is a folder.
    pub folder: bool,
    /// When it was deleted.
    pub deleted_ms: u64,
    /// Name of the device that deleted it.
    pub device: String,
    /// Files in it; 1 for a file.
    pub files: u64,
    /// Bytes in it.
    pub bytes: u64,
    /// When it is purged; absent where the rule sets no time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

/// Something that came out of the trash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrashRestored {
    /// Path in the vault that it had.
    pub from: String,
    /// Path that it has.
    pub path: String,
}

/// For how long a content of a file is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeptAs {
    /// It is what the file holds.
    Present,
    /// For ever, because it is tagged.
    Tagged,
    /// Until `kept_until_ms`.
    Until,
    /// No longer: its bytes may be gone at any time.
    No,
}

/// A limit to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// There is none.
    None,
    /// Seconds or bytes.
    At(u64),
}

/// Changes to the rule; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleChange {
    /// Back to the defaults first.
    #[serde(default)]
    pub reset: bool,
    /// Every content, in seconds after it was replaced.
    pub all_s: Option<u64>,
    /// One an hour, for so many seconds.
    pub hourly_s: Option<u64>,
    /// One a day, for so many seconds.
    pub daily_s: Option<u64>,
    /// One a week, for so many seconds.
    pub weekly_s: Option<u64>,
    /// The trash, in seconds after the deletion.
    pub trash_s: Option<Limit>,
    /// Most bytes in the trash.
    pub trash_bytes: Option<Limit>,
}

/// The rule in force, and what becomes of what is not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Every content, in seconds after it was replaced.
    pub all_s: u64,
    /// One an hour, for so many seconds.
    pub hourly_s: u64,
    /// One a day, for so many seconds.
    pub daily_s: u64,
    /// One a week, for so many seconds.
    pub weekly_s: u64,
    /// The trash, in seconds after the deletion; absent for ever.
    pub trash_s: Option<u64>,
    /// Most bytes in the trash; absent without a limit.
    pub trash_bytes: Option<u64>,
    /// Why the rule in the vault cannot be used and these are the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Bytes that are in the trash.
    pub in_trash_bytes: u64,
    /// When this device last looked for what is not needed any more, since it was started.
    pub looked_ms: Option<u64>,
    /// Bytes that its disk got back since then.
    pub freed_bytes: u64,
    /// Bytes that are not needed any more and not freed yet: a day must pass, and all devices must know.
    pub waiting_bytes: u64,
    /// Why the last look did not come to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub look_failed: Option<String>,
    /// What the change that was just made purged from the trash.
    #[serde(default, skip_serializing_if = "Amount::is_nothing")]
    pub purged: Amount,
}
