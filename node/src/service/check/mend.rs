//! Seeing to what a sweep found.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use coffer_crdt::chunks::ChunkRoot;
use coffer_crdt::files::date::day;
use coffer_crdt::files::{Content, FileId};
use coffer_protocol::identity::Hash;

use super::super::bringing::{Wanted, bring};
use super::super::files::trash_path;
use super::super::running::{Running, blobs_error, commit_error};
use super::super::{displaced, store_error};
use super::sweep::Found;
use super::{About, Flaw};
use crate::blobs::{Fetch, FolderPaths, Named, Placement, Priority, StoreJob};
use crate::collect::kept;
use crate::control::{CheckReport, ControlError, DamageKind};
use crate::index;
use crate::store::StoreError;
use crate::store::documents::{DocumentKey, read_document, read_row};
use crate::vault::{CommitRequest, FILES, past, rule, wall_ms};
use redb::{ReadTransaction, ReadableDatabase};

/// Pieces of one file on the disk: (blob, offset in bytes).
type Places = BTreeSet<(Hash, u64)>;

/// Files whose contents are fetched again in one go.
const BATCH: usize = 64;

/// Mends what can be mended; what cannot joins the flaws of `found`.
pub(super) async fn all(
    running: &Arc<Running>,
    found: &mut Found,
) -> Result<CheckReport, ControlError> {
    let mut report = CheckReport {
        pieces: found.pieces,
        bytes: found.bytes,
        in_use: found.in_use,
        documents: found.documents,
        records: found.records,
        ..CheckReport::default()
    };
    report.repaired += documents(running, found).await?;
    report.repaired += contents(running, found).await?;
    Ok(report)
}

/// Has documents put together again; gives how many are whole again.
async fn documents(running: &Arc<Running>, found: &mut Found) -> Result<u64, ControlError> {
    forget_passing(running, found).await?;
    let mut repaired = found.stale.len() as u64;
    let mend: Vec<(String, String)> = found
        .unreadable
        .iter()
        .chain(&found.stale)
        .cloned()
        .collect();
    if mend.is_empty() {
        return Ok(0);
    }
    tracing::warn!(
        unreadable = found.unreadable.len(),
        stale = found.stale.len(),
        "documents are looked at anew"
    );
    let request = CommitRequest {
        mend,
        ..Default::default()
    };
    running.vault.commit(request).await.map_err(commit_error)?;
    for name in &found.unreadable {
        if is_readable(running, name) {
            repaired += 1;
        } else {
            found.flaws.push(unreadable(running, name));
        }
    }
    Ok(repaired)
}

/// Leaves out documents that were only being changed while they were compared with the index.
async fn forget_passing(running: &Arc<Running>, found: &mut Found) -> Result<(), ControlError> {
    if found.stale.is_empty() {
        return Ok(());
    }
    let now = running.vault.inspect(|core| core.state().transaction);
    let now = now.await.map_err(commit_error)?;
    if running.index.wait_for(now).await.is_err() {
        found.stale.clear();
    }
    let differs = |(doctype, id): &(String, String)| {
        let read = running.vault.database().begin_read().ok()?;
        let key = DocumentKey::new(doctype, id);
        let row = read_row(&read, key).ok()??;
        let value = match row.deleted {
            true => None,
            false => index::json(&read, key, &row).ok()?,
        };
        let known = running.index.value(doctype, id).ok()?;
        Some(known != value.map(|value| value.to_string()))
    };
    found.stale.retain(|name| differs(name).unwrap_or(false));
    Ok(())
}

fn is_readable(running: &Running, (doctype, id): &(String, String)) -> bool {
    let read = || {
        let read = running.vault.database().begin_read().ok()?;
        let key = DocumentKey::new(doctype, id);
        let row = read_row(&read, key).ok()??;
        read_document(&read, key, &row).ok()
    };
    read().is_some()
}

fn unreadable(running: &Running, (doctype, id): &(String, String)) -> Flaw {
    let path = (doctype == FILES)
        .then(|| id.parse().ok().and_then(|id| running.vault.tree().path(id)))
        .flatten();
    let name = path.unwrap_or_else(|| format!("{doctype}/{id}"));
    Flaw::new(
        DamageKind::Document,
        name,
        "it cannot be read, and this device has no record of its changes that can",
    )
}

/// Forgets damaged places and fetches what is nowhere else; gives how many pieces are whole again.
async fn contents(running: &Arc<Running>, found: &mut Found) -> Result<u64, ControlError> {
    if found.places.is_empty() {
        return Ok(0);
    }
    let (on_disk, overwritten) = files_on_disk(running, &found.places).await;
    let damaged: BTreeSet<Hash> = found.places.iter().map(|(blob, _)| *blob).collect();
    let harmed = damaged.len() - overwritten.len();
    if harmed > 0 {
        tracing::warn!(count = harmed, "damaged contents were found");
    }
    let before = on_disk.clone();
    running
        .checking
        .keep(running, |kept| super::remember(kept, &before))
        .await?;
    let request = CommitRequest {
        displaced: found.places.clone(),
        ..Default::default()
    };
    displaced::forget(&running.vault, &running.blobs, request).await?;
    let lost = present_contents(running, &damaged).await?;
    earlier_contents(running, &damaged).await?;
    let gone = missing(running, &damaged)?;
    let named: BTreeSet<Hash> = lost.values().flatten().copied().collect();
    for id in lost.keys() {
        let name = running.vault.tree().path(*id);
        let flaw = Flaw::new(
            DamageKind::File,
            name.unwrap_or_else(|| id.to_string()),
            "bytes of it are damaged here, and no device that is connected has them",
        );
        found.flaws.push(flaw.about(About::File(id.0)));
    }
    // What a person wrote over is not damage, and what the rule keeps no longer nobody misses.
    let rest = gone.difference(&named).copied();
    let rest: BTreeSet<Hash> = rest.filter(|blob| !overwritten.contains(blob)).collect();
    found.flaws.extend(earlier_flaws(running, &rest).await?);
    let lost_files: BTreeSet<[u8; 16]> = lost.keys().map(|id| id.0).collect();
    let restored = on_disk
        .into_iter()
        .filter(|flaw| !matches!(flaw.about, About::OnDisk(id, _) if lost_files.contains(&id)));
    found.flaws.extend(restored);
    let is_repaired = |blob: &&Hash| !overwritten.contains(blob) && !gone.contains(blob);
    Ok(damaged.iter().filter(is_repaired).count() as u64)
}

/// Files of synced folders whose bytes have gone bad on the disk. A place of bytes that the file had once is out of date,
/// and nothing is wrong with the file: blobs that had such places only are those that were written over.
async fn files_on_disk(
    running: &Running,
    places: &[(Hash, Placement)],
) -> (Vec<Flaw>, BTreeSet<Hash>) {
    let mut found: BTreeMap<(u32, [u8; 16]), Places> = BTreeMap::new();
    for (blob, place) in places {
        if let Placement::File {
            root, file, offset, ..
        } = place
        {
            found
                .entry((*root, *file))
                .or_default()
                .insert((*blob, *offset));
        }
    }
    let (mut files, mut present) = (BTreeSet::new(), BTreeSet::new());
    for ((root, file), pieces) in found {
        let bad = present_bytes(running, FileId(file), &pieces).await;
        if !bad.is_empty() {
            files.insert((root, file));
            present.extend(
                bad.into_iter()
                    .map(|(blob, offset)| (root, file, blob, offset)),
            );
        }
    }
    let is_damage = |blob: &Hash, place: &Placement| match place {
        Placement::File {
            root, file, offset, ..
        } => present.contains(&(*root, *file, *blob, *offset)),
        _ => true,
    };
    let mut overwritten: BTreeSet<Hash> = places.iter().map(|(blob, _)| *blob).collect();
    for (blob, _) in places.iter().filter(|(blob, place)| is_damage(blob, place)) {
        overwritten.remove(blob);
    }
    let flaw = |(root, file): (u32, [u8; 16])| {
        let path = running.paths.file(root, &file)?;
        let ctime_ns = changed_ns(&path)?;
        let flaw = Flaw::new(
            DamageKind::FolderFile,
            path.display().to_string(),
            "its bytes on the disk have gone bad; write the right ones with `coffer file get --overwrite`",
        );
        Some(flaw.about(About::OnDisk(file, ctime_ns)))
    };
    (files.into_iter().filter_map(flaw).collect(), overwritten)
}

/// Those of these pieces, each with where it was thought to begin, that the content has there which a file has on the disk, by
/// what disk and vault agreed on last. A piece that was elsewhere in the file before is in it still, and all is well.
async fn present_bytes(running: &Running, id: FileId, pieces: &Places) -> Places {
    let Ok(Some(state)) = running.vault.file(id) else {
        return BTreeSet::new();
    };
    let is_on_disk = |content: &Content| running.paths.has_row(id, &content.hash);
    let Some(content) = state.content.filter(is_on_disk) else {
        return BTreeSet::new();
    };
    let Ok(chunks) = running.blobs.expand(&content.root, &Fetch::nobody()).await else {
        // Its list is not whole here: any may be one of those.
        return pieces.clone();
    };
    let mut at = 0;
    let begins = chunks.iter().map(|chunk| {
        let offset = at;
        at += u64::from(chunk.len);
        (chunk.blob, offset)
    });
    begins.filter(|begin| pieces.contains(begin)).collect()
}

/// When a file on disk was last changed, in nanoseconds since 1970.
fn changed_ns(path: &Path) -> Option<i128> {
    let meta = path.symlink_metadata().ok()?;
    Some(i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec()))
}

fn missing(running: &Running, blobs: &BTreeSet<Hash>) -> Result<BTreeSet<Hash>, ControlError> {
    running.blobs.without_place(blobs).map_err(blobs_error)
}

/// Fetches files of which damaged pieces are nowhere else on this device. Gives those that could not be had, with their
/// pieces.
async fn present_contents(
    running: &Arc<Running>,
    damaged: &BTreeSet<Hash>,
) -> Result<BTreeMap<FileId, BTreeSet<Hash>>, ControlError> {
    let mut lost = BTreeMap::new();
    let gone = missing(running, damaged)?;
    let ids: Vec<FileId> = {
        let tree = running.vault.tree();
        tree.every().map(|every| every.id).collect()
    };
    let fetch = running.fetch.clone().with_priority(Priority::Background);
    let mut affected = Vec::new();
    for id in ids {
        let Ok(Some(state)) = running.vault.file(id) else {
            continue;
        };
        let Some(content) = state.content else {
            continue;
        };
        let top = content
            .root
            .list()
            .chunks
            .iter()
            .map(|chunk| Hash(chunk.blob));
        let mut pieces: BTreeSet<Hash> = top.collect();
        match running.blobs.expand(&content.root, &fetch).await {
            Ok(chunks) => pieces.extend(chunks.iter().map(|chunk| chunk.blob)),
            // Its list is not whole here: whatever else it lacks is behind that.
            Err(_) => pieces.retain(|blob| gone.contains(blob) || damaged.contains(blob)),
        }
        let of_it: BTreeSet<Hash> = pieces.intersection(&gone).copied().collect();
        if !of_it.is_empty() || pieces.iter().any(|blob| damaged.contains(blob)) {
            affected.push((id, content, of_it));
        }
    }
    for batch in affected.chunks(BATCH) {
        let wanted: Vec<Wanted> = batch
            .iter()
            .map(|(id, content, _)| Wanted {
                file: Some(*id),
                job: StoreJob {
                    key: 0,
                    size: content.size,
                    hash: content.hash,
                    root: content.root.clone(),
                },
            })
            .collect();
        for (at, _) in bring(running, &wanted, &fetch).await.failed {
            let (id, _, pieces) = &batch[at];
            lost.insert(*id, pieces.clone());
        }
    }
    Ok(lost)
}

/// Fetches what is left: pieces that only earlier contents of files name.
async fn earlier_contents(
    running: &Arc<Running>,
    damaged: &BTreeSet<Hash>,
) -> Result<(), ControlError> {
    let gone = missing(running, damaged)?;
    if gone.is_empty() {
        return Ok(());
    }
    let mut named = running
        .blobs
        .chunks_named(gone.clone())
        .await
        .map_err(blobs_error)?;
    // Tiny chunks have no row: what names them is the content.
    let rest: BTreeSet<Hash> = {
        let known: BTreeSet<Hash> = named.iter().map(|chunk| chunk.blob).collect();
        gone.difference(&known).copied().collect()
    };
    if !rest.is_empty() {
        let read = running.vault.database().begin_read();
        let read = read.map_err(|error| store_error(error.into()))?;
        let see = |content: Content| {
            let chunks = Named::inline(&content.root).into_iter();
            named.extend(chunks.filter(|chunk| rest.contains(&chunk.blob)));
        };
        past::each_past_content(&read, see).map_err(store_error)?;
    }
    let fetch = running.fetch.clone().with_priority(Priority::Background);
    let (rows, hold) = match running.blobs.restore(&named, &fetch).await {
        Ok(restored) => restored,
        Err(error) => {
            tracing::warn!(%error, "earlier contents could not be fetched again");
            return Ok(());
        }
    };
    let request = CommitRequest {
        placements: rows.placements,
        chunks: rows.chunks,
        holds: vec![hold],
        ..Default::default()
    };
    running.vault.commit(request).await.map_err(commit_error)?;
    Ok(())
}

/// What is damaged of earlier contents that are kept, by the files that had them.
async fn earlier_flaws(
    running: &Running,
    gone: &BTreeSet<Hash>,
) -> Result<Vec<Flaw>, ControlError> {
    if gone.is_empty() {
        return Ok(Vec::new());
    }
    let mut earlier = Vec::new();
    {
        let read = running.vault.database().begin_read();
        let read = read.map_err(|error| store_error(error.into()))?;
        let mut ids = BTreeSet::new();
        let seen = past::each_past(&read, |id, _| {
            ids.insert(id);
        });
        seen.map_err(store_error)?;
        for id in ids {
            let contents = kept_of(running, &read, id).map_err(store_error)?;
            earlier.extend(contents.into_iter().map(|content| (id, content)));
        }
    }
    let mut flaws = Vec::new();
    for batch in earlier.chunks(BATCH) {
        let roots: Vec<ChunkRoot> = batch
            .iter()
            .map(|(_, content)| content.root.clone())
            .collect();
        let found = running.blobs.blobs_of(&roots).await;
        for ((id, content), found) in batch.iter().zip(found) {
            let list = content.root.list().chunks.iter();
            let top = list.map(|chunk| Hash(chunk.blob));
            // Where the list is not whole here, what is known of it.
            let pieces: Vec<Hash> = top.chain(found.unwrap_or_default()).collect();
            if pieces.iter().any(|blob| gone.contains(blob)) {
                flaws.push(earlier_flaw(running, *id, content));
            }
        }
    }
    Ok(flaws)
}

fn earlier_flaw(running: &Running, id: FileId, content: &Content) -> Flaw {
    let written = i64::try_from(content.stamp.ms()).unwrap_or(i64::MAX);
    let text = format!(
        "an earlier content of it, of {}, is damaged, and no device that is connected has it",
        day(written)
    );
    let name = trash_path(&running.vault.tree(), id);
    let flaw = Flaw::new(DamageKind::EarlierContent, name, &text);
    flaw.about(About::Earlier(id.0, content.hash))
}

/// The earlier contents of a file that the rule keeps now.
fn kept_of(
    running: &Running,
    read: &ReadTransaction,
    id: FileId,
) -> Result<Vec<Content>, StoreError> {
    if running.vault.tree().is_purged(id) {
        return Ok(Vec::new());
    }
    let present = running.vault.file(id)?.and_then(|file| file.content);
    let (rule, _) = rule::read(read)?;
    kept(read, id, present.as_ref(), &rule, wall_ms())
}

/// Whether an earlier content is kept still, and not whole.
async fn lacks_earlier(running: &Running, id: FileId, hash: [u8; 32]) -> bool {
    let found = || {
        let read = running.vault.database().begin_read().ok()?;
        let mut contents = kept_of(running, &read, id).ok()?.into_iter();
        contents.find(|content| content.hash == hash)
    };
    match found() {
        Some(content) => !running.blobs.has_all(&content.root).await.unwrap_or(false),
        None => false,
    }
}

/// Those of `flaws` that are not known to be over.
pub(super) async fn still_there(running: &Running, flaws: Vec<Flaw>) -> Vec<Flaw> {
    let wanted: BTreeSet<[u8; 16]> = match running.vault.wanted() {
        Ok(wanted) => wanted.iter().map(|wanted| wanted.id.0).collect(),
        Err(_) => return flaws,
    };
    let mut left = Vec::new();
    for flaw in flaws {
        let is_there = match &flaw.about {
            About::Itself => true,
            // The bytes came after all, or the file has others now.
            About::File(id) => wanted.contains(id),
            About::OnDisk(_, ctime_ns) => changed_ns(flaw.name.as_ref()) == Some(*ctime_ns),
            // The bytes came after all, or the rule keeps it no longer.
            About::Earlier(id, hash) => lacks_earlier(running, FileId(*id), *hash).await,
        };
        if is_there {
            left.push(flaw);
        }
    }
    left
}
