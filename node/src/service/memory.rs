//! Gives memory back to the system when the node has come to rest.
//!
//! A first copy of 20,000 files needs some 100 MB for moments; glibc keeps what was freed for the threads that freed it,
//! and a node runs for months. So after work, once nothing has happened for a while, the free pages are given back.

use std::time::Duration;

use tokio::sync::watch;

use super::stopped;

/// Quiet after work before memory is given back: longer than idle worker threads live.
const REST: Duration = Duration::from_secs(12);

/// Runs until `stop`; `activity` counts up whenever the vault does something.
pub async fn give_back(mut activity: watch::Receiver<u64>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            changed = activity.changed() => if changed.is_err() { return },
        }
        loop {
            tokio::select! {
                () = stopped(&mut stop) => return,
                changed = activity.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(REST) => break,
            }
        }
        let _ = tokio::task::spawn_blocking(trim).await;
    }
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "glibc offers this only as a C function")]
fn trim() {
    // SAFETY: malloc_trim takes a number, touches free memory only, and may be called from any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}
