//! The network of a node: one libp2p swarm behind an actor, and the cheap cloneable handle [`Net`] to it.
//!
//! It connects devices and carries streams between them. It knows nothing of vaults: who is a member, and who may open
//! what, is decided by those who take streams from [`Incoming`]. Devices that are *wanted* are kept connected; others may
//! connect, within bounds, and lose an idle connection after 20 s.
//!
//! - `address.rs`: devices, peer ids, addresses · `limits.rs`: every bound and its reason
//! - `swarm.rs`: the actor · `transport.rs`: what its swarm is made of · `discovery.rs`: mDNS
//! - `dialing.rs`: when to dial whom (pure) · `listen.rs`: which port
//! - `roster.rs`: the table of connections, and which one is used · `usage.rs`: how much one is used, and its gate
//! - `connections.rs`: which connections are let in · `streams.rs`: how streams open and are refused
//! - `role.rs`: devices and hosts, and a host's bounds · `circuits.rs`: reservations at hosts and dials through them (pure)
//! - `foreign.rs`: libp2p's own behaviours, kept within bounds
//! - `reasons.rs`: why dials and listeners fail, for people
//! - `presence.rs`: are you there, and where do you listen · `stream.rs`, `framing.rs`: what users hold
//!
//! Transports: TCP with TLS (or Noise, for peers without it) and yamux, and QUIC; both are listened on, over IPv4 and IPv6.
//! Devices find each other by the addresses their user gives, by mDNS, and by what they told each other when last connected.
//! Multicast that does not work costs only discovery.
//!
//! *Through hosts.* A node in the role of a host carries connections of its clients (circuit relay v2). A device keeps a
//! reservation at every host of [`Net::set_relays`], and reaches wanted devices through the nearest host that has both,
//! while it goes on looking for a direct way: known addresses, those that the other side tells, and hole punching (DCUtR).
//! The host says from where it sees a device and tries whether it can be reached there (AutoNAT v2); such an address is told
//! to wanted devices. A direct path replaces a relayed one: see `roster.rs`.

mod address;
mod circuits;
mod connections;
mod dialing;
mod discovery;
mod foreign;
mod framing;
mod limits;
mod listen;
mod presence;
mod reasons;
mod resolve;
mod role;
mod roster;
mod stream;
mod streams;
mod swarm;
#[cfg(test)]
mod tests;
mod transport;
mod usage;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

pub use address::{Device, MAX_ADDRESSES, Transport, device_of, ip_of, network_of, peer_of};
pub use framing::{FrameError, read_frame, write_frame};
pub use libp2p::{Multiaddr, PeerId, StreamProtocol};
pub use limits::{DEFAULT_PORT, OPEN_TIMEOUT};
pub use resolve::{Resolved, has_name, resolve};
pub use role::{HostOptions, Role};
pub use stream::{Stream, TokioStream};
pub use streams::Inbound;
use tokio::{
    sync::{Mutex, broadcast, mpsc, oneshot},
    task::JoinHandle,
};

use limits::Patience;
use roster::{Pick, Roster};
use streams::{Failure, Served, Shared};
use swarm::{Actor, Command};

/// A protocol that this node answers.
#[derive(Clone, Debug)]
pub struct Protocol {
    /// Name in stream negotiation, such as `/coffer/replicate/1`.
    pub name: StreamProtocol,
    /// Accepted streams that may wait in [`Incoming`], at least 1. When it stays full for a second, streams are refused as
    /// busy.
    pub queue: usize,
    /// Streams of this protocol that one device may have open to us at a time; more are refused as busy.
    pub per_device: usize,
}

/// What a [`Net`] is started with.
#[derive(Clone)]
pub struct NetConfig {
    /// Ed25519 secret (seed) of this device.
    pub key: Box<[u8; 32]>,
    /// Where to listen; taken ports are replaced by free ones, all by the same distance if possible. See
    /// [`NetConfig::default_listen`].
    pub listen: Vec<Multiaddr>,
    /// Find devices and announce this one by mDNS (IPv4).
    pub mdns: bool,
    /// What this node answers.
    pub protocols: Vec<Protocol>,
    /// Device or host.
    pub role: Role,
    /// Who may connect unasked, besides the bounds that always hold; anyone if absent.
    pub door: Option<Arc<dyn Door>>,
}

/// Decides whether somebody who is not wanted may connect. Asked before the handshake, which is what costs.
pub trait Door: Send + Sync {
    /// `from` is the network of the other end by [`network_of`], where it has one; `present` is how many connections there
    /// are that came unasked, `near` how many of them from that network.
    fn admits(&self, from: Option<IpAddr>, present: usize, near: usize) -> bool;
}

impl NetConfig {
    /// `0.0.0.0` and `[::]`, TCP and QUIC, on `port` ([`DEFAULT_PORT`], or 0 for any).
    pub fn default_listen(port: u16) -> Vec<Multiaddr> {
        listen::everywhere(port)
    }
}

impl fmt::Debug for NetConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the key.
        f.debug_struct("NetConfig")
            .field("listen", &self.listen)
            .field("mdns", &self.mdns)
            .finish_non_exhaustive()
    }
}

/// Inbound streams: one bounded queue for each protocol of [`NetConfig::protocols`].
pub struct Incoming(HashMap<StreamProtocol, mpsc::Receiver<Inbound>>);

impl Incoming {
    /// Takes the queue of a protocol; `None` if it was not configured or was taken already. Dropping it refuses later
    /// streams, as if the protocol were not spoken.
    pub fn take(&mut self, protocol: &StreamProtocol) -> Option<mpsc::Receiver<Inbound>> {
        self.0.remove(protocol)
    }
}

/// What happened on the network. Receivers that lag lose the oldest events: read [`Net::connections`] again then.
#[derive(Clone, Debug)]
pub enum NetEvent {
    /// The first connection with a device exists.
    Connected {
        /// Who.
        device: Device,
        /// Where its end is; of an inbound TCP connection, this is no address to dial.
        address: Multiaddr,
        /// How it is carried.
        transport: Transport,
        /// The host that carries it, if it is not direct; address and transport are those of the way to that host.
        relayed: Option<Device>,
    },
    /// A direct connection with a device that was connected through a host exists, and replaces that one.
    Direct {
        /// Who.
        device: Device,
        /// Where its end is.
        address: Multiaddr,
        /// How it is carried.
        transport: Transport,
    },
    /// A host of [`Net::set_relays`] takes connections for this device, or does no more.
    Reservation {
        /// The host.
        host: Device,
        /// Whether it does.
        holds: bool,
    },
    /// The last connection with a device has gone.
    Disconnected {
        /// Who.
        device: Device,
    },
    /// mDNS shows a device, wanted or not. Unverified until a connection to it exists.
    Discovered {
        /// Who.
        device: Device,
        /// All addresses at which mDNS shows it.
        addresses: Vec<Multiaddr>,
    },
    /// What is known of a wanted device's addresses changed. Keep them and give them to [`Net::set_wanted`] next time.
    Addresses {
        /// Who.
        device: Device,
        /// All of them, at most [`MAX_ADDRESSES`], best first.
        addresses: Vec<Multiaddr>,
    },
    /// This node listens on a new address (which is not loopback).
    Listening {
        /// Where.
        address: Multiaddr,
    },
}

/// One connection, for those who show the state.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// The other device.
    pub device: Device,
    /// Where its end is.
    pub address: Multiaddr,
    /// How it is carried.
    pub transport: Transport,
    /// The host that carries it, if it is not direct; address and transport are those of the way to that host.
    pub relayed: Option<Device>,
    /// Whether we dialled it.
    pub outbound: bool,
    /// Payload bytes received in streams.
    pub bytes_in: u64,
    /// Payload bytes sent in streams.
    pub bytes_out: u64,
    /// Streams open now.
    pub streams: usize,
    /// Since when.
    pub since: SystemTime,
}

/// What a host carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayLoad {
    /// Clients that can be reached through it now.
    pub reservations: u64,
    /// Circuits now.
    pub circuits: u64,
    /// Circuits since the start.
    pub circuits_total: u64,
    /// Requests refused since the start: of others than clients, beyond a limit, or to whom nobody has reserved.
    pub refused_total: u64,
}

/// Why a node's network did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// None of the addresses can be listened on, on any port.
    #[error("it cannot listen anywhere: {0}")]
    Listen(String),
    /// The swarm could not be built.
    #[error("cannot build the transports: {0}")]
    Transport(String),
    /// The configuration contradicts itself.
    #[error("bad configuration: {0}")]
    Config(String),
}

/// Why a stream was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no connection with that device, and none is on its way.
    #[error("the device is not connected")]
    NotConnected,
    /// The other side does not speak this protocol, or not now.
    #[error("the device does not speak this protocol")]
    Unsupported,
    /// The other side's queue, or its limit for us, is full; try later.
    #[error("the device is busy")]
    Busy,
    /// It did not come about within [`OPEN_TIMEOUT`].
    #[error("no answer in time")]
    Timeout,
    /// The connection broke meanwhile, several times.
    #[error("the connection broke")]
    Broken,
    /// This network was shut down.
    #[error("the network is shut down")]
    Closed,
}

/// Why a device could not be dialled.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DialError {
    /// None of the addresses answered as that device.
    #[error("{0}")]
    Unreachable(String),
    /// The bytes are no Ed25519 public key, or they are our own.
    #[error("not the key of another device")]
    BadKey,
    /// This network was shut down.
    #[error("the network is shut down")]
    Closed,
}

/// The handle to the network. Cheap to clone; when the last one is dropped, the network shuts down.
#[derive(Clone)]
pub struct Net {
    commands: mpsc::Sender<Command>,
    events: broadcast::Sender<NetEvent>,
    roster: Arc<Roster>,
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

    async fn start_with(
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

    /// Connections that were not let in since the start: beyond a bound, or by the [`Door`].
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
