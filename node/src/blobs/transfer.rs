//! One transfer: gets wanted chunks, from this device where it has them and else from others, into a [`Sink`].
//!
//! ```text
//!   devices ═► session ─┐  buffers (bounded)   ┌► worker ─► sink ─► flush (one at a time) ─► groups
//!   devices ═► session ─┴──────────────────────┴► worker ─► sink
//!                                    seam (local) ───┘
//! ```
//!
//! Sessions, one for each device, ask in batches and read answers; workers, on threads that may block, check, open and
//! write them; [`Board`] says who does what. Everything received is checked: the ciphertext by the blob's hash (if it is
//! wrong, the device is at fault, is asked no more, and is reported), then by opening it: authentication, frame id, chunk id.
//!
//! Memory is bounded by the buffers: two that wait, one with each worker, one with each session, of up to 6 MiB each and
//! mostly one. Dropping the future of [`run`] stops everything; nothing is lost but what was under way.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coffer_protocol::identity::DeviceId;
use coffer_protocol::keys::Keyring;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{Notify, mpsc};

use super::board::{Board, Item, Peer};
use super::content::Named;
use super::error::WriteError;
use super::jobs::Group;
use super::seam::Origin;
use super::sources::{Fetch, Progress};
use super::{Shared, workers};

/// Received buffers that wait for a worker.
pub(super) const DELIVERIES: usize = 2;

/// How often a device is begun to be asked anew after its stream broke.
const ATTEMPTS: u32 = 3;

/// Pause before each further attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// How long sessions may take to end by themselves once everything is there: one that still waits for a slow device is
/// dropped.
const END_WITHIN: Duration = Duration::from_millis(200);

/// Where chunks go.
pub(super) trait Sink: Send + Sync + 'static {
    /// Whether [`take`](Self::take) needs the ciphertext of all that is received.
    const SEALED: bool;

    /// Takes a chunk. Blocking. A failure of the sink is its own to keep.
    fn take(&self, item: Item, chunk: &Arrived<'_>);

    /// `item` cannot be had from anyone.
    fn fail(&self, item: Item, why: &WriteError);

    /// Whether enough has been taken for [`flush`](Self::flush).
    fn ready(&self) -> bool;

    /// Makes what was taken durable and gives the jobs that ended; with `lost`, the last time, all that are left. Blocking.
    fn flush(&self, lost: Option<&[Item]>) -> Group;
}

/// A chunk, checked.
pub(super) struct Arrived<'a> {
    pub named: &'a Named,
    pub plain: &'a [u8],
    /// Its ciphertext if it was received, and the sink needs it or it cannot be made from the plaintext again.
    pub sealed: Option<&'a [u8]>,
    /// Where it was, if on this device.
    pub local: Option<Origin>,
}

/// What a transfer did.
#[derive(Clone, Debug, Default)]
pub struct Transferred {
    /// Blobs received and found good.
    pub fetched_blobs: u64,
    /// Their bytes.
    pub fetched_bytes: u64,
    /// Plaintext bytes that were read on this device.
    pub local_bytes: u64,
    /// Devices that sent wrong bytes, and what was wrong.
    pub misbehaved: BTreeMap<DeviceId, String>,
}

impl Transferred {
    pub(super) fn add(&mut self, other: Transferred) {
        self.fetched_blobs += other.fetched_blobs;
        self.fetched_bytes += other.fetched_bytes;
        self.local_bytes += other.local_bytes;
        self.misbehaved.extend(other.misbehaved);
    }
}

/// A chunk that is wanted, and whether a place of it is known here.
#[derive(Clone, Copy)]
pub(super) struct Want {
    pub named: Named,
    pub local: bool,
}

pub(super) struct Transfer<S> {
    pub shared: Arc<Shared>,
    pub keyring: Arc<Keyring>,
    pub board: Board,
    pub wanted: Vec<Named>,
    pub sink: Arc<S>,
    pub progress: Arc<Progress>,
    pub buffers: Mutex<Vec<Vec<u8>>>,
    /// Compressed frames that look like uncompressed ones by their length: their ciphertext must be kept before opening.
    pub disguised: Mutex<HashSet<Item>>,
    /// A worker has given the sink enough to flush.
    pub taken: Notify,
    pub fetched_blobs: AtomicU64,
    pub fetched_bytes: AtomicU64,
    pub local_bytes: AtomicU64,
}

/// Received blobs on their way to a worker.
pub(super) struct Delivery {
    pub peer: Peer,
    pub buffer: Vec<u8>,
    pub parts: Vec<(Item, usize, usize)>,
}

/// Gets all of `wants` into `sink`, sending groups of ended jobs to `groups`.
pub(super) async fn run<S: Sink>(
    shared: &Arc<Shared>,
    wants: Vec<Want>,
    sink: Arc<S>,
    fetch: &Fetch,
    groups: Option<&mpsc::Sender<Group>>,
) -> Transferred {
    let transfer = Arc::new(Transfer {
        keyring: shared.keyring(),
        board: Board::new(
            wants
                .iter()
                .map(|want| (want.named.blob, want.named.sealed_len, want.local)),
        ),
        shared: Arc::clone(shared),
        wanted: wants.into_iter().map(|want| want.named).collect(),
        sink,
        progress: Arc::clone(&fetch.progress),
        buffers: Mutex::default(),
        disguised: Mutex::default(),
        taken: Notify::new(),
        fetched_blobs: AtomicU64::new(0),
        fetched_bytes: AtomicU64::new(0),
        local_bytes: AtomicU64::new(0),
    });
    let _stop = AbortOnDrop(Arc::clone(&transfer));
    let (deliver, deliveries) = mpsc::channel(DELIVERIES);
    let deliveries = Arc::new(Mutex::new(deliveries));
    let threads = if transfer.wanted.is_empty() {
        0
    } else {
        workers()
    };
    let working: Vec<_> = (0..threads)
        .map(|_| {
            let (transfer, deliveries) = (Arc::clone(&transfer), Arc::clone(&deliveries));
            tokio::task::spawn_blocking(move || {
                let _guard = AbortOnPanic(&transfer.board);
                transfer.work(&deliveries);
            })
        })
        .collect();
    transfer.conduct(fetch, deliver, groups).await;
    for worker in working {
        propagate(worker.await);
    }
    let lost = transfer.board.lost();
    let last = {
        let (transfer, lost) = (Arc::clone(&transfer), lost.clone());
        propagate(tokio::task::spawn_blocking(move || transfer.sink.flush(Some(&lost))).await)
    };
    if let (Some(groups), Some(last)) = (groups, last) {
        send(groups, last).await;
    }
    Transferred {
        fetched_blobs: transfer.fetched_blobs.load(Ordering::Relaxed),
        fetched_bytes: transfer.fetched_bytes.load(Ordering::Relaxed),
        local_bytes: transfer.local_bytes.load(Ordering::Relaxed),
        misbehaved: transfer.board.misbehaved(),
    }
}

/// Nobody is to work on when the future of a transfer is dropped.
struct AbortOnDrop<S>(Arc<Transfer<S>>);

impl<S> Drop for AbortOnDrop<S> {
    fn drop(&mut self) {
        self.0.board.abort();
    }
}

/// A worker that panics leaves its items with nobody: the others must not wait for them.
struct AbortOnPanic<'a>(&'a Board);

impl Drop for AbortOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.abort();
        }
    }
}

/// Waits for the flush under way, forever if there is none.
async fn wait<T>(
    flush: &mut Option<tokio::task::JoinHandle<T>>,
) -> Result<T, tokio::task::JoinError> {
    match flush {
        Some(flush) => flush.await,
        None => std::future::pending().await,
    }
}

/// A panic in a thread goes on here. A cancelled thread means that the runtime stops, and this future with it.
fn propagate<T>(result: Result<T, tokio::task::JoinError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => None,
        },
    }
}

/// Hands a group over. A receiver that has gone wants none, which is its right: the files are there.
async fn send(groups: &mpsc::Sender<Group>, group: Group) {
    if !group.is_empty() {
        let _ = groups.send(group).await;
    }
}

impl<S: Sink> Transfer<S> {
    /// Opens sessions as devices come, and flushes as there is something, until everything is ended or lost.
    async fn conduct(
        self: &Arc<Self>,
        fetch: &Fetch,
        deliver: mpsc::Sender<Delivery>,
        groups: Option<&mpsc::Sender<Group>>,
    ) {
        let (board, gate) = (&self.board, &self.shared.gate);
        let (sources, priority) = (&*fetch.sources, fetch.priority);
        let mut limits = gate.subscribe();
        let mut sessions = FuturesUnordered::new();
        let mut candidates_changed = sources.changed();
        let mut flush = None;
        loop {
            let changed = board.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if board.needs_devices() && !limits.borrow_and_update().paused {
                for device in sources.candidates() {
                    if let Some((peer, attempt)) = board.join(device, ATTEMPTS) {
                        let deliver = deliver.clone();
                        sessions.push(async move {
                            tokio::time::sleep(RETRY_PAUSE * (attempt - 1)).await;
                            let session = self.session(sources, peer, device, deliver, priority);
                            tokio::select! {
                                ended = session => if let Err(error) = ended {
                                    tracing::debug!(%device, %error, "asking a device for blobs ended early");
                                },
                                () = gate.paused() => {}
                            }
                            board.leave(peer);
                        });
                    }
                }
            }
            if sessions.is_empty() {
                board.settle();
            }
            if board.finished() {
                let end = async { while sessions.next().await.is_some() {} };
                let _ = tokio::time::timeout(END_WITHIN, end).await;
                break;
            }
            if flush.is_none() && self.sink.ready() {
                let transfer = Arc::clone(self);
                flush = Some(tokio::task::spawn_blocking(move || {
                    transfer.sink.flush(None)
                }));
            }
            tokio::select! {
                () = &mut candidates_changed => candidates_changed = sources.changed(),
                Some(()) = sessions.next(), if !sessions.is_empty() => {}
                // The sender lives as long as this does.
                _ = limits.changed() => {}
                () = changed => {}
                () = self.taken.notified(), if flush.is_none() => {}
                group = wait(&mut flush) => {
                    flush = None;
                    if let (Some(groups), Some(group)) = (groups, propagate(group)) {
                        send(groups, group).await;
                    }
                }
            }
        }
        if let Some(group) = flush
            && let (Some(groups), Some(group)) = (groups, propagate(group.await))
        {
            send(groups, group).await;
        }
    }
}
