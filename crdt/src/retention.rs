//! Which of the contents that a file had are kept, and until when; what of the trash is overdue.
//!
//! Pure functions of what there is, the time and the [`Rule`], so that every device comes to the same answer. A content
//! counts from the moment that another one *replaced* it, not from when it was written: what stood there for two years
//! and is overwritten by mistake must not be gone the next day.
//!
//! All are kept for a day. After that, those that were the present one at the end of some hour, later of some day, at
//! last of some week. So a file that is rewritten every second leaves a trail that thins out, and one that changes twice
//! a year keeps each of its contents for the longest time. The present content and tagged ones are always kept.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::change::Actor;
use crate::files::Stamp;

/// Milliseconds of an hour.
pub const HOUR_MS: u64 = 60 * 60 * 1000;
/// Milliseconds of a day.
pub const DAY_MS: u64 = 24 * HOUR_MS;
/// Milliseconds of a week.
pub const WEEK_MS: u64 = 7 * DAY_MS;
/// 1970 began on a Thursday: weeks end with Sunday.
const WEEK_OFFSET_MS: u64 = 3 * DAY_MS;

/// What names one content among those that a file had: a writer never gives out a stamp twice.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct VersionId {
    /// When it was put there.
    pub stamp: Stamp,
    /// Who put it there.
    pub writer: Actor,
}

/// One of the contents of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Which one.
    pub id: VersionId,
    /// Whether a person tagged it.
    pub tagged: bool,
}

/// How long things are kept, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Every content, after it was replaced.
    pub all_ms: u64,
    /// One for each hour.
    pub hourly_ms: u64,
    /// One for each day.
    pub daily_ms: u64,
    /// One for each week.
    pub weekly_ms: u64,
    /// What is in the trash, after its deletion; `None` for ever.
    pub trash_ms: Option<u64>,
    /// Most bytes in the trash; the oldest goes first. `None` sets no limit.
    pub trash_bytes: Option<u64>,
}

impl Default for Rule {
    /// All for a day, hourly for a week, daily for 30 days, weekly for a year; the trash for 30 days, whatever its size.
    fn default() -> Rule {
        Rule {
            all_ms: DAY_MS,
            hourly_ms: WEEK_MS,
            daily_ms: 30 * DAY_MS,
            weekly_ms: 365 * DAY_MS,
            trash_ms: Some(30 * DAY_MS),
            trash_bytes: None,
        }
    }
}

/// How long a content is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// Up to this time, in milliseconds since 1970, inclusive. It may be past.
    Until(u64),
    /// It is the present one, or tagged.
    ForEver,
}

impl Kept {
    /// Whether it is kept at that time.
    pub fn at(self, now_ms: u64) -> bool {
        match self {
            Kept::Until(until) => now_ms <= until,
            Kept::ForEver => true,
        }
    }
}

/// How long each of `versions` is kept, latest first. They may come in any order; one that is given twice counts once,
/// and is tagged if it is so either time.
pub fn kept(versions: &[Version], rule: &Rule) -> Vec<(VersionId, Kept)> {
    let mut sorted = versions.to_vec();
    sorted.sort_unstable_by_key(|version| (std::cmp::Reverse(version.id), !version.tagged));
    sorted.dedup_by_key(|version| version.id);
    let mut replaced_ms = None;
    sorted
        .into_iter()
        .map(|version| {
            let written_ms = version.id.stamp.ms();
            let kept = match replaced_ms.replace(written_ms) {
                None => Kept::ForEver,
                Some(_) if version.tagged => Kept::ForEver,
                Some(replaced) => Kept::Until(until(written_ms, replaced, rule)),
            };
            (version.id, kept)
        })
        .collect()
}

/// Those of `versions` that are kept at `now_ms`.
pub fn retained(versions: &[Version], now_ms: u64, rule: &Rule) -> BTreeSet<VersionId> {
    kept(versions, rule)
        .into_iter()
        .filter(|(_, kept)| kept.at(now_ms))
        .map(|(id, _)| id)
        .collect()
}

/// Until when a content is kept that was there from `written` until `replaced`.
fn until(written: u64, replaced: u64, rule: &Rule) -> u64 {
    let spans = [
        (HOUR_MS, 0, rule.hourly_ms),
        (DAY_MS, 0, rule.daily_ms),
        (WEEK_MS, WEEK_OFFSET_MS, rule.weekly_ms),
    ];
    spans
        .into_iter()
        .filter(|(span, offset, _)| {
            // Whether one of these spans ended while it was there.
            (written.saturating_add(*offset)) / span < (replaced.saturating_add(*offset)) / span
        })
        .map(|(_, _, keep)| keep)
        .chain([rule.all_ms])
        .max()
        .map_or(replaced, |keep| replaced.saturating_add(keep))
}

/// Something in the trash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trashed {
    /// When it was deleted, in milliseconds since 1970.
    pub deleted_ms: u64,
    /// Bytes that all of it holds.
    pub bytes: u64,
}

/// Which of `trash` (by their places in it) the rule says are to be purged at `now_ms`: those that are there for too
/// long, and the oldest until the rest is small enough.
pub fn overdue(trash: &[Trashed], now_ms: u64, rule: &Rule) -> BTreeSet<usize> {
    let mut left: Vec<usize> = (0..trash.len()).collect();
    left.sort_by_key(|index| (trash[*index].deleted_ms, *index));
    let mut total: u128 = trash.iter().map(|item| u128::from(item.bytes)).sum();
    left.into_iter()
        .take_while(|index| {
            let item = trash[*index];
            let is_old = rule
                .trash_ms
                .is_some_and(|keep| now_ms > item.deleted_ms.saturating_add(keep));
            let is_too_much = rule.trash_bytes.is_some_and(|max| total > u128::from(max));
            total -= u128::from(item.bytes);
            is_old || is_too_much
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version(ms: u64) -> Version {
        Version {
            id: VersionId {
                stamp: Stamp::from_ms(ms as i64),
                writer: [1; 16],
            },
            tagged: false,
        }
    }

    fn times(versions: &[Version], now_ms: u64) -> Vec<u64> {
        let kept = retained(versions, now_ms, &Rule::default());
        kept.into_iter().map(|id| id.stamp.ms()).collect()
    }

    /// Midnight, the beginning of a Monday.
    const MONDAY: u64 = 2952 * WEEK_MS + 4 * DAY_MS;

    #[test]
    fn contents_thin_out_to_hours_days_and_weeks() {
        // One each twenty minutes of one day, and one a month later.
        let mut versions: Vec<_> = (0..72)
            .map(|n| version(MONDAY + n * HOUR_MS / 3 + 1))
            .collect();
        let last = MONDAY + 40 * DAY_MS;
        versions.push(version(last));
        assert_eq!(times(&versions, MONDAY + DAY_MS).len(), 73);
        let after_two_days = times(&versions, MONDAY + 3 * DAY_MS);
        assert_eq!(after_two_days.len(), 25, "the last of each hour");
        assert_eq!(after_two_days[0], MONDAY + 2 * HOUR_MS / 3 + 1);
        // The last one of that day was there for weeks.
        let of_the_day = MONDAY + 71 * HOUR_MS / 3 + 1;
        assert_eq!(times(&versions, MONDAY + 9 * DAY_MS), [of_the_day, last]);
        assert_eq!(times(&versions, last + 364 * DAY_MS), [of_the_day, last]);
        assert_eq!(times(&versions, last + 366 * DAY_MS), [last]);
    }

    #[test]
    fn what_stood_for_years_is_kept_from_the_day_that_it_was_replaced() {
        let replaced = MONDAY + 800 * DAY_MS;
        let versions = [version(MONDAY), version(replaced)];
        assert_eq!(times(&versions, replaced + 364 * DAY_MS).len(), 2);
    }

    #[test]
    fn trash_goes_by_age_and_then_by_size_the_oldest_first() {
        let item = |day: u64, bytes| Trashed {
            deleted_ms: MONDAY + day * DAY_MS,
            bytes,
        };
        let trash = [item(20, 5), item(0, 100), item(10, 7)];
        let now = MONDAY + 31 * DAY_MS;
        assert_eq!(overdue(&trash, now, &Rule::default()), [1].into());
        let small = Rule {
            trash_bytes: Some(6),
            ..Rule::default()
        };
        assert_eq!(overdue(&trash, now, &small), [1, 2].into());
        let for_ever = Rule {
            trash_ms: None,
            ..Rule::default()
        };
        assert_eq!(overdue(&trash, u64::MAX, &for_ever), BTreeSet::new());
    }

    fn versions() -> impl Strategy<Value = Vec<Version>> {
        let version =
            (0..60 * DAY_MS, 0u8..3, prop::bool::weighted(0.1)).prop_map(|(ms, writer, tagged)| {
                Version {
                    id: VersionId {
                        stamp: Stamp::from_ms((MONDAY + ms) as i64),
                        writer: [writer; 16],
                    },
                    tagged,
                }
            });
        prop::collection::vec(version, 1..80)
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let limit = || 0..90 * DAY_MS;
        (limit(), limit(), limit(), limit()).prop_map(|(all_ms, hourly_ms, daily_ms, weekly_ms)| {
            Rule {
                all_ms,
                hourly_ms,
                daily_ms,
                weekly_ms,
                ..Rule::default()
            }
        })
    }

    proptest! {
        #[test]
        fn present_and_tagged_contents_are_always_kept(versions in versions(), rule in rule(), now: u64) {
            let kept = retained(&versions, now, &rule);
            let newest = versions.iter().map(|version| version.id).max();
            prop_assert!(newest.is_some_and(|newest| kept.contains(&newest)));
            prop_assert!(versions.iter().filter(|version| version.tagged).all(|version| kept.contains(&version.id)));
        }

        #[test]
        fn what_is_dropped_never_comes_back(versions in versions(), rule in rule(), now in 0..200 * DAY_MS, later in 0..100 * DAY_MS) {
            let now = MONDAY + now;
            let kept = retained(&versions, now, &rule);
            prop_assert!(retained(&versions, now + later, &rule).is_subset(&kept));
        }

        #[test]
        fn a_more_generous_rule_keeps_no_less(versions in versions(), rule in rule(), more in rule(), now in 0..200 * DAY_MS) {
            let more = Rule {
                all_ms: rule.all_ms.max(more.all_ms),
                hourly_ms: rule.hourly_ms.max(more.hourly_ms),
                daily_ms: rule.daily_ms.max(more.daily_ms),
                weekly_ms: rule.weekly_ms.max(more.weekly_ms),
                ..rule
            };
            prop_assert!(retained(&versions, MONDAY + now, &rule).is_subset(&retained(&versions, MONDAY + now, &more)));
        }

        #[test]
        fn forgetting_what_was_dropped_drops_nothing_else(versions in versions(), rule in rule(), now in 0..200 * DAY_MS) {
            let kept = retained(&versions, MONDAY + now, &rule);
            let left: Vec<_> = versions.iter().copied().filter(|version| kept.contains(&version.id)).collect();
            prop_assert_eq!(retained(&left, MONDAY + now, &rule), kept);
        }

        #[test]
        fn order_and_repetition_do_not_matter(versions in versions(), rule in rule(), now in 0..200 * DAY_MS) {
            let mut other = versions.clone();
            other.reverse();
            other.extend(versions.iter().take(5).copied());
            prop_assert_eq!(kept(&other, &rule), kept(&versions, &rule));
            prop_assert_eq!(retained(&other, MONDAY + now, &rule), retained(&versions, MONDAY + now, &rule));
        }
    }
}
