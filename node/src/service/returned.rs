//! What came out of the trash: whether the contents came with the names.
//!
//! A synced folder's file that was deleted here may have been the only place of its bytes; another device may have gone
//! with them. Who takes something out of the trash is told so at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use coffer_crdt::files::FileId;
use tokio::time::Instant;

use super::running::{Running, commit_error};
use super::whereabouts::{self, Sought, Whereabouts};
use super::{storage, store_error};
use crate::control::{ControlError, Skipped};
use crate::vault::storage::Plan;

/// Files that are looked for; of very many only so many.
const LOOKED_FOR: usize = 4096;
/// Files that are named; a count tells of more.
const NAMED: usize = 100;
/// How long devices that are connected are given to take in what was done here.
const SAID_WITHIN: Duration = Duration::from_secs(3);
/// How long until they are asked again, unless one says something before.
const ASK_AGAIN: Duration = Duration::from_millis(300);

/// Those that came back without their contents.
#[derive(Default)]
pub(super) struct Lacking {
    /// How many, of those that were looked for.
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
    for id in wanted_below(running, tops)?.into_iter().take(LOOKED_FOR) {
        let state = running.vault.file(id).map_err(store_error)?;
        if let Some(content) = state.and_then(|state| state.content) {
            absent.push((id, Sought::of(running, id, &content)));
        }
    }
    let mut lacking = Lacking::default();
    if absent.is_empty() {
        return Ok(lacking);
    }
    let (ids, sought): (Vec<FileId>, Vec<Sought>) = absent.into_iter().unzip();
    let found = look(running, &sought).await?;
    let settings = storage::settings(running).await?;
    let paused = running.blobs.limits().borrow().paused;
    for (id, found) in ids.into_iter().zip(found) {
        let elsewhere = {
            let tree = running.vault.tree();
            !Plan::new(&tree, &settings, running.folders.vault_folders()).keeps(id)
        };
        let by_right = elsewhere && !found.on.is_empty();
        // What a long list names may be here all the same.
        if found.here || by_right || found.comes() && !paused {
            continue;
        }
        lacking.count += 1;
        if lacking.named.len() < NAMED
            && let Some(path) = running.vault.tree().path(id)
        {
            let reason = found.why_not_here(paused);
            lacking.named.push(Skipped { path, reason });
        }
    }
    Ok(lacking)
}

/// Where these are. A device that is just doing what was done here, and has a file in its hands for that, says for a moment
/// that it is not there: so who does not have them is asked again, until it has said that it is as far as this device.
async fn look(running: &Arc<Running>, sought: &[Sought]) -> Result<Vec<Whereabouts>, ControlError> {
    let until = Instant::now() + SAID_WITHIN;
    let mut activity = running.vault.activity();
    let mut settled = false;
    loop {
        let found = whereabouts::find(running, sought).await?;
        let is_known = found.iter().all(|found| found.here || !found.on.is_empty());
        let alone = running.fetch.sources.connected().is_empty();
        if is_known || alone || settled || Instant::now() >= until {
            return Ok(found);
        }
        // Once more after the last has said so.
        settled = all_have_said(running).await?;
        let _ = tokio::time::timeout(ASK_AGAIN, activity.changed()).await;
        if settled {
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
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

/// Whether every device that is connected has said what it has of all that is known here.
async fn all_have_said(running: &Running) -> Result<bool, ControlError> {
    let connected = running.fetch.sources.connected();
    let said = running.vault.inspect(move |core| {
        let state = core.state();
        let mut others = state.others(core.device());
        others.all(|(_, held)| {
            !connected.contains(&held.device) || held.entries.covers_clock(&state.clock)
        })
    });
    said.await.map_err(commit_error)
}
