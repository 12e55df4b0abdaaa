//! Garbage collection: what nothing names any more is freed, and nothing else.
//!
//! ```text
//! names.rs    what is named: present contents, and earlier ones that the rule keeps
//! survey.rs   what lies here and is not
//! sparse.rs   files of which little is needed: that is written elsewhere
//! vault/collect.rs   the transaction in which places go; blobs/pins.rs what writers are about to name
//! ```
//!
//! A run looks at the vault as of one transaction, gathers what is named, and compares. A blob that is found unnamed for
//! the first time is only noted. It is freed by a later run: after a grace, and once every other device that counts has
//! stated that it has what un-named it, and this device has all that they had done until then. Then its places go in a
//! transaction that checks again, and after that its bytes. So three things must fail before bytes are lost that
//! somebody names: the look, the pins, and the transaction.
//!
//! Names are gathered anew by each run and not counted: a count that is wrong once is wrong for ever.
//!
//! Nothing here waits for a writer or holds one up for longer than a batch takes.

mod names;
mod sparse;
mod survey;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coffer_protocol::identity::Hash;

pub use names::{Names, gather, kept};
use survey::Survey;

use crate::blobs::{Blobs, BlobsError};
use crate::folder::place;
use crate::store::StoreError;
use crate::vault::collect::{Collect, View, runs};
use crate::vault::{CommitError, CommitRequest, VaultHandle, rule};

/// Blobs freed in one transaction, and while writers that want the very same must wait.
const BATCH: usize = 1000;
/// Files that no row names are left alone for this long: they may just have been made.
const ORPHAN_MS: u64 = 60 * 60 * 1000;

/// What must have passed before something is freed.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Since it was first found unnamed, in milliseconds.
    pub grace_ms: u64,
    /// Since a device was last heard of, for it not to count, in milliseconds.
    pub silent_ms: u64,
}

impl Default for Limits {
    /// A day, and 180 days.
    fn default() -> Limits {
        const DAY_MS: u64 = 24 * 60 * 60 * 1000;
        Limits {
            grace_ms: DAY_MS,
            silent_ms: 180 * DAY_MS,
        }
    }
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Blobs freed.
    pub freed_blobs: u64,
    /// Bytes that the disk has back.
    pub freed_bytes: u64,
    /// Bytes that nothing names, and that wait for the grace or for other devices.
    pub waiting_bytes: u64,
    /// Whether another run finds more to do at once.
    pub more: bool,
}

/// Why a run did not come to its end. What it had freed until then was rightly freed.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The vault cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blob store failed.
    #[error(transparent)]
    Blobs(#[from] BlobsError),
    /// A list of chunks cannot be read.
    #[error("what a file is made of cannot be read here: {0}")]
    List(BlobsError),
    /// The vault did not take a request.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The vault changes too fast just now.
    #[error("too much changes just now")]
    Busy,
}

/// What anything that is kept names, as of now: for those who are about to drop bytes for other reasons.
///
/// # Errors
/// [`CollectError::List`], [`CollectError::Store`].
pub async fn named(vault: &VaultHandle, blobs: &Blobs, now_ms: u64) -> Result<Names, CollectError> {
    let view = vault.inspect(|core| core.view()).await??;
    let blobs = blobs.clone();
    blocking(move || {
        let (rule, _) = rule::read(&view.read)?;
        Ok(gather(&view, &blobs, &rule, now_ms, 0)?.names)
    })
    .await
}

/// One run. `folders` are the synced folders of this device.
///
/// # Errors
/// [`CollectError`]; the next run goes on.
pub async fn collect(
    vault: &VaultHandle,
    blobs: &Blobs,
    folders: &[(u32, PathBuf)],
    now_ms: u64,
    limits: Limits,
) -> Result<Report, CollectError> {
    let _collecting = blobs.collecting();
    let view = vault.inspect(|core| core.view()).await??;
    let purged = Arc::new(view.purged.clone());
    let as_of = view.transaction;
    let store = blobs.clone();
    let there: BTreeSet<u32> = folders
        .iter()
        .filter(|(_, folder)| place::has_marker(folder))
        .map(|(number, _)| *number)
        .collect();
    let there = Arc::new(there);
    let present = there.clone();
    let (mut survey, dropped) =
        blocking(move || look(&view, &store, &present, now_ms, limits)).await?;
    let mut report = Report {
        at_ms: now_ms,
        waiting_bytes: survey.waiting_bytes,
        more: survey.more,
        ..Report::default()
    };
    let base = Collect {
        as_of,
        now_ms,
        purged,
        ..Collect::default()
    };
    let mut first = Collect {
        runs_over: std::mem::take(&mut survey.runs_over),
        past: dropped,
        ..base.clone()
    };
    let (fresh, again, chunks) = (
        std::mem::take(&mut survey.fresh),
        std::mem::take(&mut survey.again),
        std::mem::take(&mut survey.chunks),
    );
    let rounds = [fresh.len(), again.len(), chunks.len()].map(|len| len.div_ceil(BATCH));
    for round in 0..rounds.into_iter().max().unwrap_or(0).max(1) {
        let part = |all: &[Hash]| all.chunks(BATCH).nth(round).unwrap_or_default().to_vec();
        let wanted = Collect {
            fresh: part(&fresh),
            again: part(&again),
            chunks: part(&chunks),
            ..std::mem::replace(&mut first, base.clone())
        };
        let is_empty = wanted.fresh.is_empty()
            && wanted.again.is_empty()
            && wanted.chunks.is_empty()
            && wanted.past.is_empty()
            && wanted.runs_over.is_empty();
        if !is_empty {
            commit(vault, wanted).await?;
        }
    }
    let due = std::mem::take(&mut survey.due);
    let mut emptied = Vec::new();
    for batch in due.chunks(BATCH) {
        let mut batch = batch.to_vec();
        let claim = blobs.claim(&mut batch);
        if batch.is_empty() {
            continue;
        }
        let wanted = Collect {
            free: batch.clone(),
            ..base.clone()
        };
        let freed = commit(vault, wanted).await?;
        claim.freed(&freed);
        drop(claim);
        let freed: HashSet<Hash> = freed.into_iter().collect();
        report.freed_blobs += freed.len() as u64;
        for (blob, places) in batch.iter().filter(|(blob, _)| freed.contains(blob)) {
            emptied.extend(
                places
                    .iter()
                    .filter_map(|place| survey.empties(blob, place)),
            );
        }
    }
    let doubled = std::mem::take(&mut survey.doubled);
    for batch in doubled.chunks(BATCH) {
        let mut batch = batch.to_vec();
        let claim = blobs.claim(&mut batch);
        if batch.is_empty() {
            continue;
        }
        let wanted = Collect {
            doubled: (batch.iter().map(|(blob, _)| *blob).collect(), there.clone()),
            ..base.clone()
        };
        let left = commit(vault, wanted).await?;
        drop(claim);
        let left: HashSet<Hash> = left.into_iter().collect();
        for (blob, places) in batch.iter().filter(|(blob, _)| left.contains(blob)) {
            let stored = places.iter().filter(|place| place.is_in_store());
            emptied.extend(stored.filter_map(|place| survey.empties(blob, place)));
        }
    }
    emptied.sort_unstable();
    emptied.dedup();
    report.freed_bytes += blobs.remove_files(emptied).await?;
    report.freed_bytes += tidy_store(blobs, &survey, now_ms).await?;
    let (kept, folders) = (survey.kept.clone(), folders.to_vec());
    let (removed, folders) = blocking(move || {
        let removed = folders
            .iter()
            .map(|(number, folder)| remove_kept(*number, folder, &kept, now_ms))
            .sum::<u64>();
        Ok((removed, folders))
    })
    .await?;
    report.freed_bytes += removed;
    report.more |= sparse::rewrite(vault, blobs, &survey, &folders).await?;
    Ok(report)
}

type Dropped = Vec<(
    coffer_crdt::files::FileId,
    coffer_crdt::retention::VersionId,
)>;

/// Compares what lies here with what is named.
fn look(
    view: &View,
    blobs: &Blobs,
    folders: &BTreeSet<u32>,
    now_ms: u64,
    limits: Limits,
) -> Result<(Survey, Dropped), CollectError> {
    let (rule, wrong) = rule::read(&view.read)?;
    if let Some(wrong) = wrong {
        tracing::warn!(
            wrong,
            "the rule for earlier contents makes no sense; the defaults are used"
        );
    }
    let since = now_ms.saturating_sub(limits.grace_ms);
    let gathered = gather(view, blobs, &rule, now_ms, since)?;
    let runs = runs(&view.read)?;
    let due: BTreeSet<u64> = runs
        .iter()
        .filter(|(_, run)| {
            run.is_due(
                &view.clock,
                &view.others,
                now_ms,
                limits.grace_ms,
                limits.silent_ms,
            )
        })
        .map(|(number, _)| *number)
        .collect();
    let all = runs.iter().map(|(number, _)| *number);
    let survey = survey::survey(view, &gathered.names, folders, &due, all, |blob| {
        blobs.stored_len(blob)
    })?;
    Ok((survey, gathered.dropped))
}

async fn commit(vault: &VaultHandle, wanted: Collect) -> Result<Vec<Hash>, CollectError> {
    let request = CommitRequest {
        collect: Some(Box::new(wanted)),
        ..CommitRequest::default()
    };
    let committed = vault.commit(request).await?;
    committed.collected.ok_or(CollectError::Busy)
}

/// Removes files of the store that no row names: left by a stop between store and vault, or by a pack's rewriting.
async fn tidy_store(blobs: &Blobs, survey: &Survey, now_ms: u64) -> Result<u64, CollectError> {
    let found = blobs.clone();
    let files = blocking(move || Ok(found.stored_files()?)).await?;
    let orphans = files
        .into_iter()
        .filter(|file| {
            !survey.stored.contains_key(&file.name.0)
                && now_ms >= file.modified_ms.saturating_add(ORPHAN_MS)
        })
        .map(|file| file.name);
    Ok(blobs.remove_files(orphans.collect()).await?)
}

/// Removes what a synced folder moved aside and nothing names any more; gives the bytes.
fn remove_kept(
    number: u32,
    folder: &Path,
    kept: &HashMap<(u32, [u8; 24]), u32>,
    now_ms: u64,
) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(place::kept_path(folder, "")) else {
        return 0;
    };
    let mut bytes = 0;
    for entry in entries.flatten() {
        // Pending ones have longer names: the vault may not know of them yet.
        let mut name = [0; 24];
        let is_kept = entry
            .file_name()
            .to_str()
            .is_some_and(|text| hex::decode_to_slice(text, &mut name).is_ok());
        let Ok(meta) = entry.metadata() else { continue };
        // Its name is as old as its inode's last change.
        let named_ms = u64::try_from(meta.ctime().saturating_mul(1000)).unwrap_or(0);
        if is_kept
            && meta.is_file()
            && !kept.contains_key(&(number, name))
            && now_ms >= named_ms.saturating_add(ORPHAN_MS)
            && std::fs::remove_file(entry.path()).is_ok()
        {
            bytes += meta.len();
        }
    }
    bytes
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CollectError> + Send + 'static,
) -> Result<T, CollectError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(CollectError::Blobs(BlobsError::Store(error.to_string()))),
    }
}
