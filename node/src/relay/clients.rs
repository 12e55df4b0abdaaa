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
    let mut clients: BTreeSet<Device> = BTreeSet::new();
    loop {
        let changed = tokio::select! {
            () = stopped(&mut stop) => return,
            Some(device) = to_look_at.recv() => consider(&host, &mut clients, device).await,
            event = events.recv() => match event {
                Ok(NetEvent::Connected { device, .. }) => consider(&host, &mut clients, device).await,
                Ok(NetEvent::Disconnected { device }) => clients.remove(&device),
                Ok(_) => false,
                Err(broadcast::error::RecvError::Lagged(_)) => recount(&host, &mut clients).await,
                Err(broadcast::error::RecvError::Closed) => return,
            },
        };
        if changed {
            host.net.set_relay_clients(clients.clone()).await;
        }
    }
}

/// Takes a connected device in if it is in a vault; says whether the list changed.
async fn consider(host: &Host, clients: &mut BTreeSet<Device>, device: Device) -> bool {
    if clients.contains(&device) || !host.net.is_connected(&device) {
        return false;
    }
    match host.store.vaults_of(DeviceId(device)).await {
        Ok(vaults) => !vaults.is_empty() && clients.insert(device),
        Err(error) => {
            host.store_failed("look for a device", &error);
            false
        }
    }
}

async fn recount(host: &Host, clients: &mut BTreeSet<Device>) -> bool {
    let connected: BTreeSet<Device> = host
        .net
        .connections()
        .iter()
        .map(|one| one.device)
        .collect();
    let before = clients.clone();
    clients.retain(|device| connected.contains(device));
    for device in connected {
        consider(host, clients, device).await;
    }
    *clients != before
}
