//! What the swarm is made of: transports, multiplexers and behaviours, with their settings.

use std::sync::Arc;

use libp2p::{
    autonat::v2 as autonat,
    connection_limits, dcutr, identify,
    identity::Keypair,
    mdns, noise, relay,
    swarm::{NetworkBehaviour, Swarm, behaviour::toggle::Toggle},
    tcp, tls, yamux,
};
use rand::{SeedableRng, rngs::StdRng};

use super::{
    address::device_of,
    connections::Streams,
    foreign::Foreign,
    limits::{
        CHECK_INTERVAL, CHECK_TIMEOUT, CONNECTIONS_PER_DEVICE, DIAL_TIMEOUT, MUXER_STREAMS,
        NEGOTIATING_STREAMS, PROBE_ATTENTION, PROBE_INTERVAL,
    },
    role::Role,
    streams::Shared,
};

/// All behaviours of a node. Those that refuse connections come first: the others count what they have seen.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    pub streams: Streams,
    mdns: Toggle<mdns::tokio::Behaviour>,
    /// From where others see us, and what a host offers.
    identify: Foreign<identify::Behaviour>,
    /// Reservations and circuits, the device's side and the host's.
    relay_client: Foreign<relay::client::Behaviour>,
    relay: Toggle<Foreign<relay::Behaviour>>,
    /// Whether we can be reached, the device's side and the host's.
    autonat_client: Toggle<Foreign<autonat::client::Behaviour>>,
    autonat_server: Toggle<Foreign<autonat::server::Behaviour>>,
    /// Hole punching.
    dcutr: Toggle<Foreign<dcutr::Behaviour>>,
}

/// What identify says of our software.
const IDENTIFY: &str = "/coffer/1";

/// Bounds and windows of the multiplexer: windows start at 256 KiB and grow by themselves to what the path carries, up to
/// 1 GiB for a connection (yamux's own limits, on the bytes that were read and not merely sent).
fn yamux_config() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(MUXER_STREAMS);
    config
}

/// Builds the swarm. mDNS that cannot start costs one warning.
pub(super) fn build(
    keypair: Keypair,
    with_mdns: bool,
    shared: Arc<Shared>,
) -> Result<Swarm<Behaviour>, Box<dyn std::error::Error + Send + Sync>> {
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(shared.role.pending()))
        .with_max_pending_outgoing(Some(shared.role.pending()))
        .with_max_established_per_peer(Some(CONNECTIONS_PER_DEVICE));
    let own = keypair.public().to_peer_id();
    let mdns = with_mdns.then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), own)).and_then(|started| {
        started.inspect_err(|error| tracing::warn!(%error, "no discovery on the local network: mDNS does not start")).ok()
    });
    let swarm = libp2p::SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(
            tcp::Config::default().nodelay(true),
            (tls::Config::new, noise::Config::new),
            yamux_config,
        )?
        .with_quic_config(|mut config| {
            config.keep_alive_interval = CHECK_INTERVAL / 2;
            config.max_idle_timeout =
                u32::try_from((CHECK_INTERVAL + CHECK_TIMEOUT).as_millis()).unwrap_or(u32::MAX);
            config.max_concurrent_stream_limit = MUXER_STREAMS as u32;
            config
        })
        .with_relay_client((tls::Config::new, noise::Config::new), yamux_config)?
        .with_behaviour(|keypair, relay_client| Behaviour {
            limits: connection_limits::Behaviour::new(limits),
            streams: Streams::new(shared.clone()),
            mdns: Toggle::from(mdns),
            identify: identify(keypair, &shared),
            relay_client: Foreign::new(relay_client),
            relay: relay(keypair, &shared).into(),
            autonat_client: (!shared.role.is_host()).then(autonat_client).into(),
            autonat_server: shared
                .role
                .is_host()
                .then(|| Foreign::new(autonat::server::Behaviour::default()))
                .into(),
            dcutr: dcutr(keypair, &shared).into(),
        })?
        .with_swarm_config(|config| {
            config.with_max_negotiating_inbound_streams(NEGOTIATING_STREAMS)
        })
        .with_connection_timeout(DIAL_TIMEOUT)
        .build();
    Ok(swarm)
}

/// Hosts tell everybody from where they see them. Devices ask only those of whom they may want to know it: hosts, and those
/// of whom they do not know yet what they are; and nobody else learns through it where they can be reached.
fn identify(keypair: &Keypair, shared: &Arc<Shared>) -> Foreign<identify::Behaviour> {
    let config = identify::Config::new(IDENTIFY.into(), keypair.public())
        .with_agent_version(IDENTIFY.into())
        .with_hide_listen_addrs(true)
        .with_cache_size(0);
    let shared = shared.clone();
    Foreign::new(identify::Behaviour::new(config)).only(move |peer, outbound| {
        let roster = &shared.roster;
        let asks = |device| roster.is_relay(&device) || !roster.is_wanted(&device);
        shared.role.is_host() || outbound && device_of(peer).is_some_and(asks)
    })
}

fn relay(keypair: &Keypair, shared: &Shared) -> Option<Foreign<relay::Behaviour>> {
    let Role::Host(options) = &shared.role else {
        return None;
    };
    let config = options.relay_config(&shared.roster);
    let mut behaviour = relay::Behaviour::new(keypair.public().to_peer_id(), config);
    // By itself it would wait until somebody has proved that it can be reached.
    behaviour.set_status(Some(relay::Status::Enable));
    Some(Foreign::new(behaviour))
}

fn autonat_client() -> Foreign<autonat::client::Behaviour> {
    let config = autonat::client::Config::default().with_probe_interval(PROBE_INTERVAL);
    let behaviour = autonat::client::Behaviour::new(StdRng::from_rng(&mut rand::rng()), config);
    Foreign::new(behaviour).resting_after(PROBE_ATTENTION)
}

/// With wanted devices only: it tells the other end from where we are seen.
fn dcutr(keypair: &Keypair, shared: &Arc<Shared>) -> Option<Foreign<dcutr::Behaviour>> {
    let Role::Device {
        hole_punching: true,
    } = shared.role
    else {
        return None;
    };
    let roster = shared.roster.clone();
    let behaviour = dcutr::Behaviour::new(keypair.public().to_peer_id());
    Some(
        Foreign::new(behaviour)
            .only(move |peer, _| device_of(peer).is_some_and(|device| roster.is_wanted(&device))),
    )
}
