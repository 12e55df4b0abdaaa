//! The seams to the neighbours: the network that reaches other devices, and the folders that hold files.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coffer_protocol::blobs::Version;
use coffer_protocol::identity::DeviceId;
use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncWrite};

use super::gate::Priority;

/// Where the files behind [`Placement::File`](super::Placement::File) and [`Placement::Kept`](super::Placement::Kept)
/// are now. The folder engine implements it, from memory or with few system calls: it is asked for each file served.
pub trait FolderPaths: Send + Sync + 'static {
    /// Present path of file `file` in synced folder `root`; `None` if it is not there.
    fn file(&self, root: u32, file: &[u8; 16]) -> Option<PathBuf>;

    /// Whether `found`, at the path that [`FolderPaths::file`] gave, is the file as its bytes were recorded, by all that
    /// the file system tells. If not, somebody changed or moved it a moment ago, and which bytes are where is not known
    /// before the folder was looked through.
    fn is_as_recorded(&self, root: u32, file: &[u8; 16], found: &std::fs::Metadata) -> bool;

    /// Whether folder `root` is there, so that what is missing in it is gone.
    fn is_there(&self, root: u32) -> bool;

    /// Path of a file that folder `root` moved aside under `name`.
    fn kept(&self, root: u32, name: &[u8; 24]) -> Option<PathBuf>;
}

/// A stream to another device, on the protocol of a [`Version`].
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for T {}

/// A stream that was opened to a device.
pub struct Opened {
    /// What may be asked on it.
    pub version: Version,
    /// The stream.
    pub stream: Box<dyn ByteStream>,
}

/// Who can be asked for blobs. The service implements it over the network.
pub trait Sources: Send + Sync + 'static {
    /// Devices connected now that may hold what is wanted, best first.
    fn candidates(&self) -> Vec<DeviceId>;

    /// Devices connected now that can be asked what they have, whether or not contents are fetched from them.
    fn connected(&self) -> Vec<DeviceId> {
        self.candidates()
    }

    /// Opens a stream to `device`, of the newest version that it speaks.
    fn open(&self, device: DeviceId) -> BoxFuture<'static, io::Result<Opened>>;

    /// Resolves when the candidates may have changed since this was called (called, not polled).
    fn changed(&self) -> BoxFuture<'static, ()>;
}

/// How to get what is not here: whom to ask, and where to count.
#[derive(Clone)]
pub struct Fetch {
    /// Who can be asked.
    pub sources: Arc<dyn Sources>,
    /// Counts while it goes on; several calls may share one.
    pub progress: Arc<Progress>,
    /// For whom it is fetched.
    pub priority: Priority,
}

impl Fetch {
    /// Asks `sources`, with fresh counters.
    pub fn from(sources: Arc<dyn Sources>) -> Self {
        Self {
            sources,
            progress: Arc::default(),
            priority: Priority::default(),
        }
    }

    /// The same, as pressing as `priority`.
    pub fn with_priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// Asks nobody: only what is here can be had.
    pub fn nobody() -> Self {
        Self::from(Arc::new(Nobody))
    }
}

/// Counters of transfers, for progress bars. They only grow.
#[derive(Debug, Default)]
pub struct Progress {
    /// Plaintext bytes to be written.
    pub total_bytes: AtomicU64,
    /// Plaintext bytes written, or found written already.
    pub done_bytes: AtomicU64,
    /// Of those, bytes that came from other devices.
    pub fetched_bytes: AtomicU64,
    /// Contents to be written.
    pub total_files: AtomicU64,
    /// Contents written whole.
    pub done_files: AtomicU64,
}

impl Progress {
    pub(super) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

struct Nobody;

impl Sources for Nobody {
    fn candidates(&self) -> Vec<DeviceId> {
        Vec::new()
    }

    fn open(&self, _: DeviceId) -> BoxFuture<'static, io::Result<Opened>> {
        Box::pin(async { Err(io::ErrorKind::NotConnected.into()) })
    }

    fn changed(&self) -> BoxFuture<'static, ()> {
        Box::pin(futures::future::pending())
    }
}
