//! What is there on a disk: what the file system says of a file, and an open folder to look at.

use std::io;
use std::path::Path;

use coffer_crdt::files::Kind;

use super::disk::{Dir, Disk};
use super::system::System;
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
    root: Dir,
    device: u64,
}

impl Ground {
    /// Opens a folder that need not be a synced one.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<Ground> {
        Ground::of(&System.open(path)?)
    }

    /// The same as one that is open already.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(root: &Dir) -> io::Result<Ground> {
        Ok(Ground {
            device: root.stat()?.device,
            root: root.clone(),
        })
    }

    /// The folder itself.
    pub fn root(&self) -> &Dir {
        &self.root
    }

    /// The number of its file system.
    pub fn device(&self) -> u64 {
        self.device
    }

    /// Opens a folder within it, as [`Place::folder`](super::place::Place::folder).
    ///
    /// # Errors
    /// What the system says.
    pub fn folder(&self, relative: &Path) -> io::Result<Dir> {
        self.root.below(relative)
    }
}
