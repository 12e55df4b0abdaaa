//! Forgetting places of bytes that are gone or damaged, and seeing at once which contents lack bytes for that.
//!
//! The vault's transaction can tell of a content whose list is in its document. What a long list names is read here, before:
//! else every large file would count as not here until somebody had looked, and other devices would be told so.

use std::collections::BTreeSet;

use coffer_crdt::chunks::ChunkRoot;
use coffer_crdt::files::{FileId, Kind};
use coffer_protocol::identity::Hash;

use super::running::{blobs_error, commit_error};
use super::store_error;
use crate::blobs::chunking::ONE_CHUNK;
use crate::blobs::{Blobs, Placement};
use crate::control::ControlError;
use crate::vault::{CommitRequest, VaultHandle};

/// Contents whose lists are read at a time.
const BATCH: usize = 64;

/// Commits a request that forgets places; contents that lack bytes without them are wanted in the same transaction.
pub(super) async fn forget(
    vault: &VaultHandle,
    blobs: &Blobs,
    mut request: CommitRequest,
) -> Result<(), ControlError> {
    let places = request.displaced.clone();
    request
        .recheck
        .extend(lacking(vault, blobs, &places).await?);
    request.recheck_all = true;
    vault.commit(request).await.map_err(commit_error)?;
    // What was named between the look and the commit may rely on one of these places, too.
    let recheck = lacking(vault, blobs, &places).await?;
    if recheck.is_empty() {
        return Ok(());
    }
    let again = CommitRequest {
        recheck,
        ..Default::default()
    };
    vault.commit(again).await.map_err(commit_error)?;
    Ok(())
}

/// Files with long lists that count as here and lack bytes without these places.
async fn lacking(
    vault: &VaultHandle,
    blobs: &Blobs,
    places: &[(Hash, Placement)],
) -> Result<Vec<FileId>, ControlError> {
    let lost = blobs.lost_with(places).map_err(blobs_error)?;
    if lost.is_empty() {
        return Ok(Vec::new());
    }
    let reading = vault.clone();
    let long = tokio::task::spawn_blocking(move || long_lists(&reading));
    let long = long
        .await
        .map_err(|error| ControlError::internal(error.to_string()))??;
    let mut lacking = Vec::new();
    for batch in long.chunks(BATCH) {
        let roots: Vec<ChunkRoot> = batch.iter().map(|(_, root)| root.clone()).collect();
        let found = blobs.blobs_of(&roots).await;
        for ((id, _), found) in batch.iter().zip(found) {
            // Where its list is not whole here, a piece of that may be what is lost.
            if found.map_or(true, |found| found.iter().any(|blob| lost.contains(blob))) {
                lacking.push(*id);
            }
        }
    }
    Ok(lacking)
}

/// Files whose lists are not in their documents, but for those that count as not here already.
fn long_lists(vault: &VaultHandle) -> Result<Vec<(FileId, ChunkRoot)>, ControlError> {
    let wanted: BTreeSet<FileId> = {
        let wanted = vault.wanted().map_err(store_error)?.into_iter();
        wanted.map(|wanted| wanted.id).collect()
    };
    let large: Vec<FileId> = {
        let tree = vault.tree();
        let files = tree.every().filter(|every| {
            every.kind == Kind::File
                && every
                    .content
                    .is_some_and(|content| content.size > ONE_CHUNK)
                && !wanted.contains(&every.id)
        });
        files.map(|every| every.id).collect()
    };
    let mut long = Vec::new();
    for id in large {
        let content = vault.file(id).map_err(store_error)?;
        let content = content.and_then(|file| file.content);
        if let Some(root @ ChunkRoot::Indirect { .. }) = content.map(|content| content.root) {
            long.push((id, root));
        }
    }
    Ok(long)
}
