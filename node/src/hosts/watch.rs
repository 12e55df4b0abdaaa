//! Looking at a host: whether it withholds, and whether it still has what it confirmed. Pure: `service/hosts/look.rs`
//! says when, and talks.

use std::time::Duration;

use coffer_protocol::identity::{DeviceId, Hash, VaultId};
use coffer_protocol::relay::{Answer, MAX_RANGE, Request};
use rand::{Rng, RngExt};

use crate::vault::Core;

/// Looks in a row that find a connected host lagging before it is said to withhold; they are [`DOUBT_EVERY`] apart. A
/// message of a MiB takes so long on a line of 10 kB/s, and what comes ends the doubt.
pub const MAY_LAG: u32 = 8;
/// Challenges in a row that a connected host may leave unanswered, or refuse, before it is said not to show what it holds;
/// as far apart: a disk that is busy may fail some.
pub const MAY_REFUSE: u32 = 8;
/// Between two looks at a host that is in doubt.
pub const DOUBT_EVERY: Duration = Duration::from_secs(15);

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

/// For how long a host has been lagging without this device getting on. Counts looks and not time, so that a host gains
/// nothing by hanging up between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lagging {
    looks: u32,
    entries: u64,
}

impl Lagging {
    /// One look at a connected host: whether it lags, and how many entries are here. Says whether it withholds.
    pub fn look(&mut self, lags: bool, entries: u64) -> bool {
        if !lags || self.entries != entries {
            *self = Lagging {
                looks: u32::from(lags),
                entries,
            };
            return false;
        }
        self.looks += 1;
        // The first was the beginning of the time.
        let withholds = self.looks > MAY_LAG;
        if withholds {
            self.looks = 1;
        }
        withholds
    }

    /// Whether the last look found it lagging.
    pub fn is_lagging(&self) -> bool {
        self.looks > 0
    }

    /// The same for what a core knows now.
    pub fn look_at(&mut self, core: &Core, host: DeviceId) -> bool {
        let entries = core.state().clock.iter().map(|(_, seq, _)| seq).sum();
        self.look(lags(core, host), entries)
    }
}

/// How often in a row a connected host did not answer a challenge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusing(u32);

impl Refusing {
    /// It answered, rightly or not.
    pub fn answered(&mut self) {
        self.0 = 0;
    }

    /// It did not. Says whether that is to be said of it: once it has gone on for long, and now and then while it does.
    pub fn refused(&mut self) -> bool {
        self.0 += 1;
        let is_long = self.0 >= MAY_REFUSE;
        if is_long {
            self.0 = 1;
        }
        is_long
    }

    /// Whether the last challenge was not answered.
    pub fn is_refusing(&self) -> bool {
        self.0 > 0
    }
}

/// Some bytes of a blob that a host is asked for, to see whether it has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    blob: Hash,
    offset: usize,
    expected: Vec<u8>,
}

impl Challenge {
    /// A random range of a blob that is here.
    pub fn draw(blob: Hash, ours: &[u8], rng: &mut impl Rng) -> Challenge {
        let len = ours.len().min(MAX_RANGE);
        let offset = rng.random_range(0..=ours.len() - len);
        Challenge {
            blob,
            offset,
            expected: ours[offset..offset + len].to_vec(),
        }
    }

    /// What the host is asked.
    pub fn request(&self, vault: VaultId) -> Request {
        Request::Range {
            vault,
            id: self.blob,
            // A blob has at most some MiB, and a range at most `MAX_RANGE`, which is at least one.
            offset: u32::try_from(self.offset).unwrap_or(u32::MAX),
            len: u16::try_from(self.expected.len().max(1)).unwrap_or(u16::MAX),
        }
    }

    /// Whether it has them; `None` for an answer that makes no sense.
    pub fn is_met(&self, answer: &Answer) -> Option<bool> {
        match answer {
            Answer::Range(bytes) => {
                Some(bytes.as_ref().is_some_and(|bytes| bytes.0 == self.expected))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_protocol::relay::RangeBytes;
    use proptest::prelude::*;
    use rand::SeedableRng;

    #[test]
    fn a_host_withholds_when_it_lags_for_long_and_nothing_comes() {
        let mut lagging = Lagging::default();
        for _ in 0..MAY_LAG {
            assert!(!lagging.look(true, 7));
        }
        assert!(lagging.look(true, 7));
        // It is said again while it goes on, but not at each look.
        for _ in 1..MAY_LAG {
            assert!(!lagging.look(true, 7));
        }
        assert!(lagging.look(true, 7));
    }

    #[test]
    fn a_host_that_refuses_each_challenge_is_named_and_one_answer_is_enough_not_to_be() {
        let mut refusing = Refusing::default();
        for _ in 1..MAY_REFUSE {
            assert!(!refusing.refused());
        }
        assert!(refusing.refused() && refusing.is_refusing());
        for _ in 0..10 {
            for _ in 2..MAY_REFUSE {
                assert!(!refusing.refused());
            }
            refusing.answered();
            assert!(!refusing.refused());
        }
    }

    #[test]
    fn one_that_catches_up_or_sends_something_does_not() {
        let mut lagging = Lagging::default();
        for look in 0..10 * u64::from(MAY_LAG) {
            assert!(!lagging.look(true, look / 5), "entries come");
            assert!(lagging.is_lagging());
        }
        for look in 0..10 * MAY_LAG {
            assert!(!lagging.look(look % MAY_LAG != 0, 30), "it catches up");
        }
    }

    proptest! {
        #[test]
        fn a_challenge_is_met_by_the_blob_and_by_nothing_else(
            len in 0usize..10_000,
            seed: u64,
            flip in 0usize..4096,
        ) {
            let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
            let mut blob = vec![0; len];
            rng.fill_bytes(&mut blob);
            let challenge = Challenge::draw(Hash([1; 32]), &blob, &mut rng);
            let Request::Range { offset, len, .. } = challenge.request(VaultId([2; 32])) else {
                panic!("another request");
            };
            prop_assert!((1..=MAX_RANGE).contains(&usize::from(len)));
            let from = offset as usize;
            let mut there = blob[from..(from + usize::from(len)).min(blob.len())].to_vec();
            let met = |bytes| challenge.is_met(&Answer::Range(bytes));
            prop_assert_eq!(met(Some(RangeBytes(there.clone()))), Some(true));
            prop_assert_eq!(met(None), Some(false));
            prop_assert_eq!(challenge.is_met(&Answer::Released), None);
            if let Some(at) = flip.checked_rem(there.len()) {
                there[at] ^= 1;
                prop_assert_eq!(met(Some(RangeBytes(there))), Some(false));
            }
        }
    }
}
