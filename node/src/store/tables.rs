//! Every table of `vault.redb`, in one place.
//!
//! A table's name ends in its version. What shipped never changes meaning: a new layout is a new table with the next
//! number, filled by a migration step in [`super::open`]. Keys are fixed-width bytes, integers big-endian so that order
//! is numeric; values are at most [`super::pieces::PIECE`] bytes, longer ones are split over pieces. docs/storage/tables.md
//! describes each value.

use redb::TableDefinition;

pub use crate::blobs::placement::{CHUNKS, PLACEMENT};

/// The newest layout that this program reads and writes, kept under [`meta::LAYOUT`]: entries may be gone for which a range
/// stands.
pub const LAYOUT: u32 = 3;
/// The one before: every entry is here, as programs expect that know no ranges. A database has it until an entry is gone.
pub const LAYOUT_WHOLE: u32 = 2;

/// Single values: name → bytes. The names are in [`meta`].
pub const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta_1");
/// Grants: grant id ‖ piece (u16) → signed grant bytes.
pub const GRANTS: TableDefinition<&[u8; 34], &[u8]> = TableDefinition::new("grants_1");
/// Entries of every log: device ‖ incarnation (u32) ‖ seq (u64) ‖ piece (u16) → entry bytes.
pub const ENTRIES: TableDefinition<&[u8; 46], &[u8]> = TableDefinition::new("entries_1");
/// The end of every log: device ‖ incarnation → seq (u64) ‖ header hash.
pub const LOG_HEADS: TableDefinition<&[u8; 36], &[u8; 40]> = TableDefinition::new("log_heads_1");
/// Documents: document key → [`super::documents::Row`].
pub const DOCUMENTS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("documents_2");
/// A document's folded past: document key ‖ piece (u32) → bytes of its Automerge `save()`.
pub const DOCUMENT_BASES: TableDefinition<&[u8; 36], &[u8]> =
    TableDefinition::new("document_bases_2");
/// Changes that came after the base: document key ‖ batch (u32) ‖ piece (u16) → batch of raw changes.
pub const DOCUMENT_TAILS: TableDefinition<&[u8; 38], &[u8]> =
    TableDefinition::new("document_tails_2");
/// Changes that wait for others of their document: document key ‖ hash of a change that is missing ‖ hash of the change ‖
/// piece (u16) → [`super::documents::Waiting`].
pub const WAITING: TableDefinition<&[u8; 98], &[u8]> = TableDefinition::new("waiting_2");
/// Which documents each transaction touched, for the derived index: transaction (u64) ‖ n (u32) → document key.
pub const FEED: TableDefinition<&[u8; 12], &[u8; 32]> = TableDefinition::new("feed_2");
/// Files of which some bytes are not here, to be fetched or left to others: file id → content hash ‖ size (u64).
pub const WANTED: TableDefinition<&[u8; 16], &[u8; 40]> = TableDefinition::new("wanted_1");
/// The state of every file document, as the tree reads it at a start: file id ‖ piece (u16) → encoded file state.
pub const FILES: TableDefinition<&[u8; 18], &[u8]> = TableDefinition::new("files_1");
/// Contents that a file had and that may still be kept: file id ‖ stamp (u64) ‖ writer's actor → postcard of version byte
/// and content.
pub const PAST_CONTENTS: TableDefinition<&[u8; 40], &[u8]> =
    TableDefinition::new("past_contents_1");
/// Contents that a person tagged: key as in [`PAST_CONTENTS`] → postcard of version byte and label.
pub const TAGS: TableDefinition<&[u8; 40], &[u8]> = TableDefinition::new("tags_1");
/// What went from the trash for good: file id → postcard of version byte and purge.
pub const PURGES: TableDefinition<&[u8; 16], &[u8]> = TableDefinition::new("purges_1");
/// Documents that were purged: document key → postcard of version byte, transaction, and type and id until the index knows.
pub const PURGED_DOCUMENTS: TableDefinition<&[u8; 32], &[u8]> =
    TableDefinition::new("purged_documents_1");
/// Blobs that nothing named any more when it was last looked: blob → the run that found it first (u64).
pub const UNNAMED: TableDefinition<&[u8; 32], u64> = TableDefinition::new("unnamed_1");
/// Runs that found such blobs: number (u64) ‖ piece (u16) → postcard of version byte, time and clock.
pub const UNNAMED_RUNS: TableDefinition<&[u8; 10], &[u8]> = TableDefinition::new("unnamed_runs_1");
/// Entries that others' entries name and that are not here, a few of each log: device ‖ incarnation (u32) → postcard of
/// [`crate::vault::Named`]s.
pub const NAMED: TableDefinition<&[u8; 36], &[u8]> = TableDefinition::new("named_1");
/// Ranges: device ‖ incarnation (u32) ‖ last entry (u64) ‖ piece (u16) → range bytes.
pub const RANGES: TableDefinition<&[u8; 46], &[u8]> = TableDefinition::new("ranges_1");
/// The same without their bodies: device ‖ incarnation ‖ last entry → marks ‖ head, see [`super::ranges::Marks`].
pub const RANGE_HEADS: TableDefinition<&[u8; 44], &[u8]> = TableDefinition::new("range_heads_1");
/// What was said of ranges: device ‖ incarnation ‖ last entry ‖ who says it → signed attestation.
pub const ATTESTATIONS: TableDefinition<&[u8; 76], &[u8]> = TableDefinition::new("attestations_1");
/// Up to which entry of a log this device has looked for stretches to make ranges of: device ‖ incarnation → seq.
pub const LOOKED_AT: TableDefinition<&[u8; 36], u64> = TableDefinition::new("looked_at_1");
/// The newest held statement of each device: device ‖ piece (u16) → statement bytes.
pub const HELD: TableDefinition<&[u8; 34], &[u8]> = TableDefinition::new("held_1");
/// Where devices were last reached: device → postcard list of addresses.
pub const ADDRESSES: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("addresses_1");
/// Synced folders of this device: folder number → [`crate::vault::FolderSetting`].
pub const FOLDERS: TableDefinition<u32, &[u8]> = TableDefinition::new("folders_1");
/// What each file of a synced folder looked like when disk and vault last agreed: folder number ‖ file id → [`crate::vault::FolderRow`].
pub const FOLDER_ROWS: TableDefinition<&[u8; 20], &[u8]> = TableDefinition::new("folder_rows_1");
/// Files of a synced folder that the brake holds: folder number ‖ file id → [`crate::vault::BrakedFile`].
pub const FOLDER_BRAKES: TableDefinition<&[u8; 20], &[u8]> =
    TableDefinition::new("folder_brakes_1");
/// What this device keeps of the vault: file id → [`crate::vault::storage::Rule`] as one byte.
pub const STORAGE: TableDefinition<&[u8; 16], u8> = TableDefinition::new("storage_1");
/// When the bytes of a file that is not kept for good were last asked for: file id → milliseconds since 1970.
pub const USED: TableDefinition<&[u8; 16], u64> = TableDefinition::new("used_1");
/// Files of the blob store, by their hash, which may name nothing any more since contents were dropped: nothing.
pub const DROPPING: TableDefinition<&[u8; 32], ()> = TableDefinition::new("dropping_1");

/// What this device remembers of each relay host: host ‖ piece (u16) → [`crate::hosts::Memory`].
pub const HOSTS: TableDefinition<&[u8; 34], &[u8]> = TableDefinition::new("hosts_1");
/// Contents that a host has confirmed to keep: host ‖ [`crate::hosts::ContentKey`] → nothing.
pub const AT_HOST: TableDefinition<&[u8; 64], ()> = TableDefinition::new("at_host_1");

/// Names in [`META`].
pub mod meta {
    /// [`super::LAYOUT`] as u32.
    pub const LAYOUT: &str = "layout";
    /// Vault id (32 bytes) that this data folder belongs to.
    pub const VAULT: &str = "vault";
    /// Epoch keys and space secret, sealed under this device's own secret.
    pub const KEYRING: &str = "keyring_2";
    /// The same as it is: read once, and then sealed.
    pub const KEYRING_1: &str = "keyring";
    /// The incarnation under which this data folder writes (u32).
    pub const INCARNATION: &str = "incarnation";
    /// The machine and folder to which the incarnation is bound.
    pub const BINDING: &str = "binding";
    /// What [`BINDING`] will be once a new identity file has taken the place of the present one.
    pub const NEXT_BINDING: &str = "next_binding_1";
    /// When the identity file was last changed, and the machine's start, when this log was last known to go on: see
    /// [`crate::vault::Continuity`].
    pub const CONTINUITY: &str = "continuity_1";
    /// Number of the last transaction (u64).
    pub const TRANSACTION: &str = "transaction";
    /// The clock's last reading, so that stamps never go back (u64).
    pub const HLC: &str = "hlc";
    /// The recovery words, sealed, until a person has confirmed them.
    pub const RECOVERY: &str = "recovery";
    /// Of a vault that was got back with its words from one device or host alone: when (u64), and which (32 bytes).
    pub const RECOVERED: &str = "recovered_1";
    /// When the recovery kit was last found to work, in milliseconds since 1970 (u64).
    pub const REHEARSED: &str = "rehearsed";
    /// When this device first saw the present epoch: epoch id (32 bytes), milliseconds since 1970 (u64).
    pub const LOCK_SEEN: &str = "lock_seen_1";
    /// Backups that this device made.
    pub const BACKUPS: &str = "backups_1";
    /// Present and 1 while the node runs; found at a start, it tells of an unclean stop.
    pub const RUNNING: &str = "running";
    /// Transactions up to this one are no longer in the feed (u64).
    pub const FEED_PRUNED: &str = "feed_pruned";
    /// Limits and pauses of transfers on this device.
    pub const LIMITS: &str = "limits_1";
    /// How far the slow check of everything has come, and what it found.
    pub const CHECK: &str = "check_1";
    /// When the collector last looked, in milliseconds since 1970 (u64).
    pub const COLLECTED: &str = "collected";
    /// Present and 1 once [`super::PAST_CONTENTS`] has all that documents say.
    pub const PAST: &str = "past";
    /// Bytes that contents which are not kept for good may take (u64); absent: no limit.
    pub const STORAGE_LIMIT: &str = "storage_limit";
    /// This device's name.
    pub const DEVICE_NAME: &str = "device_name";
}
