//! What the swarm is made of: transports, multiplexers and behaviours, with their settings.

use std::sync::Arc;

use libp2p::{
    connection_limits,
    identity::Keypair,
    mdns, noise,
    swarm::{NetworkBehaviour, Swarm, behaviour::toggle::Toggle},
    tcp, tls, yamux,
};

use super::{
    limits::{
        CHECK_INTERVAL, CHECK_TIMEOUT, CONNECTIONS_PER_DEVICE, DIAL_TIMEOUT, MUXER_STREAMS,
        NEGOTIATING_STREAMS, PENDING_CONNECTIONS,
    },
    streams::{Shared, Streams},
};

/// All behaviours of a node.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    streams: Streams,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

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
        .with_max_pending_incoming(Some(PENDING_CONNECTIONS))
        .with_max_pending_outgoing(Some(PENDING_CONNECTIONS))
        .with_max_established_per_peer(Some(CONNECTIONS_PER_DEVICE));
    let own = keypair.public().to_peer_id();
    let mdns = with_mdns.then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), own)).and_then(|started| {
        started.inspect_err(|error| tracing::warn!(%error, "no discovery on the local network: mDNS does not start")).ok()
    });
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        streams: Streams::new(shared),
        mdns: Toggle::from(mdns),
    };
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
        .with_behaviour(|_| behaviour)?
        .with_swarm_config(|config| {
            config.with_max_negotiating_inbound_streams(NEGOTIATING_STREAMS)
        })
        .with_connection_timeout(DIAL_TIMEOUT)
        .build();
    Ok(swarm)
}
