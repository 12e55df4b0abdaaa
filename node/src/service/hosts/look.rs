//! Looks whether a host can be trusted, and tells it what is no longer named.
//!
//! - It is challenged: some bytes of a blob that it confirmed and that is here are asked for and compared.
//! - It withholds when for long it does not send entries that its own statement says it has, or tells this device less
//!   than another device has heard from it.
//! - What it keeps and nothing here names any more is released. That frees nothing by itself: all devices must have done
//!   so (`docs/protocol/relay.md`).

use std::sync::Arc;
use std::time::Duration;

use coffer_crdt::files::FileId;
use coffer_protocol::identity::{DeviceId, Hash};
use coffer_protocol::relay::{Answer, MAX_LIST, MAX_RANGE, MAX_RELEASE, Request};
use rand::{Rng, RngExt};
use redb::ReadableDatabase;
use tokio::time::Instant;

use super::super::random;
use super::super::running::Running;
use super::bring::BringError;
use super::gather::{self, Scope};
use super::talk::{Talk, TalkError};
use crate::collect::{Names, named};
use crate::hosts::{ContentKey, HostChange, TroubleKind};
use crate::net::Net;
use crate::vault::hosts::Confirmed;
use crate::vault::{CommitRequest, Core, wall_ms};

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Looks between two challenges, of one range each: a host that lost a hundredth is found within a day.
const CHALLENGE_EACH: u32 = 5;
/// Looks before the first release: other things come first after a start, but a laptop may not be on for long.
const FIRST_RELEASE: u32 = 20;
/// Looks between two releases: all ids that the host has are sent for it, and it frees nothing within a day anyway.
const RELEASE_EACH: u32 = 360;
/// For how long a connected host may lag before it is said to withhold: a first sync of much may take minutes.
const MAY_LAG: Duration = Duration::from_secs(15 * 60);
/// Most keys that are forgotten in one transaction.
const FORGOTTEN_AT_ONCE: usize = 10_000;

/// Looks from time to time; never ends.
pub async fn run(running: Arc<Running>, net: Net, host: DeviceId) {
    let mut lags_since: Option<Lag> = None;
    let mut looks = 0u32;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        looks = looks.wrapping_add(1);
        let connected = running.vault.has_session(host);
        let paused = running.blobs.limits().borrow().paused;
        if !connected {
            lags_since = None;
            continue;
        }
        withholds(&running, host, &mut lags_since).await;
        if paused {
            continue;
        }
        let outcome = async {
            if looks % CHALLENGE_EACH == 1 {
                challenge(&running, &net, host).await?;
            }
            if looks % RELEASE_EACH == FIRST_RELEASE {
                release(&running, &net, host).await?;
            }
            Ok::<_, BringError>(())
        };
        if let Err(error) = outcome.await {
            tracing::debug!(%host, %error, "a host was not looked at");
        }
    }
}

/// Since when a host lags, and how far this device was then.
struct Lag {
    since: Instant,
    entries: u64,
}

/// Notes a host that has been lagging for long without this device getting on.
async fn withholds(running: &Arc<Running>, host: DeviceId, lag: &mut Option<Lag>) {
    let Ok((lags, entries)) = running
        .vault
        .inspect(move |core| {
            (
                lags(core, host),
                core.state().clock.iter().map(|(_, seq, _)| seq).sum(),
            )
        })
        .await
    else {
        return;
    };
    match lag {
        _ if !lags => *lag = None,
        Some(lag) if lag.entries == entries => {
            if lag.since.elapsed() >= MAY_LAG {
                lag.since = Instant::now();
                note(running, HostChange::Trouble(host, TroubleKind::Withholds)).await;
            }
        }
        _ => {
            *lag = Some(Lag {
                since: Instant::now(),
                entries,
            });
        }
    }
}

/// Whether a host says, or has said to others, that it has more than it has sent to this device.
pub fn lags(core: &Core, host: DeviceId) -> bool {
    let state = core.state();
    let Some(memory) = state.hosts.get(&host) else {
        return false;
    };
    let Some(told) = memory.record.told.as_ref().map(|told| told.value()) else {
        return false;
    };
    let others = state.held.values();
    let mut others = others.filter(|held| held.device != host && held.at_ms > told.at_ms);
    memory.record.lags()
        || !state.clock.covers_clock(&told.entries)
        || others.any(|held| held.has_seen(&host) > told.counter)
}

/// Asks for some bytes of something that the host confirmed and that is here too.
async fn challenge(running: &Arc<Running>, net: &Net, host: DeviceId) -> Result<(), BringError> {
    let Some((key, blob)) = pick(running, host).await? else {
        return Ok(());
    };
    let Some(ours) = running.blobs.sealed(blob).await? else {
        return Ok(());
    };
    let vault = running.vault.inspect(|core| core.state().vault).await?;
    let mut talk = Talk::open(net, host, vault).await?;
    if !answers(&mut talk, blob, &ours).await? {
        tracing::warn!(%host, "a host does not have bytes that it had confirmed");
        note(running, HostChange::Unconfirmed(host, vec![key])).await;
        note(
            running,
            HostChange::Trouble(host, TroubleKind::LostContents),
        )
        .await;
    }
    Ok(())
}

/// Whether the host shows a random range of a blob as it is here.
async fn answers(talk: &mut Talk, blob: Hash, ours: &[u8]) -> Result<bool, TalkError> {
    let len = ours.len().clamp(1, MAX_RANGE);
    let offset = random().random_range(0..=ours.len() - len.min(ours.len()));
    let request = Request::Range {
        vault: talk.vault,
        id: blob,
        offset: offset as u32,
        len: len as u16,
    };
    match talk.ask(&request).await? {
        Answer::Range(bytes) => {
            Ok(bytes.is_some_and(|bytes| bytes.0 == ours[offset..(offset + len).min(ours.len())]))
        }
        _ => Err(TalkError::Nonsense),
    }
}

/// A random content that the host confirmed, and one of its blobs.
async fn pick(
    running: &Arc<Running>,
    host: DeviceId,
) -> Result<Option<(ContentKey, Hash)>, BringError> {
    let mut start = FileId([0; 16]);
    random().fill_bytes(&mut start.0);
    let (handle, blobs) = (running.vault.clone(), running.blobs.clone());
    let found = tokio::task::spawn_blocking(move || -> Result<_, gather::GatherError> {
        for after in [Some(start), None] {
            let read = gather::next(&handle, &blobs, host, &Scope::All, after, true)?;
            let (mut whole, lacking) = read.lot.split();
            whole.extend(lacking);
            let mut confirmed = whole
                .into_iter()
                .filter(|content| content.confirmed && !content.blobs.is_empty());
            if let Some(content) = confirmed.next() {
                let at = random().random_range(0..content.blobs.len());
                return Ok(Some((content.key, content.blobs[at])));
            }
        }
        Ok(None)
    });
    match found.await {
        Ok(found) => Ok(found?),
        Err(error) => Err(TalkError::Broken(error.to_string()).into()),
    }
}

/// Tells the host what of its blobs nothing here names any more. Only while this device knows of all that the host has:
/// what it does not know of yet it cannot tell from what is not named.
async fn release(running: &Arc<Running>, net: &Net, host: DeviceId) -> Result<(), BringError> {
    let (vault, behind) = running
        .vault
        .inspect(move |core| (core.state().vault, lags(core, host)))
        .await?;
    if behind {
        return Ok(());
    }
    forget_unnamed(running, host).await?;
    let mut names = named_now(running).await?;
    let mut talk = Talk::open(net, host, vault).await?;
    let mut after = Hash::ZERO;
    loop {
        let request = Request::List {
            vault,
            after,
            max: MAX_LIST as u16,
        };
        let Answer::Listed(ids) = talk.ask(&request).await? else {
            return Err(TalkError::Nonsense.into());
        };
        if !ids.is_sorted_by(|a, b| a < b) || ids.first().is_some_and(|first| *first <= after) {
            return Err(TalkError::Nonsense.into());
        }
        let mut unnamed = ids.clone();
        unnamed.retain(|id| !names.contains(id));
        if !unnamed.is_empty() {
            // What was named meanwhile is not released.
            names = named_now(running).await?;
            unnamed.retain(|id| !names.contains(id));
        }
        for ids in unnamed.chunks(MAX_RELEASE) {
            let request = Request::Release {
                vault,
                ids: ids.to_vec(),
            };
            if !matches!(talk.ask(&request).await?, Answer::Released) {
                return Err(TalkError::Nonsense.into());
            }
        }
        match ids.last() {
            Some(last) if ids.len() == MAX_LIST => after = *last,
            _ => return Ok(()),
        }
    }
}

async fn named_now(running: &Arc<Running>) -> Result<Names, BringError> {
    let names = named(&running.vault, &running.blobs, wall_ms()).await;
    names.map_err(|error| TalkError::Broken(error.to_string()).into())
}

/// Contents that nothing names any more count as confirmed no longer: who names one of them again claims it first.
async fn forget_unnamed(running: &Arc<Running>, host: DeviceId) -> Result<(), BringError> {
    let handle = running.vault.clone();
    let found = tokio::task::spawn_blocking(move || -> Result<_, gather::GatherError> {
        let keys = gather::named_keys(&handle)?;
        let read = handle
            .database()
            .begin_read()
            .map_err(crate::store::StoreError::from)?;
        let mut gone = Vec::new();
        Confirmed::new(&read, host)?.each(|key| {
            if keys.binary_search(&key).is_err() {
                gone.push(key);
            }
        })?;
        Ok(gone)
    });
    let gone = match found.await {
        Ok(found) => found?,
        Err(error) => return Err(TalkError::Broken(error.to_string()).into()),
    };
    for keys in gone.chunks(FORGOTTEN_AT_ONCE) {
        note(running, HostChange::Unconfirmed(host, keys.to_vec())).await;
    }
    Ok(())
}

async fn note(running: &Arc<Running>, change: HostChange) {
    let request = CommitRequest {
        hosts: vec![change],
        ..Default::default()
    };
    if let Err(error) = running.vault.commit(request).await {
        tracing::warn!(%error, "what was learnt of a host could not be noted");
    }
}
