//! Where a file is cut: content-defined chunking (FastCDC, 2020 variant), seeded from the space secret.
//!
//! The cuts are a function of the bytes, their number and the seed: two devices that read the same file make the same
//! chunks, and an edit moves only the cuts around it. Nearly all files of more than one chunk are cut the same way, so
//! that one which grows keeps its chunks. Only beyond 4 GiB does the target grow, so that lists stay short; a file that
//! outgrows such a class changes all its chunks once. The parameters are part of the format: another choice would make
//! equal files look different.
//!
//! Measured on 1 GiB without a pattern, 1,000 bytes inserted and 1 MiB replaced, mean of 100 places: with a target of
//! 1 MiB 4.7 MB of chunks are new (838 chunks in all), with 256 KiB 2.0 MB (3,350), with 128 KiB 1.5 MB (6,700). The
//! price of 128 KiB is about 0.1 s of processor time a GiB for the rows of the chunks, and 2.5 MB of them. A stronger
//! normalization finds back to the old cuts later: levels 2 and 3 made more chunks new, not fewer.

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

/// For the bytes of chunk lists: an edit to a file resends one or two of these for a few hundred bytes that are new, so
/// they are small.
pub const LIST_SIZES: Sizes = Sizes {
    min: 4 << 10,
    target: 16 << 10,
    max: 64 << 10,
};

impl Sizes {
    /// For a file of `len` bytes; `None` where it is one chunk.
    pub fn for_file(len: u64) -> Option<Sizes> {
        let (min, target, max) = if len <= ONE_CHUNK {
            return None;
        } else if len <= 4 << 30 {
            (32 << 10, 128 << 10, 512 << 10)
        } else if len <= 64 << 30 {
            (128 << 10, 512 << 10, 2 << 20)
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
        const FROZEN: [usize; 13] = [
            137610, 181907, 364760, 518915, 604271, 829365, 1042687, 1322961, 1512105, 1609787,
            1910809, 2008908, 2097152,
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

    /// What F3 of the measurements sends, on a smaller file of the same class: the new chunks, and the new pieces of
    /// their list, of 105 bytes a chunk.
    #[test]
    fn an_insertion_and_a_replacement_send_little_more_than_themselves() {
        const MIB: usize = 1 << 20;
        let (sizes, seed) = (Sizes::for_file(1 << 30).unwrap(), 7);
        let bytes = noise(48 * MIB);
        let pieces = |bytes: &[u8]| {
            let mut chunks = std::collections::BTreeMap::new();
            let mut list = Vec::new();
            Chunker::new(sizes, seed).cut(bytes, 0, true, |range| {
                let id = blake3::hash(&bytes[range.clone()]);
                chunks.insert(*id.as_bytes(), range.len());
                for part in 0..3u8 {
                    list.extend_from_slice(
                        blake3::hash(&[id.as_bytes(), &[part][..]].concat()).as_bytes(),
                    );
                }
                list.extend_from_slice(&[0; 9]);
            });
            Chunker::new(LIST_SIZES, seed).cut(&list, 0, true, |range| {
                chunks.insert(*blake3::hash(&list[range.clone()]).as_bytes(), range.len());
            });
            chunks
        };
        let before = pieces(&bytes);
        let mut sent = Vec::new();
        for round in 1..=6 {
            let mut edited = bytes.clone();
            let at = round * 6 * MIB + round * 77_777;
            for byte in &mut edited[at..at + MIB] {
                *byte ^= 0x5a;
            }
            let at = at - 4 * MIB;
            edited.splice(at..at, noise(1000).into_iter().rev());
            let after = pieces(&edited);
            let new = after.iter().filter(|(id, _)| !before.contains_key(*id));
            sent.push(new.map(|(_, len)| *len).sum::<usize>());
        }
        let mean = sent.iter().sum::<usize>() / sent.len();
        assert!(mean < 1_650_000, "{mean} bytes on average, of {sent:?}");
        assert!(sent.iter().all(|sent| *sent < 2_200_000), "{sent:?}");
    }

    #[test]
    fn a_file_that_grows_keeps_its_chunks() {
        let bytes = noise(8 << 20);
        let grown = Sizes::for_file(3 << 30).unwrap();
        let before = cuts(Sizes::for_file(2 << 20).unwrap(), 7, &bytes[..2 << 20]);
        let after = cuts(grown, 7, &bytes);
        assert_eq!(before[..before.len() - 1], after[..before.len() - 1]);
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
