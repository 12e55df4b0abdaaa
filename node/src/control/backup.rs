//! What requests about backups say and answer.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Which of the runs of a backup is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackupAt {
    /// The one of this number.
    Run(u64),
    /// The last one at or before this time, in milliseconds since 1970.
    Time(u64),
}

/// One run of `coffer backup`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupRun {
    /// Its number in the backup, from 1.
    pub run: u64,
    /// When it began, in milliseconds since 1970.
    pub at_ms: u64,
    /// The id of the device that made it.
    pub device: String,
    /// Contents of files that the vault had then, earlier ones that it kept among them.
    pub contents: u64,
    /// Their bytes.
    pub content_bytes: u64,
    /// Of those, present contents that the device did not have itself and that nobody had backed up before.
    pub missing: u64,
    /// Their bytes.
    pub missing_bytes: u64,
    /// The same of earlier contents, which may be nowhere any more.
    pub missing_earlier: u64,
}

/// A run that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupDone {
    /// The folder.
    pub dir: PathBuf,
    /// The run.
    #[serde(flatten)]
    pub run: BackupRun,
    /// Changes that were added.
    pub added_changes: u64,
    /// Pieces of contents that were added.
    pub added_pieces: u64,
    /// Bytes that were added.
    pub added_bytes: u64,
    /// Bytes of what is not needed any more that were taken out.
    pub freed_bytes: u64,
    /// Bytes of the whole backup.
    pub total_bytes: u64,
    /// Why nothing was taken out of it, where it could not be known what is not needed any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_all: Option<String>,
}

/// Something that is wrong with a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupFlaw {
    /// The file, within the folder.
    pub file: String,
    /// The byte of it at which what is damaged begins, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// What is wrong, as a sentence without a full stop.
    pub what: String,
}

/// What was found in a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupVerified {
    /// The folder.
    pub dir: PathBuf,
    /// The vault that it is of.
    pub vault: String,
    /// The last run, if one came to its end.
    pub last: Option<BackupRun>,
    /// Bytes that were read.
    pub bytes: u64,
    /// Pieces of contents.
    pub pieces: u64,
    /// Changes.
    pub changes: u64,
    /// What is wrong, at most a thousand.
    pub flaws: Vec<BackupFlaw>,
    /// What was seen with the vault's keys; absent where there were none.
    pub inside: Option<BackupInside>,
}

/// What only the vault's keys show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupInside {
    /// Contents of files, present and earlier ones that the vault keeps, that are in it whole.
    pub contents: u64,
    /// Contents that are not. Those which the last run had to leave out are among them.
    pub missing: u64,
    /// Files of which the present content is not, at most some hundred.
    pub missing_files: Vec<String>,
    /// Changes that do not open, or do not fit what they build on.
    pub unread_changes: u64,
}

/// The last backup that this device made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupStatus {
    /// The folder.
    pub dir: PathBuf,
    /// When it was made, in milliseconds since 1970.
    pub at_ms: u64,
    /// Whether all that the vault holds now is in it.
    pub everything: bool,
    /// Contents that this device did not have and that are not in it.
    pub missing: u64,
}
