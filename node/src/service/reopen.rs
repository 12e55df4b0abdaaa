//! What happens when the disk fails the data folder while coffer runs.
//!
//! After any failure to read or write the database takes nothing more: nobody can know what of the failed write is
//! there. What was acknowledged is; so the vault is stopped, every handle dropped, and the database opened again with
//! the recovery that follows a crash, again and again until the disk lets it. Until then requests are told why. Where
//! some part of this process does not let go of the old database, the process ends instead: commands and the service
//! manager start a new one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::{Node, stopped};
use crate::control::{ControlError, ErrorKind};
use crate::vault::VaultHandle;

/// Before the first attempt: a disk that fails once often fails for a moment.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Between attempts, at most: a person who made room should not wait for long.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The old database is let go within this, or never.
const LET_GO_WITHIN: Duration = Duration::from_secs(60);

/// Whether the vault is closed because of the disk, and why.
#[derive(Clone, Default)]
pub struct Closed(Arc<Inner>);

#[derive(Default)]
struct Inner {
    failed: Notify,
    why: Mutex<Option<ControlError>>,
    gave_up: Mutex<Option<ControlError>>,
}

impl Closed {
    /// # Errors
    /// Why the vault is closed, if it is.
    pub fn check(&self) -> Result<(), ControlError> {
        lock(&self.0.why).clone().map_or(Ok(()), Err)
    }

    /// Why the process ends, if it could not open the database again.
    pub fn gave_up(&self) -> Option<ControlError> {
        lock(&self.0.gave_up).clone()
    }

    fn set(&self, why: Option<ControlError>) {
        *lock(&self.0.why) = why;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells of the failure of one vault's database; ends with the vault.
pub async fn watch(vault: VaultHandle, closed: Closed, mut stop: watch::Receiver<bool>) {
    tokio::select! {
        () = stopped(&mut stop) => {}
        () = vault.store_closed() => closed.0.failed.notify_one(),
    }
}

/// Opens the vault again whenever its database has failed. Ends when the node stops.
pub async fn keep_open(node: Arc<Node>) {
    let mut stop = node.stop.subscribe();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = node.closed.0.failed.notified() => {}
        }
        let Some(_founding) = unless_stopped(&mut stop, node.founding.lock()).await else {
            return;
        };
        let reason = "reading or writing the data folder failed";
        node.closed.set(Some(closed_error(ErrorKind::Io, reason)));
        tracing::warn!("the data folder is closed, to be opened again");
        node.stop_vault().await;
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::select! {
                () = stopped(&mut stop) => return,
                // An unlock opens it again.
                () = node.locking.is_shut() => break,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            match node.start_vault().await {
                Ok(_) => break,
                // Some request of this process still reads the old database.
                Err(error) if error.kind == ErrorKind::AlreadyRunning => {
                    if began.elapsed() > LET_GO_WITHIN {
                        let message = "after a failure of the disk the data folder can be opened again by a new process only; coffer ended";
                        tracing::error!("{message}");
                        *lock(&node.closed.0.gave_up) = Some(
                            ControlError::new(ErrorKind::Io, message).with_code("reopen-failed"),
                        );
                        node.stop.send_replace(true);
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the data folder cannot be opened yet");
                    node.closed
                        .set(Some(closed_error(error.kind, &error.message)));
                }
            }
        }
        node.closed.set(None);
        if node.locking.check().is_ok() {
            tracing::info!("the data folder is open again");
        }
    }
}

async fn unless_stopped<T>(
    stop: &mut watch::Receiver<bool>,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        () = stopped(stop) => None,
        done = work => Some(done),
    }
}

fn closed_error(kind: ErrorKind, reason: &str) -> ControlError {
    let message = format!("the vault is closed: {reason}");
    ControlError::new(kind, message).with_code("closed")
}
