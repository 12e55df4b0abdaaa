//! Reading files into the vault: cut, hash, seal, and remember where the bytes are.
//!
//! A file of a synced folder stays where it is: its chunks are sealed only to learn their names, and what is stored are
//! rows. Other contents go to the blob store, compressed. A chunk that this device holds already, perhaps under an older
//! epoch, is named again. A file that changes while it is read is given up: it will be read when it has come to rest.
//!
//! Small files are read by all cores, one file each. A large one is cut by one thread, and sealed by all of them: the cutter
//! helps as soon as the others are behind. Nothing is allocated by the chunk: windows of the file and sealed frames are in
//! buffers that go round.

mod large;
mod line;
mod naming;
mod stamp;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use coffer_crdt::chunks::{ChunkListError, ChunkRoot};
use coffer_protocol::identity::Hash;
use coffer_protocol::keys::Keyring;
use redb::ReadableDatabase;

use super::chunking::{Chunker, LIST_SIZES, ONE_CHUNK, Sizes};
use super::content::{self, Named};
use super::error::{BlobsError, ImportError};
use super::pins::Hold;
use super::placement::{Placement, PlacementError, Reader, Rows, is_worth_a_row};
use super::store::Keeper;
use super::{Shared, workers};
use stamp::Stamp;
pub(super) use stamp::open;

/// One file to read.
#[derive(Clone, Debug)]
pub struct ImportJob {
    /// Where it is.
    pub path: PathBuf,
    /// Where its bytes are to stay.
    pub into: Import,
}

/// Where the bytes of an imported file stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Import {
    /// In the file, which is one of a synced folder.
    FileBacked {
        /// Number of the synced folder.
        root: u32,
        /// The file's id.
        file: [u8; 16],
    },
    /// In the blob store.
    Store,
}

/// A file as it was read.
#[derive(Clone, Debug)]
pub struct Imported {
    /// Keeps what was read from being freed; goes with the request that names it.
    pub hold: Hold,
    /// Length in bytes.
    pub size: u64,
    /// Time of the last modification, in nanoseconds since 1970.
    pub mtime_ns: i128,
    /// Time of the last change of the inode, in nanoseconds since 1970.
    pub ctime_ns: i128,
    /// Inode number.
    pub inode: u64,
    /// Whether its owner may execute it.
    pub executable: bool,
    /// Keyed hash over size and chunk ids: equal exactly when the bytes are.
    pub hash: [u8; 32],
    /// The chunks.
    pub root: ChunkRoot,
    /// To be committed with the document that names them.
    pub rows: Rows,
}

impl Imported {
    /// Time of the last modification in milliseconds since 1970; one that no such number says counts as 1970.
    pub fn mtime_ms(&self) -> i64 {
        i64::try_from(self.mtime_ns.div_euclid(1_000_000)).unwrap_or(0)
    }
}

/// A content that was cut and sealed, before the store has told where its frames are.
struct Sealed {
    hash: [u8; 32],
    root: ChunkRoot,
    rows: Rows,
    /// Blobs that were given to the keeper.
    kept: Vec<Hash>,
}

/// Imports files; results in the order of the jobs. Adds what it has read to `read`. Blocking.
pub(super) fn import(
    shared: &Shared,
    jobs: &[ImportJob],
    read: &AtomicU64,
) -> Vec<Result<Imported, ImportError>> {
    let run = Run::new(shared, read);
    let mut results: Vec<Option<Result<(Stamp, Sealed), ImportError>>> =
        jobs.iter().map(|_| None).collect();
    let large = run.small_files(jobs, &mut results);
    for index in large {
        results[index] = Some(run.large_file(&jobs[index]));
    }
    let results = results
        .into_iter()
        .map(|result| result.unwrap_or(Err(ImportError::Vanished)))
        .collect();
    let hold = run.hold.clone();
    run.settle(results)
        .into_iter()
        .map(|result| result.map(|(stamp, sealed)| imported(stamp, sealed, &hold)))
        .collect()
}

/// Puts bytes that are in memory into the store. Blocking.
pub(super) fn import_bytes(shared: &Shared, bytes: &[u8]) -> Result<Imported, ImportError> {
    let read = AtomicU64::new(0);
    let run = Run::new(shared, &read);
    let mut desk = run.desk()?;
    let sealed = run.whole(bytes.len() as u64, |reuse| {
        let mut pieces = Vec::new();
        let mut failed = None;
        let mut seal = |range: Range<usize>| {
            let offset = range.start as u64;
            match run.seal(&mut desk, &bytes[range], offset, Import::Store, reuse) {
                Ok(piece) => pieces.push(piece),
                Err(error) => failed = Some(error),
            }
        };
        match Sizes::for_file(bytes.len() as u64) {
            None if bytes.is_empty() => {}
            None => seal(0..bytes.len()),
            Some(sizes) => {
                Chunker::new(sizes, run.keyring.secret().cdc_seed()).cut(bytes, 0, true, seal);
            }
        }
        failed.map_or(Ok(pieces), Err)
    })?;
    let stamp = Stamp {
        device: 0,
        inode: 0,
        size: bytes.len() as u64,
        mtime_ns: 0,
        ctime_ns: 0,
        executable: false,
    };
    let (_, sealed) = run
        .settle(vec![Ok((stamp, sealed))])
        .pop()
        .unwrap_or(Err(ImportError::Vanished))?;
    Ok(imported(stamp, sealed, &run.hold))
}

fn imported(stamp: Stamp, sealed: Sealed, hold: &Hold) -> Imported {
    Imported {
        hold: hold.clone(),
        size: stamp.size,
        mtime_ns: stamp.mtime_ns,
        ctime_ns: stamp.ctime_ns,
        inode: stamp.inode,
        executable: stamp.executable,
        hash: sealed.hash,
        root: sealed.root,
        rows: sealed.rows,
    }
}

/// One import, with what its threads share.
struct Run<'a> {
    shared: &'a Shared,
    keyring: Arc<Keyring>,
    keeper: Keeper,
    hold: Hold,
    /// Bytes of files that were read so far, for whoever watches.
    read: &'a AtomicU64,
}

/// What one thread works with.
struct Desk {
    reader: Reader,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

/// A chunk that was sealed.
struct Piece {
    named: Named,
    place: Option<Placement>,
    /// Whether its chunk row is new.
    fresh: bool,
    kept: bool,
}

/// Some content names so many epochs that one list cannot: all is sealed anew, under the present one.
enum Whole {
    TooManyEpochs,
    Failed(ImportError),
}

impl From<ImportError> for Whole {
    fn from(error: ImportError) -> Self {
        Self::Failed(error)
    }
}

impl From<ChunkListError> for Whole {
    fn from(error: ChunkListError) -> Self {
        match error {
            ChunkListError::BadEpochs => Self::TooManyEpochs,
            // The file has more chunks than any list: over a terabyte.
            error => Self::Failed(ImportError::Read(io::Error::new(
                io::ErrorKind::FileTooLarge,
                error,
            ))),
        }
    }
}

impl<'a> Run<'a> {
    fn new(shared: &'a Shared, read: &'a AtomicU64) -> Self {
        let hold = shared.pins.hold();
        Run {
            shared,
            keyring: shared.keyring(),
            keeper: Keeper::new(hold.clone()),
            hold,
            read,
        }
    }

    fn desk(&self) -> Result<Desk, BlobsError> {
        let transaction = self.shared.db.begin_read().map_err(PlacementError::from)?;
        Ok(Desk {
            reader: Reader::new(&transaction)?,
            plain: Vec::new(),
            sealed: Vec::new(),
        })
    }

    /// Imports all files of one chunk, and gives the numbers of the larger ones.
    fn small_files(
        &self,
        jobs: &[ImportJob],
        results: &mut [Option<Result<(Stamp, Sealed), ImportError>>],
    ) -> Vec<usize> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            let mut desk = self.desk();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(job) = jobs.get(index) else {
                    return done;
                };
                let result = match &mut desk {
                    Ok(desk) => self.small_file(desk, job).transpose(),
                    Err(error) => Some(Err(BlobsError::Store(error.to_string()).into())),
                };
                done.push((index, result));
            }
        };
        let done = in_parallel(workers().min(jobs.len()), work);
        let mut large = Vec::new();
        for (index, result) in done {
            match result {
                Some(result) => results[index] = Some(result),
                None => large.push(index),
            }
        }
        large.sort_unstable();
        large
    }

    /// `None` if it is a large one.
    fn small_file(
        &self,
        desk: &mut Desk,
        job: &ImportJob,
    ) -> Result<Option<(Stamp, Sealed)>, ImportError> {
        let file = open(&job.path).map_err(ImportError::reading)?;
        let stamp = Stamp::of(&file)?;
        if stamp.size > ONE_CHUNK {
            return Ok(None);
        }
        let mut plain = std::mem::take(&mut desk.plain);
        plain.resize(stamp.size as usize, 0);
        let read = read_exact(&file, &mut plain, 0).and_then(|()| {
            (Stamp::of(&file)? == stamp)
                .then_some(())
                .ok_or(ImportError::Changed)
        });
        self.read.fetch_add(stamp.size, Ordering::Relaxed);
        let sealed = read.and_then(|()| {
            self.whole(stamp.size, |reuse| match plain.is_empty() {
                true => Ok(Vec::new()),
                false => Ok(vec![self.seal(desk, &plain, 0, job.into, reuse)?]),
            })
        });
        desk.plain = plain;
        Ok(Some((stamp, sealed?)))
    }

    fn large_file(&self, job: &ImportJob) -> Result<(Stamp, Sealed), ImportError> {
        let file = open(&job.path).map_err(ImportError::reading)?;
        let stamp = Stamp::of(&file)?;
        let sizes = Sizes::for_file(stamp.size).ok_or(ImportError::Changed)?;
        let sealed = self.whole(stamp.size, |reuse| {
            let pieces = self.cut_and_seal(&file, stamp.size, sizes, job.into, reuse)?;
            match Stamp::of(&file)? == stamp {
                true => Ok(pieces),
                false => Err(ImportError::Changed),
            }
        })?;
        Ok((stamp, sealed))
    }

    /// Seals a content's chunks with `pieces`, then its list. Chunks are named again unless that takes too many epochs.
    fn whole(
        &self,
        size: u64,
        mut pieces: impl FnMut(bool) -> Result<Vec<Piece>, ImportError>,
    ) -> Result<Sealed, ImportError> {
        for reuse in [true, false] {
            match self.listed(size, pieces(reuse)?, reuse) {
                Ok(sealed) => return Ok(sealed),
                Err(Whole::Failed(error)) => return Err(error),
                Err(Whole::TooManyEpochs) => {}
            }
        }
        Err(ImportError::Store(BlobsError::Store(
            "one epoch is more than a list can name".into(),
        )))
    }

    fn listed(&self, size: u64, pieces: Vec<Piece>, reuse: bool) -> Result<Sealed, Whole> {
        let secret = self.keyring.secret();
        let mut rows = Rows::default();
        let mut kept = Vec::new();
        let mut chunks = Vec::with_capacity(pieces.len());
        let mut add = |piece: Piece| {
            if piece.kept {
                kept.push(piece.named.blob);
            }
            // A chunk that is named again and stays where it is: the vault looks whether it is still there.
            let relied_on = piece.place.is_none() && !piece.kept;
            let found_again = piece.place.is_none() || is_worth_a_row(piece.named.len);
            if (piece.fresh && found_again) || relied_on {
                rows.chunks.push((piece.named.id, piece.named.row()));
            }
            if let Some(place) = piece.place {
                rows.placements.push((piece.named.blob, place));
            }
            piece.named
        };
        chunks.extend(pieces.into_iter().map(&mut add));
        let mut desk = None;
        let root = content::root(&chunks, |list| {
            let desk = match &mut desk {
                Some(desk) => desk,
                none => none.insert(self.desk().map_err(ImportError::from)?),
            };
            let mut pieces = Vec::new();
            let mut failed = None;
            Chunker::new(LIST_SIZES, secret.cdc_seed()).cut(list, 0, true, |range| {
                match self.seal(desk, &list[range], 0, Import::Store, reuse) {
                    Ok(piece) => pieces.push(add(piece)),
                    Err(error) => failed = Some(error),
                }
            });
            failed.map_or(Ok(pieces), |error| Err(Whole::Failed(error)))
        })?;
        Ok(Sealed {
            hash: secret
                .content_hash(size, chunks.iter().map(|chunk| &chunk.id))
                .0,
            root,
            rows,
            kept,
        })
    }

    /// Makes what went to the store durable, and adds where it is to the rows.
    fn settle(
        &self,
        mut results: Vec<Result<(Stamp, Sealed), ImportError>>,
    ) -> Vec<Result<(Stamp, Sealed), ImportError>> {
        let placed = match self.keeper.flush(&self.shared.store) {
            Ok(placed) => placed.into_iter().collect::<HashMap<_, _>>(),
            Err(error) => {
                let full = matches!(error, BlobsError::DiskFull);
                for result in &mut results {
                    if result
                        .as_ref()
                        .is_ok_and(|(_, sealed)| !sealed.kept.is_empty())
                    {
                        *result = Err(match full {
                            true => ImportError::DiskFull,
                            false => ImportError::Store(BlobsError::Store(error.to_string())),
                        });
                    }
                }
                return results;
            }
        };
        for (_, sealed) in results.iter_mut().flatten() {
            for blob in &sealed.kept {
                if let Some(place) = placed.get(blob) {
                    sealed.rows.placements.push((*blob, place.clone()));
                }
            }
        }
        results
    }
}

fn read_exact(file: &File, buffer: &mut [u8], offset: u64) -> Result<(), ImportError> {
    file.read_exact_at(buffer, offset)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ImportError::Changed,
            _ => ImportError::reading(error),
        })
}

/// Runs `work` on `threads` threads, this one among them, and gathers what they give.
fn in_parallel<T: Send>(threads: usize, work: impl Fn() -> Vec<T> + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(&work)).collect();
        let mut all = work();
        for other in others {
            match other.join() {
                Ok(mut more) => all.append(&mut more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    })
}
