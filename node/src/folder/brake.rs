//! The brake: when so much disappears or is rewritten at once that a person should say whether it was meant. Pure.
//!
//! A disk that lost its files, a script gone wrong, a program that encrypts everything for a ransom: all look like a
//! person who deletes and edits, only more so. So what a folder loses is counted over a sliding [`WINDOW`], not look by
//! look: a burst that arrives in small parts is one burst. What was recorded within the window before the brake took
//! hold is remembered, so that it can be taken back too.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use coffer_crdt::files::FileId;
use tokio::time::Instant;

use super::schedule::Spot;
use crate::vault::request::BrakedFile;

/// Losses that come closer together than this are one.
pub const WINDOW: Duration = Duration::from_secs(60);
/// So many files may be deleted or rewritten in a folder of any size: a person can look through them by hand.
pub const FEW: usize = 20;
/// More than one file in so many gone is too much.
const GONE_ONE_IN: u64 = 4;
/// More than one file in so many rewritten is too much.
const REWRITTEN_ONE_IN: u64 = 2;

/// How long no more must disappear before many deletions are judged: a program that deletes a large folder is not to be
/// followed half of the way.
const ENDED: Duration = Duration::from_millis(600);
/// How long they are waited for at most, in a folder in which something disappears all the time.
const LONGEST: Duration = Duration::from_secs(10);

/// What to do about deletions that were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They can be recorded.
    Record,
    /// Too many if what is missing for the first time is deleted as well, or many and perhaps not all: first see.
    Wait,
    /// Too many.
    Brake,
}

/// What was recorded lately.
#[derive(Debug, Default)]
pub struct Window {
    losses: VecDeque<Loss>,
    rewritten: BTreeSet<FileId>,
    /// Where files were that were renamed as well.
    places: BTreeMap<FileId, (Instant, Spot)>,
    /// More than a few that have disappeared and are not recorded yet.
    burst: Option<Burst>,
}

/// Files that disappear one after the other.
#[derive(Clone, Copy, Debug)]
struct Burst {
    began: Instant,
    /// When there were `files` for the first time.
    grew: Instant,
    /// When it was last looked at.
    seen: Instant,
    files: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Deleted,
    Rewritten([u8; 32]),
}

#[derive(Debug)]
struct Loss {
    at: Instant,
    id: FileId,
    what: What,
    /// Whether it counts: of a folder that is deleted with its files, only they do.
    counts: bool,
    /// Files in the folder before it.
    files: u64,
}

impl Window {
    /// Notes that the deletion of `files` is recorded, by moving `subjects` (those files, or folders with them in it)
    /// to the trash; `total` files were in the synced folder before.
    pub fn deleted(
        &mut self,
        now: Instant,
        total: u64,
        files: &BTreeSet<FileId>,
        subjects: &BTreeSet<FileId>,
    ) {
        self.forget(now);
        for id in files.union(subjects) {
            self.losses.push_back(Loss {
                at: now,
                id: *id,
                what: What::Deleted,
                counts: files.contains(id),
                files: total,
            });
        }
    }

    /// Notes that new bytes of a file are recorded, whose content had the hash `before`. The first one counts: a
    /// program that saves every second rewrites one file.
    pub fn rewritten(&mut self, now: Instant, total: u64, id: FileId, before: [u8; 32]) {
        self.forget(now);
        if self.rewritten.insert(id) {
            self.losses.push_back(Loss {
                at: now,
                id,
                what: What::Rewritten(before),
                counts: true,
                files: total,
            });
        }
    }

    /// Judges `gone` more deletions in a folder of `total` files, while `doubtful` others are missing as well.
    pub fn judge_gone(
        &mut self,
        now: Instant,
        total: u64,
        gone: usize,
        doubtful: usize,
    ) -> Verdict {
        self.forget(now);
        if gone == 0 {
            return Verdict::Record;
        }
        let goes_on = self.goes_on(now, gone, doubtful);
        let before = self
            .losses
            .iter()
            .filter(|loss| loss.counts && loss.what == What::Deleted)
            .count();
        let files = self.files(total);
        if is_too_much(before + gone, files, GONE_ONE_IN) {
            self.burst = None;
            Verdict::Brake
        } else if goes_on || is_too_much(before + gone + doubtful, files, GONE_ONE_IN) {
            Verdict::Wait
        } else {
            self.burst = self.burst.filter(|_| gone <= FEW);
            Verdict::Record
        }
    }

    /// Whether what has disappeared may not be all. Looks at other parts of the folder come between.
    fn goes_on(&mut self, now: Instant, gone: usize, doubtful: usize) -> bool {
        let files = gone + doubtful;
        if files <= FEW && doubtful == 0 {
            return false;
        }
        let new = Burst {
            began: now,
            grew: now,
            seen: now,
            files,
        };
        let burst = self.burst.get_or_insert(new);
        if now - burst.seen > LONGEST {
            *burst = new;
        }
        if burst.files < files {
            (burst.grew, burst.files) = (now, files);
        }
        burst.seen = now;
        if files > FEW {
            now - burst.grew < ENDED && now - burst.began < LONGEST
        } else {
            now - burst.began < ENDED
        }
    }

    /// Whether rewriting these as well is too much in a folder of `total` files.
    pub fn is_rewriting(
        &mut self,
        now: Instant,
        total: u64,
        more: impl IntoIterator<Item = FileId>,
    ) -> bool {
        self.forget(now);
        let more: BTreeSet<FileId> = more.into_iter().collect();
        let new = more.difference(&self.rewritten).count();
        // What is rewritten once more harms no further file.
        new > 0
            && is_too_much(
                self.rewritten.len() + new,
                self.files(total),
                REWRITTEN_ONE_IN,
            )
    }

    /// Whether new bytes of a file were recorded lately.
    pub fn has_rewritten(&self, id: FileId) -> bool {
        self.rewritten.contains(&id)
    }

    /// Notes where a file was that has new bytes and gets a new place: programs that encrypt for a ransom rename what
    /// they wrote.
    pub fn moved(&mut self, now: Instant, id: FileId, from: Spot) {
        self.forget(now);
        self.places.entry(id).or_insert((now, from));
    }

    /// Deletions that were recorded in the window, for the brake to hold.
    pub fn take_deleted(&mut self) -> BTreeMap<FileId, BrakedFile> {
        let losses = std::mem::take(&mut self.losses).into_iter();
        let (deleted, rest) = losses.partition(|loss| loss.what == What::Deleted);
        self.losses = rest;
        let deleted: VecDeque<Loss> = deleted;
        deleted
            .into_iter()
            .map(|loss| (loss.id, BrakedFile::Deleted))
            .collect()
    }

    /// Rewritings that were recorded in the window, and new names that came with others, for the brake to hold.
    pub fn take_rewritten(&mut self) -> BTreeMap<FileId, BrakedFile> {
        let mut held: BTreeMap<FileId, (Option<[u8; 32]>, _)> = BTreeMap::new();
        self.losses.retain(|loss| match loss.what {
            What::Deleted => true,
            What::Rewritten(before) => {
                held.entry(loss.id).or_default().0 = Some(before);
                false
            }
        });
        self.rewritten.clear();
        for (id, (_, (folder, name))) in std::mem::take(&mut self.places) {
            held.entry(id).or_default().1 = Some((folder.0, name));
        }
        held.into_iter()
            .map(|(id, (before, place))| (id, BrakedFile::Rewritten { before, place }))
            .collect()
    }

    fn forget(&mut self, now: Instant) {
        while self
            .losses
            .front()
            .is_some_and(|loss| now.saturating_duration_since(loss.at) > WINDOW)
        {
            if let Some(loss) = self.losses.pop_front()
                && matches!(loss.what, What::Rewritten(_))
            {
                self.rewritten.remove(&loss.id);
            }
        }
        let is_recent = |at: Instant| now.saturating_duration_since(at) <= WINDOW;
        let rewritten = &self.rewritten;
        self.places
            .retain(|id, (at, _)| is_recent(*at) || rewritten.contains(id));
    }

    /// How many files the folder had at the window's start. One that grew meanwhile is as large as it is now: a folder
    /// that was just begun must not brake over a handful of edits.
    fn files(&self, total: u64) -> u64 {
        self.losses
            .front()
            .map_or(total, |loss| loss.files.max(total))
    }
}

/// What was recorded before the brake took hold, and is held by it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recorded {
    deleted: usize,
    rewritten: usize,
}

impl Recorded {
    /// Counts it among what the brake holds.
    pub fn of<'a>(held: impl IntoIterator<Item = (&'a FileId, &'a BrakedFile)>) -> Recorded {
        let mut all = Recorded::default();
        for (_, why) in held {
            match why {
                BrakedFile::Deleted => all.deleted += 1,
                BrakedFile::Rewritten { .. } => all.rewritten += 1,
                BrakedFile::Gone | BrakedFile::Changed => {}
            }
        }
        all
    }

    /// Whether the brake would have taken hold for that alone, in a folder that has `total` files now.
    pub fn is_too_much(self, total: u64) -> bool {
        is_too_much(self.deleted, total + self.deleted as u64, GONE_ONE_IN)
            || is_too_much(self.rewritten, total, REWRITTEN_ONE_IN)
    }
}

fn is_too_much(count: usize, files: u64, one_in: u64) -> bool {
    count > FEW && count as u64 * one_in > files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(range: std::ops::Range<u8>) -> BTreeSet<FileId> {
        range.map(|n| FileId([n; 16])).collect()
    }

    #[test]
    fn only_more_than_twenty_and_more_than_a_quarter_is_too_much() {
        let now = Instant::now();
        let mut window = Window::default();
        assert_eq!(window.judge_gone(now, 30, 20, 0), Verdict::Record);
        assert_eq!(window.judge_gone(now, 83, 21, 0), Verdict::Brake);
        assert_eq!(window.judge_gone(now, 84, 21, 0), Verdict::Wait);
        assert_eq!(window.judge_gone(now + ENDED, 84, 21, 0), Verdict::Record);
        assert_eq!(window.judge_gone(now, 84, 21, 1), Verdict::Wait);
        assert_eq!(window.judge_gone(now, 84, 0, 84), Verdict::Record);
        assert!(!window.is_rewriting(now, 42, ids(0..21)));
        assert!(window.is_rewriting(now, 41, ids(0..21)));
        assert!(!window.is_rewriting(now, 5, ids(0..5)));
    }

    #[test]
    fn many_that_disappear_one_after_the_other_are_judged_when_that_has_ended() {
        let mut now = Instant::now();
        let mut window = Window::default();
        assert_eq!(window.judge_gone(now, 404, 5, 3), Verdict::Wait);
        for gone in 21..=100 {
            assert_eq!(window.judge_gone(now, 404, gone, 0), Verdict::Wait);
            now += ENDED / 8;
        }
        assert_eq!(window.judge_gone(now, 403, 101, 0), Verdict::Brake);
        assert_eq!(window.judge_gone(now, 404, 101, 0), Verdict::Wait);
        now += ENDED;
        assert_eq!(window.judge_gone(now, 404, 101, 0), Verdict::Record);

        // In a folder where that never ends, not for ever.
        let began = now;
        let mut gone = 21;
        while window.judge_gone(now, 1_000_000, gone, 0) == Verdict::Wait {
            now += ENDED / 2;
            gone += 1;
        }
        assert!(now - began <= LONGEST + ENDED, "{:?}", now - began);
    }

    #[test]
    fn losses_that_come_in_small_parts_add_up_and_are_forgotten_in_time() {
        let mut now = Instant::now();
        let mut window = Window::default();
        for part in 0..4u8 {
            let files = ids(part * 5..part * 5 + 5);
            let left = 60 - u64::from(part) * 5;
            assert_eq!(window.judge_gone(now, left, 5, 0), Verdict::Record);
            window.deleted(now, left, &files, &BTreeSet::from([FileId([200; 16])]));
            now += Duration::from_secs(10);
        }
        // A quarter of what was there at the start, not of what is left.
        assert_eq!(window.judge_gone(now, 40, 1, 0), Verdict::Brake);
        assert_eq!(window.judge_gone(now, 100, 1, 0), Verdict::Record);
        assert_eq!(
            window.judge_gone(now + WINDOW, 40, 20, 0),
            Verdict::Record,
            "the first parts are long ago"
        );
    }

    #[test]
    fn a_file_that_is_saved_again_and_again_counts_once_and_goes_back_to_the_first() {
        let now = Instant::now();
        let mut window = Window::default();
        for round in 0..100 {
            window.rewritten(now, 22, FileId([1; 16]), [round; 32]);
        }
        assert!(!window.is_rewriting(now, 22, ids(1..21)));
        assert!(window.is_rewriting(now, 22, ids(1..22)));
        assert_eq!(
            window.take_rewritten().into_iter().collect::<Vec<_>>(),
            [(
                FileId([1; 16]),
                BrakedFile::Rewritten {
                    before: Some([0; 32]),
                    place: None
                }
            )]
        );
    }
}
