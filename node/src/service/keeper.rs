//! Fetches what this device is to hold and no synced folder writes: contents of files outside of those folders.
//!
//! It looks at the list of wanted files whenever that may have changed, leaves those of synced folders to their
//! engines (unless such a file is on disk with other bytes than its row says), lets go of what went to the trash, passes
//! over what is on demand, and stores the rest in batches, durable before the vault is told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coffer_crdt::files::FileId;
use coffer_protocol::identity::Hash;
use tokio::sync::watch;
use tokio::time::Instant;

use super::bringing::{Wanted, bring};
use super::running::Running;
use super::{displaced, stopped, storage};
use crate::blobs::{Fetch, Priority, StoreJob};
use crate::vault::storage::Plan;
use crate::vault::{CommitRequest, Left};

/// Files per batch: one that fails holds up few.
const BATCH: usize = 256;
/// Pause after a batch of which something could not be had, unless devices come and go before.
const RETRY_AFTER: Duration = Duration::from_secs(15);

/// After a change, how long more of them are let come: a first sync changes something all the time.
const GATHER: Duration = Duration::from_millis(150);

/// How many times as long as a look takes it is not looked again.
const REST_FOR: u32 = 20;
/// Only while so many are wanted: a look at fewer costs next to nothing.
const MANY: u64 = 1000;
/// But no longer than this.
const REST_MOST: Duration = Duration::from_secs(30);

/// Whether it works.
#[derive(Default)]
pub struct Keeper(AtomicBool);

impl Keeper {
    /// Whether something is being fetched into the store now.
    pub fn is_busy(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Runs until `stop`.
pub async fn run(running: Arc<Running>, mut stop: watch::Receiver<bool>) {
    let mut changes = running.vault.subscribe();
    let mut pace = Pace::default();
    loop {
        let sources_changed = running.fetch.sources.changed();
        let (begun, wanted) = (Instant::now(), running.vault.wanted_count().unwrap_or(0));
        let outcome = tokio::select! {
            () = stopped(&mut stop) => return,
            outcome = pass(&running) => outcome,
        };
        if let Outcome::Nothing = outcome {
            pace.looked(wanted, begun.elapsed());
        }
        running.keeper.0.store(false, Ordering::Release);
        match outcome {
            Outcome::More => continue,
            Outcome::Nothing => tokio::select! {
                () = stopped(&mut stop) => return,
                _ = changes.recv() => {}
            },
            Outcome::Waiting => tokio::select! {
                () = stopped(&mut stop) => return,
                () = sources_changed => {}
                () = tokio::time::sleep(RETRY_AFTER) => {}
            },
        }
        tokio::time::sleep(GATHER).await;
        let rested = async {
            while let Some(rest) = pace.rest(running.vault.wanted_count().unwrap_or(0)) {
                tokio::time::sleep(rest.min(GATHER)).await;
            }
        };
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = rested => {}
        }
        changes = changes.resubscribe();
    }
}

/// How often to look: what looks cost, with a great many wanted that synced folders see to, stays a small part of what
/// bringing them does.
#[derive(Default)]
struct Pace {
    /// What the last look cost for each file that was wanted then, and when it ended.
    last: Option<(Duration, Instant)>,
}

impl Pace {
    fn looked(&mut self, wanted: u64, took: Duration) {
        let count = u32::try_from(wanted).unwrap_or(u32::MAX).max(1);
        self.last = Some((took / count, Instant::now()));
    }

    /// How long not to look yet, with so many wanted now: soon, once they have become few.
    fn rest(&self, wanted: u64) -> Option<Duration> {
        let (each, ended) = self.last.filter(|_| wanted >= MANY)?;
        let cost = each.saturating_mul(u32::try_from(wanted).unwrap_or(u32::MAX));
        let rest = cost.saturating_mul(REST_FOR).min(REST_MOST);
        rest.checked_sub(ended.elapsed())
            .filter(|rest| !rest.is_zero())
    }
}

enum Outcome {
    /// Nothing is wanted.
    Nothing,
    /// Something was done and there may be more.
    More,
    /// What is wanted cannot be had now.
    Waiting,
}

/// Forgets where the pieces of long contents were that files of synced folders no longer hold.
pub(super) async fn forget_left(running: &Arc<Running>) {
    let left = running.vault.inspect(|core| core.state().take_left()).await;
    let mut gone = Vec::new();
    for (folder, file, root) in left.unwrap_or_default() {
        let now = running.vault.folder_row(folder, file);
        let (Ok(now), Ok(before)) = (now, running.blobs.expand(&root, &Fetch::nobody()).await)
        else {
            continue;
        };
        let now = now.map(|row| row.hash);
        let mut blobs: BTreeSet<Hash> = before.iter().map(|piece| piece.blob).collect();
        if now.is_some() {
            let state = running.vault.file(file).ok().flatten();
            let present = state.and_then(|state| state.content);
            let Some(present) = present.filter(|present| Some(present.hash) == now) else {
                continue;
            };
            match running.blobs.expand(&present.root, &Fetch::nobody()).await {
                Ok(kept) => {
                    for piece in kept {
                        blobs.remove(&piece.blob);
                    }
                }
                Err(_) => continue,
            }
        }
        gone.push(Left {
            folder,
            file,
            now,
            blobs: blobs.into_iter().collect(),
        });
    }
    if gone.is_empty() {
        return;
    }
    let request = CommitRequest {
        left: gone,
        ..Default::default()
    };
    if let Err(error) = running.vault.commit(request).await {
        tracing::warn!(%error, "places of bytes that were replaced could not be forgotten");
    }
}

async fn pass(running: &Arc<Running>) -> Outcome {
    forget_left(running).await;
    let stale = running.blobs.take_stale();
    if !stale.is_empty() {
        let request = CommitRequest {
            displaced: stale,
            ..Default::default()
        };
        if let Err(error) = displaced::forget(&running.vault, &running.blobs, request).await {
            tracing::warn!(%error, "places of bytes that are gone could not be forgotten");
        }
        running.keeping.look_again.store(true, Ordering::Release);
    }
    let Ok(wanted) = running.vault.wanted() else {
        return Outcome::Waiting;
    };
    let Ok(settings) = storage::settings(running).await else {
        return Outcome::Waiting;
    };
    let (mut jobs, mut covered, mut unwanted) = (Vec::new(), Vec::new(), Vec::new());
    let mut trashed = Vec::new();
    {
        let tree = running.vault.tree();
        let mut plan = Plan::new(&tree, &settings, running.folders.vault_folders());
        for file in wanted {
            match tree.shown(file.id) {
                Some(shown) if shown.trashed => trashed.push(file.id),
                Some(_) if plan.is_synced(file.id) => covered.push(file),
                Some(_) if !plan.keeps(file.id) => {}
                _ => jobs.push((file.size, file.id)),
            }
        }
    }
    // A file that a folder's engine had written before it was wanted again is held already, if its bytes still have a
    // place. Where that was forgotten, the file has other bytes than its row says, and only others can give them.
    let mut held = Vec::new();
    for file in covered {
        // Most are not on disk yet, which the rows in memory tell; what counts is what is durable.
        if !running.paths.has_row(file.id, &file.hash)
            || !running.folders.holds(running, file.id, file.hash)
        {
            continue;
        }
        let Ok(Some(state)) = running.vault.file(file.id) else {
            continue;
        };
        let content = state.content.filter(|content| content.hash == file.hash);
        let Some(content) = content else { continue };
        match running.blobs.has_all(&content.root).await {
            Ok(true) => held.push((file.id, file.hash)),
            Ok(false) => jobs.push((file.size, file.id)),
            Err(error) => tracing::warn!(%error, "the places of a file's bytes cannot be read"),
        }
    }
    // Small ones first: most files are held soonest that way.
    jobs.sort_unstable();
    let jobs: Vec<FileId> = jobs.into_iter().map(|(_, id)| id).collect();
    // What is in the trash by itself need not be fetched: whatever takes it out has it looked at anew. What is there with
    // a folder comes back with the folder, without a word of itself: it still counts as not here.
    for id in trashed {
        if let Ok(Some(file)) = running.vault.file(id)
            && file.is_in_trash()
        {
            unwanted.push(id);
        }
    }
    let mut outcome = Outcome::Nothing;
    if !unwanted.is_empty() || !held.is_empty() {
        outcome = Outcome::More;
        if running
            .vault
            .commit(CommitRequest {
                unwanted,
                held,
                ..Default::default()
            })
            .await
            .is_err()
        {
            return Outcome::Waiting;
        }
    }
    if jobs.is_empty() {
        return outcome;
    }
    running.keeper.0.store(true, Ordering::Release);
    if running.fetch.sources.candidates().is_empty() {
        running.keeper.0.store(false, Ordering::Release);
    }
    let mut progress = false;
    let fetch = running.fetch.clone().with_priority(Priority::Background);
    for batch in jobs.chunks(BATCH) {
        progress |= store(running, batch, &fetch).await;
    }
    if progress {
        Outcome::More
    } else {
        Outcome::Waiting
    }
}

/// Fetches some files' contents; says whether any is held now that was not.
pub(super) async fn store(running: &Arc<Running>, batch: &[FileId], fetch: &Fetch) -> bool {
    let mut wanted = Vec::with_capacity(batch.len());
    for id in batch {
        if let Ok(Some(state)) = running.vault.file(*id)
            && let Some(content) = state.content
        {
            wanted.push(Wanted {
                file: Some(*id),
                job: StoreJob {
                    key: 0,
                    size: content.size,
                    hash: content.hash,
                    root: content.root,
                },
            });
        }
    }
    bring(running, &wanted, fetch).await.any_held
}
