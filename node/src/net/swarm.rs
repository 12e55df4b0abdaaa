//! The actor that owns the libp2p swarm.
//!
//! *Inputs:* swarm events, commands from [`super::Net`] handles, the results of its own checks of connections, the
//! [`idle`](super::roster::Roster::idle) signal, and one timer set to the next thing that is due (nothing polls).
//! *Owns:* the swarm, the dialling state, and what is watched about each connection; it alone writes the roster, partly
//! through the [`Streams`] behaviour inside the swarm. *Ends:* on the shutdown command or when the last handle is dropped.
//! Under pressure it refuses connections (see `limits.rs`), drops the oldest events of slow subscribers, and lets commands
//! wait.

mod checks;
mod closing;
mod commands;
mod paths;
mod watching;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroU8,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use libp2p::{
    Multiaddr, PeerId,
    core::transport::ListenerId,
    mdns,
    swarm::{
        ConnectionId, ListenError, Swarm, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::sync::{broadcast, mpsc, oneshot};

use commands::answer_unknown;
use watching::{Watched, Watching};

use super::{
    DialError, NetEvent, StartError,
    address::{Device, Place, Transport, device_of, peer_of, shown_order},
    circuits::Circuits,
    connections::Heard,
    dialing::{Dial, Dialing},
    discovery,
    limits::{DIAL_CONCURRENCY, DOUBT_TIMEOUT, Patience, SHUTDOWN_PATIENCE, START_PATIENCE},
    listen,
    presence::{self, PRESENCE},
    reasons,
    role::Role,
    roster::{Connection, Roster},
    streams::{Failure, Shared},
    transport::{Behaviour, BehaviourEvent, build},
};

/// What handles ask of the actor.
pub(super) enum Command {
    Dial {
        device: Device,
        addresses: Vec<Multiaddr>,
        reply: oneshot::Sender<Result<(), DialError>>,
    },
    DialUnknown {
        addresses: Vec<Multiaddr>,
        reply: oneshot::Sender<Result<Device, DialError>>,
    },
    SetWanted {
        wanted: BTreeMap<Device, Vec<Multiaddr>>,
        done: oneshot::Sender<()>,
    },
    SetRelays {
        relays: BTreeMap<Device, Vec<Multiaddr>>,
        done: oneshot::Sender<()>,
    },
    SetClients {
        clients: BTreeSet<Device>,
        done: oneshot::Sender<()>,
    },
    SetClient {
        device: Device,
        /// Whether it is to be one while it is connected; if not, it ceases to be one if it is not connected.
        while_connected: bool,
        done: oneshot::Sender<()>,
    },
    HeardOf {
        device: Device,
        done: oneshot::Sender<()>,
    },
    Close {
        device: Device,
        done: oneshot::Sender<()>,
    },
    Shutdown,
}

/// A dial of ours that is under way.
enum Attempt {
    Direct(Device, Transport),
    Through(Device),
}

/// The end of a check: what the other side said and how long that took, or why nothing came back.
type Checked = (ConnectionId, Result<(Vec<Multiaddr>, Duration), Failure>);

/// The side that is asked waits so much longer with asking itself: where the other side asks regularly, it never has to.
const HEARD_INSTEAD: f64 = 1.5;

/// Who waits for the first of several dials, until one has connected.
type UnknownDial = Arc<Mutex<Option<oneshot::Sender<Result<Device, DialError>>>>>;

/// The actor.
pub(super) struct Actor {
    swarm: Swarm<Behaviour>,
    patience: Patience,
    role: Role,
    roster: Arc<Roster>,
    events: broadcast::Sender<NetEvent>,
    commands: mpsc::Receiver<Command>,
    dialing: Dialing,
    circuits: Circuits<ListenerId>,
    /// What the handles want to be connected, and the hosts in use, with the addresses that they know.
    wanted: BTreeMap<Device, Vec<Multiaddr>>,
    relays: BTreeMap<Device, Vec<Multiaddr>>,
    /// Dials under way.
    attempts: HashMap<ConnectionId, Attempt>,
    watched: Watching,
    checks: FuturesUnordered<BoxFuture<'static, Checked>>,
    /// Those who wait for the outcome of a dial.
    waiting: BTreeMap<Device, Vec<oneshot::Sender<Result<(), DialError>>>>,
    /// Dials of addresses of which it is not known whose they are: all of one command share the slot, the first that
    /// connects takes it.
    unknown: HashMap<ConnectionId, UnknownDial>,
    /// Why the last dial of a device that someone waits for failed.
    reasons: BTreeMap<Device, String>,
}

impl Actor {
    /// Builds the swarm and listens; returns when it is known where.
    pub async fn start(
        keypair: libp2p::identity::Keypair,
        (addresses, with_mdns, patience): (&[Multiaddr], bool, Patience),
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
        events: broadcast::Sender<NetEvent>,
    ) -> Result<Self, StartError> {
        let roster = shared.roster.clone();
        let role = shared.role.clone();
        let swarm = build(keypair, with_mdns, shared)
            .map_err(|error| StartError::Transport(error.to_string()))?;
        let mut actor = Self {
            swarm,
            patience,
            role,
            dialing: Dialing::new(roster.own()),
            circuits: Circuits::new(roster.own()),
            wanted: BTreeMap::new(),
            relays: BTreeMap::new(),
            roster,
            events,
            commands,
            attempts: HashMap::new(),
            watched: Watching::default(),
            checks: FuturesUnordered::new(),
            waiting: BTreeMap::new(),
            unknown: HashMap::new(),
            reasons: BTreeMap::new(),
        };
        for address in actor.role.external().to_vec() {
            actor.announce(address);
        }
        let mut silent = listen::listen(&mut actor.swarm, addresses).map_err(StartError::Listen)?;
        tokio::time::timeout(START_PATIENCE, async {
            while !silent.is_empty() {
                let event = actor.swarm.select_next_some().await;
                if let SwarmEvent::NewListenAddr { listener_id, .. } = &event {
                    silent.remove(listener_id);
                }
                actor.on_swarm_event(event, Instant::now());
            }
        })
        .await
        .ok();
        Ok(actor)
    }

    /// Runs until shut down.
    pub async fn run(mut self) {
        loop {
            let next = self.act(Instant::now());
            let idle = self.roster.idle.clone();
            let timer = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm_event(event, Instant::now()),
                command = self.commands.recv() => match command {
                    Some(Command::Shutdown) | None => break,
                    Some(command) => self.on_command(command, Instant::now()),
                },
                Some((id, outcome)) = self.checks.next(), if !self.checks.is_empty() => {
                    self.on_checked(id, outcome, Instant::now());
                }
                () = idle.notified() => {}
                () = timer => {}
            }
        }
        self.stop().await;
    }

    async fn stop(mut self) {
        self.roster.close();
        self.dialing.clear();
        self.circuits.clear();
        self.waiting.clear();
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            self.swarm.disconnect_peer_id(peer).ok();
        }
        tokio::time::timeout(SHUTDOWN_PATIENCE, async {
            while self.swarm.network_info().num_peers() > 0 {
                self.swarm.select_next_some().await;
            }
        })
        .await
        .ok();
        for connection in self.roster.connections() {
            self.roster.remove(&connection.device, connection.id);
            connection.dead.send_replace(true);
        }
    }

    // ---- what is due

    /// Does what is due, and says when the next thing will be.
    fn act(&mut self, now: Instant) -> Option<Instant> {
        for dial in self.dialing.due(now) {
            self.dial(dial, now);
        }
        for act in self.circuits.due(now) {
            self.act_on_host(act, now);
        }
        let due = [
            self.check(now),
            self.take_turns(now),
            self.close_unused(now),
            self.close_relayed(now),
            self.dialing.next(),
            self.circuits.next(),
        ];
        self.tell_expected(now);
        due.into_iter().flatten().min()
    }

    /// Of several nodes with one device's keys, has another its turn?
    fn take_turns(&self, now: Instant) -> Option<Instant> {
        let (changed, next) = self.roster.take_turns(now);
        for device in changed {
            tracing::info!(device = %hex::encode(&device[..4]), "another of the nodes with this device's keys has its turn");
            self.tell(NetEvent::Turn { device });
        }
        next
    }

    fn tell_expected(&self, now: Instant) {
        let mut expected = self.dialing.expected(now);
        expected.extend(self.circuits.expected(now));
        self.roster.set_expected(expected);
    }

    fn dial(&mut self, dial: Dial, now: Instant) {
        let Some(peer) = peer_of(&dial.device) else {
            self.settled(dial.device, dial.transport, "not a device key".into(), now);
            return;
        };
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::Always)
            .addresses(dial.addresses);
        let options = match NonZeroU8::new(DIAL_CONCURRENCY) {
            Some(many) => options.override_dial_concurrency_factor(many),
            None => options,
        };
        // QUIC dials from the listener's socket, so that the other side sees where we can be reached. TCP does not: two
        // sides that dial each other from their listening ports would meet in one connection with two clients. Hosts do
        // not dial.
        let options = match dial.transport {
            Transport::Tcp if !self.roster.is_relay(&dial.device) => {
                options.allocate_new_port().build()
            }
            _ => options.build(),
        };
        let attempt = Attempt::Direct(dial.device, dial.transport);
        if let Err(reason) = self.begin(options, attempt) {
            self.settled(dial.device, dial.transport, reason, now);
        }
    }

    /// Starts a dial of our own.
    fn begin(&mut self, options: DialOpts, attempt: Attempt) -> Result<(), String> {
        let id = options.connection_id();
        self.roster.dialling(id);
        match self.swarm.dial(options) {
            Ok(()) => {
                self.attempts.insert(id, attempt);
                Ok(())
            }
            Err(error) => {
                self.roster.dialled(id);
                Err(reasons::not_dialled(&error))
            }
        }
    }

    /// One dial of a device has ended without a connection.
    fn settled(&mut self, device: Device, transport: Transport, reason: String, now: Instant) {
        tracing::debug!(device = %hex::encode(&device[..4]), reason, "a dial failed");
        if self.waiting.contains_key(&device) {
            self.reasons.insert(device, reason);
        }
        if self.dialing.settled(device, transport, now) {
            let reason = self.reasons.remove(&device).unwrap_or_default();
            for reply in self.waiting.remove(&device).unwrap_or_default() {
                reply.send(Err(DialError::Unreachable(reason.clone()))).ok();
            }
        }
    }

    // ---- what happened

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>, now: Instant) {
        match event {
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                ..
            } => {
                if let Some(device) = device_of(&peer_id) {
                    self.on_connected(device, connection_id, now);
                }
            }
            SwarmEvent::ConnectionClosed {
                connection_id,
                cause,
                ..
            } => {
                tracing::trace!(?cause, "a connection closed");
                self.gone(connection_id, now);
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                error,
                ..
            } => {
                if let Some(waiting) = self.unknown.remove(&connection_id)
                    && Arc::strong_count(&waiting) == 1
                {
                    answer_unknown(
                        &waiting,
                        Err(DialError::Unreachable(reasons::not_dialled(&error))),
                    );
                }
                self.roster.dialled(connection_id);
                match self.attempts.remove(&connection_id) {
                    Some(Attempt::Direct(device, transport)) => {
                        self.settled(device, transport, reasons::not_dialled(&error), now);
                    }
                    Some(Attempt::Through(device)) => {
                        tracing::debug!(%error, "not reached through a host");
                        self.circuits.settled(&device, now);
                    }
                    None => {}
                }
            }
            // The others are circuit addresses: they say nothing of this machine's network.
            SwarmEvent::NewListenAddr { address, .. } if Place::of(&address).is_some() => {
                if self.role.is_host() {
                    self.announce(address.clone());
                }
                self.on_listening_changed(Some(address), now);
            }
            SwarmEvent::ExpiredListenAddr { address, .. } if Place::of(&address).is_some() => {
                if self.role.is_host() {
                    self.withdraw(&address);
                }
                self.on_listening_changed(None, now);
            }
            SwarmEvent::ListenerClosed {
                listener_id,
                addresses,
                reason,
            } => {
                if let Some(host) = self.circuits.unreserved(listener_id, now) {
                    self.on_unreserved(host, reason);
                } else if addresses.iter().any(|one| Place::of(one).is_some()) {
                    self.on_listening_changed(None, now);
                }
            }
            SwarmEvent::IncomingConnectionError {
                error: ListenError::Denied { cause },
                ..
            } => {
                tracing::debug!(%cause, "a connection was not let in");
                self.roster.turned_away.fetch_add(1, Ordering::Relaxed);
            }
            SwarmEvent::ExternalAddrConfirmed { address } => self.on_external(address, true),
            SwarmEvent::ExternalAddrExpired { address } => self.on_external(address, false),
            SwarmEvent::Behaviour(BehaviourEvent::Streams(heard)) => {
                let Heard {
                    device,
                    connection,
                    addresses,
                } = heard;
                if let Some(watched) = self.watched.get_mut(connection) {
                    watched.proven = true;
                    let later = self.patience.check_interval.mul_f64(HEARD_INSTEAD);
                    self.watched.plan(connection, now + later);
                }
                self.on_told(device, &addresses, now);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(event)) => self.on_mdns(event, now),
            SwarmEvent::Behaviour(BehaviourEvent::Identify(event)) => {
                self.on_identified(event, now)
            }
            SwarmEvent::Behaviour(BehaviourEvent::RelayClient(event)) => self.on_reserved(event),
            SwarmEvent::Behaviour(BehaviourEvent::Relay(event)) => self.on_relay(event),
            SwarmEvent::Behaviour(BehaviourEvent::Dcutr(event)) => {
                tracing::debug!(outcome = ?event.result, "hole punching ended");
            }
            SwarmEvent::Behaviour(BehaviourEvent::AutonatClient(event)) => {
                tracing::debug!(address = %event.tested_addr, outcome = ?event.result, "a host tried whether we can be reached");
            }
            _ => {}
        }
    }

    fn on_connected(&mut self, device: Device, id: ConnectionId, now: Instant) {
        let was_ours = self.attempts.remove(&id);
        let is_asked = self.unknown.contains_key(&id) || was_ours.is_some();
        self.roster.dialled(id);
        if let Some(waiting) = self.unknown.remove(&id) {
            answer_unknown(&waiting, Ok(device));
        }
        let connections = self.roster.connections_of(&device);
        // A probe is in no roster.
        let Some(connection) = connections.iter().find(|one| one.id == id).cloned() else {
            return;
        };
        let is_first = connections.len() == 1;
        tracing::debug!(device = %hex::encode(&device[..4]), address = %connection.address, relayed = connection.relayed.is_some(), "connected");

        if connection.relayed.is_none() {
            // An inbound TCP connection comes from a passing port; QUIC's from the one where the device listens. What
            // hole punching has found is of no use without it.
            let worked = (connection.outbound && is_asked).then_some(&connection.address);
            self.dialing.connected(device, worked, now);
            if !connection.outbound && connection.transport == Transport::Quic {
                let from = std::slice::from_ref(&connection.address);
                self.dialing.learned(device, from, now);
            }
        }
        match was_ours {
            Some(Attempt::Direct(device, transport)) => {
                self.dialing.settled(device, transport, now);
            }
            Some(Attempt::Through(device)) => self.circuits.succeeded(&device),
            None => {}
        }
        self.circuits.connected(&device, now);
        for reply in self.waiting.remove(&device).unwrap_or_default() {
            reply.send(Ok(())).ok();
        }
        self.reasons.remove(&device);

        // Another connection from the same device: perhaps the others are dead at its end.
        self.doubt(&connections, now);
        // The dialler asks at once where the other side listens. A direct path that is to replace one through a host has to
        // prove itself to both sides.
        let replaces =
            connection.relayed.is_none() && connections.iter().any(|one| one.relayed.is_some());
        let check_at = if connection.outbound || replaces {
            now
        } else {
            now + self.patience.check_interval.mul_f64(HEARD_INSTEAD)
        };
        self.watched
            .insert(Watched::new(connection.clone(), check_at, replaces));
        let (address, transport) = (connection.address.clone(), connection.transport);
        if is_first {
            self.tell(NetEvent::Connected {
                device,
                address,
                transport,
                relayed: connection.relayed,
            });
        } else if replaces {
            self.tell(NetEvent::Direct {
                device,
                address,
                transport,
            });
        }
        self.tell_addresses(device);
    }

    /// A connection is gone, or is treated so because it is dead.
    fn gone(&mut self, id: ConnectionId, now: Instant) {
        let Some(watched) = self.watched.remove(id) else {
            return;
        };
        let device = watched.connection.device;
        watched.connection.dead.send_replace(true);
        self.roster.remove(&device, id);
        let connections = self.roster.connections_of(&device);
        if watched.connection.relayed.is_none() {
            let direct = connections.iter().filter(|one| one.relayed.is_none());
            self.dialing.disconnected(device, direct.count(), now);
        }
        self.circuits.disconnected(&device, connections.len(), now);
        if connections.is_empty() {
            self.tell(NetEvent::Disconnected { device });
        }
    }

    fn on_listening_changed(&mut self, new: Option<Multiaddr>, now: Instant) {
        let own = self
            .swarm
            .listeners()
            .filter(|one| Place::of(one).is_some());
        let mut addresses: Vec<Multiaddr> = own.cloned().collect();
        addresses.sort_by_key(shown_order);
        addresses.dedup();
        self.roster.set_listening(addresses);
        if new
            .as_ref()
            .and_then(Place::of)
            .is_some_and(|place| place.ip.is_loopback())
        {
            return;
        }
        self.dialing.network_changed(now);
        self.circuits.hurry(now);
        let mut far = self.roster.connections();
        far.retain(|connection| !connection.is_loopback());
        self.doubt(&far, now);
        if let Some(address) = new {
            self.tell(NetEvent::Listening { address });
        }
    }

    /// A device said where it listens. Only wanted ones are listened to.
    fn on_told(&mut self, device: Device, addresses: &[Multiaddr], now: Instant) {
        if self.roster.is_wanted(&device) {
            self.dialing.learned(device, addresses, now);
            self.tell_addresses(device);
        }
    }

    fn on_mdns(&mut self, event: mdns::Event, now: Instant) {
        for (device, new) in discovery::take_in(&self.roster, event) {
            if self.roster.is_wanted(&device) {
                self.dialing.shown(device, &new, now);
            }
            let addresses = self.roster.discovered().remove(&device);
            let addresses = addresses.map_or(new, |all| all.into_iter().collect());
            self.tell(NetEvent::Discovered { device, addresses });
        }
    }

    fn tell(&self, event: NetEvent) {
        // Nobody listening is no error.
        self.events.send(event).ok();
    }

    fn tell_addresses(&mut self, device: Device) {
        if self.roster.is_wanted(&device)
            && let Some(addresses) = self.dialing.news(&device)
        {
            self.tell(NetEvent::Addresses { device, addresses });
        }
    }
}
