//! What a person types or shows so that a device is let into a vault. It never gets into a log.

use serde::{Deserialize, Serialize};

/// What a person was given by the inviting device.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JoinWith {
    /// The pairing link, also what the QR code says.
    Link(String),
    /// The short typed code.
    Code(String),
}

/// What a person has of the recovery kit.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "snake_case")]
pub enum RecoverWith {
    /// The text of its QR code.
    Kit(String),
    /// The words, and the vault's id as it stands beside them.
    Words {
        /// 24, in any case and spacing.
        words: String,
        /// The id.
        vault: String,
    },
}
