//! What the node asks a person midway, and the answers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What the node asks a person midway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "question",
    rename_all = "kebab-case",
    rename_all_fields = "snake_case"
)]
pub enum Question {
    /// Is this the device that should be let in? Answer `Yes` or `No`.
    AdmitDevice {
        /// The name that the device gives itself; cleaned of control characters by the node.
        name: String,
        /// Its device id in hex.
        device: String,
    },
    /// Put this device out of the vault for good? Answer `Yes` or `No`.
    RevokeDevice {
        /// Its name.
        name: String,
        /// Its id.
        device: String,
    },
    /// Erase this device's copy for good? Answer `Name`, with the name of the device.
    EraseCopy {
        /// Its name.
        name: String,
        /// The folder that it is in.
        data_dir: PathBuf,
    },
    /// This data folder has a new vault with nothing in it: leave it for the one to join? Answer `Yes` or `No`.
    ReplaceEmptyVault,
    /// Merge a folder that is not empty? Nothing is deleted whatever the answer. Answer `Yes` or `No`.
    MergeFolder(super::FolderMerge),
    /// End the syncing of a folder whose files cannot be copied into the vault now: it is not there, or it rests? Answer
    /// `Yes` or `No`.
    RemoveFolder {
        /// The folder.
        dir: PathBuf,
        /// Files that were in it.
        files: u64,
    },
    /// Remove a host that alone is known to keep contents? Answer `Yes` or `No`.
    RemoveHost {
        /// Its name.
        name: String,
        /// Files that are neither here nor known to be elsewhere.
        files: u64,
    },
    /// Remove a host although devices know of none of those that stay? Answer `Yes` or `No`.
    LeaveDevices {
        /// The host's name.
        name: String,
        /// Names of the devices.
        devices: Vec<String>,
    },
    /// Purge so much for good, on every device? Answer `Yes` or `No`.
    EmptyTrash {
        /// Files.
        files: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// Forget this document for good, on every device? Answer `Yes` or `No`.
    PurgeDocument {
        /// Document type.
        doctype: String,
        /// Document id; a question's number is called `id`.
        document: String,
    },
    /// Type a passphrase of this device. Answer `Passphrase`.
    Passphrase {
        /// A new one, rather than the present one.
        new: bool,
    },
    /// Type these words of the 24 back. Answer `Words`, in the order of `positions`.
    RecoveryWords {
        /// Positions from 1 to 24.
        positions: Vec<u8>,
        /// How many tries are left after this one.
        tries_left: u8,
    },
}

/// The answer to a [`Question`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Go ahead.
    Yes,
    /// Don't.
    No,
    /// Words that were typed.
    Words(Vec<String>),
    /// A name that was typed.
    Name(String),
    /// A passphrase.
    Passphrase(super::Passphrase),
}

/// A numbered question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Which question of this connection; the answer repeats it.
    pub id: u32,
    /// The question.
    #[serde(flatten)]
    pub question: Question,
}
