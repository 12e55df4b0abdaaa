//! The network of a node: one libp2p swarm behind an actor, and the cheap cloneable handle [`Net`] to it.
//!
//! It connects devices and carries streams between them. It knows nothing of vaults: who is a member, and who may open
//! what, is decided by those who take streams from [`Incoming`]. Devices that are *wanted* are kept connected; others may
//! connect, within bounds, and lose an idle connection after 20 s.
//!
//! - `address.rs`: devices, peer ids, addresses · `limits.rs`: every bound and its reason
//! - `handle.rs`: the handle · `swarm.rs`: the actor · `transport.rs`: what its swarm is made of · `discovery.rs`: mDNS
//! - `dialing.rs`: when to dial whom (pure) · `listen.rs`: which port
//! - `roster.rs`: the table of connections, and which one is used · `usage.rs`: how much one is used, and its gate
//! - `connections.rs`: which connections are let in · `streams.rs`: how streams open and are refused
//! - `role.rs`: devices and hosts, and a host's bounds · `circuits.rs`: reservations at hosts and dials through them (pure)
//! - `foreign.rs`: libp2p's own behaviours, kept within bounds
//! - `reasons.rs`: why dials and listeners fail, for people
//! - `turns.rs`: two nodes with one device's keys, which others talk to by turns (pure)
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
mod handle;
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
mod turns;
mod usage;

use std::{collections::HashMap, fmt, net::IpAddr, sync::Arc, time::SystemTime};

pub use address::{Device, MAX_ADDRESSES, Transport, device_of, ip_of, network_of, peer_of};
pub use framing::{FrameError, read_frame, write_frame};
pub use handle::Net;
pub use libp2p::{Multiaddr, PeerId, StreamProtocol};
pub use limits::{DEFAULT_PORT, OPEN_TIMEOUT};
pub use resolve::{Resolved, has_name, resolve};
pub use role::{HostOptions, Role};
pub use stream::{Origin, Stream, TokioStream};
pub use streams::Inbound;
use tokio::sync::mpsc;

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
    /// Of several nodes with the keys of one device (somebody runs a copy of a data folder), streams go to another now.
    Turn {
        /// Whose keys they have.
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
