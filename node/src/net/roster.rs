//! Who is connected, over what, and how much it is used: the one table that the swarm writes and all handles read.
//!
//! *One connection is used per device.* Both transports, and both sides, may bring up connections at the same time. New
//! streams go over the best one by [`Rank`], which both sides normally compute alike. The device with the smaller key closes
//! the others once they carry no stream; the larger one never does: so the two can never close each other's choice, whatever
//! they think of the addresses. A connection is closed through the gate in [`Usage`], which admits no stream afterwards, and
//! a stream refused there is opened again elsewhere by [`super::Net::open`]: none is lost.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use libp2p::{Multiaddr, swarm::ConnectionId};
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use super::{
    address::{Device, Place, Transport},
    limits::REPLACED_AFTER,
    streams::OpenRequest,
};

/// How much a connection is used, and the gate that closes it only when it is not used at all.
pub(super) struct Usage {
    /// Streams open or being opened; [`SHUT`] once the gate is shut.
    gate: AtomicUsize,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    born: Instant,
    /// Milliseconds from `born` to the last opening or ending of a stream.
    last_used_ms: AtomicU64,
    /// Whether the swarm waits for the last stream to end.
    tell: AtomicBool,
    idle: Arc<Notify>,
}

const SHUT: usize = 1 << (usize::BITS - 1);

impl Usage {
    fn new(idle: Arc<Notify>) -> Self {
        Self {
            gate: AtomicUsize::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            born: Instant::now(),
            last_used_ms: AtomicU64::new(0),
            tell: AtomicBool::new(false),
            idle,
        }
    }

    /// Counts a stream in; `None` if the connection is being closed.
    pub fn enter(self: &Arc<Self>) -> Option<InUse> {
        self.touch();
        self.gate
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |open| {
                (open & SHUT == 0).then_some(open + 1)
            })
            .ok()
            .map(|_| InUse(self.clone()))
    }

    /// Shuts the gate if no stream is open; the connection must then be closed.
    pub fn shut_if_idle(&self) -> bool {
        self.gate
            .compare_exchange(0, SHUT, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    pub fn is_shut(&self) -> bool {
        self.gate.load(Ordering::SeqCst) & SHUT != 0
    }

    /// Streams open now.
    pub fn open(&self) -> usize {
        self.gate.load(Ordering::SeqCst) & !SHUT
    }

    /// Since when no stream was open; `None` while one is, and then the swarm is woken when the last one ends.
    pub fn idle_since(&self) -> Option<Instant> {
        self.tell.store(true, Ordering::SeqCst);
        (self.open() == 0)
            .then(|| self.born + Duration::from_millis(self.last_used_ms.load(Ordering::Acquire)))
    }

    pub fn add_in(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn add_out(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Ordering::Relaxed)
    }

    fn touch(&self) {
        let at = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_used_ms.store(at, Ordering::Release);
    }
}

/// A stream's part in the use of its connection; ends with it.
pub(super) struct InUse(pub Arc<Usage>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.touch();
        let before = self.0.gate.fetch_sub(1, Ordering::SeqCst);
        if before & !SHUT == 1 && self.0.tell.swap(false, Ordering::SeqCst) {
            self.0.idle.notify_one();
        }
    }
}

/// One connection.
pub(super) struct Connection {
    pub id: ConnectionId,
    pub device: Device,
    pub address: Multiaddr,
    pub transport: Transport,
    pub outbound: bool,
    pub since: Instant,
    pub since_wall: SystemTime,
    /// To the connection's handler.
    pub opener: mpsc::Sender<OpenRequest>,
    /// Room for outbound streams; closed with the connection.
    pub slots: Arc<Semaphore>,
    /// Room for inbound streams of each protocol; shared by all connections of the device.
    pub inbound: Arc<[Arc<Semaphore>]>,
    pub usage: Arc<Usage>,
    /// Set, or dropped with the connection, when nothing will come from it any more: wakes whoever waits on a stream.
    pub dead: watch::Sender<bool>,
}

impl Connection {
    /// Whether the other end is this very machine.
    pub fn is_loopback(&self) -> bool {
        Place::of(&self.address).is_some_and(|place| place.ip.is_loopback())
    }
}

/// The order of preference among the connections of a device; the smallest is used. Both ends compute the same, but for
/// clocks and translated addresses.
type Rank = (bool, bool, bool, Reverse<Instant>);

/// What there is for someone who wants to open a stream.
pub(super) enum Pick {
    /// Over this connection.
    Use(Arc<Connection>),
    /// A connection is on its way, or one that cannot be used is about to go: wait for a change.
    Wait,
    /// Nothing.
    Nothing,
}

#[derive(Default)]
struct Table {
    devices: BTreeMap<Device, Entry>,
    wanted: BTreeSet<Device>,
    expected: BTreeSet<Device>,
    discovered: BTreeMap<Device, BTreeSet<Multiaddr>>,
    listening: Vec<Multiaddr>,
    closed: bool,
}

struct Entry {
    inbound: Arc<[Arc<Semaphore>]>,
    connections: Vec<Arc<Connection>>,
}

/// The table.
pub(super) struct Roster {
    own: Device,
    table: Mutex<Table>,
    changed: watch::Sender<u64>,
    /// Wakes the swarm when a connection that it wants to close has become idle.
    pub idle: Arc<Notify>,
    /// Streams refused since the start.
    pub refused: AtomicU64,
}

impl Roster {
    pub fn new(own: Device) -> Self {
        Self {
            own,
            table: Mutex::default(),
            changed: watch::Sender::new(0),
            idle: Arc::default(),
            refused: AtomicU64::new(0),
        }
    }

    pub fn own(&self) -> Device {
        self.own
    }

    /// The table is never left half-changed, so a panic elsewhere while it was held does not matter.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bump(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// Wakes whenever connections or expectations change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    // ---- connections

    /// Makes the record of a connection that is about to be established. `per_device` says how many inbound streams of
    /// each protocol one device may have.
    pub fn prepare(
        &self,
        (id, device): (ConnectionId, Device),
        (address, transport, outbound): (Multiaddr, Transport, bool),
        opener: mpsc::Sender<OpenRequest>,
        slots: usize,
        per_device: &[usize],
    ) -> Arc<Connection> {
        let inbound = match self.table().devices.get(&device) {
            Some(entry) => entry.inbound.clone(),
            None => per_device
                .iter()
                .map(|most| Arc::new(Semaphore::new(*most)))
                .collect(),
        };
        Arc::new(Connection {
            id,
            device,
            address,
            transport,
            outbound,
            since: Instant::now(),
            since_wall: SystemTime::now(),
            opener,
            slots: Arc::new(Semaphore::new(slots)),
            inbound,
            usage: Arc::new(Usage::new(self.idle.clone())),
            dead: watch::Sender::new(false),
        })
    }

    pub fn insert(&self, connection: Arc<Connection>) {
        let mut table = self.table();
        let entry = table
            .devices
            .entry(connection.device)
            .or_insert_with(|| Entry {
                inbound: connection.inbound.clone(),
                connections: Vec::new(),
            });
        entry.connections.push(connection);
        drop(table);
        self.bump();
    }

    pub fn remove(&self, device: &Device, id: ConnectionId) {
        let mut table = self.table();
        if let Some(entry) = table.devices.get_mut(device) {
            entry.connections.retain(|connection| {
                if connection.id == id {
                    connection.slots.close();
                }
                connection.id != id
            });
            if entry.connections.is_empty() {
                table.devices.remove(device);
                if table.wanted.contains(device) {
                    // The swarm will dial again in a moment: those who open a stream now may wait for it.
                    table.expected.insert(*device);
                }
            }
        }
        drop(table);
        self.bump();
    }

    /// The connection for a new stream, other than those that refused it already.
    pub fn pick(&self, device: &Device, refused_by: &BTreeSet<ConnectionId>) -> Pick {
        let table = self.table();
        let connections = table
            .devices
            .get(device)
            .map(|entry| entry.connections.as_slice())
            .unwrap_or_default();
        if let Some(best) = self.best(
            device,
            connections
                .iter()
                .filter(|one| !refused_by.contains(&one.id)),
        ) {
            return Pick::Use(best.clone());
        }
        if !table.closed && (!connections.is_empty() || table.expected.contains(device)) {
            Pick::Wait
        } else {
            Pick::Nothing
        }
    }

    /// The connections of a device that are not the best one.
    pub fn surplus(&self) -> Vec<Arc<Connection>> {
        let table = self.table();
        let several = table
            .devices
            .iter()
            .filter(|(_, entry)| entry.connections.len() > 1);
        several
            .flat_map(|(device, entry)| {
                let best = self
                    .best(device, entry.connections.iter())
                    .map(|best| best.id);
                entry
                    .connections
                    .iter()
                    .filter(move |one| Some(one.id) != best)
            })
            .cloned()
            .collect()
    }

    fn best<'a>(
        &self,
        device: &Device,
        connections: impl Iterator<Item = &'a Arc<Connection>> + Clone,
    ) -> Option<&'a Arc<Connection>> {
        let newest = connections.clone().map(|one| one.since).max()?;
        connections.min_by_key(|one| self.rank(device, one, newest))
    }

    fn rank(&self, device: &Device, connection: &Connection, newest: Instant) -> Rank {
        let replaced = newest - connection.since > REPLACED_AFTER;
        let preferred = Place::of(&connection.address).is_some_and(|place| place.is_preferred());
        let by_the_smaller = connection.outbound == (self.own < *device);
        (
            replaced,
            !preferred,
            !by_the_smaller,
            Reverse(connection.since),
        )
    }

    /// Whether it is for this side to close surplus connections with `device`.
    pub fn closes_surplus(&self, device: &Device) -> bool {
        self.own < *device
    }

    pub fn connections(&self) -> Vec<Arc<Connection>> {
        self.table()
            .devices
            .values()
            .flat_map(|entry| entry.connections.iter().cloned())
            .collect()
    }

    pub fn connections_of(&self, device: &Device) -> Vec<Arc<Connection>> {
        self.table()
            .devices
            .get(device)
            .map(|entry| entry.connections.clone())
            .unwrap_or_default()
    }

    pub fn is_connected(&self, device: &Device) -> bool {
        self.table().devices.contains_key(device)
    }

    /// Inbound connections of devices that are not wanted.
    pub fn strangers(&self) -> usize {
        let table = self.table();
        let strange = table
            .devices
            .iter()
            .filter(|(device, _)| !table.wanted.contains(*device));
        strange
            .flat_map(|(_, entry)| &entry.connections)
            .filter(|connection| !connection.outbound)
            .count()
    }

    // ---- what the swarm knows besides

    pub fn is_wanted(&self, device: &Device) -> bool {
        self.table().wanted.contains(device)
    }

    pub fn set_wanted(&self, wanted: BTreeSet<Device>) {
        self.table().wanted = wanted;
    }

    pub fn set_expected(&self, expected: BTreeSet<Device>) {
        let mut table = self.table();
        if table.expected != expected {
            table.expected = expected;
            drop(table);
            self.bump();
        }
    }

    pub fn listening(&self) -> Vec<Multiaddr> {
        self.table().listening.clone()
    }

    pub fn set_listening(&self, addresses: Vec<Multiaddr>) {
        self.table().listening = addresses;
    }

    pub fn discovered(&self) -> BTreeMap<Device, BTreeSet<Multiaddr>> {
        self.table().discovered.clone()
    }

    pub fn with_discovered<T>(
        &self,
        act: impl FnOnce(&mut BTreeMap<Device, BTreeSet<Multiaddr>>) -> T,
    ) -> T {
        act(&mut self.table().discovered)
    }

    /// No connection will come any more.
    pub fn close(&self) {
        self.table().closed = true;
        self.bump();
    }

    pub fn is_closed(&self) -> bool {
        self.table().closed
    }
}
