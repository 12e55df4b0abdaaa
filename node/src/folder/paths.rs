//! Where a file of a synced folder is now, for those who read its bytes.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use coffer_crdt::files::FileId;

use super::place;
use super::rows::Rows;
use crate::blobs::FolderPaths;

/// What an engine and the readers of its files have in common.
pub struct Shared {
    path: PathBuf,
    rows: RwLock<Rows>,
    stand_in: Box<dyn Fn(FileId) -> FileId + Send + Sync>,
}

impl Shared {
    /// `stand_in` says which file another is shown as one with now: bytes that were imported under the one are at the
    /// other's path.
    pub fn new(
        path: PathBuf,
        rows: Rows,
        stand_in: Box<dyn Fn(FileId) -> FileId + Send + Sync>,
    ) -> Shared {
        Shared {
            path,
            rows: RwLock::new(rows),
            stand_in,
        }
    }

    /// The rows, to look at.
    pub fn rows(&self) -> RwLockReadGuard<'_, Rows> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows, to change. Only the folder's own engine does.
    pub fn rows_mut(&self) -> RwLockWriteGuard<'_, Rows> {
        self.rows.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, file: FileId) -> Option<PathBuf> {
        let path = self.rows().path(file);
        let path = match path {
            Some(path) => Some(path),
            None => {
                let other = (self.stand_in)(file);
                if other == file {
                    None
                } else {
                    self.rows().path(other)
                }
            }
        };
        path.map(|path| self.path.join(path))
    }
}

/// The synced folders of this device. Cheap to clone; give it to `Blobs::set_folders`.
#[derive(Clone, Default)]
pub struct Folders(Arc<RwLock<BTreeMap<u32, Arc<Shared>>>>);

impl Folders {
    /// None yet.
    pub fn new() -> Folders {
        Folders::default()
    }

    pub(super) fn add(&self, number: u32, shared: Arc<Shared>) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(number, shared);
    }

    pub(super) fn remove(&self, number: u32) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&number);
    }

    /// Number and path of each.
    pub fn all(&self) -> Vec<(u32, PathBuf)> {
        let folders = self.0.read().unwrap_or_else(PoisonError::into_inner);
        folders
            .iter()
            .map(|(number, folder)| (*number, folder.path.clone()))
            .collect()
    }

    /// Whether a row of any of them says that a file had this content on disk. Rows in memory may be ahead of the durable ones.
    pub fn has_row(&self, file: FileId, hash: &[u8; 32]) -> bool {
        let folders = self.0.read().unwrap_or_else(PoisonError::into_inner);
        folders.values().any(|folder| {
            let rows = folder.rows();
            let row = rows.get(file).or_else(|| rows.get((folder.stand_in)(file)));
            row.is_some_and(|row| row.hash == *hash)
        })
    }

    fn get(&self, number: u32) -> Option<Arc<Shared>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&number)
            .cloned()
    }
}

impl FolderPaths for Folders {
    fn file(&self, root: u32, file: &[u8; 16]) -> Option<PathBuf> {
        self.get(root)?.file(FileId(*file))
    }

    fn is_as_recorded(&self, root: u32, file: &[u8; 16], found: &std::fs::Metadata) -> bool {
        self.get(root).is_some_and(|folder| {
            let rows = folder.rows();
            let id = FileId(*file);
            let row = rows.get(id).or_else(|| rows.get((folder.stand_in)(id)));
            row.is_some_and(|row| {
                found.ino() == row.inode
                    && found.size() == row.size
                    && nanoseconds(found.mtime(), found.mtime_nsec()) == row.mtime_ns
                    && nanoseconds(found.ctime(), found.ctime_nsec()) == row.ctime_ns
            })
        })
    }

    fn is_there(&self, root: u32) -> bool {
        self.get(root)
            .is_some_and(|folder| place::has_marker(&folder.path))
    }

    fn kept(&self, root: u32, name: &[u8; 24]) -> Option<PathBuf> {
        let folder = self.get(root)?;
        let name = hex::encode(name);
        let path = place::kept_path(&folder.path, &name);
        if path.exists() {
            return Some(path);
        }
        // Moved aside a moment ago, and not confirmed yet.
        let pending = place::kept_path(&folder.path, &format!("{name}{}", super::hidden::PENDING));
        pending.exists().then_some(pending)
    }
}

fn nanoseconds(seconds: i64, rest: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(rest)
}
