//! Synced folders: a folder on disk kept equal to a folder of the vault.
//!
//! One actor per synced folder ([`FolderHandle`] outside, one loop inside) runs two passes in turn. The *local pass*
//! finds what people and programs did on disk and commits it to the vault; the *remote pass* does on disk what the
//! vault's tree says. Between them stand the **rows**: what each file looked like when disk and vault last agreed.
//! Whatever differs from its row was done on that side; so a crash at any moment is repaired by the next start from
//! rows and disk alone.
//!
//! ```text
//! handle.rs       starting, asking, stopping; engine.rs the loop; report.rs what it says of itself
//! noted.rs        what the watcher noted, and what is due when
//! local.rs        the local pass; structure.rs folders, moves and deletions of it, intake.rs contents; reading.rs the files
//!                 it reads
//! remote.rs       the remote pass; groups.rs files that were fetched; survey.rs all files in portions; queue.rs what to bring, in order; kept.rs what it
//!                 takes off the disk
//! recover.rs      what the last run left behind; exchanges.rs files that were about to change places then
//! place.rs        the folder's root and its hidden `.vault/`; hidden.rs names in that; ground.rs what is there
//! surroundings.rs disk, watcher, clocks and chance, so that a simulation can have its own
//! disk.rs         what is asked of a disk; system.rs the real one, whose calls never follow a link
//! scan.rs         disk -> Snapshot, whole or the parts that the watcher named (watch.rs)
//! rules.rs        what is ignored; learn.rs finding it; leave.rs what that means for files that the vault has
//! rows.rs         the rows and their indexes
//! compare.rs      Snapshot x rows x tree -> LocalPlan (pure); recognise.rs which file is which (pure)
//! brake.rs        when deletions and rewritings are too many at once (pure); braked.rs what happens then; release.rs how it ends
//! sparing.rs      contents that lost against others and that nobody has seen, before the vault forgets them; rivals.rs where
//!                 the engine does that; copies.rs their conflict copies
//! decide.rs       a file that was read x rows x tree -> what it means (pure)
//! plan.rs         tree x rows -> RemotePlan (pure)
//! schedule.rs     moves in an order in which no name is taken twice (pure)
//! apply.rs        RemotePlan -> disk; placing.rs contents and links of it; intent.rs what is about to be done, for the start after a crash
//! conflicts.rs    the conflicts there are, and how one is settled (pure)
//! profile.rs      what a file system takes as names, and how exactly it keeps times; spelling.rs names of the vault <-> names on disk
//! names.rs        names of conflict copies
//! paths.rs        where a file is now, for those who read its bytes
//! first_merge.rs  what adding a folder would do
//! ```
//!
//! It refuses to overwrite or remove anything that it has not seen: the target of every step is compared with its row
//! first, and what a remote change replaces is moved to `.vault/kept/`, where its bytes can still be read.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, RwLockReadGuard};

use coffer_crdt::chunks::ChunkRoot;
use coffer_crdt::files::{Content, Dot, FileId};
use coffer_crdt::tree::{Changed, Tree};
use coffer_protocol::identity::VaultId;
use futures::future::BoxFuture;
use tokio::sync::{broadcast, mpsc};

use crate::blobs::{
    Blobs, Fetch, Group, ImportError, ImportJob, Imported, Named, WriteError, WriteJob,
};
use crate::vault::request::{BrakedFile, CommitError, CommitRequest, Committed, FolderRow};

pub mod apply;
pub mod brake;
mod braked;
pub mod compare;
pub mod conflicts;
mod copies;
pub mod decide;
pub mod disk;
mod durable;
pub mod engine;
mod exchanges;
pub mod first_merge;
pub mod ground;
mod groups;
pub mod halt;
mod handle;
mod hidden;
mod intake;
mod intent;
mod kept;
mod lasting;
mod learn;
pub mod leave;
mod local;
pub mod names;
mod noted;
pub mod paths;
pub mod place;
mod placing;
pub mod plan;
pub mod profile;
mod queue;
mod reading;
mod recognise;
mod recover;
mod release;
mod remote;
mod report;
mod rivals;
pub mod rows;
pub mod rules;
pub mod scan;
pub mod schedule;
pub mod sparing;
pub mod spelling;
pub mod state;
mod structure;
pub mod surroundings;
mod survey;
pub mod system;
pub mod watch;

#[cfg(test)]
mod tests;

pub use first_merge::{FirstMerge, preview};
pub use handle::{FolderEngine, FolderHandle};
pub use paths::Folders;
pub use place::FolderError;
pub use release::{Release, Released, Unreleased};
pub use state::{Activity, BrakeReport, FolderState, Problem};

/// What the engine needs of the vault. `VaultHandle` is the real one, tests keep a [`Tree`] of their own.
pub trait FolderVault: Send + Sync + 'static {
    /// Carries out a request; when the answer comes it is durable, and [`FolderVault::tree`] shows it.
    fn commit(
        &self,
        request: CommitRequest,
    ) -> impl Future<Output = Result<Committed, CommitError>> + Send;
    /// The tree as it is now. Held for moments only.
    fn tree(&self) -> RwLockReadGuard<'_, Tree>;
    /// What is shown otherwise in the tree, from now on. Who lags walks the whole tree again.
    fn subscribe_tree(&self) -> broadcast::Receiver<Arc<Vec<Changed>>>;
    /// The rows of a synced folder, as last committed.
    fn folder_rows(&self, folder: u32) -> Result<BTreeMap<FileId, FolderRow>, CommitError>;
    /// What the brake of a synced folder holds, as last committed.
    fn folder_brakes(&self, folder: u32) -> Result<BTreeMap<FileId, BrakedFile>, CommitError>;
    /// The name of this device.
    fn device_label(&self) -> String;
    /// The name of the device that wrote `dot`.
    fn device_label_of(&self, dot: &Dot) -> String;
    /// The present contents of files, with the lists of their chunks, in the order of `files`; `None` for folders and
    /// for what is not known. Reads the database: called where blocking is allowed.
    fn file_contents(&self, files: &[FileId]) -> Result<Vec<Option<Content>>, CommitError>;
    /// Contents of `file` that were written concurrently with the present one and lost against it: the losing values
    /// of its `content` register. Asked only when a file on disk is about to be replaced. Reads the database.
    fn rival_contents(&self, file: FileId) -> Result<Vec<Content>, CommitError>;
    /// The content with this hash among all that `file` ever had, for the bytes that a remote change takes off the
    /// disk. Where it says `None` they are read again. Reads the database.
    fn past_content(&self, file: FileId, hash: &[u8; 32]) -> Result<Option<Content>, CommitError>;
}

/// What the engine needs of the blobs. [`BlobContents`] is the real one.
pub trait Contents: Send + Sync + 'static {
    /// Reads files; results in the order of the jobs.
    fn import(
        &self,
        jobs: Vec<ImportJob>,
    ) -> impl Future<Output = Vec<Result<Imported, ImportError>>> + Send;
    /// Fills temporary files and sends groups of ended jobs, durable, to `done` as it goes.
    fn write(
        &self,
        jobs: Vec<WriteJob>,
        done: mpsc::Sender<Group>,
    ) -> impl Future<Output = ()> + Send;
    /// All chunks of a content in order.
    fn expand(
        &self,
        root: &ChunkRoot,
    ) -> impl Future<Output = Result<Vec<Named>, WriteError>> + Send;
    /// Resolves when a content that was on no reachable device may have come into reach.
    fn reachable(&self) -> BoxFuture<'static, ()>;
}

/// [`Contents`] from the blobs of this device and those of the devices that are connected.
#[derive(Clone)]
pub struct BlobContents {
    /// The blobs here.
    pub blobs: Blobs,
    /// Who can be asked for others.
    pub fetch: Fetch,
}

impl Contents for BlobContents {
    async fn import(&self, jobs: Vec<ImportJob>) -> Vec<Result<Imported, ImportError>> {
        self.blobs.import(jobs).await
    }

    async fn write(&self, jobs: Vec<WriteJob>, done: mpsc::Sender<Group>) {
        let _ = self.blobs.write_files(jobs, &self.fetch, &done).await;
    }

    async fn expand(&self, root: &ChunkRoot) -> Result<Vec<Named>, WriteError> {
        self.blobs.expand(root, &self.fetch).await
    }

    fn reachable(&self) -> BoxFuture<'static, ()> {
        self.fetch.sources.changed()
    }
}

/// A synced folder: which folder on disk belongs to which folder of the vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderConfig {
    /// Its number on this device, never used again for another.
    pub number: u32,
    /// Absolute path of the folder on disk.
    pub path: PathBuf,
    /// The folder of the vault; [`FileId::ROOT`] for all of it.
    pub vault_folder: FileId,
    /// The vault, so that a folder is not taken for one of another vault.
    pub vault: VaultId,
}

/// Makes a folder on disk ready to be synced: creates it if it is not there, and its hidden `.vault/` with the marker.
/// To be called once, when a person adds the folder, before [`FolderEngine::start`]. Touches nothing else in it.
///
/// # Errors
/// [`FolderError`] when it cannot be made, or is marked as another synced folder.
pub fn prepare(config: &FolderConfig) -> Result<(), FolderError> {
    place::Place::prepare(&config.path, &marker(config)).map(drop)
}

/// Takes the hidden `.vault/` away when a person no longer wants a folder synced; the files stay. Kept contents go
/// with it, so their placements must be forgotten too.
///
/// # Errors
/// [`FolderError`] when it cannot be removed.
pub fn release(config: &FolderConfig) -> Result<(), FolderError> {
    place::Place::release(&config.path, &marker(config))
}

fn marker(config: &FolderConfig) -> place::Marker {
    place::Marker {
        number: config.number,
        vault: config.vault,
    }
}
