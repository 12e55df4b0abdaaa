//! Where a file is cut: content-defined chunking (FastCDC, 2020 variant), seeded from the space secret.
//!
//! The cuts are a function of the bytes, their number and the seed: two devices that read the same file make the same
//! chunks, and an edit moves only the cuts around it. The target grows with the file, so that lists stay short; when a
//! file outgrows its class, all its chunks change once. The parameters are part of the format: another choice would make
//! equal files look different.

use std::borrow::Cow;
use std::ops::Range;

use fastcdc::v2020::{self, Normalization};

/// Longest chunk in bytes, as long as the longest frame's plaintext.
pub const MAX_CHUNK: usize = 4 << 20;

/// Smallest, target and largest chunk in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    min: usize,
    target: usize,
    max: usize,
}

/// Files up to this many bytes are one chunk: nearly all files are, and one piece is cheapest to name, send and write.
pub const ONE_CHUNK: u64 = 1 << 20;

/// For the bytes of chunk lists: an edit to a file resends one or two of these.
pub const LIST_SIZES: Sizes = Sizes {
    min: 16 << 10,
    target: 64 << 10,
    max: 256 << 10,
};

impl Sizes {
    /// For a file of `len` bytes; `None` where it is one chunk.
    pub fn for_file(len: u64) -> Option<Sizes> {
        let (min, target, max) = if len <= ONE_CHUNK {
            return None;
        } else if len <= 64 << 20 {
            (64 << 10, 256 << 10, 1 << 20)
        } else if len <= 4 << 30 {
            (256 << 10, 1 << 20, MAX_CHUNK)
        } else {
            (512 << 10, 2 << 20, MAX_CHUNK)
        };
        Some(Sizes { min, target, max })
    }

    /// Longest chunk that these cut, in bytes.
    pub fn max(&self) -> usize {
        self.max
    }
}

/// Cuts stretches of bytes, one after the other, with the same seed.
pub struct Chunker {
    sizes: Sizes,
    mask_small: u64,
    mask_large: u64,
    gear: Cow<'static, [u64]>,
    gear_shifted: Cow<'static, [u64]>,
}

impl Chunker {
    /// A chunker for `sizes` with the space's `seed`.
    pub fn new(sizes: Sizes, seed: u64) -> Self {
        let (mask_small, mask_large) = v2020::select_masks(sizes.target, Normalization::Level1);
        let (gear, gear_shifted) = v2020::get_gear_with_seed(seed);
        Self {
            sizes,
            mask_small,
            mask_large,
            gear,
            gear_shifted,
        }
    }

    /// Cuts `bytes` from `start` on, calling `chunk` with each range, and gives back where the last cut was.
    ///
    /// With `last`, everything is cut; else it stops where a chunk could go on beyond the end of `bytes`, and the caller
    /// comes again with more behind what is left.
    pub fn cut(
        &self,
        bytes: &[u8],
        start: usize,
        last: bool,
        mut chunk: impl FnMut(Range<usize>),
    ) -> usize {
        let mut at = start;
        while at < bytes.len() && (last || bytes.len() - at >= self.sizes.max) {
            let (_, len) = v2020::cut_gear(
                &bytes[at..],
                self.sizes.min,
                self.sizes.target,
                self.sizes.max,
                self.mask_small,
                self.mask_large,
                self.mask_small << 1,
                self.mask_large << 1,
                &self.gear,
                &self.gear_shifted,
            );
            chunk(at..at + len);
            at += len;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes without a pattern, the same in every run.
    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new()
            .update(b"noise")
            .finalize_xof()
            .fill(&mut bytes);
        bytes
    }

    fn cuts(sizes: Sizes, seed: u64, bytes: &[u8]) -> Vec<usize> {
        let mut ends = Vec::new();
        Chunker::new(sizes, seed).cut(bytes, 0, true, |range| ends.push(range.end));
        ends
    }

    #[test]
    fn cuts_are_frozen() {
        let sizes = Sizes::for_file(2 << 20).unwrap();
        let ends = cuts(sizes, 0x0123_4567_89ab_cdef, &noise(2 << 20));
        const FROZEN: [usize; 8] = [
            181907, 480998, 604271, 1042687, 1512105, 1910809, 2008908, 2097152,
        ];
        assert_eq!(ends, FROZEN, "the cuts of shipped vaults would change");
    }

    #[test]
    fn cuts_do_not_depend_on_how_the_bytes_arrive() {
        let sizes = Sizes::for_file(3 << 20).unwrap();
        let bytes = noise(3 << 20);
        let chunker = Chunker::new(sizes, 7);
        let mut ends = Vec::new();
        let mut at = 0;
        for end in (0..bytes.len()).step_by(200_000).chain([bytes.len()]) {
            let last = end == bytes.len();
            at = chunker.cut(&bytes[..end], at, last, |range| ends.push(range.end));
        }
        assert_eq!(ends, cuts(sizes, 7, &bytes));
    }

    #[test]
    fn an_insertion_moves_only_the_cuts_around_it() {
        let bytes = noise(8 << 20);
        let sizes = Sizes::for_file(bytes.len() as u64).unwrap();
        let mut edited = bytes.clone();
        edited.splice(4_000_000..4_000_000, *b"something new");
        let pieces = |bytes: &[u8]| {
            let mut set = std::collections::BTreeSet::new();
            Chunker::new(sizes, 7).cut(bytes, 0, true, |range| {
                set.insert(blake3::hash(&bytes[range]).to_hex());
            });
            set
        };
        let (before, after) = (pieces(&bytes), pieces(&edited));
        assert!(after.difference(&before).count() <= 2);
    }

    #[test]
    fn another_seed_cuts_elsewhere() {
        let bytes = noise(2 << 20);
        let sizes = Sizes::for_file(bytes.len() as u64).unwrap();
        assert_ne!(cuts(sizes, 1, &bytes), cuts(sizes, 2, &bytes));
    }

    #[test]
    fn no_chunk_is_longer_than_a_frame_holds() {
        for len in [
            0,
            1,
            1 << 20,
            (1 << 20) + 1,
            1 << 26,
            1 << 32,
            1 << 40,
            u64::MAX,
        ] {
            assert!(Sizes::for_file(len).is_none_or(|sizes| sizes.max <= MAX_CHUNK));
        }
        let zeros = vec![0; 5 << 20];
        let sizes = Sizes::for_file(1 << 33).unwrap();
        assert!(cuts(sizes, 9, &zeros)[0] <= MAX_CHUNK);
    }
}
