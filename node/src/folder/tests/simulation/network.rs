//! What devices give each other: entries when the simulation says so, and bytes when they are asked for.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use coffer_crdt::chunks::ChunkRoot;
use coffer_crdt::files::{FileId, Kind};
use futures::future::BoxFuture;
use tokio::sync::{Notify, mpsc};

use super::super::super::paths::Shared;
use super::super::super::place::kept_path;
use super::super::super::{Contents, FolderVault};
use super::super::cloud::{ReadStamp, content_hash, imported};
use super::disk::{PATH, VirtualDisk};
use super::power::Power;
use super::vault::SimVault;
use crate::blobs::placement::Placement;
use crate::blobs::{Group, ImportError, ImportJob, Imported, Named, Rows, WriteError, WriteJob};

/// Jobs that end together.
const GROUP: usize = 3;

/// What others see of a device.
pub struct Peer {
    pub vault: Arc<SimVault>,
    pub disk: Arc<VirtualDisk>,
    /// Where its files are, while it runs.
    pub shared: Option<Arc<Shared>>,
}

/// All devices.
#[derive(Default)]
pub struct Network {
    peers: Mutex<Vec<Peer>>,
    /// Those that reach no other.
    pub apart: Mutex<BTreeSet<usize>>,
    reachable: Arc<Notify>,
}

impl Network {
    pub fn join(&self, peer: Peer) {
        self.peers.lock().unwrap().push(peer);
    }

    pub fn set_shared(&self, device: usize, shared: Option<Arc<Shared>>) {
        self.peers.lock().unwrap()[device].shared = shared;
    }

    pub fn reaches(&self, one: usize, other: usize) -> bool {
        let apart = self.apart.lock().unwrap();
        one == other || !(apart.contains(&one) || apart.contains(&other))
    }

    /// Devices or bytes may have come into reach.
    pub fn announce(&self) {
        self.reachable.notify_waiters();
    }

    /// A content's bytes, from the device itself or one that it reaches: where their vaults say that they are.
    pub fn find(&self, device: usize, hash: &[u8; 32]) -> Option<Arc<Vec<u8>>> {
        let count = self.peers.lock().unwrap().len();
        let from = std::iter::once(device).chain((0..count).filter(|other| *other != device));
        from.filter(|from| self.reaches(device, *from))
            .find_map(|from| self.held_by(from, hash))
    }

    /// The same, of a content that was kept when the vault took it off a disk: nobody will delete it there.
    pub fn find_kept(&self, device: usize, hash: &[u8; 32]) -> Option<Arc<Vec<u8>>> {
        let count = self.peers.lock().unwrap().len();
        (0..count)
            .filter(|from| self.reaches(device, *from))
            .find_map(|from| {
                let kept = |place: &Placement| matches!(place, Placement::Kept { .. });
                self.read(from, hash, kept)
                    .or_else(|| self.stored(from, hash))
            })
    }

    /// A content's bytes, if the device has them where its vault says.
    pub fn held_by(&self, device: usize, hash: &[u8; 32]) -> Option<Arc<Vec<u8>>> {
        self.on_disk(device, hash)
            .or_else(|| self.stored(device, hash))
    }

    /// The same, of what is in the folder.
    pub fn on_disk(&self, device: usize, hash: &[u8; 32]) -> Option<Arc<Vec<u8>>> {
        self.read(device, hash, |_| true)
    }

    /// Bytes in the device's own store, while it runs.
    fn stored(&self, device: usize, hash: &[u8; 32]) -> Option<Arc<Vec<u8>>> {
        let peers = self.peers.lock().unwrap();
        peers[device].shared.as_ref()?;
        peers[device].vault.stored(hash)
    }

    fn read(
        &self,
        device: usize,
        hash: &[u8; 32],
        from: impl Fn(&Placement) -> bool,
    ) -> Option<Arc<Vec<u8>>> {
        let peers = self.peers.lock().unwrap();
        let peer = &peers[device];
        let shared = peer.shared.as_ref()?;
        let paths = peer.vault.inner.places_of(hash).into_iter();
        let paths = paths.filter(from).flat_map(|place| match place {
            Placement::File { file, .. } => {
                let id = FileId(file);
                let rows = shared.rows();
                let path = rows
                    .path(id)
                    .or_else(|| rows.path(peer.vault.tree().representative(id)));
                vec![path.map(|path| PathBuf::from(PATH).join(path))]
            }
            Placement::Kept { name, .. } => {
                let name = hex::encode(name);
                let path = |name: &str| Some(kept_path(PATH.as_ref(), name));
                vec![path(&name), path(&format!("{name}.pending"))]
            }
            _ => Vec::new(),
        });
        paths.flatten().find_map(|path| {
            let bytes = peer.disk.peek(&path)?;
            (content_hash(&bytes) == *hash).then_some(bytes)
        })
    }
}

/// A device's way to contents.
pub struct SimContents {
    pub device: usize,
    pub disk: Arc<VirtualDisk>,
    pub power: Arc<Power>,
    pub network: Arc<Network>,
}

impl SimContents {
    fn read(&self, job: &ImportJob) -> Result<Imported, ImportError> {
        let vanished = |_: io::Error| ImportError::Vanished;
        let (stat, bytes) = self.disk.fetch(&job.path).map_err(vanished)?;
        if stat.kind != Some(Kind::File) {
            return Err(ImportError::NotAFile);
        }
        let (after, _) = self.disk.fetch(&job.path).map_err(vanished)?;
        // The file is open: one that has its place by now changes nothing.
        if after.inode == stat.inode && after != stat {
            return Err(ImportError::Changed);
        }
        let stamp = ReadStamp {
            mtime_ns: stat.mtime_ns,
            ctime_ns: stat.ctime_ns,
            inode: stat.inode,
            executable: stat.executable,
        };
        Ok(imported(&bytes, stamp, job.into))
    }

    fn bring(&self, job: &WriteJob) -> Result<Rows, WriteError> {
        let bytes = match job.content.size {
            0 => Some(Arc::default()),
            _ => self.network.find(self.device, &job.content.hash),
        };
        let bytes = bytes.ok_or(WriteError::Unavailable { missing: 1 })?;
        match self.disk.store(&job.temp, &bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                return Err(WriteError::DiskFull);
            }
            Err(error) => return Err(WriteError::Write(error)),
        }
        let mut rows = Rows::default();
        if !bytes.is_empty() {
            let place = Placement::File {
                root: job.folder,
                file: job.file,
                offset: 0,
                len: bytes.len() as u32,
                frame: job.content.hash,
                epoch: [0; 32],
            };
            rows.placements
                .push((coffer_protocol::identity::Hash(job.content.hash), place));
        }
        Ok(rows)
    }
}

impl Contents for SimContents {
    async fn import(&self, jobs: Vec<ImportJob>) -> Vec<Result<Imported, ImportError>> {
        jobs.iter().map(|job| self.read(job)).collect()
    }

    async fn write(&self, jobs: Vec<WriteJob>, done: mpsc::Sender<Group>) {
        for jobs in jobs.chunks(GROUP) {
            let mut group = Group::default();
            for job in jobs {
                group.jobs.push((job.content.key, self.bring(job)));
            }
            if self.disk.flush().is_err() || !self.power.is_on() || done.send(group).await.is_err()
            {
                return;
            }
        }
    }

    async fn expand(&self, _root: &ChunkRoot) -> Result<Vec<Named>, WriteError> {
        Err(WriteError::Unavailable { missing: 1 })
    }

    fn reachable(&self) -> BoxFuture<'static, ()> {
        let notify = self.network.reachable.clone();
        Box::pin(async move { notify.notified().await })
    }
}
