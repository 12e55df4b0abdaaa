//! What a transaction does with the settings of [`super::storage`]: changing them, and dropping contents.
//!
//! Whether a content may be dropped is decided here, inside the transaction that drops it, by what is known of other
//! devices at this moment. The statement that says so is part of the same transaction: there is no moment at which this
//! device's newest statement names as held what it has let go of.

use coffer_crdt::chunks::ChunkRoot;
use coffer_crdt::files::FileId;
use coffer_protocol::eviction::{Copies, Keepers, Kind, Naming};
use coffer_protocol::grants::Membership;
use coffer_protocol::held::{Held, MAX_SEEN};
use coffer_protocol::identity::{DeviceId, Hash, WriterId};
use coffer_protocol::log::Clock;
use redb::ReadableTable;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, PoisonError};

use super::batch::Refusal;
use super::core::Core;
use super::request::{CommitError, CommitRequest, FolderSetting, Operation};
use super::state::State;
use super::storage::{Eviction, MAX_RULES, Plan, Rule, StorageChange};
use super::work::{HELD_EXCEPTIONS, Work};
use crate::blobs::placement;
use crate::store::{StoreError, tables};

/// Contents that are awaited are counted up to here: what matters to others is whether there are any.
const AWAITED_MAX: u64 = 1000;

impl State {
    /// Whether others may rely on this device for every content: it keeps them all, and no folder of it is away.
    pub fn keeps_everything(&self) -> bool {
        self.storage.keeps_everything() && self.away.is_empty()
    }

    /// The newest statements of the other devices of the vault, with what kind of device each is.
    pub fn others(&self, me: DeviceId) -> impl Iterator<Item = (Kind, &Held)> {
        let devices = self.membership.devices();
        self.held
            .iter()
            .filter(move |(device, _)| **device != me)
            .filter_map(move |(device, held)| {
                let kind = match devices.get(device)?.role.holds_keys() {
                    true => Kind::Device,
                    false => Kind::Host,
                };
                Some((kind, held))
            })
    }

    /// Those on which this device may rely when it drops contents; nobody while it has not announced that it may.
    pub fn keepers(&self, me: DeviceId, copies: Copies) -> Option<Keepers<'_>> {
        let (own, _) = self.own_held.as_ref().filter(|_| self.announced)?;
        Some(Keepers::confirmed(own, self.others(me), copies))
    }

    /// Whether another device waits for this one to say that it has seen its announcement.
    pub fn owes_confirmation(&self) -> bool {
        let Some((own, _)) = &self.own_held else {
            return false;
        };
        let waits = |other: &&Held| {
            !other.pinned
                && is_member(&self.membership, &other.device)
                && own.has_seen(&other.device) < other.unpinned_since
        };
        let mut waiting = self.held.values().filter(waits).peekable();
        // One that a statement has no room for waits for ever.
        waiting.peek().is_some() && {
            let seen = self.seen();
            waiting.any(|other| {
                seen.binary_search_by_key(&other.device, |(device, _)| *device)
                    .is_ok()
            })
        }
    }

    /// The newest statements of others that are known here, as a statement says it: those first to whom it matters.
    pub fn seen(&self) -> Vec<(DeviceId, u64)> {
        let mut seen: Vec<(bool, DeviceId, u64)> = self
            .held
            .values()
            .filter(|held| is_member(&self.membership, &held.device))
            .map(|held| (held.pinned, held.device, held.counter))
            .collect();
        seen.sort_unstable();
        // Hosts last: what they were heard to say shows others whether they are told less.
        let told = self.hosts.iter().filter_map(|(host, memory)| {
            let told = memory.record.told.as_ref()?;
            is_member(&self.membership, host).then(|| (true, *host, told.value().counter))
        });
        seen.extend(told);
        seen.truncate(MAX_SEEN);
        let mut seen: Vec<_> = seen
            .into_iter()
            .map(|(_, device, counter)| (device, counter))
            .collect();
        seen.sort_unstable();
        seen
    }
}

fn is_member(membership: &Membership, device: &DeviceId) -> bool {
    membership.is_member(device)
}

/// Highest seq that a clock covers, by actor.
pub(super) fn by_actor(clock: &Clock) -> BTreeMap<[u8; 16], u64> {
    clock
        .iter()
        .map(|(writer, seq, _)| (WriterId::actor(writer), seq))
        .collect()
}

/// Contents in long lists that are remembered as left behind; what is beyond that a look at everything finds.
const MAX_LEFT: usize = 4096;

impl State {
    /// Remembers that a file of a synced folder no longer holds a content whose list is too long to be read here.
    pub(super) fn leave(&self, folder: u32, file: FileId, root: ChunkRoot) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if left.len() < MAX_LEFT {
            left.push((folder, file, root));
        }
    }

    /// Contents that were left behind since the last call.
    pub fn take_left(&self) -> Vec<(u32, FileId, ChunkRoot)> {
        std::mem::take(&mut self.left.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Core {
    /// Contents named up to where the newest own statement says that they are here, and which are not.
    pub(super) fn find_lost(&mut self) -> Result<(), StoreError> {
        let Some((own, _)) = &self.state.own_held else {
            return Ok(());
        };
        let covered = by_actor(&own.chunks);
        let table = {
            use redb::ReadableDatabase;
            self.database.begin_read()?.open_table(tables::WANTED)?
        };
        let tree = self.tree().read().unwrap_or_else(PoisonError::into_inner);
        let mut lost = BTreeSet::new();
        for item in table.iter()? {
            let id = FileId(*item?.0.value());
            let content = tree.get(id).and_then(|known| known.content);
            let is_covered = content.is_none_or(|content| {
                covered
                    .get(&content.dot.writer)
                    .is_some_and(|seq| *seq >= content.dot.seq)
            });
            if is_covered {
                lost.insert(id);
            }
            if lost.len() > HELD_EXCEPTIONS {
                break;
            }
        }
        drop(tree);
        self.state.lost = (lost.len() <= HELD_EXCEPTIONS).then(|| Arc::new(lost));
        Ok(())
    }
}

impl Work<'_, '_> {
    /// Carries out what a request changes of the settings, and of what is kept.
    pub(super) fn storage(&mut self, changes: &[StorageChange]) -> Result<(), Refusal> {
        for change in changes {
            if let StorageChange::Evict(eviction) = change {
                self.evict(eviction)?;
                continue;
            }
            self.setting(change)?;
            self.done.wrote = true;
        }
        Ok(())
    }

    fn setting(&mut self, change: &StorageChange) -> Result<(), Refusal> {
        let mut rules = self
            .transaction
            .open_table(tables::STORAGE)
            .map_err(StoreError::from)?;
        let state = &mut self.core.state;
        let storage = Arc::make_mut(&mut state.storage);
        let mut write = || -> Result<bool, StoreError> {
            match change {
                StorageChange::Rule(id, Some(rule)) => {
                    rules.insert(&id.0, rule.to_byte())?;
                    storage.rules.insert(*id, *rule);
                }
                StorageChange::Rule(id, None) => {
                    rules.remove(&id.0)?;
                    storage.rules.remove(id);
                }
                StorageChange::KeepEverything => {
                    rules.retain(|_, _| false)?;
                    storage.rules.clear();
                }
                StorageChange::Limit(limit) => {
                    match limit {
                        Some(bytes) => {
                            let bytes = bytes.to_be_bytes();
                            self.meta.insert(tables::meta::STORAGE_LIMIT, &bytes[..])?
                        }
                        None => self.meta.remove(tables::meta::STORAGE_LIMIT)?,
                    };
                    storage.limit = *limit;
                }
                StorageChange::Used(id, at_ms) => {
                    self.transaction
                        .open_table(tables::USED)?
                        .insert(&id.0, *at_ms)?;
                    return Ok(false);
                }
                StorageChange::Dropped(files) => {
                    let mut dropping = self.transaction.open_table(tables::DROPPING)?;
                    for file in files {
                        dropping.remove(&file.0)?;
                    }
                    return Ok(false);
                }
                StorageChange::Evict(_) => return Ok(false),
            }
            Ok(true)
        };
        let changed = write()?;
        if storage.rules.len() > MAX_RULES {
            return Err(CommitError::Invalid(format!(
                "at most {MAX_RULES} folders and files can be on demand or pinned"
            ))
            .into());
        }
        state.restate |= changed;
        self.done.wanted_changed |= changed;
        Ok(())
    }

    /// Drops contents: all of them, or none where one may not go.
    fn evict(&mut self, eviction: &Eviction) -> Result<(), Refusal> {
        let state = &self.core.state;
        if eviction.as_of != state.transaction || self.done.wrote {
            return Err(CommitError::Meanwhile.into());
        }
        let me = self.core.identity.key.id();
        let refused = |text: &str| Refusal::from(CommitError::Invalid(text.into()));
        if state.is_out() || state.sealing_epoch().is_none() {
            // What is dropped must be said in the same transaction, and there is no key to say it under.
            return Err(refused("this device cannot tell others now what it drops"));
        }
        let keepers = state.keepers(me, Copies::default()).ok_or_else(|| {
            refused("other devices do not know yet that this one may drop contents")
        })?;
        let synced = self.synced()?;
        let tree = self.core.tree.clone();
        let tree = tree.read().unwrap_or_else(PoisonError::into_inner);
        let mut plan = Plan::new(&tree, &state.storage, synced);
        let mut files = Vec::new();
        for (id, hash) in &eviction.files {
            let content = self.file(*id)?.and_then(|file| file.content);
            let content = content
                .filter(|content| content.hash == *hash)
                .ok_or(CommitError::Meanwhile)?;
            if plan.keeps(*id) {
                return Err(refused("a content that is kept here would be dropped"));
            }
            let naming = Naming {
                actor: content.dot.writer,
                seq: content.dot.seq,
            };
            if !keepers.enough(naming, || id.to_string())
                && !self.kept_by_hosts(&content.root, Copies::default())?
            {
                return Err(refused(
                    "a content would be dropped that no other device is known to keep",
                ));
            }
            files.push((*id, content));
        }
        drop(keepers);
        for (id, content) in files {
            let mut value = [0; 40];
            value[..32].copy_from_slice(&content.hash);
            value[32..].copy_from_slice(&content.size.to_be_bytes());
            self.wanted
                .insert(&id.0, &value)
                .map_err(StoreError::from)?;
            self.lose(id, &content.dot);
            self.transaction
                .open_table(tables::USED)
                .map_err(StoreError::from)?
                .remove(&id.0)
                .map_err(StoreError::from)?;
        }
        placement::forget(
            self.transaction,
            eviction.displaced.iter().map(|(blob, place)| (blob, place)),
        )
        .map_err(StoreError::from)?;
        let mut dropping = self
            .transaction
            .open_table(tables::DROPPING)
            .map_err(StoreError::from)?;
        for file in &eviction.dropping {
            dropping.insert(&file.0, ()).map_err(StoreError::from)?;
        }
        self.core.state.wanted_stated = false;
        self.evicted = true;
        self.done.wanted_changed = true;
        self.done.wrote = true;
        Ok(())
    }

    /// A content is not all here: notes it if the newest statement says that it is.
    pub(super) fn lose(&mut self, id: FileId, dot: &coffer_crdt::files::Dot) {
        let state = &mut self.core.state;
        let Some((own, _)) = &state.own_held else {
            return;
        };
        let covered = self.covered.get_or_insert_with(|| by_actor(&own.chunks));
        if covered.get(&dot.writer).is_none_or(|seq| *seq < dot.seq) {
            return;
        }
        if let Some(lost) = &mut state.lost {
            Arc::make_mut(lost).insert(id);
            if lost.len() > HELD_EXCEPTIONS {
                state.lost = None;
            }
        }
    }

    /// Folders of the vault that are synced with folders of this device.
    pub(super) fn synced(&self) -> Result<BTreeSet<FileId>, StoreError> {
        let mut synced = BTreeSet::new();
        for item in self.folders.iter()? {
            let setting: FolderSetting = postcard::from_bytes(item?.1.value()).map_err(|_| {
                StoreError::Damaged("a synced folder's setting cannot be read".into())
            })?;
            synced.insert(setting.folder);
        }
        Ok(synced)
    }

    /// Contents that this device is to have and lacks, counted up to [`AWAITED_MAX`]. Files that came in this very
    /// transaction count, wherever they stand: the tree does not know them yet. A folder that is away counts as one: what
    /// a person did there is not known, and nothing is written there.
    pub(super) fn awaited(&self) -> Result<u64, StoreError> {
        let storage = &self.core.state.storage;
        let synced = self.synced()?;
        let tree = self
            .core
            .tree
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let mut plan = Plan::new(&tree, storage, synced);
        let mut awaited = self.core.state.away.len() as u64;
        for item in self.wanted.iter()? {
            let id = FileId(*item?.0.value());
            let trashed = tree.shown(id).is_some_and(|shown| shown.trashed);
            if !trashed && plan.keeps(id) {
                awaited += 1;
            }
            if awaited >= AWAITED_MAX {
                break;
            }
        }
        Ok(awaited)
    }

    /// Whether every chunk that a request names has a place. One that was held when a file was read, or a transfer was
    /// begun, may have been dropped since.
    pub(super) fn all_placed(&self, request: &CommitRequest) -> Result<bool, StoreError> {
        let placed: HashSet<Hash> = request.placements.iter().map(|(blob, _)| *blob).collect();
        let mut chunks = request
            .chunks
            .iter()
            .filter(|(_, row)| !placed.contains(&row.blob))
            .peekable();
        if chunks.peek().is_none() {
            return Ok(true);
        }
        let table = self.transaction.open_table(tables::PLACEMENT)?;
        for (_, row) in chunks {
            if table.get(&row.blob.0)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Wants the contents that a request named in the belief that all of their bytes are here.
    pub(super) fn want_again(&mut self, request: &CommitRequest) -> Result<(), StoreError> {
        for operation in &request.operations {
            if let Operation::CreateFile { id, .. }
            | Operation::CreateCopy { id, .. }
            | Operation::SetContent { id, .. } = operation
                && let Some(state) = self.file(*id)?
            {
                self.want(*id, &state)?;
            }
        }
        Ok(())
    }
}

/// A rule as people call it.
impl Rule {
    /// `on-demand`, `full` or `pinned`.
    pub fn name(self) -> &'static str {
        match self {
            Rule::OnDemand => "on-demand",
            Rule::Full => "full",
            Rule::Pinned => "pinned",
        }
    }
}
