//! Which contents hosts keep: for what may be dropped here, and for what people are told is at risk.
//!
//! A host counts while it is in use and nothing is known against it; how many are enough says
//! [`Copies`](coffer_protocol::eviction::Copies). For telling people, what hosts have confirmed will do ([`AtHosts`]). For
//! dropping anything a host's word from yesterday is not enough: it may have been left by another device meanwhile, or
//! have lost them. So [`may_keep`] tells what is worth asking about, and [`keep`] asks, of every host that counts and is
//! connected. The vault's core then looks at its own records once more.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use coffer_crdt::files::FileId;
use coffer_protocol::eviction::Copies;
use coffer_protocol::identity::{DeviceId, Hash};
use redb::{ReadableDatabase, TableError};

use super::super::running::{Running, commit_error};
use super::super::store_error;
use super::gather::file_state;
use super::rows::holding;
use super::talk::Talk;
use crate::control::ControlError;
use crate::hosts::ContentKey;
use crate::store::{StoreError, tables};
use crate::vault::hosts::Confirmed;

/// Hosts that count, and how many of them hold everything that this device knows of, as far as each has been looked
/// through.
async fn counting(running: &Arc<Running>) -> Result<(Vec<DeviceId>, usize), ControlError> {
    let hosts = running.vault.hosts().await.map_err(store_error)?;
    let hosts: Vec<DeviceId> = hosts
        .into_iter()
        .filter(|(_, setting)| setting.in_use)
        .map(|(host, _)| host)
        .collect();
    if hosts.is_empty() {
        return Ok((hosts, 0));
    }
    let (known, clock) = running
        .vault
        .glance(|core| (core.state().hosts.clone(), core.state().clock.clone()))
        .await
        .map_err(commit_error)?;
    let (mut counting, mut hold_all) = (Vec::new(), 0);
    for host in hosts {
        let Some(memory) = known.get(&host).filter(|memory| memory.is_trusted()) else {
            continue;
        };
        let holding = holding(memory, &clock, &running.hosts.at(&host));
        hold_all += usize::from(holding.is_some_and(|holding| holding.everything));
        counting.push(host);
    }
    Ok((counting, hold_all))
}

/// Hosts that count and can be asked now.
async fn connected(running: &Arc<Running>) -> Result<Vec<DeviceId>, String> {
    let (mut hosts, _) = counting(running).await.map_err(text)?;
    hosts.retain(|host| running.vault.has_session(*host));
    Ok(hosts)
}

/// What hosts that count have confirmed, as of one moment.
pub struct AtHosts {
    confirmed: Vec<Confirmed>,
    files: Option<redb::ReadOnlyTable<&'static [u8; 18], &'static [u8]>>,
    hold_all: usize,
}

impl AtHosts {
    /// All of them, but for one that is to be left.
    ///
    /// # Errors
    /// The vault's, or it is stopping.
    pub async fn known(
        running: &Arc<Running>,
        but: Option<DeviceId>,
    ) -> Result<AtHosts, ControlError> {
        let (hosts, hold_all) = counting(running).await?;
        let read = |error| store_error(StoreError::from(error));
        let read_transaction = running.vault.database().begin_read().map_err(read)?;
        let mut confirmed = Vec::new();
        for host in hosts.into_iter().filter(|host| Some(*host) != but) {
            confirmed.push(Confirmed::new(&read_transaction, host).map_err(store_error)?);
        }
        let files = match read_transaction.open_table(tables::FILES) {
            Ok(files) => Some(files),
            Err(TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(store_error(error.into())),
        };
        Ok(AtHosts {
            // Where one is left it is not looked which it was.
            hold_all: if but.is_none() { hold_all } else { 0 },
            confirmed,
            files,
        })
    }

    /// How many hold everything.
    pub fn hold_all(&self) -> usize {
        self.hold_all
    }

    /// How many have the present content of a file.
    ///
    /// # Errors
    /// The store's.
    pub fn count(&self, id: FileId) -> Result<usize, StoreError> {
        let all = self.confirmed.len();
        let Some(files) = self.files.as_ref().filter(|_| all > self.hold_all) else {
            return Ok(all);
        };
        let content = file_state(files, id)?.and_then(|state| state.content);
        let Some(key) = content.map(|content| ContentKey::of(&content.root)) else {
            return Ok(0);
        };
        let mut count = 0;
        for host in &self.confirmed {
            count += usize::from(host.has(&key)?);
        }
        Ok(count)
    }
}

/// Those of `files` whose contents enough hosts have confirmed that can be asked now.
pub async fn may_keep(
    running: &Arc<Running>,
    files: Vec<FileId>,
) -> Result<BTreeSet<FileId>, String> {
    let hosts = connected(running).await?;
    let copies = Copies::default();
    if files.is_empty() || !copies.enough(0, hosts.len()) {
        return Ok(BTreeSet::new());
    }
    let handle = running.vault.clone();
    let look = tokio::task::spawn_blocking(move || -> Result<_, StoreError> {
        let read = handle.database().begin_read()?;
        let mut confirmed = Vec::new();
        for host in hosts {
            confirmed.push(Confirmed::new(&read, host)?);
        }
        let at_hosts = AtHosts {
            confirmed,
            files: Some(read.open_table(tables::FILES)?),
            hold_all: 0,
        };
        let mut kept = BTreeSet::new();
        for id in files {
            if copies.enough(0, at_hosts.count(id)?) {
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
    for host in connected(running).await? {
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
    let copies = Copies::default();
    Ok(counts
        .into_iter()
        .filter(|(_, count)| copies.enough(0, *count))
        .map(|(id, _)| id)
        .collect())
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
