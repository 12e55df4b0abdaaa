//! The store of a host on one machine: redb for records, pack files for blobs.
//!
//! ```text
//! tables.rs    every table          rows.rs     rows with fields
//! writer.rs    the writing thread   packs.rs    pack files
//! vaults.rs    invitations, vaults  grants.rs   grants and statements
//! entries.rs   logs and clocks      blobs.rs    blobs and their releases
//! ranges.rs    ranges of logs
//! tidy.rs      packs, erasures      repair.rs   what a crash or a lost file left
//! verify.rs    bytes that the disk has damaged
//! ```
//!
//! Bytes of blobs are durable in a pack before a row points to them, so a crash leaves at worst bytes that nothing
//! names. Puts of one vault, and everything else that touches its packs, take turns; all else is one transaction.

mod blobs;
mod entries;
mod grants;
mod packs;
mod ranges;
mod repair;
mod rows;
mod tables;
#[cfg(test)]
mod tests;
mod tidy;
mod vaults;
mod verify;
mod writer;

use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use coffer_protocol::identity::{DeviceId, Hash, VaultId, WriterId};
use coffer_protocol::log::Clock;
use futures::stream::{self, BoxStream, StreamExt};
use redb::backends::FileBackend;
use redb::{Database, ReadTransaction, ReadableDatabase, WriteTransaction};
use tokio::sync::{OwnedMutexGuard, watch};

use super::{
    Appended, Blob, Change, Consumed, Freed, HeldStatement, Invitation, KeptRange, NewEntry,
    NewRange, Put, RelayStore, Released, Snapshot, StoreError, StoredEntry, Tidied, Totals,
    VaultRecord,
};
use packs::Packs;
pub use repair::Repaired;
use writer::{Shared, Writer};

/// Memory that redb may keep for pages, in bytes: the places of some hundred thousand blobs. More are in the system's cache of
/// files, a call away. With twice as much a host of four vaults had 40 MB resident at rest.
const CACHE_BYTES: usize = 8 << 20;
/// Vaults take turns with others of the same lane: a bound on memory, and no two of a family's few meet often.
const LANES: usize = 64;

/// A host's store in a folder of its own.
pub struct EmbeddedStore {
    inner: Arc<Inner>,
    /// Taken by [`RelayStore::close`].
    writer: Mutex<Option<(Writer, std::thread::JoinHandle<()>)>>,
    closed: watch::Sender<bool>,
    repaired: Repaired,
}

struct Inner {
    shared: Arc<Shared>,
    packs: Packs,
    lanes: Vec<Arc<tokio::sync::Mutex<()>>>,
    tidying: tokio::sync::Mutex<()>,
    boundaries: Boundaries,
}

/// Where the store could be interrupted: a test stops it there and looks at what is on disk.
#[derive(Clone, Default)]
struct Boundaries(Option<Arc<dyn Fn(&'static str) + Send + Sync>>);

impl Boundaries {
    fn at(&self, name: &'static str) {
        if let Some(probe) = &self.0 {
            probe(name);
        }
    }
}

impl EmbeddedStore {
    /// Opens the store in `folder`, or makes it with mode 0700, and repairs what an unclean stop left. Blocks for the
    /// disk.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while another process has it; [`StoreError::Newer`] for a layout that this program does not
    /// know, which is left as it is; what the disk says.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        Self::open_probed(folder, Boundaries::default())
    }

    fn open_probed(folder: &Path, boundaries: Boundaries) -> Result<Self, StoreError> {
        let packs = Packs(folder.join("packs"));
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&packs.0)?;
        let path = folder.join("host.redb");
        let database = open_database(&path)?;
        std::fs::File::open(folder)?.sync_all()?;
        let repaired = repair::repair(&database, &packs)?;
        let shared = Shared::new(path, database);
        let (writer, thread) = Writer::start(Arc::clone(&shared), boundaries.clone())?;
        Ok(EmbeddedStore {
            inner: Arc::new(Inner {
                shared,
                packs,
                lanes: (0..LANES).map(|_| Arc::default()).collect(),
                tidying: tokio::sync::Mutex::default(),
                boundaries,
            }),
            writer: Mutex::new(Some((writer, thread))),
            closed: watch::channel(false).0,
            repaired,
        })
    }

    /// What was repaired when it was opened.
    pub fn repaired(&self) -> Repaired {
        self.repaired
    }

    fn writer(&self) -> Result<Writer, StoreError> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        match writer.as_ref() {
            Some((writer, _)) => Ok(writer.clone()),
            None => Err(StoreError::Closed),
        }
    }

    /// Takes no more writes. The thread ends when what is under way is finished.
    fn stop(&self) -> Option<std::thread::JoinHandle<()>> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.take().map(|(_, thread)| thread)
    }

    async fn write<T: Send + 'static>(
        &self,
        act: impl FnOnce(&WriteTransaction) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer()?.write(act).await
    }

    async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&ReadTransaction) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer()?;
        self.inner.read(look).await
    }

    /// Does something that blocks, alone among what touches the packs of `vault`. Finished even if nobody waits for it.
    async fn in_turn<T: Send + 'static>(
        &self,
        vault: VaultId,
        act: impl FnOnce(&Inner, &Writer) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let writer = self.writer()?;
        let turn = self.inner.turn(vault).await;
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let _turn = turn;
            act(&inner, &writer)
        })
        .await
    }
}

impl Drop for EmbeddedStore {
    /// Waits for the writing thread, so that the store can be opened again at once.
    fn drop(&mut self) {
        if let Some(thread) = self.stop() {
            let _ = thread.join();
        }
    }
}

impl Inner {
    async fn turn(&self, vault: VaultId) -> OwnedMutexGuard<()> {
        let lane = usize::from(vault.0[0]) % LANES;
        Arc::clone(&self.lanes[lane]).lock_owned().await
    }

    async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&ReadTransaction) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.read(look)).await
    }
}

async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(act).await {
        Ok(done) => done,
        Err(stopped) => Err(StoreError::Failed(stopped.to_string())),
    }
}

/// Opens the database at `path`, or makes it with mode 0600: under another name, which it loses when it is whole, for
/// redb refuses a file whose making was interrupted.
fn open_database(path: &Path) -> Result<Database, StoreError> {
    if !path.exists() {
        let unfinished: PathBuf = path.with_extension("redb.new");
        let file = FileBackend::new(open_file(&unfinished)?)?;
        redb::StorageBackend::set_len(&file, 0)?;
        let database = Database::builder().create_with_backend(file)?;
        tables::make_all(&database)?;
        drop(database);
        std::fs::rename(&unfinished, path)?;
    }
    let database = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(FileBackend::new(open_file(path)?)?)?;
    let layout = database
        .begin_read()?
        .open_table(tables::META)?
        .get(tables::LAYOUT_NAME)?
        .map_or(0, |layout| layout.value());
    match layout {
        tables::LAYOUT => {
            tables::make_later(&database)?;
            Ok(database)
        }
        found if found > tables::LAYOUT => Err(StoreError::Newer {
            found,
            known: tables::LAYOUT,
        }),
        _ => Err(StoreError::Damaged("the layout number".into())),
    }
}

fn open_file(path: &Path) -> io::Result<std::fs::File> {
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => StoreError::DiskFull,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                StoreError::Permission(error.to_string())
            }
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                StoreError::Damaged("a pack".into())
            }
            _ => StoreError::Failed(error.to_string()),
        }
    }
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        use crate::store::StoreError as Node;
        match Node::from(error) {
            Node::DiskFull => StoreError::DiskFull,
            Node::Permission => StoreError::Permission("the host's database".into()),
            Node::InUse => StoreError::InUse,
            Node::Newer { found, known } => StoreError::Newer { found, known },
            Node::Damaged(what) => StoreError::Damaged(what),
            Node::Database(what) => StoreError::Failed(what),
        }
    }
}

macro_rules! through_redb_error {
    ($($kind:ty),*) => { $(impl From<$kind> for StoreError {
        fn from(error: $kind) -> Self { StoreError::from(redb::Error::from(error)) }
    })* };
}
through_redb_error!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError
);

#[async_trait]
impl RelayStore for EmbeddedStore {
    async fn add_invitation(&self, invitation: Invitation) -> Result<(), StoreError> {
        self.write(|write| vaults::add_invitation(write, invitation))
            .await
    }

    async fn invitation(&self, id: Hash) -> Result<Option<Invitation>, StoreError> {
        self.read(move |read| vaults::invitation(read, id)).await
    }

    async fn invitations(
        &self,
        after: Option<Hash>,
        max: usize,
    ) -> Result<Vec<Invitation>, StoreError> {
        self.read(move |read| vaults::invitations(read, after, max))
            .await
    }

    async fn remove_invitation(&self, id: Hash) -> Result<bool, StoreError> {
        self.write(move |write| {
            let mut invitations = write.open_table(tables::INVITATIONS)?;
            Ok(invitations.remove(&id.0)?.is_some())
        })
        .await
    }

    async fn consume_invitation(
        &self,
        id: Hash,
        vault: VaultId,
        epoch: [u8; 16],
        now_ms: u64,
    ) -> Result<Consumed, StoreError> {
        self.write(move |write| vaults::consume(write, id, vault, epoch, now_ms))
            .await
    }

    async fn vault(&self, vault: VaultId) -> Result<Option<VaultRecord>, StoreError> {
        self.read(move |read| Ok(vaults::row(read, vault)?.map(|row| row.record(vault))))
            .await
    }

    async fn vaults(
        &self,
        after: Option<VaultId>,
        max: usize,
    ) -> Result<Vec<VaultRecord>, StoreError> {
        self.read(move |read| vaults::page(read, after, max)).await
    }

    async fn set_quota(&self, vault: VaultId, quota: u64) -> Result<(), StoreError> {
        self.write(move |write| {
            let mut row = vaults::served(write, vault)?;
            row.quota = quota;
            vaults::keep(write, vault, &row)
        })
        .await
    }

    async fn set_members(&self, vault: VaultId, members: Vec<DeviceId>) -> Result<(), StoreError> {
        self.write(move |write| vaults::set_members(write, vault, members))
            .await
    }

    async fn vaults_of(&self, device: DeviceId) -> Result<Vec<VaultId>, StoreError> {
        self.read(move |read| vaults::of_device(read, device)).await
    }

    async fn note_seen(
        &self,
        vault: VaultId,
        device: DeviceId,
        at_ms: u64,
    ) -> Result<(), StoreError> {
        self.write(move |write| vaults::note_seen(write, vault, device, at_ms))
            .await
    }

    async fn seen(&self, vault: VaultId) -> Result<Vec<(DeviceId, u64)>, StoreError> {
        self.read(move |read| vaults::seen(read, vault)).await
    }

    async fn erase(&self, vault: VaultId, receipt: Bytes, now_ms: u64) -> Result<bool, StoreError> {
        self.in_turn(vault, move |inner, writer| {
            let begun = writer
                .write_blocking(move |write| vaults::begin_erasing(write, vault, &receipt, now_ms));
            let Some(number) = begun? else {
                return Ok(false);
            };
            while tidy::erase_some(inner, writer, number)?.more {}
            Ok(true)
        })
        .await
    }

    async fn receipt(&self, vault: VaultId) -> Result<Option<Bytes>, StoreError> {
        self.read(move |read| vaults::receipt(read, vault)).await
    }

    async fn forget(&self, before_ms: u64) -> Result<u64, StoreError> {
        self.write(move |write| vaults::forget(write, before_ms))
            .await
    }

    async fn put_grants(
        &self,
        vault: VaultId,
        grants: Vec<(Hash, Bytes)>,
    ) -> Result<usize, StoreError> {
        self.write(move |write| grants::put(write, vault, grants))
            .await
    }

    async fn grants(&self, vault: VaultId) -> Result<Vec<Bytes>, StoreError> {
        self.read(move |read| grants::all(read, vault)).await
    }

    async fn append(
        &self,
        vault: VaultId,
        entries: Vec<NewEntry>,
    ) -> Result<Vec<Appended>, StoreError> {
        self.write(move |write| entries::append(write, vault, entries))
            .await
    }

    async fn entries(
        &self,
        vault: VaultId,
        writer: WriterId,
        from: u64,
        to: u64,
        max_bytes: usize,
    ) -> Result<Vec<StoredEntry>, StoreError> {
        self.read(move |read| entries::read(read, vault, writer, from..=to, max_bytes))
            .await
    }

    async fn put_range(&self, vault: VaultId, range: NewRange) -> Result<Appended, StoreError> {
        self.write(move |write| ranges::put(write, vault, &range))
            .await
    }

    async fn drop_entries(
        &self,
        vault: VaultId,
        writer: WriterId,
        to: u64,
    ) -> Result<u64, StoreError> {
        self.write(move |write| ranges::drop_entries(write, vault, writer, to))
            .await
    }

    async fn put_said(
        &self,
        vault: VaultId,
        writer: WriterId,
        to: u64,
        device: DeviceId,
        said: Bytes,
    ) -> Result<(), StoreError> {
        self.write(move |write| ranges::put_said(write, vault, (writer, to), device, &said))
            .await
    }

    async fn ranges(&self, vault: VaultId) -> Result<Vec<KeptRange>, StoreError> {
        self.read(move |read| ranges::all(read, vault)).await
    }

    async fn range_of(
        &self,
        vault: VaultId,
        writer: WriterId,
        to: u64,
    ) -> Result<Option<Bytes>, StoreError> {
        self.read(move |read| ranges::range(read, vault, writer, to))
            .await
    }

    async fn clock(&self, vault: VaultId) -> Result<Clock, StoreError> {
        self.read(move |read| entries::clock(read, vaults::number(read, vault)?))
            .await
    }

    async fn put_held(&self, vault: VaultId, statement: HeldStatement) -> Result<bool, StoreError> {
        self.write(move |write| grants::put_held(write, vault, &statement))
            .await
    }

    async fn held(&self, vault: VaultId) -> Result<Vec<HeldStatement>, StoreError> {
        self.read(move |read| grants::held(read, vault)).await
    }

    async fn snapshot(&self, vault: VaultId) -> Result<Option<Snapshot>, StoreError> {
        self.read(move |read| match vaults::row(read, vault)? {
            Some(row) => {
                let (counter, statement) = grants::host_statement(read, row.number)?;
                Ok(Some(Snapshot {
                    record: row.record(vault),
                    clock: entries::clock(read, row.number)?,
                    counter,
                    statement,
                }))
            }
            None => Ok(None),
        })
        .await
    }

    async fn put_host_statement(
        &self,
        vault: VaultId,
        counter: u64,
        statement: Bytes,
    ) -> Result<bool, StoreError> {
        self.write(move |write| grants::put_host_statement(write, vault, counter, &statement))
            .await
    }

    async fn have(
        &self,
        vault: VaultId,
        ids: Vec<Hash>,
        claim: bool,
    ) -> Result<Vec<bool>, StoreError> {
        if claim {
            let (ids, released) = self
                .read(move |read| {
                    let released = blobs::is_any_released(read, vault, &ids)?;
                    Ok((ids, released))
                })
                .await?;
            // Most claims take nothing back, and need no write.
            if released {
                return self
                    .write(move |write| blobs::claim(write, vault, &ids))
                    .await;
            }
            return self.read(move |read| blobs::have(read, vault, &ids)).await;
        }
        self.read(move |read| blobs::have(read, vault, &ids)).await
    }

    async fn put(&self, vault: VaultId, blobs: Vec<(Hash, Bytes)>) -> Result<Vec<Put>, StoreError> {
        self.in_turn(vault, move |inner, writer| {
            blobs::put(inner, writer, vault, blobs)
        })
        .await
    }

    fn get(&self, vault: VaultId, ids: Vec<Hash>) -> BoxStream<'static, Result<Blob, StoreError>> {
        match self.writer() {
            Ok(_) => blobs::get(Arc::clone(&self.inner), vault, ids),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    async fn range(
        &self,
        vault: VaultId,
        id: Hash,
        offset: u64,
        len: u32,
    ) -> Result<Option<Bytes>, StoreError> {
        self.writer()?;
        let inner = Arc::clone(&self.inner);
        blocking(move || blobs::range(&inner, vault, id, offset, len)).await
    }

    async fn verify(&self, vault: VaultId, ids: Vec<Hash>) -> Result<Vec<Hash>, StoreError> {
        let (writer, inner) = (self.writer()?, Arc::clone(&self.inner));
        blocking(move || verify::verify(&inner, &writer, vault, &ids)).await
    }

    async fn list(
        &self,
        vault: VaultId,
        after: Option<Hash>,
        max: usize,
    ) -> Result<Vec<Hash>, StoreError> {
        self.read(move |read| blobs::list(read, vault, after, max))
            .await
    }

    async fn release(
        &self,
        vault: VaultId,
        device: DeviceId,
        ids: Vec<Hash>,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        self.write(move |write| blobs::release(write, vault, device, &ids, now_ms))
            .await
    }

    async fn released(
        &self,
        vault: VaultId,
        after: Option<Hash>,
        max: usize,
    ) -> Result<Vec<Released>, StoreError> {
        self.read(move |read| blobs::released(read, vault, after, max))
            .await
    }

    async fn free(&self, vault: VaultId, blobs: Vec<Released>) -> Result<Freed, StoreError> {
        self.write(move |write| blobs::free(write, vault, blobs))
            .await
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        self.read(vaults::totals).await
    }

    async fn tidy(&self) -> Result<Tidied, StoreError> {
        let _one = self.inner.tidying.lock().await;
        tidy::tidy(self).await
    }

    fn lost_before(&self) -> u64 {
        self.repaired.lost
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.write(|_| Ok(())).await
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        let mut closed = self.closed.subscribe();
        // There is no other process: the stream only ends.
        stream::once(async move {
            let _ = closed.wait_for(|closed| *closed).await;
        })
        .filter_map(|()| std::future::ready(None))
        .boxed()
    }

    async fn close(&self) {
        if let Some(thread) = self.stop() {
            let _ = blocking(move || {
                let _ = thread.join();
                Ok(())
            })
            .await;
        }
        self.closed.send_replace(true);
    }
}
