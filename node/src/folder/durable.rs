//! Bytes and names that were found in a synced folder, made durable before anybody hears of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use coffer_crdt::files::{FileId, Kind};

use super::compare::Read;
use super::place::Place;
use super::reading::Found;
use super::rows::Rows;
use crate::blobs::ImportError;
use crate::vault::request::FolderRow;

/// Files or folders made durable one by one, at most: beyond, one flush of the whole file system is quicker. For a few it would not
/// be, if another program is writing much.
const FEW_FILES: usize = 4;

/// Files that were read and could be made durable, and the others.
pub(super) type Durable = (Vec<Found>, Vec<(Read, ImportError)>);

/// Makes the bytes that were read durable, before the vault says that this device has them: their writers need not have
/// done so, and a row that outlives its file's bytes would vouch for others.
pub(super) fn durable(place: &Place, found: Vec<Found>) -> Durable {
    let is_file = |(read, ..): &&Found| read.kind == Kind::File;
    if found.iter().filter(is_file).count() > FEW_FILES {
        return match place.sync() {
            Ok(()) => (found, Vec::new()),
            Err(error) => {
                let reason = error.to_string();
                let failed = found.into_iter().map(|(read, ..)| {
                    let error = io::Error::new(error.kind(), reason.clone());
                    (read, ImportError::Read(error))
                });
                (Vec::new(), failed.collect())
            }
        };
    }
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for (read, id, imported) in found {
        let folder = read.path.parent().unwrap_or(Path::new(""));
        let synced = match read.kind {
            Kind::File => place
                .folder(folder)
                .and_then(|folder| folder.sync_file(&read.name)),
            // A link is its name.
            _ => place
                .folder(folder)
                .and_then(|folder| folder.sync())
                .map(|()| read.stat),
        };
        match synced {
            // The bytes that are durable are those that were read.
            Ok(stat)
                if (stat.inode, stat.size, stat.mtime_ns)
                    == (read.stat.inode, read.stat.size, read.stat.mtime_ns) =>
            {
                done.push((read, id, imported));
            }
            Ok(_) => failed.push((read, ImportError::Changed)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                failed.push((read, ImportError::Vanished));
            }
            Err(error) => failed.push((read, ImportError::Read(error))),
        }
    }
    (done, failed)
}

/// The folders in which names came, went or changed, as they are called now: `changes` are the new rows.
pub(super) fn changed_folders(
    rows: &Rows,
    changes: &[(FileId, Option<FolderRow>)],
) -> BTreeSet<PathBuf> {
    let new: BTreeMap<FileId, Option<&FolderRow>> = changes
        .iter()
        .map(|(id, row)| (*id, row.as_ref()))
        .collect();
    let row_of = |id: FileId| match new.get(&id) {
        Some(row) => *row,
        None => rows.get(id),
    };
    let path = |folder: FileId| {
        let (mut names, mut at) = (Vec::new(), folder);
        while at != rows.top() {
            let row = row_of(at).filter(|_| names.len() <= rows.len() + changes.len())?;
            names.push(row.name.as_str());
            at = FileId(row.parent);
        }
        Some(names.into_iter().rev().collect::<PathBuf>())
    };
    let place = |row: &FolderRow| (row.parent, row.name.clone(), row.inode);
    let mut folders = BTreeSet::new();
    for (id, row) in changes {
        let (old, new) = (rows.get(*id), row.as_ref());
        if old.map(place) != new.map(place) {
            let parents = old.into_iter().chain(new).map(|row| FileId(row.parent));
            // A folder that is gone itself is a name less in the one above it.
            folders.extend(parents.filter_map(path));
        }
    }
    folders
}

/// Makes the names in these folders durable. What is not there any more was changed again: the next look sees to it.
pub(super) fn durable_names(place: &Place, folders: &BTreeSet<PathBuf>) -> io::Result<()> {
    if folders.len() > FEW_FILES {
        return place.sync();
    }
    for folder in folders {
        match place.folder(folder).and_then(|folder| folder.sync()) {
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(error);
            }
            _ => {}
        }
    }
    Ok(())
}
