//! What the host says of each vault: a signed statement, a moment after something became durable.
//!
//! A statement must never be told before its number is durable, and no two processes on one store may state different
//! things under one number: the store draws the line (compare and swap), and who loses reads again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coffer_protocol::identity::{DeviceId, StoreId, VaultId};
use coffer_protocol::relay::{HostState, HostStatement};
use coffer_protocol::version;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::host::{Host, now_ms, stopped};
use super::store::{Snapshot, StoreError};

/// How long news may wait for more of them: many changes share a statement, and a device that waits for "it is there"
/// does not notice.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// Tries against other processes that state something of the same vault at the same moment.
const TRIES: usize = 8;
/// Statements older than this are renewed when a device connects: it shows that the host is not frozen.
const RENEW_AFTER_MS: u64 = 60 * 60 * 1000;
/// Pause before something is stated that the store did not take: its disk may be full, or a database away.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// States what is asked for until `stop`, and then what is still waiting.
pub async fn run(
    host: Arc<Host>,
    mut asked: mpsc::Receiver<VaultId>,
    mut stop: watch::Receiver<bool>,
) {
    // By when they are due. As many as fit into the channel, at most.
    let mut waiting: BTreeSet<(Instant, VaultId)> = BTreeSet::new();
    loop {
        let due = waiting.first().map(|(due, _)| *due);
        let next = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(vault) = asked.recv(), if waiting.len() < asked.max_capacity() => {
                waiting.insert((Instant::now() + DEBOUNCE, vault));
            }
            () = next => {
                if let Some((_, vault)) = waiting.pop_first()
                    && !state_and_log(&host, vault).await
                {
                    waiting.insert((Instant::now() + AGAIN_AFTER, vault));
                }
            }
        }
    }
    while let Ok(vault) = asked.try_recv() {
        waiting.insert((Instant::now(), vault));
    }
    for (_, vault) in waiting {
        state_and_log(&host, vault).await;
    }
}

/// Says whether it is stated.
async fn state_and_log(host: &Host, vault: VaultId) -> bool {
    let stated = state(host, vault).await;
    if let Err(error) = &stated {
        host.store_failed("state what is kept", error);
    }
    stated.is_ok()
}

/// Makes a new statement of a vault, keeps it, and gives it to those who are connected.
pub async fn state(host: &Host, vault: VaultId) -> Result<(), StoreError> {
    let resident = host.vaults.get(&vault);
    if let Some(resident) = &resident {
        resident.begins_statement();
    }
    for _ in 0..TRIES {
        let Some(snapshot) = host.store.snapshot(vault).await? else {
            return Ok(());
        };
        let value = next(snapshot, host.id, now_ms());
        let counter = value.counter;
        let statement = HostStatement::sign(value, &host.key)
            .map_err(|error| StoreError::Failed(error.to_string()))?;
        let bytes = Bytes::copy_from_slice(statement.bytes());
        if host.store.put_host_statement(vault, counter, bytes).await? {
            if let Some(resident) = resident {
                resident.stated(host, statement.bytes().to_vec()).await;
            }
            return Ok(());
        }
    }
    Err(StoreError::Unavailable(
        "other processes of this host state the same vault without end".to_owned(),
    ))
}

/// What a host states after this snapshot.
pub fn next(snapshot: Snapshot, host: DeviceId, at_ms: u64) -> HostState {
    let usage = snapshot.record.usage;
    HostState {
        version: version::HOST_STATEMENT,
        vault: snapshot.record.vault,
        host,
        store: StoreId(snapshot.record.epoch),
        counter: snapshot.counter + 1,
        at_ms,
        entries: snapshot.clock,
        entry_bytes: usage.entry_bytes,
        blobs: usage.blobs,
        blob_bytes: usage.blob_bytes,
        quota_bytes: snapshot.record.quota,
    }
}

/// Makes a statement unless the last one says what is kept now, and is not old. A host that was killed took things that it
/// has not stated, and one that starts may find that something is gone: nothing else would bring that up.
pub async fn state_if_due(host: &Host, vault: VaultId) -> Result<(), StoreError> {
    let Some(snapshot) = host.store.snapshot(vault).await? else {
        return Ok(());
    };
    let said = snapshot.statement.as_ref().and_then(|bytes| {
        let statement = HostStatement::read(bytes, &vault, &host.id).ok()?;
        Some(statement.value().clone())
    });
    let now_ms = now_ms();
    match said {
        Some(said) if says(&said, &next(snapshot, host.id, now_ms)) => Ok(()),
        _ => state(host, vault).await,
    }
}

/// Whether what was said is what would be said now, and not long ago.
fn says(said: &HostState, now: &HostState) -> bool {
    let as_if_now = HostState {
        counter: now.counter,
        at_ms: now.at_ms,
        ..said.clone()
    };
    as_if_now == *now && now.at_ms.saturating_sub(said.at_ms) < RENEW_AFTER_MS
}
