//! Ids of conflict copies, and how many there may be. Their names are made in `coffer_crdt::files::conflict_names`; how
//! names of the vault are spelt on disk is in [`super::spelling`].

use coffer_crdt::files::{FileId, date};

pub use super::profile::Profile;
pub use super::spelling::{to_disk, to_vault};

/// Conflict copies of one file by one device on one day, at most. A program that rewrites its file every second breeds
/// no more: the last one gets the newer content then, and what it held is in its history.
pub const MAX_COPIES: u32 = 5;

/// Numbers tried for a copy, at most: those of copies that a person has settled are never used again.
pub const MAX_NUMBERS: u32 = 200;

/// The id of that copy: the same on every device that makes it, so that one conflict makes one copy.
pub fn conflict_id(file: FileId, label: &str, ms: i64, number: u32) -> FileId {
    let mut hasher = blake3::Hasher::new_derive_key(CONFLICT_ID_CONTEXT);
    hasher
        .update(&file.0)
        .update(&number.to_le_bytes())
        .update(date::day(ms).as_bytes())
        .update(label.as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    FileId(id)
}

/// Context string of [`conflict_id`].
pub const CONFLICT_ID_CONTEXT: &str = "coffer 2026-11 id of a conflict copy";

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_795_305_600_000 + 43_200_000;

    #[test]
    fn a_copy_has_the_same_id_all_day_and_on_every_device() {
        let file = FileId([1; 16]);
        assert_eq!(
            conflict_id(file, "laptop", NOON, 1),
            conflict_id(file, "laptop", NOON + 60_000, 1)
        );
        assert_ne!(
            conflict_id(file, "laptop", NOON, 1),
            conflict_id(file, "laptop", NOON + 86_400_000, 1)
        );
        assert_ne!(
            conflict_id(file, "laptop", NOON, 1),
            conflict_id(file, "desk", NOON, 1)
        );
        assert_ne!(
            conflict_id(file, "laptop", NOON, 1),
            conflict_id(file, "laptop", NOON, 2)
        );
    }
}
