//! Which parts of a synced folder changed, by the file system's own word.
//!
//! The watcher's thread only notes folders in a bounded set ([`Noted`]) that the engine takes when it gets to it; a
//! flood of events costs no memory. Nothing is believed because of an event: it only says where to look. Where events
//! may have been lost, everything is looked at.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use notify::event::{AccessKind, AccessMode, EventKindMask, ModifyKind, RenameMode};
use notify::{Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use super::place::HIDDEN;
use super::scan::{Depth, Parts};

/// Folders noted, at most; beyond, all is looked at. Some 10,000 paths are a megabyte.
const MAX_PARTS: usize = 10_000;

/// Files noted as closed or written, at most; beyond, they count as neither, and rest for a second before they are read.
const MAX_FILES: usize = 50_000;

/// What happened since the last [`Watcher::take`].
#[derive(Debug, Default)]
pub struct Noted {
    /// Folders to look into.
    pub parts: Parts,
    /// Events may have been lost: look everywhere.
    pub everything: bool,
    /// Files that a writer closed, or that were renamed, and not written to since.
    pub closed: BTreeSet<PathBuf>,
    /// Files written to and not closed since.
    pub written: BTreeSet<PathBuf>,
    /// Why some folders cannot be watched; they are looked at from time to time instead.
    pub unwatched: Option<String>,
    /// Files written to and not closed since, also before the last [`Watcher::take`]: a rename does not close them.
    open: BTreeSet<PathBuf>,
    cookie: u64,
}

impl Noted {
    fn note(&mut self, folder: &Path, depth: Depth) {
        if self.parts.len() >= MAX_PARTS {
            self.everything = true;
            self.parts.clear();
        }
        if !self.everything {
            let noted = self.parts.entry(folder.to_path_buf()).or_insert(depth);
            *noted = depth.max(*noted);
        }
    }

    fn event(&mut self, root: &Path, event: &Event) {
        if event.need_rescan() {
            self.everything = true;
        }
        let is_closed = matches!(
            event.kind,
            EventKind::Access(AccessKind::Close(AccessMode::Write))
                | EventKind::Modify(ModifyKind::Name(RenameMode::To))
        );
        let is_written = matches!(event.kind, EventKind::Modify(ModifyKind::Data(_)));
        if event.kind == EventKind::Modify(ModifyKind::Name(RenameMode::Both)) {
            self.renamed(root, &event.paths);
        }
        let ends = matches!(event.kind, EventKind::Access(_) | EventKind::Remove(_));
        for path in &event.paths {
            let Ok(path) = path.strip_prefix(root) else {
                continue;
            };
            if let Ok(own) = path.strip_prefix(HIDDEN) {
                self.own(own);
                continue;
            }
            if self.closed.len() + self.written.len() + self.open.len() >= MAX_FILES {
                self.closed.clear();
                self.written.clear();
                self.open.clear();
            }
            if ends {
                self.open.remove(path);
            }
            if is_closed {
                self.written.remove(path);
                self.closed.insert(path.to_path_buf());
            } else if is_written {
                self.closed.remove(path);
                if !self.written.contains(path) {
                    self.written.insert(path.to_path_buf());
                    self.open.insert(path.to_path_buf());
                }
            }
            self.note(path.parent().unwrap_or(Path::new("")), Depth::Shallow);
        }
    }

    /// A file that is being written goes on being written under its new name, which was noted as closed before.
    fn renamed(&mut self, root: &Path, paths: &[PathBuf]) {
        if let [from, to] = paths
            && let (Ok(from), Ok(to)) = (from.strip_prefix(root), to.strip_prefix(root))
            && self.open.remove(from)
        {
            self.closed.remove(to);
            self.written.insert(to.to_path_buf());
            self.open.insert(to.to_path_buf());
        }
    }

    /// Something within the hidden folder: only the cookies are of interest.
    fn own(&mut self, path: &Path) {
        let number = path
            .to_str()
            .and_then(|name| name.strip_prefix(COOKIE))
            .and_then(|number| number.parse().ok());
        self.cookie = self.cookie.max(number.unwrap_or(0));
    }
}

/// Names of files that are made only to see their events come: when one has, all earlier events have.
pub const COOKIE: &str = "cookie-";

/// Watches a synced folder until it is dropped.
pub struct Watcher {
    noted: Arc<Mutex<Noted>>,
    filled: Arc<Notify>,
    /// `None` where watching is not possible at all.
    watcher: Option<Ears>,
}

/// What events come from.
enum Ears {
    System {
        /// Watches until it is dropped.
        _watcher: RecommendedWatcher,
    },
    #[cfg(test)]
    Test,
}

/// Where a simulation's events go in: the other end of a [`Watcher`].
#[cfg(test)]
#[derive(Clone)]
pub struct Mouth {
    noted: Arc<Mutex<Noted>>,
    filled: Arc<Notify>,
}

#[cfg(test)]
impl Mouth {
    /// As if the file system had told of it.
    pub fn tell(&self, root: &Path, event: &Event) {
        lock(&self.noted).event(root, event);
        self.filled.notify_one();
    }
}

impl Watcher {
    /// Begins to watch. What cannot be watched is said in [`Noted::unwatched`], never an error.
    pub fn start(root: &Path) -> Watcher {
        let (noted, filled) = (
            Arc::new(Mutex::new(Noted::default())),
            Arc::new(Notify::new()),
        );
        let handler = {
            let (noted, filled, root) = (noted.clone(), filled.clone(), root.to_path_buf());
            move |event: notify::Result<Event>| {
                let mut noted = lock(&noted);
                match event {
                    Ok(event) => noted.event(&root, &event),
                    Err(error) => {
                        noted.everything = true;
                        noted.unwatched = Some(reason(&error));
                    }
                }
                drop(noted);
                filled.notify_one();
            }
        };
        let mask = EventKindMask::CREATE
            | EventKindMask::REMOVE
            | EventKindMask::MODIFY_DATA
            | EventKindMask::MODIFY_META
            | EventKindMask::MODIFY_NAME
            | EventKindMask::ACCESS_CLOSE;
        let config = Config::default()
            .with_follow_symlinks(false)
            .with_event_kinds(mask);
        let started = RecommendedWatcher::new(handler, config).and_then(|mut watcher| {
            watcher.watch(root, RecursiveMode::Recursive)?;
            // Our own temporary files are of no interest, and there are many.
            for own in ["tmp", "kept"] {
                let _ = watcher.unwatch(&root.join(HIDDEN).join(own));
            }
            Ok(watcher)
        });
        let watcher = match started {
            Ok(watcher) => Some(Ears::System { _watcher: watcher }),
            Err(error) => {
                lock(&noted).unwatched = Some(reason(&error));
                None
            }
        };
        Watcher {
            noted,
            filled,
            watcher,
        }
    }

    /// One that hears what a test tells it.
    #[cfg(test)]
    pub fn listening() -> (Watcher, Mouth) {
        let mouth = Mouth {
            noted: Arc::default(),
            filled: Arc::default(),
        };
        let watcher = Watcher {
            noted: mouth.noted.clone(),
            filled: mouth.filled.clone(),
            watcher: Some(Ears::Test),
        };
        (watcher, mouth)
    }

    /// Whether anything is watched.
    pub fn is_watching(&self) -> bool {
        self.watcher.is_some()
    }

    /// Takes what was noted.
    pub fn take(&self) -> Noted {
        let mut noted = lock(&self.noted);
        let (cookie, open) = (noted.cookie, std::mem::take(&mut noted.open));
        std::mem::replace(
            &mut *noted,
            Noted {
                cookie,
                open,
                ..Noted::default()
            },
        )
    }

    /// Whether nothing was noted since it was last taken.
    pub fn is_quiet(&self) -> bool {
        let noted = lock(&self.noted);
        noted.parts.is_empty() && !noted.everything
    }

    /// Resolves when something may have been noted.
    pub async fn noted(&self) {
        self.filled.notified().await;
    }

    /// Whether the event of the cookie with this number has come.
    pub fn has_seen(&self, cookie: u64) -> bool {
        lock(&self.noted).cookie >= cookie
    }
}

fn lock(noted: &Mutex<Noted>) -> MutexGuard<'_, Noted> {
    noted.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reason(error: &notify::Error) -> String {
    match error.kind {
        notify::ErrorKind::MaxFilesWatch => {
            "the system's limit of watched folders is reached (raise fs.inotify.max_user_watches); changes are found by looking from time to time".into()
        }
        _ => format!("changes are found by looking from time to time, because the folder cannot be watched: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{CreateKind, DataChange, Flag};

    fn event(kind: EventKind, path: &str) -> Event {
        Event::new(kind).add_path(PathBuf::from(path))
    }

    const WRITTEN: EventKind = EventKind::Modify(ModifyKind::Data(DataChange::Any));
    const CLOSED: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));

    #[test]
    fn a_file_rests_when_its_last_writer_closed_it() {
        let mut noted = Noted::default();
        noted.event(Path::new("/r"), &event(WRITTEN, "/r/a/f"));
        assert!(noted.written.contains(Path::new("a/f")));
        noted.event(Path::new("/r"), &event(CLOSED, "/r/a/f"));
        assert!(noted.closed.contains(Path::new("a/f")) && noted.written.is_empty());
        noted.event(Path::new("/r"), &event(WRITTEN, "/r/a/f"));
        assert!(noted.closed.is_empty());
        assert_eq!(noted.parts, Parts::from([("a".into(), Depth::Shallow)]));
    }

    #[test]
    fn a_rename_does_not_close_a_file_that_is_being_written() {
        const TO: EventKind = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        const BOTH: EventKind = EventKind::Modify(ModifyKind::Name(RenameMode::Both));
        let both = || event(BOTH, "/r/a").add_path("/r/b".into());
        let mut noted = Noted::default();
        noted.event(Path::new("/r"), &event(WRITTEN, "/r/a"));
        noted.event(Path::new("/r"), &event(TO, "/r/b"));
        noted.event(Path::new("/r"), &both());
        assert!(noted.closed.is_empty() && noted.written.contains(Path::new("b")));
        noted.event(Path::new("/r"), &event(CLOSED, "/r/b"));
        assert!(noted.closed.contains(Path::new("b")));
        // One that was closed before is closed under its new name.
        let mut noted = Noted::default();
        noted.event(Path::new("/r"), &event(WRITTEN, "/r/a"));
        noted.event(Path::new("/r"), &event(CLOSED, "/r/a"));
        noted.event(Path::new("/r"), &event(TO, "/r/b"));
        noted.event(Path::new("/r"), &both());
        assert!(noted.closed.contains(Path::new("b")));
    }

    #[test]
    fn a_flood_of_events_is_bounded_and_lost_ones_are_made_good_by_looking_everywhere() {
        let mut noted = Noted::default();
        for number in 0..MAX_PARTS + 5 {
            noted.event(
                Path::new("/r"),
                &event(
                    EventKind::Create(CreateKind::File),
                    &format!("/r/{number}/f"),
                ),
            );
        }
        assert!(noted.everything && noted.parts.is_empty());
        let mut noted = Noted::default();
        noted.event(
            Path::new("/r"),
            &Event::new(EventKind::Other).set_flag(Flag::Rescan),
        );
        assert!(noted.everything);
    }

    #[test]
    fn what_happens_in_the_hidden_place_is_not_looked_at() {
        let mut noted = Noted::default();
        noted.event(Path::new("/r"), &event(WRITTEN, "/r/.vault/tmp/x"));
        noted.event(
            Path::new("/r"),
            &event(EventKind::Create(CreateKind::File), "/r/.vault/cookie-7"),
        );
        assert!(noted.parts.is_empty());
        assert_eq!(noted.cookie, 7);
    }
}
