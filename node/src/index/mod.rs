//! The derived index: JSON of every document in SQLite, for queries, lists and search.
//!
//! Nothing here is truth. It commits without fsync, carries the number of the last vault transaction that it has seen,
//! catches up from the feed of touched documents, and is thrown away and rebuilt when that feed no longer reaches back
//! to it, when its version is another, or when SQLite finds it damaged. One thread writes; each reader has a connection
//! of its own, and can wait for a transaction's number first ([`Index::wait_for`]).

mod query;
mod text;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use coffer_crdt::{fast, files};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable};
use rusqlite::{Connection, params};
use serde_json::Value;
use tokio::sync::{Notify, watch};

pub use query::{Condition, Found};

use crate::private_file;
use crate::store::documents::{DocumentKey, Row, read_document, read_row};
use crate::store::{StoreError, records, tables};
use crate::vault::FILES;

/// Layout of the index; another one found on disk is rebuilt, never migrated.
const VERSION: i64 = 1;
/// Documents written per SQLite transaction: bounds memory, and how far a waiting reader is behind.
const BATCH: usize = 4096;
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
    wake: Arc<Notify>,
    stop: Arc<AtomicBool>,
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
            wake: Arc::new(Notify::new()),
            stop: Arc::new(AtomicBool::new(false)),
        };
        let (wake, stop) = (index.wake.clone(), index.stop.clone());
        let runtime = tokio::runtime::Handle::current();
        let thread = std::thread::Builder::new()
            .name("index".into())
            .spawn(move || runtime.block_on(follow(connection, vault, sender, wake, stop)))
            .map_err(|error| IndexError::Query(format!("no thread for the index: {error}")))?;
        Ok((index, IndexThread(thread)))
    }

    /// Tells the thread that the vault changed.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Waits until transaction `number` of the vault is in the index.
    pub async fn wait_for(&self, number: u64) -> Result<(), IndexError> {
        self.wake();
        self.seen
            .clone()
            .wait_for(|seen| *seen >= number)
            .await
            .map_err(|_| IndexError::Stopping)?;
        Ok(())
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
    wake: Arc<Notify>,
    stop: Arc<AtomicBool>,
) {
    loop {
        let woken = wake.notified();
        if stop.load(Ordering::Acquire) {
            return;
        }
        match catch_up(&mut connection, &vault, &seen) {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the index does not follow the vault"),
        }
        woken.await;
    }
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
            if let Some(row) = read_row(&read, key)? {
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
    let number: i64 = connection
        .prepare_cached(
            "INSERT INTO documents (doctype, id, json) VALUES (?1, ?2, ?3)
             ON CONFLICT (doctype, id) DO UPDATE SET json = excluded.json RETURNING number",
        )?
        .query_row(params![row.doctype, row.id, value.to_string()], |found| {
            found.get(0)
        })?;
    let words = if row.doctype == FILES {
        value["name"].as_str().unwrap_or_default().to_string()
    } else {
        text::words(&value)
    };
    connection
        .prepare_cached("INSERT OR REPLACE INTO words (rowid, text) VALUES (?1, ?2)")?
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
        let state = match row.only_change().map(files::read_first) {
            Some(Ok(Some(state))) => Some(state),
            _ => files::read(&read_document(read, key, row)?).ok(),
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
