//! What the vault keeps of its relay hosts: what each has said, what is wrong with it, and which contents it confirmed.

use std::collections::BTreeMap;
use std::sync::Arc;

use coffer_crdt::chunks::ChunkRoot;
use coffer_protocol::eviction::Copies;
use coffer_protocol::grants::Role;
use coffer_protocol::identity::DeviceId;
use coffer_protocol::relay::HostStatement;
use redb::{ReadTransaction, ReadableDatabase, ReadableTable, TableError};

use super::VaultHandle;
use super::work::Work;
use crate::hosts::{ContentKey, HostChange, Memory, Setting, TroubleKind, forgery, setting};
use crate::store::{StoreError, pieces, tables};

/// A host that goes on forging is noted anew at most this often: it does not decide how much is written here.
const FORGED_NOTED_EACH_MS: u64 = 60_000;

/// What is remembered of every host.
pub fn read_memories(read: &ReadTransaction) -> Result<BTreeMap<DeviceId, Memory>, StoreError> {
    let mut memories = BTreeMap::new();
    let table = match read.open_table(tables::HOSTS) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(memories),
        Err(error) => return Err(error.into()),
    };
    for item in table.iter()? {
        let key = *item?.0.value();
        if key[32..] != [0, 0] {
            continue;
        }
        let mut host = DeviceId([0; 32]);
        host.0.copy_from_slice(&key[..32]);
        let bytes = pieces::read(&table, &key)?.unwrap_or_default();
        match Memory::decode(&bytes) {
            Some(memory) => drop(memories.insert(host, memory)),
            None => tracing::warn!("what was remembered of a host cannot be read"),
        }
    }
    Ok(memories)
}

/// Which contents a host has confirmed, as of one moment.
pub struct Confirmed {
    table: Option<redb::ReadOnlyTable<&'static [u8; 64], ()>>,
    host: DeviceId,
}

impl Confirmed {
    /// Of `host`.
    pub fn new(read: &ReadTransaction, host: DeviceId) -> Result<Confirmed, StoreError> {
        let table = match read.open_table(tables::AT_HOST) {
            Ok(table) => Some(table),
            Err(TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Confirmed { table, host })
    }

    /// Whether it confirmed this one.
    pub fn has(&self, content: &ContentKey) -> Result<bool, StoreError> {
        match &self.table {
            Some(table) => Ok(table.get(&row(&self.host, content))?.is_some()),
            None => Ok(false),
        }
    }

    /// Whether it confirmed nothing at all.
    pub fn is_empty(&self) -> Result<bool, StoreError> {
        let Some(table) = &self.table else {
            return Ok(true);
        };
        let (first, last) = rows_of(&self.host);
        Ok(table.range::<&[u8; 64]>(&first..=&last)?.next().is_none())
    }

    /// Calls `each` with every content that it confirmed.
    pub fn each(&self, mut each: impl FnMut(ContentKey)) -> Result<(), StoreError> {
        let Some(table) = &self.table else {
            return Ok(());
        };
        let (first, last) = rows_of(&self.host);
        for item in table.range::<&[u8; 64]>(&first..=&last)? {
            let mut content = ContentKey([0; 32]);
            content.0.copy_from_slice(&item?.0.value()[32..]);
            each(content);
        }
        Ok(())
    }
}

fn row(host: &DeviceId, content: &ContentKey) -> [u8; 64] {
    let mut key = [0; 64];
    key[..32].copy_from_slice(&host.0);
    key[32..].copy_from_slice(&content.0);
    key
}

fn rows_of(host: &DeviceId) -> ([u8; 64], [u8; 64]) {
    (
        row(host, &ContentKey([0; 32])),
        row(host, &ContentKey([0xff; 32])),
    )
}

impl VaultHandle {
    /// The hosts that the vault has a document of, in use or not.
    ///
    /// # Errors
    /// The store's, or the vault is stopping.
    pub async fn hosts(&self) -> Result<Vec<(DeviceId, Setting)>, StoreError> {
        let membership = self
            .inspect(|core| core.state().membership.clone())
            .await
            .map_err(|error| StoreError::Database(error.to_string()))?;
        setting::read(&self.database().begin_read()?, &membership)
    }
}

impl Work<'_, '_> {
    /// Takes in what a host says of itself, told by it or passed on by `from`.
    pub(super) fn ingest_host(
        &mut self,
        from: DeviceId,
        host: DeviceId,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let statement = match HostStatement::read(bytes, &self.core.state.vault, &host) {
            Ok(statement) => statement,
            Err(error) => {
                tracing::debug!(%error, "a host's statement was not taken");
                return self.unless_honest(from, forgery::is_forged_statement(&error));
            }
        };
        let now_ms = self.now_ms;
        let memory = Arc::make_mut(&mut self.core.state.hosts)
            .entry(host)
            .or_default();
        let before = memory.clone();
        let heard = memory.hear(&statement, from == host, now_ms);
        if *memory == before {
            return Ok(());
        }
        if let Some(fault) = heard.fault {
            tracing::warn!(%host, ?fault, "a host's statements do not fit together");
        }
        let stored = memory.encode();
        self.write_host(&host, &stored)?;
        if heard.void {
            self.forget_confirmed(&host)?;
        }
        if heard.news {
            self.done.others_held.push((host, bytes.to_vec(), from));
        }
        self.done.hosts_changed = true;
        Ok(())
    }

    /// Notes what a request says of hosts.
    pub(super) fn hosts(&mut self, changes: &[HostChange]) -> Result<(), StoreError> {
        for change in changes {
            match change {
                HostChange::Confirmed(host, contents) => {
                    let mut table = self.transaction.open_table(tables::AT_HOST)?;
                    for content in contents {
                        table.insert(&row(host, content), ())?;
                    }
                }
                HostChange::Unconfirmed(host, contents) => {
                    let mut table = self.transaction.open_table(tables::AT_HOST)?;
                    for content in contents {
                        table.remove(&row(host, content))?;
                    }
                }
                HostChange::Trouble(host, kind) => {
                    self.trouble(host, *kind)?;
                    if *kind == TroubleKind::NotKept {
                        self.forget_confirmed(host)?;
                    }
                }
                HostChange::Over(host, kind) => {
                    let hosts = Arc::make_mut(&mut self.core.state.hosts);
                    if let Some(memory) = hosts.get_mut(host) {
                        memory.over(*kind);
                        let stored = memory.encode();
                        self.write_host(host, &stored)?;
                        self.done.hosts_changed = true;
                    }
                }
                HostChange::Begins(host, added) => {
                    let hosts = Arc::make_mut(&mut self.core.state.hosts);
                    let memory = hosts.entry(*host).or_default();
                    memory.begins(*added);
                    let stored = memory.encode();
                    self.write_host(host, &stored)?;
                    self.forget_confirmed(host)?;
                    self.done.hosts_changed = true;
                }
                HostChange::Forget(host) => {
                    Arc::make_mut(&mut self.core.state.hosts).remove(host);
                    let mut table = self.transaction.open_table(tables::HOSTS)?;
                    pieces::remove(&mut table, &host_key(host))?;
                    drop(table);
                    self.forget_confirmed(host)?;
                }
            }
            self.done.wrote = true;
        }
        Ok(())
    }

    /// `from` sent what an honest host would not, if it `is_forged`: noted where it is a host.
    pub(super) fn unless_honest(
        &mut self,
        from: DeviceId,
        is_forged: bool,
    ) -> Result<(), StoreError> {
        let state = &self.core.state;
        if !is_forged || state.membership.role(&from) != Some(Role::Relay) {
            return Ok(());
        }
        tracing::warn!(%from, "a host passed on what no honest host can have taken");
        let known = state.hosts.get(&from).into_iter();
        let mut known = known.flat_map(|memory| &memory.troubles);
        let lately = self.now_ms.saturating_sub(FORGED_NOTED_EACH_MS);
        if known.any(|trouble| trouble.kind == TroubleKind::Forged && trouble.last_ms > lately) {
            return Ok(());
        }
        self.trouble(&from, TroubleKind::Forged)
    }

    fn trouble(&mut self, host: &DeviceId, kind: TroubleKind) -> Result<(), StoreError> {
        let memory = Arc::make_mut(&mut self.core.state.hosts)
            .entry(*host)
            .or_default();
        memory.note(kind, self.now_ms);
        let stored = memory.encode();
        self.write_host(host, &stored)?;
        self.done.hosts_changed = true;
        Ok(())
    }

    /// Whether so many hosts keep a content that it may be dropped here: each has confirmed it, and nothing is known
    /// against any of them. Whether they still have it was asked a moment ago, by whoever wants to drop it.
    pub(super) fn kept_by_hosts(
        &self,
        root: &ChunkRoot,
        copies: Copies,
    ) -> Result<bool, StoreError> {
        let key = ContentKey::of(root);
        let table = self.transaction.open_table(tables::AT_HOST)?;
        let state = &self.core.state;
        let mut keep = 0;
        for (host, memory) in state.hosts.iter() {
            let counts = memory.is_trusted() && state.membership.role(host) == Some(Role::Relay);
            if counts && table.get(&row(host, &key))?.is_some() {
                keep += 1;
            }
        }
        Ok(copies.enough(0, keep))
    }

    fn forget_confirmed(&mut self, host: &DeviceId) -> Result<(), StoreError> {
        let mut table = self.transaction.open_table(tables::AT_HOST)?;
        let (first, last) = rows_of(host);
        table.retain_in::<&[u8; 64], _>(&first..=&last, |_, ()| false)?;
        self.done.wrote = true;
        Ok(())
    }

    fn write_host(&mut self, host: &DeviceId, bytes: &[u8]) -> Result<(), StoreError> {
        let mut table = self.transaction.open_table(tables::HOSTS)?;
        pieces::remove(&mut table, &host_key(host))?;
        pieces::write(&mut table, &host_key(host), bytes)?;
        self.done.wrote = true;
        Ok(())
    }
}

fn host_key(host: &DeviceId) -> [u8; 34] {
    let mut key = [0; 34];
    key[..32].copy_from_slice(&host.0);
    key
}
