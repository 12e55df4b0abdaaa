//! A vault that keeps a real tree, and blobs that keep bytes in memory and share them with other devices' at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard};

use coffer_crdt::chunks::{ChunkList, ChunkRef, ChunkRoot};
use coffer_crdt::files::{Content, Dot, FileId, FileState, Kind, MergedInto, Place, Stamp, Trash};
use coffer_crdt::tree::{Changed, Tree};
use coffer_protocol::identity::Hash;
use futures::future::BoxFuture;
use tokio::sync::{Notify, broadcast, mpsc};

use super::super::{Contents, FolderVault};
use crate::blobs::placement::Placement;
use crate::blobs::{
    Group, Import, ImportError, ImportJob, Imported, Named, Rows, WriteError, WriteJob,
};
use crate::vault::request::{
    BrakedFile, CommitError, CommitRequest, Committed, ContentDraft, FolderRow, Operation,
};

/// A document: every value that its registers ever had.
#[derive(Clone)]
struct Doc {
    kind: Kind,
    place: Place,
    contents: Vec<Content>,
    superseded: BTreeSet<Dot>,
    trash: Option<Trash>,
    merged: Option<MergedInto>,
}

impl Doc {
    fn content(&self) -> Option<&Content> {
        self.contents
            .iter()
            .max_by_key(|content| (content.stamp, content.dot.writer))
    }

    fn state(&self) -> FileState {
        FileState {
            kind: self.kind,
            created_ms: 0,
            place: self.place.clone(),
            content: self.content().cloned(),
            trash: self.trash.clone(),
            merged_into: self.merged,
        }
    }

    fn merge(&mut self, other: &Doc) {
        if (other.place.stamp, other.place.dot.writer) > (self.place.stamp, self.place.dot.writer) {
            self.place = other.place.clone();
        }
        for content in &other.contents {
            if !self.contents.iter().any(|own| own.dot == content.dot) {
                self.contents.push(content.clone());
            }
        }
        self.superseded.extend(&other.superseded);
        if other
            .trash
            .as_ref()
            .map(|trash| (trash.stamp, trash.dot.writer))
            > self
                .trash
                .as_ref()
                .map(|trash| (trash.stamp, trash.dot.writer))
        {
            self.trash = other.trash.clone();
        }
        if other.merged.map(|merged| (merged.stamp, merged.dot.writer))
            > self.merged.map(|merged| (merged.stamp, merged.dot.writer))
        {
            self.merged = other.merged;
        }
    }
}

#[derive(Default)]
struct Inner {
    docs: BTreeMap<FileId, Doc>,
    clock: BTreeMap<[u8; 16], u64>,
    stamp: u64,
    rows: BTreeMap<FileId, FolderRow>,
    placements: BTreeSet<(Hash, Placement)>,
    operations: usize,
    refuse: Option<CommitError>,
    racing: Option<Arc<TestVault>>,
    brakes: BTreeMap<FileId, BrakedFile>,
}

/// A vault in memory.
pub struct TestVault {
    actor: [u8; 16],
    label: String,
    inner: Mutex<Inner>,
    tree: RwLock<Tree>,
    changes: broadcast::Sender<Arc<Vec<Changed>>>,
}

impl TestVault {
    pub fn new(number: u8) -> TestVault {
        TestVault {
            actor: [number; 16],
            label: format!("device {number}"),
            inner: Mutex::default(),
            tree: RwLock::new(Tree::new()),
            changes: broadcast::channel(1024).0,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Operations carried out so far.
    pub fn operations(&self) -> usize {
        self.inner().operations
    }

    /// The next commits fail like this.
    pub fn refuse(&self, error: Option<CommitError>) {
        self.inner().refuse = error;
    }

    pub fn rows(&self) -> BTreeMap<FileId, FolderRow> {
        self.inner().rows.clone()
    }

    pub fn kept(&self) -> usize {
        self.inner()
            .placements
            .iter()
            .filter(|(_, place)| matches!(place, Placement::Kept { .. }))
            .count()
    }

    /// Paths of everything shown, with content hashes.
    pub fn listing(&self) -> BTreeMap<String, Option<[u8; 32]>> {
        let tree = self.tree();
        let inner = self.inner();
        inner
            .docs
            .keys()
            .filter(|id| {
                tree.shown(**id)
                    .is_some_and(|shown| shown.same_as.is_none() && !shown.trashed)
            })
            .filter_map(|id| {
                Some((
                    tree.path(*id)?,
                    tree.get(*id)?.content.map(|content| content.hash),
                ))
            })
            .collect()
    }

    /// Takes in what the other one has.
    pub fn pull(&self, other: &TestVault) {
        let (docs, clock, stamp) = {
            let other = other.inner();
            (other.docs.clone(), other.clock.clone(), other.stamp)
        };
        let mut inner = self.inner();
        inner.stamp = inner.stamp.max(stamp);
        for (writer, seq) in clock {
            let known = inner.clock.entry(writer).or_insert(0);
            *known = seq.max(*known);
        }
        let mut touched = Vec::new();
        for (id, doc) in docs {
            inner
                .docs
                .entry(id)
                .and_modify(|own| own.merge(&doc))
                .or_insert(doc);
            touched.push(id);
        }
        self.show(&inner, touched);
    }

    fn show(&self, inner: &Inner, touched: impl IntoIterator<Item = FileId>) {
        let mut tree = self.tree.write().unwrap();
        for id in touched {
            tree.set(id, &inner.docs[&id].state());
        }
        let changed = tree.take_changed();
        if !changed.is_empty() {
            let _ = self.changes.send(Arc::new(changed));
        }
    }

    /// What `other` has arrives right before the next commit that gives a file new bytes.
    pub fn race(&self, other: Arc<TestVault>) {
        self.inner().racing = Some(other);
    }

    pub fn commit_now(&self, request: CommitRequest) -> Result<Committed, CommitError> {
        let sets = |operation: &Operation| matches!(operation, Operation::SetContent { .. });
        if request.operations.iter().any(sets) {
            let racing = self.inner().racing.take();
            if let Some(other) = racing {
                self.pull(&other);
            }
        }
        let mut inner = self.inner();
        if let Some(error) = &inner.refuse {
            return Err(error.clone());
        }
        for operation in &request.operations {
            if let Operation::SetContent { id, replaces, .. } = operation
                && let Some(doc) = inner.docs.get(id)
                && replaces.is_some()
                && *replaces != doc.state().content.map(|content| content.hash)
            {
                return Err(CommitError::Changed(format!("{id}")));
            }
        }
        let seq = inner.clock.get(&self.actor).copied().unwrap_or(0) + 1;
        let dot = Dot {
            writer: self.actor,
            seq,
        };
        inner.clock.insert(self.actor, seq);
        let mut touched = BTreeSet::new();
        for operation in request.operations {
            inner.operations += 1;
            inner.stamp += 1;
            let stamp = Stamp(inner.stamp);
            let content = |draft: ContentDraft| Content {
                size: draft.size,
                mtime_ms: draft.mtime_ms,
                executable: draft.executable,
                hash: draft.hash,
                target: draft.target,
                root: draft.root,
                stamp,
                dot,
            };
            let missing = |id: FileId| CommitError::NotFound(format!("{id}"));
            let clock = inner.clock.clone();
            match operation {
                Operation::CreateFile {
                    id,
                    kind,
                    parent,
                    name,
                    content: draft,
                    ..
                } => {
                    coffer_crdt::files::check_name(&name).unwrap();
                    assert!(!inner.docs.contains_key(&id), "created twice");
                    let place = Place::new(parent, name, stamp, dot, self.label.clone());
                    let contents = draft.map(content).into_iter().collect();
                    inner.docs.insert(
                        id,
                        Doc {
                            kind,
                            place,
                            contents,
                            superseded: BTreeSet::new(),
                            trash: None,
                            merged: None,
                        },
                    );
                    touched.insert(id);
                }
                Operation::MoveFile { id, parent, name } => {
                    coffer_crdt::files::check_name(&name).unwrap();
                    let doc = inner.docs.get_mut(&id).ok_or_else(|| missing(id))?;
                    doc.place = doc.place.moved(parent, name, stamp, dot, &self.label);
                    touched.insert(id);
                }
                Operation::SetContent {
                    id, content: draft, ..
                } => {
                    let doc = inner.docs.get_mut(&id).ok_or_else(|| missing(id))?;
                    doc.superseded
                        .extend(doc.contents.iter().map(|content| content.dot));
                    let mut new = content(draft);
                    // Two writes of one entry need two dots here; the real vault's registers do not.
                    new.dot.seq = seq;
                    doc.superseded.remove(&new.dot);
                    doc.contents.retain(|content| content.dot != new.dot);
                    doc.contents.push(new);
                    touched.insert(id);
                }
                Operation::TrashFile { id } => {
                    inner.docs.get_mut(&id).ok_or_else(|| missing(id))?.trash =
                        Some(Trash { clock, stamp, dot });
                    touched.insert(id);
                }
                Operation::MergeFileInto { id, into } => {
                    let doc = inner.docs.get_mut(&id).ok_or_else(|| missing(id))?;
                    doc.merged = Some(MergedInto::of(&doc.state(), into, stamp, dot));
                    touched.insert(id);
                }
                Operation::RestoreFile { id } => {
                    inner.docs.get_mut(&id).ok_or_else(|| missing(id))?.trash = None;
                    touched.insert(id);
                }
                other => panic!("not an operation of a folder: {other:?}"),
            }
        }
        for place in request.displaced {
            inner.placements.remove(&place);
        }
        inner.placements.extend(request.placements);
        for (_, id, held) in request.folder_brakes {
            match held {
                Some(held) => drop(inner.brakes.insert(id, held)),
                None => drop(inner.brakes.remove(&id)),
            }
        }
        for (_, id, row) in request.folder_rows {
            match row {
                Some(row) => drop(inner.rows.insert(id, row)),
                None => drop(inner.rows.remove(&id)),
            }
        }
        self.show(&inner, touched);
        Ok(Committed::default())
    }
}

impl FolderVault for TestVault {
    async fn commit(&self, request: CommitRequest) -> Result<Committed, CommitError> {
        self.commit_now(request)
    }

    fn tree(&self) -> RwLockReadGuard<'_, Tree> {
        self.tree.read().unwrap()
    }

    fn subscribe_tree(&self) -> broadcast::Receiver<Arc<Vec<Changed>>> {
        self.changes.subscribe()
    }

    fn folder_rows(&self, _folder: u32) -> Result<BTreeMap<FileId, FolderRow>, CommitError> {
        Ok(self.rows())
    }

    fn folder_brakes(&self, _folder: u32) -> Result<BTreeMap<FileId, BrakedFile>, CommitError> {
        Ok(self.inner().brakes.clone())
    }

    fn device_label(&self) -> String {
        self.label.clone()
    }

    fn device_label_of(&self, dot: &Dot) -> String {
        format!("device {}", dot.writer[0])
    }

    fn file_contents(&self, files: &[FileId]) -> Result<Vec<Option<Content>>, CommitError> {
        let inner = self.inner();
        Ok(files
            .iter()
            .map(|id| inner.docs.get(id).and_then(|doc| doc.content().cloned()))
            .collect())
    }

    fn rival_contents(&self, file: FileId) -> Result<Vec<Content>, CommitError> {
        let inner = self.inner();
        let Some(doc) = inner.docs.get(&file) else {
            return Ok(Vec::new());
        };
        let winner = doc.content().map(|content| content.dot);
        Ok(doc
            .contents
            .iter()
            .filter(|content| !doc.superseded.contains(&content.dot) && Some(content.dot) != winner)
            .cloned()
            .collect())
    }

    fn past_content(&self, file: FileId, hash: &[u8; 32]) -> Result<Option<Content>, CommitError> {
        Ok(self.inner().docs.get(&file).and_then(|doc| {
            doc.contents
                .iter()
                .find(|content| content.hash == *hash)
                .cloned()
        }))
    }
}

/// Bytes that all devices of a test can get.
#[derive(Default)]
pub struct Cloud {
    bytes: Mutex<BTreeMap<[u8; 32], Vec<u8>>>,
    /// Whether anything can be fetched now.
    pub offline: Mutex<bool>,
    /// Whether the next transfer ends without a word.
    pub breaks: Mutex<bool>,
    /// Contents written for someone.
    pub written: Mutex<usize>,
    came_back: Notify,
}

impl Cloud {
    pub fn set_offline(&self, offline: bool) {
        *self.offline.lock().unwrap() = offline;
        self.came_back.notify_waiters();
    }

    pub fn read(&self, path: &Path, into: Import) -> Result<Imported, ImportError> {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::symlink_metadata(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => ImportError::Vanished,
            _ => ImportError::Read(error),
        })?;
        if !metadata.is_file() {
            return Err(ImportError::NotAFile);
        }
        let bytes = std::fs::read(path).map_err(|_| ImportError::NoPermission)?;
        let hash = content_hash(&bytes);
        let (len, blob) = (bytes.len() as u32, Hash(hash));
        let mut rows = Rows::default();
        let chunks = if bytes.is_empty() {
            Vec::new()
        } else {
            vec![ChunkRef {
                id: hash,
                frame: hash,
                blob: hash,
                len,
                sealed_len: coffer_protocol::frame::sealed_len(len as usize) as u32,
                epoch: 0,
            }]
        };
        if let Import::FileBacked { root, file } = into
            && len > 0
        {
            rows.placements.push((
                blob,
                Placement::File {
                    root,
                    file,
                    offset: 0,
                    len,
                    frame: hash,
                    epoch: [0; 32],
                },
            ));
        }
        self.bytes.lock().unwrap().insert(hash, bytes);
        Ok(Imported {
            hold: Default::default(),
            size: u64::from(len),
            mtime_ns: i128::from(metadata.mtime()) * 1_000_000_000
                + i128::from(metadata.mtime_nsec()),
            ctime_ns: i128::from(metadata.ctime()) * 1_000_000_000
                + i128::from(metadata.ctime_nsec()),
            inode: metadata.ino(),
            executable: metadata.mode() & 0o100 != 0,
            hash,
            root: ChunkRoot::Inline(ChunkList {
                epochs: vec![[0; 32]],
                chunks,
            }),
            rows,
        })
    }

    pub fn get(&self, hash: &[u8; 32]) -> Option<Vec<u8>> {
        self.bytes.lock().unwrap().get(hash).cloned()
    }
}

pub fn content_hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

/// One device's way to the cloud.
#[derive(Clone, Default)]
pub struct TestContents(pub Arc<Cloud>);

impl Contents for TestContents {
    async fn import(&self, jobs: Vec<ImportJob>) -> Vec<Result<Imported, ImportError>> {
        jobs.iter()
            .map(|job| self.0.read(&job.path, job.into))
            .collect()
    }

    async fn write(&self, jobs: Vec<WriteJob>, done: mpsc::Sender<Group>) {
        if std::mem::take(&mut *self.0.breaks.lock().unwrap()) {
            return;
        }
        let mut group = Group::default();
        for job in jobs {
            let result = match self.0.get(&job.hash) {
                Some(bytes) if !*self.0.offline.lock().unwrap() => {
                    *self.0.written.lock().unwrap() += 1;
                    std::fs::write(&job.temp, bytes)
                        .map(|()| Rows::default())
                        .map_err(WriteError::Write)
                }
                _ => Err(WriteError::Unavailable { missing: 1 }),
            };
            group.jobs.push((job.key, result));
        }
        let _ = done.send(group).await;
    }

    async fn expand(&self, _root: &ChunkRoot) -> Result<Vec<Named>, WriteError> {
        Err(WriteError::Unavailable { missing: 1 })
    }

    fn reachable(&self) -> BoxFuture<'static, ()> {
        let cloud = self.0.clone();
        Box::pin(async move { cloud.came_back.notified().await })
    }
}
