//! The one thread that writes to the database.
//!
//! Jobs that arrive while a transaction is being made durable share the next one, so that a thousand vaults which write
//! at once cost as many commits as the disk can do, not a thousand. A job that refuses (says what is wrong with the
//! request) must not have written anything; any other error of one job undoes the whole transaction, and all of
//! its jobs fail alike.
//!
//! After a failure of the disk redb takes nothing more until it is opened anew: the thread does that by itself.
//! Stops when the last handle is gone or the store is closed; jobs that were taken are finished.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use redb::{Database, ReadTransaction, ReadableDatabase, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::super::StoreError;
use super::Boundaries;

/// Jobs that wait: each vault and device has few under way, and those that find no place wait for one.
const INBOX: usize = 256;
/// Jobs that share a transaction, so that the first need not wait for long.
const GROUP: usize = 256;

/// What a job has to do once its transaction is durable or has failed.
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// What happens in the transaction.
type Job = Box<dyn FnOnce(&WriteTransaction) -> Result<Answer, StoreError> + Send>;

/// The database, which the writer replaces after a failure.
pub struct Shared {
    path: PathBuf,
    database: RwLock<Option<Database>>,
}

impl Shared {
    pub fn new(path: PathBuf, database: Database) -> Arc<Self> {
        Arc::new(Shared {
            path,
            database: RwLock::new(Some(database)),
        })
    }

    /// Reads at one moment. Blocks for the disk.
    pub fn read<T>(
        &self,
        look: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let database = self.lock();
        let database = database.as_ref().ok_or(StoreError::Closed)?;
        look(&database.begin_read()?)
    }

    fn lock(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, make: impl FnOnce() -> Option<Database>) {
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        drop(database.take());
        *database = make();
    }
}

/// Where jobs are left.
#[derive(Clone)]
pub struct Writer(mpsc::Sender<Job>);

impl Writer {
    /// Starts the thread, which ends when every `Writer` is dropped.
    pub fn start(
        shared: Arc<Shared>,
        boundaries: Boundaries,
    ) -> std::io::Result<(Writer, std::thread::JoinHandle<()>)> {
        let (jobs, mut inbox) = mpsc::channel::<Job>(INBOX);
        let thread = std::thread::Builder::new()
            .name("host store".into())
            .spawn(move || {
                while let Some(first) = inbox.blocking_recv() {
                    let mut group = vec![first];
                    while group.len() < GROUP
                        && let Ok(job) = inbox.try_recv()
                    {
                        group.push(job);
                    }
                    write(&shared, &boundaries, group);
                }
                shared.replace(|| None);
            })?;
        Ok((Writer(jobs), thread))
    }

    /// Does something in a transaction, and returns when it is durable. Not taken back by dropping the future.
    pub async fn write<T: Send + 'static>(
        &self,
        act: impl FnOnce(&WriteTransaction) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (job, answered) = job(act);
        self.0.send(job).await.map_err(|_| StoreError::Closed)?;
        answered.await.unwrap_or_else(|_| Err(dropped()))
    }

    /// The same for a thread that may block.
    pub fn write_blocking<T: Send + 'static>(
        &self,
        act: impl FnOnce(&WriteTransaction) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (job, answered) = job(act);
        self.0.blocking_send(job).map_err(|_| StoreError::Closed)?;
        answered.blocking_recv().unwrap_or_else(|_| Err(dropped()))
    }
}

fn job<T: Send + 'static>(
    act: impl FnOnce(&WriteTransaction) -> Result<T, StoreError> + Send + 'static,
) -> (Job, oneshot::Receiver<Result<T, StoreError>>) {
    let (answer, answered) = oneshot::channel();
    let job = Box::new(move |transaction: &WriteTransaction| {
        let done = act(transaction);
        let failed = done.as_ref().err().filter(|error| !is_refusal(error));
        let failed = failed.cloned();
        let tell: Answer = Box::new(move |committed| {
            let _ = answer.send(committed.and(done));
        });
        match failed {
            None => Ok(tell),
            Some(error) => {
                tell(Err(error.clone()));
                Err(error)
            }
        }
    });
    (job, answered)
}

/// What a job is told that shared a transaction with one that failed before its turn.
fn dropped() -> StoreError {
    StoreError::Failed("another write of the same moment failed".into())
}

/// Whether an error says that the request was refused, and nothing was written for it.
fn is_refusal(error: &StoreError) -> bool {
    matches!(error, StoreError::NoVault(_) | StoreError::TooLarge { .. })
}

fn write(shared: &Shared, boundaries: &Boundaries, group: Vec<Job>) {
    let mut answers = Vec::with_capacity(group.len());
    let written = {
        let database = shared.lock();
        match database.as_ref() {
            Some(database) => transact(database, boundaries, group, &mut answers),
            None => Err(StoreError::Failed(
                "the database could not be opened".into(),
            )),
        }
    };
    if let Err(error) = &written {
        tracing::error!(%error, "a write of the host's store failed");
    }
    let is_closed = |database: &Database| crate::store::is_closed(database);
    if written.is_err() && shared.lock().as_ref().is_none_or(is_closed) {
        shared.replace(|| match super::open_database(&shared.path) {
            Ok(database) => Some(database),
            Err(error) => {
                tracing::error!(%error, "the host's database cannot be opened again");
                None
            }
        });
    }
    for answer in answers {
        answer(written.clone());
    }
}

fn transact(
    database: &Database,
    boundaries: &Boundaries,
    group: Vec<Job>,
    answers: &mut Vec<Answer>,
) -> Result<(), StoreError> {
    let mut transaction = database.begin_write()?;
    // Without it a host that was killed walks through all of its records before it serves anybody.
    transaction.set_quick_repair(true);
    let mut failed = None;
    for job in group {
        match failed {
            None => match job(&transaction) {
                Ok(answer) => answers.push(answer),
                Err(error) => failed = Some(error),
            },
            // Its asker reads that as [`dropped`].
            Some(_) => drop(job),
        }
    }
    if let Some(error) = failed {
        transaction.abort()?;
        return Err(error);
    }
    boundaries.at("before commit");
    transaction.commit()?;
    boundaries.at("after commit");
    Ok(())
}
