//! Bytes that were read from a synced folder, made durable before anybody hears of them.

use std::io;
use std::path::Path;

use coffer_crdt::files::Kind;

use super::compare::Read;
use super::place::Place;
use super::reading::Found;
use crate::blobs::ImportError;

/// Files made durable one by one, at most: beyond, one flush of the whole file system is quicker. For a few it would not
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
            _ => Ok(read.stat),
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
