//! What the vault's core keeps in memory beside the tree, and how it is read back from the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use coffer_crdt::chunks::ChunkRoot;
use coffer_crdt::document::Document;
use coffer_crdt::files::{FileId, FileState, Hlc, Stamp};
use coffer_crdt::tree::Tree;
use coffer_protocol::grants::Membership;
use coffer_protocol::held::{Held, HeldError, HeldStatement};
use coffer_protocol::identity::{DeviceId, VaultId, WriterId};
use coffer_protocol::keys::Keyring;
use coffer_protocol::log::Clock;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata};

use super::hosts::read_memories;
use super::identity::Identity;
use super::storage::Storage;
use crate::hosts::Memory;
use crate::store::documents::DocumentKey;
use crate::store::{StoreError, logs, pieces, records, tables};

/// Documents kept loaded, at most: enough that someone who types is not made to wait for a load at each key.
const CACHED_DOCUMENTS: usize = 64;

/// Statements of what devices hold, as bytes.
pub type Statements = Vec<(DeviceId, Vec<u8>)>;

/// State that a failed commit must put back: cheap to clone.
#[derive(Clone)]
pub struct State {
    /// The vault.
    pub vault: VaultId,
    /// The log that this data folder writes to.
    pub writer: WriterId,
    /// Who belongs to the vault.
    pub membership: Arc<Membership>,
    /// Keys to read and write with.
    pub keyring: Arc<Keyring>,
    /// Where every log ends here, durably.
    pub clock: Clock,
    /// The ranges that are here.
    pub ranges: Arc<super::ranges::Ranges>,
    /// Whether anything was heard of ranges, or of who is in the vault, since it was last looked what may be dropped.
    pub heard_of_ranges: bool,
    /// Up to which entry of logs this device has looked for stretches to make ranges of.
    pub looked_at: BTreeMap<WriterId, u64>,
    /// Where this device's log stood when it last heard of a purge, in this run.
    pub purged_at: u64,
    /// What others name of logs and is not here: see [`tables::NAMED`].
    pub named: super::named::AllNamed,
    /// Whether an owner has to change the keys, as far as is known here.
    pub rotation_due: bool,
    /// The hybrid logical clock of this device.
    pub hlc: Hlc,
    /// Number of the last transaction.
    pub transaction: u64,
    /// Number of the last one that touched a document which is no file; of the last one at all as far as is not known.
    pub documents_at: u64,
    /// The newest statement of every other device, opened.
    pub held: BTreeMap<DeviceId, Held>,
    /// This device's own newest statement and its bytes.
    pub own_held: Option<(Held, Vec<u8>)>,
    /// Files of which bytes are missing here.
    pub wanted: u64,
    /// Whether this device's newest statement names exactly those files; their number alone cannot tell.
    pub wanted_stated: bool,
    /// What this device keeps.
    pub storage: Arc<Storage>,
    /// Whether a statement of this run has said that this device may drop contents, and none since that it may not. An
    /// announcement of an earlier run does not count: the disk may have been put back to what it was before.
    pub announced: bool,
    /// Synced folders that are not there now, stopped or rest: what was in them, this device may not have.
    pub away: BTreeSet<u32>,
    /// Contents in long lists that files of synced folders no longer hold, until somebody has read those lists.
    pub left: Arc<Mutex<Vec<(u32, FileId, ChunkRoot)>>>,
    /// Whether the next statement differs from the last for another reason than entries and contents.
    pub restate: bool,
    /// Files named up to where the newest own statement says that contents are here, and of which bytes are not; `None`
    /// once they are more than a statement names.
    pub lost: Option<Arc<BTreeSet<FileId>>>,
    /// What the data folder is like, until it is settled whether it was put back to an earlier state.
    pub doubtful: Option<Arc<[u8]>>,
    /// What is remembered of the vault's hosts.
    pub hosts: Arc<BTreeMap<DeviceId, Memory>>,
}

impl State {
    /// Reads all of it, and the bytes of every device's statement.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where a record that must be there is missing or unreadable.
    pub fn read(
        database: &Database,
        identity: &Identity,
    ) -> Result<(State, Statements), StoreError> {
        let device = identity.key.id();
        let read = database.begin_read()?;
        let meta = read.open_table(tables::META)?;
        let vault: [u8; 32] = records::get(&meta, tables::meta::VAULT)?
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| StoreError::Damaged("the vault's id is missing".into()))?;
        let vault = VaultId(vault);
        let keyring = records::get(&meta, tables::meta::KEYRING)?
            .ok_or_else(|| StoreError::Damaged("the vault's keys are missing".into()))?;
        let keyring = Keyring::open_at_rest(&keyring, &identity.key, &vault)
            .map_err(|_| StoreError::Damaged("the vault's keys cannot be read".into()))?;
        let incarnation = records::get_u32(&meta, tables::meta::INCARNATION)?
            .ok_or_else(|| StoreError::Damaged("the incarnation is missing".into()))?;
        let mut grants = Vec::new();
        let table = read.open_table(tables::GRANTS)?;
        for item in table.iter()? {
            let key = *item?.0.value();
            if key[32..] == [0, 0] {
                grants.extend(pieces::read(&table, &key)?);
            }
        }
        let membership = Membership::from_bytes(vault, &grants).map_err(|error| {
            StoreError::Damaged(format!("a stored grant cannot be read: {error}"))
        })?;
        let mut state = State {
            vault,
            writer: WriterId {
                device,
                incarnation,
            },
            rotation_due: membership.rotation_due(&keyring),
            membership: Arc::new(membership),
            keyring: Arc::new(keyring),
            clock: logs::read_clock(&read)?,
            ranges: Arc::new(super::ranges::read_ranges(&read)?),
            heard_of_ranges: true,
            looked_at: crate::store::ranges::read_looked_at(&read)?,
            purged_at: 0,
            named: super::named::read_named(&read)?,
            hlc: Hlc::resume(Stamp(
                records::get_u64(&meta, tables::meta::HLC)?.unwrap_or(0),
            )),
            transaction: records::get_u64(&meta, tables::meta::TRANSACTION)?.unwrap_or(0),
            documents_at: records::get_u64(&meta, tables::meta::TRANSACTION)?.unwrap_or(0),
            held: BTreeMap::new(),
            own_held: None,
            wanted: read.open_table(tables::WANTED)?.len()?,
            wanted_stated: false,
            storage: Arc::new(Storage::read(&read)?),
            announced: false,
            away: BTreeSet::new(),
            left: Arc::default(),
            restate: false,
            lost: Some(Arc::default()),
            doubtful: None,
            hosts: Arc::new(read_memories(&read)?),
        };
        state.judge_named();
        let mut statements = Vec::new();
        let table = read.open_table(tables::HELD)?;
        for item in table.iter()? {
            let key = *item?.0.value();
            if key[32..] != [0, 0] {
                continue;
            }
            let bytes = pieces::read(&table, &key)?.unwrap_or_default();
            // A statement is replaceable: one that cannot be read any more is dropped, its device sends a newer one.
            if let Ok(held) = open_held(&bytes, &state.vault, &state.keyring) {
                statements.push((held.device, bytes.clone()));
                if held.device == device {
                    state.own_held = Some((held, bytes));
                } else {
                    state.held.insert(held.device, held);
                }
            }
        }
        for (host, memory) in state.hosts.iter() {
            if let Some(furthest) = &memory.record.furthest {
                statements.push((*host, furthest.bytes().to_vec()));
            }
        }
        let mut wanted = Vec::new();
        for item in read.open_table(tables::WANTED)?.iter()? {
            wanted.push(FileId(*item?.0.value()).to_string());
        }
        state.restate = state.own_held.as_ref().is_some_and(|(_, bytes)| {
            HeldStatement::read(bytes, &state.vault)
                .is_ok_and(|statement| Some(statement.value().epoch) != state.sealing_epoch())
        });
        if state.own_held.as_ref().is_some_and(|(own, _)| !own.pinned) {
            // A folder may have been away when that was said: until it has been looked for, it is.
            for item in read.open_table(tables::FOLDERS)?.iter()? {
                state.away.insert(item?.0.value());
            }
        }
        state.wanted_stated = state
            .own_held
            .as_ref()
            .is_some_and(|(held, _)| held.exceptions == wanted && held.more_missing == 0);
        Ok((state, statements))
    }
}

/// Checks and opens a statement of what a device holds.
pub fn open_held(bytes: &[u8], vault: &VaultId, keyring: &Keyring) -> Result<Held, HeldError> {
    let statement = HeldStatement::read(bytes, vault)?;
    let epoch = statement.value().epoch;
    statement.open(keyring.epoch(&epoch).ok_or(HeldError::WrongEpoch(epoch))?)
}

/// Reads the tree from the state of every file.
pub fn read_tree(database: &Database) -> Result<Tree, StoreError> {
    let read = database.begin_read()?;
    let table = read.open_table(tables::FILES)?;
    let mut tree = Tree::new();
    for item in table.iter()? {
        let (key, value) = item?;
        let key = *key.value();
        if key[16..] != [0, 0] {
            continue;
        }
        let (mut id, bytes) = ([0; 16], value.value());
        id.copy_from_slice(&key[..16]);
        let whole;
        let bytes = if bytes.len() < pieces::PIECE {
            bytes
        } else {
            whole = pieces::read(&table, &key)?.unwrap_or_default();
            &whole
        };
        let state = FileState::from_record(bytes)
            .map_err(|_| StoreError::Damaged("the state of a file cannot be read".into()))?;
        tree.set(FileId(id), &state);
    }
    for (id, purge) in super::past::purges(&read)? {
        tree.set_purge(id, Some(purge));
    }
    tree.take_changed();
    Ok(tree)
}

/// A few loaded documents, least recently used out first.
#[derive(Default)]
pub struct DocumentCache {
    documents: BTreeMap<DocumentKey, (u64, Document)>,
    uses: u64,
}

impl DocumentCache {
    /// Takes a document out; give it back with [`DocumentCache::put`] when it is up to date.
    pub fn take(&mut self, key: DocumentKey) -> Option<Document> {
        self.documents.remove(&key).map(|(_, document)| document)
    }

    /// Keeps a document.
    pub fn put(&mut self, key: DocumentKey, document: Document) {
        self.uses += 1;
        self.documents.insert(key, (self.uses, document));
        if self.documents.len() > CACHED_DOCUMENTS
            && let Some(oldest) = self
                .documents
                .iter()
                .min_by_key(|(_, (used, _))| *used)
                .map(|(key, _)| *key)
        {
            self.documents.remove(&oldest);
        }
    }

    /// Forgets one, or after a failed commit all.
    pub fn clear(&mut self) {
        self.documents.clear();
    }
}
