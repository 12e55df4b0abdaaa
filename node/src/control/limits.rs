//! What transfers of contents are held to, and how a person changes that.

use serde::{Deserialize, Serialize};

/// What transfers of contents are held to on one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsRow {
    /// Bytes a second to all other devices together; absent where there is no limit.
    pub up: Option<u64>,
    /// Bytes a second from all other devices together; absent where there is no limit.
    pub down: Option<u64>,
    /// Nothing is sent or fetched now.
    pub paused: Option<PausedRow>,
}

/// A pause of transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausedRow {
    /// When it ends by itself; absent where a person has to end it.
    pub until_ms: Option<u64>,
}

/// A new limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RateChange {
    /// As fast as it goes.
    None,
    /// So many bytes a second.
    PerSecond(u64),
}
