//! What a host keeps, behind one trait: [`RelayStore`].
//!
//! ```text
//! records.rs   what goes in and comes out
//! quota.rs     what counts as used, and what still fits
//! error.rs     why a store could not do as asked
//! logs.rs      what becomes of an entry, and of a range
//! runs.rs      which reads answer a request for many blobs
//! bounds.rs    how much may be asked for at once · bounded.rs  a store that refuses more
//! embedded/    redb and pack files, for a host on one machine
//! provider/     PostgreSQL and S3-compatible objects, for several processes (cargo feature `provider`)
//! conformance/ what every store must do, as tests
//! memory.rs    the plain model: for tests, and what the others are compared with
//! ```
//!
//! A store keeps bytes and refuses what breaks its own rules (a second entry at one number, more than a quota, an
//! invitation used twice). It verifies no signature or membership: that is the caller's, and happens before. Of hashes it
//! compares only those of blobs, with [`verify`](RelayStore::verify): disks lose bits.
//! It has no clock and no source of randomness that shows: times and ids are passed in.
//!
//! *What every store promises.*
//! - **Durable.** When a method that writes returns `Ok`, what it wrote survives a loss of power. When it returns an
//!   error, all or nothing of it may be there; asking again is always safe, for every write is idempotent.
//! - **Atomic.** Each method is one step for every other, in this process and in others on the same store. Only
//!   [`get`](RelayStore::get) is not: it reads each blob at its own moment.
//! - **Bounded.** Arguments over the bounds below are refused with [`StoreError::TooLarge`] before anything is written: a
//!   host has its store behind [`Bounded`].
//! - **Cancelled** calls (dropped futures) leave the store whole; the write may or may not happen.
//! - A vault that is not served gives [`StoreError::NoVault`], unless said otherwise.

mod bounded;
mod bounds;
#[cfg(test)]
mod conformance;
pub mod embedded;
mod error;
mod logs;
pub mod memory;
#[cfg(feature = "provider")]
pub mod provider;
mod quota;
mod records;
mod runs;

use async_trait::async_trait;
use bytes::Bytes;
use coffer_protocol::identity::{DeviceId, Hash, VaultId, WriterId};
use coffer_protocol::log::Clock;
use futures::stream::BoxStream;

pub use bounded::Bounded;
pub use error::StoreError;
pub use quota::{MIN_CHARGE, Usage, charge, entry_limit};
pub use records::{
    Appended, Blob, Change, Consumed, Freed, HeldStatement, Invitation, KeptRange, NewEntry,
    NewRange, Put, Released, Snapshot, StoredEntry, Tidied, Totals, VaultRecord, What,
};

/// Most bytes of all blobs in one [`RelayStore::put`]: what is written and made durable at once, and what a caller
/// has in memory for it.
pub const MAX_PUT_BYTES: usize = 16 << 20;
/// Most blobs in one [`RelayStore::put`].
pub const MAX_PUT_BLOBS: usize = 4096;
/// Most ids in one call, and most rows in one answer.
pub const MAX_IDS: usize = 8192;
/// Most entries in one [`RelayStore::append`]: a message of replication has no more.
pub const MAX_APPEND: usize = coffer_protocol::replication::MAX_ENTRIES;
/// Most bytes of an entry, and of all entries in one [`RelayStore::append`].
pub const MAX_APPEND_BYTES: usize = coffer_protocol::replication::MAX_MESSAGE;
/// Most grants of a vault: a membership has no more.
pub const MAX_GRANTS: usize = coffer_protocol::grants::MAX_GRANTS;
/// Most bytes of one grant.
pub const MAX_GRANT_BYTES: usize = coffer_protocol::grants::GRANT_MAX_LEN;
/// Most bytes of all grants of a vault: they are read as a whole, and a family's in a decade are below one MiB.
pub const MAX_GRANTS_BYTES: usize = 64 << 20;
/// Most writers of a vault: a clock names no more.
pub const MAX_WRITERS: usize = coffer_protocol::log::CLOCK_MAX_WRITERS;
/// Most devices of a vault of which something is kept: statements, members, when last seen, releases.
pub const MAX_DEVICES: usize = 256;
/// Most vaults that [`RelayStore::vaults_of`] names.
pub const MAX_VAULTS_OF: usize = 256;
/// Most bytes of what one device says of a range.
pub const MAX_SAID: usize = 512;
/// Most bytes of a statement.
pub const MAX_STATEMENT: usize = coffer_protocol::replication::MAX_STATEMENT;
/// Most bytes of [`Invitation::check`].
pub const MAX_CHECK: usize = 256;
/// Most bytes of a receipt.
pub const MAX_RECEIPT: usize = 4096;
/// Most blobs in one [`RelayStore::verify`]: some hundred MiB are read for it, if all are of the largest size.
pub const MAX_VERIFY: usize = 64;
/// Most invitations at a time. One host's owner makes a handful a day; the rest is room.
pub const MAX_INVITATIONS: usize = 65_536;

/// Everything that a host keeps. See the [module](self) for what holds for every method.
#[async_trait]
pub trait RelayStore: Send + Sync + 'static {
    // Invitations.

    /// Keeps an invitation under its id. One of the same id that is there already stays as it is.
    async fn add_invitation(&self, invitation: Invitation) -> Result<(), StoreError>;

    /// The invitation of this id, used or not.
    async fn invitation(&self, id: Hash) -> Result<Option<Invitation>, StoreError>;

    /// Invitations with ids above `after`, ascending, at most `max` and [`MAX_IDS`].
    async fn invitations(
        &self,
        after: Option<Hash>,
        max: usize,
    ) -> Result<Vec<Invitation>, StoreError>;

    /// Forgets an invitation; says whether there was one. A vault that used it goes on being served.
    async fn remove_invitation(&self, id: Hash) -> Result<bool, StoreError>;

    /// Uses an invitation for `vault`, which is served from then on. Of two who ask at once with one invitation for two
    /// vaults, one gets it. A vault that is served already keeps what it has, and the larger of both quotas.
    ///
    /// `epoch`, drawn at random by the caller, names the life of this vault's records here, and shows in
    /// [`VaultRecord::epoch`]. One that is served already begins another life: devices compare nothing that the host says
    /// from now on with what it said before, which a store that was put back cannot go on from. Its own statement is
    /// gone, and the numbers of those to come are above `now_ms`, and so above all that it ever gave out.
    async fn consume_invitation(
        &self,
        id: Hash,
        vault: VaultId,
        epoch: [u8; 16],
        now_ms: u64,
    ) -> Result<Consumed, StoreError>;

    // Vaults.

    /// The record of a vault; `None` if it is not served.
    async fn vault(&self, vault: VaultId) -> Result<Option<VaultRecord>, StoreError>;

    /// Vaults with ids above `after`, ascending, at most `max` and [`MAX_IDS`].
    async fn vaults(
        &self,
        after: Option<VaultId>,
        max: usize,
    ) -> Result<Vec<VaultRecord>, StoreError>;

    /// Sets a vault's quota in bytes. One that is below what is used takes nothing away.
    async fn set_quota(&self, vault: VaultId, quota: u64) -> Result<(), StoreError>;

    /// Says who may be here for a vault: an index for [`vaults_of`](Self::vaults_of), replaced as a whole. At most
    /// [`MAX_DEVICES`].
    async fn set_members(&self, vault: VaultId, members: Vec<DeviceId>) -> Result<(), StoreError>;

    /// The vaults that name a device in [`set_members`](Self::set_members), ascending, at most
    /// [`MAX_VAULTS_OF`].
    async fn vaults_of(&self, device: DeviceId) -> Result<Vec<VaultId>, StoreError>;

    /// Notes when a device was here for a vault. The latest time stays. Callers need not say it more than hourly.
    async fn note_seen(
        &self,
        vault: VaultId,
        device: DeviceId,
        at_ms: u64,
    ) -> Result<(), StoreError>;

    /// When each device was last here, by device.
    async fn seen(&self, vault: VaultId) -> Result<Vec<(DeviceId, u64)>, StoreError>;

    /// Erases a vault: from the moment of the call it is not served, and on return nothing of it is left but the
    /// receipt. `false` if it was not served: then nothing changes, and an older receipt stays. After an interruption the
    /// rest is erased when the store is opened again, or by [`tidy`](Self::tidy).
    async fn erase(&self, vault: VaultId, receipt: Bytes, now_ms: u64) -> Result<bool, StoreError>;

    /// The receipt of the last [`erase`](Self::erase) of a vault, served again since or not.
    async fn receipt(&self, vault: VaultId) -> Result<Option<Bytes>, StoreError>;

    /// Forgets receipts of vaults erased before `before_ms`, and invitations that expired before it (used ones too: the
    /// vault that used one is served without it). Returns how many.
    async fn forget(&self, before_ms: u64) -> Result<u64, StoreError>;

    // Grants.

    /// Keeps grants that are not there yet, by id, in this order after those that are. Returns how many were new. All or
    /// none: [`StoreError::TooLarge`] if the vault would have more than [`MAX_GRANTS`] or
    /// [`MAX_GRANTS_BYTES`].
    async fn put_grants(
        &self,
        vault: VaultId,
        grants: Vec<(Hash, Bytes)>,
    ) -> Result<usize, StoreError>;

    /// All grants of a vault, in the order in which they came.
    async fn grants(&self, vault: VaultId) -> Result<Vec<Bytes>, StoreError>;

    // Entries.

    /// Appends entries, each to its writer's log, in this order, and says for each what became of it. One that is
    /// refused hinders none that follows, except as the missing predecessor of its successors.
    async fn append(
        &self,
        vault: VaultId,
        entries: Vec<NewEntry>,
    ) -> Result<Vec<Appended>, StoreError>;

    /// Entries `from` to `to` of a writer's log, both included, ascending: those that are there, without gaps from
    /// `from` on, as many as fit into `max_bytes` and [`MAX_APPEND`], but at least one if there is one.
    async fn entries(
        &self,
        vault: VaultId,
        writer: WriterId,
        from: u64,
        to: u64,
        max_bytes: usize,
    ) -> Result<Vec<StoredEntry>, StoreError>;

    // Ranges, at most one for each last entry; what they stand for does not overlap.

    /// Keeps a range, and says what became of it, as of an entry. The entries before and at its end that are here must be
    /// those that it names. Where the log has not got to its end, it goes on after the range: the entries in between are
    /// not here then, and the range is *alone*. One that is alone and overlaps this one stays, and this one is not taken
    /// ([`Appended::Had`]); all others that overlap it go.
    async fn put_range(&self, vault: VaultId, range: NewRange) -> Result<Appended, StoreError>;

    /// The range that ends with entry `to` is alone from now on: the entries that it stands for go, and their room is free.
    /// Who must have it first, the caller has decided. Gives the bytes that they counted; 0 if there is no such range, or it
    /// was alone.
    async fn drop_entries(
        &self,
        vault: VaultId,
        writer: WriterId,
        to: u64,
    ) -> Result<u64, StoreError>;

    /// Keeps what `device` says of the range that ends with entry `to`, in the place of what it said before.
    async fn put_said(
        &self,
        vault: VaultId,
        writer: WriterId,
        to: u64,
        device: DeviceId,
        said: Bytes,
    ) -> Result<(), StoreError>;

    /// All ranges of a vault, by log and last entry.
    async fn ranges(&self, vault: VaultId) -> Result<Vec<KeptRange>, StoreError>;

    /// The bytes of the range that ends with entry `to`.
    async fn range_of(
        &self,
        vault: VaultId,
        writer: WriterId,
        to: u64,
    ) -> Result<Option<Bytes>, StoreError>;

    /// The clock of all entries that are durable here.
    async fn clock(&self, vault: VaultId) -> Result<Clock, StoreError>;

    // Statements.

    /// Keeps a device's held statement if its counter is above that of the one that is kept. Says whether it was.
    async fn put_held(&self, vault: VaultId, statement: HeldStatement) -> Result<bool, StoreError>;

    /// The held statement of every device, by device.
    async fn held(&self, vault: VaultId) -> Result<Vec<HeldStatement>, StoreError>;

    /// What the host would state of a vault, all read at one moment. `None` if it is not served.
    async fn snapshot(&self, vault: VaultId) -> Result<Option<Snapshot>, StoreError>;

    /// Keeps the host's own statement number `counter` if it is the next one (see [`Snapshot::counter`]). A
    /// statement that was refused must never leave the host: another process has stated something else under that
    /// number. Take a new [`snapshot`](Self::snapshot) then.
    async fn put_host_statement(
        &self,
        vault: VaultId,
        counter: u64,
        statement: Bytes,
    ) -> Result<bool, StoreError>;

    // Blobs.

    /// Which of these blobs are here, in their order. With `claim`, the asker names them: all releases of those that are
    /// here are taken back, durably.
    async fn have(
        &self,
        vault: VaultId,
        ids: Vec<Hash>,
        claim: bool,
    ) -> Result<Vec<bool>, StoreError>;

    /// Keeps blobs, whose hashes the caller has checked, and says for each what became of it. One that is there already
    /// is claimed, as in [`have`](Self::have). At most [`MAX_PUT_BLOBS`] and [`MAX_PUT_BYTES`].
    async fn put(&self, vault: VaultId, blobs: Vec<(Hash, Bytes)>) -> Result<Vec<Put>, StoreError>;

    /// Reads blobs, in whatever order is cheapest; each id is answered once, with its place among `ids`. No more is read
    /// ahead of the taker than some MiB. Ends after the first error. At most [`MAX_IDS`].
    fn get(&self, vault: VaultId, ids: Vec<Hash>) -> BoxStream<'static, Result<Blob, StoreError>>;

    /// `len` bytes of a blob from `offset`; fewer, or none, where it ends before. `None` if it is not here.
    async fn range(
        &self,
        vault: VaultId,
        id: Hash,
        offset: u64,
        len: u32,
    ) -> Result<Option<Bytes>, StoreError>;

    /// Reads blobs again, and forgets those whose bytes cannot be had or are not those of the id: they are no longer
    /// here, a [`have`](Self::have) says so, and a [`put`](Self::put) brings them again. Gives those that were
    /// forgotten. One that is written anew at the same moment stays. At most [`MAX_VERIFY`].
    async fn verify(&self, vault: VaultId, ids: Vec<Hash>) -> Result<Vec<Hash>, StoreError>;

    /// Ids of blobs above `after`, ascending, at most `max` and [`MAX_IDS`].
    async fn list(
        &self,
        vault: VaultId,
        after: Option<Hash>,
        max: usize,
    ) -> Result<Vec<Hash>, StoreError>;

    /// Notes that `device` names these blobs no more. Those that are not here are passed over; a release that is noted
    /// already keeps its time. All or none:
    /// [`StoreError::TooLarge`] if one would have releases of more than [`MAX_DEVICES`]. Nothing is freed by it.
    async fn release(
        &self,
        vault: VaultId,
        device: DeviceId,
        ids: Vec<Hash>,
        now_ms: u64,
    ) -> Result<(), StoreError>;

    /// Blobs above `after` that some device has released and none has claimed or put since, ascending, at most `max`
    /// and [`MAX_IDS`].
    async fn released(
        &self,
        vault: VaultId,
        after: Option<Hash>,
        max: usize,
    ) -> Result<Vec<Released>, StoreError>;

    /// Frees those of these blobs whose releases are still as given: a blob that was claimed meanwhile stays, and so
    /// does one that was released by one more. Who must have released one, and how long ago, the caller has decided. The
    /// room on the disk comes back with [`tidy`](Self::tidy).
    async fn free(&self, vault: VaultId, blobs: Vec<Released>) -> Result<Freed, StoreError>;

    // The store as a whole.

    /// Everything, summed up. For metrics: may be some seconds old.
    async fn totals(&self) -> Result<Totals, StoreError>;

    /// Does one piece of housekeeping, of some seconds at most: rewrites packs of which little is named, goes on with an
    /// interrupted erasure. Several processes may do it at once.
    async fn tidy(&self) -> Result<Tidied, StoreError>;

    /// Whether other processes may be on the same records and blobs, and do what one does for all of them.
    fn is_shared(&self) -> bool {
        false
    }

    /// How many blobs turned out to be gone when the store was opened, and are no longer here.
    fn lost_before(&self) -> u64 {
        0
    }

    /// Whether the store can be read and written now.
    async fn ready(&self) -> Result<(), StoreError>;

    /// What *other* processes on this store changed, from now on: never what this one did. An embedded store, which has
    /// one process, gives a stream that stays silent. The stream ends when the store is closed.
    fn changes(&self) -> BoxStream<'static, Change>;

    /// Finishes what is under way and closes. Every call after it gives [`StoreError::Closed`].
    async fn close(&self);
}
