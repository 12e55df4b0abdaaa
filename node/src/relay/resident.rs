//! One vault in memory: who is in it, what is durable, and who is connected.
//!
//! All of it changes under one lock, held while entries are stored: what a vault's devices are told is in the order of
//! what became durable. Vaults do not wait for each other. Nothing here reads or writes a stream: sessions bring messages
//! and drain the queues.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use bytes::Bytes;
use coffer_protocol::grants::{GrantBody, Membership, Role, SignedGrant};
use coffer_protocol::held::HeldStatement;
use coffer_protocol::identity::{DeviceId, Hash, SpaceId, VaultId, WriterId};
use coffer_protocol::relay::HostStatement;
use coffer_protocol::replication::{Action, Message, Rejection, Replicator};

use super::host::{Host, now_ms};
use super::store::{self, Appended, MAX_DEVICES, NewEntry, StoreError};
use super::verify::{self, Checked, Ground};
use crate::vault::SessionQueue;

/// Who is in a vault, for questions that wait for nothing.
pub type Roles = Arc<BTreeMap<DeviceId, Role>>;

/// A vault in memory.
pub struct Resident {
    /// Which.
    pub vault: VaultId,
    inner: tokio::sync::Mutex<Inner>,
    roles: RwLock<Roles>,
    /// Whether something new waits to be stated.
    unstated: AtomicBool,
    /// Since when nobody is connected; `None` while somebody is.
    idle_since: Mutex<Option<Instant>>,
}

struct Inner {
    membership: Membership,
    replicator: Replicator,
    /// What waits to be sent to each connected device.
    queues: BTreeMap<DeviceId, Arc<SessionQueue>>,
    /// The counters of the statements that are kept.
    held: BTreeMap<DeviceId, u64>,
    /// Entries were refused for want of room: devices send them again only on a new session.
    starved: bool,
}

/// Why a vault is not in memory.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is not served, or was never bound.
    #[error("not served")]
    NotServed,
    /// All places are taken by vaults that are in use.
    #[error("no room in memory")]
    Crowded,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored is not what was stored.
    #[error("the stored grants cannot be read: {0}")]
    Damaged(String),
}

impl Resident {
    /// Reads a vault from the store.
    pub async fn load(host: &Host, vault: VaultId) -> Result<Arc<Resident>, LoadError> {
        let snapshot = host.store.snapshot(vault).await?;
        let Some(snapshot) = snapshot.filter(|snapshot| snapshot.record.grants > 0) else {
            return Err(LoadError::NotServed);
        };
        let grants = host.store.grants(vault).await?;
        let membership = Membership::from_bytes(vault, &grants)
            .map_err(|error| LoadError::Damaged(error.to_string()))?;
        let mut replicator = Replicator::new(vault, membership.heads(), snapshot.clock);
        let mut held = BTreeMap::new();
        for statement in host.store.held(vault).await? {
            held.insert(statement.device, statement.counter);
            replicator.held_changed(statement.device, statement.bytes.to_vec(), None);
        }
        if let Some((_, statement)) = snapshot.statement {
            replicator.held_changed(host.id, statement.to_vec(), None);
        }
        Ok(Arc::new(Resident {
            vault,
            roles: RwLock::new(roles_of(&membership)),
            inner: tokio::sync::Mutex::new(Inner {
                membership,
                replicator,
                queues: BTreeMap::new(),
                held,
                starved: false,
            }),
            unstated: AtomicBool::new(false),
            idle_since: Mutex::new(Some(Instant::now())),
        }))
    }

    /// What a device may do here, if it is in the vault.
    pub fn role(&self, device: &DeviceId) -> Option<Role> {
        self.roles().get(device).copied()
    }

    /// Everyone in the vault.
    pub fn roles(&self) -> Roles {
        self.roles
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Since when nobody has a session.
    pub fn idle_since(&self) -> Option<Instant> {
        *self
            .idle_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Devices with a session.
    pub async fn connected(&self) -> usize {
        self.inner.lock().await.queues.len()
    }

    /// Has the host state what is new of this vault, within a moment. Each vault waits only once.
    pub fn to_be_stated(&self, host: &Host) {
        if !self.unstated.swap(true, Ordering::AcqRel)
            && host.to_state.try_send(self.vault).is_err()
        {
            // The queue is full, or the host ends: the next change asks again.
            self.unstated.store(false, Ordering::Release);
        }
    }

    /// What is new is about to be read for a statement.
    pub fn begins_statement(&self) {
        self.unstated.store(false, Ordering::Release);
    }

    /// A device opened a session; an older one of it ends.
    pub async fn connect(&self, device: DeviceId) -> Arc<SessionQueue> {
        let queue = Arc::new(SessionQueue::default());
        let mut inner = self.inner.lock().await;
        if let Some(older) = inner.queues.insert(device, queue.clone()) {
            older.close();
        }
        let actions = inner.replicator.connected(device);
        inner.enqueue(actions);
        self.note_idle(&inner);
        queue
    }

    /// A session ended. Nothing happens if a newer one of the device took its place.
    pub async fn disconnect(&self, device: DeviceId, queue: &Arc<SessionQueue>) {
        let mut inner = self.inner.lock().await;
        if inner
            .queues
            .get(&device)
            .is_some_and(|own| Arc::ptr_eq(own, queue))
        {
            inner.queues.remove(&device);
            inner.replicator.disconnected(device);
        }
        self.note_idle(&inner);
    }

    fn note_idle(&self, inner: &Inner) {
        let mut idle = self
            .idle_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *idle = match (inner.queues.is_empty(), *idle) {
            (false, _) => None,
            (true, Some(since)) => Some(since),
            (true, None) => Some(Instant::now()),
        };
    }

    /// Ends all sessions: the vault leaves, or has to be read anew.
    pub async fn close_all(&self) {
        let mut inner = self.inner.lock().await;
        for (device, queue) in std::mem::take(&mut inner.queues) {
            queue.close();
            inner.replicator.disconnected(device);
        }
        self.note_idle(&inner);
    }

    /// Ends all sessions if entries were refused for want of room and there may be room now: with a new session they
    /// are sent again.
    pub async fn retry_starved(&self) {
        let mut inner = self.inner.lock().await;
        if std::mem::take(&mut inner.starved) {
            drop(inner);
            self.close_all().await;
        }
    }

    /// The grants that somebody with these heads lacks, as messages.
    pub async fn grants_after(&self, they_have: &[Hash]) -> Vec<Message> {
        let inner = self.inner.lock().await;
        let missing = inner.membership.missing(they_have).into_iter();
        let grants = missing.map(|grant| grant.bytes().to_vec()).collect();
        Message::grants(&inner.membership.heads(), grants)
    }

    /// A device sent a message on the session of this queue. `Ok(false)`: the session is over.
    pub async fn received(
        &self,
        host: &Host,
        device: DeviceId,
        queue: &Arc<SessionQueue>,
        message: Message,
    ) -> Result<bool, StoreError> {
        let mut inner = self.inner.lock().await;
        let is_current = inner
            .queues
            .get(&device)
            .is_some_and(|own| Arc::ptr_eq(own, queue));
        if !is_current {
            return Ok(false);
        }
        let actions = inner.replicator.received(device, message);
        for action in actions {
            self.carry_out(host, &mut inner, action).await?;
        }
        Ok(true)
    }

    async fn carry_out(
        &self,
        host: &Host,
        inner: &mut Inner,
        action: Action,
    ) -> Result<(), StoreError> {
        match action {
            Action::IngestGrants { peer, grants } => {
                self.take_grants(host, inner, peer, &grants).await
            }
            Action::Ingest {
                peer,
                entries,
                round,
            } => self.take_entries(host, inner, peer, entries, round).await,
            Action::IngestHeld {
                peer,
                device,
                statement,
            } => self.take_held(host, inner, peer, device, statement).await,
            Action::Fork { peer, seq, .. } => {
                let (vault, device) = (host.marks.vault(self.vault), host.marks.device(peer));
                tracing::warn!(%vault, %device, seq, "a log has forked");
                host.metrics.refused("fork");
                Ok(())
            }
            other => {
                inner.enqueue(vec![other]);
                Ok(())
            }
        }
    }

    async fn take_entries(
        &self,
        host: &Host,
        inner: &mut Inner,
        from: DeviceId,
        entries: Vec<Vec<u8>>,
        round: u32,
    ) -> Result<(), StoreError> {
        let begun = Instant::now();
        let ground = Ground {
            vault: self.vault,
            roles: self.roles().as_ref().clone(),
            spaces: spaces_of(&inner.membership),
            clock: inner.replicator.clock().clone(),
        };
        // Signatures of a full message take some hundred milliseconds: not on the threads that carry streams.
        let checked = tokio::task::spawn_blocking(move || verify::check(&ground, entries)).await;
        let Checked { good, mut refused } =
            checked.map_err(|error| StoreError::Failed(error.to_string()))?;
        let places: Vec<(WriterId, u64, Hash)> = good.iter().map(place_of).collect();
        let mut durable = Vec::with_capacity(good.len());
        let mut starved = BTreeSet::new();
        if !good.is_empty() {
            let outcomes = host.store.append(self.vault, good).await?;
            for ((writer, seq, header), outcome) in places.into_iter().zip(outcomes) {
                match outcome {
                    Appended::Stored | Appended::Had => durable.push((writer, seq, header)),
                    // Behind one that found no room.
                    Appended::Gap { .. } if starved.contains(&writer) => {}
                    Appended::Gap { .. } => refused.push(Rejection::Gap),
                    Appended::Forked { seq, ours } => refused.push(Rejection::Forked {
                        writer,
                        seq,
                        ours,
                        theirs: header,
                    }),
                    Appended::Full | Appended::TooManyWriters => {
                        // Asking again would bring the same; the statement shows that there is no room.
                        starved.insert(writer);
                        inner.starved = true;
                        host.metrics.refused("over-quota");
                    }
                }
            }
        }
        if !durable.is_empty() {
            host.metrics.entries_in.inc_by(durable.len() as u64);
            host.metrics
                .append_seconds
                .observe(begun.elapsed().as_secs_f64());
            let actions = inner.replicator.committed(&durable, Some(from));
            inner.enqueue(actions);
            let actions = inner.replicator.announce_clock(from);
            inner.enqueue(actions);
            self.to_be_stated(host);
        }
        for why in refused {
            host.metrics.refused("entry");
            let actions = inner.replicator.rejected(from, round, why);
            inner.enqueue(actions);
        }
        Ok(())
    }

    async fn take_grants(
        &self,
        host: &Host,
        inner: &mut Inner,
        from: DeviceId,
        grants: &[Vec<u8>],
    ) -> Result<(), StoreError> {
        let mut membership = inner.membership.clone();
        let mut fresh = Vec::new();
        for bytes in grants {
            let Ok(grant) = SignedGrant::decode(bytes) else {
                host.metrics.refused("grant");
                break;
            };
            // Grants come parents first. One whose parents are not here is not kept waiting in memory: it comes again.
            if membership.get(&grant.id()).is_some() || !membership.knows(&grant.value().parents) {
                continue;
            }
            let (id, bytes) = (grant.id(), Bytes::copy_from_slice(bytes));
            if membership.insert(grant).is_err() {
                host.metrics.refused("grant");
                let device = host.marks.device(from);
                tracing::warn!(%device, "a grant was refused");
                break;
            }
            fresh.push((id, bytes));
        }
        self.adopt(host, inner, membership, fresh).await
    }

    /// Stores new grants, and goes by them from then on.
    async fn adopt(
        &self,
        host: &Host,
        inner: &mut Inner,
        membership: Membership,
        fresh: Vec<(Hash, Bytes)>,
    ) -> Result<(), StoreError> {
        if fresh.is_empty() {
            return Ok(());
        }
        store_grants(host, self.vault, &inner.membership, &membership, fresh).await?;
        self.goes_by(inner, membership);
        Ok(())
    }

    fn goes_by(&self, inner: &mut Inner, membership: Membership) {
        inner.membership = membership;
        let roles = roles_of(&inner.membership);
        *self.roles.write().unwrap_or_else(PoisonError::into_inner) = roles.clone();
        let actions = inner.replicator.grants_changed(inner.membership.heads());
        inner.enqueue(actions);
        let gone: Vec<DeviceId> = inner
            .queues
            .keys()
            .filter(|device| !roles.contains_key(device))
            .copied()
            .collect();
        for device in gone {
            if let Some(queue) = inner.queues.remove(&device) {
                queue.close();
            }
            inner.replicator.disconnected(device);
        }
    }

    /// Merges whole lists of grants that a joining device showed, if the outcome is as `allowed` wants.
    pub async fn merge(
        &self,
        host: &Host,
        shown: &Membership,
        allowed: impl FnOnce(&Membership) -> bool,
    ) -> Result<bool, StoreError> {
        let mut inner = self.inner.lock().await;
        let mut membership = inner.membership.clone();
        let mut fresh = Vec::new();
        for (id, grant) in shown.grants() {
            if membership.get(&id).is_none() && membership.insert(grant.clone()).is_ok() {
                fresh.push((id, Bytes::copy_from_slice(grant.bytes())));
            }
        }
        if !allowed(&membership) {
            return Ok(false);
        }
        self.adopt(host, &mut inner, membership, fresh).await?;
        Ok(true)
    }

    async fn take_held(
        &self,
        host: &Host,
        inner: &mut Inner,
        from: DeviceId,
        device: DeviceId,
        statement: Vec<u8>,
    ) -> Result<(), StoreError> {
        // The host's own comes back from devices that compare; it knows what it said.
        if device == host.id {
            return Ok(());
        }
        let counter = match inner.membership.role(&device) {
            None => None,
            // Another host: its counter begins anew with each store, its time does not.
            Some(Role::Relay) => HostStatement::read(&statement, &self.vault, &device)
                .ok()
                .map(|statement| statement.value().at_ms),
            Some(_) => HeldStatement::read(&statement, &self.vault)
                .ok()
                .filter(|statement| statement.value().device == device)
                .map(|statement| statement.value().counter),
        };
        let Some(counter) = counter else {
            host.metrics.refused("statement");
            return Ok(());
        };
        if inner
            .held
            .get(&device)
            .is_some_and(|known| *known >= counter)
        {
            return Ok(());
        }
        let record = store::HeldStatement {
            device,
            counter,
            bytes: Bytes::from(statement.clone()),
        };
        if host.store.put_held(self.vault, record).await? {
            inner.held.insert(device, counter);
            let actions = inner.replicator.held_changed(device, statement, Some(from));
            inner.enqueue(actions);
        }
        Ok(())
    }

    /// The host's own new statement, durable: it goes to everyone, and what became durable with it.
    pub async fn stated(&self, host: &Host, statement: Vec<u8>) {
        let mut inner = self.inner.lock().await;
        let mut actions = inner.replicator.held_changed(host.id, statement, None);
        let connected: Vec<DeviceId> = inner.queues.keys().copied().collect();
        for device in connected {
            actions.extend(inner.replicator.announce_clock(device));
        }
        inner.enqueue(actions);
    }

    /// Another process on the same store stored entries.
    pub async fn reread_clock(&self, host: &Host) -> Result<(), StoreError> {
        let mut inner = self.inner.lock().await;
        let clock = host.store.clock(self.vault).await?;
        let known = inner.replicator.clock();
        let news: Vec<(WriterId, u64, Hash)> = clock
            .iter()
            .filter(|(writer, seq, _)| !known.covers(writer, *seq))
            .map(|(writer, seq, hash)| (*writer, seq, hash))
            .collect();
        let actions = inner.replicator.committed(&news, None);
        inner.enqueue(actions);
        Ok(())
    }

    /// Another process on the same store stored grants.
    pub async fn reread_grants(&self, host: &Host) -> Result<(), LoadError> {
        let mut inner = self.inner.lock().await;
        let grants = host.store.grants(self.vault).await?;
        let membership = Membership::from_bytes(self.vault, &grants)
            .map_err(|error| LoadError::Damaged(error.to_string()))?;
        if membership.heads() != inner.membership.heads() {
            self.goes_by(&mut inner, membership);
        }
        Ok(())
    }

    /// Another process on the same store took statements, or made one.
    pub async fn reread_statements(&self, host: &Host) -> Result<(), StoreError> {
        let mut inner = self.inner.lock().await;
        let mut actions = Vec::new();
        for statement in host.store.held(self.vault).await? {
            let known = inner.held.get(&statement.device);
            if known.is_none_or(|known| *known < statement.counter) {
                inner.held.insert(statement.device, statement.counter);
                let bytes = statement.bytes.to_vec();
                actions.extend(inner.replicator.held_changed(statement.device, bytes, None));
            }
        }
        if let Some(snapshot) = host.store.snapshot(self.vault).await?
            && let Some((_, statement)) = snapshot.statement
        {
            actions.extend(
                inner
                    .replicator
                    .held_changed(host.id, statement.to_vec(), None),
            );
        }
        inner.enqueue(actions);
        Ok(())
    }
}

impl Inner {
    /// Hands what is to be sent to the sessions.
    fn enqueue(&mut self, actions: Vec<Action>) {
        for action in actions {
            let peer = match &action {
                Action::Send { peer, .. }
                | Action::SendEntries { peer, .. }
                | Action::SendGrants { peer, .. }
                | Action::Close { peer, .. } => *peer,
                // A fork is reported where messages are taken in; found later it was reported before.
                Action::Fork { .. }
                | Action::Ingest { .. }
                | Action::IngestGrants { .. }
                | Action::IngestHeld { .. } => continue,
            };
            if let Some(queue) = self.queues.get(&peer) {
                queue.push(action);
            }
        }
    }
}

/// Stores grants, who is in the vault by them, and that those who are new count from now on.
pub async fn store_grants(
    host: &Host,
    vault: VaultId,
    before: &Membership,
    after: &Membership,
    fresh: Vec<(Hash, Bytes)>,
) -> Result<(), StoreError> {
    let members: Vec<DeviceId> = after.devices().keys().take(MAX_DEVICES).copied().collect();
    host.store.set_members(vault, members.clone()).await?;
    for device in members {
        if !before.is_member(&device) {
            host.store.note_seen(vault, device, now_ms()).await?;
        }
    }
    // Last: what was interrupted before this is done again, as the grants are still new then.
    host.store.put_grants(vault, fresh).await?;
    Ok(())
}

fn place_of(entry: &NewEntry) -> (WriterId, u64, Hash) {
    (entry.writer, entry.seq, entry.header)
}

fn roles_of(membership: &Membership) -> Roles {
    let devices = membership.devices().iter();
    Arc::new(devices.map(|(id, device)| (*id, device.role)).collect())
}

/// The spaces in which entries may be written: those that grants began.
fn spaces_of(membership: &Membership) -> BTreeSet<SpaceId> {
    membership
        .grants()
        .filter_map(|(_, grant)| match &grant.value().body {
            GrantBody::Epoch(epoch) => Some(epoch.space),
            GrantBody::Genesis { .. } | GrantBody::Admit { .. } => None,
        })
        .collect()
}
