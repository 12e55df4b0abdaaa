//! Has the collector work from time to time: soon after a start, every hour, and after the trash was emptied.

use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::running::Running;
use super::{stopped, trash};
use crate::collect::{CollectError, Limits, Report, collect};
use crate::vault::wall_ms;

/// After a start, before the first look: people wait for other things then.
const FIRST_AFTER: Duration = Duration::from_secs(10 * 60);
/// Between looks.
const EVERY: Duration = Duration::from_secs(60 * 60);
/// After a request: what was emptied together is looked at once.
const SOON: Duration = Duration::from_secs(5);
/// Between runs of one look, so that others get at disk and vault.
const PAUSE: Duration = Duration::from_secs(1);
/// Runs of one look, at most. Each deals with some 100,000 blobs.
const RUNS: usize = 50;

/// The collector's handle, and what it last found.
#[derive(Default)]
pub struct Collector {
    soon: Notify,
    looked: Mutex<Looked>,
}

/// What the last look found.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    /// When; `None` before the first one since the start.
    pub at_ms: Option<u64>,
    /// Bytes freed since the start.
    pub freed_bytes: u64,
    /// Bytes that wait for the grace or for other devices.
    pub waiting_bytes: u64,
    /// Why it did not come to its end.
    pub failed: Option<String>,
}

impl Collector {
    /// Has it look in some seconds.
    pub fn look_soon(&self) {
        self.soon.notify_one();
    }

    /// What the last look found.
    pub fn looked(&self) -> Looked {
        self.looked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn note(&self, result: &Result<Report, CollectError>) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(report) => {
                looked.at_ms = Some(report.at_ms);
                looked.freed_bytes += report.freed_bytes;
                looked.waiting_bytes = report.waiting_bytes;
                looked.failed = None;
            }
            Err(error) => looked.failed = Some(error.to_string()),
        }
    }
}

/// Runs until `stop`.
pub async fn run(running: Arc<Running>, mut stop: watch::Receiver<bool>) {
    let mut after = FIRST_AFTER;
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = tokio::time::sleep(after) => {}
            () = running.collector.soon.notified() => tokio::select! {
                () = stopped(&mut stop) => return,
                () = tokio::time::sleep(SOON) => {}
            },
        }
        // A look that is cut short between two steps leaves nothing half done.
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = look(&running) => {}
        }
        after = EVERY;
    }
}

async fn look(running: &Arc<Running>) {
    if let Err(error) = trash::purge_overdue(running).await {
        tracing::warn!(%error, "what is overdue in the trash could not be purged");
    }
    for _ in 0..RUNS {
        let folders = running.paths.all();
        let result = collect(
            &running.vault,
            &running.blobs,
            &folders,
            wall_ms(),
            Limits::default(),
        )
        .await;
        running.collector.note(&result);
        match result {
            Ok(report) => {
                if report.freed_bytes > 0 {
                    let (blobs, bytes) = (report.freed_blobs, report.freed_bytes);
                    tracing::info!(blobs, bytes, "what nothing names any more was freed");
                }
                if !report.more {
                    return;
                }
            }
            Err(error @ CollectError::Busy) => {
                tracing::debug!(%error, "what is not needed any more is freed later");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "what is not needed any more could not be freed");
                return;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
