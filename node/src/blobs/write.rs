//! Writing contents into temporary files: the sink for synced folders.
//!
//! A temporary file is private (0600) and written at the chunks' offsets in any order; what an earlier run left in it is
//! checked and kept. Nothing is made durable file by file: a group of ended files shares one `syncfs`, and only then are
//! they handed over, for the folder engine to rename and the vault to commit.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use coffer_protocol::frame::{self, FRAME_HEADER_LEN};
use coffer_protocol::keys::Keyring;

use super::board::Item;
use super::coming::Arrivals;
use super::content::Named;
use super::error::{BlobsError, WriteError};
use super::jobs::{
    GROUP_AFTER, GROUP_BYTES, GROUP_JOBS, Group, NO_FOLDER, Planned, Standing, Wants, WriteJob,
    check_keys, lost_by_job,
};
use super::pins::Hold;
use super::placement::{Placement, Reader, Rows, is_worth_a_row};
use super::seam::Origin;
use super::sources::Progress;
use super::store::{Keeper, append_from};
use super::transfer::{Arrived, Sink, Want};
use super::{Shared, lock};

/// Temporary files kept open: only large ones get more than one chunk, and few of those are under way at a time.
const OPEN_FILES: usize = 64;

/// Writes into temporary files.
pub(super) struct FileSink {
    shared: Arc<Shared>,
    progress: Arc<Progress>,
    arrivals: Arc<Arrivals>,
    jobs: Vec<FileJob>,
    /// For each item, where its bytes go.
    targets: Vec<Vec<Target>>,
    standing: Standing,
    open: Mutex<VecDeque<(usize, Arc<File>)>>,
    /// A file on each file system that was written to, by device number: through it the file system is flushed.
    written: Mutex<BTreeMap<u64, File>>,
    unflushed: AtomicU64,
    flushed: Mutex<Instant>,
    /// Compressed frames: they cannot be made from the file again.
    keeper: Keeper,
    hold: Hold,
}

/// A place in a file.
#[derive(Clone, Copy)]
struct Target {
    job: usize,
    /// Which of the job's chunks.
    position: usize,
    /// Where it begins, in bytes.
    offset: u64,
}

struct FileJob {
    job: WriteJob,
    chunks: Vec<Named>,
    /// Chunks (by position) whose blob is in the store: the file cannot stand for it, or need not.
    stored: Mutex<HashSet<usize>>,
    /// Nothing was there before: what is not written reads as zeros.
    fresh: bool,
}

impl FileSink {
    /// Looks at the temporary files and tells what is still wanted. Blocking: what is there is read.
    pub fn plan(
        shared: &Arc<Shared>,
        progress: Arc<Progress>,
        hold: Hold,
        planned: Vec<Planned<WriteJob>>,
    ) -> Result<(Self, Vec<Want>), BlobsError> {
        let reader = shared.reader()?;
        let keyring = shared.keyring();
        let mut wants = Wants::default();
        let mut sink = Self {
            shared: Arc::clone(shared),
            progress,
            arrivals: shared
                .coming
                .follow(planned.iter().map(|planned| &planned.job.content)),
            jobs: Vec::with_capacity(planned.len()),
            targets: Vec::new(),
            standing: Standing::new(Vec::new()),
            open: Mutex::default(),
            written: Mutex::default(),
            unflushed: AtomicU64::new(0),
            flushed: Mutex::new(Instant::now()),
            keeper: Keeper::new(hold.clone()),
            hold,
        };
        let mut left = Vec::with_capacity(planned.len());
        let mut failed = BTreeMap::new();
        for (index, Planned { job, chunks }) in planned.into_iter().enumerate() {
            let started = sink.start(index, &job, &chunks, &keyring, &reader, &mut wants);
            let (count, fresh) = match started {
                Ok(started) => started,
                Err(error) => {
                    failed.insert(index, error);
                    (0, false)
                }
            };
            left.push(count);
            sink.jobs.push(FileJob {
                job,
                chunks,
                stored: Mutex::default(),
                fresh,
            });
        }
        sink.standing = Standing::new(left);
        sink.standing.begin_failed(failed);
        sink.targets.resize_with(wants.list.len(), Vec::new);
        Ok((sink, wants.list))
    }

    /// Notes which chunks of a job are wanted; gives their number, and whether the file is a new one.
    fn start(
        &mut self,
        index: usize,
        job: &WriteJob,
        chunks: &[Named],
        keyring: &Keyring,
        reader: &Reader,
        wants: &mut Wants,
    ) -> Result<(usize, bool), WriteError> {
        check_keys(chunks, keyring)?;
        let found = match open_writable(&job.temp, false) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(WriteError::writing(error)),
        };
        let fresh = found.is_none();
        if let Some(file) = &found {
            self.note_written(file).map_err(WriteError::writing)?;
        }
        let mut left = 0;
        let mut offset = 0;
        let mut buffer = Vec::new();
        let mut wanted = Vec::new();
        for (position, chunk) in chunks.iter().enumerate() {
            let there = match &found {
                Some(file) => holds(file, offset, chunk, keyring, &mut buffer),
                None => false,
            };
            if there {
                Progress::add(&self.progress.done_bytes, u64::from(chunk.len));
                self.arrivals.add(index, u64::from(chunk.len));
            } else {
                let target = Target {
                    job: index,
                    position,
                    offset,
                };
                wanted.push((wants.item(chunk, reader)?, target));
                left += 1;
            }
            offset += u64::from(chunk.len);
        }
        match &found {
            Some(file) => file
                .set_len(job.content.size)
                .map_err(WriteError::writing)?,
            // A new file appears with its first chunk; one without any, here.
            None if left == 0 => {
                let file = open_writable(&job.temp, true).map_err(WriteError::writing)?;
                self.note_written(&file).map_err(WriteError::writing)?;
            }
            None => {}
        }
        self.targets.resize_with(wants.list.len(), Vec::new);
        for (item, target) in wanted {
            self.targets[item as usize].push(target);
        }
        Ok((left, fresh))
    }

    /// The file of a job, opened when it is first written to.
    fn file(&self, job: usize) -> io::Result<Arc<File>> {
        let mut open = lock(&self.open);
        if let Some((_, file)) = open.iter().find(|(number, _)| *number == job) {
            return Ok(Arc::clone(file));
        }
        let FileJob {
            job: spec, chunks, ..
        } = &self.jobs[job];
        let file = open_writable(&spec.temp, true)?;
        if chunks.len() > 1 && file.metadata()?.len() != spec.content.size {
            file.set_len(spec.content.size)?;
        }
        self.note_written(&file)?;
        let file = Arc::new(file);
        if chunks.len() > 1 {
            open.push_front((job, Arc::clone(&file)));
            open.truncate(OPEN_FILES);
        }
        Ok(file)
    }

    fn note_written(&self, file: &File) -> io::Result<()> {
        let device = file.metadata()?.dev();
        let mut written = lock(&self.written);
        if let Entry::Vacant(entry) = written.entry(device) {
            entry.insert(file.try_clone()?);
        }
        Ok(())
    }

    fn write(&self, job: usize, offset: u64, plain: &[u8]) -> io::Result<()> {
        let file = self.file(job)?;
        let FileJob { chunks, fresh, .. } = &self.jobs[job];
        // A hole stays a hole. In a file that was there before there may be something else.
        let hole = *fresh && chunks.len() > 1 && plain.iter().all(|byte| *byte == 0);
        if !hole {
            file.write_all_at(plain, offset)?;
            self.unflushed
                .fetch_add(plain.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    fn rows(&self, job: usize) -> Rows {
        let FileJob {
            job,
            chunks,
            stored,
            ..
        } = &self.jobs[job];
        let stored = lock(stored);
        let mut rows = Rows::default();
        let mut offset = 0;
        for (position, chunk) in chunks.iter().enumerate() {
            let in_store = stored.contains(&position);
            if in_store || is_worth_a_row(chunk.len) {
                rows.chunks.push((chunk.id, chunk.row()));
            }
            if !in_store {
                let place = Placement::File {
                    root: job.folder,
                    file: job.file,
                    offset,
                    len: chunk.len,
                    frame: chunk.frame.0,
                    epoch: chunk.epoch.0,
                };
                rows.placements.push((chunk.blob, place));
            }
            offset += u64::from(chunk.len);
        }
        rows
    }

    /// A chunk of `job` has come or never will; with the last, its file is closed.
    fn one_less(&self, job: usize) {
        if self.standing.one_less(job) {
            lock(&self.open).retain(|(number, _)| *number != job);
        }
    }

    /// Flushes every file system that was written to.
    fn sync(&self) -> io::Result<()> {
        let files: Vec<File> = {
            let written = lock(&self.written);
            written
                .values()
                .map(File::try_clone)
                .collect::<io::Result<_>>()?
        };
        for file in files {
            rustix::fs::syncfs(&file)?;
        }
        Ok(())
    }
}

impl Sink for FileSink {
    const SEALED: bool = false;

    fn take(&self, item: Item, chunk: &Arrived<'_>) {
        // A compressed frame is kept as it came, or is in the store already. A file outside of synced folders stands for
        // nothing: what it is made of stays where it was.
        let mut jobs = self.targets[item as usize].iter();
        let stands = jobs.any(|target| self.jobs[target.job].job.folder != NO_FOLDER);
        let sealed = chunk.sealed.filter(|_| stands);
        let kept = match sealed {
            Some(sealed) => self
                .keeper
                .keep(&self.shared.store, chunk.named.blob, sealed)
                .map_err(WriteError::from),
            None => Ok(()),
        };
        let in_store = sealed.is_some() || chunk.local == Some(Origin::Store { compressed: true });
        for target in &self.targets[item as usize] {
            let job = target.job;
            if !self.standing.has_failed(job) {
                if in_store {
                    lock(&self.jobs[job].stored).insert(target.position);
                }
                if let Err(error) = self.write(job, target.offset, chunk.plain) {
                    self.standing.fail(job, WriteError::writing(error));
                }
                if let Err(error) = &kept {
                    self.standing.fail(job, error.again());
                }
                Progress::add(&self.progress.done_bytes, chunk.plain.len() as u64);
                self.arrivals.add(job, chunk.plain.len() as u64);
            }
            self.one_less(job);
        }
    }

    fn fail(&self, item: Item, why: &WriteError) {
        for target in &self.targets[item as usize] {
            self.standing.fail(target.job, why.again());
            self.one_less(target.job);
        }
    }

    fn ready(&self) -> bool {
        let ended = self.standing.ended();
        ended >= GROUP_JOBS
            || self.unflushed.load(Ordering::Relaxed) >= GROUP_BYTES
            || ended > 0 && lock(&self.flushed).elapsed() >= GROUP_AFTER
    }

    fn flush(&self, lost: Option<&[Item]>) -> Group {
        // What ended before the flush began is durable after it; what ends meanwhile is not.
        let ended = self.standing.take_ended(lost.is_some());
        self.unflushed.store(0, Ordering::Relaxed);
        *lock(&self.flushed) = Instant::now();
        let shared = self.keeper.flush(&self.shared.store);
        let synced = self.sync();
        let lost = lost_by_job(lost.unwrap_or_default(), |item| {
            self.targets[item as usize]
                .iter()
                .map(|target| target.job)
                .collect()
        });
        if let Err(error) = &synced {
            // What the system failed to write it holds for written from now on: no file under way can be trusted.
            self.standing
                .fail_open(|| WriteError::writing(again(error)));
        }
        if let Err(error) = &shared {
            self.standing.fail_open(|| WriteError::from(error.again()));
        }
        let mut group = Group {
            hold: Some(self.hold.clone()),
            ..Group::default()
        };
        for job in ended {
            let lost = lost.get(&job).copied().unwrap_or(0);
            let failed = self.standing.failure(job, lost).or_else(|| match &synced {
                Ok(()) => None,
                Err(error) => Some(WriteError::writing(again(error))),
            });
            let stored = !lock(&self.jobs[job].stored).is_empty();
            let result = match (failed, &shared) {
                (Some(error), _) => Err(error),
                (None, Err(error)) if stored => Err(WriteError::from(error.again())),
                (None, _) => {
                    Progress::add(&self.progress.done_files, 1);
                    Ok(self.rows(job))
                }
            };
            group.jobs.push((self.jobs[job].job.content.key, result));
        }
        group.shared.placements = shared.unwrap_or_default();
        group
    }
}

/// An error of a flush is every job's of it.
fn again(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// Whether `file` holds `chunk` at `offset`, as an uncompressed frame, so that it can stand for the blob.
fn holds(file: &File, offset: u64, chunk: &Named, keyring: &Keyring, buffer: &mut Vec<u8>) -> bool {
    let Some(epoch) = keyring.epoch(&chunk.epoch) else {
        return false;
    };
    buffer.clear();
    buffer.resize(FRAME_HEADER_LEN, 0);
    append_from(file, offset, chunk.len as usize, buffer).unwrap_or(false)
        && keyring.secret().chunk_id(&buffer[FRAME_HEADER_LEN..]) == chunk.id
        && frame::seal_frame_in_place(buffer, keyring.secret(), epoch)
            .is_ok_and(|ids| ids.blob == chunk.blob)
}

/// Opens a temporary file: private, never through a link, never something else than a file.
fn open_writable(path: &Path, create: bool) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags.bits() as i32)
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        )),
    }
}
