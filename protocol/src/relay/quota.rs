//! What a host still takes of a vault.
//!
//! The quota counts the bytes of entries and of blobs. Blobs are refused beyond it. Entries may go a little
//! beyond: deleting is an entry too, and a vault that could not even be told of deletions would stay full.

/// Least bytes that entries may go beyond the quota: some ten thousand changes.
pub const MIN_RESERVE_BYTES: u64 = 16 << 20;

/// What a vault takes at a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of stored entries.
    pub entry_bytes: u64,
    /// Bytes of stored blobs.
    pub blob_bytes: u64,
}

/// How full a vault's share of a host is, for telling people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fill {
    /// Below 90 %.
    Room,
    /// From 90 % on.
    Nearly,
    /// From 100 % on.
    Full,
}

impl Usage {
    /// Bytes that count against the quota.
    pub fn bytes(&self) -> u64 {
        self.entry_bytes.saturating_add(self.blob_bytes)
    }

    /// Whether blobs of `more` bytes may be added.
    pub fn admits_blobs(&self, quota_bytes: u64, more: u64) -> bool {
        self.bytes().saturating_add(more) <= quota_bytes
    }

    /// Whether entries of `more` bytes may be added.
    pub fn admits_entries(&self, quota_bytes: u64, more: u64) -> bool {
        let limit = quota_bytes.saturating_add(reserve_bytes(quota_bytes));
        self.bytes().saturating_add(more) <= limit
    }

    /// How full it is.
    pub fn fill(&self, quota_bytes: u64) -> Fill {
        let (used, quota) = (u128::from(self.bytes()), u128::from(quota_bytes));
        if used >= quota {
            Fill::Full
        } else if used * 10 >= quota * 9 {
            Fill::Nearly
        } else {
            Fill::Room
        }
    }
}

/// How far entries may go beyond a quota: a twentieth of it, and at least [`MIN_RESERVE_BYTES`].
pub fn reserve_bytes(quota_bytes: u64) -> u64 {
    (quota_bytes / 20).max(MIN_RESERVE_BYTES)
}
