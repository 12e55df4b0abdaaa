//! The truth of a node: one redb database, `vault.redb`.
//!
//! This module knows how records lie on disk and nothing of what they mean. Every write happens inside a transaction
//! that [`crate::vault`] opens and commits; readers use read transactions at any time.

pub mod documents;
pub mod folder_keys;
pub mod logs;
mod migrate;
pub mod pieces;
pub mod ranges;
pub mod records;
pub mod tables;

use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, StorageBackend};

use crate::private_file;

/// Memory that redb may keep for pages, in bytes. Its own default is 1 GiB; 8 MiB holds the upper pages of a vault of
/// a million documents, and an idle node stays small.
const CACHE_BYTES: usize = 8 << 20;

/// Why the store could not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full.
    #[error("the disk is full")]
    DiskFull,
    /// The system refused access.
    #[error("no permission to read or write the data folder")]
    Permission,
    /// Another process has the database open.
    #[error("another coffer uses this data folder")]
    InUse,
    /// Written by a newer program.
    #[error(
        "the data folder was written by a newer coffer (layout {found}, this one reads up to {known})"
    )]
    Newer {
        /// Layout number found.
        found: u32,
        /// Highest layout that this program reads.
        known: u32,
    },
    /// A stored value cannot be what was written.
    #[error("the data folder is damaged: {0}")]
    Damaged(String),
    /// The database failed in another way.
    #[error("reading or writing the file vault.redb failed: {0}")]
    Database(String),
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(io)
                if matches!(
                    io.kind(),
                    io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
                ) =>
            {
                altered(&io)
            }
            redb::Error::Io(io) => StoreError::from_io(io),
            redb::Error::DatabaseAlreadyOpen => StoreError::InUse,
            damage @ (redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_)) => {
                altered(&damage)
            }
            other => {
                let text = other.to_string();
                if text.contains("No space left") {
                    StoreError::DiskFull
                } else {
                    StoreError::Database(text)
                }
            }
        }
    }
}

/// Damage that the database found in itself. What it says of its pages helps nobody but us.
fn altered(found: &dyn std::error::Error) -> StoreError {
    tracing::error!(error = %found, "vault.redb cannot be read");
    StoreError::Damaged("the file vault.redb is not as coffer wrote it".into())
}

impl StoreError {
    /// Sorts an error of the operating system.
    pub fn from_io(error: impl Into<io::Error>) -> Self {
        let error = error.into();
        match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => StoreError::DiskFull,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                StoreError::Permission
            }
            _ => StoreError::Database(error.to_string()),
        }
    }
}

impl From<crate::blobs::placement::PlacementError> for StoreError {
    fn from(error: crate::blobs::placement::PlacementError) -> Self {
        match error {
            crate::blobs::placement::PlacementError::Database(error) => error.into(),
            damaged => StoreError::Damaged(damaged.to_string()),
        }
    }
}

macro_rules! through_redb_error {
    ($($kind:ty),*) => { $(impl From<$kind> for StoreError {
        fn from(error: $kind) -> Self { StoreError::from(redb::Error::from(error)) }
    })* };
}
through_redb_error!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError
);

/// Opens the database at `path`, or makes it with mode 0600.
///
/// It is made under another name and gets its own when it is whole: redb refuses a file whose making a power cut
/// interrupted, and a device that loses power in its first second must start all the same.
///
/// # Errors
/// [`StoreError::InUse`] while another process has it; [`StoreError::Newer`] for a layout that this program does not
/// know, which is left as it is.
pub fn open(path: &Path) -> Result<Arc<Database>, StoreError> {
    if !exists(path)? {
        let unfinished = path.with_extension("redb.new");
        let file = FileBackend::new(open_file(&unfinished)?)?;
        file.set_len(0).map_err(StoreError::from_io)?;
        drop(prepare(Database::builder().create_with_backend(file)?)?);
        std::fs::rename(&unfinished, path).map_err(StoreError::from_io)?;
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        std::fs::File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(StoreError::from_io)?;
    }
    prepare(
        Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(FileBackend::new(open_file(path)?)?)?,
    )
}

/// Opens the database at `path`, which must be there.
///
/// # Errors
/// As [`open`]; [`StoreError::Damaged`] where there is none.
pub fn open_existing(path: &Path) -> Result<Arc<Database>, StoreError> {
    if exists(path)? {
        open(path)
    } else {
        Err(StoreError::Damaged("the file vault.redb is missing".into()))
    }
}

/// Whether there is a database. It never is empty, as it is made whole: redb would begin a new one in an empty file.
fn exists(path: &Path) -> Result<bool, StoreError> {
    match std::fs::metadata(path) {
        Ok(about) if about.len() == 0 => {
            Err(StoreError::Damaged("the file vault.redb is empty".into()))
        }
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::from_io(error)),
    }
}

fn open_file(path: &Path) -> Result<std::fs::File, StoreError> {
    private_file::open(path).map_err(StoreError::from_io)
}

/// The same over another backend: the simulation's disk.
pub fn open_with(backend: impl StorageBackend) -> Result<Arc<Database>, StoreError> {
    prepare(
        Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(backend)?,
    )
}

/// Whether the database takes nothing more until it is opened anew: so it is after any failure of the disk, for redb
/// cannot know what of the failed write is there. Waits for a transaction that is under way.
pub fn is_closed(database: &Database) -> bool {
    match database.begin_write() {
        Ok(probe) => probe.abort().is_err(),
        Err(_) => true,
    }
}

/// Makes every table and checks the layout number.
fn prepare(database: Database) -> Result<Arc<Database>, StoreError> {
    let found = {
        let read = database.begin_read()?;
        match read.open_table(tables::META) {
            Ok(meta) => records::get_u32(&meta, tables::meta::LAYOUT)?,
            Err(redb::TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(error.into()),
        }
    };
    match found {
        Some(found) if found > tables::LAYOUT => {
            return Err(StoreError::Newer {
                found,
                known: tables::LAYOUT,
            });
        }
        Some(1) => migrate::to_2(&database)?,
        Some(_) => {}
        None => {
            let mut write = database.begin_write()?;
            write.set_quick_repair(true);
            {
                let mut meta = write.open_table(tables::META)?;
                let layout = tables::LAYOUT_WHOLE.to_be_bytes();
                meta.insert(tables::meta::LAYOUT, &layout[..])?;
                write.open_table(tables::GRANTS)?;
                write.open_table(tables::ENTRIES)?;
                write.open_table(tables::LOG_HEADS)?;
                write.open_table(tables::DOCUMENTS)?;
                write.open_table(tables::DOCUMENT_BASES)?;
                write.open_table(tables::DOCUMENT_TAILS)?;
                write.open_table(tables::WAITING)?;
                write.open_table(tables::FEED)?;
                write.open_table(tables::WANTED)?;
                write.open_table(tables::FILES)?;
                write.open_table(tables::HELD)?;
                write.open_table(tables::ADDRESSES)?;
                write.open_table(tables::FOLDERS)?;
                write.open_table(tables::FOLDER_ROWS)?;
                write.open_table(tables::FOLDER_BRAKES)?;
                write.open_table(tables::STORAGE)?;
                write.open_table(tables::USED)?;
                write.open_table(tables::DROPPING)?;
                write.open_table(tables::NAMED)?;
                write.open_table(tables::RANGES)?;
                write.open_table(tables::RANGE_HEADS)?;
                write.open_table(tables::ATTESTATIONS)?;
                write.open_table(tables::LOOKED_AT)?;
                write.open_table(tables::PLACEMENT)?;
                write.open_table(tables::CHUNKS)?;
                meta.insert(tables::meta::PAST, &[1][..])?;
                write.open_table(tables::PAST_CONTENTS)?;
                write.open_table(tables::TAGS)?;
                write.open_table(tables::PURGES)?;
                write.open_table(tables::PURGED_DOCUMENTS)?;
                write.open_table(tables::UNNAMED)?;
                write.open_table(tables::UNNAMED_RUNS)?;
            }
            write.commit()?;
        }
    }
    Ok(Arc::new(database))
}
