//! The rule of [`crate::folder::sparing`], for changes that are made in the vault itself, past any synced folder: contents
//! that were written elsewhere at the same time get conflict copies before they are forgotten or deleted unseen, and so
//! does what this device wrote when it turns out to have lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use coffer_crdt::files::FileId;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use super::running::{Running, commit_error};
use super::stopped;
use crate::control::{ControlError, ErrorKind};
use crate::folder::sparing::{Spared, keep_outdone, spare};
use crate::vault::{CommitError, CommitRequest, Operation, wall_ms};

/// Contents of this device that lost and are still to be seen to, at most: each costs 48 bytes. What is beyond that gets its
/// copy when somebody writes or deletes the file.
const OUTDONE_MAX: usize = 100_000;
/// Pause before trying again what could not be recorded.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// A request for operations that a person or a program has decided on by what the vault shows.
///
/// # Errors
/// [`ControlError`] when the store cannot be read.
pub async fn request(
    running: &Running,
    operations: Vec<Operation>,
) -> Result<CommitRequest, ControlError> {
    let vault = running.vault.clone();
    let spared = tokio::task::spawn_blocking(move || {
        spare(&vault, operations, &BTreeMap::new(), wall_ms() as i64)
    });
    match spared.await {
        Ok(spared) => Ok(as_request(spared.map_err(commit_error)?)),
        Err(error) => Err(ControlError::new(
            ErrorKind::Internal,
            format!("the files could not be looked at: {error}"),
        )),
    }
}

fn as_request(spared: Spared) -> CommitRequest {
    CommitRequest {
        operations: spared.operations,
        recheck: spared.copies,
        ..CommitRequest::default()
    }
}

/// Makes conflict copies of what this device wrote and what lost, until `stop`.
pub async fn run(running: Arc<Running>, mut stop: watch::Receiver<bool>) {
    let mut changes = running.vault.subscribe();
    let mut outdone: BTreeSet<(FileId, [u8; 32])> = BTreeSet::new();
    loop {
        let changed = tokio::select! {
            () = stopped(&mut stop) => return,
            changed = changes.recv() => changed,
        };
        match changed {
            Ok(changed) => {
                let room = OUTDONE_MAX.saturating_sub(outdone.len());
                outdone.extend(changed.outdone.iter().take(room));
            }
            // What was missed gets its copies when somebody writes or deletes the file.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
        while !outdone.is_empty() {
            let Err(error) = keep(&running, outdone.clone()).await else {
                outdone.clear();
                continue;
            };
            tracing::warn!(%error, "a conflict copy could not be made yet");
            tokio::select! {
                () = stopped(&mut stop) => return,
                () = tokio::time::sleep(RETRY_AFTER) => {}
            }
        }
    }
}

/// What is on disk in a synced folder is left to its engine.
async fn keep(
    running: &Arc<Running>,
    mut outdone: BTreeSet<(FileId, [u8; 32])>,
) -> Result<(), CommitError> {
    outdone.retain(|(id, hash)| !running.paths.has_row(*id, hash));
    let vault = running.vault.clone();
    let kept =
        tokio::task::spawn_blocking(move || keep_outdone(&vault, &outdone, wall_ms() as i64));
    let kept = kept
        .await
        .map_err(|error| CommitError::Storage(error.to_string()))??;
    if kept.operations.is_empty() {
        return Ok(());
    }
    match running.vault.commit(as_request(kept)).await {
        // Somebody else made the very copy meanwhile.
        Ok(_) | Err(CommitError::Exists(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
