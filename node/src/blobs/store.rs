//! The blob store: what this device keeps in its data folder, in iroh-blobs' `FsStore`.
//!
//! Frames of up to [`PACKED_MAX`] bytes ride together in packs of up to [`PACK_MAX`]; longer ones are blobs of their own.
//! The store's own database stays small that way: it has a row a blob, and nothing is inlined into it.
//!
//! What `FsStore` leaves to us (0.104, read in its source): it renames a blob into place without fsync and answers before
//! its database has committed, so [`BlobStore::commit`] waits for both before anything is acknowledged; a stop in between
//! leaves blobs that it believes complete, so [`BlobStore::damaged`] reads what was written since the last clean stop;
//! adding a blob again replaces its file, so a damaged one heals when it is fetched again. Blobs get named tags: garbage
//! collection, the store's only deletion, runs only when it is asked to, and spares them.
//!
//! Reading goes to the store's files by path: an actor's round trip for each 8 KiB frame would cost more than the frame.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::mem;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use coffer_protocol::frame;
use coffer_protocol::identity::Hash;
use iroh_blobs::api::RequestError;
use iroh_blobs::store::fs::FsStore;
use iroh_blobs::store::fs::options::{InlineOptions, Options, PathOptions};
use tokio::runtime::Handle;
use tokio::sync::RwLock;

use super::error::BlobsError;
use super::pins::Hold;
use super::placement::Placement;

/// Most bytes of a pack: as long as the longest frame, so that one bound holds for all blobs.
pub const PACK_MAX: usize = 4 << 20;

/// Longest frame that rides in a pack, in bytes. Above it, a blob of its own costs less than 1 % of its size.
pub const PACKED_MAX: usize = 256 << 10;

/// Room that is left free on the data folder's disk, in bytes: the vault's own database must still be able to commit, and
/// `FsStore` does not survive a full disk.
const RESERVE: u64 = 64 << 20;

/// File systems keep times in steps; what was written this long before the mark counts as written after it.
const MARK_SLACK: Duration = Duration::from_secs(5);

/// Exists while the store is open.
const MARK: &str = "in-use";

pub(super) struct BlobStore {
    fs: FsStore,
    paths: PathOptions,
    dir: PathBuf,
    runtime: Handle,
    /// Held by whoever adds; taken by whoever removes.
    adding: RwLock<()>,
    /// When the store was opened that was not closed cleanly.
    unclean_since: Option<SystemTime>,
    /// Held by whoever takes files away ([`super::drop`]).
    pub(super) dropping: Arc<tokio::sync::Mutex<()>>,
    /// What was added since files began to be taken away.
    added: Mutex<Option<HashSet<Hash>>>,
}

/// Whether the store's database, which it could not open, is damaged rather than out of reach.
fn is_damaged(database: &Path) -> bool {
    match redb::ReadOnlyDatabase::open(database) {
        Err(redb::DatabaseError::Storage(redb::StorageError::Io(error))) => {
            [io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof].contains(&error.kind())
        }
        Err(
            redb::DatabaseError::Storage(redb::StorageError::Corrupted(_))
            | redb::DatabaseError::UpgradeRequired(_),
        ) => true,
        _ => false,
    }
}

impl BlobStore {
    /// Opens the store in `dir`, which is made if it is not there.
    pub async fn open(dir: &Path) -> Result<Self, BlobsError> {
        let paths = PathOptions::new(dir);
        fs::create_dir_all(&paths.data_path)?;
        let mark = dir.join(MARK);
        let unclean_since = match fs::metadata(&mark) {
            Ok(meta) => Some(meta.modified()?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                File::create(&mark)?.sync_all()?;
                File::open(dir)?.sync_all()?;
                None
            }
            Err(error) => return Err(error.into()),
        };
        // Imports that a stop interrupted; nothing ever names them.
        match fs::remove_dir_all(&paths.temp_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let options = Options {
            inline: InlineOptions::NO_INLINE,
            ..Options::new(dir)
        };
        let database = dir.join("blobs.db");
        let fs = match FsStore::load_with_opts(database.clone(), options).await {
            Ok(fs) => fs,
            Err(error) if is_damaged(&database) => {
                tracing::error!(%error, "blobs.db cannot be read");
                return Err(BlobsError::Damaged);
            }
            Err(error) => return Err(BlobsError::Store(error.to_string())),
        };
        Ok(Self {
            fs,
            paths,
            dir: dir.to_owned(),
            runtime: Handle::current(),
            adding: RwLock::default(),
            unclean_since,
            dropping: Arc::default(),
            added: Mutex::default(),
        })
    }

    /// From now on what is added is remembered and not removed; or no longer.
    pub fn watch_added(&self, watch: bool) {
        *super::lock(&self.added) = watch.then(HashSet::new);
    }

    /// Removes a file that no row names, unless it is in use or was added since [`watch_added`](Self::watch_added); gives
    /// the bytes that are free now. Blocking.
    pub fn remove_unless_added(
        &self,
        file: &Hash,
        in_use: impl Fn(&Hash) -> bool,
    ) -> Result<u64, BlobsError> {
        let stays = |file: &Hash| {
            let added = super::lock(&self.added);
            added.as_ref().is_none_or(|added| added.contains(file)) || in_use(file)
        };
        self.runtime.block_on(self.remove(&[*file], stays))
    }

    fn path(&self, blob: &Hash) -> PathBuf {
        self.paths.data_path(&iroh_blobs::Hash::from_bytes(blob.0))
    }

    /// Appends the bytes that `place` says to `out`; false if they are not there. Nothing is checked.
    pub fn read(&self, blob: &Hash, place: &Placement, out: &mut Vec<u8>) -> io::Result<bool> {
        let (file, offset, len) = match place {
            Placement::Store => (self.path(blob), 0, None),
            Placement::Pack { pack, offset, len } => {
                (self.path(&Hash(*pack)), u64::from(*offset), Some(*len))
            }
            Placement::File { .. } | Placement::Kept { .. } => return Ok(false),
        };
        let file = match File::open(file) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let len = match len {
            Some(len) => u64::from(len),
            None => file.metadata()?.len(),
        };
        if len > 2 * PACK_MAX as u64 {
            return Ok(false);
        }
        append_from(&file, offset, len as usize, out)
    }

    /// Adds one blob. Not durable before [`commit`](Self::commit).
    async fn add(&self, bytes: Bytes) -> Result<Hash, BlobsError> {
        let space = rustix::fs::statvfs(&self.dir).map_err(io::Error::from)?;
        if space.f_bavail.saturating_mul(space.f_frsize) < RESERVE + bytes.len() as u64 {
            return Err(BlobsError::DiskFull);
        }
        let _adding = self.adding.read().await;
        let tag = self
            .fs
            .blobs()
            .add_bytes(bytes)
            .temp_tag()
            .await
            .map_err(failed)?;
        let hash = Hash(*tag.hash().as_bytes());
        if let Some(added) = super::lock(&self.added).as_mut() {
            added.insert(hash);
        }
        self.fs
            .tags()
            .set(tag_name(&hash), tag.hash_and_format())
            .await
            .map_err(failed)?;
        Ok(hash)
    }

    /// Makes everything added so far durable: the store's rows, then its files and their names.
    async fn commit(&self) -> Result<(), BlobsError> {
        self.fs.sync_db().await.map_err(failed)?;
        let dir = File::open(&self.dir)?;
        tokio::task::spawn_blocking(move || rustix::fs::syncfs(&dir))
            .await
            .map_err(|error| BlobsError::Store(error.to_string()))?
            .map_err(io::Error::from)?;
        Ok(())
    }

    /// Files of the store that were written since the last clean stop and do not hold what they are named after. They are
    /// removed. Blocking; reads at the disk's speed.
    pub fn damaged(&self) -> Result<HashSet<[u8; 32]>, BlobsError> {
        let mut damaged = HashSet::new();
        let Some(since) = self.unclean_since else {
            return Ok(damaged);
        };
        for entry in fs::read_dir(&self.paths.data_path)? {
            let path = entry?.path();
            let Some(name) = path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_suffix(".data"))
                .and_then(|name| name.parse::<Hash>().ok())
            else {
                continue;
            };
            let file = File::open(&path)?;
            if file.metadata()?.modified()? + MARK_SLACK < since {
                continue;
            }
            let mut hasher = blake3::Hasher::new();
            io::copy(
                &mut io::BufReader::with_capacity(1 << 20, file),
                &mut hasher,
            )?;
            if *hasher.finalize().as_bytes() != name.0 {
                fs::remove_file(&path)?;
                damaged.insert(name.0);
            }
        }
        Ok(damaged)
    }

    /// The length of a file of the store; 0 if it is not there.
    pub fn len(&self, name: &Hash) -> u64 {
        fs::metadata(self.path(name)).map_or(0, |meta| meta.len())
    }

    /// All files of the store. Blocking.
    pub fn files(&self) -> io::Result<Vec<(Hash, fs::Metadata)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.paths.data_path)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name
                .to_str()
                .and_then(|name| name.strip_suffix(".data"))
                .and_then(|name| name.parse::<Hash>().ok());
            if let (Some(name), Ok(meta)) = (name, entry.metadata()) {
                files.push((name, meta));
            }
        }
        Ok(files)
    }

    /// Removes files, except those in use, while nothing can be added; gives their bytes.
    ///
    /// `FsStore` deletes only by its own garbage collection, which races with additions and has no handle to run it once.
    /// Its files are read by path here and are replaced when a blob is added again, so they can go without it: what stays
    /// behind is a row of its database for each, some 100 bytes.
    pub async fn remove(
        &self,
        names: &[Hash],
        in_use: impl Fn(&Hash) -> bool,
    ) -> Result<u64, BlobsError> {
        let _quiet = self.adding.write().await;
        let mut bytes = 0;
        for name in names.iter().filter(|name| !in_use(name)) {
            self.fs
                .tags()
                .delete(tag_name(name))
                .await
                .map_err(failed)?;
            let len = self.len(name);
            let hash = iroh_blobs::Hash::from_bytes(name.0);
            for path in [self.path(name), self.paths.outboard_path(&hash)] {
                match fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(error.into());
                    }
                    _ => {}
                }
            }
            bytes += len;
        }
        Ok(bytes)
    }

    /// Whether the last stop was not a clean one.
    pub fn was_unclean(&self) -> bool {
        self.unclean_since.is_some()
    }

    /// Whether the file that holds `place` of `blob` is there.
    pub fn has_file(&self, blob: &Hash, place: &Placement) -> bool {
        match place {
            Placement::Store => self.path(blob).exists(),
            Placement::Pack { pack, .. } => self.path(&Hash(*pack)).exists(),
            Placement::File { .. } | Placement::Kept { .. } => false,
        }
    }

    /// Begins the time since which [`damaged`](Self::damaged) looks anew, once what it found is dealt with.
    pub fn mark(&self) -> Result<(), BlobsError> {
        let mark = File::create(self.dir.join(MARK))?;
        mark.set_modified(SystemTime::now())?;
        mark.sync_all()?;
        Ok(())
    }

    /// Closes the store: everything is durable when this returns.
    pub async fn shutdown(&self) -> Result<(), BlobsError> {
        self.commit().await?;
        self.fs
            .shutdown()
            .await
            .map_err(|error| BlobsError::Store(error.to_string()))?;
        match fs::remove_file(self.dir.join(MARK)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Appends `len` bytes of `file` from `offset` on to `out`; false, and nothing is appended, if the file is shorter.
pub(super) fn append_from(
    file: &File,
    offset: u64,
    len: usize,
    out: &mut Vec<u8>,
) -> io::Result<bool> {
    let before = out.len();
    out.resize(before + len, 0);
    match file.read_exact_at(&mut out[before..], offset) {
        Ok(()) => Ok(true),
        Err(error) => {
            out.truncate(before);
            match error.kind() {
                io::ErrorKind::UnexpectedEof => Ok(false),
                _ => Err(error),
            }
        }
    }
}

fn tag_name(blob: &Hash) -> String {
    format!("blob/{blob}")
}

fn failed(error: RequestError) -> BlobsError {
    match error {
        RequestError::Inner {
            source: iroh_blobs::api::Error::Io(error),
            ..
        } => error.into(),
        error => BlobsError::Store(error.to_string()),
    }
}

/// Puts frames into the store: small ones into packs, and all of them durable at [`Keeper::flush`].
///
/// Shared by the threads of one import or transfer; its methods block, and must not run on an async thread.
pub(super) struct Keeper {
    state: Mutex<Filling>,
    hold: Hold,
}

#[derive(Default)]
struct Filling {
    /// The pack that is being filled.
    pack: Vec<u8>,
    /// What is in it: blob, offset, length.
    inside: Vec<(Hash, u32, u32)>,
    /// Added, but not durable yet.
    placed: Vec<(Hash, Placement)>,
    /// Everything that this keeper was given.
    seen: HashSet<Hash>,
    /// A pack was not taken: frames that others gave are not there, so the next flush fails for all.
    failed: Option<BlobsError>,
}

impl Keeper {
    /// What is given to it, and the packs that it makes, are pinned by `hold`.
    pub fn new(hold: Hold) -> Self {
        Self {
            state: Mutex::default(),
            hold,
        }
    }

    /// Takes one frame for `store`, unless it was given before.
    pub fn keep(&self, store: &BlobStore, blob: Hash, sealed: &[u8]) -> Result<(), BlobsError> {
        self.hold.pin(&blob);
        let mut state = self.lock();
        if !state.seen.insert(blob) {
            return Ok(());
        }
        if sealed.len() > PACKED_MAX {
            drop(state);
            return self.add(store, vec![(blob, 0, sealed.len() as u32)], sealed.to_vec());
        }
        let full = (state.pack.len() + sealed.len() > PACK_MAX)
            .then(|| (mem::take(&mut state.inside), mem::take(&mut state.pack)));
        let offset = state.pack.len() as u32;
        state.pack.extend_from_slice(sealed);
        state.inside.push((blob, offset, sealed.len() as u32));
        drop(state);
        full.map_or(Ok(()), |(inside, pack)| self.add(store, inside, pack))
    }

    fn add(
        &self,
        store: &BlobStore,
        inside: Vec<(Hash, u32, u32)>,
        bytes: Vec<u8>,
    ) -> Result<(), BlobsError> {
        // Before it is there: a file of that name may be about to go.
        self.hold.pin(&frame::blob_id(&bytes));
        let whole = match store.runtime.block_on(store.add(bytes.into())) {
            Ok(whole) => whole,
            Err(error) => {
                self.lock().failed = Some(error.again());
                return Err(error);
            }
        };
        let placed = inside.into_iter().map(|(blob, offset, len)| {
            let place = if blob == whole {
                Placement::Store
            } else {
                Placement::Pack {
                    pack: whole.0,
                    offset,
                    len,
                }
            };
            (blob, place)
        });
        self.lock().placed.extend(placed);
        Ok(())
    }

    /// Makes all that was given so far durable, and tells where it is. After a failure what was given since the last
    /// success counts as never given.
    pub fn flush(&self, store: &BlobStore) -> Result<Vec<(Hash, Placement)>, BlobsError> {
        let (inside, pack) = {
            let mut state = self.lock();
            (mem::take(&mut state.inside), mem::take(&mut state.pack))
        };
        if !inside.is_empty() {
            // A failure is kept, and told below.
            let _ = self.add(store, inside, pack);
        }
        let (placed, failed) = {
            let mut state = self.lock();
            (mem::take(&mut state.placed), state.failed.take())
        };
        let durable = match failed {
            Some(error) => Err(error),
            None if placed.is_empty() => Ok(()),
            None => store.runtime.block_on(store.commit()),
        };
        if durable.is_err() {
            self.lock().seen.clear();
        }
        durable.map(|()| placed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Filling> {
        super::lock(&self.state)
    }
}
