//! One attempt at a batch: what happens inside the transaction.
//!
//! Both paths by which a change gets into a document meet here: what this device's people and folders do (`local.rs`)
//! and what other devices' entries bring (`remote.rs`). Nothing outside of the transaction is touched but the core's
//! [`State`](super::state::State) and document cache, which the caller puts back if the attempt fails.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coffer_crdt::chunks::ChunkRoot;
use coffer_crdt::document::Document;
use coffer_crdt::files::{FileId, FileState};
use coffer_protocol::held::Held;
use coffer_protocol::identity::{DeviceId, EpochId, Hash};
use coffer_protocol::log::{self, Body, Change, Clock};
use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

use super::batch::Done;
use super::core::{Core, Ticket};
use super::request::Committed;
use crate::store::documents::{DocumentKey, DocumentTables, Row};
use crate::store::logs::LogTables;
use crate::store::ranges::RangeTables;
use crate::store::{StoreError, pieces, records, tables};

/// Doctype of files and folders.
pub const FILES: &str = "io.cozy.files";
/// An entry is closed when its changes hold this many bytes: it then travels while the next is made.
const ENTRY_BYTES: usize = 512 * 1024;
/// Or this many changes, so that one entry never takes long to apply.
const ENTRY_CHANGES: usize = 4096;
/// Missing files that a held statement names one by one; past that it gives their number.
pub const HELD_EXCEPTIONS: usize = 64;

/// The tables and what the attempt has gathered so far.
pub(super) struct Work<'c, 't> {
    pub core: &'c mut Core,
    pub transaction: &'t WriteTransaction,
    pub now_ms: u64,
    pub documents: DocumentTables<'t>,
    pub logs: LogTables<'t>,
    pub ranges: RangeTables<'t>,
    pub meta: records::Meta<'t>,
    pub grants: Table<'t, &'static [u8; 34], &'static [u8]>,
    pub held: Table<'t, &'static [u8; 34], &'static [u8]>,
    pub named: Table<'t, &'static [u8; 36], &'static [u8]>,
    pub purged: Table<'t, &'static [u8; 32], &'static [u8]>,
    pub wanted: Table<'t, &'static [u8; 16], &'static [u8; 40]>,
    pub files: Table<'t, &'static [u8; 18], &'static [u8]>,
    pub folder_rows: Table<'t, &'static [u8; 20], &'static [u8]>,
    pub folder_brakes: Table<'t, &'static [u8; 20], &'static [u8]>,
    pub folders: Table<'t, u32, &'static [u8]>,
    pub addresses: Table<'t, &'static [u8; 32], &'static [u8]>,
    pub(super) feed: Table<'t, &'static [u8; 12], &'static [u8; 32]>,
    /// Changes made here that no entry holds yet.
    body: Body,
    body_bytes: usize,
    pub(super) touched: BTreeMap<DocumentKey, (String, String)>,
    changed_files: BTreeMap<FileId, FileState>,
    /// What the newest own statement says of chunks, once it was asked for.
    pub covered: Option<BTreeMap<[u8; 16], u64>>,
    /// Contents were dropped: the statement of what is left belongs to the same transaction.
    pub evicted: bool,
    pub done: Done,
}

impl<'c, 't> Work<'c, 't> {
    pub fn open(
        core: &'c mut Core,
        transaction: &'t WriteTransaction,
        now_ms: u64,
    ) -> Result<Self, StoreError> {
        Ok(Work {
            core,
            now_ms,
            documents: DocumentTables::open(transaction)?,
            logs: LogTables::open(transaction)?,
            ranges: RangeTables::open(transaction)?,
            meta: transaction.open_table(tables::META)?,
            grants: transaction.open_table(tables::GRANTS)?,
            held: transaction.open_table(tables::HELD)?,
            named: transaction.open_table(tables::NAMED)?,
            purged: transaction.open_table(tables::PURGED_DOCUMENTS)?,
            wanted: transaction.open_table(tables::WANTED)?,
            files: transaction.open_table(tables::FILES)?,
            folder_rows: transaction.open_table(tables::FOLDER_ROWS)?,
            folder_brakes: transaction.open_table(tables::FOLDER_BRAKES)?,
            folders: transaction.open_table(tables::FOLDERS)?,
            addresses: transaction.open_table(tables::ADDRESSES)?,
            transaction,
            feed: transaction.open_table(tables::FEED)?,
            body: Body::default(),
            body_bytes: 0,
            touched: BTreeMap::new(),
            changed_files: BTreeMap::new(),
            covered: None,
            evicted: false,
            done: Done::default(),
        })
    }

    /// The wall clock in Automerge's type.
    pub fn wall_ms(&self) -> i64 {
        i64::try_from(self.now_ms).unwrap_or(i64::MAX)
    }

    /// The seq that changes made now will travel under.
    pub fn next_seq(&self) -> u64 {
        self.core.state.clock.seq(&self.core.state.writer) + 1
    }

    /// The document behind `row`, from the cache where it is there. Give it back with [`Work::keep`].
    pub fn load(&mut self, key: DocumentKey, row: &Row) -> Result<Document, StoreError> {
        match self.core.cache.take(key) {
            Some(document) => Ok(document),
            None => self.documents.load(key, row),
        }
    }

    /// Keeps a loaded document for the next change to it.
    pub fn keep(&mut self, key: DocumentKey, document: Document) {
        self.core.cache.put(key, document);
    }

    /// Adds a change that this device made to its document and to the entry under way.
    pub fn append_local(
        &mut self,
        key: DocumentKey,
        row: Row,
        bytes: Vec<u8>,
        state: Option<&mut Document>,
    ) -> Result<Row, StoreError> {
        let row = self.append(key, row, &bytes, state)?;
        self.body_bytes += bytes.len() + row.doctype.len() + row.id.len();
        self.body.changes.push(Change {
            doctype: row.doctype.clone(),
            id: row.id.clone(),
            bytes,
        });
        if self.body_bytes >= ENTRY_BYTES || self.body.changes.len() >= ENTRY_CHANGES {
            self.close_entry()?;
        }
        Ok(row)
    }

    /// Adds a change to its document; what derives from it follows with [`Work::derive`].
    pub fn append(
        &mut self,
        key: DocumentKey,
        row: Row,
        bytes: &[u8],
        state: Option<&mut Document>,
    ) -> Result<Row, StoreError> {
        let row = self.documents.append(key, row, bytes, state)?;
        self.touched
            .entry(key)
            .or_insert_with(|| (row.doctype.clone(), row.id.clone()));
        self.done.wrote = true;
        Ok(row)
    }

    /// What derives from a document is derived anew.
    pub fn touch(&mut self, key: DocumentKey, doctype: &str, id: &str) {
        let name = || (doctype.to_owned(), id.to_owned());
        self.touched.entry(key).or_insert_with(name);
        self.done.wrote = true;
    }

    /// Puts the deletion mark right after changes with `document` loaded.
    pub fn mark_deleted(
        &mut self,
        key: DocumentKey,
        mut row: Row,
        deleted: bool,
    ) -> Result<Row, StoreError> {
        if row.deleted != deleted {
            row.deleted = deleted;
            self.documents.write_row(key, &row)?;
        }
        Ok(row)
    }

    /// Records the new state of a file document, and whether its bytes are here.
    pub fn set_file(
        &mut self,
        id: FileId,
        state: FileState,
        local: bool,
    ) -> Result<(), StoreError> {
        let bytes = state
            .to_record()
            .map_err(|_| StoreError::Damaged("the state of a file could not be encoded".into()))?;
        let key = file_key(id);
        // A file that was moved has the bytes that it had, and lacks those that it lacked.
        let moved = !local
            && self
                .file(id)?
                .is_some_and(|before| same_bytes(&before, &state));
        pieces::remove(&mut self.files, &key)?;
        pieces::write(&mut self.files, &key, &bytes)?;
        let now = self.wall_ms();
        self.core.state.hlc.observe(state.place.stamp, now);
        if let Some(content) = &state.content {
            self.core.state.hlc.observe(content.stamp, now);
        }
        if !local && !moved {
            self.want(id, &state)?;
        }
        self.changed_files.insert(id, state);
        Ok(())
    }

    /// The state of a file as this transaction sees it.
    pub fn file(&self, id: FileId) -> Result<Option<FileState>, StoreError> {
        if let Some(state) = self.changed_files.get(&id) {
            return Ok(Some(state.clone()));
        }
        pieces::read(&self.files, &file_key(id))?
            .map(|bytes| {
                FileState::from_record(&bytes)
                    .map_err(|_| StoreError::Damaged("the state of a file cannot be read".into()))
            })
            .transpose()
    }

    /// Every file and its state: for checks after damage.
    pub fn all_files(&self) -> Result<Vec<(FileId, FileState)>, StoreError> {
        let mut all = Vec::new();
        for item in self.files.iter()? {
            let key = *item?.0.value();
            let mut id = FileId([0; 16]);
            id.0.copy_from_slice(&key[..16]);
            if key[16..] == [0, 0]
                && let Some(state) = self.file(id)?
            {
                all.push((id, state));
            }
        }
        Ok(all)
    }

    /// Notes that bytes of `state` must be fetched, or no longer.
    pub fn want(&mut self, id: FileId, state: &FileState) -> Result<(), StoreError> {
        let wanted = match &state.content {
            // A deletion that had not seen this content does not reach it: it is shown, and so wanted.
            Some(content) if !state.is_in_trash() && !self.holds(&content.root)? => Some(content),
            _ => None,
        };
        match wanted {
            Some(content) => {
                let mut value = [0; 40];
                value[..32].copy_from_slice(&content.hash);
                value[32..].copy_from_slice(&content.size.to_be_bytes());
                let known = self.wanted.insert(&id.0, &value)?.is_some();
                self.core.state.wanted_stated &= known;
                self.lose(id, &content.dot);
            }
            None => return self.unwant(id),
        }
        self.done.wanted_changed = true;
        Ok(())
    }

    /// Whether every byte of a content is known to be here: for a list of lists only a transfer can tell.
    fn holds(&self, root: &ChunkRoot) -> Result<bool, StoreError> {
        let ChunkRoot::Inline(list) = root else {
            return Ok(false);
        };
        let table = self.transaction.open_table(tables::PLACEMENT)?;
        for chunk in &list.chunks {
            if table.get(&chunk.blob)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Notes that a file's bytes need not be fetched.
    pub fn unwant(&mut self, id: FileId) -> Result<(), StoreError> {
        let known = self.wanted.remove(&id.0)?.is_some();
        self.core.state.wanted_stated &= !known;
        if let Some(lost) = &mut self.core.state.lost
            && lost.contains(&id)
        {
            Arc::make_mut(lost).remove(&id);
        }
        self.done.wanted_changed = true;
        Ok(())
    }

    /// Notes that a content is held whole now; a newer one that came meanwhile stays wanted.
    pub fn got(&mut self, id: FileId, hash: [u8; 32]) -> Result<(), StoreError> {
        let is_it = self
            .wanted
            .get(&id.0)?
            .is_some_and(|value| value.value()[..32] == hash);
        if is_it {
            self.unwant(id)?;
            self.done.arrived.push(id);
            self.done.wrote = true;
        }
        Ok(())
    }

    /// Seals the changes gathered so far into the next entry of this device's log.
    pub fn close_entry(&mut self) -> Result<(), StoreError> {
        if self.body.changes.is_empty() {
            return Ok(());
        }
        let body = std::mem::take(&mut self.body);
        self.body_bytes = 0;
        let epoch = self.core.state.sealing_epoch().ok_or_else(|| {
            StoreError::Damaged("changes were made without a key to write them under".into())
        })?;
        self.seal(body, epoch)
    }

    /// Seals the next entry of this device's log.
    pub(super) fn seal(&mut self, mut body: Body, epoch: EpochId) -> Result<(), StoreError> {
        let state = &mut self.core.state;
        body.clock = state.clock.clone();
        let key = state
            .keyring
            .epoch(&epoch)
            .ok_or_else(|| StoreError::Damaged("the key to write under is missing".into()))?;
        let (seq, previous) = state.clock.get(&state.writer).unwrap_or((0, Hash::ZERO));
        let heads = state.membership.parents();
        let params = log::EntryParams {
            vault: state.vault,
            space: state.keyring.space(),
            writer: state.writer,
            seq: seq + 1,
            prev: previous,
            grant_heads: &heads,
        };
        let entry = log::seal_entry(
            &self.core.identity.key,
            &params,
            &body,
            key,
            &mut *self.core.rng,
        )
        .map_err(|error| StoreError::Damaged(format!("an entry could not be sealed: {error}")))?;
        let hash = entry.header_hash();
        self.logs
            .append(state.writer, seq + 1, hash, &entry.encode())?;
        state.clock.observe(state.writer, seq + 1, hash);
        self.done.appended.push((None, state.writer, seq + 1, hash));
        self.done.wrote = true;
        Ok(())
    }

    /// Says anew what this device holds, where that has changed.
    pub fn state_held(&mut self) -> Result<(), StoreError> {
        self.close_entry()?;
        self.core.state.wanted = self.wanted.len()?;
        if !self.core.held_is_stale() {
            return Ok(());
        }
        let Some(epoch) = self.core.state.sealing_epoch() else {
            return Ok(());
        };
        let awaited = self.awaited()?;
        let state = &self.core.state;
        let before = state.own_held.as_ref().map(|(held, _)| held);
        // Few are named, and all else is held. Of many, contents up to where the last statement stood are held, but for
        // those lost since; where those are many too, nothing is said to be held.
        let (chunks, lost) = if state.wanted <= HELD_EXCEPTIONS as u64 {
            let mut lost = BTreeSet::new();
            for item in self.wanted.iter()? {
                lost.insert(FileId(*item?.0.value()));
            }
            (state.clock.clone(), Arc::new(lost))
        } else {
            match (before, &state.lost) {
                (Some(before), Some(lost)) => (before.chunks.clone(), lost.clone()),
                _ => (Clock::new(), Arc::default()),
            }
        };
        let counter = before.map_or(0, |held| held.counter).max(self.now_ms) + 1;
        let pinned = state.keeps_everything();
        let held = Held {
            device: self.core.identity.key.id(),
            counter,
            entries: state.clock.clone(),
            chunks,
            exceptions: lost.iter().map(FileId::to_string).collect(),
            more_missing: state.wanted.saturating_sub(lost.len() as u64),
            pinned,
            unpinned_since: match (pinned, before.filter(|_| state.announced)) {
                (true, _) => 0,
                (false, Some(before)) => before.unpinned_since,
                (false, None) => counter,
            },
            awaited,
            seen: state.seen(),
            at_ms: self.now_ms,
        };
        let bytes = held
            .seal(
                &self.core.identity.key,
                state.vault,
                state.keyring.space(),
                state
                    .keyring
                    .epoch(&epoch)
                    .unwrap_or(state.keyring.current()),
                &mut *self.core.rng,
            )
            .map_err(|error| {
                StoreError::Damaged(format!("a statement could not be sealed: {error}"))
            })?;
        let bytes = bytes.bytes().to_vec();
        self.write_held(held.device, &bytes)?;
        let state = &mut self.core.state;
        state.own_held = Some((held, bytes.clone()));
        state.wanted_stated = true;
        state.announced = !pinned;
        state.lost = Some(lost);
        self.covered = None;
        // Where files of this very transaction stand is known only after it.
        state.restate = awaited > 0 && !self.changed_files.is_empty();
        self.done.own_held = Some(bytes);
        self.done.held_changed = true;
        Ok(())
    }

    pub fn write_held(&mut self, device: DeviceId, bytes: &[u8]) -> Result<(), StoreError> {
        let mut key = [0; 34];
        key[..32].copy_from_slice(&device.0);
        pieces::remove(&mut self.held, &key)?;
        pieces::write(&mut self.held, &key, bytes)?;
        self.done.wrote = true;
        Ok(())
    }

    /// Drops feed rows that the index will not ask for again.
    pub fn prune_feed(&mut self, upto: u64) -> Result<(), StoreError> {
        let mut end = [0xff; 12];
        end[..8].copy_from_slice(&upto.to_be_bytes());
        self.feed.retain_in::<&[u8; 12], _>(..=&end, |_, _| false)?;
        self.forget_purged_names(upto)?;
        self.meta
            .insert(tables::meta::FEED_PRUNED, &upto.to_be_bytes()[..])?;
        self.done.wrote = true;
        Ok(())
    }

    /// Closes the last entry and writes what every transaction writes.
    pub fn finish(mut self) -> Result<Done, StoreError> {
        self.close_entry()?;
        if self.done.wrote {
            let state = &mut self.core.state;
            state.transaction += 1;
            state.wanted = self.wanted.len()?;
            if self.touched.values().any(|(doctype, _)| doctype != FILES) {
                state.documents_at = state.transaction;
            }
            self.meta.insert(
                tables::meta::TRANSACTION,
                &state.transaction.to_be_bytes()[..],
            )?;
            self.meta
                .insert(tables::meta::HLC, &state.hlc.last().0.to_be_bytes()[..])?;
            let mut key = [0; 12];
            key[..8].copy_from_slice(&state.transaction.to_be_bytes());
            for (n, document) in self.touched.keys().enumerate() {
                key[8..].copy_from_slice(&(n as u32).to_be_bytes());
                self.feed.insert(&key, &document.0)?;
            }
            for (_, committed) in &mut self.done.committed {
                committed.transaction = state.transaction;
            }
        }
        self.done.documents = self.touched.into_values().collect();
        for id in self.changed_files.keys() {
            if self.wanted.get(&id.0)?.is_some() {
                self.done.still_wanted.insert(*id);
            }
        }
        self.done.files = self.changed_files.into_iter().collect();
        Ok(self.done)
    }

    pub fn answer(
        &mut self,
        ticket: Ticket,
        changed: super::local::Changed,
        collected: Option<Vec<Hash>>,
    ) {
        self.done.committed.push((
            ticket,
            Committed {
                transaction: self.core.state.transaction,
                changed: changed.documents,
                revisions: changed.revisions,
                collected,
            },
        ));
    }
}

/// The document's key and file id, where the document is a file.
pub(super) fn file_id(doctype: &str, id: &str) -> Option<FileId> {
    (doctype == FILES).then(|| id.parse().ok()).flatten()
}

/// Whether a file has the content that it had, and neither is nor was in the trash by itself.
fn same_bytes(before: &FileState, after: &FileState) -> bool {
    let bytes = |state: &FileState| {
        let content = state.content.as_ref();
        content.map(|content| (content.hash, content.root.clone()))
    };
    !before.is_in_trash() && !after.is_in_trash() && bytes(before) == bytes(after)
}

fn file_key(id: FileId) -> [u8; 18] {
    let mut key = [0; 18];
    key[..16].copy_from_slice(&id.0);
    key
}
