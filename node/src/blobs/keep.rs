//! Keeping contents in the blob store: the sink for what no synced folder holds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::board::Item;
use super::coming::Arrivals;
use super::content::Named;
use super::error::{BlobsError, WriteError};
use super::jobs::{
    GROUP_BYTES, GROUP_JOBS, Group, Planned, Standing, StoreJob, Wants, check_keys, lost_by_job,
};
use super::pins::Hold;
use super::placement::Rows;
use super::sources::Progress;
use super::store::Keeper;
use super::transfer::{Arrived, Sink, Want};
use super::{Shared, lock};

/// What a slow network brings is made durable and known this often, so that a stop costs little of it.
const FLUSH_EVERY: Duration = Duration::from_secs(15);

/// Keeps contents in the blob store.
pub(super) struct StoreSink {
    shared: Arc<Shared>,
    progress: Arc<Progress>,
    arrivals: Arc<Arrivals>,
    jobs: Vec<(StoreJob, Vec<Named>)>,
    /// For each item, the jobs that it is for.
    targets: Vec<Vec<usize>>,
    standing: Standing,
    keeper: Keeper,
    hold: Hold,
    unflushed: AtomicU64,
    flushed: Mutex<Instant>,
}

impl StoreSink {
    /// Tells what is not on this device yet.
    pub fn plan(
        shared: &Arc<Shared>,
        progress: Arc<Progress>,
        hold: Hold,
        planned: Vec<Planned<StoreJob>>,
    ) -> Result<(Self, Vec<Want>), BlobsError> {
        let reader = shared.reader()?;
        let keyring = shared.keyring();
        let mut wants = Wants::default();
        let mut targets: Vec<Vec<usize>> = Vec::new();
        let mut left = Vec::with_capacity(planned.len());
        let mut failed = BTreeMap::new();
        let mut jobs = Vec::with_capacity(planned.len());
        let arrivals = shared
            .coming
            .follow(planned.iter().map(|planned| &planned.job));
        for (index, Planned { job, chunks }) in planned.into_iter().enumerate() {
            let mut count = 0;
            if let Err(error) = check_keys(&chunks, &keyring) {
                failed.insert(index, error);
            } else {
                for chunk in &chunks {
                    if reader.has(&chunk.blob)? {
                        Progress::add(&progress.done_bytes, u64::from(chunk.len));
                        arrivals.add(index, u64::from(chunk.len));
                        continue;
                    }
                    let item = match wants.item(chunk, &reader) {
                        Ok(item) => item as usize,
                        Err(WriteError::Store(error)) => return Err(error),
                        Err(error) => return Err(BlobsError::Store(error.to_string())),
                    };
                    targets.resize_with(wants.list.len(), Vec::new);
                    targets[item].push(index);
                    count += 1;
                }
            }
            left.push(count);
            jobs.push((job, chunks));
        }
        let standing = Standing::new(left);
        standing.begin_failed(failed);
        let sink = Self {
            shared: Arc::clone(shared),
            progress,
            arrivals,
            jobs,
            targets,
            standing,
            keeper: Keeper::new(hold.clone()),
            hold,
            unflushed: AtomicU64::new(0),
            flushed: Mutex::new(Instant::now()),
        };
        Ok((sink, wants.list))
    }
}

impl Sink for StoreSink {
    const SEALED: bool = true;

    fn take(&self, item: Item, chunk: &Arrived<'_>) {
        let kept = match chunk.sealed {
            Some(sealed) => {
                self.unflushed
                    .fetch_add(sealed.len() as u64, Ordering::Relaxed);
                self.keeper
                    .keep(&self.shared.store, chunk.named.blob, sealed)
                    .map_err(WriteError::from)
            }
            None => Ok(()),
        };
        for job in &self.targets[item as usize] {
            match &kept {
                Ok(()) => {
                    Progress::add(&self.progress.done_bytes, chunk.plain.len() as u64);
                    self.arrivals.add(*job, chunk.plain.len() as u64);
                }
                Err(error) => self.standing.fail(*job, error.again()),
            }
            self.standing.one_less(*job);
        }
    }

    fn fail(&self, item: Item, why: &WriteError) {
        for job in &self.targets[item as usize] {
            self.standing.fail(*job, why.again());
            self.standing.one_less(*job);
        }
    }

    fn ready(&self) -> bool {
        let unflushed = self.unflushed.load(Ordering::Relaxed);
        self.standing.ended() >= GROUP_JOBS
            || unflushed >= GROUP_BYTES
            || unflushed > 0 && lock(&self.flushed).elapsed() >= FLUSH_EVERY
    }

    fn flush(&self, lost: Option<&[Item]>) -> Group {
        let ended = self.standing.take_ended(lost.is_some());
        self.unflushed.store(0, Ordering::Relaxed);
        *lock(&self.flushed) = Instant::now();
        let placed = self.keeper.flush(&self.shared.store);
        let lost = lost_by_job(lost.unwrap_or_default(), |item| {
            self.targets[item as usize].clone()
        });
        if let Err(error) = &placed {
            // Frames of jobs that are under way were among those that the store did not take.
            self.standing.fail_open(|| WriteError::from(error.again()));
        }
        let mut group = Group {
            hold: Some(self.hold.clone()),
            ..Group::default()
        };
        for index in ended {
            let (job, chunks) = &self.jobs[index];
            let lost = lost.get(&index).copied().unwrap_or(0);
            let result = match (self.standing.failure(index, lost), &placed) {
                (Some(error), _) => Err(error),
                (None, Err(error)) => Err(WriteError::from(error.again())),
                (None, Ok(_)) => {
                    Progress::add(&self.progress.done_files, 1);
                    Ok(Rows {
                        placements: Vec::new(),
                        chunks: chunks.iter().map(|chunk| (chunk.id, chunk.row())).collect(),
                    })
                }
            };
            group.jobs.push((job.key, result));
        }
        group.shared.placements = placed.unwrap_or_default();
        group
    }
}
