//! What a check of everything found.

use serde::{Deserialize, Serialize};

/// What was read, what was damaged, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Pieces of contents that were read and compared with what they are named after.
    pub pieces: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Pieces in files of synced folders that have changed, or are just being changed: not compared.
    pub in_use: u64,
    /// Documents that were read, files and folders among them.
    pub documents: u64,
    /// Records of changes whose signature and place were checked.
    pub records: u64,
    /// What was damaged and is whole again, or was never needed: how many pieces and documents.
    pub repaired: u64,
    /// What is damaged still, at most some hundred.
    pub damaged: Vec<Damage>,
    /// How much that is altogether.
    pub damaged_count: u64,
}

/// Something that is damaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// What it is.
    pub kind: DamageKind,
    /// Its name: a path in the vault or of this machine, a document, a device.
    pub name: String,
    /// What is wrong with it, as a sentence without a full stop.
    pub text: String,
}

/// What can be damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DamageKind {
    /// The content of a file of the vault.
    File,
    /// A file in a synced folder: its bytes on the disk.
    FolderFile,
    /// An earlier content of some file.
    EarlierContent,
    /// A document.
    Document,
    /// A record of what a device changed.
    Record,
}
