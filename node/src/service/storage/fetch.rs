//! Contents on demand that somebody is waiting for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use coffer_crdt::files::FileId;
use coffer_protocol::eviction::Naming;

use super::super::keeper;
use super::super::running::{Running, commit_error};
use super::super::store_error;
use super::{Has, settings};
use crate::blobs::Fetch;
use crate::control::ControlError;
use crate::vault::storage::{Plan, StorageChange};
use crate::vault::{CommitRequest, wall_ms};

/// Files brought here per batch, and uses noted per commit.
const BATCH: usize = 256;
/// Devices that a person is told of.
const NAMED: usize = 5;

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

/// Other devices that said they have a content, by name, and whether each is connected.
async fn havers(running: &Arc<Running>, id: FileId, naming: Naming) -> Vec<(String, bool)> {
    let connected = running.fetch.sources.candidates();
    running
        .vault
        .inspect(move |core| {
            let state = core.state();
            let others = state.others(core.device());
            let mut found = Vec::new();
            for (_, held) in others.filter(|(_, held)| Has::of(held).has(id, naming)) {
                let name = state.membership.device_name(&held.device, &state.keyring);
                found.push((
                    name.unwrap_or_else(|| held.device.to_string()),
                    connected.contains(&held.device),
                ));
            }
            found
        })
        .await
        .unwrap_or_default()
}

/// Of a content that came out of the trash and is not here: why it does not come, if no device that is connected says that
/// it has it. One that is on demand is `elsewhere` by right, if it is anywhere.
pub async fn why_lacking(
    running: &Arc<Running>,
    id: FileId,
    naming: Naming,
    elsewhere: bool,
) -> Option<String> {
    let found = havers(running, id, naming).await;
    let comes = found.iter().any(|(_, connected)| *connected || elsewhere);
    match comes {
        true => None,
        false => Some(who_has(running, id, naming).await),
    }
}

/// Why a content that is not here cannot be had: who has it, as far as devices have said.
pub async fn who_has(running: &Arc<Running>, id: FileId, naming: Naming) -> String {
    let found = havers(running, id, naming).await;
    let paused = running.blobs.limits().borrow().paused;
    if found.is_empty() {
        let nobody = "no other device is known to have it";
        return match paused {
            true => format!(
                "its content is not on this device, where transfers are paused, and {nobody}"
            ),
            false => format!("its content is not on this device, and {nobody}"),
        };
    }
    let reached = found.iter().any(|(_, connected)| *connected);
    let single = found.len() == 1;
    let more = found.len().saturating_sub(NAMED);
    let mut names: Vec<String> = found
        .into_iter()
        .take(NAMED)
        .map(|(name, _)| format!("\"{name}\""))
        .collect();
    if more > 0 {
        names.push(format!("{more} more"));
    }
    format!(
        "its content is not on this device; it is on {}, {}",
        names.join(", "),
        match (reached, single) {
            // Nobody is asked meanwhile, connected or not.
            _ if paused => "and transfers are paused on this device",
            (true, true) => "which is connected and did not give it",
            (true, false) => "of which one is connected and did not give it",
            (false, true) => "which cannot be reached now",
            (false, false) => "none of which can be reached now",
        }
    )
}
