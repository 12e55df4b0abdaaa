//! Gives memory back to the system when the host has come to rest: a family's upload needs buffers for moments, and the
//! host runs for months.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::host::{Host, stopped};
use crate::service::memory::trim;

/// How often it is looked whether something happened: twice this without anything is rest.
const LOOK_EVERY: Duration = Duration::from_secs(6);

/// Looks until `stop`.
pub async fn run(host: Arc<Host>, mut stop: watch::Receiver<bool>) {
    let mut last = [0; 4];
    let mut worked = true;
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let metrics = &host.metrics;
        let now = [
            metrics.entries_in.get(),
            metrics.blob_bytes_in.get(),
            metrics.blob_bytes_out.get(),
            u64::try_from(metrics.sessions.get()).unwrap_or(0),
        ];
        if now != last {
            worked = true;
        } else if worked {
            worked = false;
            let _ = tokio::task::spawn_blocking(trim).await;
        }
        last = now;
    }
}
