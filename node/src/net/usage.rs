//! How much a connection is used, and the gate through which it is closed; and how much a host is used.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// How much a connection is used, and the gate that closes it only when it is not used at all.
pub(super) struct Usage {
    /// Streams open or being opened; [`SHUT`] once the gate is shut.
    gate: AtomicUsize,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    born: Instant,
    /// Milliseconds from `born` to the last opening or ending of a stream.
    last_used_ms: AtomicU64,
    /// Whether the swarm waits for the last stream to end.
    tell: AtomicBool,
    idle: Arc<Notify>,
}

const SHUT: usize = 1 << (usize::BITS - 1);

impl Usage {
    pub fn new(idle: Arc<Notify>) -> Self {
        Self {
            gate: AtomicUsize::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            born: Instant::now(),
            last_used_ms: AtomicU64::new(0),
            tell: AtomicBool::new(false),
            idle,
        }
    }

    /// Counts a stream in; `None` if the connection is being closed.
    pub fn enter(self: &Arc<Self>) -> Option<InUse> {
        self.touch();
        self.gate
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |open| {
                (open & SHUT == 0).then_some(open + 1)
            })
            .ok()
            .map(|_| InUse(self.clone()))
    }

    /// Shuts the gate if no stream is open; the connection must then be closed.
    pub fn shut_if_idle(&self) -> bool {
        self.gate
            .compare_exchange(0, SHUT, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Shuts the gate whatever is open; the connection must then be closed.
    pub fn shut(&self) {
        self.gate.fetch_or(SHUT, Ordering::SeqCst);
    }

    pub fn is_shut(&self) -> bool {
        self.gate.load(Ordering::SeqCst) & SHUT != 0
    }

    /// Streams open now.
    pub fn open(&self) -> usize {
        self.gate.load(Ordering::SeqCst) & !SHUT
    }

    /// Since when no stream was open; `None` while one is, and then the swarm is woken when the last one ends.
    pub fn idle_since(&self) -> Option<Instant> {
        self.tell.store(true, Ordering::SeqCst);
        (self.open() == 0)
            .then(|| self.born + Duration::from_millis(self.last_used_ms.load(Ordering::Acquire)))
    }

    pub fn add_in(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn add_out(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Ordering::Relaxed)
    }

    fn touch(&self) {
        let at = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_used_ms.store(at, Ordering::Release);
    }
}

/// A stream's part in the use of its connection; ends with it.
pub(super) struct InUse(pub Arc<Usage>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.touch();
        let before = self.0.gate.fetch_sub(1, Ordering::SeqCst);
        if before & !SHUT == 1 && self.0.tell.swap(false, Ordering::SeqCst) {
            self.0.idle.notify_one();
        }
    }
}

/// What a host does for its clients besides reservations, since the start.
#[derive(Default)]
pub(super) struct Load {
    began: AtomicU64,
    ended: AtomicU64,
    refused: AtomicU64,
}

impl Load {
    pub fn circuit_began(&self) {
        self.began.fetch_add(1, Ordering::Relaxed);
    }

    pub fn circuit_ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    pub fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Circuits now, circuits in all, and requests refused.
    pub fn counts(&self) -> (u64, u64, u64) {
        let ended = self.ended.load(Ordering::Relaxed);
        let began = self.began.load(Ordering::Relaxed);
        let refused = self.refused.load(Ordering::Relaxed);
        (began.saturating_sub(ended), began, refused)
    }
}
