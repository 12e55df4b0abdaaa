//! Progress of long work, told while it goes on.

use std::fs::Metadata;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::MAX_DEPTH;
use crate::control::{Progress, Session, Stage};

/// How often progress is told.
const EVERY: Duration = Duration::from_millis(200);

/// Tells how far the work is until it is dropped.
pub(super) struct Telling(JoinHandle<()>);

impl Telling {
    /// `now` says what is done, and of how much where that is known.
    pub fn start(
        session: &Session,
        stage: Stage,
        now: impl Fn() -> (u64, Option<u64>) + Send + 'static,
    ) -> Telling {
        let reporter = session.reporter();
        Telling(tokio::spawn(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                let (done, total) = now();
                reporter(Progress {
                    stage,
                    done,
                    // What grows while it is read has no end before it is reached.
                    total: total.map(|total| total.max(done)),
                    about: None,
                });
            }
        }))
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How many bytes lie in files and folders of this machine: counted beside the work on them, which does not wait.
#[derive(Default)]
pub(super) struct Measure {
    bytes: AtomicU64,
    is_done: AtomicBool,
    given_up: AtomicBool,
}

/// Has the counting given up when the work ends first.
pub(super) struct Measuring(Arc<Measure>);

impl Measuring {
    /// Begins to count.
    pub fn start(places: Vec<PathBuf>) -> Measuring {
        let measure = Arc::new(Measure::default());
        let counting = measure.clone();
        drop(tokio::task::spawn_blocking(move || counting.count(places)));
        Measuring(measure)
    }

    /// Where to look for the sum.
    pub fn measure(&self) -> Arc<Measure> {
        self.0.clone()
    }
}

impl Drop for Measuring {
    fn drop(&mut self) {
        self.0.given_up.store(true, Ordering::Relaxed);
    }
}

impl Measure {
    /// The sum, once it is known.
    pub fn total(&self) -> Option<u64> {
        self.is_done
            .load(Ordering::Acquire)
            .then(|| self.bytes.load(Ordering::Relaxed))
    }

    fn count(&self, places: Vec<PathBuf>) {
        let mut left: Vec<(PathBuf, usize)> = places.into_iter().map(|place| (place, 0)).collect();
        while let Some((place, depth)) = left.pop() {
            if self.given_up.load(Ordering::Relaxed) {
                return;
            }
            let Ok(about) = place.symlink_metadata() else {
                continue;
            };
            self.add(&about);
            if about.is_dir() && depth < MAX_DEPTH {
                let within = std::fs::read_dir(&place).into_iter().flatten().flatten();
                left.extend(within.map(|entry| (entry.path(), depth + 1)));
            }
        }
        self.is_done.store(true, Ordering::Release);
    }

    fn add(&self, about: &Metadata) {
        if about.is_file() {
            self.bytes.fetch_add(about.len(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_below_folders_are_counted_and_links_are_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/c"), [0; 700]).unwrap();
        std::fs::write(dir.path().join("d"), [0; 50]).unwrap();
        std::os::unix::fs::symlink(dir.path().join("d"), dir.path().join("a/link")).unwrap();
        let measure = Measure::default();
        assert_eq!(measure.total(), None);
        measure.count(vec![
            dir.path().join("a"),
            dir.path().join("d"),
            dir.path().join("not there"),
        ]);
        assert_eq!(measure.total(), Some(750));
    }
}
