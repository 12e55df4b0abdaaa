//! What is on a virtual disk, and what a loss of power leaves of it.
//!
//! A journaling file system in its default mode: changes of names and attributes become durable in their order, and
//! bytes when somebody syncs them, or by luck. So after a crash names are as they were at some moment since the last
//! sync, and a file that nobody synced may have its new times and still its old bytes, or some of the new ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coffer_crdt::files::Kind;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// The folder that is synced.
pub const ROOT: u64 = 1;
/// A folder beside it.
pub const OUTSIDE: u64 = 2;

/// A file, folder or link.
#[derive(Clone, Debug)]
pub struct Inode {
    pub kind: Kind,
    /// Told apart from others that had the number before.
    pub born: u64,
    pub birth_ns: i128,
    pub mtime_ns: i128,
    pub ctime_ns: i128,
    pub mode: u32,
    pub bytes: Arc<Vec<u8>>,
    pub target: String,
    pub names: BTreeMap<String, u64>,
    pub parent: u64,
}

/// One change.
#[derive(Clone, Debug)]
pub enum Change {
    New {
        folder: u64,
        name: String,
        ino: u64,
        inode: Box<Inode>,
    },
    Rename {
        from: (u64, String),
        to: (u64, String),
        at_ns: i128,
    },
    Exchange {
        one: (u64, String),
        other: (u64, String),
        at_ns: i128,
    },
    Remove {
        folder: u64,
        name: String,
    },
    Attributes {
        ino: u64,
        mode: u32,
        mtime_ns: i128,
        at_ns: i128,
    },
    Bytes {
        ino: u64,
        bytes: Arc<Vec<u8>>,
        at_ns: i128,
        synced: bool,
    },
}

/// All inodes.
#[derive(Clone, Debug)]
pub struct Image {
    pub inodes: BTreeMap<u64, Inode>,
    /// Numbers to be used again, the last one first.
    free: Vec<u64>,
    next: u64,
}

impl Image {
    pub fn empty() -> Image {
        let folder = |born| Inode {
            kind: Kind::Folder,
            born,
            birth_ns: 0,
            mtime_ns: 0,
            ctime_ns: 0,
            mode: 0o755,
            bytes: Arc::default(),
            target: String::new(),
            names: BTreeMap::new(),
            parent: 0,
        };
        Image {
            inodes: BTreeMap::from([(ROOT, folder(1)), (OUTSIDE, folder(2))]),
            free: Vec::new(),
            next: 100,
        }
    }

    /// The number that the next new inode gets.
    pub fn next(&self) -> u64 {
        self.free.last().copied().unwrap_or(self.next)
    }

    pub fn child(&self, folder: u64, name: &str) -> Option<u64> {
        self.inodes.get(&folder)?.names.get(name).copied()
    }

    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::New {
                folder,
                name,
                ino,
                inode,
            } => {
                self.free.retain(|free| free != ino);
                self.next = self.next.max(ino + 1);
                self.inodes.insert(*ino, (**inode).clone());
                self.enter(*folder, name, *ino);
            }
            Change::Rename { from, to, at_ns } => {
                let Some(ino) = self.child(from.0, &from.1) else {
                    return;
                };
                if let Some(old) = self.child(to.0, &to.1).filter(|old| *old != ino) {
                    self.free(old);
                }
                self.leave(from.0, &from.1);
                self.enter(to.0, &to.1, ino);
                self.changed(ino, *at_ns);
            }
            Change::Exchange { one, other, at_ns } => {
                let (Some(a), Some(b)) = (self.child(one.0, &one.1), self.child(other.0, &other.1))
                else {
                    return;
                };
                self.enter(one.0, &one.1, b);
                self.enter(other.0, &other.1, a);
                self.changed(a, *at_ns);
                self.changed(b, *at_ns);
            }
            Change::Remove { folder, name } => {
                if let Some(ino) = self.child(*folder, name) {
                    self.leave(*folder, name);
                    self.free(ino);
                }
            }
            Change::Attributes {
                ino,
                mode,
                mtime_ns,
                at_ns,
            } => {
                if let Some(inode) = self.inodes.get_mut(ino) {
                    (inode.mode, inode.mtime_ns, inode.ctime_ns) = (*mode, *mtime_ns, *at_ns);
                }
            }
            Change::Bytes {
                ino, bytes, at_ns, ..
            } => {
                if let Some(inode) = self.inodes.get_mut(ino) {
                    inode.bytes = bytes.clone();
                    (inode.mtime_ns, inode.ctime_ns) = (*at_ns, *at_ns);
                }
            }
        }
    }

    fn changed(&mut self, ino: u64, at_ns: i128) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.ctime_ns = at_ns;
        }
    }

    fn enter(&mut self, folder: u64, name: &str, ino: u64) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.parent = folder;
        }
        if let Some(inode) = self.inodes.get_mut(&folder) {
            inode.names.insert(name.to_owned(), ino);
        }
    }

    fn leave(&mut self, folder: u64, name: &str) {
        if let Some(inode) = self.inodes.get_mut(&folder) {
            inode.names.remove(name);
        }
    }

    fn free(&mut self, ino: u64) {
        if self.inodes.remove(&ino).is_some() {
            self.free.push(ino);
        }
    }

    /// All below a folder, by path: its number and what it is.
    pub fn below(&self, folder: u64) -> Vec<(String, u64)> {
        let (mut all, mut open) = (Vec::new(), vec![(String::new(), folder)]);
        while let Some((path, folder)) = open.pop() {
            for (name, ino) in &self.inodes[&folder].names {
                let path = match path.as_str() {
                    "" => name.clone(),
                    path => format!("{path}/{name}"),
                };
                if self.inodes[ino].kind == Kind::Folder {
                    open.push((path.clone(), *ino));
                }
                all.push((path, *ino));
            }
        }
        all.sort();
        all
    }

    /// Path of a folder from the root; `None` if it is elsewhere.
    pub fn path(&self, mut ino: u64) -> Option<String> {
        let mut names = Vec::new();
        while ino != ROOT {
            let parent = self.inodes.get(&ino)?.parent;
            let name = self
                .inodes
                .get(&parent)?
                .names
                .iter()
                .find(|(_, child)| **child == ino)?
                .0;
            names.push(name.as_str());
            ino = parent;
        }
        names.reverse();
        Some(names.join("/"))
    }

    /// The contents of all files in the synced folder.
    pub fn contents_inside(&self) -> BTreeSet<Arc<Vec<u8>>> {
        self.contents_below(ROOT)
    }

    /// The contents of all files that people moved out of the synced folder, or that came into a folder which they moved
    /// out in that moment.
    pub fn contents_outside(&self) -> BTreeSet<Arc<Vec<u8>>> {
        self.contents_below(OUTSIDE)
    }

    fn contents_below(&self, folder: u64) -> BTreeSet<Arc<Vec<u8>>> {
        let files = self.below(folder).into_iter();
        files
            .map(|(_, ino)| &self.inodes[&ino])
            .filter(|inode| inode.kind == Kind::File)
            .map(|inode| inode.bytes.clone())
            .collect()
    }

    /// The contents of all files, wherever they are.
    pub fn contents(&self) -> BTreeSet<Arc<Vec<u8>>> {
        let files = self.inodes.values();
        let files = files.filter(|inode| inode.kind == Kind::File);
        files.map(|inode| inode.bytes.clone()).collect()
    }
}

/// An image, and how much of it would survive.
#[derive(Debug)]
pub struct Journal {
    pub now: Image,
    durable: Image,
    log: Vec<Change>,
    /// How many of the changes in the log are durable but for unsynced bytes.
    committed: usize,
}

impl Journal {
    pub fn new() -> Journal {
        Journal {
            now: Image::empty(),
            durable: Image::empty(),
            log: Vec::new(),
            committed: 0,
        }
    }

    pub fn change(&mut self, change: Change) {
        self.now.apply(&change);
        self.log.push(change);
    }

    /// All that was written becomes durable.
    pub fn sync_all(&mut self) {
        self.durable = self.now.clone();
        self.log.clear();
        self.committed = 0;
    }

    /// One file's bytes become durable, and all names.
    pub fn sync(&mut self, file: u64) {
        for change in &mut self.log {
            if let Change::Bytes { ino, synced, .. } = change
                && *ino == file
            {
                *synced = true;
            }
        }
        self.committed = self.log.len();
    }

    /// The power fails: what is durable stays, and by luck some of the rest.
    pub fn crash(&mut self, dice: &mut ChaCha8Rng) {
        let kept = dice.random_range(self.committed..=self.log.len());
        let mut image = self.durable.clone();
        for change in &self.log[..kept] {
            match change {
                Change::Bytes {
                    ino,
                    bytes,
                    at_ns,
                    synced: false,
                } => {
                    let old = image.inodes.get(ino).map(|inode| inode.bytes.clone());
                    let left = match dice.random_range(0..3) {
                        0 => bytes.clone(),
                        1 => old.unwrap_or_default(),
                        _ => Arc::new(bytes[..dice.random_range(0..=bytes.len())].to_vec()),
                    };
                    image.apply(&Change::Bytes {
                        ino: *ino,
                        bytes: left,
                        at_ns: *at_ns,
                        synced: true,
                    });
                }
                change => image.apply(change),
            }
        }
        self.now = image.clone();
        self.durable = image;
        self.log.clear();
        self.committed = 0;
    }
}
