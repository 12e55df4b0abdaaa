//! Contents that keep their bytes in memory, and share them with other devices' at once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use coffer_crdt::chunks::{ChunkList, ChunkRef, ChunkRoot};
use coffer_protocol::identity::Hash;
use futures::future::BoxFuture;
use tokio::sync::{Notify, mpsc};

use super::super::Contents;
use crate::blobs::placement::Placement;
use crate::blobs::{
    Group, Import, ImportError, ImportJob, Imported, Named, Rows, WriteError, WriteJob,
};

/// Bytes that all devices of a test can get.
#[derive(Default)]
pub struct Cloud {
    bytes: Mutex<BTreeMap<[u8; 32], Vec<u8>>>,
    /// Whether anything can be fetched now.
    pub offline: Mutex<bool>,
    /// Whether the next transfer ends without a word.
    pub breaks: Mutex<bool>,
    /// Contents written for someone.
    pub written: Mutex<usize>,
    came_back: Notify,
}

impl Cloud {
    pub fn set_offline(&self, offline: bool) {
        *self.offline.lock().unwrap() = offline;
        self.came_back.notify_waiters();
    }

    pub fn read(&self, path: &Path, into: Import) -> Result<Imported, ImportError> {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::symlink_metadata(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => ImportError::Vanished,
            _ => ImportError::Read(error),
        })?;
        if !metadata.is_file() {
            return Err(ImportError::NotAFile);
        }
        let bytes = std::fs::read(path).map_err(|_| ImportError::NoPermission)?;
        let stamp = ReadStamp {
            mtime_ns: i128::from(metadata.mtime()) * 1_000_000_000
                + i128::from(metadata.mtime_nsec()),
            ctime_ns: i128::from(metadata.ctime()) * 1_000_000_000
                + i128::from(metadata.ctime_nsec()),
            inode: metadata.ino(),
            executable: metadata.mode() & 0o100 != 0,
        };
        let imported = imported(&bytes, stamp, into);
        self.bytes.lock().unwrap().insert(imported.hash, bytes);
        Ok(imported)
    }

    pub fn get(&self, hash: &[u8; 32]) -> Option<Vec<u8>> {
        self.bytes.lock().unwrap().get(hash).cloned()
    }
}

/// What the file system said of a file when it was read.
pub struct ReadStamp {
    pub mtime_ns: i128,
    pub ctime_ns: i128,
    pub inode: u64,
    pub executable: bool,
}

/// What reading a file of these bytes gives: one chunk, whose blob is called like the content.
pub fn imported(bytes: &[u8], stamp: ReadStamp, into: Import) -> Imported {
    let hash = content_hash(bytes);
    let (len, blob) = (bytes.len() as u32, Hash(hash));
    let mut rows = Rows::default();
    let chunks = if bytes.is_empty() {
        Vec::new()
    } else {
        vec![ChunkRef {
            id: hash,
            frame: hash,
            blob: hash,
            len,
            sealed_len: coffer_protocol::frame::sealed_len(len as usize) as u32,
            epoch: 0,
        }]
    };
    if let Import::FileBacked { root, file } = into
        && len > 0
    {
        rows.placements.push((
            blob,
            Placement::File {
                root,
                file,
                offset: 0,
                len,
                frame: hash,
                epoch: [0; 32],
            },
        ));
    }
    Imported {
        hold: Default::default(),
        size: u64::from(len),
        mtime_ns: stamp.mtime_ns,
        ctime_ns: stamp.ctime_ns,
        inode: stamp.inode,
        executable: stamp.executable,
        hash,
        root: ChunkRoot::Inline(ChunkList {
            epochs: vec![[0; 32]],
            chunks,
        }),
        rows,
    }
}

pub fn content_hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

/// One device's way to the cloud.
#[derive(Clone, Default)]
pub struct TestContents(pub Arc<Cloud>);

impl Contents for TestContents {
    async fn import(&self, jobs: Vec<ImportJob>) -> Vec<Result<Imported, ImportError>> {
        jobs.iter()
            .map(|job| self.0.read(&job.path, job.into))
            .collect()
    }

    async fn write(&self, jobs: Vec<WriteJob>, done: mpsc::Sender<Group>) {
        if std::mem::take(&mut *self.0.breaks.lock().unwrap()) {
            return;
        }
        let mut group = Group::default();
        for job in jobs {
            let result = match self.0.get(&job.content.hash) {
                Some(bytes) if !*self.0.offline.lock().unwrap() => {
                    *self.0.written.lock().unwrap() += 1;
                    std::fs::write(&job.temp, bytes)
                        .map(|()| Rows::default())
                        .map_err(WriteError::Write)
                }
                _ => Err(WriteError::Unavailable { missing: 1 }),
            };
            group.jobs.push((job.content.key, result));
        }
        let _ = done.send(group).await;
    }

    async fn expand(&self, _root: &ChunkRoot) -> Result<Vec<Named>, WriteError> {
        Err(WriteError::Unavailable { missing: 1 })
    }

    fn reachable(&self) -> BoxFuture<'static, ()> {
        let cloud = self.0.clone();
        Box::pin(async move { cloud.came_back.notified().await })
    }
}
