//! Brings a host what it lacks, and learns what it has.
//!
//! A pass goes over all contents that the vault keeps, lot by lot: the host is asked which of their blobs it has (that
//! claims them, so that no other device's word frees them), given those that it lacks and that are here, or at other hosts
//! only, and what it has whole is noted as confirmed. What was confirmed before is passed over, so a pass goes on where one
//! broke off; now and then all of it is asked about again, which finds what the host has lost.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coffer_crdt::files::FileId;
use coffer_protocol::identity::{DeviceId, Hash};
use coffer_protocol::relay::{Answer, MAX_PUT, MAX_PUT_BYTES, Request};
use redb::ReadableDatabase;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::super::random;
use super::super::running::Running;
use super::At;
use super::gather::{self, Scope};
use super::losses::{Asking, Losses};
use super::nowhere::Nowhere;
use super::passing::{self, Passing};
use super::talk::{Talk, TalkError};
use crate::blobs::{BlobsError, Filled};
use crate::hosts::HostChange;
use crate::hosts::lot::{Lacks, Lot};
use crate::net::Net;
use crate::store::StoreError;
use crate::vault::hosts::Confirmed;
use crate::vault::{Changes, CommitError, CommitRequest, wall_ms};

/// After a change, how long more of them are let come.
const GATHER: Duration = Duration::from_millis(100);
/// Pause after a pass that did not bring everything, unless something happens before; and between looks whether what was
/// nowhere is here again.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// Pause after a pass that broke: the host may be starting.
const BROKEN_AFTER: Duration = Duration::from_secs(2);
/// How often a host is asked about all that it had confirmed. Well below the grace after which a host may free what
/// every device has released: so whatever is named again in between is claimed in time.
const AGAIN_EVERY: Duration = Duration::from_secs(6 * 3600);
/// Bytes of one batch, unless a single blob has more: large enough for the host's disk, small enough for two in memory.
const BATCH_BYTES: usize = 8 << 20;
/// Files that changed since the last pass, at most: of more than these all are looked at.
const MOST_FILES: usize = 4096;
/// Batches that were sent and not answered yet.
const UNANSWERED: usize = 2;

const _: () = assert!(
    (BATCH_BYTES + coffer_protocol::blobs::MAX_BLOB) as u64 <= MAX_PUT_BYTES,
    "a batch and one blob more are one Put"
);

/// Why a pass did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum BringError {
    /// The host.
    #[error(transparent)]
    Talk(#[from] TalkError),
    /// The vault or the contents here cannot be read.
    #[error(transparent)]
    Gather(#[from] gather::GatherError),
    /// The contents here cannot be read.
    #[error(transparent)]
    Blobs(#[from] BlobsError),
    /// What was learnt could not be noted.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// What is to be looked at next.
struct Due {
    /// Files that changed; all of them where that is not known.
    scope: Scope,
    /// When everything is asked about again.
    again_at: Instant,
}

impl Due {
    /// Adds what happened.
    fn add(&mut self, change: Result<Arc<Changes>, RecvError>) {
        match change {
            Ok(change) => self.add_files(change.file_events.iter().map(|news| news.id)),
            Err(_) => self.scope = Scope::All,
        }
    }

    /// Adds files to look at.
    fn add_files(&mut self, more: impl IntoIterator<Item = FileId>) {
        if let Scope::Files(files) = &mut self.scope {
            files.extend(more);
            files.sort_unstable();
            files.dedup();
            if files.len() > MOST_FILES {
                self.scope = Scope::All;
            }
        }
    }
}

/// When it is looked whether something of this is back, once something happened here.
fn next_look(nowhere: &Nowhere, looked: Instant) -> Option<Instant> {
    (nowhere.count() > 0).then(|| looked + RETRY_AFTER)
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Files of which an earlier content may be here again.
async fn back(running: &Arc<Running>, nowhere: &Nowhere) -> Result<Vec<FileId>, BringError> {
    let (blobs, nowhere) = (running.blobs.clone(), nowhere.clone());
    let look = tokio::task::spawn_blocking(move || nowhere.back(|blob| blobs.is_here(blob)));
    match look.await {
        Ok(found) => Ok(found?),
        Err(error) => Err(TalkError::Broken(error.to_string()).into()),
    }
}

/// Brings everything, and again whenever something changes; never ends. When the host has lost something, or says that it
/// has less than before, it is asked about everything again.
pub async fn run(
    running: Arc<Running>,
    net: Net,
    host: DeviceId,
    at: watch::Sender<At>,
    losses: Arc<Losses>,
) {
    let mut due = Due {
        scope: Scope::All,
        again_at: Instant::now(),
    };
    let mut asking = Asking::new();
    let mut nowhere = Nowhere::default();
    let mut looked_back = Instant::now();
    let mut changes = running.vault.subscribe();
    let mut news = running.vault.hosts_news();
    let mut sessions = running.vault.sessions_changed();
    let mut limits = running.blobs.limits();
    loop {
        while !running.vault.has_session(host) || limits.borrow_and_update().paused {
            tokio::select! {
                _ = sessions.changed() => {}
                _ = limits.changed() => {}
            }
        }
        while let Ok(change) = changes.try_recv() {
            due.add(Ok(change));
        }
        news.borrow_and_update();
        if let Some(again_at) = asking.if_less(&running, host).await {
            due.again_at = due.again_at.min(again_at);
        }
        let again = Instant::now() >= due.again_at;
        if again {
            due.scope = Scope::All;
        }
        let paused = async {
            let _ = limits.wait_for(|limits| limits.paused).await;
        };
        let began_ms = wall_ms();
        at.send_modify(|at| at.working = true);
        let outcome = tokio::select! {
            outcome = async {
                let passed = pass(&running, &net, host, &due.scope, again).await?;
                nowhere.found(&due.scope, passed.lacks.may_be_nowhere);
                at.send_modify(|at| {
                    (at.lacks, at.may_be_nowhere) = (passed.lacks.contents, nowhere.count());
                    (at.full, at.as_of) = (passed.full, Some(passed.as_of));
                });
                if again {
                    asking.asked(began_ms);
                }
                if at.borrow().lacks != (0, 0) {
                    return Ok(None);
                }
                let settled = asking.settle(&running, &net, host, &losses).await;
                Ok::<_, BringError>(settled.unwrap_or_else(|error| {
                    tracing::debug!(%host, %error, "a host does not show what it has again");
                    Some(asking.after_a_loss())
                }))
            } => Some(outcome),
            () = paused => None,
        };
        at.send_modify(|at| at.working = false);
        let after = match outcome {
            None => continue,
            Some(Ok(once_more)) => {
                if again {
                    due.again_at = Instant::now() + AGAIN_EVERY;
                }
                due.again_at = once_more.unwrap_or(due.again_at).min(due.again_at);
                // What is lacking may be brought by somebody else, or may have come here meanwhile.
                let lacks = at.borrow().lacks != (0, 0);
                due.scope = match lacks {
                    true => Scope::All,
                    false => Scope::Files(Vec::new()),
                };
                let again_in = due.again_at.saturating_duration_since(Instant::now());
                match lacks {
                    true => RETRY_AFTER.min(again_in),
                    false => again_in,
                }
            }
            Some(Err(error)) => {
                tracing::debug!(%host, %error, "contents were not brought to a host");
                BROKEN_AFTER
            }
        };
        let mut wake = Instant::now() + after;
        let mut back_at = next_look(&nowhere, looked_back);
        loop {
            tokio::select! {
                change = changes.recv() => {
                    let matters = match &change {
                        // What came here without a change of files can be brought, where it is lacking.
                        Ok(change) => !change.file_events.is_empty()
                            || change.documents.is_empty() && at.borrow().lacks != (0, 0),
                        Err(_) => true,
                    };
                    due.add(change);
                    if matters {
                        break;
                    }
                    back_at = back_at.or(next_look(&nowhere, looked_back));
                }
                () = until(back_at) => {
                    (looked_back, back_at) = (Instant::now(), None);
                    match back(&running, &nowhere).await {
                        Ok(files) if files.is_empty() => {}
                        Ok(files) => {
                            due.add_files(files);
                            break;
                        }
                        Err(error) => tracing::warn!(%error, "it was not found what is here again"),
                    }
                }
                // It has room again, or does not have any more what it had.
                _ = news.changed() => {
                    if let Some(again_at) = asking.if_less(&running, host).await {
                        due.again_at = due.again_at.min(again_at);
                        wake = wake.min(again_at);
                    }
                    if at.borrow().full || void(&running, host).await {
                        due.scope = Scope::All;
                        break;
                    }
                }
                () = losses.more() => {
                    due.again_at = due.again_at.min(asking.after_a_loss());
                    wake = wake.min(due.again_at);
                }
                () = tokio::time::sleep_until(wake) => break,
            }
        }
        // What it lacked stays said until it is known better; that it lacks nothing does not.
        at.send_modify(|at| {
            if at.lacks == (0, 0) {
                at.as_of = None;
            }
        });
        tokio::time::sleep(GATHER).await;
    }
}

/// Whether nothing at all is confirmed by the host, as after it was put back.
async fn void(running: &Arc<Running>, host: DeviceId) -> bool {
    let database = running.vault.database().clone();
    let look = tokio::task::spawn_blocking(move || -> Result<bool, StoreError> {
        Confirmed::new(&database.begin_read()?, host)?.is_empty()
    });
    matches!(look.await, Ok(Ok(true)))
}

/// What a pass found.
struct Passed {
    /// Transaction as of which it looked.
    as_of: u64,
    lacks: Lacks,
    /// Whether the host refused something because it is full.
    full: bool,
}

/// One pass over contents.
async fn pass(
    running: &Arc<Running>,
    net: &Net,
    host: DeviceId,
    scope: &Scope,
    again: bool,
) -> Result<Passed, BringError> {
    let (vault, as_of) = running
        .vault
        .inspect(|core| (core.state().vault, core.state().transaction))
        .await?;
    let passing = Passing::look(running, host).await?;
    // Now and then it is tried all the same: what the host said may be behind what it would take.
    let room = match again {
        true => u64::MAX,
        false => room(running, host).await?,
    };
    let room = AtomicU64::new(room);
    let mut talk = None;
    let (mut after, mut lacks, mut full) = (None, Lacks::default(), false);
    loop {
        let (handle, blobs, scope) = (running.vault.clone(), running.blobs.clone(), scope.clone());
        let others = passing.others.clone();
        let read = tokio::task::spawn_blocking(move || {
            gather::next(&handle, &blobs, (host, &others), &scope, after, again)
        });
        let mut read = match read.await {
            Ok(read) => read?,
            Err(error) => return Err(BringError::Talk(TalkError::Broken(error.to_string()))),
        };
        lacks.add(read.unknown);
        if !read.lot.is_empty() {
            let talk = match &mut talk {
                Some(talk) => talk,
                none => none.insert(Talk::open(net, host, vault).await?),
            };
            let ways = Ways {
                net,
                passing: &passing,
                room: &room,
            };
            let brought = bring(running, ways, talk, host, &mut read.lot, full).await;
            note_all(running, host, read.lot.whole(host)).await?;
            lacks.add(read.lot.lacks());
            full |= brought?;
        }
        after = read.after;
        if after.is_none() {
            break;
        }
    }
    Ok(Passed { as_of, lacks, full })
}

/// Bytes that a host has room for, as it said last.
async fn room(running: &Running, host: DeviceId) -> Result<u64, CommitError> {
    let look = running.vault.inspect(move |core| {
        let said = core.state().hosts.get(&host)?.record.told.as_ref()?.value();
        let used = said.entry_bytes.saturating_add(said.blob_bytes);
        Some(said.quota_bytes.saturating_sub(used))
    });
    Ok(look.await?.unwrap_or(u64::MAX))
}

/// What a lot is brought with.
#[derive(Clone, Copy)]
struct Ways<'a> {
    net: &'a Net,
    passing: &'a Passing,
    /// Bytes that the host has room for: what does not fit is not sent, for it would only be thrown away there.
    room: &'a AtomicU64,
}

async fn note_all(
    running: &Arc<Running>,
    host: DeviceId,
    hosts: Vec<HostChange>,
) -> Result<(), CommitError> {
    if hosts.is_empty() {
        return Ok(());
    }
    let lost = |change: &HostChange| matches!(change, HostChange::Trouble(..));
    if hosts.iter().any(lost) {
        tracing::warn!(%host, "a host lost contents that it had confirmed");
    }
    let request = CommitRequest {
        hosts,
        ..Default::default()
    };
    running.vault.commit(request).await.map(drop)
}

/// Asks about a lot, notes what of it the host has lost, and gives what is lacking and here. Says whether the host turned
/// out to be full.
async fn bring(
    running: &Arc<Running>,
    ways: Ways<'_>,
    talk: &mut Talk,
    host: DeviceId,
    lot: &mut Lot,
    full: bool,
) -> Result<bool, BringError> {
    let blobs = lot.blobs(&mut random());
    let (there, lacking) = talk.have(&blobs, true).await?;
    lot.has(there);
    note_all(running, host, lot.lost(host)).await?;
    if lacking.is_empty() || full {
        return Ok(full);
    }
    let vault = talk.vault;
    let Ways { net, passing, room } = ways;
    let asked = passing.to_ask(running, lot);
    let (ready, batches) = mpsc::channel::<Filled>(1);
    let (sent, mut unanswered) = mpsc::channel::<Vec<Hash>>(UNANSWERED - 1);
    let (used, mut reusable) = mpsc::channel::<Vec<u8>>(UNANSWERED);
    let fill = async move {
        let (mut rest, mut not_here) = (lacking, Vec::new());
        while !rest.is_empty() {
            let buffer = reusable.try_recv().unwrap_or_default();
            let next = rest.iter().take(MAX_PUT).copied().collect();
            let filled = running.blobs.fill_put(next, BATCH_BYTES, buffer).await?;
            {
                let here: HashSet<&Hash> = filled.blobs.iter().collect();
                let looked_at = rest.drain(..filled.looked_at);
                not_here.extend(looked_at.filter(|blob| !here.contains(blob)));
            }
            if !filled.blobs.is_empty() && ready.send(filled).await.is_err() {
                break;
            }
        }
        let lost = passing::pass_on(running, net, asked, &not_here, BATCH_BYTES, &ready).await;
        Ok::<_, BringError>((not_here, lost))
    };
    let write = async {
        // What is made ready is waited for no longer once this ends.
        let mut batches = batches;
        let writer = &mut talk.write;
        let mut full = false;
        while let Some(batch) = batches.recv().await {
            let left = room.load(Ordering::Relaxed);
            full = batch.blob_bytes() > left;
            if full {
                break;
            }
            room.store(left - batch.blob_bytes(), Ordering::Relaxed);
            let put = Request::Put {
                vault,
                count: batch.blobs.len() as u16,
                bytes: batch.blob_bytes(),
            };
            Talk::send(writer, &put).await?;
            running
                .blobs
                .send_up(host, writer, &batch.buffer)
                .await
                .map_err(|error| TalkError::Broken(error.to_string()))?;
            let _ = used.try_send(batch.buffer);
            if sent.send(batch.blobs).await.is_err() {
                break;
            }
        }
        drop(sent);
        Ok(full)
    };
    let answers = &mut talk.read;
    let read = async {
        let mut full = false;
        while let Some(blobs) = unanswered.recv().await {
            match answers.answer().await {
                Ok(Answer::Stored { .. }) => lot.has(blobs),
                Ok(_) => return Err(TalkError::Nonsense.into()),
                // What was sent before it was known is refused as well.
                Err(TalkError::Full) => {
                    full = true;
                    unanswered.close();
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(full)
    };
    let ((not_here, lost), has_no_room, refused) = futures::try_join!(fill, write, read)?;
    lot.not_here(not_here);
    for (other, blobs) in lost {
        note_all(running, other, lot.lost_elsewhere(other, &blobs)).await?;
    }
    Ok(has_no_room || refused)
}
