//! Pauses of other devices: each that has said that transfers are paused there is asked when they go on, so that what is
//! wanted is asked for again at that moment, and nobody is told of a pause that is over.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use coffer_protocol::identity::DeviceId;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::running::Running;
use super::{sources, stopped};
use crate::net::Net;

/// Pause before a device is asked anew whose stream broke while it stays connected.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Runs until `stop`.
pub async fn run(running: Arc<Running>, net: Net, mut stop: watch::Receiver<bool>) {
    let mut paused = running.blobs.paused_elsewhere();
    let mut asking = JoinSet::new();
    let mut asked = BTreeSet::new();
    loop {
        for device in &paused.borrow_and_update().devices {
            if asked.insert(*device) {
                asking.spawn(wait(running.clone(), net.clone(), *device));
            }
        }
        tokio::select! {
            () = stopped(&mut stop) => break,
            // The sender lives as long as the vault is open.
            _ = paused.changed() => {}
            Some(ended) = asking.join_next() => {
                if let Ok(device) = ended {
                    asked.remove(&device);
                    running.blobs.not_paused(device);
                }
            }
        }
    }
    asking.shutdown().await;
}

/// Waits until a device gives contents again, or cannot be asked any more.
async fn wait(running: Arc<Running>, net: Net, device: DeviceId) -> DeviceId {
    let sources = running.fetch.sources.clone();
    while sources::connected(&running.vault, &net).contains(&device) {
        match running.blobs.wait_for_end_of_pause(&*sources, device).await {
            Ok(()) => break,
            Err(error) => {
                tracing::debug!(%device, %error, "a device did not say when its pause ends");
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
    }
    device
}
