//! What waits to be sent to one device.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use coffer_protocol::identity::WriterId;
use coffer_protocol::replication::{Action, Outbox, Work};
use tokio::sync::Notify;

/// What is to be sent to one device: filled by the core, drained by the device's session as the link takes it.
#[derive(Default)]
pub struct SessionQueue {
    outbox: Mutex<Outbox>,
    filled: Notify,
    closed: AtomicBool,
}

impl SessionQueue {
    /// The next thing to send; `None` when the session is to end.
    pub async fn next(&self) -> Option<Work> {
        loop {
            let filled = self.filled.notified();
            if self.closed.load(Ordering::Acquire) {
                return None;
            }
            if let Some(work) = self.lock().take_next() {
                return Some(work);
            }
            filled.await;
        }
    }

    /// Entries named by [`Work::Entries`] were sent up to and including `seq`.
    pub fn sent(&self, writer: WriterId, seq: u64) {
        self.lock().sent(writer, seq);
    }

    pub(crate) fn push(&self, action: Action) {
        self.lock().push(action);
        self.filled.notify_one();
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.filled.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
