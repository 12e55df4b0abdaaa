//! What a file is before it is read, to be compared with what it is afterwards.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::super::error::ImportError;

/// What must be the same before and after reading.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    pub mtime_ns: i128,
    pub ctime_ns: i128,
    pub executable: bool,
}

impl Stamp {
    pub fn of(file: &File) -> Result<Self, ImportError> {
        let meta = file.metadata().map_err(ImportError::reading)?;
        if !meta.is_file() {
            return Err(ImportError::NotAFile);
        }
        let nanos = |secs: i64, nanos: i64| i128::from(secs) * 1_000_000_000 + i128::from(nanos);
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            mtime_ns: nanos(meta.mtime(), meta.mtime_nsec()),
            ctime_ns: nanos(meta.ctime(), meta.ctime_nsec()),
            executable: meta.mode() & 0o100 != 0,
        })
    }
}

/// Opens for reading without following a link in the last place, and without waiting for the writer of a pipe.
pub(in super::super) fn open(path: &Path) -> io::Result<File> {
    use rustix::fs::OFlags;
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path)
}
