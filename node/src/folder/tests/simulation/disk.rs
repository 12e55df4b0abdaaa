//! A disk in memory for one device: what the engine asks of it, and what people do to it.
//!
//! Every change is told to the watcher, as the system does; every change by the engine is a boundary at which the power
//! can fail ([`super::power`]), and between any two calls of the engine somebody may be at work ([`Intrusion`]).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use coffer_crdt::files::Kind;
use notify::event::{
    AccessKind, AccessMode, CreateKind, DataChange, EventKind, MetadataKind, ModifyKind,
    RemoveKind, RenameMode,
};

use super::super::super::ground::Stat;
use super::super::super::profile::Profile;
use super::image::{Change, Image, Inode, Journal, ROOT};
use super::power::Power;
use super::time::Clock;

/// Where the synced folder is.
pub const PATH: &str = "/sync";
/// Where the folder beside it is.
pub const OUTSIDE_PATH: &str = "/outside";

/// The step in which a portable disk keeps times that are set.
const PORTABLE_STEP_MS: i64 = 2000;

/// How a disk differs from others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nature {
    /// It takes no names that FAT and NTFS do not, and of a time that is set to a file it keeps whole two seconds. What
    /// is written gets a finer one: that nobody can tell two writes within two seconds apart by their times is that file
    /// system's own doing, and no care of the engine's would help.
    pub portable: bool,
    /// It knows no rename but the plain one.
    pub plain_renames: bool,
}

/// What happens while the engine is at it: a countdown of its calls, and what to do.
pub type Intrusion = (u64, Box<dyn FnOnce() + Send>);

/// What a change is to the watcher.
#[derive(Clone, Debug)]
pub struct Told {
    pub kind: EventKind,
    pub path: PathBuf,
}

pub(super) struct Inner {
    pub journal: Journal,
    pub nature: Nature,
    told: Vec<Told>,
    full: bool,
    gone: bool,
    born: u64,
    /// Whether somebody came in between right before the call that is being answered.
    intruded: bool,
    /// What the engine replaced because of that, where the disk has no rename that would refuse to.
    pub overwritten: Vec<Arc<Vec<u8>>>,
}

/// A disk.
pub struct VirtualDisk {
    inner: Mutex<Inner>,
    pub power: Arc<Power>,
    pub clock: Arc<Clock>,
    intrusion: Mutex<Option<Intrusion>>,
}

impl std::fmt::Debug for VirtualDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a virtual disk")
    }
}

pub(super) fn errno(error: rustix::io::Errno) -> io::Error {
    error.into()
}

impl Inner {
    pub fn tell(&mut self, kind: EventKind, folder: u64, name: &str) {
        if let Some(folder) = self.journal.now.path(folder) {
            let hidden = [".vault/tmp", ".vault/kept"];
            if !hidden.contains(&folder.as_str()) {
                let path = Path::new(PATH).join(folder).join(name);
                self.told.push(Told { kind, path });
            }
        }
    }

    pub fn tell_of(&mut self, kind: EventKind, ino: u64) {
        let inode = self.journal.now.inodes.get(&ino);
        let Some(parent) = inode.map(|inode| inode.parent) else {
            return;
        };
        let names = self.journal.now.inodes.get(&parent);
        let name = names.and_then(|parent| {
            let mut names = parent.names.iter();
            names
                .find(|(_, child)| **child == ino)
                .map(|(name, _)| name.clone())
        });
        if let Some(name) = name {
            self.tell(kind, parent, &name);
        }
    }

    pub fn make(
        &mut self,
        folder: u64,
        name: &str,
        kind: Kind,
        mode: u32,
        target: &str,
        at_ns: i128,
    ) -> u64 {
        let ino = self.journal.now.next();
        self.born += 1;
        let inode = Inode {
            kind,
            born: self.born,
            birth_ns: at_ns,
            mtime_ns: at_ns,
            ctime_ns: at_ns,
            mode,
            bytes: Arc::default(),
            target: target.to_owned(),
            names: Default::default(),
            parent: folder,
        };
        self.journal.change(Change::New {
            folder,
            name: name.to_owned(),
            ino,
            inode: Box::new(inode),
        });
        let made = match kind {
            Kind::Folder => CreateKind::Folder,
            _ => CreateKind::File,
        };
        self.tell(EventKind::Create(made), folder, name);
        ino
    }

    /// Something is about to be renamed over what is there. Where a disk knows no rename that refuses to, the engine looks
    /// first; who comes between looking and renaming loses, and the engine says that it accepts that.
    pub fn replaces(&mut self, folder: u64, name: &str) {
        let there = self.journal.now.child(folder, name);
        if self.nature.plain_renames
            && self.intruded
            && let Some(inode) = there.and_then(|ino| self.journal.now.inodes.get(&ino))
        {
            self.overwritten.push(inode.bytes.clone());
        }
    }

    pub fn bytes(&mut self, ino: u64, bytes: Vec<u8>, closes: bool, at_ns: i128) {
        self.journal.change(Change::Bytes {
            ino,
            bytes: Arc::new(bytes),
            at_ns,
            synced: false,
        });
        self.tell_of(EventKind::Modify(ModifyKind::Data(DataChange::Any)), ino);
        if closes {
            self.tell_of(EventKind::Access(AccessKind::Close(AccessMode::Write)), ino);
        }
    }

    /// Sets permissions and the modification time: to what it is as it is, to another as exactly as the disk keeps it.
    pub fn mark(&mut self, ino: u64, mode: u32, mtime_ns: i128, at_ns: i128) {
        let before = self.journal.now.inodes.get(&ino);
        let is_new = before.is_none_or(|inode| inode.mtime_ns != mtime_ns);
        let step_ns = match self.nature.portable && is_new {
            true => i128::from(PORTABLE_STEP_MS) * 1_000_000,
            false => 1,
        };
        self.journal.change(Change::Attributes {
            ino,
            mode,
            mtime_ns: mtime_ns.div_euclid(step_ns) * step_ns,
            at_ns,
        });
        let marked = EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any));
        self.tell_of(marked, ino);
    }

    pub fn rename(&mut self, from: (u64, &str), to: (u64, &str), at_ns: i128) {
        self.tell(
            EventKind::Modify(ModifyKind::Name(RenameMode::From)),
            from.0,
            from.1,
        );
        self.journal.change(Change::Rename {
            from: (from.0, from.1.to_owned()),
            to: (to.0, to.1.to_owned()),
            at_ns,
        });
        self.tell(
            EventKind::Modify(ModifyKind::Name(RenameMode::To)),
            to.0,
            to.1,
        );
    }

    pub fn remove(&mut self, folder: u64, name: &str) {
        self.tell(EventKind::Remove(RemoveKind::Any), folder, name);
        self.journal.change(Change::Remove {
            folder,
            name: name.to_owned(),
        });
    }

    pub fn stat(&self, ino: u64) -> Stat {
        let inode = &self.journal.now.inodes[&ino];
        Stat {
            kind: Some(inode.kind),
            inode: ino,
            device: 1,
            size: match inode.kind {
                Kind::Folder => 0,
                Kind::File => inode.bytes.len() as u64,
                Kind::Symlink => inode.target.len() as u64,
            },
            mtime_ns: inode.mtime_ns,
            ctime_ns: inode.ctime_ns,
            birth_ns: Some(inode.birth_ns),
            executable: inode.kind == Kind::File && inode.mode & 0o100 != 0,
            mode: inode.mode,
        }
    }
}

impl VirtualDisk {
    pub fn new(nature: Nature, power: Arc<Power>, clock: Arc<Clock>) -> Arc<VirtualDisk> {
        Arc::new(VirtualDisk {
            inner: Mutex::new(Inner {
                journal: Journal::new(),
                nature,
                told: Vec::new(),
                full: false,
                gone: false,
                born: 10,
                intruded: false,
                overwritten: Vec::new(),
            }),
            power,
            clock,
            intrusion: Mutex::new(None),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// A call of the engine: somebody may come between, and the power may fail before it.
    pub(super) fn call(&self, change: Option<&'static str>) -> io::Result<MutexGuard<'_, Inner>> {
        if !self.power.is_on() {
            return Err(errno(rustix::io::Errno::IO));
        }
        self.power.called();
        let intruded = self.intrude();
        if let Some(what) = change
            && !self.power.step(what)
        {
            return Err(errno(rustix::io::Errno::IO));
        }
        let mut inner = self.inner();
        inner.intruded = intruded;
        if inner.gone {
            return Err(errno(rustix::io::Errno::IO));
        }
        if inner.full && change.is_some_and(|what| NEEDS_ROOM.contains(&what)) {
            return Err(errno(rustix::io::Errno::NOSPC));
        }
        Ok(inner)
    }

    fn intrude(&self) -> bool {
        let mut intrusion = self.intrusion.lock().unwrap();
        let due = intrusion.as_mut().is_some_and(|(calls, _)| {
            *calls = calls.saturating_sub(1);
            *calls == 0
        });
        let act = if due { intrusion.take() } else { None };
        drop(intrusion);
        act.map(|(_, act)| act()).is_some()
    }

    /// What the engine could not help replacing, since the last time.
    pub fn take_overwritten(&self) -> Vec<Arc<Vec<u8>>> {
        std::mem::take(&mut self.inner().overwritten)
    }

    /// Lets somebody do something at the engine's `calls`th call from now.
    pub fn set_intrusion(&self, intrusion: Option<Intrusion>) {
        *self.intrusion.lock().unwrap() = intrusion;
    }

    /// What the watcher would be told, since the last time.
    pub fn take_told(&self) -> Vec<Told> {
        std::mem::take(&mut self.inner().told)
    }

    pub fn set_full(&self, full: bool) {
        self.inner().full = full;
    }

    /// Whether the disk is there.
    pub fn set_gone(&self, gone: bool) {
        self.inner().gone = gone;
    }

    /// The power fails.
    pub fn crash(&self, dice: &mut rand_chacha::ChaCha8Rng) {
        let mut inner = self.inner();
        inner.journal.crash(dice);
        inner.told.clear();
    }

    /// Whether there is nothing that the watcher would be told.
    pub fn told_nothing(&self) -> bool {
        self.inner().told.is_empty()
    }

    /// What names it takes.
    pub fn profile(&self) -> Profile {
        match self.inner().nature.portable {
            true => Profile {
                folds_case: false,
                folds_form: false,
                time_step_ms: PORTABLE_STEP_MS,
                ..Profile::NTFS
            },
            false => Profile::EXT4,
        }
    }

    /// The bytes of the file at a path, without anybody's notice.
    pub fn peek(&self, path: &Path) -> Option<Arc<Vec<u8>>> {
        let inner = self.inner();
        let inode = &inner.journal.now.inodes[&at(&inner.journal.now, path).ok()?];
        (inode.kind == Kind::File).then(|| inode.bytes.clone())
    }

    /// What is there now.
    pub fn image(&self) -> Image {
        self.inner().journal.now.clone()
    }

    /// Looks at what is there now.
    pub fn look<T>(&self, at: impl FnOnce(&Image) -> T) -> T {
        at(&self.inner().journal.now)
    }

    // What people do.

    pub fn person_make(&self, folder: u64, name: &str, kind: Kind, target: &str) -> u64 {
        let mode = if kind == Kind::Folder { 0o755 } else { 0o644 };
        let at = self.clock.file_ns();
        self.inner().make(folder, name, kind, mode, target, at)
    }

    pub fn person_bytes(&self, ino: u64, bytes: &[u8], closes: bool) {
        let at = self.clock.file_ns();
        self.inner().bytes(ino, bytes.to_vec(), closes, at);
    }

    pub fn person_rename(&self, from: (u64, &str), to: (u64, &str)) {
        let at = self.clock.file_ns();
        self.inner().rename(from, to, at);
    }

    pub fn person_remove(&self, folder: u64, name: &str) {
        self.inner().remove(folder, name);
    }

    pub fn person_mark(&self, ino: u64, mode: u32, mtime_ns: i128) {
        let at_ns = self.clock.file_ns();
        let mut inner = self.inner();
        inner.mark(ino, mode, mtime_ns, at_ns);
    }

    // What the blobs of this device do: they read by path and write temporary files.

    /// Where a path leads, with the system's word on it, and its bytes.
    pub fn fetch(&self, path: &Path) -> io::Result<(Stat, Arc<Vec<u8>>)> {
        let inner = self.call(None)?;
        let ino = at(&inner.journal.now, path)?;
        let inode = &inner.journal.now.inodes[&ino];
        Ok((inner.stat(ino), inode.bytes.clone()))
    }

    /// Writes a temporary file.
    pub fn store(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let parent = path.parent().ok_or(io::ErrorKind::NotFound)?;
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or(io::ErrorKind::NotFound)?;
        let mut inner = self.call(Some("make a temporary file"))?;
        let folder = at(&inner.journal.now, parent)?;
        let now = self.clock.file_ns();
        let ino = match inner.journal.now.child(folder, name) {
            Some(ino) => ino,
            None => inner.make(folder, name, Kind::File, 0o600, "", now),
        };
        drop(inner);
        for part in [&bytes[..bytes.len() / 2], bytes] {
            let mut inner = self.call(Some("write a temporary file"))?;
            let now = self.clock.file_ns();
            inner.bytes(ino, part.to_vec(), false, now);
        }
        Ok(())
    }

    /// Makes all durable.
    pub fn flush(&self) -> io::Result<()> {
        self.call(Some("sync the file system"))?.journal.sync_all();
        Ok(())
    }
}

/// Changes that a full disk refuses.
const NEEDS_ROOM: [&str; 6] = [
    "make a folder",
    "make a link",
    "make a file",
    "make a temporary file",
    "write a temporary file",
    "write a small file",
];

fn at(image: &Image, path: &Path) -> io::Result<u64> {
    let path = path
        .strip_prefix(PATH)
        .map_err(|_| io::ErrorKind::NotFound)?;
    let mut ino = ROOT;
    for name in path.components() {
        let name = name.as_os_str().to_str().ok_or(io::ErrorKind::NotFound)?;
        ino = image.child(ino, name).ok_or(io::ErrorKind::NotFound)?;
    }
    Ok(ino)
}
