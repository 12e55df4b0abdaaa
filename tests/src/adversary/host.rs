//! A simulated host: what `node/src/relay` does with streams and threads, in single steps, by the same decisions.

use std::collections::BTreeMap;

use bytes::Bytes;
use coffer_node::relay::decisions::{
    Checked, Ground, check, fresh_grants, look_after, next_statement, spaces_of, statement_counter,
    writing,
};
use coffer_node::relay::store::memory::MemoryStore;
use coffer_node::relay::store::{Appended, HeldStatement, Invitation, RelayStore, StoreError};
use coffer_protocol::grants::{Membership, Role};
use coffer_protocol::identity::{DeviceId, DeviceKey, Hash, VaultId, WriterId};
use coffer_protocol::keys::SealingKey;
use coffer_protocol::relay::{Answer, HostStatement, Request};
use coffer_protocol::replication::{
    Action, ENTRIES_TARGET, Message, Outbox, Rejection, Replicator, Work,
};
use futures::FutureExt;

/// Bytes that the vault may use: more than a run writes.
const QUOTA: u64 = 1 << 30;

/// A host and what it keeps of one vault.
pub struct Host {
    secrets: [[u8; 32]; 2],
    vault: VaultId,
    /// What it keeps.
    pub store: MemoryStore,
    membership: Membership,
    replicator: Replicator,
    held: BTreeMap<DeviceId, u64>,
    sessions: BTreeMap<DeviceId, Outbox>,
    /// Something became durable since it last stated what it has.
    unstated: bool,
}

/// What the store says. In memory it never waits.
fn now<T>(asked: impl Future<Output = Result<T, StoreError>>) -> T {
    match asked.now_or_never() {
        Some(Ok(value)) => value,
        Some(Err(error)) => panic!("the store of a host failed: {error}"),
        None => panic!("the store in memory waits"),
    }
}

impl Host {
    /// A host that begins to keep a vault, in a store with this id.
    pub fn begins(
        secrets: [[u8; 32]; 2],
        vault: VaultId,
        grants: &[Vec<u8>],
        store_id: [u8; 16],
        now_ms: u64,
    ) -> Host {
        let store = MemoryStore::new();
        let invitation = Invitation {
            id: Hash([1; 32]),
            check: Bytes::new(),
            quota: QUOTA,
            made_ms: now_ms,
            expires_ms: now_ms + 1,
            used: None,
        };
        now(store.add_invitation(invitation));
        now(store.consume_invitation(Hash([1; 32]), vault, store_id, now_ms));
        let grants = grants.iter().map(|bytes| {
            let id = coffer_protocol::grants::SignedGrant::decode(bytes);
            let id = id.unwrap_or_else(|error| panic!("a grant of a device: {error}"));
            (id.id(), Bytes::copy_from_slice(bytes))
        });
        now(store.put_grants(vault, grants.collect()));
        Host::on(secrets, vault, store)
    }

    /// One that starts on what its store has, as `Resident::load` does.
    pub fn on(secrets: [[u8; 32]; 2], vault: VaultId, store: MemoryStore) -> Host {
        let Some(snapshot) = now(store.snapshot(vault)) else {
            panic!("the host does not keep the vault");
        };
        let membership = Membership::from_bytes(vault, now(store.grants(vault)));
        let membership = membership.unwrap_or_else(|error| panic!("stored grants: {error}"));
        let mut replicator = Replicator::new(vault, membership.heads(), snapshot.clock);
        let mut held = BTreeMap::new();
        for statement in now(store.held(vault)) {
            held.insert(statement.device, statement.counter);
            replicator.held_changed(statement.device, statement.bytes.to_vec(), None);
        }
        let mut host = Host {
            secrets,
            vault,
            store,
            membership,
            replicator,
            held,
            sessions: BTreeMap::new(),
            unstated: snapshot.statement.is_none(),
        };
        if let Some(statement) = snapshot.statement {
            let id = host.id();
            host.replicator.held_changed(id, statement.to_vec(), None);
        }
        host
    }

    /// The same host on a copy of what it keeps, with nobody connected.
    pub fn copy(&self) -> Host {
        let store = self.store.copy();
        let store = store.unwrap_or_else(|error| panic!("a store in memory: {error}"));
        Host::on(self.secrets, self.vault, store)
    }

    fn key(&self) -> DeviceKey {
        DeviceKey::from_secret(self.secrets[0])
    }

    /// Its id.
    pub fn id(&self) -> DeviceId {
        self.key().id()
    }

    /// Its keys.
    pub fn secrets(&self) -> [[u8; 32]; 2] {
        self.secrets
    }

    /// What it is admitted with.
    pub fn sealing(secrets: [[u8; 32]; 2]) -> SealingKey {
        SealingKey::from_seed(secrets[1])
    }

    /// The grants that it has.
    pub fn grants(&self) -> Vec<Vec<u8>> {
        let grants = self.membership.grants();
        grants.map(|(_, grant)| grant.bytes().to_vec()).collect()
    }

    /// A device opened a session.
    pub fn connect(&mut self, device: DeviceId) {
        assert!(
            self.membership.role(&device).is_some_and(Role::holds_keys),
            "a stranger"
        );
        self.sessions.insert(device, Outbox::new());
        let actions = self.replicator.connected(device);
        self.enqueue(actions);
    }

    /// It ended.
    pub fn disconnect(&mut self, device: DeviceId) {
        self.sessions.remove(&device);
        self.replicator.disconnected(device);
    }

    fn enqueue(&mut self, actions: Vec<Action>) {
        for action in actions {
            let peer = match &action {
                Action::Send { peer, .. }
                | Action::SendEntries { peer, .. }
                | Action::SendGrants { peer, .. }
                | Action::Close { peer, .. } => *peer,
                _ => continue,
            };
            if let Some(outbox) = self.sessions.get_mut(&peer) {
                outbox.push(action);
            }
        }
    }

    /// A device says something.
    pub fn receive(&mut self, device: DeviceId, message: Message) {
        for action in self.replicator.received(device, message) {
            match action {
                Action::IngestGrants { grants, .. } => self.take_grants(&grants),
                Action::Ingest { entries, round, .. } => {
                    self.take_entries(device, entries, round);
                }
                Action::IngestHeld {
                    device: of,
                    statement,
                    ..
                } => self.take_held(device, of, statement),
                other => self.enqueue(vec![other]),
            }
        }
    }

    fn take_grants(&mut self, grants: &[Vec<u8>]) {
        let (fresh, refused) = fresh_grants(&mut self.membership, grants);
        assert!(!refused, "a device sends a grant that is none");
        if !fresh.is_empty() {
            now(self.store.put_grants(self.vault, fresh));
            let actions = self.replicator.grants_changed(self.membership.heads());
            self.enqueue(actions);
        }
    }

    fn take_entries(&mut self, from: DeviceId, entries: Vec<Vec<u8>>, round: u32) {
        let ground = Ground {
            vault: self.vault,
            from,
            writing: writing(&self.membership, &entries),
            spaces: spaces_of(&self.membership),
            clock: self.replicator.clock().clone(),
        };
        let Checked { good, mut refused } = check(&ground, entries);
        let places: Vec<(WriterId, u64, Hash)> = good
            .iter()
            .map(|entry| (entry.writer, entry.seq, entry.header))
            .collect();
        let mut durable = Vec::new();
        let outcomes = now(self.store.append(self.vault, good));
        for ((writer, seq, header), outcome) in places.into_iter().zip(outcomes) {
            match outcome {
                Appended::Stored | Appended::Had => durable.push((writer, seq, header)),
                Appended::Gap { .. } => refused.push(Rejection::Gap),
                other => panic!("an entry finds its place taken: {other:?}"),
            }
        }
        if !durable.is_empty() {
            let mut actions = self.replicator.committed(&durable, Some(from));
            actions.extend(self.replicator.announce_clock(from));
            self.enqueue(actions);
            self.unstated = true;
        }
        for why in refused {
            let actions = self.replicator.rejected(from, round, why);
            self.enqueue(actions);
        }
    }

    fn take_held(&mut self, from: DeviceId, device: DeviceId, statement: Vec<u8>) {
        if device == self.id() {
            return;
        }
        let Some(counter) = statement_counter(&self.membership, device, &statement) else {
            panic!("a device passes on what is no statement");
        };
        let known = self.held.get(&device).copied();
        if known.is_some_and(|known| known >= counter) {
            let is_host = self.membership.role(&device) == Some(Role::Relay);
            let differs = || self.held(device).is_some_and(|kept| kept != statement);
            if is_host && known == Some(counter) && differs() {
                let peers = self.sessions.keys().copied();
                let actions = peers.filter(|peer| *peer != from).map(|peer| Action::Send {
                    peer,
                    message: Message::Held {
                        device,
                        statement: statement.clone(),
                    },
                });
                let actions = actions.collect();
                self.enqueue(actions);
            }
            return;
        }
        let record = HeldStatement {
            device,
            counter,
            bytes: Bytes::from(statement.clone()),
        };
        if now(self.store.put_held(self.vault, record)) {
            self.held.insert(device, counter);
            let actions = self.replicator.held_changed(device, statement, Some(from));
            self.enqueue(actions);
        }
    }

    /// States what is new; says whether anything is.
    pub fn state_if_new(&mut self, now_ms: u64) -> bool {
        let is_new = std::mem::take(&mut self.unstated);
        if is_new {
            self.state(now_ms);
        }
        is_new
    }

    /// States what it has.
    pub fn state(&mut self, now_ms: u64) {
        let Some(snapshot) = now(self.store.snapshot(self.vault)) else {
            panic!("the host does not keep the vault any more");
        };
        let value = next_statement(snapshot, self.id(), now_ms);
        let counter = value.counter;
        let statement = HostStatement::sign(value, &self.key());
        let statement = statement.unwrap_or_else(|error| panic!("a statement: {error}"));
        let bytes = statement.bytes().to_vec();
        let stored = Bytes::from(bytes.clone());
        assert!(now(self
            .store
            .put_host_statement(self.vault, counter, stored)));
        let id = self.id();
        let mut actions = self.replicator.held_changed(id, bytes, None);
        for device in self.sessions.keys() {
            actions.extend(self.replicator.announce_clock(*device));
        }
        self.enqueue(actions);
    }

    /// The last statement that it made.
    pub fn statement(&self) -> Option<Vec<u8>> {
        let snapshot = now(self.store.snapshot(self.vault))?;
        snapshot.statement.map(|bytes| bytes.to_vec())
    }

    /// The next messages to a device; `None` when there is nothing, or the session ends.
    pub fn next(&mut self, device: DeviceId) -> Option<Vec<Message>> {
        let outbox = self.sessions.get_mut(&device)?;
        Some(match outbox.take_next()? {
            Work::Message(message) => vec![message],
            Work::Grants { they_have } => {
                let missing = self.membership.missing(&they_have).into_iter();
                let grants = missing.map(|grant| grant.bytes().to_vec()).collect();
                Message::grants(&self.membership.heads(), grants)
            }
            Work::Entries {
                writer, from, to, ..
            } => {
                let entries = self
                    .store
                    .entries(self.vault, writer, from, to, ENTRIES_TARGET);
                let entries = now(entries);
                let last = entries.last().map(|entry| entry.seq);
                outbox.sent(writer, last.unwrap_or(to));
                let entries = entries.into_iter().map(|entry| entry.bytes.to_vec());
                vec![Message::Entries(entries.collect())]
            }
            Work::Range(_) | Work::Attestations(_) => panic!("a host does not know ranges"),
            Work::Close(reason) => panic!("a host closes the session with a device: {reason}"),
        })
    }

    /// A device asks something about blobs, or leaves some.
    pub fn answer(&mut self, device: DeviceId, request: Request, now_ms: u64) -> Answer {
        now(look_after(&self.store, device, request, now_ms))
    }

    /// A device leaves blobs.
    pub fn put(&mut self, blobs: Vec<(Hash, Vec<u8>)>) {
        let blobs = blobs.into_iter();
        let blobs: Vec<_> = blobs.map(|(id, bytes)| (id, Bytes::from(bytes))).collect();
        self.unstated |= !blobs.is_empty();
        now(self.store.put(self.vault, blobs));
    }

    /// Replaces the bytes of a blob, or loses it.
    pub fn damage(&mut self, id: Hash, bytes: Option<Vec<u8>>) {
        let done = self.store.damage(self.vault, id, bytes.map(Bytes::from));
        assert!(done.is_ok_and(|done| done), "a blob that is there");
    }

    /// An entry that it keeps.
    pub fn entry(&self, writer: WriterId, seq: u64) -> Option<Vec<u8>> {
        let found = self
            .store
            .entries(self.vault, writer, seq, seq, ENTRIES_TARGET);
        now(found).first().map(|entry| entry.bytes.to_vec())
    }

    /// The entries that it keeps, as a clock.
    pub fn clock(&self) -> coffer_protocol::log::Clock {
        self.replicator.clock().clone()
    }

    /// The statement of a device that it keeps.
    pub fn held(&self, device: DeviceId) -> Option<Vec<u8>> {
        let all = now(self.store.held(self.vault));
        let found = all.into_iter().find(|held| held.device == device);
        found.map(|held| held.bytes.to_vec())
    }
}
