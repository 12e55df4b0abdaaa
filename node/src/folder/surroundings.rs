//! What is around an engine besides vault and blobs: the disk, the watcher, the clocks, and chance.
//!
//! [`Machine`] is the real one. The simulation has one whose time passes when it says so and whose chance is a seed, so
//! that the very engine that a node runs does the same twice.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use coffer_crdt::files::FileId;
use futures::future::BoxFuture;
use rand::Rng as _;
use tokio::time::Instant;

use super::disk::Disk;
use super::system::System;
use super::watch::Watcher;

/// The surroundings of an engine.
pub trait Surroundings: Send + Sync + 'static {
    /// The disk that the folder is on.
    fn disk(&self) -> Arc<dyn Disk>;
    /// Begins to watch the folder at `path`.
    fn watch(&self, path: &Path) -> Watcher;
    /// The clock that only goes forward.
    fn now(&self) -> Instant;
    /// Resolves at a time of that clock.
    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()>;
    /// Wall clock in milliseconds since 1970.
    fn wall_ms(&self) -> i64;
    /// A new id that no other is like.
    fn fresh(&self) -> FileId;
}

/// This machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine;

impl Surroundings for Machine {
    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(System)
    }

    fn watch(&self, path: &Path) -> Watcher {
        Watcher::start(path)
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep_until(at))
    }

    fn wall_ms(&self) -> i64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| {
                i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
            })
    }

    /// Begins with the time, as UUIDs of version 7 do: records of files that came together lie together in the database,
    /// so that a batch of thousands touches few of its pages. Who made a file, and when, is in its document anyway.
    fn fresh(&self) -> FileId {
        let mut id = [0; 16];
        let now = u64::try_from(self.wall_ms()).unwrap_or(0).to_be_bytes();
        id[..6].copy_from_slice(&now[2..]);
        rand::rng().fill_bytes(&mut id[6..]);
        FileId(id)
    }
}
