//! Devices that give a sign of life by way of a host are dialled at once.
//!
//! A device that was away is dialled ever more seldom. When it comes back it dials by itself; where that fails, because its
//! router or ours lets nobody in, what it says arrives through a host all the same, and so does that it is there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coffer_protocol::identity::DeviceId;

use super::super::running::Running;
use crate::net::Net;

/// How often it is looked who has said something, while something happens.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Follows what devices say; ends with the vault.
pub async fn run(running: Arc<Running>, net: Net) {
    let mut activity = running.vault.activity();
    let mut known: Option<BTreeMap<DeviceId, u64>> = None;
    loop {
        let said = running.vault.inspect(|core| {
            let held = core.state().held.iter();
            held.map(|(device, held)| (*device, held.counter))
                .collect::<BTreeMap<_, _>>()
        });
        let Ok(said) = said.await else { return };
        if let Some(known) = &known {
            for (device, counter) in &said {
                let is_news = known.get(device).is_none_or(|before| before < counter);
                if is_news && !net.is_connected(&device.0) {
                    net.heard_of(device.0).await;
                }
            }
        }
        known = Some(said);
        if activity.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
