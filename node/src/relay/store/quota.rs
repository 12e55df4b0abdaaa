//! What counts against a vault's quota.
//!
//! Entries and blobs count with their bytes. Blobs are refused when the quota is full; entries have a reserve beyond
//! it, for deleting something is an entry too, and a full vault must be able to make room.

use serde::{Deserialize, Serialize};

/// Least that one entry or blob counts, in bytes: its records cost about as much, and a million blobs of a few bytes
/// each must not fit into a quota of a few megabytes.
pub const MIN_CHARGE: u64 = 256;

/// Least that entries may use beyond the quota, in bytes.
const MIN_RESERVE: u64 = 16 << 20;

/// What an entry or blob of `len` bytes counts.
pub fn charge(len: usize) -> u64 {
    (len as u64).max(MIN_CHARGE)
}

/// Up to what entries are taken under a quota, in bytes: 5 % beyond it, at least 16 MiB.
pub fn entry_limit(quota: u64) -> u64 {
    quota.saturating_add((quota / 20).max(MIN_RESERVE))
}

/// What a vault uses. Bytes are as [`charge`] counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Entries of all writers, and ranges.
    pub entries: u64,
    /// Their bytes.
    pub entry_bytes: u64,
    /// Blobs.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
}

impl Usage {
    /// Bytes of entries and blobs together.
    pub fn bytes(&self) -> u64 {
        self.entry_bytes.saturating_add(self.blob_bytes)
    }

    /// Whether a blob of `len` bytes still fits.
    pub fn fits_blob(&self, len: usize, quota: u64) -> bool {
        self.bytes().saturating_add(charge(len)) <= quota
    }

    /// Whether an entry of `len` bytes still fits.
    pub fn fits_entry(&self, len: usize, quota: u64) -> bool {
        self.bytes().saturating_add(charge(len)) <= entry_limit(quota)
    }

    /// Counts a blob that came.
    pub fn add_blob(&mut self, len: usize) {
        self.blobs += 1;
        self.blob_bytes += charge(len);
    }

    /// Counts a blob that went.
    pub fn remove_blob(&mut self, len: usize) {
        self.blobs = self.blobs.saturating_sub(1);
        self.blob_bytes = self.blob_bytes.saturating_sub(charge(len));
    }

    /// Counts an entry that came, or a range.
    pub fn add_entry(&mut self, len: usize) {
        self.entries += 1;
        self.entry_bytes += charge(len);
    }

    /// Counts one that went.
    pub fn remove_entry(&mut self, len: usize) {
        self.entries = self.entries.saturating_sub(1);
        self.entry_bytes = self.entry_bytes.saturating_sub(charge(len));
    }
}
