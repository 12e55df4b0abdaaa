//! Looks whether a host can be trusted, and tells it what is no longer named.
//!
//! - It is challenged, soon after it connects and then now and then: some bytes of a blob that it confirmed and that is
//!   here are asked for and compared.
//! - It withholds when for long it does not send entries that its own statement says it has, or tells this device less
//!   than another device has heard from it.
//! - What it keeps and nothing here names any more is released. That frees nothing by itself: all devices must have done
//!   so (`docs/protocol/relay.md`).

use std::sync::Arc;
use std::time::Duration;

use coffer_crdt::files::FileId;
use coffer_protocol::identity::{DeviceId, Hash};
use coffer_protocol::relay::{Answer, MAX_LIST, MAX_RELEASE, Request};
use rand::{Rng, RngExt};
use redb::ReadableDatabase;
use tokio::sync::Notify;

use super::super::random;
use super::super::running::Running;
use super::bring::BringError;
use super::gather::{self, Scope};
use super::talk::{Talk, TalkError};
use crate::collect::{Names, named};
use crate::hosts::watch::{Challenge, Lagging, lags};
use crate::hosts::{ContentKey, HostChange, TroubleKind};
use crate::net::Net;
use crate::vault::hosts::Confirmed;
use crate::vault::{CommitRequest, wall_ms};

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Looks between two challenges, of one range each: a host that lost a hundredth is found within a day.
const CHALLENGE_EACH: u32 = 5;
/// After a session began, when the first challenge comes: what waits to be sent goes first.
const FIRST_CHALLENGE: Duration = Duration::from_secs(2);
/// Contents among which one that is here is looked for: a device may have most of them on demand.
const CANDIDATES: usize = 32;
/// Looks before the first release: other things come first after a start, but a laptop may not be on for long.
const FIRST_RELEASE: u32 = 20;
/// Looks between two releases: all ids that the host has are sent for it, and it frees nothing within a day anyway.
const RELEASE_EACH: u32 = 360;
/// Most keys that are forgotten in one transaction.
const FORGOTTEN_AT_ONCE: usize = 10_000;

/// Looks from time to time, and once on each connection; never ends. `lost` is told when the host turns out not to have
/// something that it had confirmed.
pub async fn run(running: Arc<Running>, net: Net, host: DeviceId, lost: Arc<Notify>) {
    tokio::join!(
        now_and_then(&running, &net, host, &lost),
        on_connecting(&running, &net, host, &lost),
    );
}

async fn now_and_then(running: &Arc<Running>, net: &Net, host: DeviceId, lost: &Notify) {
    let mut lagging = Lagging::default();
    let mut looks = 0u32;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        looks = looks.wrapping_add(1);
        if !running.vault.has_session(host) {
            continue;
        }
        lagging = withholds(running, host, lagging).await;
        if is_paused(running) {
            continue;
        }
        let outcome = async {
            if looks.is_multiple_of(CHALLENGE_EACH) {
                challenge(running, net, host, lost).await?;
            }
            if looks % RELEASE_EACH == FIRST_RELEASE {
                release(running, net, host).await?;
            }
            Ok::<_, BringError>(())
        };
        if let Err(error) = outcome.await {
            tracing::debug!(%host, %error, "a host was not looked at");
        }
    }
}

/// Challenges once on each connection: a host that was put back or repaired meanwhile is found out soon.
async fn on_connecting(running: &Arc<Running>, net: &Net, host: DeviceId, lost: &Notify) {
    let mut sessions = running.vault.sessions_changed();
    let mut had_session = false;
    loop {
        let has_session = running.vault.has_session(host);
        if has_session && !had_session {
            tokio::time::sleep(FIRST_CHALLENGE).await;
            if running.vault.has_session(host)
                && !is_paused(running)
                && let Err(error) = challenge(running, net, host, lost).await
            {
                tracing::debug!(%host, %error, "a host was not challenged");
            }
        }
        had_session = has_session;
        if sessions.changed().await.is_err() {
            // The vault is closing, and this task with it.
            std::future::pending::<()>().await;
        }
    }
}

fn is_paused(running: &Running) -> bool {
    running.blobs.limits().borrow().paused
}

/// Notes a host that has been lagging for long without this device getting on.
async fn withholds(running: &Arc<Running>, host: DeviceId, mut lagging: Lagging) -> Lagging {
    let before = lagging.clone();
    let looked = running.vault.inspect(move |core| {
        let withholds = lagging.look_at(core, host);
        (lagging, withholds)
    });
    let Ok((lagging, withholds)) = looked.await else {
        return before;
    };
    if withholds {
        note(running, HostChange::Trouble(host, TroubleKind::Withholds)).await;
    }
    lagging
}

/// Asks for some bytes of something that the host confirmed and that is here too.
async fn challenge(
    running: &Arc<Running>,
    net: &Net,
    host: DeviceId,
    lost: &Notify,
) -> Result<(), BringError> {
    let mut found = None;
    for (key, blob) in candidates(running, host).await? {
        if let Some(ours) = running.blobs.sealed(blob).await? {
            found = Some((key, Challenge::draw(blob, &ours, &mut random())));
            break;
        }
    }
    let Some((key, challenge)) = found else {
        return Ok(());
    };
    let vault = running.vault.inspect(|core| core.state().vault).await?;
    let mut talk = Talk::open(net, host, vault).await?;
    let answer = talk.ask(&challenge.request(vault)).await?;
    if !challenge.is_met(&answer).ok_or(TalkError::Nonsense)? {
        tracing::warn!(%host, "a host does not have bytes that it had confirmed");
        note(running, HostChange::Unconfirmed(host, vec![key])).await;
        note(
            running,
            HostChange::Trouble(host, TroubleKind::LostContents),
        )
        .await;
        lost.notify_one();
    }
    Ok(())
}

/// Some contents that the host confirmed, from a random one on, and one blob of each.
async fn candidates(
    running: &Arc<Running>,
    host: DeviceId,
) -> Result<Vec<(ContentKey, Hash)>, BringError> {
    let mut start = FileId([0; 16]);
    random().fill_bytes(&mut start.0);
    let (handle, blobs) = (running.vault.clone(), running.blobs.clone());
    let found = tokio::task::spawn_blocking(move || -> Result<_, gather::GatherError> {
        let mut found = Vec::new();
        for after in [Some(start), None] {
            let read = gather::next(&handle, &blobs, host, &Scope::All, after, true)?;
            let (whole, lacking) = read.lot.split();
            let confirmed = whole
                .into_iter()
                .chain(lacking)
                .filter(|content| content.confirmed && !content.blobs.is_empty());
            for content in confirmed.take(CANDIDATES - found.len()) {
                let at = random().random_range(0..content.blobs.len());
                found.push((content.key, content.blobs[at]));
            }
            if found.len() == CANDIDATES {
                break;
            }
        }
        Ok(found)
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
