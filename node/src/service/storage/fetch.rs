//! Contents on demand that somebody is waiting for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use coffer_crdt::files::FileId;

use super::super::keeper;
use super::super::running::{Running, commit_error};
use super::super::store_error;
use super::settings;
use crate::blobs::Fetch;
use crate::control::ControlError;
use crate::vault::storage::{Plan, StorageChange};
use crate::vault::{CommitRequest, wall_ms};

/// Files brought here per batch, and uses noted per commit.
const BATCH: usize = 256;

/// Brings those of `files` into the store that are on demand and not here, and notes that they were asked for. What
/// would not fit the limit by itself is left to whoever writes it out. What cannot be had stays elsewhere.
pub async fn bring_here(
    running: &Arc<Running>,
    files: &[FileId],
    fetch: &Fetch,
) -> Result<(), ControlError> {
    let storage = settings(running).await?;
    if storage.keeps_everything() {
        return Ok(());
    }
    let wanted = running.vault.wanted().map_err(store_error)?;
    let fits = |size: u64| storage.limit.is_none_or(|limit| size <= limit);
    let wanted: BTreeSet<FileId> = wanted
        .into_iter()
        .filter(|wanted| fits(wanted.size))
        .map(|wanted| wanted.id)
        .collect();
    let on_demand: Vec<FileId> = {
        let tree = running.vault.tree();
        let mut plan = Plan::new(&tree, &storage, running.folders.vault_folders());
        files
            .iter()
            .copied()
            .filter(|id| !plan.keeps(*id))
            .collect()
    };
    for batch in on_demand.chunks(BATCH) {
        // Noted first: what was asked for last is dropped last, also while the rest is on its way.
        let now = wall_ms();
        let used = batch.iter().map(|id| StorageChange::Used(*id, now));
        let request = CommitRequest {
            storage: used.collect(),
            ..Default::default()
        };
        running.vault.commit(request).await.map_err(commit_error)?;
        let missing: Vec<FileId> = batch
            .iter()
            .copied()
            .filter(|id| wanted.contains(id))
            .collect();
        if !missing.is_empty() {
            let _fetching = Fetching::begin(running);
            keeper::store(running, &missing, fetch).await;
        }
    }
    Ok(())
}

/// While it lives, contents are being brought here. A request that is cancelled leaves parts, as one that fails does.
struct Fetching<'a>(&'a Running);

impl Fetching<'_> {
    fn begin(running: &Running) -> Fetching<'_> {
        running.keeping.fetching.fetch_add(1, Ordering::AcqRel);
        Fetching(running)
    }
}

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        self.0.keeping.parts.store(true, Ordering::Release);
        self.0.keeping.fetching.fetch_sub(1, Ordering::AcqRel);
    }
}
