//! The actor's part in paths through hosts: who is wanted, reservations and circuits.

use libp2p::{identify, relay, swarm::StreamUpgradeError};

use super::*;
use crate::net::{
    address::{circuit_address, listening_address},
    circuits::Act,
    limits::{EXTERNAL, RELAYS},
};

impl Actor {
    // ---- what the handles want

    /// Brings everything up to date with the devices wanted and the hosts in use: both are kept connected.
    pub(super) fn set_wanted(&mut self, now: Instant) {
        let roster = self.roster.clone();
        let mut kept = self.wanted.clone();
        for (host, addresses) in &self.relays {
            let known = kept.entry(*host).or_default();
            known.extend(
                addresses
                    .iter()
                    .filter(|one| !known.contains(*one))
                    .cloned()
                    .collect::<Vec<_>>(),
            );
        }
        let newly = kept.keys().filter(|device| !roster.is_wanted(device));
        let newly: Vec<_> = newly.flat_map(|one| roster.connections_of(one)).collect();
        self.check_unheard(&newly, now);
        roster.set_wanted(self.wanted.keys().copied().collect());
        roster.set_relays(self.relays.keys().copied().collect());
        let direct = |device: &Device| {
            let connections = roster.connections_of(device);
            connections
                .iter()
                .filter(|one| one.relayed.is_none())
                .count()
        };
        self.dialing.set_wanted(kept, direct, now);
        self.dialing
            .set_hosts(&self.relays.keys().copied().collect());
        let mut others: BTreeSet<Device> = self.wanted.keys().copied().collect();
        others.retain(|device| !self.relays.contains_key(device));
        let any = |device: &Device| roster.connections_of(device).len();
        self.circuits.set_targets(&others, any, now);
        for (device, addresses) in roster.discovered() {
            if roster.is_wanted(&device) {
                let addresses: Vec<_> = addresses.into_iter().collect();
                self.dialing.learned(device, &addresses, now);
            }
        }
        self.tell_expected(now);
    }

    pub(super) fn set_relays(&mut self, relays: BTreeMap<Device, Vec<Multiaddr>>, now: Instant) {
        let own = self.roster.own();
        // Not asked what they offer while they were ordinary devices: they will be on the next connection.
        let mute: Vec<Device> = relays
            .keys()
            .copied()
            .filter(|host| self.roster.is_wanted(host) && !self.roster.is_relay(host))
            .collect();
        self.relays = relays
            .into_iter()
            .filter(|(host, _)| *host != own && peer_of(host).is_some())
            .take(RELAYS)
            .collect();
        self.set_wanted(now);
        let hosts = self.relays.keys().copied().collect();
        let watched = &self.watched;
        let known = |host: &Device| {
            let of_it = watched
                .values()
                .filter(|one| one.connection.device == *host);
            let direct = of_it.filter(|one| one.connection.relayed.is_none());
            direct.fold((0, false), |(count, any), one| {
                (count + 1, any || one.identified)
            })
        };
        for host in self.circuits.set_hosts(&hosts, known, now) {
            // With the connection, the reservation on it ends. (To remove only its listener while libp2p renews the
            // reservation would trip over the renewal.)
            self.roster.set_reserved(host, false);
            self.tell(NetEvent::Reservation { host, holds: false });
            self.close_all(host, now);
        }
        for host in mute {
            self.close_all(host, now);
        }
    }

    /// Replaces the devices that may use this host. Those that may no more are cut off.
    pub(super) fn set_clients(&mut self, clients: BTreeSet<Device>, now: Instant) {
        let past: BTreeSet<Device> = self
            .roster
            .connections()
            .iter()
            .map(|one| one.device)
            .filter(|device| self.roster.is_client(device) && !clients.contains(device))
            .collect();
        self.roster.set_clients(clients);
        for device in past {
            self.close_all(device, now);
        }
    }

    /// Takes a device among those that may use this host, if it is connected, or out of them, if it is not.
    pub(super) fn set_client(&mut self, device: Device, while_connected: bool) {
        if self.roster.is_connected(&device) == while_connected {
            self.roster.set_client(device, while_connected);
        }
    }

    pub(super) fn close_all(&mut self, device: Device, now: Instant) {
        for connection in self.roster.connections_of(&device) {
            self.swarm.close_connection(connection.id);
            self.gone(connection.id, now);
        }
    }

    // ---- hosts

    pub(super) fn act_on_host(&mut self, act: Act, now: Instant) {
        match act {
            Act::Reserve(host) => {
                let address = self
                    .way_to(&host)
                    .and_then(|way| listening_address(&way, &host));
                let Some(address) = address else {
                    self.circuits.not_asked(&host, now);
                    return;
                };
                match self.swarm.listen_on(address) {
                    Ok(listener) => self.circuits.asked(&host, listener, now),
                    Err(error) => {
                        tracing::debug!(%error, "cannot ask a host to take connections");
                        self.circuits.not_asked(&host, now);
                    }
                }
            }
            // With the connection, what was asked for ends, which its listener says.
            Act::Reconnect(host) => self.close_all(host, now),
            Act::Dial { device, host } => {
                let way = self.way_to(&host);
                let address = way.and_then(|way| circuit_address(&way, &host, &device));
                let (Some(address), Some(peer)) = (address, peer_of(&device)) else {
                    self.circuits.settled(&device, now);
                    return;
                };
                let options = DialOpts::peer_id(peer)
                    .condition(PeerCondition::Always)
                    .addresses(vec![address])
                    .build();
                if let Err(reason) = self.begin(options, Attempt::Through(device)) {
                    tracing::debug!(reason, "cannot dial through a host");
                    self.circuits.settled(&device, now);
                }
            }
        }
    }

    /// The address over which a host is connected.
    fn way_to(&self, host: &Device) -> Option<Multiaddr> {
        let connections = self.roster.connections_of(host);
        let direct = connections.iter().find(|one| one.relayed.is_none());
        direct.map(|one| one.address.clone())
    }

    /// Another node says what it offers, and from where it sees us.
    pub(super) fn on_identified(&mut self, event: identify::Event, now: Instant) {
        let (connection_id, info) = match event {
            identify::Event::Received {
                connection_id,
                info,
                ..
            } => (connection_id, info),
            identify::Event::Error {
                connection_id,
                error,
                ..
            } => {
                // Who does not know the protocol would not learn it by another connection.
                if !matches!(error, StreamUpgradeError::NegotiationFailed) {
                    self.on_not_identified(connection_id, &error, now);
                }
                return;
            }
            _ => return,
        };
        let Some(watched) = self.watched.get_mut(connection_id) else {
            return;
        };
        watched.identified = true;
        let connection = &watched.connection;
        // libp2p takes a QUIC port that it does not know for a passing one, and tells the one on which we listen instead.
        // Ours is never a passing one: what the other side sees is what a router has made of it.
        let seen = Place::of(&info.observed_addr);
        if let Some(seen) = seen.filter(|seen| {
            connection.outbound && connection.relayed.is_none() && seen.transport == Transport::Quic
        }) {
            self.swarm.behaviour_mut().streams.seen_from(seen.address());
        }
        let device = connection.device;
        let offers = info.protocols.contains(&relay::HOP_PROTOCOL_NAME);
        if offers && self.roster.is_relay(&device) {
            self.circuits.identified(&device, now);
        }
    }

    /// A node did not say what it offers. libp2p asks again after minutes only, and without an answer a host is not used:
    /// such a connection is made anew.
    fn on_not_identified(&mut self, id: ConnectionId, error: &impl std::fmt::Debug, now: Instant) {
        let Some(watched) = self.watched.get_mut(id) else {
            return;
        };
        let device = watched.connection.device;
        if self.roster.is_relay(&device) && !watched.identified {
            tracing::debug!(host = %hex::encode(&device[..4]), ?error, "a host does not say what it offers");
            self.swarm.close_connection(id);
            self.gone(id, now);
        }
    }

    pub(super) fn on_reserved(&mut self, event: relay::client::Event) {
        if let relay::client::Event::ReservationReqAccepted { relay_peer_id, .. } = event
            && let Some(host) = device_of(&relay_peer_id)
        {
            self.circuits.reserved(&host, Instant::now());
            if self.roster.set_reserved(host, true) {
                self.tell(NetEvent::Reservation { host, holds: true });
            }
        }
    }

    pub(super) fn on_unreserved<E: std::fmt::Debug>(&mut self, host: Device, reason: E) {
        tracing::debug!(host = %hex::encode(&host[..4]), ?reason, "a host takes no connections for us");
        if self.roster.set_reserved(host, false) {
            self.tell(NetEvent::Reservation { host, holds: false });
        }
    }

    // ---- where this node can be reached

    /// Tells others, and libp2p, of an address of ours.
    pub(super) fn announce(&mut self, address: Multiaddr) {
        if self.swarm.external_addresses().count() < EXTERNAL {
            self.swarm.add_external_address(address.clone());
            self.on_external(address, true);
        }
    }

    pub(super) fn withdraw(&mut self, address: &Multiaddr) {
        self.swarm.remove_external_address(address);
        self.on_external(address.clone(), false);
    }

    /// A host has reached us at an address, or does no more. Circuit addresses are told by nobody: whoever wants this
    /// device knows its hosts.
    pub(super) fn on_external(&mut self, address: Multiaddr, is_ours: bool) {
        let Some(place) = Place::of(&address) else {
            return;
        };
        let is_new = self.roster.with_external(|external| {
            if !is_ours {
                external.remove(&place.address());
            }
            is_ours && external.len() < EXTERNAL && external.insert(place.address())
        });
        if is_new && !self.role.is_host() {
            // Those who reach us through a host are to try it: the next check tells them.
            let relayed = self.watched.relayed();
            let relayed: Vec<_> = relayed.map(|one| one.connection.clone()).collect();
            self.check_unheard(&relayed, Instant::now());
        }
    }

    /// Has connections checked at once, whatever came over them: the other side is to hear something.
    fn check_unheard(&mut self, these: &[Arc<Connection>], now: Instant) {
        for connection in these {
            if let Some(watched) = self.watched.get_mut(connection.id) {
                watched.bytes_seen = connection.usage.bytes_in();
                self.watched.plan(connection.id, now);
            }
        }
    }

    // ---- on a host

    /// Counts what is done for clients.
    pub(super) fn on_relay(&mut self, event: relay::Event) {
        tracing::debug!(?event, "circuits");
        match event {
            relay::Event::ReservationReqAccepted { src_peer_id, .. } => {
                if let Some(client) = device_of(&src_peer_id) {
                    self.roster.set_reserved(client, true);
                }
            }
            // libp2p says so of every connection that ends.
            relay::Event::ReservationClosed { src_peer_id }
            | relay::Event::ReservationTimedOut { src_peer_id } => {
                let client = device_of(&src_peer_id);
                if let Some(client) = client.filter(|client| !self.roster.is_connected(client)) {
                    self.roster.set_reserved(client, false);
                }
            }
            relay::Event::CircuitReqAccepted { .. } => self.roster.load.circuit_began(),
            relay::Event::CircuitClosed { .. } => self.roster.load.circuit_ended(),
            relay::Event::ReservationReqDenied { .. } | relay::Event::CircuitReqDenied { .. } => {
                self.roster.load.refused();
            }
            _ => {}
        }
    }
}
