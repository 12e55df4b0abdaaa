//! Whether contents may be dropped here because hosts keep them.
//!
//! A host's word from yesterday is not enough: it may have been left by another device meanwhile, or have lost them. So
//! [`may_keep`] tells what is worth asking about, and [`keep`] asks, of every host that counts: one that is connected and
//! against which nothing is known. The vault's core then looks at its own records once more.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use coffer_crdt::files::FileId;
use coffer_protocol::eviction::Copies;
use coffer_protocol::identity::{DeviceId, Hash};
use redb::ReadableDatabase;

use super::super::running::Running;
use super::talk::Talk;
use crate::hosts::ContentKey;
use crate::store::StoreError;
use crate::vault::hosts::Confirmed;

/// Hosts that count now.
async fn counting(running: &Arc<Running>) -> Result<Vec<DeviceId>, String> {
    let hosts = running.vault.hosts().await.map_err(text)?;
    let known = running
        .vault
        .inspect(|core| core.state().hosts.clone())
        .await
        .map_err(text)?;
    let counts = |host: &DeviceId| {
        running.vault.has_session(*host)
            && known.get(host).is_some_and(|memory| memory.is_trusted())
    };
    Ok(hosts
        .into_iter()
        .filter(|(host, setting)| setting.in_use && counts(host))
        .map(|(host, _)| host)
        .collect())
}

/// Those of `files` whose contents enough hosts have confirmed.
pub async fn may_keep(
    running: &Arc<Running>,
    files: Vec<FileId>,
) -> Result<BTreeSet<FileId>, String> {
    let hosts = counting(running).await?;
    let enough = Copies::default().hosts;
    if files.is_empty() || hosts.len() < enough {
        return Ok(BTreeSet::new());
    }
    let handle = running.vault.clone();
    let look = tokio::task::spawn_blocking(move || -> Result<_, StoreError> {
        let read = handle.database().begin_read()?;
        let mut confirmed = Vec::new();
        for host in hosts {
            confirmed.push(Confirmed::new(&read, host)?);
        }
        let mut kept = BTreeSet::new();
        for id in files {
            let state = handle.file(id)?;
            let Some(content) = state.and_then(|state| state.content) else {
                continue;
            };
            let key = ContentKey::of(&content.root);
            let mut count = 0;
            for host in &confirmed {
                count += usize::from(host.has(&key)?);
            }
            if count >= enough {
                kept.insert(id);
            }
        }
        Ok(kept)
    });
    look.await.map_err(text)?.map_err(text)
}

/// Those of `files` whose contents enough hosts have, as they say when they are asked now. That claims them.
pub async fn keep(running: &Arc<Running>, files: &[FileId]) -> Result<BTreeSet<FileId>, String> {
    let Some(net) = running.hosts.net.get() else {
        return Ok(BTreeSet::new());
    };
    let (handle, store, ids) = (running.vault.clone(), running.blobs.clone(), files.to_vec());
    let look = tokio::task::spawn_blocking(move || {
        let mut contents: BTreeMap<FileId, Vec<Hash>> = BTreeMap::new();
        for id in ids {
            let content = handle
                .file(id)
                .ok()
                .flatten()
                .and_then(|state| state.content);
            let mut blobs = Vec::new();
            let whole = content.is_some_and(|content| {
                store
                    .names_of(&content.root, |blob| blobs.push(*blob))
                    .is_ok_and(|all| all)
            });
            if whole {
                contents.insert(id, blobs);
            }
        }
        contents
    });
    let contents = look.await.map_err(text)?;
    let mut blobs: Vec<Hash> = contents.values().flatten().copied().collect();
    blobs.sort_unstable();
    blobs.dedup();
    let vault = running
        .vault
        .inspect(|core| core.state().vault)
        .await
        .map_err(text)?;
    let mut counts: BTreeMap<FileId, usize> = BTreeMap::new();
    for host in counting(running).await? {
        let asked = async {
            let mut talk = Talk::open(net, host, vault).await?;
            talk.have(&blobs, true).await
        };
        let there: HashSet<Hash> = match asked.await {
            Ok((there, _)) => there.into_iter().collect(),
            Err(error) => {
                tracing::debug!(%host, %error, "a host does not say what it keeps");
                continue;
            }
        };
        for (id, blobs) in &contents {
            if blobs.iter().all(|blob| there.contains(blob)) {
                *counts.entry(*id).or_default() += 1;
            }
        }
    }
    let enough = Copies::default().hosts;
    Ok(counts
        .into_iter()
        .filter(|(_, count)| *count >= enough)
        .map(|(id, _)| id)
        .collect())
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
