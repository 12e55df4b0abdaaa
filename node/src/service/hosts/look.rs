//! Looks whether a host can be trusted, and tells it what is no longer named.
//!
//! - It is challenged, soon after it connects and then now and then: some bytes of a blob that it confirmed and that is
//!   here are asked for and compared. One that does not answer such questions for two minutes is named, until it does.
//! - It withholds when for two minutes it does not send entries that its own statement says it has, or tells this device
//!   less than another device has heard from it, and nothing comes meanwhile. It is named until it has caught up.
//! - What it keeps and nothing here names any more is released. That frees nothing by itself: all devices must have done
//!   so (`docs/protocol/relay.md`).

use std::sync::{Arc, Weak};
use std::time::Duration;

use coffer_crdt::files::FileId;
use coffer_protocol::identity::{DeviceId, Hash};
use coffer_protocol::relay::{Answer, MAX_LIST, MAX_RELEASE, Request};
use rand::{Rng, RngExt};
use redb::ReadableDatabase;
use tokio::time::Instant;

use super::super::random;
use super::super::running::Running;
use super::bring::BringError;
use super::gather::{self, Scope};
use super::losses::Losses;
use super::talk::{Talk, TalkError};
use crate::collect::{Names, named};
use crate::hosts::watch::{Challenge, DOUBT_EVERY, Lagging, Refusing, lags};
use crate::hosts::{ContentKey, HostChange, TroubleKind};
use crate::net::Net;
use crate::vault::hosts::Confirmed;
use crate::vault::{CommitRequest, wall_ms};

/// How often it is looked, while nothing is in doubt.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Between two challenges, of one range each: a host that lost a hundredth is found within a day.
const CHALLENGE_EVERY: Duration = Duration::from_secs(5 * 60);
/// After a session began, when the first challenge comes: what waits to be sent goes first.
const FIRST_CHALLENGE: Duration = Duration::from_secs(2);
/// Contents among which one that is here is looked for: a device may have most of them on demand.
const CANDIDATES: usize = 32;
/// The first release: other things come first after a start, but a laptop may not be on for long.
const FIRST_RELEASE: Duration = Duration::from_secs(20 * 60);
/// Between two releases: all ids that the host has are sent for it, and it frees nothing within a day anyway.
const RELEASE_EVERY: Duration = Duration::from_secs(6 * 60 * 60);
/// Most keys that are forgotten in one transaction.
const FORGOTTEN_AT_ONCE: usize = 10_000;

/// What is known of a host while this device runs, and when it is looked at next.
struct Looks {
    lagging: Lagging,
    refusing: Refusing,
    next: Instant,
    challenge: Instant,
    release: Instant,
}

/// Looks from time to time, and once on each connection; never ends. `losses` are told when the host turns out not to
/// have something that it had confirmed.
pub async fn run(running: Arc<Running>, net: Net, host: DeviceId, losses: Arc<Losses>) {
    let now = Instant::now();
    let mut looks = Looks {
        lagging: Lagging::default(),
        refusing: Refusing::default(),
        next: now + LOOK_EVERY,
        challenge: now,
        release: now + FIRST_RELEASE,
    };
    let mut sessions = running.vault.sessions_changed();
    let mut news = running.vault.hosts_news();
    let mut last_session = Weak::new();
    loop {
        // A session that ended and one that began, both while a host was being asked, are told apart as well.
        let session = running.vault.session(host);
        if let Some(new) = session.filter(|session| !session.ptr_eq(&last_session)) {
            if !looks.refusing.is_refusing() {
                // A host that was put back or repaired meanwhile is found out soon.
                looks.challenge = Instant::now() + FIRST_CHALLENGE;
            }
            last_session = new;
        }
        let due = looks.next.min(looks.challenge);
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            changed = sessions.changed() => if changed.is_err() {
                // The vault is closing, and this task with it.
                std::future::pending::<()>().await;
            } else {
                continue;
            },
            // Each statement may be the first of which something is kept back.
            _ = news.changed(), if !looks.lagging.is_lagging() => {
                looks.looks_for_lag(&running, host).await;
                continue;
            }
        }
        looks.look(&running, &net, host, &losses).await;
    }
}

impl Looks {
    /// Looks at a host that is connected, with a session or not: one that hangs up on each of them gains nothing by it.
    async fn look(&mut self, running: &Arc<Running>, net: &Net, host: DeviceId, losses: &Losses) {
        let now = Instant::now();
        if !net.is_connected(&host.0) {
            self.next = now + LOOK_EVERY;
            self.challenge = now
                + match self.refusing.is_refusing() {
                    true => DOUBT_EVERY,
                    false => LOOK_EVERY,
                };
            return;
        }
        if self.next <= now {
            self.looks_for_lag(running, host).await;
        }
        let paused = is_paused(running);
        if self.challenge <= now {
            if !paused {
                self.challenge(running, net, host, losses).await;
            }
            self.challenge = Instant::now()
                + match self.refusing.is_refusing() {
                    true => DOUBT_EVERY,
                    false => CHALLENGE_EVERY,
                };
        }
        if self.release <= now && !paused {
            self.release = Instant::now() + RELEASE_EVERY;
            if let Err(error) = release(running, net, host).await {
                tracing::debug!(%host, %error, "nothing was released at a host");
            }
        }
    }

    /// Notes a host that has been lagging for long without this device getting on, and one that does so no more.
    async fn looks_for_lag(&mut self, running: &Arc<Running>, host: DeviceId) {
        let mut lagging = self.lagging.clone();
        let looked = running.vault.inspect(move |core| {
            let withholds = lagging.look_at(core, host);
            let memory = core.state().hosts.get(&host);
            let is_named =
                memory.is_some_and(|memory| memory.trouble(TroubleKind::Withholds).is_some());
            (lagging, withholds, is_named)
        });
        let Ok((lagging, withholds, is_named)) = looked.await else {
            return;
        };
        self.next = Instant::now()
            + match lagging.is_lagging() {
                true => DOUBT_EVERY,
                false => LOOK_EVERY,
            };
        if withholds {
            tracing::warn!(%host, "a host does not pass on what it says it holds");
            note(running, HostChange::Trouble(host, TroubleKind::Withholds)).await;
        } else if is_named && !lagging.is_lagging() {
            note(running, HostChange::Over(host, TroubleKind::Withholds)).await;
        }
        self.lagging = lagging;
    }

    /// Asks for some bytes of something that the host confirmed and that is here too.
    async fn challenge(
        &mut self,
        running: &Arc<Running>,
        net: &Net,
        host: DeviceId,
        losses: &Losses,
    ) {
        match show(running, net, host, &[], 1).await {
            Ok(Shown::Nothing) => {}
            Ok(Shown::All) => {
                self.refusing.answered();
                let named = running.vault.inspect(move |core| {
                    let memory = core.state().hosts.get(&host)?;
                    memory.trouble(TroubleKind::Unproven).map(drop)
                });
                if named.await.ok().flatten().is_some() {
                    note(running, HostChange::Over(host, TroubleKind::Unproven)).await;
                }
            }
            Ok(Shown::Not(blob)) => {
                self.refusing.answered();
                losses.found(blob);
            }
            Err(BringError::Talk(error)) if net.is_connected(&host.0) => {
                tracing::debug!(%host, %error, "a host did not answer a challenge");
                if self.refusing.refused() {
                    tracing::warn!(%host, "a host does not show what it had confirmed");
                    note(running, HostChange::Trouble(host, TroubleKind::Unproven)).await;
                }
            }
            Err(error) => tracing::debug!(%host, %error, "a host was not challenged"),
        }
    }
}

fn is_paused(running: &Running) -> bool {
    running.blobs.limits().borrow().paused
}

/// What came of challenges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// There was nothing to be shown: the host confirmed nothing that is here.
    Nothing,
    /// It showed all that it was asked for.
    All,
    /// It did not show this, which is noted.
    Not(Hash),
}

/// Asks for some bytes of `these` blobs, as far as they are here, and of up to `more` others that the host confirmed.
pub async fn show(
    running: &Arc<Running>,
    net: &Net,
    host: DeviceId,
    these: &[Hash],
    more: usize,
) -> Result<Shown, BringError> {
    let others = candidates(running, host).await?;
    let these = these.iter().map(|blob| (None, *blob));
    let (mut talk, mut left) = (None, more);
    let vault = running.vault.inspect(|core| core.state().vault).await?;
    for (key, blob) in these.chain(others.into_iter().map(|(key, blob)| (Some(key), blob))) {
        if key.is_some() && left == 0 {
            break;
        }
        let Some(ours) = running.blobs.sealed(blob).await? else {
            continue;
        };
        let challenge = Challenge::draw(blob, &ours, &mut random());
        let talk = match &mut talk {
            Some(talk) => talk,
            none => none.insert(Talk::open(net, host, vault).await?),
        };
        let answer = talk.ask(&challenge.request(vault)).await?;
        if !challenge.is_met(&answer).ok_or(TalkError::Nonsense)? {
            tracing::warn!(%host, "a host does not have bytes that it had confirmed");
            if let Some(key) = key {
                note(running, HostChange::Unconfirmed(host, vec![key])).await;
            }
            let lost = HostChange::Trouble(host, TroubleKind::LostContents);
            note(running, lost).await;
            return Ok(Shown::Not(blob));
        }
        left -= usize::from(key.is_some());
    }
    Ok(match talk {
        Some(_) => Shown::All,
        None => Shown::Nothing,
    })
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
            let read = gather::next(&handle, &blobs, (host, &[]), &Scope::All, after, true)?;
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

/// Notes what was learnt of a host.
pub(super) async fn note(running: &Arc<Running>, change: HostChange) {
    let request = CommitRequest {
        hosts: vec![change],
        ..Default::default()
    };
    if let Err(error) = running.vault.commit(request).await {
        tracing::warn!(%error, "what was learnt of a host could not be noted");
    }
}
