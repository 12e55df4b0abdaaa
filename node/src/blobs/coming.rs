//! How much has come of large contents that are not whole yet, for who waits for one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::jobs::StoreJob;
use super::lock;

/// Smaller contents come at once, and are not followed.
const LARGE: u64 = 1 << 20;

/// What every transfer under way has brought.
#[derive(Default)]
pub(super) struct Coming(Mutex<Vec<Weak<Arrivals>>>);

/// What one transfer has brought of each of its large contents; over with the transfer.
#[derive(Default)]
pub(super) struct Arrivals(HashMap<usize, Arrival>);

struct Arrival {
    hash: [u8; 32],
    bytes: AtomicU64,
}

impl Coming {
    /// Follows a transfer of these contents, in the order of its jobs.
    pub fn follow<'a>(&self, jobs: impl Iterator<Item = &'a StoreJob>) -> Arc<Arrivals> {
        let large = jobs.enumerate().filter(|(_, job)| job.size >= LARGE);
        let arrivals = large.map(|(index, job)| {
            let arrival = Arrival {
                hash: job.hash,
                bytes: AtomicU64::new(0),
            };
            (index, arrival)
        });
        let arrivals = Arc::new(Arrivals(arrivals.collect()));
        if !arrivals.0.is_empty() {
            let mut followed = lock(&self.0);
            followed.retain(|arrivals| arrivals.strong_count() > 0);
            followed.push(Arc::downgrade(&arrivals));
        }
        arrivals
    }

    /// Bytes that have come of contents under way, by their hashes.
    pub fn bytes(&self) -> HashMap<[u8; 32], u64> {
        let followed: Vec<Arc<Arrivals>> = lock(&self.0).iter().filter_map(Weak::upgrade).collect();
        let mut bytes: HashMap<[u8; 32], u64> = HashMap::new();
        for arrival in followed.iter().flat_map(|arrivals| arrivals.0.values()) {
            let come = arrival.bytes.load(Ordering::Relaxed);
            if come > 0 {
                // Two transfers of one content bring the same bytes.
                let known = bytes.entry(arrival.hash).or_default();
                *known = come.max(*known);
            }
        }
        bytes
    }
}

impl Arrivals {
    /// Bytes of a job's content are here.
    pub fn add(&self, job: usize, len: u64) {
        if let Some(arrival) = self.0.get(&job) {
            arrival.bytes.fetch_add(len, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use coffer_crdt::chunks::{ChunkList, ChunkRoot};

    use super::*;

    fn job(hash: u8, size: u64) -> StoreJob {
        StoreJob {
            key: 0,
            size,
            hash: [hash; 32],
            root: ChunkRoot::Inline(ChunkList::default()),
        }
    }

    #[test]
    fn large_contents_are_followed_as_long_as_they_are_under_way() {
        let coming = Coming::default();
        let jobs = [job(1, LARGE), job(2, LARGE - 1), job(3, 9 * LARGE)];
        let one = coming.follow(jobs.iter());
        let other = coming.follow(jobs.iter());
        one.add(0, 100);
        one.add(0, 50);
        one.add(1, 7);
        other.add(0, 90);
        assert_eq!(coming.bytes(), HashMap::from([([1; 32], 150)]));
        drop(one);
        assert_eq!(coming.bytes(), HashMap::from([([1; 32], 90)]));
        drop(other);
        assert!(coming.bytes().is_empty());
    }
}
