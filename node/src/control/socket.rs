//! Where the socket is, and how it is bound and reached when the path of the data folder is longer than a socket
//! address may be.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Name of the socket within the data folder.
const NAME: &str = "control.sock";

/// Longest path that is used as it is. `sockaddr_un` takes 107 bytes on Linux and 103 on macOS.
const MAX_DIRECT_PATH: usize = 100;

/// `<data>/control.sock`.
pub fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join(NAME)
}

/// Binds the socket with mode 0600, in place of one that an earlier node left. The caller holds the [`super::DataLock`]:
/// so whatever has the name is stale.
pub(crate) fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    // Bound under another name and moved into place: nobody can connect before the mode is set, and the name never
    // leads nowhere while a node runs.
    let fresh = format!("{NAME}.new");
    match fs::remove_file(data_dir.join(&fresh)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = reachable(data_dir, &fresh, |path| UnixListener::bind(path))?;
    fs::set_permissions(data_dir.join(&fresh), fs::Permissions::from_mode(0o600))?;
    fs::rename(data_dir.join(&fresh), socket_path(data_dir))?;
    Ok(listener)
}

/// Connects to the socket of a data folder. `NotFound` or `ConnectionRefused` where no node listens.
pub(crate) async fn connect(data_dir: &Path) -> io::Result<UnixStream> {
    // Connecting to a local socket never waits longer than the listener's backlog is full, so the standard library's
    // blocking call does, and the directory stays open for it.
    let stream = reachable(data_dir, NAME, |path| {
        std::os::unix::net::UnixStream::connect(path)
    })?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Removes the socket at the end of a node.
pub(crate) fn remove(data_dir: &Path) {
    let _ = fs::remove_file(socket_path(data_dir));
}

/// Calls `with` with a path for `name` in `data_dir` that fits into a socket address.
fn reachable<T>(
    data_dir: &Path,
    name: &str,
    with: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
    let direct = data_dir.join(name);
    if direct.as_os_str().len() <= MAX_DIRECT_PATH {
        return with(&direct);
    }
    let dir = File::open(data_dir)?;
    with(&PathBuf::from(format!(
        "/proc/self/fd/{}/{name}",
        dir.as_raw_fd()
    )))
}
