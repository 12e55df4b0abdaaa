//! What a node is to others: a device, or a host that devices reach each other through.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use libp2p::{Multiaddr, PeerId, relay};

use super::{
    address::device_of,
    limits::{PENDING_CONNECTIONS, STRANGERS},
    roster::Roster,
};

/// What a node does for others on the network.
#[derive(Clone, Debug)]
pub enum Role {
    /// A person's device: it uses hosts (see [`super::Net::set_relays`]) and is none.
    Device {
        /// Try to replace a path through a host by a direct one through both routers (DCUtR).
        hole_punching: bool,
    },
    /// A host: it carries connections between its clients (see [`super::Net::set_relay_clients`]), tells them from where
    /// they are seen and whether they can be reached there, and dials nobody by itself.
    Host(HostOptions),
}

impl Default for Role {
    fn default() -> Self {
        Role::Device {
            hole_punching: true,
        }
    }
}

/// The bounds of a host. A circuit is one connection between two of its clients that it carries.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Addresses at which clients reach it besides those of its own interfaces: behind a forwarded port, by IP.
    pub external: Vec<Multiaddr>,
    /// Devices that may wait for circuits at a time.
    pub reservations: usize,
    /// Circuits at a time.
    pub circuits: usize,
    /// Circuits at a time of one device.
    pub circuits_per_device: usize,
    /// Longest life of a circuit; what it carried resumes over the next one. At most `u32::MAX` seconds.
    pub circuit_duration: Duration,
    /// Most bytes over one circuit, both directions together.
    pub circuit_bytes: u64,
    /// How long a reservation holds; devices renew it after three quarters.
    pub reservation_duration: Duration,
    /// Inbound connections of devices that are no clients (yet).
    pub strangers: usize,
    /// Connections in their handshake, in each direction.
    pub pending: u32,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            external: Vec::new(),
            // Two of each of 2,000 vaults; one costs a table row.
            reservations: 4096,
            // One costs two buffers of 8 KiB and two streams; family hosts use a handful.
            circuits: 1024,
            // A vault's devices, each with each, twice: old and new while a path changes.
            circuits_per_device: 32,
            circuit_duration: Duration::from_secs(12 * 3600),
            circuit_bytes: 64 << 30,
            reservation_duration: Duration::from_secs(3600),
            strangers: 64,
            // 200 devices that come back at once, and as many again.
            pending: 512,
        }
    }
}

/// Requests that one device may make in a burst, and how soon it may make one more reservation: a link that flaps once a
/// second for a minute stays within it.
const BURST: NonZeroU32 = NonZeroU32::new(60).expect("is not zero");
const ANOTHER_AFTER: Duration = Duration::from_secs(5);
/// How soon it may ask for one more circuit: thirty devices that are away are asked for twice a minute each.
const ANOTHER_CIRCUIT_AFTER: Duration = Duration::from_secs(1);

impl Role {
    pub(super) fn is_host(&self) -> bool {
        matches!(self, Role::Host(_))
    }

    pub(super) fn strangers(&self) -> usize {
        match self {
            Role::Device { .. } => STRANGERS,
            Role::Host(options) => options.strangers,
        }
    }

    pub(super) fn pending(&self) -> u32 {
        match self {
            Role::Device { .. } => PENDING_CONNECTIONS,
            Role::Host(options) => options.pending,
        }
    }

    /// Addresses to be announced besides the interfaces' own.
    pub(super) fn external(&self) -> &[Multiaddr] {
        match self {
            Role::Device { .. } => &[],
            Role::Host(options) => &options.external,
        }
    }
}

impl HostOptions {
    /// The same for libp2p, which asks two functions whether a request is within its rate: the first one refuses all who
    /// are no clients. There is no limit by address: a family's devices share one, and clients are known by name.
    pub(super) fn relay_config(&self, roster: &Arc<Roster>) -> relay::Config {
        let clients_only = || -> Box<dyn relay::RateLimiter> {
            let roster = roster.clone();
            Box::new(move |peer: PeerId, _: &Multiaddr, _| {
                device_of(&peer).is_some_and(|device| roster.is_client(&device))
            })
        };
        relay::Config {
            max_reservations: self.reservations,
            max_reservations_per_peer: super::limits::CONNECTIONS_PER_DEVICE as usize,
            reservation_duration: self.reservation_duration,
            reservation_rate_limiters: vec![clients_only()],
            max_circuits: self.circuits,
            max_circuits_per_peer: self.circuits_per_device,
            max_circuit_duration: self
                .circuit_duration
                .min(Duration::from_secs(u32::MAX.into())),
            max_circuit_bytes: self.circuit_bytes,
            circuit_src_rate_limiters: vec![clients_only()],
        }
        .reservation_rate_per_peer(BURST, ANOTHER_AFTER)
        .circuit_src_per_peer(BURST, ANOTHER_CIRCUIT_AFTER)
    }
}
