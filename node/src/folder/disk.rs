//! The seam between a synced folder and the disk it is on: what is asked of a file system, and nothing more.
//!
//! Everything that looks at or changes a synced folder goes through a [`Folder`]: a folder that is open, so that what
//! happens to its path meanwhile does not matter. No call follows a symbolic link. [`System`](super::system::System) is
//! the real one; the simulation has a disk in memory that fills up, loses what was not made durable, and tells each call.

use std::any::Any;
use std::ffi::OsString;
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::ground::Stat;

/// An open folder. Cheap to clone.
pub type Dir = Arc<dyn Folder>;

/// What a rename does about a file that has the new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onto {
    /// The name must be free; else `AlreadyExists`.
    Free,
    /// Replaces what is there.
    Anything,
    /// The two change places in one step.
    Exchange,
}

/// A disk, or what a test takes for one.
pub trait Disk: Debug + Send + Sync {
    /// Opens the folder at an absolute path.
    ///
    /// # Errors
    /// What the system says.
    fn open(&self, path: &Path) -> io::Result<Dir>;
    /// Makes a folder and those above it; one that is there is no error.
    ///
    /// # Errors
    /// What the system says.
    fn make_all(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder with everything in it.
    ///
    /// # Errors
    /// What the system says.
    fn remove_all(&self, path: &Path) -> io::Result<()>;
    /// Stands for `dir`, at an absolute path, for long, without keeping it open while nobody uses it
    /// ([`Folder::rest`]). A disk of which nothing is ever unmounted has no need of that.
    ///
    /// # Errors
    /// What the system says.
    fn lasting(&self, dir: Dir, path: &Path) -> io::Result<Dir> {
        let _ = path;
        Ok(dir)
    }
}

/// A folder that is open. Names are of files directly in it. All errors are what the system says.
#[allow(clippy::missing_errors_doc, reason = "said once, above")]
pub trait Folder: Debug + Send + Sync {
    /// For the disk's own use: whose folder this is.
    fn as_any(&self) -> &dyn Any;
    /// Nobody needs it for a while: what stands for a folder for long need not keep it open.
    fn rest(&self) {}
    /// What it is itself.
    fn stat(&self) -> io::Result<Stat>;
    /// What is at a name; a link is not followed.
    fn stat_at(&self, name: &str) -> io::Result<Stat>;
    /// Opens a folder below it; a link on the way is `NotADirectory` or `FilesystemLoop`.
    fn below(&self, relative: &Path) -> io::Result<Dir>;
    /// All names in it but `.` and `..`, in any order.
    fn list(&self) -> io::Result<Vec<OsString>>;
    /// Makes a folder with these permission bits (less those that the process masks).
    fn make(&self, name: &str, mode: u32) -> io::Result<()>;
    /// Gives a file here a name in `to`, on the same disk.
    fn rename(&self, name: &str, to: &Dir, new: &str, onto: Onto) -> io::Result<()>;
    /// Removes a file or link.
    fn unlink(&self, name: &str) -> io::Result<()>;
    /// Removes an empty folder.
    fn rmdir(&self, name: &str) -> io::Result<()>;
    /// Makes a symbolic link.
    fn link(&self, target: &str, name: &str) -> io::Result<()>;
    /// Where a symbolic link points.
    fn target(&self, name: &str) -> io::Result<OsString>;
    /// Sets a file's permission bits, and its modification time (milliseconds since 1970) where one is given.
    fn mark(&self, name: &str, mode: u32, mtime_ms: Option<i64>) -> io::Result<()>;
    /// Makes an empty file with these permission bits (less those that the process masks); one that is there stays.
    fn touch(&self, name: &str, mode: u32) -> io::Result<()>;
    /// The first `at_most` bytes of a file.
    fn read(&self, name: &str, at_most: usize) -> io::Result<Vec<u8>>;
    /// Writes a small file of our own, durably.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// The longest name that the file system takes, in its own measure.
    fn longest_name(&self) -> io::Result<u64>;
    /// Makes the names in it durable.
    fn sync(&self) -> io::Result<()>;
    /// Makes a file's bytes durable, and says which file that was.
    fn sync_file(&self, name: &str) -> io::Result<Stat>;
    /// Makes everything written in this file system durable.
    fn sync_all(&self) -> io::Result<()>;
}
