//! What one device, or one address, may do in a time: buckets that fill at a rate.
//!
//! A table of buckets is bounded: strangers can come from any number of addresses, so a full bucket (which says nothing
//! that a new one would not) is dropped first, and when there is none, the one that was used longest ago. Time is an
//! argument.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Buckets of one table: 64 bytes each, so some hundred kilobytes.
const MAX_BUCKETS: usize = 4096;

/// How much at once, and how fast it comes back.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    per_second: f64,
    burst: f64,
}

impl Rate {
    /// So many a second, and two seconds' worth at once.
    pub fn per_second(count: u64) -> Self {
        Self {
            per_second: count as f64,
            burst: 2.0 * count as f64,
        }
    }

    /// So many a minute, all of them at once if need be.
    pub fn per_minute(count: u32) -> Self {
        Self {
            per_second: f64::from(count) / 60.0,
            burst: f64::from(count),
        }
    }
}

/// One bucket.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self {
            left: rate.burst,
            at: now,
        }
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * rate.per_second).min(rate.burst);
        self.at = self.at.max(now);
    }

    /// Takes `amount` if that much is there.
    pub fn take(&mut self, rate: Rate, amount: f64, now: Instant) -> bool {
        self.fill(rate, now);
        let enough = self.left >= amount;
        if enough {
            self.left -= amount;
        }
        enough
    }

    /// Takes `amount` in any case, and says how long to wait before going on: what is owed is worked off at the rate.
    pub fn owe(&mut self, rate: Rate, amount: f64, now: Instant) -> Duration {
        self.fill(rate, now);
        self.left -= amount;
        Duration::try_from_secs_f64((-self.left / rate.per_second).max(0.0))
            .unwrap_or(MAX_WAIT)
            .min(MAX_WAIT)
    }
}

/// Longest wait at a time: a message is paid for within it, at any rate that can be set.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// Buckets by key.
pub struct Rates<K> {
    rate: Rate,
    buckets: HashMap<K, Bucket>,
}

impl<K: Hash + Eq + Copy> Rates<K> {
    /// An empty table.
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            buckets: HashMap::new(),
        }
    }

    /// Whether one more is within the rate of `key`; counts it if so.
    pub fn allows(&mut self, key: K, now: Instant) -> bool {
        if !self.buckets.contains_key(&key) && self.buckets.len() >= MAX_BUCKETS {
            self.make_room(now);
        }
        let rate = self.rate;
        let bucket = self
            .buckets
            .entry(key)
            .or_insert_with(|| Bucket::new(rate, now));
        bucket.take(rate, 1.0, now)
    }

    fn make_room(&mut self, now: Instant) {
        let rate = self.rate;
        self.buckets.retain(|_, bucket| {
            bucket.fill(rate, now.max(bucket.at));
            bucket.left < rate.burst
        });
        if self.buckets.len() >= MAX_BUCKETS {
            // Whoever fills the table with half-used buckets pays with them: the fullest quarter goes.
            let mut levels: Vec<f64> = self.buckets.values().map(|bucket| bucket.left).collect();
            levels.sort_by(f64::total_cmp);
            let from = levels[levels.len() * 3 / 4];
            self.buckets.retain(|_, bucket| bucket.left < from);
        }
        if self.buckets.len() >= MAX_BUCKETS {
            // All are equally used: none says more than another.
            self.buckets.clear();
        }
    }
}

/// What one device asks and sends, over all its streams. One that is over its rates is read later, and its own flow
/// control does the rest.
pub struct Pace {
    requests: (Rate, Mutex<Bucket>),
    bytes: Option<(Rate, Mutex<Bucket>)>,
}

impl Pace {
    /// So many requests a second, and bytes; 0 for no limit of bytes.
    pub fn new(requests: u32, bytes: u64, now: Instant) -> Pace {
        let of = |count| {
            let rate = Rate::per_second(count);
            (rate, Mutex::new(Bucket::new(rate, now)))
        };
        Pace {
            requests: of(u64::from(requests)),
            bytes: (bytes > 0).then(|| of(bytes)),
        }
    }

    /// A request of so many bytes came; returns when the next may.
    pub async fn took(&self, len: usize) {
        let now = Instant::now();
        let owe = |(rate, bucket): &(Rate, Mutex<Bucket>), amount| {
            let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.owe(*rate, amount, now)
        };
        let mut wait = owe(&self.requests, 1.0);
        if let Some(bytes) = &self.bytes {
            wait = wait.max(owe(bytes, len as f64));
        }
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_is_taken_and_comes_back_at_the_rate() {
        let now = Instant::now();
        let mut rates = Rates::new(Rate::per_minute(6));
        let taken = (0..20).filter(|_| rates.allows(1, now)).count();
        assert_eq!(taken, 6);
        assert!(rates.allows(2, now), "another key has its own");
        assert!(!rates.allows(1, now + Duration::from_secs(9)));
        assert!(rates.allows(1, now + Duration::from_secs(10)));
    }

    #[test]
    fn what_is_owed_is_waited_for() {
        let now = Instant::now();
        let rate = Rate::per_second(100);
        let mut bucket = Bucket::new(rate, now);
        assert_eq!(bucket.owe(rate, 200.0, now), Duration::ZERO);
        assert_eq!(bucket.owe(rate, 100.0, now), Duration::from_secs(1));
        assert_eq!(
            bucket.owe(rate, 0.0, now + Duration::from_secs(1)),
            Duration::ZERO
        );
    }

    #[test]
    fn any_number_of_strangers_takes_bounded_room_and_leaves_the_limited_limited() {
        let now = Instant::now();
        let mut rates = Rates::new(Rate::per_minute(4));
        while rates.allows(u64::MAX, now) {}
        for stranger in 0..20_000u64 {
            rates.allows(stranger, now);
            assert!(rates.buckets.len() <= MAX_BUCKETS);
        }
        assert!(!rates.allows(u64::MAX, now));
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate(steps in proptest::collection::vec(0u64..3000, 1..100)) {
            let begun = Instant::now();
            let mut now = begun;
            let mut rates = Rates::new(Rate::per_minute(30));
            let mut taken = 0u32;
            for step in steps {
                now += Duration::from_millis(step);
                taken += u32::from(rates.allows(0, now));
            }
            let most = 30.0 + (now - begun).as_secs_f64() / 2.0;
            prop_assert!(f64::from(taken) <= most + 0.001);
        }
    }
}
