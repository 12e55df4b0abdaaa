//! One owner of the data folder: an advisory lock on `<data>/lock`, which the kernel releases however a process ends.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::{ControlError, ErrorKind};
use crate::private_file;

/// A command that looks whether a node runs holds the lock for an instant: try again this often before saying "taken".
const TRIES: u32 = 20;
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// The lock on a data folder, held until dropped.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// Takes the lock on an existing data folder. Blocks for up to 0.2 s. `AlreadyRunning` where another process has it.
    pub fn acquire(data_dir: &Path) -> Result<DataLock, ControlError> {
        let path = lock_path(data_dir);
        let mut file = private_file::open(&path)
            .map_err(|error| ControlError::io(format_args!("open {}", path.display()), &error))?;
        for attempt in 0.. {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if attempt < TRIES => std::thread::sleep(PAUSE),
                Err(Errno::WOULDBLOCK) => return Err(already_running(data_dir, &mut file)),
                Err(error) => {
                    return Err(ControlError::io(
                        format_args!("lock {}", path.display()),
                        &error.into(),
                    ));
                }
            }
        }
        // Whose it is, for the message above; without it the lock holds just as well (a full disk must not stop a start).
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(DataLock { _file: file })
    }

    /// Whether some process holds the lock, and which, where it says so. `None` where nobody does, or nothing can be
    /// known because the folder or the lock file is not there.
    pub fn holder(data_dir: &Path) -> Option<Option<u32>> {
        let mut file = File::open(lock_path(data_dir)).ok()?;
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(Errno::WOULDBLOCK) => Some(read_pid(&mut file)),
            _ => None,
        }
    }
}

fn lock_path(data_dir: &Path) -> PathBuf {
    data_dir.join("lock")
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn already_running(data_dir: &Path, file: &mut File) -> ControlError {
    let who = read_pid(file)
        .map(|pid| format!(" (process {pid})"))
        .unwrap_or_default();
    ControlError::new(
        ErrorKind::AlreadyRunning,
        format!("coffer is running already{who} on {}", data_dir.display()),
    )
}
