//! The rows of one synced folder, with the indexes that comparing needs.
//!
//! A row says what a file looked like on disk when disk and vault last agreed. In memory the rows follow the disk step
//! by step; they become durable with the commit that ends the step.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use coffer_crdt::files::{FileId, Kind};

use crate::vault::request::FolderRow;

/// Folders within folders that are followed, at most: more than a path has room for (4096 bytes), and a bound should
/// rows ever contain a circle.
const MAX_DEPTH: usize = 2048;

/// The value of [`FolderRow::kind`] for a kind.
pub fn kind_number(kind: Kind) -> u8 {
    match kind {
        Kind::File => 0,
        Kind::Folder => 1,
        Kind::Symlink => 2,
    }
}

/// The kind that a row's number stands for.
pub fn row_kind(row: &FolderRow) -> Kind {
    match row.kind {
        1 => Kind::Folder,
        2 => Kind::Symlink,
        _ => Kind::File,
    }
}

/// What is added to [`FolderRow::ctime_ns`] of a file that is ignored: later than any file system's clock can say. Its
/// disappearance then says nothing, also if the rules no longer name it when it is noticed.
pub const ASIDE: i128 = 1 << 96;

/// Whether a row is of a file that was ignored when it was last looked at.
pub fn is_aside(row: &FolderRow) -> bool {
    row.ctime_ns >= ASIDE / 2
}

/// The change time that the file system said, in nanoseconds since 1970.
pub fn true_ctime(row: &FolderRow) -> i128 {
    if is_aside(row) {
        row.ctime_ns - ASIDE
    } else {
        row.ctime_ns
    }
}

/// Almost the time that a row has: no disk's file agrees with a row that has it, so its bytes are read, and nobody set it.
pub fn unsure_time(row: &FolderRow) -> i128 {
    row.mtime_ns ^ 1
}

/// The row, marked as one of a file that is ignored.
pub fn aside(row: &FolderRow) -> FolderRow {
    FolderRow {
        ctime_ns: true_ctime(row) + ASIDE,
        ..row.clone()
    }
}

/// All rows of a synced folder.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    top: FileId,
    rows: BTreeMap<FileId, FolderRow>,
    children: BTreeMap<FileId, BTreeMap<String, FileId>>,
    inodes: BTreeSet<(u64, FileId)>,
    /// Rows whose place another row has taken: their files were gone when that one came.
    ousted: BTreeSet<FileId>,
    files: u64,
    bytes: u64,
    revision: u64,
}

impl Rows {
    /// The rows as the vault keeps them; `top` is the id of the vault folder that the synced folder's own path stands for.
    pub fn new(top: FileId, rows: BTreeMap<FileId, FolderRow>) -> Rows {
        let mut all = Rows {
            top,
            ..Rows::default()
        };
        for (id, row) in rows {
            all.set(id, row);
        }
        all
    }

    /// Grows with each change of a row.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The id that rows directly in the synced folder have as parent.
    pub fn top(&self) -> FileId {
        self.top
    }

    /// One row.
    pub fn get(&self, id: FileId) -> Option<&FolderRow> {
        self.rows.get(&id)
    }

    /// Whether `id` is a folder on disk: the synced folder itself, or one with a row.
    pub fn is_folder(&self, id: FileId) -> bool {
        id == self.top || self.rows.get(&id).is_some_and(|row| row.kind == 1)
    }

    /// Adds or replaces a row.
    pub fn set(&mut self, id: FileId, row: FolderRow) {
        self.remove(id);
        self.revision += 1;
        let before = self
            .children
            .entry(FileId(row.parent))
            .or_default()
            .insert(row.name.clone(), id);
        self.ousted.extend(before);
        self.inodes.insert((row.inode, id));
        if row.kind != 1 {
            self.files += 1;
            self.bytes += row.size;
        }
        self.rows.insert(id, row);
    }

    /// Removes a row and returns it.
    pub fn remove(&mut self, id: FileId) -> Option<FolderRow> {
        let row = self.rows.remove(&id)?;
        self.revision += 1;
        self.ousted.remove(&id);
        let parent = FileId(row.parent);
        if let Some(siblings) = self.children.get_mut(&parent) {
            if siblings.get(&row.name) == Some(&id) {
                siblings.remove(&row.name);
            }
            if siblings.is_empty() {
                self.children.remove(&parent);
            }
        }
        self.inodes.remove(&(row.inode, id));
        if row.kind != 1 {
            self.files -= 1;
            self.bytes -= row.size;
        }
        Some(row)
    }

    /// The file with a name in a folder.
    pub fn child(&self, parent: FileId, name: &str) -> Option<FileId> {
        self.children.get(&parent)?.get(name).copied()
    }

    /// The files in a folder, by name.
    pub fn children(&self, parent: FileId) -> impl Iterator<Item = (&str, FileId)> {
        self.children
            .get(&parent)
            .into_iter()
            .flatten()
            .map(|(name, id)| (name.as_str(), *id))
    }

    /// Rows at whose place another one is by now: only their inode could still tell where the file is.
    pub fn ousted(&self) -> impl Iterator<Item = FileId> {
        self.ousted.iter().copied()
    }

    /// All files below a folder, parents before children.
    pub fn below(&self, folder: FileId) -> Vec<FileId> {
        let (mut all, mut open) = (Vec::new(), vec![folder]);
        while let Some(folder) = open.pop() {
            for (_, id) in self.children(folder) {
                all.push(id);
                if self.is_folder(id) && all.len() <= self.rows.len() {
                    open.push(id);
                }
            }
        }
        all
    }

    /// The files with an inode number: several for hard links, and where a number was used again.
    pub fn with_inode(&self, inode: u64) -> impl Iterator<Item = FileId> {
        self.inodes
            .range((inode, FileId([0; 16]))..=(inode, FileId([0xff; 16])))
            .map(|(_, id)| *id)
    }

    /// Path of a file within the synced folder; `None` without a row, or where a parent has none.
    pub fn path(&self, id: FileId) -> Option<PathBuf> {
        let mut names = Vec::new();
        let mut at = id;
        while at != self.top {
            let row = self.rows.get(&at)?;
            names.push(row.name.as_str());
            at = FileId(row.parent);
            if names.len() > MAX_DEPTH {
                return None;
            }
        }
        Some(names.iter().rev().collect())
    }

    /// The file at a path within the synced folder.
    pub fn at(&self, path: &Path) -> Option<FileId> {
        path.components().try_fold(self.top, |folder, name| {
            self.child(folder, name.as_os_str().to_str()?)
        })
    }

    /// All rows, by id.
    pub fn iter(&self) -> impl Iterator<Item = (FileId, &FolderRow)> {
        self.rows.iter().map(|(id, row)| (*id, row))
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Files and links, and their lengths together in bytes.
    pub fn totals(&self) -> (u64, u64) {
        (self.files, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(parent: FileId, name: &str, kind: u8, inode: u64) -> FolderRow {
        FolderRow {
            parent: parent.0,
            name: name.into(),
            kind,
            inode,
            size: 1,
            mtime_ns: 0,
            ctime_ns: 0,
            executable: false,
            hash: [0; 32],
        }
    }

    #[test]
    fn a_renamed_folder_takes_its_files_along() {
        let (top, folder, file) = (FileId::ROOT, FileId([1; 16]), FileId([2; 16]));
        let mut rows = Rows::new(
            top,
            BTreeMap::from([
                (folder, row(top, "a", 1, 10)),
                (file, row(folder, "f", 0, 11)),
            ]),
        );
        assert_eq!(rows.path(file), Some("a/f".into()));
        rows.set(folder, row(top, "b", 1, 10));
        assert_eq!(rows.path(file), Some("b/f".into()));
        assert_eq!(rows.at(Path::new("b/f")), Some(file));
        assert_eq!(rows.at(Path::new("a/f")), None);
        assert_eq!(rows.with_inode(11).collect::<Vec<_>>(), [file]);
        assert_eq!(rows.totals(), (1, 1));
    }

    #[test]
    fn a_row_whose_place_is_taken_is_not_forgotten() {
        let (one, other) = (FileId([1; 16]), FileId([2; 16]));
        let mut rows = Rows::new(
            FileId::ROOT,
            BTreeMap::from([(one, row(FileId::ROOT, "a", 0, 10))]),
        );
        rows.set(other, row(FileId::ROOT, "a", 0, 11));
        assert_eq!(rows.child(FileId::ROOT, "a"), Some(other));
        assert_eq!(rows.ousted().collect::<Vec<_>>(), [one]);
        rows.set(one, row(FileId::ROOT, "b", 0, 10));
        assert_eq!(rows.ousted().count(), 0);
        assert_eq!(rows.child(FileId::ROOT, "a"), Some(other));
    }

    #[test]
    fn a_circle_of_rows_has_no_path() {
        let (a, b) = (FileId([1; 16]), FileId([2; 16]));
        let rows = Rows::new(
            FileId::ROOT,
            BTreeMap::from([(a, row(b, "a", 1, 1)), (b, row(a, "b", 1, 2))]),
        );
        assert_eq!(rows.path(a), None);
        assert!(rows.below(a).len() <= 3);
    }
}
