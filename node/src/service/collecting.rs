//! Has the collector work from time to time: after a start, every hour, and soon after the trash was emptied or the rule
//! changed. When it last looked is remembered: a device that never runs for long does look, too.

use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redb::ReadableDatabase;
use tokio::sync::{Notify, watch};

use super::running::Running;
use super::{stopped, trash};
use crate::collect::{CollectError, Limits, Report, collect};
use crate::store::{StoreError, records, tables};
use crate::vault::{CommitRequest, wall_ms};

/// After a start, before the first look: people wait for other things then.
const FIRST_AFTER: Duration = Duration::from_secs(10 * 60);
/// The same where the last look of an earlier run is longer ago than [`EVERY`].
const OVERDUE_AFTER: Duration = Duration::from_secs(60);
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
    let mut after = first_after(&running, wall_ms()).await;
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
        remember(&running).await;
        after = EVERY;
    }
}

/// How long after a start to look. A data folder that has never been looked at counts as looked at now: in a new one there
/// is nothing to free.
async fn first_after(running: &Running, now_ms: u64) -> Duration {
    let read = || -> Result<Option<u64>, StoreError> {
        let meta = running
            .vault
            .database()
            .begin_read()?
            .open_table(tables::META)?;
        records::get_u64(&meta, tables::meta::COLLECTED)
    };
    match read() {
        Ok(Some(looked_ms)) if is_overdue(looked_ms, now_ms) => OVERDUE_AFTER,
        Ok(Some(_)) => FIRST_AFTER,
        Ok(None) => {
            remember(running).await;
            FIRST_AFTER
        }
        Err(error) => {
            tracing::warn!(%error, "when the last look for what is not needed was cannot be read");
            FIRST_AFTER
        }
    }
}

/// Whether the next look is due. One of the future is of a clock that was wrong.
fn is_overdue(looked_ms: u64, now_ms: u64) -> bool {
    now_ms.abs_diff(looked_ms) >= EVERY.as_millis() as u64
}

async fn remember(running: &Running) {
    let request = CommitRequest {
        meta: vec![(tables::meta::COLLECTED, wall_ms().to_be_bytes().to_vec())],
        ..Default::default()
    };
    if let Err(error) = running.vault.commit(request).await {
        tracing::debug!(%error, "when the last look for what is not needed was is not remembered");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_overdue_an_hour_after_the_last_one_of_whatever_run() {
        const HOUR_MS: u64 = 60 * 60 * 1000;
        let now = 1_795_392_270_000;
        assert!(!is_overdue(now, now));
        assert!(!is_overdue(now - HOUR_MS + 1, now));
        assert!(is_overdue(now - HOUR_MS, now));
        assert!(is_overdue(now + HOUR_MS, now), "the clock was wrong then");
    }
}
