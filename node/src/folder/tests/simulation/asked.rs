//! A virtual disk as the engine asks it: the simulation's side of the seam.

use std::any::Any;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::{Arc, MutexGuard};

use coffer_crdt::files::Kind;
use notify::event::{EventKind, ModifyKind, RenameMode};

use super::super::super::disk::{Dir, Disk, Folder, Onto};
use super::super::super::ground::Stat;
use super::disk::{Inner, OUTSIDE_PATH, PATH, VirtualDisk, errno};
use super::image::{Change, OUTSIDE, ROOT};

/// A disk is asked by way of this, so that what it opens knows it.
#[derive(Debug)]
pub struct Asked(pub Arc<VirtualDisk>);

impl Disk for Asked {
    fn open(&self, path: &Path) -> io::Result<Dir> {
        let inner = self.0.call(None).map_err(|_| io::ErrorKind::NotFound)?;
        let ino = match path.to_str() {
            Some(PATH) => ROOT,
            Some(OUTSIDE_PATH) => OUTSIDE,
            _ => return Err(io::ErrorKind::NotFound.into()),
        };
        let born = inner.journal.now.inodes[&ino].born;
        drop(inner);
        Ok(Arc::new(Open {
            disk: self.0.clone(),
            ino,
            born,
        }))
    }

    fn make_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove_all(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[derive(Debug)]
struct Open {
    disk: Arc<VirtualDisk>,
    ino: u64,
    born: u64,
}

impl Open {
    fn call(&self, change: Option<&'static str>) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.disk.call(change)?;
        match inner.journal.now.inodes.get(&self.ino) {
            Some(inode) if inode.born == self.born => Ok(inner),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn child(&self, inner: &Inner, name: &str) -> io::Result<u64> {
        let child = inner.journal.now.child(self.ino, name);
        child.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The child, which must be of a kind.
    fn of_kind(&self, inner: &Inner, name: &str, kind: Kind) -> io::Result<u64> {
        let ino = self.child(inner, name)?;
        match inner.journal.now.inodes[&ino].kind == kind {
            true => Ok(ino),
            false if kind == Kind::Folder => Err(io::ErrorKind::NotADirectory.into()),
            false => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn free(&self, inner: &Inner, name: &str) -> io::Result<()> {
        if inner.nature.portable && name.contains(['?', ':', '*', '"', '<', '>', '|', '\\']) {
            return Err(errno(rustix::io::Errno::INVAL));
        }
        match inner.journal.now.child(self.ino, name) {
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
            None => Ok(()),
        }
    }
}

impl Folder for Open {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(self.call(None)?.stat(self.ino))
    }

    fn stat_at(&self, name: &str) -> io::Result<Stat> {
        let inner = self.call(None)?;
        let ino = self.child(&inner, name)?;
        Ok(inner.stat(ino))
    }

    fn below(&self, relative: &Path) -> io::Result<Dir> {
        let inner = self.call(None)?;
        let mut ino = self.ino;
        for name in relative.components() {
            let name = name.as_os_str().to_str().ok_or(io::ErrorKind::NotFound)?;
            ino = inner
                .journal
                .now
                .child(ino, name)
                .ok_or(io::ErrorKind::NotFound)?;
            if inner.journal.now.inodes[&ino].kind != Kind::Folder {
                return Err(io::ErrorKind::NotADirectory.into());
            }
        }
        Ok(Arc::new(Open {
            disk: self.disk.clone(),
            ino,
            born: inner.journal.now.inodes[&ino].born,
        }))
    }

    fn list(&self) -> io::Result<Vec<OsString>> {
        let inner = self.call(None)?;
        let names = inner.journal.now.inodes[&self.ino].names.keys();
        Ok(names.map(OsString::from).collect())
    }

    fn make(&self, name: &str, mode: u32) -> io::Result<()> {
        let mut inner = self.call(Some("make a folder"))?;
        self.free(&inner, name)?;
        let now = self.disk.clock.file_ns();
        inner.make(self.ino, name, Kind::Folder, mode & 0o755, "", now);
        Ok(())
    }

    fn rename(&self, name: &str, to: &Dir, new: &str, onto: Onto) -> io::Result<()> {
        let to = to
            .as_any()
            .downcast_ref::<Open>()
            .ok_or(io::ErrorKind::CrossesDevices)?;
        let mut inner = self.call(Some(match onto {
            Onto::Free => "rename to a free name",
            Onto::Anything => "rename over",
            Onto::Exchange => "exchange two names",
        }))?;
        let moved = self.child(&inner, name)?;
        if inner.nature.plain_renames && onto != Onto::Anything {
            return Err(errno(rustix::io::Errno::INVAL));
        }
        let goal = inner.journal.now.inodes.get(&to.ino);
        if goal.is_none_or(|goal| goal.born != to.born) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let is_within = |inner: &Inner, mut at: u64, of: u64| {
            while at != ROOT && at != OUTSIDE && at != of {
                at = inner.journal.now.inodes[&at].parent;
            }
            at == of
        };
        if is_within(&inner, to.ino, moved) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let at_ns = self.disk.clock.file_ns();
        match onto {
            Onto::Free => {
                to.free(&inner, new)?;
                inner.rename((self.ino, name), (to.ino, new), at_ns);
            }
            Onto::Anything => {
                inner.replaces(to.ino, new);
                inner.rename((self.ino, name), (to.ino, new), at_ns);
            }
            Onto::Exchange => {
                to.child(&inner, new)?;
                for (folder, name) in [(self.ino, name), (to.ino, new)] {
                    let moved = EventKind::Modify(ModifyKind::Name(RenameMode::To));
                    inner.tell(moved, folder, name);
                }
                inner.journal.change(Change::Exchange {
                    one: (self.ino, name.to_owned()),
                    other: (to.ino, new.to_owned()),
                    at_ns,
                });
            }
        }
        Ok(())
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        let mut inner = self.call(Some("remove a file"))?;
        let ino = self.child(&inner, name)?;
        if inner.journal.now.inodes[&ino].kind == Kind::Folder {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        inner.remove(self.ino, name);
        Ok(())
    }

    fn rmdir(&self, name: &str) -> io::Result<()> {
        let mut inner = self.call(Some("remove a folder"))?;
        let ino = self.of_kind(&inner, name, Kind::Folder)?;
        if !inner.journal.now.inodes[&ino].names.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        inner.remove(self.ino, name);
        Ok(())
    }

    fn link(&self, target: &str, name: &str) -> io::Result<()> {
        let mut inner = self.call(Some("make a link"))?;
        self.free(&inner, name)?;
        let now = self.disk.clock.file_ns();
        inner.make(self.ino, name, Kind::Symlink, 0o777, target, now);
        Ok(())
    }

    fn target(&self, name: &str) -> io::Result<OsString> {
        let inner = self.call(None)?;
        let ino = self.of_kind(&inner, name, Kind::Symlink)?;
        Ok(inner.journal.now.inodes[&ino].target.clone().into())
    }

    fn mark(&self, name: &str, mode: u32, mtime_ms: Option<i64>) -> io::Result<()> {
        let mut inner = self.call(Some("set times and mode"))?;
        let ino = self.of_kind(&inner, name, Kind::File)?;
        let mtime_ns = match mtime_ms {
            Some(ms) => i128::from(ms) * 1_000_000,
            None => inner.journal.now.inodes[&ino].mtime_ns,
        };
        let at_ns = self.disk.clock.file_ns();
        inner.mark(ino, mode, mtime_ns, at_ns);
        Ok(())
    }

    fn touch(&self, name: &str, mode: u32) -> io::Result<()> {
        let mut inner = self.call(Some("make a file"))?;
        if inner.journal.now.child(self.ino, name).is_none() {
            self.free(&inner, name)?;
            let now = self.disk.clock.file_ns();
            inner.make(self.ino, name, Kind::File, mode & 0o644, "", now);
        }
        Ok(())
    }

    fn read(&self, name: &str, at_most: usize) -> io::Result<Vec<u8>> {
        let inner = self.call(None)?;
        let ino = self.of_kind(&inner, name, Kind::File)?;
        let bytes = &inner.journal.now.inodes[&ino].bytes;
        Ok(bytes[..bytes.len().min(at_most)].to_vec())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.touch(name, 0o600)?;
        let mut inner = self.call(Some("write a small file"))?;
        let ino = self.of_kind(&inner, name, Kind::File)?;
        let now = self.disk.clock.file_ns();
        inner.bytes(ino, bytes.to_vec(), true, now);
        inner.journal.sync(ino);
        Ok(())
    }

    fn longest_name(&self) -> io::Result<u64> {
        Ok(255)
    }

    fn sync(&self) -> io::Result<()> {
        self.call(Some("sync a folder"))?.journal.sync(self.ino);
        Ok(())
    }

    fn sync_file(&self, name: &str) -> io::Result<Stat> {
        let mut inner = self.call(Some("sync a file"))?;
        let ino = self.of_kind(&inner, name, Kind::File)?;
        inner.journal.sync(ino);
        Ok(inner.stat(ino))
    }

    fn sync_all(&self) -> io::Result<()> {
        self.call(Some("sync the file system"))?.journal.sync_all();
        Ok(())
    }
}
