//! What is in use: blobs that somebody is about to name, which the collector must leave alone.
//!
//! Whoever writes (an import, a transfer) takes a [`Hold`], *pins* each blob that it relies on or adds before it looks
//! where that is, and keeps the hold until the commit that names them. The collector *claims* the blobs that it is about
//! to free: of what is pinned it gets nothing, and whoever wants to pin what is claimed waits, for moments, until it is
//! gone. While a collector works, pins outlive their holds: what was named after it looked is not yet known to it.
//!
//! A writer may look at rows as of a time before a blob was freed. [`Hold::pin`] tells it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use coffer_protocol::identity::Hash;

use super::content::Named;
use super::lock;

/// How often an async writer looks whether a claim has ended: claims last some ten milliseconds.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

#[derive(Debug, Default)]
pub(super) struct Pins {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// How many holds pin a blob or a file of the store.
    counts: HashMap<[u8; 32], u32>,
    /// Holds by number: the next one's is higher.
    next: u64,
    open: BTreeMap<u64, ()>,
    /// What is being freed.
    claimed: HashSet<[u8; 32]>,
    /// What was freed while holds were open, with the number that the next hold had then.
    gone: HashMap<[u8; 32], u64>,
    /// While a collector works: what was pinned by holds that ended since it began.
    lasting: Option<HashSet<[u8; 32]>>,
}

impl State {
    fn is_pinned(&self, blob: &[u8; 32]) -> bool {
        self.counts.contains_key(blob)
            || self
                .lasting
                .as_ref()
                .is_some_and(|lasting| lasting.contains(blob))
    }

    fn end(&mut self, number: u64, pinned: Vec<[u8; 32]>) {
        for blob in pinned {
            if let Some(count) = self.counts.get_mut(&blob) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&blob);
                }
            }
            if let Some(lasting) = &mut self.lasting {
                lasting.insert(blob);
            }
        }
        self.open.remove(&number);
        let oldest = self.open.keys().next().copied().unwrap_or(self.next);
        self.gone.retain(|_, freed_before| *freed_before > oldest);
    }
}

impl Pins {
    /// Begins to hold.
    pub fn hold(self: &Arc<Self>) -> Hold {
        let mut state = lock(&self.state);
        let number = state.next;
        state.next += 1;
        state.open.insert(number, ());
        Hold(Arc::new(Held {
            pins: Arc::clone(self),
            number,
            mine: Mutex::default(),
        }))
    }

    /// From now on pins outlive their holds, until the guard is dropped. There is one collector at a time.
    pub fn collecting(self: &Arc<Self>) -> Collecting {
        lock(&self.state).lasting.get_or_insert_default();
        Collecting(Arc::clone(self))
    }

    /// Whether somebody is about to name this blob, or to use this file of the store.
    pub fn is_pinned(&self, blob: &[u8; 32]) -> bool {
        lock(&self.state).is_pinned(blob)
    }

    /// Claims those of `blobs` that nobody pins; the others are taken from the list.
    pub fn claim<T>(self: &Arc<Self>, blobs: &mut Vec<T>, name: impl Fn(&T) -> [u8; 32]) -> Claim {
        let mut state = lock(&self.state);
        blobs.retain(|blob| !state.is_pinned(&name(blob)));
        state.claimed.extend(blobs.iter().map(name));
        Claim(Arc::clone(self))
    }
}

/// Pins outlive their holds as long as this is there.
pub(crate) struct Collecting(Arc<Pins>);

impl Drop for Collecting {
    fn drop(&mut self) {
        lock(&self.0.state).lasting = None;
    }
}

/// Blobs that are being freed. Those that were not [freed](Claim::freed) when it is dropped are as they were.
pub(crate) struct Claim(Arc<Pins>);

impl Claim {
    /// These have no places any more.
    pub fn freed(&self, blobs: &[Hash]) {
        let mut state = lock(&self.0.state);
        let next = state.next;
        if !state.open.is_empty() {
            state.gone.extend(blobs.iter().map(|blob| (blob.0, next)));
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.0.state).claimed.clear();
        self.0.released.notify_all();
    }
}

/// Keeps what a writer pins from being freed, until the last clone is dropped. Goes with the commit that names it.
#[derive(Clone, Debug)]
pub struct Hold(Arc<Held>);

#[derive(Debug)]
struct Held {
    pins: Arc<Pins>,
    number: u64,
    mine: Mutex<Vec<[u8; 32]>>,
}

impl Default for Hold {
    /// One that nobody collects against: of what is in no store.
    fn default() -> Hold {
        Arc::<Pins>::default().hold()
    }
}

impl Hold {
    /// Pins a blob. False if it was freed since this hold began: rows read earlier are wrong about it. Blocks for
    /// moments while it is being freed.
    pub(super) fn pin(&self, blob: &Hash) -> bool {
        let held = &self.0;
        let mut state = lock(&held.pins.state);
        while state.claimed.contains(&blob.0) {
            state = held
                .pins
                .released
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.add(&mut state, blob)
    }

    /// Pins the blobs of several chunks, without blocking.
    pub(super) async fn pin_all(&self, chunks: &[Named]) {
        let mut rest = chunks;
        loop {
            {
                let mut state = lock(&self.0.pins.state);
                while let Some((chunk, later)) = rest.split_first()
                    && !state.claimed.contains(&chunk.blob.0)
                {
                    self.add(&mut state, &chunk.blob);
                    rest = later;
                }
            }
            if rest.is_empty() {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn add(&self, state: &mut State, blob: &Hash) -> bool {
        *state.counts.entry(blob.0).or_default() += 1;
        lock(&self.0.mine).push(blob.0);
        state
            .gone
            .get(&blob.0)
            .is_none_or(|freed_before| *freed_before <= self.0.number)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mine = std::mem::take(&mut *lock(&self.mine));
        lock(&self.pins.state).end(self.number, mine);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(n: u8) -> Hash {
        Hash([n; 32])
    }

    fn claim(pins: &Arc<Pins>, blobs: &[u8]) -> (Vec<Hash>, Claim) {
        let mut blobs: Vec<Hash> = blobs.iter().copied().map(blob).collect();
        let claim = pins.claim(&mut blobs, |blob| blob.0);
        (blobs, claim)
    }

    #[test]
    fn what_a_writer_pins_is_not_claimed_until_its_last_hold_ends() {
        let pins = Arc::<Pins>::default();
        let (first, second) = (pins.hold(), pins.hold());
        assert!(first.pin(&blob(1)) && second.pin(&blob(1)));
        let clone = second.clone();
        drop((first, second));
        assert_eq!(claim(&pins, &[1, 2]).0, [blob(2)]);
        drop(clone);
        assert_eq!(claim(&pins, &[1, 2]).0, [blob(1), blob(2)]);
    }

    #[test]
    fn while_a_collector_works_pins_outlive_their_holds() {
        let pins = Arc::<Pins>::default();
        let hold = pins.hold();
        hold.pin(&blob(1));
        let collecting = pins.collecting();
        drop(hold);
        assert!(claim(&pins, &[1]).0.is_empty());
        drop(collecting);
        assert_eq!(claim(&pins, &[1]).0, [blob(1)]);
    }

    #[test]
    fn who_looked_at_rows_before_a_blob_was_freed_is_told_so() {
        let pins = Arc::<Pins>::default();
        let before = pins.hold();
        let (freed, claim) = claim(&pins, &[1]);
        claim.freed(&freed);
        drop(claim);
        let after = pins.hold();
        assert!(!before.pin(&blob(1)), "its rows are old");
        assert!(after.pin(&blob(1)) && before.pin(&blob(2)));
        drop((before, after));
        assert!(lock(&pins.state).gone.is_empty(), "nobody is left to tell");
    }

    #[test]
    fn a_pin_waits_until_what_is_being_freed_is_gone() {
        let pins = Arc::<Pins>::default();
        let hold = pins.hold();
        let (freed, claim) = claim(&pins, &[1]);
        let waiting = std::thread::spawn(move || hold.pin(&blob(1)));
        claim.freed(&freed);
        drop(claim);
        assert!(!waiting.join().unwrap());
    }
}
