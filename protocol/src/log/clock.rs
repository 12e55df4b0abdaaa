//! Clocks: how far one has got in every writer's log.

use std::collections::BTreeMap;

use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::identity::{Hash, WriterId};

/// Writers that a clock may name: devices and their incarnations, of a whole vault's life.
pub const CLOCK_MAX_WRITERS: usize = 1024;

/// Bytes of the largest encoded clock.
pub const CLOCK_MAX_LEN: usize = 8 + CLOCK_MAX_WRITERS * (32 + 5 + 10 + 32);

/// For every writer the last entry that one has, by number and by the hash of its header: a version
/// vector that also tells forks apart. Having entry n means having all before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Clock(BTreeMap<WriterId, (u64, Hash)>);

/// A run of entries of one writer, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// Whose entries.
    pub writer: WriterId,
    /// The first; at least 1.
    pub from: u64,
    /// The last; at least `from`.
    pub to: u64,
}

/// How two clocks stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Both have got equally far.
    Equal,
    /// This one has entries that the other lacks, and lacks none.
    Ahead,
    /// This one lacks entries that the other has, and has none that it lacks.
    Behind,
    /// Each has entries that the other lacks.
    Concurrent,
    /// A writer has two entries of one number: its log has forked.
    Forked(WriterId),
}

impl Clock {
    /// A clock that has nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The last entry that is had of `writer`.
    pub fn get(&self, writer: &WriterId) -> Option<(u64, Hash)> {
        self.0.get(writer).copied()
    }

    /// The number of the last entry that is had of `writer`; 0 for none.
    pub fn seq(&self, writer: &WriterId) -> u64 {
        self.0.get(writer).map_or(0, |(seq, _)| *seq)
    }

    /// Whether entry `seq` of `writer` is had.
    pub fn covers(&self, writer: &WriterId, seq: u64) -> bool {
        self.seq(writer) >= seq
    }

    /// Whether everything that `other` has is had, by number.
    pub fn covers_clock(&self, other: &Clock) -> bool {
        other
            .iter()
            .all(|(writer, seq, _)| self.covers(writer, seq))
    }

    /// Notes that entry `seq` (at least 1) with this header hash is had; never goes backwards.
    pub fn observe(&mut self, writer: WriterId, seq: u64, header: Hash) {
        debug_assert!(seq > 0, "entries are counted from 1");
        let last = self.0.entry(writer).or_insert((seq, header));
        if last.0 < seq {
            *last = (seq, header);
        }
    }

    /// Takes over whatever `other` has more of.
    pub fn merge(&mut self, other: &Clock) {
        for (writer, seq, header) in other.iter() {
            self.observe(*writer, seq, header);
        }
    }

    /// What this clock has and `other` lacks, in the order of writers.
    pub fn ahead_of(&self, other: &Clock) -> Vec<Range> {
        self.iter()
            .filter_map(|(writer, to, _)| {
                let from = other.seq(writer) + 1;
                (from <= to).then_some(Range {
                    writer: *writer,
                    from,
                    to,
                })
            })
            .collect()
    }

    /// What this clock lacks and `other` has, in the order of writers.
    pub fn lacking(&self, other: &Clock) -> Vec<Range> {
        other.ahead_of(self)
    }

    /// How this clock stands to `other`. A fork shows here only when both have got exactly as far
    /// in the forked log; further on, the chain of header hashes shows it.
    pub fn relation(&self, other: &Clock) -> Relation {
        let mut ahead = false;
        for (writer, seq, header) in self.iter() {
            match other.get(writer) {
                Some((theirs, hash)) if theirs == seq && hash != header => {
                    return Relation::Forked(*writer);
                }
                Some((theirs, _)) if theirs >= seq => {}
                _ => ahead = true,
            }
        }
        let behind = !self.covers_clock(other);
        match (ahead, behind) {
            (false, false) => Relation::Equal,
            (true, false) => Relation::Ahead,
            (false, true) => Relation::Behind,
            (true, true) => Relation::Concurrent,
        }
    }

    /// Every writer with its last entry, in the order of writers.
    pub fn iter(&self) -> impl Iterator<Item = (&WriterId, u64, Hash)> {
        self.0
            .iter()
            .map(|(writer, (seq, header))| (writer, *seq, *header))
    }

    /// How many writers are known.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is had of anyone.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(WriterId, (u64, Hash))> for Clock {
    fn from_iter<I: IntoIterator<Item = (WriterId, (u64, Hash))>>(entries: I) -> Self {
        let mut clock = Clock::new();
        for (writer, (seq, header)) in entries {
            clock.observe(writer, seq, header);
        }
        clock
    }
}

impl<'de> Deserialize<'de> for Clock {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ClockVisitor;
        impl<'de> Visitor<'de> for ClockVisitor {
            type Value = Clock;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "at most {CLOCK_MAX_WRITERS} writers, each from entry 1")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Clock, A::Error> {
                let mut clock = BTreeMap::new();
                while let Some((writer, (seq, header))) = map.next_entry::<_, (u64, Hash)>()? {
                    if clock.len() == CLOCK_MAX_WRITERS || seq == 0 {
                        return Err(A::Error::custom(&self as &dyn serde::de::Expected));
                    }
                    clock.insert(writer, (seq, header));
                }
                Ok(Clock(clock))
            }
        }
        deserializer.deserialize_map(ClockVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use crate::identity::DeviceId;
    use proptest::prelude::*;

    fn writer(n: u8) -> WriterId {
        WriterId {
            device: DeviceId([n; 32]),
            incarnation: u32::from(n),
        }
    }

    /// An entry's header hash in a history without forks.
    fn header(writer: u8, seq: u64) -> Hash {
        Hash::of("test", &[&[writer], &seq.to_le_bytes()])
    }

    fn clock(seqs: &[(u8, u64)]) -> Clock {
        seqs.iter()
            .filter(|(_, seq)| *seq > 0)
            .map(|(n, seq)| (writer(*n), (*seq, header(*n, *seq))))
            .collect()
    }

    fn clocks() -> impl Strategy<Value = Clock> {
        prop::collection::vec((0u8..5, 0u64..6), 0..6).prop_map(|seqs| clock(&seqs))
    }

    #[test]
    fn what_another_lacks_is_ranges() {
        let (a, b) = (clock(&[(1, 5), (2, 3)]), clock(&[(1, 2), (2, 3), (3, 1)]));
        let range = |n, from, to| Range {
            writer: writer(n),
            from,
            to,
        };
        assert_eq!(a.ahead_of(&b), [range(1, 3, 5)]);
        assert_eq!(a.lacking(&b), [range(3, 1, 1)]);
        assert_eq!(a.relation(&b), Relation::Concurrent);
    }

    #[test]
    fn two_entries_of_one_number_are_a_fork() {
        let mut a = clock(&[(1, 4)]);
        let mut b = Clock::new();
        b.observe(writer(1), 4, Hash([9; 32]));
        assert_eq!(a.relation(&b), Relation::Forked(writer(1)));
        b.observe(writer(1), 3, Hash::ZERO);
        assert_eq!(b.get(&writer(1)), Some((4, Hash([9; 32]))));
        a.merge(&b);
        assert_eq!(a.get(&writer(1)), Some((4, header(1, 4))));
    }

    #[test]
    fn a_clock_without_order_or_with_entry_0_is_refused() {
        let entry = |n: u8, seq: u64| codec::encode(&(writer(n), (seq, Hash::ZERO)));
        let encoded = |entries: &[Vec<u8>]| {
            let count = u8::try_from(entries.len()).unwrap();
            [vec![count], entries.concat()].concat()
        };
        let read = |bytes: &[u8]| codec::decode::<Clock>(bytes, CLOCK_MAX_LEN);
        assert!(read(&encoded(&[entry(1, 1), entry(2, 1)])).is_ok());
        assert!(read(&encoded(&[entry(2, 1), entry(1, 1)])).is_err());
        assert!(read(&encoded(&[entry(1, 1), entry(1, 1)])).is_err());
        assert!(read(&encoded(&[entry(1, 0)])).is_err());
    }

    #[test]
    fn the_largest_clock_has_its_length_and_one_writer_more_is_refused() {
        let fill = |count: usize| -> Clock {
            let writers = (0..count).map(|n| WriterId {
                device: DeviceId(*Hash::of("test", &[&n.to_le_bytes()]).as_bytes()),
                incarnation: u32::MAX,
            });
            writers
                .map(|writer| (writer, (u64::MAX, Hash::ZERO)))
                .collect()
        };
        let largest = codec::encode(&fill(CLOCK_MAX_WRITERS));
        assert!(largest.len() <= CLOCK_MAX_LEN);
        assert!(codec::decode::<Clock>(&largest, CLOCK_MAX_LEN).is_ok());
        let over = codec::encode(&fill(CLOCK_MAX_WRITERS + 1));
        assert!(codec::decode::<Clock>(&over, 2 * CLOCK_MAX_LEN).is_err());
    }

    proptest! {
        #[test]
        fn merging_is_commutative_associative_and_idempotent(a in clocks(), b in clocks(), c in clocks()) {
            let merged = |x: &Clock, y: &Clock| { let mut m = x.clone(); m.merge(y); m };
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
            prop_assert_eq!(merged(&a, &a), a.clone());
            prop_assert!(merged(&a, &b).covers_clock(&a));
        }

        #[test]
        fn relation_says_the_same_as_the_ranges(a in clocks(), b in clocks()) {
            let expected = match (a.ahead_of(&b).is_empty(), a.lacking(&b).is_empty()) {
                (true, true) => Relation::Equal,
                (false, true) => Relation::Ahead,
                (true, false) => Relation::Behind,
                (false, false) => Relation::Concurrent,
            };
            prop_assert_eq!(a.relation(&b), expected);
        }

        #[test]
        fn taking_what_is_lacking_catches_up(a in clocks(), b in clocks()) {
            let mut caught_up = a.clone();
            for range in a.lacking(&b) {
                for seq in range.from..=range.to {
                    caught_up.observe(range.writer, seq, header(range.writer.device.0[0], seq));
                }
            }
            prop_assert!(caught_up.lacking(&b).is_empty());
            let mut merged = a;
            merged.merge(&b);
            prop_assert_eq!(caught_up, merged);
        }

        #[test]
        fn arbitrary_bytes_are_refused_or_canonical(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(clock) = codec::decode::<Clock>(&bytes, CLOCK_MAX_LEN) {
                prop_assert_eq!(codec::encode(&clock), bytes);
            }
        }
    }
}
