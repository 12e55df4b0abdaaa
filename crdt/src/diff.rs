//! Which parts of one sequence became which parts of another.
//!
//! Myers' greedy algorithm (E. Myers, "An O(ND) difference algorithm and its variations", 1986) over numbered tokens,
//! after cutting the common ends. Bounded: two sequences that differ in more than [`MAX_EDITS`] places are answered
//! with one hunk for all that differs, which is correct, only coarser.

use std::collections::BTreeMap;
use std::ops::Range;

/// Most insertions plus deletions that are searched for; the search keeps about 2 · n² bytes.
const MAX_EDITS: usize = 1024;

/// `old` was replaced by `new`; one of them may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hunk {
    pub(crate) old: Range<usize>,
    pub(crate) new: Range<usize>,
}

/// The differing stretches, in order, none touching another.
pub(crate) fn hunks<T: PartialEq>(old: &[T], new: &[T]) -> Vec<Hunk> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[head..], &new[head..]);
    let tail = old_rest
        .iter()
        .rev()
        .zip(new_rest.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let (old_mid, new_mid) = (
        &old_rest[..old_rest.len() - tail],
        &new_rest[..new_rest.len() - tail],
    );
    if old_mid.is_empty() && new_mid.is_empty() {
        return Vec::new();
    }
    let whole = || {
        vec![Hunk {
            old: 0..old_mid.len(),
            new: 0..new_mid.len(),
        }]
    };
    let mut found = match old_mid.is_empty() || new_mid.is_empty() {
        true => whole(),
        false => myers(old_mid, new_mid).unwrap_or_else(whole),
    };
    for hunk in &mut found {
        hunk.old = hunk.old.start + head..hunk.old.end + head;
        hunk.new = hunk.new.start + head..hunk.new.end + head;
    }
    found
}

/// The edits that turn one text into another, in characters, from the last to the first, so that each can be applied
/// without moving those that follow. Whole lines are compared first, characters within those that differ.
pub(crate) fn text_edits(old: &str, new: &str) -> Vec<TextEdit> {
    let old_lines: Vec<&str> = old.split_inclusive('\n').collect();
    let new_lines: Vec<&str> = new.split_inclusive('\n').collect();
    let mut edits = Vec::new();
    let mut char_at = 0;
    let mut line_at = 0;
    for hunk in hunks(&old_lines, &new_lines) {
        char_at += old_lines[line_at..hunk.old.start]
            .iter()
            .map(|line| line.chars().count())
            .sum::<usize>();
        let old_chars: Vec<char> = old_lines[hunk.old.clone()]
            .iter()
            .flat_map(|line| line.chars())
            .collect();
        let new_chars: Vec<char> = new_lines[hunk.new.clone()]
            .iter()
            .flat_map(|line| line.chars())
            .collect();
        edits.extend(
            hunks(&old_chars, &new_chars)
                .into_iter()
                .map(|inner| TextEdit {
                    at: char_at + inner.old.start,
                    delete: inner.old.len(),
                    insert: new_chars[inner.new].iter().collect(),
                }),
        );
        char_at += old_chars.len();
        line_at = hunk.old.end;
    }
    edits.reverse();
    edits
}

/// One replacement in a text; positions and lengths in Unicode code points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TextEdit {
    pub(crate) at: usize,
    pub(crate) delete: usize,
    pub(crate) insert: String,
}

/// Gives equal tokens equal numbers, so that comparing them is cheap.
#[derive(Default)]
pub(crate) struct Numbering(BTreeMap<String, u32>);

impl Numbering {
    pub(crate) fn number(&mut self, token: String) -> u32 {
        let next = self.0.len() as u32;
        *self.0.entry(token).or_insert(next)
    }
}

/// `None` when there are more than [`MAX_EDITS`] edits.
fn myers<T: PartialEq>(old: &[T], new: &[T]) -> Option<Vec<Hunk>> {
    let (n, m) = (old.len() as isize, new.len() as isize);
    let limit = MAX_EDITS.min(old.len() + new.len());
    let origin = limit as isize + 1;
    // furthest[k + origin]: how far into `old` the best path on diagonal k reaches.
    let mut furthest = vec![0u32; 2 * limit + 3];
    let mut rounds: Vec<Vec<u32>> = Vec::new();
    for d in 0..=limit as isize {
        let window = (origin - d - 1) as usize..(origin + d + 2) as usize;
        rounds.push(furthest[window].to_vec());
        for k in (-d..=d).step_by(2) {
            let at = (k + origin) as usize;
            let mut x = match goes_down(k, d, furthest[at - 1], furthest[at + 1]) {
                true => furthest[at + 1] as isize,
                false => furthest[at - 1] as isize + 1,
            };
            let mut y = x - k;
            while x < n && y < m && y >= 0 && old[x as usize] == new[y as usize] {
                x += 1;
                y += 1;
            }
            furthest[at] = x as u32;
            if x >= n && y >= m {
                return Some(trace(&rounds, n, m));
            }
        }
    }
    None
}

/// Whether the best path to diagonal `k` after `d` edits comes from the one above it (an insertion).
fn goes_down(k: isize, d: isize, below: u32, above: u32) -> bool {
    k == -d || (k != d && below < above)
}

/// Walks the rounds back from the end; `rounds[d]` is what was known before round d, from diagonal -d-1 on.
fn trace(rounds: &[Vec<u32>], n: isize, m: isize) -> Vec<Hunk> {
    let (mut x, mut y) = (n, m);
    let mut found: Vec<Hunk> = Vec::new();
    for d in (1..rounds.len() as isize).rev() {
        let known = &rounds[d as usize];
        let k = x - y;
        let at = (k + d + 1) as usize;
        let down = goes_down(k, d, known[at - 1], known[at + 1]);
        let from_x = if down { known[at + 1] } else { known[at - 1] } as isize;
        let from_y = from_x - if down { k + 1 } else { k - 1 };
        let (old, new) = match down {
            true => (from_x..from_x, from_y..from_y + 1),
            false => (from_x..from_x + 1, from_y..from_y),
        };
        let hunk = Hunk {
            old: old.start as usize..old.end as usize,
            new: new.start as usize..new.end as usize,
        };
        match found.last_mut() {
            Some(next) if next.old.start == hunk.old.end && next.new.start == hunk.new.end => {
                next.old.start = hunk.old.start;
                next.new.start = hunk.new.start;
            }
            _ => found.push(hunk),
        }
        (x, y) = (from_x, from_y);
    }
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rebuild(old: &[u8], new: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut at = 0;
        for hunk in hunks(old, new) {
            out.extend_from_slice(&old[at..hunk.old.start]);
            out.extend_from_slice(&new[hunk.new.clone()]);
            at = hunk.old.end;
        }
        out.extend_from_slice(&old[at..]);
        out
    }

    fn apply(old: &str, edits: &[TextEdit]) -> String {
        let mut chars: Vec<char> = old.chars().collect();
        for edit in edits {
            chars.splice(edit.at..edit.at + edit.delete, edit.insert.chars());
        }
        chars.into_iter().collect()
    }

    #[test]
    fn equal_sequences_have_no_hunks() {
        assert!(hunks(b"abc", b"abc").is_empty());
        assert!(hunks::<u8>(b"", b"").is_empty());
    }

    #[test]
    fn one_insertion_in_the_middle_is_one_small_hunk() {
        assert_eq!(
            hunks(b"abcdef", b"abcXdef"),
            vec![Hunk {
                old: 3..3,
                new: 3..4
            }]
        );
    }

    #[test]
    fn two_edits_far_apart_stay_two() {
        assert_eq!(hunks(b"a----b----c", b"A----b----C").len(), 2);
    }

    #[test]
    fn more_edits_than_the_bound_give_one_hunk() {
        let old: Vec<u32> = (0..4000).map(|i| i * 2).collect();
        let new: Vec<u32> = (0..4000).map(|i| i * 2 + 1).collect();
        assert_eq!(
            hunks(&old, &new),
            vec![Hunk {
                old: 0..4000,
                new: 0..4000
            }]
        );
    }

    proptest! {
        #[test]
        fn hunks_turn_old_into_new(old in "[ab]{0,30}", new in "[ab]{0,30}") {
            prop_assert_eq!(rebuild(old.as_bytes(), new.as_bytes()), new.as_bytes());
        }

        #[test]
        fn text_edits_turn_old_into_new(old in "[aé\n🙂]{0,40}", new in "[aé\n🙂]{0,40}") {
            prop_assert_eq!(apply(&old, &text_edits(&old, &new)), new);
        }
    }
}
