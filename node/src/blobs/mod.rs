//! Bytes of files: cutting, sealing, finding, serving, fetching and writing them.
//!
//! ```text
//!           file on disk                                        file on disk
//!   chunking ─► import ─► rows ─► (vault)         (vault) ─► content ─► transfer ─► write
//!                 │                                                      ▲    │
//!                 └─► store ◄────────── seam ◄── serve ═══ wire ═══► peers    └─► store
//! ```
//!
//! [`placement`] is where the bytes of each blob are, in rows that the vault commits; [`chunking`] where files are cut; `store`
//! the blob store with its packs; `seam` the one answer to *where are this chunk's bytes*. [`Blobs`] is the handle to all.
//!
//! This room never writes the database, decides what is wanted, or names a document. It holds to two rules: bytes are
//! checked wherever they come in, also from this device's own disk; and what it says is done is durable.

mod asking;
mod board;
mod bring;
pub mod chunking;
mod coming;
mod content;
mod drop;
mod error;
mod freeing;
mod gate;
mod import;
mod jobs;
mod keep;
mod passing;
mod pauses;
mod pins;
pub mod placement;
mod rates;
mod read;
mod seam;
mod serve;
mod session;
mod shelf;
mod sources;
mod store;
mod transfer;
mod verify;
mod wire;
mod work;
mod write;

#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use coffer_crdt::chunks::ChunkRoot;
use coffer_protocol::blobs::Version;
use coffer_protocol::identity::{DeviceId, Hash, VaultId};
use coffer_protocol::keys::Keyring;
use redb::ReadableDatabase;
use tokio::sync::{mpsc, watch};

pub use asking::Had;
pub use bring::Filled;
pub use content::Named;
pub use drop::{Dropped, Dropping, file_of};
pub use error::{BlobsError, ImportError, ServeError, WriteError};
pub use freeing::{Leaving, Repacked, StoredFile};
pub use gate::{Limits, Priority};
pub use import::{Import, ImportJob, Imported};
pub use jobs::{Group, NO_FOLDER, StoreJob, WriteJob};
pub use pauses::Paused;
pub use pins::Hold;
pub use placement::{ChunkRow, Placement, Rows};
pub use rates::Rate;
pub use read::MAX_READ;
pub use shelf::{FromShelf, Shelf};
pub use sources::{ByteStream, Fetch, FolderPaths, Opened, Progress, Sources};
pub use store::{PACK_MAX, PACKED_MAX};
pub use transfer::Transferred;
pub use verify::{AtRest, Verified};

use coming::Coming;
use gate::Gate;
use jobs::{Job, Planned};
use keep::StoreSink;
use pauses::Pauses;
use pins::Pins;
use placement::{PlacementError, Reader};
use rates::Rates;
use store::BlobStore;
use transfer::{Sink, Want};
use write::FileSink;

/// Most places found wrong that are remembered until the vault asks. More are found again later.
const MAX_STALE: usize = 10_000;

/// Contents that one transfer deals with at a time; more are taken one lot after the other. What is kept in memory is
/// about 500 bytes a file.
const LOT_FILES: usize = 32_768;

/// Bytes of contents in one lot, unless a single one is larger: some 64,000 chunks, about 300 bytes of memory each.
const LOT_BYTES: u64 = 64 << 30;

/// Threads that one import or transfer works with. More than four gain nothing against one disk or one network.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(4))
}

/// Locks what no panic can leave half-changed in a way that matters: a poisoned lock is taken all the same.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The blobs of one vault on this device. Cheap to clone.
#[derive(Clone)]
pub struct Blobs {
    shared: Arc<Shared>,
}

/// What all of this module works with.
struct Shared {
    vault: VaultId,
    store: BlobStore,
    db: Arc<redb::Database>,
    keyring: RwLock<Arc<Keyring>>,
    folders: RwLock<Option<Arc<dyn FolderPaths>>>,
    stale: Mutex<BTreeSet<(Hash, Placement)>>,
    rates: Rates,
    gate: Arc<Gate>,
    pins: Arc<Pins>,
    coming: Coming,
    pauses: Pauses,
}

impl Shared {
    fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(&self.keyring.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn folders(&self) -> Option<Arc<dyn FolderPaths>> {
        self.folders
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn reader(&self) -> Result<Reader, BlobsError> {
        let transaction = self.db.begin_read().map_err(PlacementError::from)?;
        Ok(Reader::new(&transaction)?)
    }

    fn note_stale(&self, blob: Hash, place: Placement) {
        let mut stale = lock(&self.stale);
        if stale.len() < MAX_STALE {
            stale.insert((blob, place));
        }
    }
}

/// Makes a sink for contents, and tells what it wants.
type Plan<J, S> =
    fn(&Arc<Shared>, Arc<Progress>, Hold, Vec<Planned<J>>) -> Result<(S, Vec<Want>), BlobsError>;

impl Blobs {
    /// Opens the blob store of `vault` in `dir`, which is made if it is not there. Rows are read from `db`, and never
    /// written. Must run in a tokio runtime, which must live as long as this does.
    pub async fn open(
        dir: &Path,
        vault: VaultId,
        db: Arc<redb::Database>,
        keyring: Arc<Keyring>,
    ) -> Result<Blobs, BlobsError> {
        Ok(Blobs {
            shared: Arc::new(Shared {
                vault,
                store: BlobStore::open(dir).await?,
                db,
                keyring: RwLock::new(keyring),
                folders: RwLock::new(None),
                stale: Mutex::default(),
                rates: Rates::default(),
                gate: Arc::default(),
                pins: Arc::default(),
                coming: Coming::default(),
                pauses: Pauses::default(),
            }),
        })
    }

    /// From now on reads and writes with these keys: after a rotation, or when older epochs arrived.
    pub fn set_keyring(&self, keyring: Arc<Keyring>) {
        *self
            .shared
            .keyring
            .write()
            .unwrap_or_else(PoisonError::into_inner) = keyring;
    }

    /// From now on asks `folders` where synced files are. Before, they are nowhere.
    pub fn set_folders(&self, folders: Arc<dyn FolderPaths>) {
        *self
            .shared
            .folders
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(folders);
    }

    /// Reads files in, on all cores; results in the order of the jobs. What goes to the store is durable when this returns.
    pub async fn import(&self, jobs: Vec<ImportJob>) -> Vec<Result<Imported, ImportError>> {
        self.import_counted(jobs, Arc::default()).await
    }

    /// The same, adding to `read` the bytes that were read so far.
    pub async fn import_counted(
        &self,
        jobs: Vec<ImportJob>,
        read: Arc<AtomicU64>,
    ) -> Vec<Result<Imported, ImportError>> {
        self.blocking(move |shared| import::import(shared, &jobs, &read))
            .await
    }

    /// Reads one file in.
    pub async fn import_file(&self, path: PathBuf, into: Import) -> Result<Imported, ImportError> {
        let mut results = self.import(vec![ImportJob { path, into }]).await;
        results.pop().unwrap_or(Err(ImportError::Vanished))
    }

    /// Puts bytes that are in memory into the store; there is no time and no inode.
    pub async fn import_bytes(&self, bytes: Vec<u8>) -> Result<Imported, ImportError> {
        self.blocking(move |shared| import::import_bytes(shared, &bytes))
            .await
    }

    /// Those of `chunks` of which no place is known here.
    pub fn missing(&self, chunks: &[Named]) -> Result<Vec<Named>, BlobsError> {
        let reader = self.shared.reader()?;
        let mut missing = Vec::new();
        for chunk in chunks {
            if !reader.has(&chunk.blob)? {
                missing.push(*chunk);
            }
        }
        Ok(missing)
    }

    /// Whether every chunk of a content, and every piece of its list, has a place here. Asks nobody.
    pub async fn has_all(&self, root: &ChunkRoot) -> Result<bool, BlobsError> {
        let Ok(top) = content::named(root.list()) else {
            return Ok(false);
        };
        if !self.missing(&top)?.is_empty() {
            return Ok(false);
        }
        match self.expand(root, &Fetch::nobody()).await {
            Ok(chunks) => Ok(self.missing(&chunks)?.is_empty()),
            Err(_) => Ok(false),
        }
    }

    /// All chunks of a content, in order; pieces of its list that are not here are fetched, and not kept.
    pub async fn expand(&self, root: &ChunkRoot, fetch: &Fetch) -> Result<Vec<Named>, WriteError> {
        read::expand_one(&self.shared, root, fetch).await
    }

    /// A range of a content's bytes, at most [`MAX_READ`] at a time and cut off at its end; from here or elsewhere, checked,
    /// and not kept.
    pub async fn read_range(
        &self,
        root: &ChunkRoot,
        range: Range<u64>,
        fetch: &Fetch,
    ) -> Result<Vec<u8>, WriteError> {
        read::read_range(&self.shared, root, range, fetch).await
    }

    /// Fills temporary files, with what is here and what can be fetched. Jobs that ended are sent to `done` in groups,
    /// durable, while it goes on; each job comes once. Receive them meanwhile: the channel is bounded, and a full one
    /// halts the transfer; given by value, it closes at the end. Dropping the future stops it; temporary files stay and
    /// are resumed the next time.
    pub async fn write_files(
        &self,
        jobs: Vec<WriteJob>,
        fetch: &Fetch,
        done: impl Borrow<mpsc::Sender<Group>> + Send + Sync,
    ) -> Transferred {
        self.transfer(jobs, fetch, done.borrow(), FileSink::plan)
            .await
    }

    /// Brings contents into the blob store, as far as their chunks are nowhere on this device; else like
    /// [`write_files`](Self::write_files).
    pub async fn store_contents(
        &self,
        jobs: Vec<StoreJob>,
        fetch: &Fetch,
        done: impl Borrow<mpsc::Sender<Group>> + Send + Sync,
    ) -> Transferred {
        self.transfer(jobs, fetch, done.borrow(), StoreSink::plan)
            .await
    }

    async fn transfer<J: Job, S: Sink>(
        &self,
        jobs: Vec<J>,
        fetch: &Fetch,
        done: &mpsc::Sender<Group>,
        plan: Plan<J, S>,
    ) -> Transferred {
        let mut transferred = Transferred::default();
        Progress::add(&fetch.progress.total_files, jobs.len() as u64);
        Progress::add(
            &fetch.progress.total_bytes,
            jobs.iter().map(|job| job.content().size).sum(),
        );
        let mut jobs = jobs.into_iter().peekable();
        while jobs.peek().is_some() && !done.is_closed() {
            let mut lot = Vec::new();
            let mut bytes = 0u64;
            while let Some(job) = jobs.next_if(|job| {
                lot.is_empty() || lot.len() < LOT_FILES && bytes + job.content().size <= LOT_BYTES
            }) {
                bytes += job.content().size;
                lot.push(job);
            }
            self.transfer_lot(lot, fetch, done, plan, &mut transferred)
                .await;
        }
        transferred
    }

    async fn transfer_lot<J: Job, S: Sink>(
        &self,
        jobs: Vec<J>,
        fetch: &Fetch,
        done: &mpsc::Sender<Group>,
        plan: Plan<J, S>,
        transferred: &mut Transferred,
    ) {
        let hold = self.shared.pins.hold();
        let mut group = Group {
            hold: Some(hold.clone()),
            ..Group::default()
        };
        let roots = jobs.iter().map(|job| &job.content().root);
        let contents = read::expand::<true>(
            &self.shared,
            roots,
            fetch,
            &hold,
            transferred,
            &mut group.shared,
        )
        .await;
        let keyring = self.shared.keyring();
        let mut planned = Vec::with_capacity(jobs.len());
        for (job, chunks) in jobs.into_iter().zip(contents) {
            let checked = chunks.and_then(|chunks| {
                let wanted = job.content();
                content::check(&chunks, wanted.size, &wanted.hash, keyring.secret())?;
                Ok(chunks)
            });
            match checked {
                Ok(chunks) => {
                    hold.pin_all(&chunks).await;
                    planned.push(Planned { job, chunks });
                }
                Err(error) => group.jobs.push((job.content().key, Err(error))),
            }
        }
        let keys: Vec<u64> = planned
            .iter()
            .map(|planned| planned.job.content().key)
            .collect();
        let (shared, progress) = (Arc::clone(&self.shared), Arc::clone(&fetch.progress));
        let plan = self
            .blocking(move |_| plan(&shared, progress, hold, planned))
            .await;
        let ready = match plan {
            Ok(ready) => Some(ready),
            Err(error) => {
                let failed = keys.into_iter().map(|key| (key, Err(error.again().into())));
                group.jobs.extend(failed);
                None
            }
        };
        if !group.is_empty() {
            // A receiver that has gone wants nothing; the next lot is not begun then.
            let _ = done.send(group).await;
        }
        if let Some((sink, wants)) = ready {
            let sink = Arc::new(sink);
            transferred.add(transfer::run(&self.shared, wants, sink, fetch, Some(done)).await);
        }
    }

    /// Answers what `device` asks on a stream until it closes its half. Whether it may ask was checked by the caller.
    pub async fn serve(
        &self,
        device: DeviceId,
        version: Version,
        stream: impl ByteStream,
    ) -> Result<(), ServeError> {
        serve::serve(Arc::clone(&self.shared), device, version, stream).await
    }

    /// After an unclean stop: reads what was written to the store since the start before, and gives the blobs whose bytes
    /// are damaged or gone. The vault forgets these places ([`placement::forget`]) and wants the blobs again. After a
    /// clean stop it gives nothing, at once.
    pub async fn verify_after_unclean_stop(&self) -> Result<Vec<(Hash, Placement)>, BlobsError> {
        self.blocking(|shared| {
            if !shared.store.was_unclean() {
                return Ok(Vec::new());
            }
            let damaged = shared.store.damaged()?;
            let mut wrong = shared.reader()?.stored()?;
            wrong.retain(|(blob, place)| match place {
                Placement::Pack { pack, .. } if damaged.contains(pack) => true,
                place => !shared.store.has_file(blob, place),
            });
            shared.store.mark()?;
            Ok(wrong)
        })
        .await
    }

    /// Places found wrong while reading (a file changed or went), since the last call. The vault forgets them.
    pub fn take_stale(&self) -> Vec<(Hash, Placement)> {
        let mut stale = lock(&self.shared.stale);
        std::mem::take(&mut *stale).into_iter().collect()
    }

    /// From now on transfers keep to these, also those under way.
    pub fn set_limits(&self, limits: Limits) {
        self.shared.gate.set(limits);
    }

    /// What transfers keep to, and when that changes.
    pub fn limits(&self) -> watch::Receiver<Limits> {
        self.shared.gate.subscribe()
    }

    /// Which other devices have said that transfers are paused there, now and from now on.
    pub fn paused_elsewhere(&self) -> watch::Receiver<Paused> {
        self.shared.pauses.subscribe()
    }

    /// `device` gives contents again, or is not there to be asked.
    pub fn not_paused(&self, device: DeviceId) {
        self.shared.pauses.said(device, false);
    }

    /// Bytes to and from each device, in total and just now.
    pub fn rates(&self) -> BTreeMap<DeviceId, Rate> {
        self.shared.rates.read()
    }

    /// Bytes that have come of large contents which are under way and not whole yet, by the contents' hashes.
    pub fn coming(&self) -> HashMap<[u8; 32], u64> {
        self.shared.coming.bytes()
    }

    /// Closes the store, everything durable. Calls that come later fail.
    pub async fn shutdown(&self) -> Result<(), BlobsError> {
        self.shared.store.shutdown().await
    }

    /// Runs `work` where it may block. A panic in it goes on here.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> T + Send + 'static,
    ) -> T {
        let shared = Arc::clone(&self.shared);
        match tokio::task::spawn_blocking(move || work(&shared)).await {
            Ok(value) => value,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Blocking work is cancelled only with its runtime, and then nobody waits here either.
                Err(_) => futures::future::pending().await,
            },
        }
    }
}
