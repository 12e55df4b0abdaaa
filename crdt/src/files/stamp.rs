//! When and by whom: stamps of a hybrid logical clock, and dots.
//!
//! A stamp is close to the wall clock and never goes back on one device, so "the later one" is what a person means by
//! it while clocks roughly agree, and still a total order (with the writer) when they do not. A dot names the log
//! entry that a value was written in, so a vector clock can say whether a device had seen that value.

use super::Actor;
use serde::{Deserialize, Serialize};

/// How far ahead of the local wall clock another device's stamps may push the local clock: 10 minutes.
///
/// A device whose clock is wrong by years would otherwise drag every clock that it meets along.
pub const MAX_SKEW_MS: u64 = 10 * 60 * 1000;

/// Bits of a stamp that count events within one millisecond.
const COUNTER_BITS: u32 = 16;

/// The largest number of milliseconds that a stamp holds (the year 10889).
const MAX_MS: u64 = u64::MAX >> COUNTER_BITS;

/// A time of a hybrid logical clock: milliseconds since 1970 (UTC) in the upper 48 bits, a counter in the lower 16.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The first stamp of a millisecond. Times before 1970 count as 1970, those after the year 10889 as that.
    pub fn from_ms(wall_ms: i64) -> Stamp {
        Stamp(u64::try_from(wall_ms).unwrap_or(0).min(MAX_MS) << COUNTER_BITS)
    }

    /// Milliseconds since 1970 (UTC).
    pub fn ms(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// The next stamp; the last one there is stays.
    pub fn next(self) -> Stamp {
        Stamp(self.0.saturating_add(1))
    }
}

/// The log entry in which a value was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// Who wrote it.
    pub writer: Actor,
    /// The number of the writer's log entry, from 1.
    pub seq: u64,
}

/// The hybrid logical clock of one device. It is told the wall clock, never reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hlc {
    last: Stamp,
}

impl Hlc {
    /// A clock that goes on after `last`, the greatest stamp that the device has durably given out or observed.
    pub fn resume(last: Stamp) -> Hlc {
        Hlc { last }
    }

    /// The greatest stamp given out or observed so far.
    pub fn last(&self) -> Stamp {
        self.last
    }

    /// A stamp later than all that this clock gave out or observed, and not before `wall_ms` (milliseconds since 1970).
    pub fn now(&mut self, wall_ms: i64) -> Stamp {
        self.last = self.last.next().max(Stamp::from_ms(wall_ms));
        self.last
    }

    /// A stamp for replacing a value stamped `replaced`: as [`Hlc::now`], and later than `replaced` even where that
    /// lies beyond the skew this clock follows. Without it, a person's edit of a file that a device with a wrong clock
    /// touched would lose against what it replaced.
    pub fn now_after(&mut self, wall_ms: i64, replaced: Stamp) -> Stamp {
        self.observe(replaced, wall_ms);
        self.now(wall_ms).max(replaced.next())
    }

    /// Takes notice of another device's stamp, at most [`MAX_SKEW_MS`] ahead of `wall_ms`.
    pub fn observe(&mut self, stamp: Stamp, wall_ms: i64) {
        let limit = Stamp::from_ms(wall_ms.saturating_add(MAX_SKEW_MS as i64));
        self.last = self.last.max(stamp.min(limit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_grow_while_the_wall_clock_stands_or_goes_back() {
        let mut clock = Hlc::default();
        let first = clock.now(1_000);
        let second = clock.now(1_000);
        let third = clock.now(10);
        assert!(first < second && second < third);
        assert_eq!((first.ms(), third.ms()), (1_000, 1_000));
    }

    #[test]
    fn a_clock_goes_on_after_what_it_observes() {
        let mut clock = Hlc::default();
        clock.observe(Stamp::from_ms(5_000), 1_000);
        assert!(clock.now(1_000) > Stamp::from_ms(5_000));
    }

    #[test]
    fn a_wrong_clock_elsewhere_pushes_no_further_than_the_allowed_skew() {
        let mut clock = Hlc::default();
        clock.observe(Stamp(u64::MAX), 1_000);
        assert_eq!(clock.now(1_000).ms(), 1_000 + MAX_SKEW_MS);
    }

    #[test]
    fn a_replacement_is_later_than_a_value_from_the_future_and_leaves_the_clock_behind() {
        let mut clock = Hlc::default();
        let future = Stamp::from_ms(1 << 45);
        assert!(clock.now_after(1_000, future) > future);
        assert_eq!(clock.last().ms(), 1_000 + MAX_SKEW_MS);
    }

    #[test]
    fn extreme_times_are_held_in_range() {
        assert_eq!(Stamp::from_ms(i64::MIN), Stamp(0));
        assert_eq!(Stamp::from_ms(i64::MAX).ms(), MAX_MS);
        assert_eq!(Stamp(u64::MAX).next(), Stamp(u64::MAX));
        Hlc::default().observe(Stamp(u64::MAX), i64::MAX);
    }
}
