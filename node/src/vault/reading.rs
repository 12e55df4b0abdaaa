//! What readers see of the vault without asking the thread that owns it: rows of the database, as they durably are.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLockReadGuard};

use coffer_crdt::document::Document;
use coffer_crdt::files::{Content, Dot, FileId, FileState};
use coffer_crdt::tree::{Changed, Tree};
use redb::{ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata};
use tokio::sync::broadcast;

use super::handle::VaultHandle;
use super::request::{BrakedFile, CommitError, CommitRequest, Committed, FolderRow, FolderSetting};
use super::work::FILES;
use crate::folder::FolderVault;
use crate::store::documents::{DocumentKey, read_document, read_row};
use crate::store::folder_keys::{file_of, folder_key, keys_of_folder};
use crate::store::{StoreError, pieces, tables};

/// A file of which bytes are still to be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The file.
    pub id: FileId,
    /// Hash of the content wanted.
    pub hash: [u8; 32],
    /// Its length in bytes.
    pub size: u64,
}

impl VaultHandle {
    /// The rows of a synced folder.
    pub fn folder_rows(&self, folder: u32) -> Result<BTreeMap<FileId, FolderRow>, CommitError> {
        let read = || -> Result<_, StoreError> {
            let table = self
                .database()
                .begin_read()?
                .open_table(tables::FOLDER_ROWS)?;
            let (from, to) = keys_of_folder(folder);
            let mut rows = BTreeMap::new();
            for item in table.range::<&[u8; 20]>(&from..=&to)? {
                let (key, value) = item?;
                let id = file_of(key.value());
                let row = postcard::from_bytes(value.value())
                    .map_err(|_| StoreError::Damaged("a folder row cannot be read".into()))?;
                rows.insert(id, row);
            }
            Ok(rows)
        };
        read().map_err(|error| CommitError::from(&error))
    }

    /// What the brake of a synced folder holds.
    pub fn folder_brakes(&self, folder: u32) -> Result<BTreeMap<FileId, BrakedFile>, CommitError> {
        let read = || -> Result<_, StoreError> {
            let mut held = BTreeMap::new();
            let table = match self
                .database()
                .begin_read()?
                .open_table(tables::FOLDER_BRAKES)
            {
                // A data folder from before there were brakes.
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(held),
                table => table?,
            };
            let (from, to) = keys_of_folder(folder);
            for item in table.range::<&[u8; 20]>(&from..=&to)? {
                let (key, value) = item?;
                let id = file_of(key.value());
                let why = postcard::from_bytes(value.value())
                    .map_err(|_| StoreError::Damaged("a held file cannot be read".into()))?;
                held.insert(id, why);
            }
            Ok(held)
        };
        read().map_err(|error| CommitError::from(&error))
    }

    /// One row of a synced folder.
    pub fn folder_row(&self, folder: u32, file: FileId) -> Result<Option<FolderRow>, StoreError> {
        let table = self
            .database()
            .begin_read()?
            .open_table(tables::FOLDER_ROWS)?;
        let key = folder_key(folder, file);
        let row = table.get(&key)?;
        row.map(|row| {
            postcard::from_bytes(row.value())
                .map_err(|_| StoreError::Damaged("a folder row cannot be read".into()))
        })
        .transpose()
    }

    /// Files of which bytes are still to be fetched.
    pub fn wanted(&self) -> Result<Vec<Wanted>, StoreError> {
        let mut all = Vec::new();
        self.each_wanted(|wanted| {
            all.push(wanted);
            true
        })?;
        Ok(all)
    }

    /// The same one by one, by id, until `more` says no.
    pub fn each_wanted(&self, mut more: impl FnMut(Wanted) -> bool) -> Result<(), StoreError> {
        let table = self.database().begin_read()?.open_table(tables::WANTED)?;
        for item in table.iter()? {
            let (id, value) = item?;
            let (mut hash, mut size) = ([0; 32], [0; 8]);
            hash.copy_from_slice(&value.value()[..32]);
            size.copy_from_slice(&value.value()[32..]);
            let wanted = Wanted {
                id: FileId(*id.value()),
                hash,
                size: u64::from_be_bytes(size),
            };
            if !more(wanted) {
                break;
            }
        }
        Ok(())
    }

    /// How many files there are of which bytes are still to be fetched.
    pub fn wanted_count(&self) -> Result<u64, StoreError> {
        Ok(self
            .database()
            .begin_read()?
            .open_table(tables::WANTED)?
            .len()?)
    }

    /// The state of a file, with where its bytes are.
    pub fn file(&self, id: FileId) -> Result<Option<FileState>, StoreError> {
        file_in(
            &self.database().begin_read()?.open_table(tables::FILES)?,
            id,
        )
    }

    /// The document behind a file, with all that it was.
    pub fn file_document(&self, id: FileId) -> Result<Option<Document>, StoreError> {
        let read = self.database().begin_read()?;
        let key = DocumentKey::new(FILES, &id.to_string());
        read_row(&read, key)?
            .map(|row| read_document(&read, key, &row))
            .transpose()
    }

    /// The synced folders of this device.
    pub fn folder_settings(&self) -> Result<Vec<(u32, FolderSetting)>, StoreError> {
        let table = self.database().begin_read()?.open_table(tables::FOLDERS)?;
        let mut settings = Vec::new();
        for item in table.iter()? {
            let (number, value) = item?;
            let setting = postcard::from_bytes(value.value()).map_err(|_| {
                StoreError::Damaged("a synced folder's setting cannot be read".into())
            })?;
            settings.push((number.value(), setting));
        }
        Ok(settings)
    }
}

/// The state of a file, as of a reader's moment.
pub fn file_state(read: &ReadTransaction, id: FileId) -> Result<Option<FileState>, StoreError> {
    file_in(&read.open_table(tables::FILES)?, id)
}

fn file_in(
    table: &impl ReadableTable<&'static [u8; 18], &'static [u8]>,
    id: FileId,
) -> Result<Option<FileState>, StoreError> {
    let mut key = [0; 18];
    key[..16].copy_from_slice(&id.0);
    pieces::read(table, &key)?
        .map(|bytes| {
            FileState::from_record(&bytes)
                .map_err(|_| StoreError::Damaged("the state of a file cannot be read".into()))
        })
        .transpose()
}

impl FolderVault for VaultHandle {
    async fn commit(&self, request: CommitRequest) -> Result<Committed, CommitError> {
        VaultHandle::commit(self, request).await
    }

    fn tree(&self) -> RwLockReadGuard<'_, Tree> {
        VaultHandle::tree(self)
    }

    fn subscribe_tree(&self) -> broadcast::Receiver<Arc<Vec<Changed>>> {
        VaultHandle::subscribe_tree(self)
    }

    fn folder_rows(&self, folder: u32) -> Result<BTreeMap<FileId, FolderRow>, CommitError> {
        VaultHandle::folder_rows(self, folder)
    }

    fn folder_brakes(&self, folder: u32) -> Result<BTreeMap<FileId, BrakedFile>, CommitError> {
        VaultHandle::folder_brakes(self, folder)
    }

    fn device_label(&self) -> String {
        VaultHandle::device_label(self)
    }

    fn device_label_of(&self, dot: &Dot) -> String {
        VaultHandle::device_label_of(self, &dot.writer)
    }

    fn file_contents(&self, files: &[FileId]) -> Result<Vec<Option<Content>>, CommitError> {
        let read = || {
            let table = self.database().begin_read()?.open_table(tables::FILES)?;
            files
                .iter()
                .map(|id| Ok(file_in(&table, *id)?.and_then(|state| state.content)))
                .collect::<Result<Vec<_>, StoreError>>()
        };
        read().map_err(|error| CommitError::from(&error))
    }

    fn rival_contents(&self, file: FileId) -> Result<Vec<Content>, CommitError> {
        let read = || {
            let read = self.database().begin_read()?;
            let key = DocumentKey::new(FILES, &file.to_string());
            // Most files were never written twice, which their rows tell.
            let row = read_row(&read, key)?.filter(|row| row.changes > 1);
            row.map(|row| read_document(&read, key, &row)).transpose()
        };
        let document: Option<Document> =
            read().map_err(|error: StoreError| CommitError::from(&error))?;
        Ok(document
            .and_then(|document| coffer_crdt::files::rivals(&document).ok())
            .unwrap_or_default())
    }

    fn past_content(&self, file: FileId, hash: &[u8; 32]) -> Result<Option<Content>, CommitError> {
        let document = self
            .file_document(file)
            .map_err(|error| CommitError::from(&error))?;
        let contents = document
            .and_then(|document| coffer_crdt::files::contents(&document).ok())
            .unwrap_or_default();
        Ok(contents
            .into_iter()
            .map(|(_, content)| content)
            .find(|content| content.hash == *hash))
    }
}
