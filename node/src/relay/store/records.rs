//! What goes into a host's store and comes out of it.

use bytes::Bytes;
use coffer_protocol::identity::{DeviceId, Hash, VaultId, WriterId};
use coffer_protocol::log::Clock;
use coffer_protocol::ranges::Head;

use super::quota::Usage;

/// The right to have one vault served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// By what it is found: derived from the secret, and does not give it away.
    pub id: Hash,
    /// What the caller needs to check a proof of the secret; opaque here, at most [`super::MAX_CHECK`] bytes.
    pub check: Bytes,
    /// Bytes that the vault may use.
    pub quota: u64,
    /// When it was made, in milliseconds since 1970.
    pub made_ms: u64,
    /// From when on nobody may use it first.
    pub expires_ms: u64,
    /// The vault that used it, and when. `None` for a new one.
    pub used: Option<(VaultId, u64)>,
}

/// What became of an attempt to use an invitation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consumed {
    /// It is used now, and the vault is served.
    Now(VaultRecord),
    /// This vault used it before and is still served: asking again changes nothing, expired or not.
    Before(VaultRecord),
    /// There is none of this id.
    Unknown,
    /// It expired before anybody used it.
    Expired,
    /// Another vault used it, or this one, which was erased since.
    Spent,
}

/// A vault that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultRecord {
    /// Which.
    pub vault: VaultId,
    /// Names the life of its records here: a store that was wiped and filled again has another.
    pub epoch: [u8; 16],
    /// Bytes that it may use.
    pub quota: u64,
    /// Since when it is served, in milliseconds since 1970.
    pub added_ms: u64,
    /// What it uses.
    pub usage: Usage,
    /// Grants that are kept; 0 until it is bound.
    pub grants: u32,
}

/// An entry to be appended, verified by the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// Whose log.
    pub writer: WriterId,
    /// Its number, from 1.
    pub seq: u64,
    /// Hash of the header before; [`Hash::ZERO`] in the first.
    pub prev: Hash,
    /// Hash of its header.
    pub header: Hash,
    /// The encoded entry.
    pub bytes: Bytes,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is new, and durable.
    Stored,
    /// This very entry was there.
    Had,
    /// Entries before it are missing: the log ends at `last` (0: has not begun).
    Gap {
        /// The last number that is there.
        last: u64,
    },
    /// At `seq`, which is its number or the one before, another entry is there.
    Forked {
        /// The number.
        seq: u64,
        /// Hash of the header of the entry that is there.
        ours: Hash,
    },
    /// It does not fit into the quota and its reserve.
    Full,
    /// Its log would be one more than a vault may have.
    TooManyWriters,
}

/// An entry that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// Its number in the log that was asked for.
    pub seq: u64,
    /// The bytes that were appended.
    pub bytes: Bytes,
}

/// A range that is to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRange {
    /// Its head.
    pub head: Head,
    /// The encoded range.
    pub bytes: Bytes,
}

/// A range that is kept, without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptRange {
    /// Its head.
    pub head: Head,
    /// Whether the entries that it stands for are not here, or not all.
    pub alone: bool,
    /// What was said of it: by whom, and the signed attestation.
    pub said: Vec<(DeviceId, Bytes)>,
}

/// The newest held statement of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldStatement {
    /// Whose.
    pub device: DeviceId,
    /// Counts its statements: a higher one replaces.
    pub counter: u64,
    /// The signed statement, at most [`super::MAX_STATEMENT`] bytes.
    pub bytes: Bytes,
}

/// A vault at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its record.
    pub record: VaultRecord,
    /// Its clock.
    pub clock: Clock,
    /// The number of the host's last statement, or the one from which its statements go on.
    pub counter: u64,
    /// The host's newest statement, if it has made one in this life of the vault.
    pub statement: Option<Bytes>,
}

/// What became of a blob that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is new, and durable.
    Stored,
    /// It was there.
    Had,
    /// It does not fit into the quota.
    Full,
}

/// A blob that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its place among the ids that were asked for.
    pub index: usize,
    /// Its bytes; `None` if it is not here.
    pub bytes: Option<Bytes>,
}

/// A blob that some device has released and none has claimed or put since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    /// Which.
    pub id: Hash,
    /// Who released it, ascending, and when, in milliseconds since 1970.
    pub by: Vec<(DeviceId, u64)>,
}

/// What was freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Blobs.
    pub blobs: u64,
    /// What they counted, in bytes.
    pub bytes: u64,
}

/// Everything in a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Vaults that are served.
    pub vaults: u64,
    /// What they use.
    pub usage: Usage,
    /// Quotas, in bytes.
    pub quota: u64,
}

impl Totals {
    /// Counts a vault.
    pub(super) fn add(&mut self, usage: &Usage, quota: u64) {
        self.vaults += 1;
        self.usage.entries += usage.entries;
        self.usage.entry_bytes += usage.entry_bytes;
        self.usage.blobs += usage.blobs;
        self.usage.blob_bytes += usage.blob_bytes;
        self.quota = self.quota.saturating_add(quota);
    }
}

/// What one piece of housekeeping did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tidied {
    /// Packs that went.
    pub packs: u64,
    /// Bytes that were written anew.
    pub moved_bytes: u64,
    /// Bytes of disk or object storage that came back.
    pub freed_bytes: u64,
    /// Whether there is more to do now.
    pub more: bool,
    /// Vaults of which it found damaged blobs, which are no longer said to be here.
    pub damaged: Vec<VaultId>,
}

/// What another process changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Something of one vault.
    In {
        /// Which vault.
        vault: VaultId,
        /// What of it.
        what: What,
    },
    /// Some changes were missed: anything may have changed.
    Missed,
}

/// What of a vault changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// It is served, is served no more, or has another quota.
    Vault,
    /// Its grants.
    Grants,
    /// Its entries.
    Entries,
    /// A device's held statement, or the host's own.
    Statements,
    /// Its blobs.
    Blobs,
}
