//! Nodes of one vault, and streams between them that can fail on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use coffer_protocol::blobs::Version;
use coffer_protocol::identity::{DeviceId, SpaceId, VaultId};
use coffer_protocol::keys::{EpochKey, Keyring, SpaceSecret};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncWrite};
use redb::{Database, ReadableDatabase};
use tokio::io::{AsyncRead as _, AsyncWrite as _, DuplexStream, ReadBuf};

use crate::blobs::placement::{self, Reader, Rows};
use crate::blobs::{
    Blobs, Fetch, FolderPaths, Group, Import, ImportJob, Imported, Opened, Sources, StoreJob,
    Transferred, WriteError, WriteJob,
};

pub const VAULT: VaultId = VaultId([0xc0; 32]);
pub const FOLDER: u32 = 7;

pub fn epoch(n: u8) -> EpochKey {
    EpochKey::from_secret(&[n; 32])
}

pub fn keyring() -> Keyring {
    Keyring::new(SpaceId::HOME, SpaceSecret::from_secret(&[5; 32]), epoch(1))
}

/// Bytes without a pattern, the same in every run, different for each `seed`.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

#[derive(Default)]
struct Paths {
    files: Mutex<BTreeMap<[u8; 16], PathBuf>>,
    kept: Mutex<BTreeMap<[u8; 24], PathBuf>>,
    /// Files that somebody changed or moved a moment ago.
    moving: Mutex<BTreeSet<[u8; 16]>>,
}

impl FolderPaths for Paths {
    fn file(&self, root: u32, file: &[u8; 16]) -> Option<PathBuf> {
        assert_eq!(root, FOLDER);
        self.files.lock().unwrap().get(file).cloned()
    }

    fn is_as_recorded(&self, _: u32, file: &[u8; 16], _: &std::fs::Metadata) -> bool {
        !self.moving.lock().unwrap().contains(file)
    }

    fn is_there(&self, _: u32) -> bool {
        true
    }

    fn kept(&self, root: u32, name: &[u8; 24]) -> Option<PathBuf> {
        assert_eq!(root, FOLDER);
        self.kept.lock().unwrap().get(name).cloned()
    }
}

/// A node with a synced folder.
pub struct Node {
    pub dir: tempfile::TempDir,
    pub db: Arc<Database>,
    pub blobs: Blobs,
    paths: Arc<Paths>,
}

impl Node {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        let db = Arc::new(Database::create(dir.path().join("vault.redb")).unwrap());
        let blobs = Self::open(dir.path(), &db).await;
        let paths = Arc::<Paths>::default();
        blobs.set_folders(paths.clone());
        Self {
            dir,
            db,
            blobs,
            paths,
        }
    }

    async fn open(dir: &Path, db: &Arc<Database>) -> Blobs {
        Blobs::open(&dir.join("blobs"), VAULT, db.clone(), Arc::new(keyring()))
            .await
            .unwrap()
    }

    /// Stops as a killed process does, except that what the store has written is there.
    pub async fn restart_uncleanly(&mut self) {
        self.blobs.shutdown().await.unwrap();
        std::fs::write(self.dir.path().join("blobs/in-use"), b"").unwrap();
        self.blobs = Self::open(self.dir.path(), &self.db).await;
        self.blobs.set_folders(self.paths.clone());
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("folder").join(name)
    }

    pub fn set_path(&self, file: u8, path: Option<PathBuf>) {
        let mut files = self.paths.files.lock().unwrap();
        match path {
            Some(path) => files.insert([file; 16], path),
            None => files.remove(&[file; 16]),
        };
    }

    /// Somebody changes or moves a file, and nobody has looked yet.
    pub fn set_moving(&self, file: u8, moving: bool) {
        let mut files = self.paths.moving.lock().unwrap();
        match moving {
            true => files.insert([file; 16]),
            false => files.remove(&[file; 16]),
        };
    }

    pub fn set_kept(&self, name: [u8; 24], path: PathBuf) {
        self.paths.kept.lock().unwrap().insert(name, path);
    }

    pub fn commit(&self, rows: &Rows) {
        let transaction = self.db.begin_write().unwrap();
        placement::write(&transaction, rows).unwrap();
        transaction.commit().unwrap();
    }

    pub fn reader(&self) -> Reader {
        Reader::new(&self.db.begin_read().unwrap()).unwrap()
    }

    /// Writes a file of the synced folder and imports it.
    pub async fn add(&self, file: u8, bytes: &[u8]) -> Imported {
        let path = self.path(&format!("file-{file}"));
        std::fs::write(&path, bytes).unwrap();
        self.set_path(file, Some(path.clone()));
        let into = Import::FileBacked {
            root: FOLDER,
            file: [file; 16],
        };
        let imported = self.blobs.import_file(path, into).await.unwrap();
        self.commit(&imported.rows);
        imported
    }

    /// Writes a file elsewhere and imports it into the store.
    pub async fn store(&self, bytes: &[u8]) -> Imported {
        let path = self.dir.path().join("elsewhere");
        std::fs::write(&path, bytes).unwrap();
        let job = ImportJob {
            path,
            into: Import::Store,
        };
        let imported = self.blobs.import(vec![job]).await.pop().unwrap().unwrap();
        self.commit(&imported.rows);
        imported
    }

    pub fn job(&self, file: u8, content: &Imported) -> WriteJob {
        WriteJob {
            content: StoreJob {
                key: u64::from(file),
                size: content.size,
                hash: content.hash,
                root: content.root.clone(),
            },
            temp: self.path(&format!(".temp-{file}")),
            folder: FOLDER,
            file: [file; 16],
        }
    }

    /// Writes contents, puts those that came whole in place, and commits their rows.
    pub async fn write(
        &self,
        contents: &[(u8, &Imported)],
        fetch: &Fetch,
    ) -> (BTreeMap<u8, Result<(), WriteError>>, Transferred) {
        let jobs = contents
            .iter()
            .map(|(file, content)| self.job(*file, content))
            .collect();
        let (done, groups) = tokio::sync::mpsc::channel(4);
        let receive = async {
            let mut groups = groups;
            let mut results = BTreeMap::new();
            while let Some(group) = groups.recv().await {
                self.settle(group, &mut results);
            }
            results
        };
        let transfer = async {
            let done = done;
            self.blobs.write_files(jobs, fetch, &done).await
        };
        let (results, transferred) = futures::join!(receive, transfer);
        assert_eq!(results.len(), contents.len(), "each job comes once");
        (results, transferred)
    }

    fn settle(&self, group: Group, results: &mut BTreeMap<u8, Result<(), WriteError>>) {
        self.commit(&group.shared);
        for (key, result) in group.jobs {
            let file = u8::try_from(key).unwrap();
            let result = result.map(|rows| {
                let path = self.path(&format!("file-{file}"));
                std::fs::rename(self.path(&format!(".temp-{file}")), &path).unwrap();
                self.set_path(file, Some(path));
                self.commit(&rows);
            });
            assert!(results.insert(file, result).is_none(), "once only");
        }
    }

    pub fn bytes(&self, file: u8) -> Vec<u8> {
        std::fs::read(self.path(&format!("file-{file}"))).unwrap()
    }
}

/// What a stream does besides carrying bytes.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    /// Flips a bit of the byte received at this position.
    pub flip_at: Option<u64>,
    /// Ends when this many bytes were received.
    pub cut_at: Option<u64>,
    /// Gives nothing more, and does not end, when this many bytes were received.
    pub stall_at: Option<u64>,
    /// Is of an earlier program, which speaks this.
    pub speaks: Option<Version>,
}

#[derive(Default)]
pub struct Peers(BTreeMap<DeviceId, (Option<Blobs>, Faults)>);

pub fn device(n: u8) -> DeviceId {
    DeviceId([n; 32])
}

impl Peers {
    pub fn with(mut self, n: u8, node: &Node) -> Self {
        self.0
            .insert(device(n), (Some(node.blobs.clone()), Faults::default()));
        self
    }

    pub fn faulty(mut self, n: u8, node: &Node, faults: Faults) -> Self {
        self.0.insert(device(n), (Some(node.blobs.clone()), faults));
        self
    }

    /// A device that is connected but takes no streams.
    pub fn dumb(mut self, n: u8) -> Self {
        self.0.insert(device(n), (None, Faults::default()));
        self
    }

    pub fn fetch(self) -> Fetch {
        Fetch::from(Arc::new(self))
    }
}

impl Sources for Peers {
    fn candidates(&self) -> Vec<DeviceId> {
        self.0.keys().copied().collect()
    }

    fn open(&self, device: DeviceId) -> BoxFuture<'static, io::Result<Opened>> {
        let (blobs, faults) = self.0[&device].clone();
        let version = faults.speaks.unwrap_or(Version::Two);
        async move {
            let blobs = blobs.ok_or(io::ErrorKind::ConnectionRefused)?;
            let (here, there) = tokio::io::duplex(256 << 10);
            tokio::spawn(async move {
                let stream = Pipe::new(there, Faults::default());
                let _ = blobs.serve(DeviceId([0xee; 32]), version, stream).await;
            });
            Ok(Opened {
                version,
                stream: Box::new(Pipe::new(here, faults)),
            })
        }
        .boxed()
    }

    fn changed(&self) -> BoxFuture<'static, ()> {
        futures::future::pending().boxed()
    }
}

/// A stream in memory, as the network gives them.
struct Pipe {
    stream: DuplexStream,
    faults: Faults,
    received: u64,
}

impl Pipe {
    fn new(stream: DuplexStream, faults: Faults) -> Self {
        Self {
            stream,
            faults,
            received: 0,
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.faults.cut_at.is_some_and(|at| self.received >= at) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.faults.stall_at.is_some_and(|at| self.received >= at) {
            return Poll::Pending;
        }
        let mut into = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut into))?;
        let n = into.filled().len();
        if let Some(at) = self
            .faults
            .flip_at
            .and_then(|at| at.checked_sub(self.received))
            && let Some(byte) = into.filled_mut().get_mut(at as usize)
        {
            *byte ^= 0x10;
        }
        self.received += n as u64;
        Poll::Ready(Ok(n))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
