//! Drops contents on demand that take more room than the limit allows, those asked for longest ago first.
//!
//! This task works out what could go; the vault's core decides, in the transaction that drops it, whether it may
//! ([`StorageChange::Evict`]). What was worked out from an older state than that transaction's is refused there, and
//! worked out anew here: a file that names the same bytes may have come meanwhile.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use coffer_crdt::chunks::ChunkRoot;
use coffer_crdt::files::FileId;
use coffer_protocol::eviction::Keepers;
use coffer_protocol::identity::Hash;
use redb::{ReadableDatabase, ReadableTable, TableError};
use tokio::sync::broadcast::{self, error::TryRecvError};
use tokio::sync::watch;

use super::super::running::Running;
use super::super::{hosts, keeper, stopped};
use super::survey::{Seen, Survey, used_at};
use super::{Others, settings};
use crate::blobs::{Dropping, Fetch, file_of};
use crate::store::{StoreError, records, tables};
use crate::vault::storage::{Eviction, Plan, StorageChange};
use crate::vault::{Changes, CommitError, CommitRequest, FileChange};

/// After something happened, how long more is let come before it is looked at.
const GATHER: Duration = Duration::from_millis(300);
/// Files dropped per transaction.
const AT_ONCE: usize = 4096;
/// How often something is worked out anew because the vault changed meanwhile. Later is soon enough.
const TRIES: usize = 5;
/// Contents whose chunks are looked up at a time.
const LOOKED_UP: usize = 1024;

/// Runs until `stop`.
pub async fn run(running: Arc<Running>, mut stop: watch::Receiver<bool>) {
    let mut activity = running.vault.activity();
    let mut changes = running.vault.subscribe();
    finish_earlier(&running).await;
    loop {
        activity.borrow_and_update();
        if restored(&mut changes) {
            running.keeping.look_again.store(true, Ordering::Release);
        }
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = look_again(&running) => {}
        }
        // Not broken off by a stop: what takes files away must have ended before the blob store closes.
        if let Err(error) = trim(&running).await {
            tracing::warn!(error, "contents could not be dropped");
        }
        tokio::select! {
            () = stopped(&mut stop) => return,
            changed = activity.changed() => if changed.is_err() { return },
        }
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = tokio::time::sleep(GATHER) => {}
        }
    }
}

/// Whether something came out of the trash since the last time, or so much happened that it cannot be told.
fn restored(changes: &mut broadcast::Receiver<Arc<Changes>>) -> bool {
    let mut restored = false;
    loop {
        match changes.try_recv() {
            Ok(change) => {
                let mut events = change.file_events.iter();
                restored |= events.any(|news| news.change == FileChange::Restored);
            }
            Err(TryRecvError::Lagged(_)) => restored = true,
            Err(TryRecvError::Empty | TryRecvError::Closed) => return restored,
        }
    }
}

/// After damage, when a synced folder went, or when something came out of the trash, whatever cannot be told by its name
/// alone counts as not here. Other contents are fetched again then, and found to be here; what is on demand is not
/// fetched for that: here it is looked whether it is here after all.
async fn look_again(running: &Arc<Running>) {
    if !running.keeping.look_again.load(Ordering::Acquire) {
        return;
    }
    let (Ok(storage), Ok(wanted)) = (settings(running).await, running.vault.wanted()) else {
        return;
    };
    running.keeping.look_again.store(false, Ordering::Release);
    if storage.keeps_everything() {
        return;
    }
    let on_demand: Vec<FileId> = {
        let tree = running.vault.tree();
        let mut plan = Plan::new(&tree, &storage, running.folders.vault_folders());
        let wanted = wanted.iter().map(|wanted| wanted.id);
        wanted.filter(|id| !plan.keeps(*id)).collect()
    };
    for batch in on_demand.chunks(LOOKED_UP) {
        keeper::store(running, batch, &Fetch::nobody()).await;
    }
}

/// What ended a round.
enum Round {
    /// Nothing is to go, or nothing may.
    Nothing,
    /// Something went.
    Dropped,
    /// The vault changed meanwhile.
    Again,
}

async fn trim(running: &Arc<Running>) -> Result<(), String> {
    let mut tries = 0;
    loop {
        match round(running).await? {
            Round::Nothing => return Ok(()),
            Round::Dropped => tries = 0,
            Round::Again if tries < TRIES => tries += 1,
            Round::Again => return Ok(()),
        }
    }
}

async fn round(running: &Arc<Running>) -> Result<Round, String> {
    let storage = settings(running).await.map_err(text)?;
    let Some(limit) = storage.limit.filter(|_| !storage.keeps_everything()) else {
        return Ok(Round::Nothing);
    };
    let as_of = transaction(running).map_err(text)?;
    let others = running.vault.inspect(Others::read).await.map_err(text)?;
    let survey = Survey::of(running, &storage).map_err(text)?;
    let Some(keepers) = others.confirmed() else {
        return Ok(Round::Nothing);
    };
    let parts = parts(running, &survey, limit, &keepers).await?;
    if survey.used.bytes + parts.bytes <= limit {
        return Ok(Round::Nothing);
    }
    let used = used_at(running).map_err(text)?;
    let droppable = survey.files.iter().filter(|file| file.may_be_dropped());
    let (mut may_go, others): (Vec<&Seen>, Vec<&Seen>) =
        droppable.partition(|file| keepers.enough(file.naming, || file.id.to_string()));
    let others = others.iter().map(|file| file.id).collect();
    let at_hosts = hosts::may_keep(running, others).await?;
    may_go.extend(
        survey
            .files
            .iter()
            .filter(|file| at_hosts.contains(&file.id)),
    );
    may_go.sort_by_key(|file| (used.get(&file.id).copied().unwrap_or(0), file.id));
    // A little below the limit, so that not every file that is asked for makes the next look at all of them.
    let mut over = (survey.used.bytes + parts.bytes).saturating_sub(limit - limit / 10);
    // Parts are of the least use.
    if !parts.files.is_empty() {
        over = over.saturating_sub(parts.bytes);
    }
    let mut going = parts.files;
    let mut to_ask = Vec::new();
    for file in may_go.into_iter().take(AT_ONCE) {
        if over == 0 {
            break;
        }
        over = over.saturating_sub(file.size);
        going.push((file.id, file.hash));
        if at_hosts.contains(&file.id) {
            to_ask.push(file.id);
        }
    }
    if !to_ask.is_empty() {
        let kept = hosts::keep(running, &to_ask).await?;
        going.retain(|(id, _)| !at_hosts.contains(id) || kept.contains(id));
    }
    if going.is_empty() {
        return Ok(Round::Nothing);
    }
    drop(keepers);
    evict(running, as_of, going).await
}

/// Contents on demand of which only parts are here.
#[derive(Default)]
struct Parts {
    files: Vec<(FileId, [u8; 32])>,
    /// What the parts take.
    bytes: u64,
}

/// Looks for them where there may be some, unless contents are being fetched: what has come of those is needed. A part
/// goes by the same rule as the whole: it may be the last of a damaged content.
async fn parts(
    running: &Arc<Running>,
    survey: &Survey,
    limit: u64,
    keepers: &Keepers<'_>,
) -> Result<Parts, String> {
    let keeping = &running.keeping;
    let known = keeping.part_bytes.load(Ordering::Acquire);
    let over = known > 0 && survey.used.bytes + known > limit;
    let may_look = !keeping.look_again.load(Ordering::Acquire)
        && keeping.fetching.load(Ordering::Acquire) == 0;
    let mut parts = Parts {
        files: Vec::new(),
        bytes: known,
    };
    if !may_look || !(over || keeping.parts.swap(false, Ordering::AcqRel)) {
        return Ok(parts);
    }
    let absent: Vec<&Seen> = survey
        .files
        .iter()
        .filter(|file| file.on_demand && !file.here)
        .collect();
    let ids: Vec<(FileId, [u8; 32])> = absent.iter().map(|file| (file.id, file.hash)).collect();
    let Some(blobs) = needed_by_nothing_else(running, &ids).await? else {
        return Ok(parts);
    };
    let placed = running.blobs.stored_places(blobs).await.map_err(text)?;
    let bytes = running.blobs.places_len(placed.clone()).await;
    parts.bytes = bytes.map_err(text)?;
    keeping.part_bytes.store(parts.bytes, Ordering::Release);
    if survey.used.bytes + parts.bytes <= limit {
        return Ok(parts);
    }
    let placed: HashSet<Hash> = placed.into_iter().map(|(blob, _)| blob).collect();
    for file in absent {
        if parts.files.len() == AT_ONCE || !keepers.enough(file.naming, || file.id.to_string()) {
            continue;
        }
        let found = blobs_of(running, &[file.id]).await?.pop().flatten();
        let mut found = found.into_iter().flatten();
        if found.any(|blob| placed.contains(&blob)) {
            parts.files.push((file.id, file.hash));
        }
    }
    Ok(parts)
}

async fn evict(
    running: &Arc<Running>,
    as_of: u64,
    files: Vec<(FileId, [u8; 32])>,
) -> Result<Round, String> {
    let Some(blobs) = needed_by_nothing_else(running, &files).await? else {
        return Ok(Round::Nothing);
    };
    let displaced = running.blobs.stored_places(blobs).await.map_err(text)?;
    let dropping: HashSet<Hash> = displaced
        .iter()
        .filter_map(|(blob, place)| file_of(blob, place))
        .collect();
    let dropping: Vec<Hash> = dropping.into_iter().collect();
    let count = files.len();
    let eviction = Eviction {
        as_of,
        files,
        displaced,
        dropping: dropping.clone(),
    };
    let begun = running.blobs.begin_dropping().await;
    let request = CommitRequest {
        storage: vec![StorageChange::Evict(eviction)],
        ..Default::default()
    };
    match running.vault.commit(request).await {
        Ok(_) => {}
        Err(CommitError::Meanwhile) => return Ok(Round::Again),
        Err(error) => return Err(error.to_string()),
    }
    let freed = take_away(running, &begun, dropping).await?;
    if running.keeping.part_bytes.load(Ordering::Acquire) > 0 {
        running.keeping.parts.store(true, Ordering::Release);
    }
    tracing::info!(files = count, freed, "contents on demand were dropped");
    Ok(Round::Dropped)
}

/// Blobs of `files` that no other content which is here, or in the trash, is made of. `None` if that cannot be told.
async fn needed_by_nothing_else(
    running: &Arc<Running>,
    files: &[(FileId, [u8; 32])],
) -> Result<Option<HashSet<Hash>>, String> {
    let going: HashSet<FileId> = files.iter().map(|(id, _)| *id).collect();
    let absent: HashSet<FileId> = {
        let wanted = running.vault.wanted().map_err(text)?;
        wanted.into_iter().map(|wanted| wanted.id).collect()
    };
    let others: Vec<FileId> = {
        let tree = running.vault.tree();
        let all = tree.below(FileId::ROOT);
        all.filter(|id| !going.contains(id) && !absent.contains(id))
            .collect()
    };
    let mut blobs = HashSet::new();
    if files.is_empty() {
        return Ok(Some(blobs));
    }
    for (id, _) in files {
        for found in blobs_of(running, &[*id]).await? {
            match found {
                Some(found) => blobs.extend(found),
                // Of its list, too, only a part is here: it cannot be told of what else.
                None if absent.contains(id) => {}
                None => return Ok(None),
            }
        }
    }
    for part in others.chunks(LOOKED_UP) {
        for found in blobs_of(running, part).await? {
            match found {
                Some(found) => found.iter().for_each(|blob| {
                    blobs.remove(blob);
                }),
                // Its list is not all here, so its bytes are not: it came from the trash, or is not known to be absent
                // yet. What it is made of cannot be told.
                None => {
                    tracing::debug!("the chunks of a content are not known; nothing is dropped");
                    return Ok(None);
                }
            }
        }
    }
    Ok(Some(blobs))
}

/// The blobs of each of these files' contents; `None` where that cannot be told.
async fn blobs_of(
    running: &Arc<Running>,
    files: &[FileId],
) -> Result<Vec<Option<Vec<Hash>>>, String> {
    let (vault, files) = (running.vault.clone(), files.to_vec());
    let read = move || -> Result<Vec<ChunkRoot>, StoreError> {
        let tree_trashed = {
            let tree = vault.tree();
            let trashed = |id: &FileId| tree.shown(*id).is_some_and(|shown| shown.trashed);
            files.iter().map(trashed).collect::<Vec<bool>>()
        };
        let mut roots = Vec::new();
        for (id, trashed) in files.iter().zip(tree_trashed) {
            let content = vault.file(*id)?.and_then(|file| file.content);
            match content.map(|content| content.root) {
                // A long list of something in the trash may never have been fetched.
                Some(ChunkRoot::Indirect { .. }) if trashed => {}
                Some(root) => roots.push(root),
                None => {}
            }
        }
        Ok(roots)
    };
    let roots = tokio::task::spawn_blocking(read)
        .await
        .map_err(text)?
        .map_err(text)?;
    let found = running.blobs.blobs_of(&roots).await;
    Ok(found.into_iter().map(Result::ok).collect())
}

/// Takes away the files of the blob store in which nothing is named any more; gives the bytes freed.
async fn take_away(
    running: &Arc<Running>,
    begun: &Dropping,
    files: Vec<Hash>,
) -> Result<u64, String> {
    let dropped = begun.take_away(files.clone()).await.map_err(text)?;
    let mut freed = dropped.freed;
    if !dropped.packs.is_empty() {
        // In this order: what is added becomes the first place, and the old one is forgotten before it.
        let request = CommitRequest {
            placements: dropped.moved,
            displaced: dropped.left,
            holds: vec![dropped.hold],
            ..Default::default()
        };
        running.vault.commit(request).await.map_err(text)?;
        freed += begun.take_away(dropped.packs).await.map_err(text)?.freed;
    }
    let request = CommitRequest {
        storage: vec![StorageChange::Dropped(files)],
        ..Default::default()
    };
    running.vault.commit(request).await.map_err(text)?;
    Ok(freed)
}

/// Files of the store that an earlier run had begun to take away.
async fn finish_earlier(running: &Arc<Running>) {
    let read = || -> Result<Vec<Hash>, StoreError> {
        let read = running.vault.database().begin_read()?;
        let table = match read.open_table(tables::DROPPING) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut files = Vec::new();
        for item in table.iter()? {
            files.push(Hash(*item?.0.value()));
        }
        Ok(files)
    };
    match read() {
        Ok(files) if files.is_empty() => {}
        Ok(files) => {
            let begun = running.blobs.begin_dropping().await;
            if let Err(error) = take_away(running, &begun, files).await {
                tracing::warn!(error, "what was dropped earlier still takes room");
            }
        }
        Err(error) => tracing::warn!(%error, "what was dropped earlier cannot be read"),
    }
}

/// Number of the last transaction.
fn transaction(running: &Running) -> Result<u64, StoreError> {
    let read = running.vault.database().begin_read()?;
    let meta = read.open_table(tables::META)?;
    Ok(records::get_u64(&meta, tables::meta::TRANSACTION)?.unwrap_or(0))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
