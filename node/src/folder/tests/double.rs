//! A vault that keeps a real tree, and every value that its registers ever had.

mod asked;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use coffer_crdt::files::{
    Content, Dot, FileId, FileState, Kind, MergedInto, Place, Purge, Stamp, Times, Trash,
};
use coffer_crdt::tree::{Changed, Tree};
use coffer_protocol::identity::Hash;
use tokio::sync::broadcast;

use super::super::FolderVault;
use crate::blobs::placement::Placement;
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
    undone: BTreeSet<(Dot, Stamp)>,
    deletions: Vec<Trash>,
    merged: Option<MergedInto>,
    purge: Option<Purge>,
    times: Vec<Times>,
}

impl Doc {
    fn new(kind: Kind, place: Place, content: Option<Content>) -> Doc {
        coffer_crdt::files::check_name(&place.name).unwrap();
        Doc {
            kind,
            place,
            contents: content.into_iter().collect(),
            superseded: BTreeSet::new(),
            undone: BTreeSet::new(),
            deletions: Vec::new(),
            merged: None,
            purge: None,
            times: Vec::new(),
        }
    }

    /// The latest deletion or restoration, and in case of a deletion those that were made at the same time.
    fn trash(&self) -> (Option<Trash>, Vec<Trash>) {
        let live = self.deletions.iter();
        let mut live: Vec<Trash> = live
            .filter(|trash| !self.superseded_trash(trash))
            .cloned()
            .collect();
        live.sort_by_key(|trash| Reverse((trash.stamp, trash.dot.writer)));
        let mut live = live.into_iter();
        let latest = live.next();
        let deletions = live.filter(|trash| !trash.is_restored());
        match &latest {
            Some(latest) if !latest.is_restored() => (Some(latest.clone()), deletions.collect()),
            _ => (latest, Vec::new()),
        }
    }

    fn superseded_trash(&self, trash: &Trash) -> bool {
        self.undone.contains(&(trash.dot, trash.stamp))
    }

    /// Deletes or restores, by somebody who sees all that is known here.
    fn set_trash(&mut self, trash: Trash) {
        let known = self.deletions.iter();
        self.undone
            .extend(known.map(|trash| (trash.dot, trash.stamp)));
        self.deletions.push(trash);
    }

    fn content(&self) -> Option<&Content> {
        self.contents
            .iter()
            .max_by_key(|content| (content.stamp, content.dot.writer))
    }

    /// The content with the time that was set to it.
    fn timed(&self) -> Option<Content> {
        let content = self.content()?;
        let mtime_ms = Times::among(&self.times, content).unwrap_or(content.mtime_ms);
        Some(Content {
            mtime_ms,
            ..content.clone()
        })
    }

    fn state(&self) -> FileState {
        let (trash, also_deleted) = self.trash();
        FileState {
            kind: self.kind,
            created_ms: 0,
            place: self.place.clone(),
            content: self.timed(),
            trash,
            also_deleted,
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
        for trash in &other.deletions {
            if !self.deletions.contains(trash) {
                self.deletions.push(trash.clone());
            }
        }
        self.undone.extend(&other.undone);
        let news = other.times.iter().filter(|it| !self.times.contains(it));
        self.times.extend(news.copied().collect::<Vec<_>>());
        if other.merged.map(|merged| (merged.stamp, merged.dot.writer))
            > self.merged.map(|merged| (merged.stamp, merged.dot.writer))
        {
            self.merged = other.merged;
        }
        let written = |purge: &Option<Purge>| purge.as_ref().map(|it| (it.stamp, it.dot.writer));
        if written(&other.purge) > written(&self.purge) {
            self.purge = other.purge.clone();
        }
    }
}

/// What one commit changed, for other devices: each document as it was then.
#[derive(Clone)]
struct Entry {
    /// What its author had of others.
    seen: BTreeMap<[u8; 16], u64>,
    stamp: u64,
    docs: Vec<(FileId, Doc)>,
}

#[derive(Default)]
struct Inner {
    docs: BTreeMap<FileId, Doc>,
    clock: BTreeMap<[u8; 16], u64>,
    /// All entries, by writer.
    logs: BTreeMap<[u8; 16], Vec<Arc<Entry>>>,
    /// Wall clock in milliseconds, if this device has one.
    wall_ms: i64,
    stamp: u64,
    rows: BTreeMap<FileId, FolderRow>,
    placements: BTreeSet<(Hash, Placement)>,
    operations: usize,
    refuse: Option<CommitError>,
    racing: Option<Arc<TestVault>>,
    brakes: BTreeMap<FileId, BrakedFile>,
    outdone: BTreeSet<(FileId, [u8; 32])>,
    /// Hash and inode of what came to be the disk's file of one that the vault had already, with these bytes.
    adopted: BTreeSet<([u8; 32], u64)>,
}

/// Contents that lost against the present one.
fn rivals(doc: &Doc) -> impl Iterator<Item = &Content> {
    let winner = doc.content().map(|content| content.dot);
    let all = doc.contents.iter();
    all.filter(move |content| !doc.superseded.contains(&content.dot) && Some(content.dot) != winner)
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

    /// To be locked after the tree by who needs both.
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

    /// The modification times of all files shown, by path.
    pub fn times(&self) -> BTreeMap<String, i64> {
        let (ids, tree) = (self.ids(), self.tree());
        let shown = ids.into_iter().filter(|id| {
            let shown = tree.shown(*id);
            shown.is_some_and(|shown| shown.same_as.is_none() && shown.kind == Kind::File)
        });
        shown
            .filter_map(|id| Some((tree.path(id)?, tree.get(id)?.content?.mtime_ms)))
            .collect()
    }

    /// Sets the wall clock.
    pub fn set_wall_ms(&self, wall_ms: i64) {
        self.inner().wall_ms = wall_ms;
    }

    /// Where a blob's bytes are said to be.
    pub fn places_of(&self, blob: &[u8; 32]) -> Vec<Placement> {
        let inner = self.inner();
        let places = inner.placements.iter();
        places
            .filter(|(named, _)| named.0 == *blob)
            .map(|(_, place)| place.clone())
            .collect()
    }

    /// Whether two files that both had these bytes became one.
    pub fn became_one(&self, hash: &[u8; 32]) -> bool {
        let inner = self.inner();
        let had = |doc: &Doc| doc.contents.iter().any(|content| content.hash == *hash);
        inner.docs.values().any(|doc| {
            let into = doc.merged.and_then(|merged| inner.docs.get(&merged.into));
            had(doc) && into.is_some_and(had)
        })
    }

    /// Whether a file on disk with these bytes was taken for one that the vault had with them.
    pub fn adopted(&self, hash: &[u8; 32], inode: u64) -> bool {
        self.inner().adopted.contains(&(*hash, inode))
    }

    /// What is in the trash and could be taken out of it.
    pub fn trashed(&self) -> Vec<FileId> {
        let (tree, inner) = (self.tree(), self.inner());
        let docs = inner.docs.iter().filter(|(id, doc)| {
            doc.state().deletions().next().is_some()
                && doc.merged.is_none()
                && !tree.is_purged(**id)
        });
        docs.map(|(id, _)| *id).collect()
    }

    /// All files and folders that it ever heard of.
    pub fn ids(&self) -> Vec<FileId> {
        self.inner().docs.keys().copied().collect()
    }

    /// Takes in what the other one has.
    pub fn pull(&self, other: &TestVault) {
        self.pull_some(other, usize::MAX);
    }

    /// Takes in at most so many entries of each writer, in their order; none before what its author had seen.
    pub fn pull_some(&self, other: &TestVault, limit: usize) {
        let theirs: Vec<([u8; 16], Vec<Arc<Entry>>)> = {
            let own: BTreeMap<[u8; 16], usize> = {
                let inner = self.inner();
                let logs = inner.logs.iter();
                logs.map(|(writer, log)| (*writer, log.len())).collect()
            };
            let other = other.inner();
            let news = other.logs.iter().map(|(writer, log)| {
                let known = own.get(writer).copied().unwrap_or(0).min(log.len());
                (*writer, log[known..].iter().take(limit).cloned().collect())
            });
            news.collect()
        };
        let mut waiting: Vec<_> = theirs
            .into_iter()
            .map(|(writer, log)| (writer, log.into_iter()))
            .map(|(writer, log)| (writer, log.peekable()))
            .collect();
        let mut tree = self.tree.write().unwrap();
        let mut inner = self.inner();
        let mut touched = BTreeSet::new();
        loop {
            let mut any = false;
            for (writer, log) in &mut waiting {
                let covered = |entry: &Arc<Entry>| {
                    let mut seen = entry.seen.iter();
                    seen.all(|(of, seq)| of == writer || inner.clock.get(of) >= Some(seq))
                };
                let Some(entry) = log.next_if(covered) else {
                    continue;
                };
                any = true;
                inner.stamp = inner.stamp.max(entry.stamp);
                *inner.clock.entry(*writer).or_insert(0) += 1;
                for (id, doc) in &entry.docs {
                    inner
                        .docs
                        .entry(*id)
                        .and_modify(|own| own.merge(doc))
                        .or_insert_with(|| doc.clone());
                    touched.insert(*id);
                }
                inner.logs.entry(*writer).or_default().push(entry);
            }
            if !any {
                break;
            }
        }
        let lost = |id: &FileId| {
            let rivals = rivals(&inner.docs[id]);
            let own = rivals.filter(|content| content.dot.writer == self.actor);
            own.map(|content| (*id, content.hash)).collect::<Vec<_>>()
        };
        let outdone: Vec<_> = touched.iter().flat_map(lost).collect();
        inner.outdone.extend(outdone);
        self.show(&mut tree, &inner, touched);
    }

    /// Contents that were written here and lost, and are not on this disk.
    pub fn take_outdone(&self) -> BTreeSet<(FileId, [u8; 32])> {
        let mut inner = self.inner();
        let mut outdone = std::mem::take(&mut inner.outdone);
        outdone.retain(|(id, hash)| inner.rows.get(id).is_none_or(|row| row.hash != *hash));
        outdone
    }

    fn show(&self, tree: &mut Tree, inner: &Inner, touched: impl IntoIterator<Item = FileId>) {
        for id in touched {
            let doc = &inner.docs[&id];
            tree.set(id, &doc.state());
            tree.set_purge(id, doc.purge.clone());
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
        let mut tree = self.tree.write().unwrap();
        let mut inner = self.inner();
        if let Some(error) = &inner.refuse {
            return Err(error.clone());
        }
        for operation in &request.operations {
            let (id, expected) = match operation {
                Operation::SetContent { id, replaces, .. } => (id, *replaces),
                Operation::SetTime { id, of, .. } => (id, Some(*of)),
                _ => continue,
            };
            if let Some(doc) = inner.docs.get(id)
                && expected.is_some()
                && expected != doc.content().map(|content| content.hash)
            {
                return Err(CommitError::Changed(format!("{id}")));
            }
        }
        let seen = inner.clock.clone();
        let seq = seen.get(&self.actor).copied().unwrap_or(0) + 1;
        let dot = Dot {
            writer: self.actor,
            seq,
        };
        if !request.operations.is_empty() {
            inner.clock.insert(self.actor, seq);
        }
        let mut touched = BTreeSet::new();
        for operation in request.operations {
            inner.operations += 1;
            inner.stamp = (inner.stamp + 1).max(Stamp::from_ms(inner.wall_ms).0);
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
                    let place = Place::new(parent, name, stamp, dot, self.label.clone());
                    let doc = Doc::new(kind, place, draft.map(content));
                    assert!(inner.docs.insert(id, doc).is_none(), "created twice");
                    touched.insert(id);
                }
                Operation::CreateCopy {
                    id,
                    parent,
                    name,
                    content: draft,
                    written,
                    ..
                } => {
                    let place = Place::new(parent, name, stamp, dot, self.label.clone());
                    let kind = draft.kind();
                    let content = Content {
                        stamp: written,
                        ..content(draft)
                    };
                    let doc = Doc::new(kind, place, Some(content));
                    assert!(inner.docs.insert(id, doc).is_none(), "created twice");
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
                Operation::SetTime { id, mtime_ms, of } => {
                    let doc = inner.docs.get_mut(&id).ok_or_else(|| missing(id))?;
                    let content = doc.content().filter(|content| content.hash == of);
                    let content = content.ok_or_else(|| CommitError::Changed(format!("{id}")))?;
                    let before = doc.times.iter().map(|times| times.stamp).max();
                    let times = Times {
                        mtime_ms,
                        content: content.version(),
                        stamp: stamp.max(before.unwrap_or_default().next()),
                        dot,
                    };
                    doc.times.push(times);
                    touched.insert(id);
                }
                Operation::TrashFile { id } => {
                    let doc = inner.docs.get_mut(&id).ok_or_else(|| missing(id))?;
                    doc.set_trash(Trash { clock, stamp, dot });
                    touched.insert(id);
                }
                Operation::RestoreFile { id } => {
                    let doc = inner.docs.get_mut(&id).ok_or_else(|| missing(id))?;
                    doc.set_trash(Trash::restored(stamp, dot));
                    touched.insert(id);
                }
                Operation::PurgeFile { id } => {
                    let doc = inner.docs.get_mut(&id).ok_or_else(|| missing(id))?;
                    doc.purge = Some(Purge { clock, stamp, dot });
                    touched.insert(id);
                }
                Operation::MergeFileInto { id, into } => {
                    let doc = inner.docs.get_mut(&id).ok_or_else(|| missing(id))?;
                    doc.merged = Some(MergedInto::of(&doc.state(), into, stamp, dot));
                    touched.insert(id);
                }
                other => panic!("not an operation of a folder: {other:?}"),
            }
        }
        if !touched.is_empty() {
            let docs = touched.iter().map(|id| (*id, inner.docs[id].clone()));
            let entry = Entry {
                seen,
                stamp: inner.stamp,
                docs: docs.collect(),
            };
            inner
                .logs
                .entry(self.actor)
                .or_default()
                .push(Arc::new(entry));
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
                Some(row) => {
                    let known = inner.docs.get(&id).filter(|_| !touched.contains(&id));
                    let is_known = known.is_some_and(|doc| {
                        doc.contents.iter().any(|content| content.hash == row.hash)
                    });
                    if is_known && !inner.rows.contains_key(&id) {
                        inner.adopted.insert((row.hash, row.inode));
                    }
                    inner.rows.insert(id, row);
                }
                None => drop(inner.rows.remove(&id)),
            }
        }
        self.show(&mut tree, &inner, touched);
        Ok(Committed::default())
    }
}
