//! A folder that is used again and again and not kept open meanwhile: what is open keeps a disk from being unmounted.

use std::any::Any;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::disk::{Dir, Folder, Onto};
use super::ground::Stat;

/// Opens a folder anew.
type Opener = dyn Fn() -> io::Result<Dir> + Send + Sync;

/// Stands for a folder, which it opens when it is used. A folder that has come into its place is `NotFound`.
pub struct Lasting {
    opener: Box<Opener>,
    inode: u64,
    device: u64,
    open: Mutex<Option<Dir>>,
}

impl Lasting {
    /// Stands for `dir`, which `opener` opens again.
    ///
    /// # Errors
    /// What the system says when asked what the folder is.
    pub fn of(
        dir: Dir,
        opener: impl Fn() -> io::Result<Dir> + Send + Sync + 'static,
    ) -> io::Result<Dir> {
        let stat = dir.stat()?;
        Ok(Arc::new(Lasting {
            opener: Box::new(opener),
            inode: stat.inode,
            device: stat.device,
            open: Mutex::new(Some(dir)),
        }))
    }

    fn dir(&self) -> io::Result<Dir> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dir) = &*open {
            return Ok(dir.clone());
        }
        let dir = (self.opener)()?;
        let stat = dir.stat()?;
        if (stat.inode, stat.device) != (self.inode, self.device) {
            return Err(io::ErrorKind::NotFound.into());
        }
        *open = Some(dir.clone());
        Ok(dir)
    }
}

/// The folder that `dir` stands for, open; `dir` itself if it stands for none.
///
/// # Errors
/// What the system says.
pub fn opened(dir: &Dir) -> io::Result<Dir> {
    match dir.as_any().downcast_ref::<Lasting>() {
        Some(lasting) => lasting.dir(),
        None => Ok(dir.clone()),
    }
}

impl fmt::Debug for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lasting({}:{})", self.device, self.inode)
    }
}

impl Folder for Lasting {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn rest(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn stat(&self) -> io::Result<Stat> {
        self.dir()?.stat()
    }

    fn stat_at(&self, name: &str) -> io::Result<Stat> {
        self.dir()?.stat_at(name)
    }

    fn below(&self, relative: &Path) -> io::Result<Dir> {
        self.dir()?.below(relative)
    }

    fn list(&self) -> io::Result<Vec<OsString>> {
        self.dir()?.list()
    }

    fn make(&self, name: &str, mode: u32) -> io::Result<()> {
        self.dir()?.make(name, mode)
    }

    fn rename(&self, name: &str, to: &Dir, new: &str, onto: Onto) -> io::Result<()> {
        self.dir()?.rename(name, to, new, onto)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.dir()?.unlink(name)
    }

    fn rmdir(&self, name: &str) -> io::Result<()> {
        self.dir()?.rmdir(name)
    }

    fn link(&self, target: &str, name: &str) -> io::Result<()> {
        self.dir()?.link(target, name)
    }

    fn target(&self, name: &str) -> io::Result<OsString> {
        self.dir()?.target(name)
    }

    fn mark(&self, name: &str, mode: u32, mtime_ms: Option<i64>) -> io::Result<()> {
        self.dir()?.mark(name, mode, mtime_ms)
    }

    fn touch(&self, name: &str, mode: u32) -> io::Result<()> {
        self.dir()?.touch(name, mode)
    }

    fn read(&self, name: &str, at_most: usize) -> io::Result<Vec<u8>> {
        self.dir()?.read(name, at_most)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.dir()?.write(name, bytes)
    }

    fn longest_name(&self) -> io::Result<u64> {
        self.dir()?.longest_name()
    }

    fn sync(&self) -> io::Result<()> {
        self.dir()?.sync()
    }

    fn sync_file(&self, name: &str) -> io::Result<Stat> {
        self.dir()?.sync_file(name)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.dir()?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::disk::Disk;
    use crate::folder::system::System;

    #[test]
    fn it_is_open_only_while_it_is_used_and_only_as_long_as_it_is_the_same_folder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::create_dir(&path).unwrap();
        let open = {
            let path = path.clone();
            move || System.open(&path)
        };
        let links_here = || {
            let fds = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            fds.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == path))
                .count()
        };
        let lasting = Lasting::of(open().unwrap(), open).unwrap();
        assert_eq!(links_here(), 1);
        lasting.rest();
        assert_eq!(links_here(), 0);
        lasting.write("x", b"1").unwrap();
        // Also as the goal of a rename.
        let other = System.open(dir.path()).unwrap();
        other.write("y", b"2").unwrap();
        other.rename("y", &lasting, "y", Onto::Free).unwrap();
        assert_eq!(lasting.list().unwrap().len(), 2);
        lasting.rest();
        std::fs::rename(&path, dir.path().join("b")).unwrap();
        std::fs::create_dir(&path).unwrap();
        let error = lasting.list().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
