//! The handle to the network, and how it starts.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{Arc, atomic::Ordering},
};

use libp2p::{Multiaddr, PeerId, StreamProtocol};
use tokio::{
    sync::{Mutex, broadcast, mpsc, oneshot},
    task::JoinHandle,
};

use super::{
    ConnectionInfo, DialError, Incoming, NetConfig, NetEvent, OpenError, Protocol, RelayLoad,
    StartError,
    address::{Device, device_of, peer_of},
    limits::{self, OPEN_TIMEOUT, Patience},
    presence,
    roster::{self, Pick, Roster},
    stream::{Origin, Stream},
    streams::{Failure, Served, Shared},
    swarm::{Actor, Command},
};

/// The handle to the network. Cheap to clone; when the last one is dropped, the network shuts down.
#[derive(Clone)]
pub struct Net {
    commands: mpsc::Sender<Command>,
    events: broadcast::Sender<NetEvent>,
    pub(super) roster: Arc<Roster>,
    peer: PeerId,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Times that a stream is tried anew after its connection broke under it.
const OPEN_RETRIES: usize = 3;

impl Net {
    /// Starts listening, and mDNS if it can. Must run inside a tokio runtime; a task of it runs the swarm until
    /// [`Net::shutdown`].
    pub async fn start(config: NetConfig) -> Result<(Net, Incoming), StartError> {
        Self::start_with(config, Patience::default()).await
    }

    pub(super) async fn start_with(
        mut config: NetConfig,
        patience: Patience,
    ) -> Result<(Net, Incoming), StartError> {
        // Which wipes it where it was.
        let keypair = libp2p::identity::Keypair::ed25519_from_bytes(&mut config.key[..])
            .map_err(|e| StartError::Config(e.to_string()))?;
        let peer = keypair.public().to_peer_id();
        let own = device_of(&peer)
            .ok_or_else(|| StartError::Config("the key is no Ed25519 key".into()))?;
        let mut incoming = HashMap::new();
        let mut served = Vec::with_capacity(config.protocols.len());
        for Protocol {
            name,
            queue,
            per_device,
        } in config.protocols
        {
            if queue == 0 || name == presence::PRESENCE {
                return Err(StartError::Config(format!(
                    "{name} is ours, or has no room in its queue"
                )));
            }
            let (sender, receiver) = mpsc::channel(queue);
            if incoming.insert(name.clone(), receiver).is_some() {
                return Err(StartError::Config(format!("{name} is named twice")));
            }
            served.push(Served {
                name,
                queue: sender,
                per_device,
            });
        }
        let roster = Arc::new(Roster::new(own));
        let shared = Arc::new(Shared {
            roster: roster.clone(),
            served,
            role: config.role,
            door: config.door,
        });
        let (commands, inbox) = mpsc::channel(limits::COMMANDS);
        let events = broadcast::Sender::new(limits::EVENTS);
        let listen = (config.listen.as_slice(), config.mdns, patience);
        let actor = Actor::start(keypair, listen, shared, inbox, events.clone()).await?;
        let task = Arc::new(Mutex::new(Some(tokio::spawn(actor.run()))));
        Ok((
            Net {
                commands,
                events,
                roster,
                peer,
                task,
            },
            Incoming(incoming),
        ))
    }

    /// This device.
    pub fn local_device(&self) -> Device {
        self.roster.own()
    }

    /// This device as libp2p names it.
    pub fn local_peer(&self) -> PeerId {
        self.peer
    }

    /// Addresses at which this node listens now, of its interfaces, loopback last, without `/p2p`.
    pub fn listen_addresses(&self) -> Vec<Multiaddr> {
        self.roster.listening()
    }

    /// Opens a stream. `Ok` means that it is in the other side's queue. Waits for a connection if one is on its way, for
    /// room among our streams to the device, and for the answer: all within [`OPEN_TIMEOUT`]. Cancel safe: the other side
    /// then may see a stream that is reset at once.
    pub async fn open(
        &self,
        device: Device,
        protocol: StreamProtocol,
    ) -> Result<Stream, OpenError> {
        let opened =
            tokio::time::timeout(OPEN_TIMEOUT, self.open_patiently(device, &protocol)).await;
        opened.unwrap_or(Err(OpenError::Timeout))
    }

    async fn open_patiently(
        &self,
        device: Device,
        protocol: &StreamProtocol,
    ) -> Result<Stream, OpenError> {
        let mut changes = self.roster.changes();
        let mut refused_by = BTreeSet::new();
        let mut broken = 0;
        loop {
            changes.borrow_and_update();
            if self.roster.is_closed() {
                return Err(OpenError::Closed);
            }
            let connection = match self.roster.pick(&device, &refused_by) {
                Pick::Use(connection) => connection,
                Pick::Wait => {
                    changes.changed().await.map_err(|_| OpenError::Closed)?;
                    continue;
                }
                Pick::Nothing => return Err(OpenError::NotConnected),
            };
            match connection.open(protocol).await {
                Ok(stream) => return Ok(stream),
                Err(Failure::Gone | Failure::Moved) => {
                    refused_by.insert(connection.id);
                }
                Err(Failure::Broken) if broken < OPEN_RETRIES => broken += 1,
                Err(Failure::Broken) => return Err(OpenError::Broken),
                Err(Failure::Busy) => return Err(OpenError::Busy),
                Err(Failure::Unsupported) => return Err(OpenError::Unsupported),
                Err(Failure::Timeout) => return Err(OpenError::Timeout),
            }
        }
    }

    /// Waits until it is the turn of the node that a stream has come from: at once, but where several nodes have the keys of
    /// one device. `false` if the connection ended before.
    pub async fn in_turn(&self, mut origin: Origin) -> bool {
        let mut changes = self.roster.changes();
        loop {
            changes.borrow_and_update();
            if self.roster.is_in_turn(&origin.device, origin.instance()) {
                return true;
            }
            tokio::select! {
                () = origin.died() => return false,
                changed = changes.changed() => if changed.is_err() {
                    return false;
                }
            }
        }
    }

    /// Whether several nodes with the keys of this device were connected lately: somebody runs a copy of its data folder.
    pub fn is_several(&self, device: &Device) -> bool {
        self.roster.is_several(device)
    }

    /// Dials once, all addresses, preferred ones first; `Ok` when a connection exists (at once if it did already). The
    /// connection of a device that is not wanted ends 20 s after its last stream.
    pub async fn dial(&self, device: Device, addresses: Vec<Multiaddr>) -> Result<(), DialError> {
        if peer_of(&device).is_none() || device == self.local_device() {
            return Err(DialError::BadKey);
        }
        let (reply, outcome) = oneshot::channel();
        let command = Command::Dial {
            device,
            addresses,
            reply,
        };
        self.commands
            .send(command)
            .await
            .map_err(|_| DialError::Closed)?;
        outcome.await.unwrap_or(Err(DialError::Closed))
    }

    /// Dials addresses of which it is not known whose they are (at most 16, all at once); gives the first device that
    /// answers at one of them. Its connection ends 20 s after its last stream unless the device is wanted.
    pub async fn dial_unknown(&self, addresses: Vec<Multiaddr>) -> Result<Device, DialError> {
        let (reply, outcome) = oneshot::channel();
        self.commands
            .send(Command::DialUnknown { addresses, reply })
            .await
            .map_err(|_| DialError::Closed)?;
        outcome.await.unwrap_or(Err(DialError::Closed))
    }

    /// Replaces the set of devices that are kept connected, with the addresses that the caller knows, best first. A device
    /// without addresses is dialled when mDNS shows it, or waited for. Those that leave the set keep their connections
    /// while they use them, and 20 s more.
    pub async fn set_wanted(&self, wanted: BTreeMap<Device, Vec<Multiaddr>>) {
        self.tell_actor(|done| Command::SetWanted { wanted, done })
            .await;
    }

    /// Replaces the set of hosts in use (8 at most), with the addresses that the caller knows, best first. They are kept
    /// connected, take connections for this device, and wanted devices are reached through them. Connections to those that
    /// leave the set are closed.
    pub async fn set_relays(&self, relays: BTreeMap<Device, Vec<Multiaddr>>) {
        self.tell_actor(|done| Command::SetRelays { relays, done })
            .await;
    }

    /// A wanted device has given a sign of life, by way of somebody else: if it is not connected it is dialled now, and not
    /// when its turn comes.
    pub async fn heard_of(&self, device: Device) {
        self.tell_actor(|done| Command::HeardOf { device, done })
            .await;
    }

    /// Hosts that take connections for this device now; on a host, the clients for which it does.
    pub fn reservations(&self) -> BTreeSet<Device> {
        self.roster.reserved()
    }

    /// Replaces the set of devices that may use this host: be reached through it, and reach others. Their connections are
    /// kept while idle and count as no strangers'; those that leave the set are cut off. Of no effect on a device.
    pub async fn set_relay_clients(&self, clients: BTreeSet<Device>) {
        self.tell_actor(|done| Command::SetClients { clients, done })
            .await;
    }

    /// Takes a device among those that may use this host for as long as it is connected; nothing if it is not.
    pub async fn admit_relay_client(&self, device: Device) {
        self.tell_actor(|done| Command::SetClient {
            device,
            while_connected: true,
            done,
        })
        .await;
    }

    /// Takes a device out of them unless it has connected again.
    pub async fn forget_relay_client(&self, device: Device) {
        self.tell_actor(|done| Command::SetClient {
            device,
            while_connected: false,
            done,
        })
        .await;
    }

    /// Whether a device may use this host.
    pub fn is_relay_client(&self, device: &Device) -> bool {
        self.roster.is_client(device)
    }

    /// Devices that may use this host.
    pub fn relay_clients(&self) -> BTreeSet<Device> {
        self.roster.clients()
    }

    /// What this host does for its clients as a carrier of connections.
    pub fn relay_load(&self) -> RelayLoad {
        let (circuits, circuits_total, refused_total) = self.roster.load.counts();
        RelayLoad {
            reservations: self.roster.reserved().len() as u64,
            circuits,
            circuits_total,
            refused_total,
        }
    }

    /// Where this node can be reached from outside, as its hosts have tried; on a host, what it announces.
    pub fn external_addresses(&self) -> Vec<Multiaddr> {
        self.roster.external().into_iter().collect()
    }

    async fn tell_actor(&self, command: impl FnOnce(oneshot::Sender<()>) -> Command) {
        let (done, waiting) = oneshot::channel();
        if self.commands.send(command(done)).await.is_ok() {
            waiting.await.ok();
        }
    }

    /// Subscribes to what happens from now on.
    pub fn events(&self) -> broadcast::Receiver<NetEvent> {
        self.events.subscribe()
    }

    /// All connections now.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.roster.connections().iter().map(info).collect()
    }

    /// Those with one device.
    pub fn connections_of(&self, device: &Device) -> Vec<ConnectionInfo> {
        let connections = self.roster.connections_of(device);
        connections.iter().map(info).collect()
    }

    /// How many there are.
    pub fn connection_count(&self) -> usize {
        self.roster.count()
    }

    /// Connections that were not let in since the start: beyond a bound, or by the [`Door`](super::Door).
    pub fn turned_away(&self) -> u64 {
        self.roster.turned_away.load(Ordering::Relaxed)
    }

    /// Whether a connection with the device exists.
    pub fn is_connected(&self, device: &Device) -> bool {
        self.roster.is_connected(device)
    }

    /// Devices that mDNS shows now, wanted or not, and where.
    pub fn discovered(&self) -> BTreeMap<Device, Vec<Multiaddr>> {
        let discovered = self.roster.discovered().into_iter();
        discovered
            .map(|(device, addresses)| (device, addresses.into_iter().collect()))
            .collect()
    }

    /// Inbound streams refused since the start, for whatever reason.
    pub fn refused_streams(&self) -> u64 {
        self.roster.refused.load(Ordering::Relaxed)
    }

    /// Closes all connections with a device, and breaks its streams. One that is wanted is dialled again: take it from the
    /// set first.
    pub async fn close_peer(&self, device: Device) {
        self.tell_actor(|done| Command::Close { device, done })
            .await;
    }

    /// Closes everything; returns when the swarm has ended. All later calls fail with `Closed`.
    pub async fn shutdown(&self) {
        self.commands.send(Command::Shutdown).await.ok();
        if let Some(task) = self.task.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the network task failed");
        }
    }
}

fn info(connection: &Arc<roster::Connection>) -> ConnectionInfo {
    ConnectionInfo {
        device: connection.device,
        address: connection.address.clone(),
        transport: connection.transport,
        relayed: connection.relayed,
        outbound: connection.outbound,
        bytes_in: connection.usage.bytes_in(),
        bytes_out: connection.usage.bytes_out(),
        streams: connection.usage.open(),
        since: connection.since_wall,
    }
}
