//! System calls for looking at folders and files, none of which follows a symbolic link.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use coffer_crdt::files::Kind;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::vault::request::FolderRow;

/// What the file system says about one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `None` for sockets, devices and the like.
    pub kind: Option<Kind>,
    /// Inode number.
    pub inode: u64,
    /// Device number of the file system.
    pub device: u64,
    /// Length in bytes; 0 for folders.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i128,
    /// Change time in nanoseconds since 1970.
    pub ctime_ns: i128,
    /// When the inode was made, where the file system tells; nanoseconds since 1970.
    pub birth_ns: Option<i128>,
    /// The owner's executable bit; `false` for anything but files.
    pub executable: bool,
    /// Permission bits.
    pub mode: u32,
}

impl Stat {
    /// Whether the file's bytes are, by all that the file system tells, those that the row was made from. `renamed`
    /// forgives a changed change time: renaming changes it.
    pub fn agrees(&self, row: &FolderRow, renamed: bool) -> bool {
        self.inode == row.inode
            && self.size == row.size
            && self.mtime_ns == row.mtime_ns
            && (renamed || self.ctime_ns == super::rows::true_ctime(row))
    }
}

/// An open folder, to look at what is in it.
#[derive(Debug)]
pub struct Ground {
    root: OwnedFd,
    device: u64,
}

impl Ground {
    /// Opens a folder that need not be a synced one.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<Ground> {
        let root = rustix::fs::open(
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Ground {
            device: stat_fd(root.as_fd())?.device,
            root,
        })
    }

    /// The same as one that is open already.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(root: BorrowedFd<'_>) -> io::Result<Ground> {
        Ok(Ground {
            device: stat_fd(root)?.device,
            root: root.try_clone_to_owned()?,
        })
    }

    /// The folder itself.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The number of its file system.
    pub fn device(&self) -> u64 {
        self.device
    }

    /// Opens a folder within it, as [`Place::folder`](super::place::Place::folder).
    ///
    /// # Errors
    /// What the system says.
    pub fn folder(&self, relative: &Path) -> io::Result<OwnedFd> {
        folder_below(self.root.as_fd(), relative)
    }
}

pub(super) fn folder_below(root: BorrowedFd<'_>, relative: &Path) -> io::Result<OwnedFd> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if !relative.as_os_str().is_empty() {
        use rustix::fs::ResolveFlags;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(root, relative, flags, Mode::empty(), resolve) {
            // Old kernels, filters around containers, paths that are too long for one call: step by step below.
            Err(Errno::NOSYS | Errno::PERM | Errno::NAMETOOLONG | Errno::AGAIN) => {}
            opened => return Ok(opened?),
        }
    }
    let mut folder = root.try_clone_to_owned()?;
    for name in relative.components() {
        folder = open_folder(folder.as_fd(), name.as_os_str())?;
    }
    Ok(folder)
}

/// What is at a name in a folder, links not followed.
///
/// # Errors
/// What the system says.
pub fn stat_at(folder: BorrowedFd<'_>, name: &str) -> io::Result<Stat> {
    stat_name(folder, OsStr::new(name))
}

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn stat_name(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<Stat> {
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
pub(super) fn stat_name(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<Stat> {
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

pub(super) fn stat_fd(file: BorrowedFd<'_>) -> io::Result<Stat> {
    stat_name(file, OsStr::new(""))
}

/// Opens a folder in a folder; a link in its place is an error.
///
/// # Errors
/// What the system says.
pub fn open_folder(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}
