//! What the watcher noted and what is due: when the loop looks at which part of the folder.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::engine::{Engine, add_part};
use super::watch::Watcher;
use super::{Contents, FolderVault};

/// How long after the first event to look: long enough for the rest of what one program does at once.
const DEBOUNCE: Duration = Duration::from_millis(35);
/// Everything is looked at so often, for what watching misses.
pub(super) const RESCAN: Duration = Duration::from_secs(600);
/// The same where nothing can be watched.
const RESCAN_UNWATCHED: Duration = Duration::from_secs(30);

impl<V: FolderVault, C: Contents> Engine<V, C> {
    /// Begins to wait for the rest of what one program does at once. Events of our own hidden files note nothing: were
    /// they to count, asking whether all is settled would itself unsettle it.
    pub(super) fn note_events(&mut self) {
        if self
            .watcher
            .as_ref()
            .is_some_and(|watcher| !watcher.is_quiet())
        {
            let now = self.around.now();
            self.noted_since.get_or_insert(now);
        }
    }

    /// Takes over what the watcher noted, if it has had its time.
    pub(super) fn absorb(&mut self) {
        if self
            .noted_since
            .is_some_and(|since| self.around.now() >= since + DEBOUNCE)
        {
            self.absorb_now();
        }
    }

    pub(super) fn absorb_now(&mut self) {
        self.noted_since = None;
        let Some(watcher) = &self.watcher else { return };
        let noted = watcher.take();
        self.everything |= noted.everything;
        for (path, depth) in noted.parts {
            add_part(&mut self.parts, path, depth);
        }
        for path in &noted.written {
            self.closed.remove(path);
        }
        self.closed.extend(noted.closed);
        if let Some(reason) = noted.unwatched {
            self.read_problems.insert(PathBuf::new(), reason);
        }
    }

    pub(super) fn tick(&mut self) {
        let now = self.around.now();
        if self
            .doubted_parts
            .as_ref()
            .is_some_and(|(at, ..)| *at <= now)
        {
            // Before something counts as deleted, everything that is noted is looked at: it may be where it went.
            self.absorb_now();
        }
        self.absorb();
        for (_, path, depth) in self.later.extract_if(.., |(at, ..)| *at <= now) {
            add_part(&mut self.parts, path, depth);
        }
        if let Some((_, parts, everything)) = self.doubted_parts.take_if(|(at, ..)| *at <= now) {
            self.everything |= everything;
            for (path, depth) in parts {
                add_part(&mut self.parts, path, depth);
            }
        }
        if self.rescan_at <= now {
            self.everything = true;
            let watched = self.watcher.as_ref().is_some_and(Watcher::is_watching)
                && !self.read_problems.contains_key(&PathBuf::new());
            self.rescan_at = now + if watched { RESCAN } else { RESCAN_UNWATCHED };
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.ask_again();
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        let noted = self.noted_since.map(|since| since + DEBOUNCE);
        let later = self.later.iter().map(|(at, ..)| *at).min();
        let doubted = self.doubted_parts.as_ref().map(|(at, ..)| *at);
        let braked = self.braked.as_ref().filter(|_| self.has_local_work());
        let losses = braked.map(|braked| braked.look_at);
        [
            noted,
            later,
            doubted,
            losses,
            self.retry_at,
            Some(self.rescan_at),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(self.rescan_at)
    }
}
