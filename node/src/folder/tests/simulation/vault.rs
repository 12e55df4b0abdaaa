//! The vault of a device: the double's, behind a power switch.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLockReadGuard};

use coffer_crdt::files::{Content, Dot, FileId};
use coffer_crdt::tree::{Changed, Tree};
use tokio::sync::broadcast;

use super::super::super::FolderVault;
use super::super::super::sparing::keep_outdone;
use super::super::double::TestVault;
use super::power::Power;
use super::run::Log;
use super::time::Clock;
use crate::vault::request::{
    BrakedFile, CommitError, CommitRequest, Committed, FolderRow, Operation,
};

/// A vault that loses power with its device. What it answered is durable.
pub struct SimVault {
    pub inner: TestVault,
    pub full: AtomicBool,
    /// Bytes in the store of the vault, which are durable: what was written past the folder.
    stored: Mutex<BTreeMap<[u8; 32], Arc<Vec<u8>>>>,
    index: usize,
    power: Arc<Power>,
    clock: Arc<Clock>,
    log: Arc<Log>,
}

impl SimVault {
    pub fn new(index: usize, power: Arc<Power>, clock: Arc<Clock>, log: Arc<Log>) -> SimVault {
        SimVault {
            inner: TestVault::new(index as u8 + 1),
            full: AtomicBool::new(false),
            stored: Mutex::default(),
            index,
            power,
            clock,
            log,
        }
    }

    /// Takes bytes into the vault's own store.
    pub fn store(&self, hash: [u8; 32], bytes: Vec<u8>) {
        self.stored.lock().unwrap().insert(hash, Arc::new(bytes));
    }

    /// Bytes in the vault's own store.
    pub fn stored(&self, hash: &[u8; 32]) -> Option<Arc<Vec<u8>>> {
        self.stored.lock().unwrap().get(hash).cloned()
    }

    pub fn wall_ms(&self) -> i64 {
        self.clock.wall_ms()
    }

    /// Takes in at most so many entries of each writer, and sees to what was written here and lost, as a node does.
    pub fn pull(&self, other: &SimVault, limit: usize) {
        self.inner.pull_some(&other.inner, limit);
        if self.full.load(Ordering::Relaxed) {
            return;
        }
        let outdone = self.inner.take_outdone();
        let kept = keep_outdone(self, &outdone, self.wall_ms()).unwrap();
        if !kept.operations.is_empty() {
            self.log.hit("edit of the vault", "copy of what lost");
            self.log.event(|| {
                format!(
                    "device {} vault keeps {} that lost",
                    self.index,
                    outdone.len()
                )
            });
            self.person(kept.operations);
        }
    }

    /// A person's request, without any engine.
    pub fn person(&self, operations: Vec<Operation>) {
        self.inner.set_wall_ms(self.clock.wall_ms());
        let request = CommitRequest {
            operations,
            ..CommitRequest::default()
        };
        self.inner.commit_now(request).unwrap();
    }

    fn tell(&self, request: &CommitRequest) {
        for operation in &request.operations {
            let short = |id: &FileId| format!("{}{}", id.0[0], hex::encode(&id.0[14..]));
            self.log.event(|| {
                let what = match operation {
                    Operation::CreateFile {
                        id,
                        parent,
                        name,
                        kind,
                        ..
                    } => {
                        self.log.hit("vault operation", "create");
                        format!(
                            "create {kind:?} {} in {} as {name:?}",
                            short(id),
                            short(parent)
                        )
                    }
                    Operation::CreateCopy {
                        id, parent, name, ..
                    } => {
                        self.log.hit("vault operation", "copy");
                        format!("copy {} in {} as {name:?}", short(id), short(parent))
                    }
                    Operation::MoveFile { id, parent, name } => {
                        self.log.hit("vault operation", "move");
                        format!("move {} to {} as {name:?}", short(id), short(parent))
                    }
                    Operation::SetContent { id, content, .. } => {
                        self.log.hit("vault operation", "content");
                        let hash = hex::encode(&content.hash[..3]);
                        format!("content of {} is {hash}, {} bytes", short(id), content.size)
                    }
                    Operation::TrashFile { id } => {
                        self.log.hit("vault operation", "trash");
                        format!("trash {}", short(id))
                    }
                    Operation::MergeFileInto { id, into } => {
                        self.log.hit("vault operation", "merge");
                        format!("merge {} into {}", short(id), short(into))
                    }
                    _ => "something else".to_owned(),
                };
                format!("device {} vault: {what}", self.index)
            });
        }
        for (_, id, row) in &request.folder_rows {
            self.log.event(|| {
                let id = format!("{}{}", id.0[0], hex::encode(&id.0[14..]));
                let row = row.as_ref().map(|row| (&row.name, row.inode, row.size));
                format!("device {} row of {id}: {row:?}", self.index)
            });
        }
    }
}

impl FolderVault for SimVault {
    async fn commit(&self, request: CommitRequest) -> Result<Committed, CommitError> {
        if !self.power.step("commit to the vault") {
            return Err(CommitError::Stopping);
        }
        if self.full.load(Ordering::Relaxed) {
            return Err(CommitError::DiskFull);
        }
        self.tell(&request);
        self.inner.set_wall_ms(self.clock.wall_ms());
        let done = self.inner.commit_now(request);
        if !self.power.step("answer of a commit") {
            return Err(CommitError::Stopping);
        }
        done
    }

    fn tree(&self) -> RwLockReadGuard<'_, Tree> {
        self.inner.tree()
    }

    fn subscribe_tree(&self) -> broadcast::Receiver<Arc<Vec<Changed>>> {
        self.inner.subscribe_tree()
    }

    fn folder_rows(&self, folder: u32) -> Result<BTreeMap<FileId, FolderRow>, CommitError> {
        self.inner.folder_rows(folder)
    }

    fn folder_brakes(&self, folder: u32) -> Result<BTreeMap<FileId, BrakedFile>, CommitError> {
        self.inner.folder_brakes(folder)
    }

    fn device_label(&self) -> String {
        self.inner.device_label()
    }

    fn device_label_of(&self, dot: &Dot) -> String {
        self.inner.device_label_of(dot)
    }

    fn file_contents(&self, files: &[FileId]) -> Result<Vec<Option<Content>>, CommitError> {
        self.inner.file_contents(files)
    }

    fn rival_contents(&self, file: FileId) -> Result<Vec<Content>, CommitError> {
        self.inner.rival_contents(file)
    }

    fn past_content(&self, file: FileId, hash: &[u8; 32]) -> Result<Option<Content>, CommitError> {
        self.inner.past_content(file, hash)
    }
}
