//! Which reads answer a request for many blobs.
//!
//! Blobs lie in packs, and those that were put together lie together; one read gets a whole run of them.

/// Bytes that are read at once. A taker has a few such reads under way.
const READ_BYTES: u32 = 1 << 20;
/// Bytes between two blobs of one pack that are read along rather than skipped by a read of its own.
const READ_GAP: u32 = 16 << 10;

/// Where a blob's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The number of the pack.
    pub pack: u64,
    /// Where the bytes begin.
    pub offset: u32,
    /// How many they are.
    pub len: u32,
}

impl Place {
    /// Where the bytes end.
    pub fn end(&self) -> u32 {
        self.offset.saturating_add(self.len)
    }
}

/// One read of a pack: never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    first: Place,
    end: u32,
    /// Which of the request each blob is, and where in the run its bytes are.
    pub blobs: Vec<(usize, std::ops::Range<usize>)>,
}

impl Run {
    fn new(index: usize, place: Place) -> Self {
        Run {
            first: place,
            end: place.end(),
            blobs: vec![(index, 0..place.len as usize)],
        }
    }

    /// The pack to be read.
    pub fn pack(&self) -> u64 {
        self.first.pack
    }

    /// From where.
    pub fn offset(&self) -> u32 {
        self.first.offset
    }

    /// How much.
    pub fn len(&self) -> usize {
        (self.end - self.first.offset) as usize
    }

    /// Takes the next blob in the order of the pack, if it is near enough.
    fn takes(&mut self, index: usize, place: Place) -> bool {
        let is_near = place.pack == self.first.pack
            && place.offset.saturating_sub(self.end) <= READ_GAP
            && place.end() - self.first.offset <= READ_BYTES;
        if is_near {
            let start = (place.offset - self.first.offset) as usize;
            self.blobs.push((index, start..start + place.len as usize));
            self.end = self.end.max(place.end());
        }
        is_near
    }
}

/// The reads for blobs at these places, each with its number in the request.
pub fn plan(mut found: Vec<(Place, usize)>) -> Vec<Run> {
    found.sort_unstable();
    let mut runs: Vec<Run> = Vec::new();
    for (place, index) in found {
        let last = runs.last_mut();
        if !last.is_some_and(|run| run.takes(index, place)) {
            runs.push(Run::new(index, place));
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(pack: u64, offset: u32, len: u32) -> Place {
        Place { pack, offset, len }
    }

    #[test]
    fn neighbours_are_read_at_once_and_each_is_found_in_it() {
        let runs = plan(vec![
            (at(1, 1036, 1000), 0),
            (at(1, 0, 1000), 1),
            (at(1, 0, 1000), 2),
        ]);
        assert_eq!(runs.len(), 1);
        assert_eq!((runs[0].offset(), runs[0].len()), (0, 2036));
        assert_eq!(runs[0].blobs, [(1, 0..1000), (2, 0..1000), (0, 1036..2036)]);
    }

    #[test]
    fn packs_gaps_and_size_end_a_run() {
        let far = 1000 + READ_GAP + 1;
        let large = READ_BYTES + 1;
        let runs = plan(vec![
            (at(1, 0, 1000), 0),
            (at(1, far, 10), 1),
            (at(2, 0, 10), 2),
            (at(2, 10, large), 3),
        ]);
        let starts: Vec<_> = runs.iter().map(|run| (run.pack(), run.offset())).collect();
        assert_eq!(starts, [(1, 0), (1, far), (2, 0), (2, 10)]);
    }
}
