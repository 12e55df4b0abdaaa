//! Whose connections the host carries: devices of vaults that it serves, while they are connected.

use std::collections::BTreeSet;
use std::sync::Arc;

use coffer_protocol::identity::DeviceId;
use tokio::sync::{broadcast, mpsc, watch};

use super::host::{Host, stopped};
use crate::net::{Device, NetEvent};

/// Keeps the network's list until `stop`.
pub async fn run(
    host: Arc<Host>,
    mut to_look_at: mpsc::Receiver<Device>,
    mut stop: watch::Receiver<bool>,
) {
    let mut events = host.net.events();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            Some(device) = to_look_at.recv() => consider(&host, device).await,
            event = events.recv() => match event {
                Ok(NetEvent::Connected { device, .. }) => consider(&host, device).await,
                // It may have come back meanwhile: then it stays.
                Ok(NetEvent::Disconnected { device }) => host.net.forget_relay_client(device).await,
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => recount(&host).await,
                Err(broadcast::error::RecvError::Closed) => return,
            },
        }
    }
}

/// Takes a connected device in if it is in a vault.
async fn consider(host: &Host, device: Device) {
    if host.net.is_relay_client(&device) || !host.net.is_connected(&device) {
        return;
    }
    match host.store.vaults_of(DeviceId(device)).await {
        Ok(vaults) if vaults.is_empty() => {}
        Ok(_) => host.net.admit_relay_client(device).await,
        Err(error) => host.store_failed("look for a device", &error),
    }
}

async fn recount(host: &Host) {
    let connections = host.net.connections();
    let connected: BTreeSet<Device> = connections.iter().map(|one| one.device).collect();
    for device in host.net.relay_clients() {
        if !connected.contains(&device) {
            host.net.forget_relay_client(device).await;
        }
    }
    for device in connected {
        consider(host, device).await;
    }
}
