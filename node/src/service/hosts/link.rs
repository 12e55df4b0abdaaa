//! Replication with one host: devices open it, hosts never do.

use std::sync::Arc;
use std::time::Duration;

use coffer_protocol::identity::DeviceId;
use coffer_protocol::relay::{DeviceSide, JoinError};
use coffer_protocol::version;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::super::running::Running;
use super::super::sessions;
use super::{look, talk};
use crate::hosts::{HostChange, TroubleKind};
use crate::net::{Net, NetEvent, StreamProtocol};

/// Pause before a stream is opened again after it broke while the connection stays.
const REOPEN_AFTER: Duration = Duration::from_millis(250);
/// The same, when the last ones broke at once.
const REOPEN_AT_MOST: Duration = Duration::from_secs(30);

/// Keeps a session with the host for as long as it is connected; never ends.
pub async fn run(running: Arc<Running>, net: Net, host: DeviceId) {
    let mut pause = REOPEN_AFTER;
    loop {
        connected(&net, host).await;
        let mut events = net.events();
        let stream = net
            .open(host.0, StreamProtocol::new(version::REPLICATE))
            .await;
        let began = tokio::time::Instant::now();
        let heard = match stream {
            Ok(stream) => sessions::hold(&running.vault, stream).await,
            Err(error) => {
                tracing::debug!(%error, "no stream to replicate with a host");
                false
            }
        };
        let lasted = began.elapsed() >= sessions::LASTED;
        // A host that says nothing does not know this device: it may have been admitted while the host was away.
        if !heard && net.is_connected(&host.0) {
            introduce(&running, &net, host).await;
        }
        pause = match lasted || !net.is_connected(&host.0) {
            true => REOPEN_AFTER,
            false => (pause * 2).min(REOPEN_AT_MOST),
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // It was restarted: what broke before says nothing of it as it is now.
            () = connects(&mut events, host) => pause = REOPEN_AFTER,
        }
    }
}

/// Resolves when the host is connected.
pub async fn connected(net: &Net, host: DeviceId) {
    let mut events = net.events();
    while !net.is_connected(&host.0) {
        connects(&mut events, host).await;
    }
}

/// Resolves when a first connection with the host has come up since the last of these events was taken, or may have.
async fn connects(events: &mut Receiver<NetEvent>, host: DeviceId) {
    loop {
        match events.recv().await {
            Ok(NetEvent::Connected { device, .. }) if device == host.0 => return,
            Err(RecvError::Lagged(_)) => return,
            Ok(_) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Makes this device known to a host that keeps the vault.
async fn introduce(running: &Arc<Running>, net: &Net, host: DeviceId) {
    let Ok((vault, grants)) = running
        .vault
        .inspect(|core| (core.state().vault, core.welcome().grants))
        .await
    else {
        return;
    };
    let joined = talk::join(net, host, DeviceSide::as_member(vault), |_| {
        std::future::ready(Some(grants.clone()))
    });
    let Err(error) = joined.await else { return };
    tracing::debug!(%error, "a host does not know this device");
    if error != JoinError::NotInvited {
        return;
    }
    let is_known = running.vault.inspect(move |core| {
        let memory = core.state().hosts.get(&host);
        memory.is_some_and(|memory| memory.trouble(TroubleKind::NotKept).is_some())
    });
    if matches!(is_known.await, Ok(false)) {
        tracing::warn!(%host, "a host says that it does not keep the vault");
        look::note(running, HostChange::Trouble(host, TroubleKind::NotKept)).await;
    }
}
