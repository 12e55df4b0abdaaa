//! What a synced folder says of itself.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// A snapshot of a synced folder's state, for `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FolderState {
    /// Its number on this device.
    pub number: u32,
    /// The folder on disk.
    pub path: PathBuf,
    /// The folder of the vault, as a path; empty for all of the vault.
    pub vault_path: String,
    /// What it is doing.
    pub activity: Activity,
    /// Files in it on which disk and vault agree.
    pub files: u64,
    /// Folders in it on which disk and vault agree.
    pub folders: u64,
    /// Lengths of the files together, in bytes.
    pub bytes: u64,
    /// When it was last looked through in full since the start, in milliseconds since 1970.
    pub scanned_ms: Option<u64>,
    /// Changes seen on disk that are not yet in the vault (folders to look into, files to read or that are still being written).
    pub pending_local: u64,
    /// Files of which the vault's state is not yet on disk.
    pub pending_remote: u64,
    /// What could not be synced, and why; the first [`MAX_PROBLEMS`].
    pub problems: Vec<Problem>,
    /// How many there are altogether.
    pub problem_count: u64,
    /// Conflict copies that this device made since it started.
    pub conflicts: u64,
    /// What the brake holds, if it is on.
    pub brake: Option<BrakeReport>,
    /// Passes finished since the start: grows whenever something was looked at.
    pub passes: u64,
}

/// Most problems listed in a [`FolderState`]: more than a person reads, and a bound on memory.
pub const MAX_PROBLEMS: usize = 100;

/// What a synced folder is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Activity {
    /// Looking at the disk, reading changed files into the vault.
    #[default]
    Scanning,
    /// Doing on disk what other devices did.
    Applying,
    /// Nothing to do.
    Idle,
    /// The folder, or the marker in it, is not there: nothing is taken as deleted, nothing is written.
    Missing(String),
    /// So much was deleted or rewritten at once that a person must say whether it was meant; until then the folder
    /// rests. [`FolderState::brake`] says what.
    Braked,
    /// It cannot go on; tried again from time to time.
    Stopped(String),
}

/// What the brake holds back, for a person to judge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrakeReport {
    /// Files that disappeared.
    pub gone: u64,
    /// Files that were rewritten.
    pub rewritten: u64,
    /// Paths of some of them within the folder; at most [`MAX_BRAKED`].
    pub names: Vec<String>,
}

/// Most paths in a [`BrakeReport`].
pub const MAX_BRAKED: usize = 20;

/// Something that could not be synced.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Path within the folder; bytes that are no text are shown as `\xE9`.
    pub path: String,
    /// Why, in words for a person.
    pub reason: String,
}

/// A path as text, with bytes that are none shown as `\xE9`.
pub(super) fn printable(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02X}"));
        }
    }
    text
}
