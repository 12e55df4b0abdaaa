//! What changes, as who listens to it is told.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::status::{ConflictRow, FolderBrake};

/// Something that changed. New kinds may come: scripts should pass over those that they do not know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "event",
    rename_all = "kebab-case",
    rename_all_fields = "snake_case"
)]
pub enum Event {
    /// A device was let in, put out or given another role, or a key changed.
    Membership(super::LogRow),
    /// Everything that happens from now on is reported.
    Listening,
    /// A document changed; it is durable here.
    Document {
        /// Document type.
        doctype: String,
        /// Document id.
        id: String,
        /// Its revision now; empty when it was purged.
        revision: String,
        /// Whether it was deleted, or purged.
        deleted: bool,
        /// Whether the change was made on this device. (All documents are here.)
        made_here: bool,
        /// Its JSON, if asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<Value>,
    },
    /// A file or folder of the vault changed.
    File {
        /// What happened.
        change: FileEvent,
        /// Path in the vault, after the change.
        path: String,
        /// Its id.
        id: String,
        /// Whether its content is on this device after that; always, for a folder.
        here: bool,
        /// Whether the change was made on this device; never, of `fetched`, which changes nothing in the vault.
        made_here: bool,
    },
    /// A conflict arose, or was settled.
    Conflict {
        /// The conflict; as it was, if it is settled.
        #[serde(flatten)]
        conflict: ConflictRow,
        /// Whether it is settled.
        settled: bool,
    },
    /// The brake of a folder took hold, holds more or less than before, or was taken off.
    Brake {
        /// Absolute path of this machine.
        dir: PathBuf,
        /// Whether it is on.
        on: bool,
        /// What it holds back.
        #[serde(flatten)]
        brake: FolderBrake,
    },
    /// A device came or went.
    Device {
        /// Device id.
        device: String,
        /// Its name.
        name: String,
        /// Whether it is connected now.
        connected: bool,
    },
    /// The sync state changed.
    Sync {
        /// As in [`super::Status::idle`].
        idle: bool,
        /// As in [`super::Status::in_sync`].
        in_sync: bool,
    },
    /// This listener was too slow and did not get so many events.
    Missed {
        /// How many.
        count: u64,
    },
}

/// What happened to a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileEvent {
    /// It is new.
    Added,
    /// Its content changed.
    Changed,
    /// It has another name or folder.
    Moved,
    /// It went to the trash.
    Deleted,
    /// It came out of the trash.
    Restored,
    /// Its content came to this device from another one.
    Fetched,
}
