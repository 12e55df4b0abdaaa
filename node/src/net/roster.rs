//! Who is connected, over what, and how much it is used: the one table that the swarm writes and all handles read.
//!
//! *One connection is used per device.* Both transports, and both sides, may bring up connections at the same time. New
//! streams go over the best one by [`Rank`], which both sides normally compute alike. The device with the smaller key closes
//! the others once they carry no stream; the larger one never does: so the two can never close each other's choice, whatever
//! they think of the addresses. A connection is closed through the gate in [`Usage`], which admits no stream afterwards, and
//! a stream refused there is opened again elsewhere by [`super::Net::open`]: none is lost.
//!
//! *A direct path comes before one through a host.* No stream is opened over a relayed connection while a direct one exists,
//! and the relayed one is closed by either side, with what is still on it, once the direct one has proved itself.

mod several;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry as Slot},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::AtomicU64},
    time::{Instant, SystemTime},
};

use libp2p::{Multiaddr, swarm::ConnectionId};
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use super::{
    address::{Device, Place, Transport, ip_of, network_of},
    limits::REPLACED_AFTER,
    streams::OpenRequest,
    turns::{self, Instance, Turns},
    usage::{Load, Usage},
};

/// One connection.
pub(super) struct Connection {
    pub id: ConnectionId,
    pub device: Device,
    pub address: Multiaddr,
    pub transport: Transport,
    /// The host that carries it, if it is not direct; address and transport are then those of the way to that host.
    pub relayed: Option<Device>,
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
    /// Which run of the device's node is at the other end, once it has said so.
    pub instance: Arc<OnceLock<Instance>>,
}

impl Connection {
    /// The network from which it comes, for limits.
    fn network(&self) -> Option<IpAddr> {
        ip_of(&self.address).map(network_of)
    }

    /// The other end has said which run of its node it is.
    pub fn is_of(&self, instance: Option<Instance>) {
        if let Some(instance) = instance {
            // A connection does not pass from one node to another.
            self.instance.get_or_init(|| instance);
        }
    }

    /// Whether both lead to one node, as far as is known: a copied data folder makes several of one device.
    pub fn is_same_node(&self, other: &Connection) -> bool {
        match (self.instance.get(), other.instance.get()) {
            (Some(one), Some(another)) => one == another,
            _ => true,
        }
    }

    /// Whether the other end is this very machine.
    pub fn is_loopback(&self) -> bool {
        self.relayed.is_none()
            && Place::of(&self.address).is_some_and(|place| place.ip.is_loopback())
    }
}

/// What is known of a connection when its record is made.
pub(super) struct Whence {
    pub address: Multiaddr,
    pub transport: Transport,
    pub relayed: Option<Device>,
    pub outbound: bool,
}

/// The order of preference among the connections of a device, direct ones or relayed ones; the smallest is used. Both ends
/// compute the same, but for clocks and translated addresses.
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
    /// Hosts in use.
    relays: BTreeSet<Device>,
    /// Those of them that take connections for us; on a host, the clients for which it does.
    reserved: BTreeSet<Device>,
    /// Devices that may use this node as a host.
    clients: BTreeSet<Device>,
    expected: BTreeSet<Device>,
    /// Devices with several connections, and those that are not known: each event looks at these, and a host has
    /// thousands of others.
    several: BTreeSet<Device>,
    strange: BTreeSet<Device>,
    present: Present,
    discovered: BTreeMap<Device, BTreeSet<Multiaddr>>,
    listening: Vec<Multiaddr>,
    /// Where a host has reached us from outside.
    external: BTreeSet<Multiaddr>,
    /// Dials of the swarm actor itself, as opposed to those of libp2p's behaviours.
    dialled: BTreeSet<ConnectionId>,
    turns: Turns,
    closed: bool,
}

struct Entry {
    inbound: Arc<[Arc<Semaphore>]>,
    connections: Vec<Arc<Connection>>,
}

/// Inbound connections, for a door: all, and by network.
#[derive(Default)]
struct Present {
    all: usize,
    by_network: HashMap<IpAddr, usize>,
}

impl Present {
    fn came(&mut self, connection: &Connection) {
        if !connection.outbound {
            self.all += 1;
            if let Some(network) = connection.network() {
                *self.by_network.entry(network).or_default() += 1;
            }
        }
    }

    fn went(&mut self, connection: &Connection) {
        if !connection.outbound {
            self.all = self.all.saturating_sub(1);
            if let Some(Slot::Occupied(mut near)) =
                connection.network().map(|one| self.by_network.entry(one))
            {
                *near.get_mut() -= 1;
                if *near.get() == 0 {
                    near.remove();
                }
            }
        }
    }
}

impl Table {
    /// Looks anew who is strange, after it has changed who is known.
    fn reckon_strange(&mut self) {
        let connected = self.devices.keys();
        let strange = connected.filter(|device| !self.knows(device)).copied();
        self.strange = strange.collect();
    }

    fn knows(&self, device: &Device) -> bool {
        self.wanted.contains(device)
            || self.relays.contains(device)
            || self.clients.contains(device)
    }
}

/// The table.
pub(super) struct Roster {
    own: Device,
    instance: Instance,
    table: Mutex<Table>,
    changed: watch::Sender<u64>,
    /// Wakes the swarm when a connection that it wants to close has become idle.
    pub idle: Arc<Notify>,
    /// Streams refused since the start.
    pub refused: AtomicU64,
    /// Connections that were not let in, since the start.
    pub turned_away: AtomicU64,
    /// What a host does for its clients.
    pub load: Load,
}

impl Roster {
    pub fn new(own: Device) -> Self {
        Self {
            own,
            instance: Instance(rand::random()),
            table: Mutex::default(),
            changed: watch::Sender::new(0),
            idle: Arc::default(),
            refused: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            load: Load::default(),
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
        whence: Whence,
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
            address: whence.address,
            transport: whence.transport,
            relayed: whence.relayed,
            outbound: whence.outbound,
            since: Instant::now(),
            since_wall: SystemTime::now(),
            opener,
            slots: Arc::new(Semaphore::new(slots)),
            inbound,
            usage: Arc::new(Usage::new(self.idle.clone())),
            dead: watch::Sender::new(false),
            instance: Arc::default(),
        })
    }

    pub fn insert(&self, connection: Arc<Connection>) {
        let mut table = self.table();
        let device = connection.device;
        table.present.came(&connection);
        let entry = table.devices.entry(device).or_insert_with(|| Entry {
            inbound: connection.inbound.clone(),
            connections: Vec::new(),
        });
        entry.connections.push(connection);
        if entry.connections.len() > 1 {
            table.several.insert(device);
        }
        if !table.knows(&device) {
            table.strange.insert(device);
        }
        drop(table);
        self.bump();
    }

    pub fn remove(&self, device: &Device, id: ConnectionId) {
        let mut guard = self.table();
        let table = &mut *guard;
        if let Some(entry) = table.devices.get_mut(device) {
            entry.connections.retain(|connection| {
                if connection.id == id {
                    connection.slots.close();
                    table.present.went(connection);
                }
                connection.id != id
            });
            if entry.connections.len() < 2 {
                table.several.remove(device);
            }
            if entry.connections.is_empty() {
                table.devices.remove(device);
                table.strange.remove(device);
                if table.wanted.contains(device) || table.relays.contains(device) {
                    // The swarm will dial again in a moment: those who open a stream now may wait for it.
                    table.expected.insert(*device);
                }
            }
        }
        drop(guard);
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
        let connections = turns::in_turn(table.turns.of(device), connections);
        // A direct one that refuses is about to go: the relayed one is not for the time until then.
        let any_direct = connections.iter().any(|one| one.relayed.is_none());
        let usable = connections
            .iter()
            .copied()
            .filter(|one| one.relayed.is_none() == any_direct && !refused_by.contains(&one.id));
        if let Some(best) = self.best(device, usable) {
            return Pick::Use(best.clone());
        }
        if !table.closed && (!connections.is_empty() || table.expected.contains(device)) {
            Pick::Wait
        } else {
            Pick::Nothing
        }
    }

    /// The connections of a device that are not the best one: those that are as direct, since others go by another rule.
    pub fn surplus(&self) -> Vec<Arc<Connection>> {
        let table = self.table();
        let several = table.several.iter();
        several
            .filter_map(|device| Some((device, table.devices.get(device)?)))
            .flat_map(|(device, entry)| {
                let nodes = turns::nodes(table.turns.of(device), &entry.connections);
                nodes.into_iter().map(move |node| (device, node))
            })
            .flat_map(|(device, node)| {
                let any_direct = node.iter().any(|one| one.relayed.is_none());
                let alike = node
                    .into_iter()
                    .filter(move |one| one.relayed.is_none() == any_direct);
                let best = self.best(device, alike.clone()).map(|best| best.id);
                alike.filter(move |one| Some(one.id) != best).cloned()
            })
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

    /// Whether it is for this side to close surplus connections with `device`. Between a host and its client it is the
    /// client, which knows what it has reserved on which.
    pub fn closes_surplus(&self, device: &Device) -> bool {
        let table = self.table();
        if table.clients.contains(device) {
            return false;
        }
        table.relays.contains(device) || self.own < *device
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

    /// Connections of devices that are not known.
    pub fn strange(&self) -> Vec<Arc<Connection>> {
        let table = self.table();
        let entries = table
            .strange
            .iter()
            .filter_map(|one| table.devices.get(one));
        entries
            .flat_map(|entry| entry.connections.iter().cloned())
            .collect()
    }

    /// Inbound connections of devices that are not known.
    pub fn strangers(&self) -> usize {
        let strange = self.strange();
        strange.iter().filter(|one| !one.outbound).count()
    }

    /// Inbound connections: all, and those from a network.
    pub fn present(&self, network: Option<IpAddr>) -> (usize, usize) {
        let table = self.table();
        let near = network.and_then(|network| table.present.by_network.get(&network));
        (table.present.all, near.copied().unwrap_or(0))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        let table = self.table();
        let entries = table.devices.values();
        entries.map(|entry| entry.connections.len()).sum()
    }

    // ---- what the swarm knows besides

    /// Whether a device is kept connected: it is wanted, or a host in use.
    pub fn is_wanted(&self, device: &Device) -> bool {
        let table = self.table();
        table.wanted.contains(device) || table.relays.contains(device)
    }

    /// Whether its connections are kept while nothing uses them: it is wanted, a host in use, or a client of this host.
    pub fn is_known(&self, device: &Device) -> bool {
        self.table().knows(device)
    }

    pub fn is_relay(&self, device: &Device) -> bool {
        self.table().relays.contains(device)
    }

    pub fn is_client(&self, device: &Device) -> bool {
        self.table().clients.contains(device)
    }

    pub fn set_wanted(&self, wanted: BTreeSet<Device>) {
        let mut table = self.table();
        table.wanted = wanted;
        table.reckon_strange();
    }

    pub fn set_relays(&self, relays: BTreeSet<Device>) {
        let mut table = self.table();
        table.relays = relays;
        table.reckon_strange();
    }

    pub fn set_clients(&self, clients: BTreeSet<Device>) {
        let mut table = self.table();
        table.clients = clients;
        table.reckon_strange();
    }

    /// Takes one device among the clients, or out of them.
    pub fn set_client(&self, device: Device, is_one: bool) {
        let mut table = self.table();
        if is_one {
            table.clients.insert(device);
        } else {
            table.clients.remove(&device);
        }
        if table.devices.contains_key(&device) && !table.knows(&device) {
            table.strange.insert(device);
        } else {
            table.strange.remove(&device);
        }
    }

    pub fn clients(&self) -> BTreeSet<Device> {
        self.table().clients.clone()
    }

    /// Hosts that take connections for us; on a host, the clients for which it does.
    pub fn reserved(&self) -> BTreeSet<Device> {
        self.table().reserved.clone()
    }

    /// Notes whether a host takes connections for us; returns whether that is new.
    pub fn set_reserved(&self, host: Device, holds: bool) -> bool {
        let mut table = self.table();
        let is_new = if holds {
            table.reserved.insert(host)
        } else {
            table.reserved.remove(&host)
        };
        drop(table);
        if is_new {
            self.bump();
        }
        is_new
    }

    /// Marks a dial as the swarm actor's own, before it begins.
    pub fn dialling(&self, id: ConnectionId) {
        self.table().dialled.insert(id);
    }

    /// Such a dial has ended; returns whether it was one.
    pub fn dialled(&self, id: ConnectionId) -> bool {
        self.table().dialled.remove(&id)
    }

    pub fn is_dialling(&self, id: ConnectionId) -> bool {
        self.table().dialled.contains(&id)
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

    /// Where this node can be reached from outside, as hosts have tried.
    pub fn external(&self) -> BTreeSet<Multiaddr> {
        self.table().external.clone()
    }

    pub fn with_external<T>(&self, act: impl FnOnce(&mut BTreeSet<Multiaddr>) -> T) -> T {
        act(&mut self.table().external)
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
