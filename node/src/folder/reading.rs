//! Reading the files that the local pass found: batch by batch, each as it was at that moment.

use std::path::PathBuf;

use coffer_crdt::files::{FileId, Kind};

use super::Contents;
use super::compare::Read;
use super::decide;
use super::surroundings::Surroundings;
use crate::blobs::{Import, ImportError, ImportJob, Imported};

/// Files read and committed together, at most: what was read is durable and visible to others so often.
const BATCH_FILES: usize = 2048;
/// The same, in bytes.
const BATCH_BYTES: u64 = 64 << 20;

/// A file that was read, and the id it has if it is new.
pub(super) type Found = (Read, FileId, Imported);

pub(super) fn batches(reads: Vec<Read>) -> Vec<Vec<Read>> {
    let mut all: Vec<Vec<Read>> = Vec::new();
    let mut bytes = 0;
    for read in reads {
        bytes += read.stat.size;
        match all.last_mut() {
            Some(batch) if batch.len() < BATCH_FILES && bytes <= BATCH_BYTES => batch.push(read),
            _ => {
                bytes = read.stat.size;
                all.push(vec![read]);
            }
        }
    }
    all
}

/// Reads a batch of files. What the file system says of them is as of the reading then.
pub(super) async fn import<C: Contents>(
    around: &dyn Surroundings,
    contents: &C,
    root: PathBuf,
    number: u32,
    batch: Vec<Read>,
) -> (Vec<Found>, Vec<(Read, ImportError)>) {
    let ids: Vec<FileId> = batch
        .iter()
        .map(|read| read.id.unwrap_or_else(|| around.fresh()))
        .collect();
    let files = batch
        .iter()
        .zip(&ids)
        .filter(|(read, _)| read.kind == Kind::File);
    let jobs = files
        .map(|(read, id)| ImportJob {
            path: root.join(&read.path),
            into: Import::FileBacked {
                root: number,
                file: id.0,
            },
        })
        .collect();
    let mut results = contents.import(jobs).await.into_iter();
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    for (mut read, id) in batch.into_iter().zip(ids) {
        if read.kind != Kind::File {
            let imported = link_imported(&read);
            found.push((read, id, imported));
            continue;
        }
        match results.next().unwrap_or(Err(ImportError::Vanished)) {
            // Another file is at that path by now.
            Ok(imported) if imported.inode != read.stat.inode => {
                failed.push((read, ImportError::Vanished))
            }
            Ok(imported) => {
                read.stat.size = imported.size;
                read.stat.mtime_ns = imported.mtime_ns;
                read.stat.ctime_ns = imported.ctime_ns;
                read.stat.executable = imported.executable;
                found.push((read, id, imported));
            }
            Err(error) => failed.push((read, error)),
        }
    }
    (found, failed)
}

/// A link has no bytes to read: its target came with the scan.
fn link_imported(read: &Read) -> Imported {
    let draft = decide::link_draft(read.target.as_deref().unwrap_or_default(), 0);
    Imported {
        hold: Default::default(),
        size: draft.size,
        mtime_ns: read.stat.mtime_ns,
        ctime_ns: read.stat.ctime_ns,
        inode: read.stat.inode,
        executable: false,
        hash: draft.hash,
        root: draft.root,
        rows: Default::default(),
    }
}
