//! The disk as the operating system has it: one system call for each call, none of which follows a symbolic link.

use std::any::Any;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

use coffer_crdt::files::Kind;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps};

use super::disk::{Dir, Disk, Folder, Onto};
use super::ground::Stat;
use super::lasting::{self, Lasting};

/// The disks of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Disk for System {
    fn open(&self, path: &Path) -> io::Result<Dir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Arc::new(Open(root)))
    }

    fn make_all(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn remove_all(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(path)
    }

    fn lasting(&self, dir: Dir, path: &Path) -> io::Result<Dir> {
        let path = path.to_path_buf();
        Lasting::of(dir, move || System.open(&path))
    }
}

#[derive(Debug)]
struct Open(OwnedFd);

impl Open {
    /// The same kind of folder, which alone can be the goal of a rename.
    fn of(dir: &Dir) -> io::Result<BorrowedFd<'_>> {
        let open = dir.as_any().downcast_ref::<Open>();
        open.map(|open| open.0.as_fd())
            .ok_or_else(|| io::ErrorKind::CrossesDevices.into())
    }

    fn file(&self, name: &str, flags: OFlags, mode: u32) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(
            &self.0,
            name,
            flags,
            Mode::from_raw_mode(mode as _),
        )?)
    }
}

impl Folder for Open {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn stat(&self) -> io::Result<Stat> {
        stat_name(self.0.as_fd(), OsStr::new(""))
    }

    fn stat_at(&self, name: &str) -> io::Result<Stat> {
        stat_name(self.0.as_fd(), OsStr::new(name))
    }

    fn below(&self, relative: &Path) -> io::Result<Dir> {
        Ok(Arc::new(Open(folder_below(self.0.as_fd(), relative)?)))
    }

    fn list(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        Ok(names)
    }

    fn make(&self, name: &str, mode: u32) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(
            &self.0,
            name,
            Mode::from_raw_mode(mode as _),
        )?)
    }

    fn rename(&self, name: &str, to: &Dir, new: &str, onto: Onto) -> io::Result<()> {
        let to = lasting::opened(to)?;
        let to = Open::of(&to)?;
        let done = match onto {
            Onto::Free => rustix::fs::renameat_with(&self.0, name, to, new, RenameFlags::NOREPLACE),
            Onto::Anything => rustix::fs::renameat(&self.0, name, to, new),
            Onto::Exchange => {
                rustix::fs::renameat_with(&self.0, name, to, new, RenameFlags::EXCHANGE)
            }
        };
        Ok(done?)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    fn rmdir(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
    }

    fn link(&self, target: &str, name: &str) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(target, &self.0, name)?)
    }

    fn target(&self, name: &str) -> io::Result<OsString> {
        let target = rustix::fs::readlinkat(&self.0, name, Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()))
    }

    fn mark(&self, name: &str, mode: u32, mtime_ms: Option<i64>) -> io::Result<()> {
        let file = self.file(name, OFlags::RDONLY | OFlags::NONBLOCK, 0)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode as _))?;
        if let Some(mtime_ms) = mtime_ms {
            rustix::fs::futimens(&file, &times(mtime_ms))?;
        }
        Ok(())
    }

    fn touch(&self, name: &str, mode: u32) -> io::Result<()> {
        self.file(name, OFlags::WRONLY | OFlags::CREATE, mode)
            .map(drop)
    }

    fn read(&self, name: &str, at_most: usize) -> io::Result<Vec<u8>> {
        let file = self.file(name, OFlags::RDONLY | OFlags::NONBLOCK, 0)?;
        let mut bytes = Vec::new();
        let mut file = io::Read::take(std::fs::File::from(file), at_most as u64);
        io::Read::read_to_end(&mut file, &mut bytes)?;
        Ok(bytes)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let mut file = std::fs::File::from(self.file(name, flags, 0o600)?);
        io::Write::write_all(&mut file, bytes)?;
        file.sync_all()
    }

    fn longest_name(&self) -> io::Result<u64> {
        Ok(rustix::fs::fstatvfs(&self.0)?.f_namemax)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.0)?)
    }

    fn sync_file(&self, name: &str) -> io::Result<Stat> {
        let file = self.file(name, OFlags::RDONLY | OFlags::NONBLOCK, 0)?;
        rustix::fs::fsync(&file)?;
        stat_name(file.as_fd(), OsStr::new(""))
    }

    fn sync_all(&self) -> io::Result<()> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        rustix::fs::syncfs(&self.0)?;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        rustix::fs::sync();
        Ok(())
    }
}

fn times(mtime_ms: i64) -> Timestamps {
    let last_modification = Timespec {
        tv_sec: mtime_ms.div_euclid(1000),
        tv_nsec: (mtime_ms.rem_euclid(1000) * 1_000_000) as _,
    };
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT as _,
        },
        last_modification,
    }
}

fn folder_below(root: BorrowedFd<'_>, relative: &Path) -> io::Result<OwnedFd> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if !relative.as_os_str().is_empty() {
        use rustix::fs::ResolveFlags;
        use rustix::io::Errno;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(root, relative, flags, Mode::empty(), resolve) {
            // Old kernels, filters around containers, paths that are too long for one call: step by step below.
            Err(Errno::NOSYS | Errno::PERM | Errno::NAMETOOLONG | Errno::AGAIN) => {}
            opened => return Ok(opened?),
        }
    }
    let mut folder = root.try_clone_to_owned()?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for name in relative.components() {
        folder = rustix::fs::openat(&folder, name.as_os_str(), flags, Mode::empty())?;
    }
    Ok(folder)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn stat_name(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<Stat> {
    use rustix::fs::StatxFlags;
    let flags = AtFlags::SYMLINK_NOFOLLOW
        | if name.is_empty() {
            AtFlags::EMPTY_PATH
        } else {
            AtFlags::empty()
        };
    let found = rustix::fs::statx(
        folder,
        name,
        flags,
        StatxFlags::BASIC_STATS | StatxFlags::BTIME,
    )?;
    let nanoseconds = |time: rustix::fs::StatxTimestamp| {
        i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
    };
    let kind = kind_of(u32::from(found.stx_mode));
    Ok(Stat {
        kind,
        inode: found.stx_ino,
        device: (u64::from(found.stx_dev_major) << 32) | u64::from(found.stx_dev_minor),
        size: if kind == Some(Kind::Folder) {
            0
        } else {
            found.stx_size
        },
        mtime_ns: nanoseconds(found.stx_mtime),
        ctime_ns: nanoseconds(found.stx_ctime),
        birth_ns: (found.stx_mask & StatxFlags::BTIME.bits() != 0)
            .then(|| nanoseconds(found.stx_btime)),
        executable: kind == Some(Kind::File) && found.stx_mode & 0o100 != 0,
        mode: u32::from(found.stx_mode) & 0o7777,
    })
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn stat_name(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<Stat> {
    let found = if name.is_empty() {
        rustix::fs::fstat(folder)?
    } else {
        rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?
    };
    let kind = kind_of(found.st_mode.into());
    Ok(Stat {
        kind,
        inode: found.st_ino as u64,
        device: found.st_dev as u64,
        size: if kind == Some(Kind::Folder) {
            0
        } else {
            found.st_size as u64
        },
        mtime_ns: i128::from(found.st_mtime) * 1_000_000_000 + i128::from(found.st_mtime_nsec),
        ctime_ns: i128::from(found.st_ctime) * 1_000_000_000 + i128::from(found.st_ctime_nsec),
        birth_ns: None,
        executable: kind == Some(Kind::File) && u32::from(found.st_mode) & 0o100 != 0,
        mode: u32::from(found.st_mode) & 0o7777,
    })
}

fn kind_of(mode: u32) -> Option<Kind> {
    match mode & 0o170_000 {
        0o100_000 => Some(Kind::File),
        0o040_000 => Some(Kind::Folder),
        0o120_000 => Some(Kind::Symlink),
        _ => None,
    }
}
