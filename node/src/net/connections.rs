//! Which connections there are: the libp2p behaviour that lets them in and keeps the roster.
//!
//! What other behaviours dial by themselves is let through only where it is hole punching with a wanted device, or a host
//! that tries whether its client can be reached (a *probe*): a probe is in no roster, carries no streams of ours, and ends
//! by itself.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use either::Either;
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    multiaddr::Protocol as Part,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandlerInEvent, ToSwarm,
        dummy,
    },
};
use tokio::sync::mpsc;

use super::{
    address::{Device, Place, Transport, device_of, ip_of, network_of, through},
    limits::OUTBOUND_STREAMS,
    roster::{Connection, Whence},
    streams::{Handler, Shared},
};

/// Someone told us where it listens.
#[derive(Debug)]
pub(super) struct Heard {
    pub device: Device,
    pub connection: ConnectionId,
    pub addresses: Vec<Multiaddr>,
}

/// Keeps the roster of connections and makes a [`Handler`] for each.
pub(super) struct Streams {
    shared: Arc<Shared>,
    per_device: Vec<usize>,
    /// Connections for which a handler was made and which are not yet announced as established.
    joining: HashMap<ConnectionId, Arc<Connection>>,
    heard: VecDeque<Heard>,
    /// Addresses from which others see us, for those behaviours that want to know.
    seen_from: VecDeque<Multiaddr>,
}

impl Streams {
    pub fn new(shared: Arc<Shared>) -> Self {
        let per_device = shared
            .served
            .iter()
            .map(|served| served.per_device)
            .collect();
        Self {
            shared,
            per_device,
            joining: HashMap::new(),
            heard: VecDeque::new(),
            seen_from: VecDeque::new(),
        }
    }

    /// Tells the other behaviours from which address another node sees us.
    pub fn seen_from(&mut self, address: Multiaddr) {
        self.seen_from.push_back(address);
    }

    fn join(
        &mut self,
        id: ConnectionId,
        device: Device,
        whence: Whence,
    ) -> Result<Either<Handler, dummy::ConnectionHandler>, ConnectionDenied> {
        let roster = &self.shared.roster;
        if !whence.outbound
            && !roster.is_known(&device)
            && roster.strangers() >= self.shared.role.strangers()
        {
            return Err(ConnectionDenied::new(Denied::TooManyStrangers));
        }
        let (opener, requests) = mpsc::channel(OUTBOUND_STREAMS);
        let connection = roster.prepare(
            (id, device),
            whence,
            opener,
            OUTBOUND_STREAMS,
            &self.per_device,
        );
        self.joining.insert(id, connection.clone());
        let handler = Handler::new(self.shared.clone(), connection, requests);
        Ok(Either::Left(handler))
    }

    /// Whether a dial that a behaviour of libp2p wants to make may be made.
    fn allows(&self, peer: Option<PeerId>, addresses: &[Multiaddr]) -> bool {
        let roster = &self.shared.roster;
        let Some(device) = peer.as_ref().and_then(device_of) else {
            return false;
        };
        if !self.shared.role.is_host() {
            return roster.is_wanted(&device);
        }
        // A host tries no other machine than the one from which the client has come.
        let client = roster.connections_of(&device);
        let from = |place: Place| {
            let mut places = client.iter().filter_map(|one| Place::of(&one.address));
            places.any(|known| known.ip == place.ip)
        };
        roster.is_client(&device)
            && addresses
                .iter()
                .all(|address| Place::of(address).is_some_and(from))
    }
}

/// What the address of a connection says of it.
fn whence(address: &Multiaddr, through: Option<(Device, Multiaddr)>, outbound: bool) -> Whence {
    let (relayed, address) = match through {
        Some((host, first)) => (Some(host), first),
        None => (None, address.clone()),
    };
    let is_quic = address.iter().any(|part| part == Part::QuicV1);
    let transport = if is_quic {
        Transport::Quic
    } else {
        Transport::Tcp
    };
    Whence {
        address: Place::of(&address).map_or(address, |place| place.address()),
        transport,
        relayed,
        outbound,
    }
}

/// Why a connection was refused.
#[derive(Debug, thiserror::Error)]
enum Denied {
    #[error("the other end's key is not an Ed25519 key")]
    NoDevice,
    #[error("too many connections from unknown devices")]
    TooManyStrangers,
    #[error("nobody here wants this dial")]
    NotOurs,
    #[error("too many connections from that address, or altogether")]
    AtTheDoor,
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Either<Handler, dummy::ConnectionHandler>;
    type ToSwarm = Heard;

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        if self.shared.roster.is_dialling(id) || self.allows(peer, addresses) {
            Ok(Vec::new())
        } else {
            Err(ConnectionDenied::new(Denied::NotOurs))
        }
    }

    fn handle_pending_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let Some(door) = &self.shared.door else {
            return Ok(());
        };
        let from = ip_of(remote).map(network_of);
        let (present, near) = self.shared.roster.present(from);
        if door.admits(from, present, near) {
            Ok(())
        } else {
            Err(ConnectionDenied::new(Denied::AtTheDoor))
        }
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<Either<Handler, dummy::ConnectionHandler>, ConnectionDenied> {
        let device = device_of(&peer).ok_or_else(|| ConnectionDenied::new(Denied::NoDevice))?;
        let through = through(local);
        // A host never dials, but to try whether we can be reached.
        if through.is_none() && self.shared.roster.is_relay(&device) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.join(id, device, whence(remote, through, false))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        _: PortUse,
    ) -> Result<Either<Handler, dummy::ConnectionHandler>, ConnectionDenied> {
        let device = device_of(&peer).ok_or_else(|| ConnectionDenied::new(Denied::NoDevice))?;
        if self.shared.role.is_host() && !self.shared.roster.is_dialling(id) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        // In hole punching both sides dial, and one of them takes the other's part.
        self.join(
            id,
            device,
            whence(address, through(address), role.is_dialer()),
        )
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                if let Some(connection) = self.joining.remove(&established.connection_id) {
                    self.shared.roster.insert(connection);
                }
            }
            FromSwarm::ConnectionClosed(closed) => {
                if let Some(device) = device_of(&closed.peer_id) {
                    self.shared.roster.remove(&device, closed.connection_id);
                }
            }
            // Another behaviour refused the connection after this one had made a handler for it.
            FromSwarm::DialFailure(failure) => {
                self.joining.remove(&failure.connection_id);
            }
            FromSwarm::ListenFailure(failure) => {
                self.joining.remove(&failure.connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        told: Either<Vec<Multiaddr>, Infallible>,
    ) {
        let Either::Left(addresses) = told;
        if let Some(device) = device_of(&peer) {
            self.heard.push_back(Heard {
                device,
                connection,
                addresses,
            });
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Heard, THandlerInEvent<Self>>> {
        if let Some(address) = self.seen_from.pop_front() {
            return Poll::Ready(ToSwarm::NewExternalAddrCandidate(address));
        }
        match self.heard.pop_front() {
            Some(heard) => Poll::Ready(ToSwarm::GenerateEvent(heard)),
            None => Poll::Pending,
        }
    }
}
