//! `backup verify`: all of a backup is read; with the vault's keys, it is put together as well.

use std::path::PathBuf;
use std::sync::Arc;

use redb::ReadableDatabase;

use super::super::{Node, store_error};
use super::gather::each_content;
use super::scratch::{Keys, Scratch};
use super::{Leave, Left, alone, archive_error, blocking, open, row};
use crate::backup::Archive;
use crate::blobs::Fetch;
use crate::control::{
    BackupFlaw, BackupInside, BackupVerified, ControlError, Progress, RecoverWith, Reply, Session,
    Stage,
};

/// Files that are named, at most.
const MAX_FILES: usize = 100;
/// Contents that are looked at between two reports.
const REPORT_EVERY: u64 = 256;

/// Reads the backup in `dir`.
pub async fn verify(
    node: &Arc<Node>,
    dir: PathBuf,
    with: Option<RecoverWith>,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    let _alone = alone(node)?;
    let archive = open(&dir).await?;
    let keys = Keys::find(node, &archive, with.as_ref()).await?;
    drop(with);
    let leave = Leave::default();
    let (from, left, report) = (archive.clone(), leave.left(), session.reporter());
    let total = archive.kept().bytes;
    let outside = blocking(move || {
        let outside = from.verify(|done| {
            report(Progress {
                stage: Stage::Reading,
                done,
                total: Some(total),
                about: None,
            });
            left.check().is_ok()
        });
        let outside = outside.map_err(archive_error)?;
        left.check()?;
        Ok(outside)
    });
    let outside = outside.await?;
    let inside = match (keys, &outside.last) {
        (Some(keys), Some(last)) => {
            let upto = last.clock.clone();
            let report = session.reporter();
            let scratch = Scratch::open(node, &archive, keys, upto, leave.left(), report).await?;
            let left = leave.left();
            let seen = tokio::select! {
                seen = inside(&scratch, &archive, &left, session) => seen,
                () = session.closed() => Err(crate::control::Gone.into()),
            };
            let unread = last.clock.ahead_of(&scratch.clock);
            scratch.close().await;
            let unread = unread.iter().map(|range| range.to - range.from + 1).sum();
            Some(BackupInside {
                unread_changes: unread,
                ..seen?
            })
        }
        _ => None,
    };
    let kept = archive.kept();
    Ok(Reply::BackupVerified(BackupVerified {
        dir,
        vault: archive.vault().to_string(),
        last: outside.last.as_ref().map(row),
        bytes: kept.bytes,
        pieces: kept.blobs,
        changes: kept.entries,
        flaws: outside
            .flaws
            .into_iter()
            .map(|flaw| BackupFlaw {
                file: flaw.file,
                at: flaw.at,
                what: flaw.what,
            })
            .collect(),
        inside,
    }))
}

/// Whether every content that the vault kept then is there whole. That the bytes are right is known already: each blob
/// has the hash by which its content names it.
async fn inside(
    scratch: &Scratch,
    archive: &Archive,
    left: &Left,
    session: &Session,
) -> Result<BackupInside, ControlError> {
    let mut contents = Vec::new();
    let purged = scratch.vault.tree().purged_ids();
    each_content(scratch.vault.database(), &purged, |found| {
        let root = found.content.root.clone();
        contents.push((found.file, found.is_present, root));
        left.check()
    })?;
    let fetch = Fetch::from(scratch.sources.clone());
    let (mut inside, total) = (BackupInside::default(), contents.len() as u64);
    for (done, (file, is_present, root)) in (0..).zip(contents) {
        if done % REPORT_EVERY == 0 {
            session.progress(Progress {
                stage: Stage::Checking,
                done,
                total: Some(total),
                about: None,
            });
        }
        let chunks = scratch.blobs.expand(&root, &fetch).await;
        let is_whole =
            chunks.is_ok_and(|chunks| chunks.iter().all(|chunk| archive.has_blob(&chunk.blob)));
        if is_whole {
            inside.contents += 1;
            continue;
        }
        inside.missing += 1;
        if is_present && inside.missing_files.len() < MAX_FILES {
            let path = scratch.vault.tree().path(file);
            inside
                .missing_files
                .push(path.unwrap_or_else(|| file.to_string()));
        }
    }
    // A database that cannot be read to its end says so here.
    scratch
        .vault
        .database()
        .begin_read()
        .map_err(|error| store_error(error.into()))?;
    Ok(inside)
}
