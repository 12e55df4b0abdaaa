//! One vault in memory: who is in it, what is durable, and who is connected.
//!
//! All of it changes under one lock, held while entries are stored: what a vault's devices are told is in the order of
//! what became durable. Vaults do not wait for each other. Nothing here reads or writes a stream: sessions bring messages
//! and drain the queues.

mod ranges;
mod rereading;
mod taking;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use coffer_protocol::grants::{Membership, Role};
use coffer_protocol::identity::{DeviceId, Hash, VaultId};
use coffer_protocol::replication::{Action, Message, Replicator};

use super::host::Host;
use super::store::StoreError;
use crate::vault::SessionQueue;
use crate::vault::ranges::{Known, Ranges};

pub use taking::{fresh_grants, spaces_of, statement_counter, store_grants};

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
    /// The ranges that are kept.
    ranges: Ranges,
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
        let ranges = ranges::known(host.store.ranges(vault).await?);
        let mut replicator = Replicator::new(vault, membership.heads(), snapshot.clock)
            .with_ranges(ranges.values().map(Known::name));
        let mut held = BTreeMap::new();
        for statement in host.store.held(vault).await? {
            held.insert(statement.device, statement.counter);
            replicator.held_changed(statement.device, statement.bytes.to_vec(), None);
        }
        if let Some(statement) = snapshot.statement {
            replicator.held_changed(host.id, statement.to_vec(), None);
        }
        Ok(Arc::new(Resident {
            vault,
            roles: RwLock::new(roles_of(&membership)),
            inner: tokio::sync::Mutex::new(Inner {
                membership,
                replicator,
                ranges,
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

    /// All grants, for whoever has shown that they have this recovery key; `None` if it is not this vault's.
    pub async fn grants_for(&self, recovery: &DeviceId) -> Option<Vec<Vec<u8>>> {
        let inner = self.inner.lock().await;
        let key = inner.membership.recovery()?;
        (key.signing == *recovery).then(|| {
            let grants = inner.membership.grants();
            grants.map(|(_, grant)| grant.bytes().to_vec()).collect()
        })
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
}

impl Inner {
    /// Gives a statement that is not kept to everyone else who is connected.
    fn pass_on(&self, from: DeviceId, device: DeviceId, statement: &[u8]) {
        for (peer, queue) in self.queues.iter().filter(|(peer, _)| **peer != from) {
            queue.push(Action::Send {
                peer: *peer,
                message: Message::Held {
                    device,
                    statement: statement.to_vec(),
                },
            });
        }
    }

    /// Hands what is to be sent to the sessions.
    fn enqueue(&mut self, actions: Vec<Action>) {
        for action in actions {
            let peer = match &action {
                Action::Send { peer, .. }
                | Action::KnowsRanges { peer }
                | Action::SendRange { peer, .. }
                | Action::SendAttestations { peer, .. }
                | Action::SendEntries { peer, .. }
                | Action::SendGrants { peer, .. }
                | Action::Close { peer, .. } => *peer,
                // A fork is reported where messages are taken in; found later it was reported before.
                Action::Fork { .. }
                | Action::Ingest { .. }
                | Action::IngestGrants { .. }
                | Action::IngestRange { .. }
                | Action::IngestAttestations { .. }
                | Action::IngestHeld { .. } => continue,
            };
            if let Some(queue) = self.queues.get(&peer) {
                queue.push(action);
            }
        }
    }
}

fn roles_of(membership: &Membership) -> Roles {
    let devices = membership.devices().iter();
    Arc::new(devices.map(|(id, device)| (*id, device.role)).collect())
}
