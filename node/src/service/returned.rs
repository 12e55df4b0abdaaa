//! What came out of the trash: whether the contents came with the names.
//!
//! A synced folder's file that was deleted here may have been the only place of its bytes; another device may have gone
//! with them. Who takes something out of the trash is told so at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use coffer_crdt::files::FileId;
use coffer_protocol::eviction::Naming;

use super::running::{Running, blobs_error, commit_error};
use super::{storage, store_error};
use crate::control::{ControlError, Skipped};
use crate::vault::storage::Plan;

/// Files that are named; a count tells of more.
const NAMED: usize = 100;
/// How long devices that are connected are given to say anew what they have.
const SAID_WITHIN: Duration = Duration::from_secs(3);

/// Those that came back without their contents.
#[derive(Default)]
pub(super) struct Lacking {
    /// How many.
    pub count: u64,
    /// Which, and who has the content, if anybody; of very many only the first.
    pub named: Vec<Skipped>,
}

/// Looks at what has just come out of the trash: these, and what is below them.
pub(super) async fn lacking(
    running: &Arc<Running>,
    tops: &[FileId],
) -> Result<Lacking, ControlError> {
    let mut absent = Vec::new();
    for id in wanted_below(running, tops)? {
        let state = running.vault.file(id).map_err(store_error)?;
        let Some(content) = state.and_then(|state| state.content) else {
            continue;
        };
        // What a long list names may be here all the same.
        let is_here = running.blobs.has_all(&content.root).await;
        if !is_here.map_err(blobs_error)? {
            let naming = Naming {
                actor: content.dot.writer,
                seq: content.dot.seq,
            };
            absent.push((id, naming));
        }
    }
    let mut lacking = Lacking::default();
    if absent.is_empty() {
        return Ok(lacking);
    }
    let _ = tokio::time::timeout(SAID_WITHIN, all_have_said(running)).await;
    let settings = storage::settings(running).await?;
    for (id, naming) in absent {
        let elsewhere = {
            let tree = running.vault.tree();
            !Plan::new(&tree, &settings, running.folders.vault_folders()).keeps(id)
        };
        let reason = storage::why_lacking(running, id, naming, elsewhere).await;
        let Some(reason) = reason else {
            continue;
        };
        lacking.count += 1;
        if lacking.named.len() < NAMED
            && let Some(path) = running.vault.tree().path(id)
        {
            lacking.named.push(Skipped { path, reason });
        }
    }
    Ok(lacking)
}

/// Files that count as not here, among these and what is shown below them.
fn wanted_below(running: &Running, tops: &[FileId]) -> Result<Vec<FileId>, ControlError> {
    let wanted = running.vault.wanted().map_err(store_error)?;
    let wanted: BTreeSet<FileId> = wanted.into_iter().map(|wanted| wanted.id).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let tree = running.vault.tree();
    let mut found = BTreeSet::new();
    for top in tops {
        let all = std::iter::once(*top).chain(tree.below(*top));
        found.extend(all.filter(|id| {
            wanted.contains(id) && tree.shown(*id).is_some_and(|shown| !shown.trashed)
        }));
    }
    Ok(found.into_iter().collect())
}

/// Waits until every device that is connected has said what it has of all that is known here.
async fn all_have_said(running: &Running) -> Result<(), ControlError> {
    let mut activity = running.vault.activity();
    loop {
        let connected = running.fetch.sources.candidates();
        let said = running
            .vault
            .inspect(move |core| {
                let state = core.state();
                let mut others = state.others(core.device());
                others.all(|(_, held)| {
                    !connected.contains(&held.device) || held.entries.covers_clock(&state.clock)
                })
            })
            .await
            .map_err(commit_error)?;
        if said || activity.changed().await.is_err() {
            return Ok(());
        }
    }
}
