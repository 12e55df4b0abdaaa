//! The derived index: JSON of every document in SQLite, for queries, lists and search.
//!
//! Nothing here is truth. It commits without fsync, carries the number of the last vault transaction that it has seen,
//! catches up from the feed of touched documents, and is thrown away and rebuilt when that feed no longer reaches back
//! to it, when its version is another, or when SQLite finds it damaged. One thread writes; each reader has a connection
//! of its own, and can wait for a transaction's number first ([`Index::wait_for`]).

mod ahead;
mod query;
#[cfg(test)]
mod tests;
mod text;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use coffer_crdt::{fast, files};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;
use tokio::sync::{Notify, watch};

use ahead::Ahead;
pub use query::{Condition, Found};

use crate::private_file;
use crate::store::documents::{DocumentKey, Row, read_document, read_row};
use crate::store::{StoreError, records, tables};
use crate::vault::purging::purged_row;
use crate::vault::{FILES, file_state};

/// Layout of the index; another one found on disk is rebuilt, never migrated.
const VERSION: i64 = 1;
/// Documents written per SQLite transaction: bounds memory, and how far a waiting reader is behind.
const BATCH: usize = 4096;
/// So many documents are taken in at once. More are the middle of an import or of a first sync, which want the processor.
const AT_ONCE: usize = 512;
/// Nothing changed for so long: that is over.
const QUIET: Duration = Duration::from_millis(400);
/// But no batch waits longer than this.
const REST_MOST: Duration = Duration::from_secs(10);
/// How long the writing thread waits for another that holds the index, before it counts as a failure.
const BUSY: Duration = Duration::from_millis(250);
/// Pause after a failure, doubled with each that follows,
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// to this at most.
const RETRY_MOST: Duration = Duration::from_secs(60);
/// How much the writing thread gives way to others: a third of what it could have, where all want the processor.
const NICE: i32 = 5;
/// Memory that SQLite may keep for pages, in KiB (the minus sign is SQLite's).
const CACHE_KIB: i64 = -2048;

/// Why a query or the index failed.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// SQLite failed.
    #[error("the index failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The vault's store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The query cannot be understood.
    #[error("{0}")]
    Query(String),
    /// The index stopped.
    #[error("the index is stopping")]
    Stopping,
}

/// A handle to the index.
#[derive(Clone)]
pub struct Index {
    path: Arc<PathBuf>,
    seen: watch::Receiver<u64>,
    ahead: Arc<Ahead>,
    wake: Arc<Wake>,
    stop: Arc<AtomicBool>,
}

/// What the writing thread waits for.
#[derive(Default)]
struct Wake {
    changed: Notify,
    /// How many readers wait to see what there is now.
    waiting: AtomicUsize,
    asked: Notify,
}

/// A reader that waits.
struct Waiting<'w>(&'w Wake);

impl<'w> Waiting<'w> {
    fn new(wake: &'w Wake) -> Self {
        wake.waiting.fetch_add(1, Ordering::AcqRel);
        wake.asked.notify_one();
        Waiting(wake)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The writing thread.
pub struct IndexThread(std::thread::JoinHandle<()>);

impl IndexThread {
    /// Waits for it to end; call [`Index::stop`] before.
    pub async fn join(self) {
        let _ = tokio::task::spawn_blocking(move || self.0.join()).await;
    }
}

impl Index {
    /// Opens or makes the index at `path` and starts the thread that keeps it up to date with `vault`.
    ///
    /// # Errors
    /// SQLite's, when even a new index cannot be made.
    pub fn open(path: &Path, vault: Arc<Database>) -> Result<(Index, IndexThread), IndexError> {
        let connection = match open_checked(path) {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "the index is made anew");
                discard(path);
                open_checked(path)?
            }
        };
        let (sender, seen) = watch::channel(seen_by(&connection)?);
        let index = Index {
            path: Arc::new(path.to_path_buf()),
            seen,
            ahead: Arc::default(),
            wake: Arc::default(),
            stop: Arc::new(AtomicBool::new(false)),
        };
        let (wake, stop) = (index.wake.clone(), index.stop.clone());
        let ahead = index.ahead.clone();
        let runtime = tokio::runtime::Handle::current();
        let thread = std::thread::Builder::new()
            .name("index".into())
            .spawn(move || {
                // Of this thread alone: what is read from the index can wait for what is being received or imported.
                let _ = rustix::process::nice(NICE);
                runtime.block_on(follow(connection, vault, sender, ahead, wake, stop));
            })
            .map_err(|error| IndexError::Query(format!("no thread for the index: {error}")))?;
        Ok((index, IndexThread(thread)))
    }

    /// Tells the thread that the vault changed.
    pub fn wake(&self) {
        self.wake.changed.notify_one();
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake.changed.notify_one();
        self.wake.asked.notify_one();
    }

    /// Waits until transaction `number` of the vault is in the index.
    pub async fn wait_for(&self, number: u64) -> Result<(), IndexError> {
        let _waiting = Waiting::new(&self.wake);
        self.wake();
        self.seen
            .clone()
            .wait_for(|seen| *seen >= number)
            .await
            .map_err(|_| IndexError::Stopping)?;
        Ok(())
    }

    /// The same for documents that are no files: they do not wait for what is to be taken in of those.
    pub async fn wait_for_documents(&self, number: u64) -> Result<(), IndexError> {
        if *self.seen.borrow() >= number {
            return Ok(());
        }
        let mut ahead = self.ahead.ask(number);
        let _waiting = Waiting::new(&self.wake);
        self.wake();
        let mut seen = self.seen.clone();
        let waited = tokio::select! {
            waited = ahead.wait_for(|ahead| *ahead >= number) => waited.map(drop),
            waited = seen.wait_for(|seen| *seen >= number) => waited.map(drop),
        };
        waited.map_err(|_| IndexError::Stopping)
    }

    /// Number of the last transaction that the index has seen.
    pub fn seen(&self) -> u64 {
        *self.seen.borrow()
    }

    /// Makes all that the index has seen so far durable, and says up to which transaction that is.
    pub fn make_durable(&self) -> Result<u64, IndexError> {
        let connection = Connection::open(self.path.as_path())?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        let seen = seen_by(&connection)?;
        connection.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(()))?;
        let synced = std::fs::File::open(self.path.as_path()).and_then(|file| file.sync_all());
        synced
            .map_err(|error| IndexError::Query(format!("the index cannot be synced: {error}")))?;
        Ok(seen)
    }

    fn reader(&self) -> Result<Connection, IndexError> {
        let connection = Connection::open_with_flags(
            self.path.as_path(),
            rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        connection.pragma_update(None, "cache_size", CACHE_KIB)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        Ok(connection)
    }
}

fn open_checked(path: &Path) -> Result<Connection, IndexError> {
    private_file::open(path)
        .map_err(|error| IndexError::Query(format!("the index cannot be written: {error}")))?;
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.pragma_update(None, "cache_size", CACHE_KIB)?;
    connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == 0 {
        connection.execute_batch(
            "CREATE TABLE documents (number INTEGER PRIMARY KEY, doctype TEXT NOT NULL, id TEXT NOT NULL, json TEXT NOT NULL, UNIQUE (doctype, id));
             CREATE VIRTUAL TABLE words USING fts5 (text, content='', contentless_delete=1);
             CREATE TABLE state (seen INTEGER NOT NULL);
             INSERT INTO state VALUES (0);",
        )?;
        connection.pragma_update(None, "user_version", VERSION)?;
    } else if version != VERSION {
        return Err(IndexError::Query("it has another layout".into()));
    }
    seen_by(&connection)?;
    Ok(connection)
}

fn discard(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_os_string();
        name.push(suffix);
        let _ = std::fs::remove_file(PathBuf::from(name));
    }
}

fn seen_by(connection: &Connection) -> Result<u64, rusqlite::Error> {
    connection
        .query_row("SELECT seen FROM state", [], |row| row.get::<_, i64>(0))
        .map(|seen| seen as u64)
}

async fn follow(
    mut connection: Connection,
    vault: Arc<Database>,
    seen: watch::Sender<u64>,
    ahead: Arc<Ahead>,
    wake: Arc<Wake>,
    stop: Arc<AtomicBool>,
) {
    let mut quiet = false;
    let mut retry = RETRY_FIRST;
    loop {
        let woken = wake.changed.notified();
        if stop.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = ahead.run(&mut connection, &vault) {
            tracing::error!(%error, "the index does not follow the vault");
        }
        match is_behind(&connection, &vault) {
            Ok(true) => {
                quiet = rest(&wake, quiet).await;
                if stop.load(Ordering::Acquire) {
                    return;
                }
                if ahead.is_asked() {
                    continue;
                }
            }
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the index cannot tell how far it has come"),
        }
        match catch_up(&mut connection, &vault, &seen) {
            Ok(true) => retry = RETRY_FIRST,
            Ok(false) => {
                retry = RETRY_FIRST;
                woken.await;
            }
            // A checkpoint on a busy disk can hold it longer than SQLite waits; and a full disk has room again one day.
            Err(error) => {
                tracing::warn!(%error, "the index does not follow the vault; it will be tried again");
                let _ = tokio::time::timeout(retry, woken).await;
                retry = (retry * 2).min(RETRY_MOST);
            }
        }
    }
}

/// Whether so much is to be taken in that it should wait until the vault has come to rest.
fn is_behind(connection: &Connection, vault: &Database) -> Result<bool, IndexError> {
    let from = seen_by(connection)?;
    let read = vault.begin_read().map_err(StoreError::from)?;
    let feed = read.open_table(tables::FEED).map_err(StoreError::from)?;
    let mut start = [0; 12];
    start[..8].copy_from_slice(&(from + 1).to_be_bytes());
    let left = feed
        .range::<&[u8; 12]>(&start..)
        .map_err(StoreError::from)?;
    Ok(left.take(AT_ONCE).count() == AT_ONCE)
}

/// Lets what is being imported or received go on undisturbed: returns once nothing has changed for a while, somebody
/// waits for the index, or it has rested long. Says whether it was quiet, as it may have been before.
async fn rest(wake: &Wake, was_quiet: bool) -> bool {
    let still = Duration::from_millis(1);
    if was_quiet
        && tokio::time::timeout(still, wake.changed.notified())
            .await
            .is_err()
    {
        return true;
    }
    let quiet = async {
        let changed = || tokio::time::timeout(QUIET, wake.changed.notified());
        while wake.waiting.load(Ordering::Acquire) == 0 && changed().await.is_ok() {}
    };
    let asked = async {
        while wake.waiting.load(Ordering::Acquire) == 0 {
            wake.asked.notified().await;
        }
    };
    let rested = async {
        tokio::select! {
            () = quiet => true,
            () = asked => false,
        }
    };
    tokio::time::timeout(REST_MOST, rested)
        .await
        .unwrap_or(false)
}

/// Takes in the next batch; says whether there may be more.
fn catch_up(
    connection: &mut Connection,
    vault: &Database,
    seen: &watch::Sender<u64>,
) -> Result<bool, IndexError> {
    let read = vault.begin_read().map_err(StoreError::from)?;
    let now = records::get_u64(
        &read.open_table(tables::META).map_err(StoreError::from)?,
        tables::meta::TRANSACTION,
    )?
    .unwrap_or(0);
    let from = seen_by(connection)?;
    if from >= now {
        if from > now {
            // The vault was restored from an older copy: what the index knows is of another past.
            rebuild(connection, &read, now)?;
        }
        seen.send_if_modified(|seen| std::mem::replace(seen, now) != now);
        return Ok(false);
    }
    let feed = read.open_table(tables::FEED).map_err(StoreError::from)?;
    let first = feed
        .first()
        .map_err(StoreError::from)?
        .map(|(key, _)| transaction_of(key.value()));
    let pruned = records::get_u64(
        &read.open_table(tables::META).map_err(StoreError::from)?,
        tables::meta::FEED_PRUNED,
    )?
    .unwrap_or(0);
    if pruned > from {
        rebuild(connection, &read, now)?;
        seen.send_replace(now);
        return Ok(false);
    }
    let mut reached = now;
    if first.is_some() {
        let transaction = connection.transaction()?;
        let mut start = [0; 12];
        start[..8].copy_from_slice(&(from + 1).to_be_bytes());
        let mut keys = std::collections::BTreeSet::new();
        for item in feed
            .range::<&[u8; 12]>(&start..)
            .map_err(StoreError::from)?
        {
            let (key, value) = item.map_err(StoreError::from)?;
            let number = transaction_of(key.value());
            if keys.len() >= BATCH && number > reached {
                break;
            }
            keys.insert(DocumentKey(*value.value()));
            // A transaction is taken in whole or not at all.
            if keys.len() >= BATCH && reached == now {
                reached = number;
            }
        }
        for key in keys {
            if let Some(row) = row_or_purged(&read, key)? {
                write(&transaction, &read, key, &row)?;
            }
        }
        transaction.execute("UPDATE state SET seen = ?1", [reached as i64])?;
        transaction.commit()?;
    } else {
        connection.execute("UPDATE state SET seen = ?1", [reached as i64])?;
    }
    seen.send_replace(reached);
    Ok(reached < now)
}

/// What the vault has of a document now: of one that was purged, a row without anything.
fn row_or_purged(read: &ReadTransaction, key: DocumentKey) -> Result<Option<Row>, StoreError> {
    match read_row(read, key)? {
        Some(row) => Ok(Some(row)),
        None => purged_row(read, key),
    }
}

fn rebuild(
    connection: &mut Connection,
    read: &ReadTransaction,
    now: u64,
) -> Result<(), IndexError> {
    let transaction = connection.transaction()?;
    transaction.execute_batch("DELETE FROM documents; DELETE FROM words;")?;
    let documents = read
        .open_table(tables::DOCUMENTS)
        .map_err(StoreError::from)?;
    for item in documents.iter().map_err(StoreError::from)? {
        let key = DocumentKey(*item.map_err(StoreError::from)?.0.value());
        if let Some(row) = read_row(read, key)? {
            write(&transaction, read, key, &row)?;
        }
    }
    transaction.execute("UPDATE state SET seen = ?1", [now as i64])?;
    transaction.commit()?;
    Ok(())
}

fn write(
    connection: &Connection,
    read: &ReadTransaction,
    key: DocumentKey,
    row: &Row,
) -> Result<(), IndexError> {
    let present = if row.deleted {
        None
    } else {
        json(read, key, row)?
    };
    let Some(value) = present else {
        let number = connection
            .prepare_cached(
                "DELETE FROM documents WHERE doctype = ?1 AND id = ?2 RETURNING number",
            )?
            .query_map(params![row.doctype, row.id], |found| found.get::<_, i64>(0))?
            .next()
            .transpose()?;
        if let Some(number) = number {
            connection
                .prepare_cached("DELETE FROM words WHERE rowid = ?1")?
                .execute([number])?;
        }
        return Ok(());
    };
    // Two plain statements: one that inserts or updates and returns what it did is, to SQLite, one that may fail halfway,
    // and for each of those FTS5 writes out all words that it has gathered.
    let known: Option<i64> = connection
        .prepare_cached("SELECT number FROM documents WHERE doctype = ?1 AND id = ?2")?
        .query_row(params![row.doctype, row.id], |found| found.get(0))
        .optional()?;
    let text = value.to_string();
    let number = match known {
        Some(number) => {
            connection
                .prepare_cached("UPDATE documents SET json = ?2 WHERE number = ?1")?
                .execute(params![number, text])?;
            number
        }
        None => {
            connection
                .prepare_cached("INSERT INTO documents (doctype, id, json) VALUES (?1, ?2, ?3)")?
                .execute(params![row.doctype, row.id, text])?;
            connection.last_insert_rowid()
        }
    };
    let words = if row.doctype == FILES {
        value["name"].as_str().unwrap_or_default().to_string()
    } else {
        text::words(&value)
    };
    if known.is_some() {
        connection
            .prepare_cached("DELETE FROM words WHERE rowid = ?1")?
            .execute([number])?;
    }
    connection
        .prepare_cached("INSERT INTO words (rowid, text) VALUES (?1, ?2)")?
        .execute(params![number, words])?;
    Ok(())
}

/// The present JSON of a document, read the cheap way where there is one.
pub fn json(
    read: &ReadTransaction,
    key: DocumentKey,
    row: &Row,
) -> Result<Option<Value>, StoreError> {
    if row.changes == 0 {
        return Ok(None);
    }
    let damaged = || {
        StoreError::Damaged(format!(
            "document {}/{} cannot be read",
            row.doctype, row.id
        ))
    };
    if row.doctype == FILES {
        let known = row.id.parse().ok().map(|id| file_state(read, id));
        let state = match known.transpose()?.flatten() {
            Some(state) => Some(state),
            None => files::read(&read_document(read, key, row)?).ok(),
        };
        return Ok(state.map(|state| files::to_json(&state)));
    }
    if let Some(Ok(Some(value))) = row.only_change().map(fast::read_first) {
        return Ok(Some(value));
    }
    let document = read_document(read, key, row).map_err(|_| damaged())?;
    Ok(Some(document.json()))
}

fn transaction_of(key: &[u8; 12]) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&key[..8]);
    u64::from_be_bytes(number)
}
