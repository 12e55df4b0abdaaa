//! What transfers may take of the network: limits up and down, a pause, and who goes first.
//!
//! All transfers of a vault share one gate. It holds nothing up while nothing is set: then each request and each buffer
//! looks at it once, that is once in about a megabyte.
//!
//! A limit is kept as a debt: whoever finds no debt may go, and what it took has to be paid by time before the next may.
//! So a blob that is longer than a second's worth still goes, and the mean is kept. The crates that were looked at
//! (governor, leaky-bucket) have a rate that cannot change while somebody waits, and refuse or split what exceeds it.
//!
//! Who goes first is decided for each device that is asked: while an answer to something more pressing is on its way
//! from it, nothing less pressing is asked of it.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coffer_protocol::identity::DeviceId;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::lock;

/// What was not used of a limit may be used this much later: timers are late, and the mean should be reached.
const SLACK: Duration = Duration::from_millis(250);

/// The longest debt: no blob at no rate that can be set comes near it.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Parts of a second that are sent in one piece under a limit: small enough that the other side sees bytes flow.
const SLICES: u64 = 8;

/// Least bytes of such a piece: a network packet's worth.
const MIN_SLICE: u64 = 1024;

/// What transfers may take; all that is absent is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of sealed contents that may be sent a second.
    pub up: Option<NonZeroU64>,
    /// Bytes of sealed contents that may be fetched a second.
    pub down: Option<NonZeroU64>,
    /// Nothing is sent or fetched.
    pub paused: bool,
}

/// For whom something is fetched, most pressing first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A person waits for it.
    Person,
    /// A synced folder is to show it.
    #[default]
    Folder,
    /// This device is to hold it.
    Background,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
}

/// Until when what was taken is paid for.
#[derive(Debug, Default)]
struct Debt(Option<Instant>);

impl Debt {
    /// How long until something more may be taken.
    fn left(&self, now: Instant) -> Duration {
        self.0
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    fn take(&mut self, now: Instant, bytes: u64, rate: NonZeroU64) {
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        let from = self.0.map_or(now, |until| until.max(earliest));
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.get());
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.0 = from.checked_add(cost.min(LONGEST));
    }
}

/// See above.
#[derive(Default)]
pub(super) struct Gate {
    limits: watch::Sender<Limits>,
    up: Mutex<Debt>,
    down: Mutex<Debt>,
    /// Requests under way to each device, by priority.
    busy: Mutex<BTreeMap<DeviceId, [usize; 3]>>,
    freed: Notify,
}

impl Gate {
    /// From now on these count, for transfers under way as well. Old debts are forgiven.
    pub fn set(&self, limits: Limits) {
        *lock(&self.up) = Debt::default();
        *lock(&self.down) = Debt::default();
        self.limits.send_if_modified(|present| {
            let changed = *present != limits;
            *present = limits;
            changed
        });
    }

    /// Tells when the limits change.
    pub fn subscribe(&self) -> watch::Receiver<Limits> {
        self.limits.subscribe()
    }

    /// Whether transfers are paused.
    pub fn is_paused(&self) -> bool {
        self.limits.borrow().paused
    }

    /// Resolves when transfers are not paused; at once if they are not.
    pub async fn goes_on(&self) {
        // The sender lives as long as this does.
        let _ = self
            .limits
            .subscribe()
            .wait_for(|limits| !limits.paused)
            .await;
    }

    /// Resolves when transfers are paused; at once if they are.
    pub async fn paused(&self) {
        // The sender lives as long as this does.
        let _ = self
            .limits
            .subscribe()
            .wait_for(|limits| limits.paused)
            .await;
    }

    /// Waits until something may go `way`; gives the rate to be kept, and nothing where there is none.
    pub async fn ready(&self, way: Way) -> Option<NonZeroU64> {
        let mut changes = self.limits.subscribe();
        loop {
            let limits = *changes.borrow_and_update();
            let rate = match way {
                Way::Up => limits.up,
                Way::Down => limits.down,
            };
            let wait = match (limits.paused, rate) {
                (true, _) => Duration::MAX,
                (false, None) => return None,
                (false, Some(_)) => lock(self.debt(way)).left(Instant::now()),
            };
            if wait.is_zero() {
                return rate;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // The sender lives as long as this does.
                _ = changes.changed() => {}
            }
        }
    }

    /// Counts bytes that go `way` now, against the `rate` that [`ready`](Self::ready) gave.
    pub fn take(&self, way: Way, bytes: u64, rate: NonZeroU64) {
        lock(self.debt(way)).take(Instant::now(), bytes, rate);
    }

    /// Waits until some of `bytes` may go up, and counts them: gives how many, and whether there is a limit.
    pub async fn up(&self, bytes: usize) -> (usize, bool) {
        let Some(rate) = self.ready(Way::Up).await else {
            return (bytes, false);
        };
        let slice = bytes.min((rate.get() / SLICES).max(MIN_SLICE) as usize);
        self.take(Way::Up, slice as u64, rate);
        (slice, true)
    }

    fn debt(&self, way: Way) -> &Mutex<Debt> {
        match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        }
    }

    /// Waits while something more pressing is under way to `device`.
    pub async fn turn(&self, device: DeviceId, priority: Priority) {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Registered before looking, so that no change is missed.
            freed.as_mut().enable();
            let held_up = lock(&self.busy)
                .get(&device)
                .is_some_and(|busy| busy[..priority as usize].iter().any(|count| *count > 0));
            if !held_up {
                return;
            }
            freed.await;
        }
    }

    /// Counts a request to `device` as under way, until what it gives is dropped.
    pub fn enter(self: &Arc<Self>, device: DeviceId, priority: Priority) -> Busy {
        lock(&self.busy).entry(device).or_default()[priority as usize] += 1;
        Busy {
            gate: Arc::clone(self),
            device,
            priority,
        }
    }
}

/// A request that is under way.
pub(super) struct Busy {
    gate: Arc<Gate>,
    device: DeviceId,
    priority: Priority,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut busy = lock(&self.gate.busy);
        if let Some(counts) = busy.get_mut(&self.device) {
            counts[self.priority as usize] -= 1;
            if counts.iter().all(|count| *count == 0) {
                busy.remove(&self.device);
            }
        }
        drop(busy);
        self.gate.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const RATE: NonZeroU64 = NonZeroU64::new(1000).unwrap();

    #[test]
    fn a_debt_is_paid_by_time_and_little_can_be_saved() {
        let start = Instant::now() + Duration::from_secs(100);
        let at = |ms| start + Duration::from_millis(ms);
        let mut debt = Debt::default();
        assert_eq!(debt.left(at(0)), Duration::ZERO);
        debt.take(at(0), 5000, RATE);
        assert_eq!(debt.left(at(0)), Duration::from_secs(5));
        assert_eq!(debt.left(at(5000)), Duration::ZERO);
        // What was idle for a minute may be 250 ms ahead, and no more.
        debt.take(at(65_000), 1000, RATE);
        assert_eq!(debt.left(at(65_000)), Duration::from_millis(750));
        debt.take(at(65_000), u64::MAX, NonZeroU64::MIN);
        assert!(debt.left(at(65_000)) > Duration::from_millis(700));
    }

    #[tokio::test]
    async fn without_a_limit_nothing_waits_and_a_limit_that_is_lifted_lets_go() {
        let gate = Arc::new(Gate::default());
        assert_eq!(gate.up(1 << 20).await, (1 << 20, false));
        gate.set(Limits {
            up: Some(RATE),
            ..Limits::default()
        });
        assert_eq!(gate.up(1 << 20).await, (1024, true));
        let waiting = gate.up(1 << 20);
        tokio::pin!(waiting);
        assert!(
            waiting.as_mut().now_or_never().is_none(),
            "a second's worth is owed"
        );
        gate.set(Limits::default());
        assert_eq!(waiting.await, (1 << 20, false));
    }

    #[tokio::test]
    async fn a_pause_holds_both_ways_and_is_seen() {
        let gate = Gate::default();
        assert!(gate.paused().now_or_never().is_none());
        gate.set(Limits {
            paused: true,
            ..Limits::default()
        });
        assert!(gate.paused().now_or_never().is_some());
        assert!(gate.ready(Way::Up).now_or_never().is_none());
        assert!(gate.ready(Way::Down).now_or_never().is_none());
    }

    #[tokio::test]
    async fn the_less_pressing_waits_for_the_more_pressing_at_the_same_device() {
        let gate = Arc::new(Gate::default());
        let (one, other) = (DeviceId([1; 32]), DeviceId([2; 32]));
        let folder = gate.enter(one, Priority::Folder);
        let person = gate.enter(one, Priority::Person);
        assert!(gate.turn(one, Priority::Person).now_or_never().is_some());
        assert!(
            gate.turn(other, Priority::Background)
                .now_or_never()
                .is_some()
        );
        let waiting = gate.turn(one, Priority::Folder);
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(person);
        waiting.await;
        assert!(
            gate.turn(one, Priority::Background)
                .now_or_never()
                .is_none()
        );
        drop(folder);
        gate.turn(one, Priority::Background).await;
    }
}
