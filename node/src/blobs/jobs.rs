//! The jobs of a transfer: what they are given as, how each stands, and how they end.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coffer_crdt::chunks::ChunkRoot;
use coffer_protocol::keys::Keyring;

use super::board::Item;
use super::content::Named;
use super::error::{BlobsError, WriteError};
use super::lock;
use super::pins::Hold;
use super::placement::{Reader, Rows};
use super::transfer::Want;

/// Jobs that end before a group is made of them. One flush of the disk costs as much as writing some hundred small files,
/// and so does what follows: another flush when they have their names, and a commit.
pub(super) const GROUP_JOBS: usize = 2048;

/// Fewer make a group when none was made for so long: over a slow network people see files come, not nothing for minutes.
pub(super) const GROUP_AFTER: Duration = Duration::from_secs(1);

/// Bytes written before the disk is set to work, so that the last flush finds little left.
pub(super) const GROUP_BYTES: u64 = 128 << 20;

/// Stands for the folder of files that are written outside of synced folders, whose numbers begin at 1.
pub const NO_FOLDER: u32 = 0;

/// One content to write into a temporary file.
#[derive(Clone, Debug)]
pub struct WriteJob {
    /// What to write.
    pub content: StoreJob,
    /// Where to write. Made if it is not there, resumed if it is; its folder must be there. It stays when the job fails.
    pub temp: PathBuf,
    /// Number of the synced folder to which the file goes; [`NO_FOLDER`] for elsewhere.
    pub folder: u32,
    /// The file's id.
    pub file: [u8; 16],
}

/// One content, to keep in the blob store or to write elsewhere.
#[derive(Clone, Debug)]
pub struct StoreJob {
    /// Chosen by the caller; comes back with the result.
    pub key: u64,
    /// The content's length in bytes.
    pub size: u64,
    /// The content's hash.
    pub hash: [u8; 32],
    /// The content's chunks.
    pub root: ChunkRoot,
}

/// Jobs that ended. What they wrote is durable.
#[derive(Debug, Default)]
pub struct Group {
    /// Keeps what the rows name from being freed; to be dropped after they are committed.
    pub hold: Option<Hold>,
    /// Rows to commit whatever becomes of the jobs: blobs that went to the store.
    pub shared: Rows,
    /// Each job's rows, to be committed when its file is in place; or why it failed.
    pub jobs: Vec<(u64, Result<Rows, WriteError>)>,
}

impl Group {
    pub(super) fn is_empty(&self) -> bool {
        self.shared.is_empty() && self.jobs.is_empty()
    }
}

/// What the two kinds of job have in common.
pub(super) trait Job: Send + 'static {
    fn content(&self) -> &StoreJob;
}

impl Job for WriteJob {
    fn content(&self) -> &StoreJob {
        &self.content
    }
}

impl Job for StoreJob {
    fn content(&self) -> &StoreJob {
        self
    }
}

/// A content with its chunks spelt out.
pub(super) struct Planned<J> {
    pub job: J,
    pub chunks: Vec<Named>,
}

/// Numbers the distinct chunks of several contents.
#[derive(Default)]
pub(super) struct Wants {
    pub list: Vec<Want>,
    known: HashMap<Named, Item>,
}

impl Wants {
    pub fn item(&mut self, named: &Named, reader: &Reader) -> Result<Item, WriteError> {
        if let Some(item) = self.known.get(named) {
            return Ok(*item);
        }
        let local = reader.has(&named.blob).map_err(BlobsError::from)?;
        let item = self.list.len() as Item;
        self.list.push(Want {
            named: *named,
            local,
        });
        self.known.insert(*named, item);
        Ok(item)
    }
}

/// Where jobs stand: which chunks each still lacks, and which have ended.
pub(super) struct Standing {
    /// Chunks that are still to come, for each job.
    left: Vec<AtomicUsize>,
    failed: Mutex<BTreeMap<usize, WriteError>>,
    ended: Mutex<Vec<usize>>,
}

impl Standing {
    pub fn new(left: Vec<usize>) -> Self {
        let ended = (0..left.len()).filter(|job| left[*job] == 0).collect();
        Self {
            left: left.into_iter().map(AtomicUsize::new).collect(),
            failed: Mutex::default(),
            ended: Mutex::new(ended),
        }
    }

    /// These failed before they began.
    pub fn begin_failed(&self, failed: BTreeMap<usize, WriteError>) {
        *lock(&self.failed) = failed;
    }

    /// A chunk of `job` is there; whether it was the last.
    pub fn one_less(&self, job: usize) -> bool {
        let last = self.left[job].fetch_sub(1, Ordering::AcqRel) == 1;
        if last {
            lock(&self.ended).push(job);
        }
        last
    }

    /// Fails `job`, for the first reason that is given, and ends it when its last chunk has come.
    pub fn fail(&self, job: usize, why: WriteError) {
        lock(&self.failed).entry(job).or_insert(why);
    }

    /// Fails every job that has not ended.
    pub fn fail_open(&self, why: impl Fn() -> WriteError) {
        for job in 0..self.left.len() {
            if self.left[job].load(Ordering::Acquire) > 0 {
                self.fail(job, why());
            }
        }
    }

    pub fn has_failed(&self, job: usize) -> bool {
        lock(&self.failed).contains_key(&job)
    }

    /// Jobs that ended since the last time; with `all`, those too that never will.
    pub fn take_ended(&self, all: bool) -> Vec<usize> {
        let mut ended = std::mem::take(&mut *lock(&self.ended));
        if all {
            ended.extend(
                (0..self.left.len()).filter(|job| self.left[*job].load(Ordering::Acquire) > 0),
            );
        }
        ended
    }

    pub fn ended(&self) -> usize {
        lock(&self.ended).len()
    }

    /// How `job` ended, if not well.
    pub fn failure(&self, job: usize, lost: usize) -> Option<WriteError> {
        let failed = lock(&self.failed).remove(&job);
        failed.or_else(|| (lost > 0).then_some(WriteError::Unavailable { missing: lost }))
    }
}

/// How many distinct lost items each job waits for.
pub(super) fn lost_by_job(
    lost: &[Item],
    jobs_of: impl Fn(Item) -> Vec<usize>,
) -> HashMap<usize, usize> {
    let mut by_job = HashMap::new();
    for item in lost {
        let mut jobs = jobs_of(*item);
        jobs.dedup();
        for job in jobs {
            *by_job.entry(job).or_default() += 1;
        }
    }
    by_job
}

/// Whether every epoch of `chunks` can be opened.
pub(super) fn check_keys(chunks: &[Named], keyring: &Keyring) -> Result<(), WriteError> {
    match chunks
        .iter()
        .find(|chunk| keyring.epoch(&chunk.epoch).is_none())
    {
        Some(chunk) => Err(WriteError::NoKey(chunk.epoch)),
        None => Ok(()),
    }
}
