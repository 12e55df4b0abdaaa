//! What the vault knows of files beyond their present state: earlier contents, tags, and what was purged.
//!
//! Written in the transaction that applies a change, so that nobody has to load documents to find out what is still
//! named. A content that another one replaces, or that lost against a concurrent one, gets a row of its own; the row
//! goes when the rule keeps it no longer ([`super::collect`]). The document remembers all the same: a row that is missing
//! costs bytes that might have been kept, never anything that a person sees as present.

use std::collections::BTreeMap;

use coffer_crdt::document::Document;
use coffer_crdt::files::lasting::{self, Purge, Tag};
use coffer_crdt::files::{self, Content, FileId, FilePatch, FileState, Stamp, Times};
use coffer_crdt::retention::VersionId;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, Table};

use super::batch::Refusal;
use super::local::Changed;
use super::request::CommitError;
use super::work::{FILES, Work};
use crate::store::documents::{DocumentKey, DocumentTables};
use crate::store::{StoreError, tables};

/// Version of each kind of value: the first field.
const VERSION: u8 = 1;

type PastTable<'t> = Table<'t, &'static [u8; 40], &'static [u8]>;

/// The key of one content among those of a file.
pub(super) fn version_key(file: FileId, version: VersionId) -> [u8; 40] {
    let mut key = [0; 40];
    key[..16].copy_from_slice(&file.0);
    key[16..24].copy_from_slice(&version.stamp.0.to_be_bytes());
    key[24..].copy_from_slice(&version.writer);
    key
}

/// The other way round.
pub(super) fn key_version(key: &[u8; 40]) -> (FileId, VersionId) {
    let (mut file, mut stamp, mut writer) = ([0; 16], [0; 8], [0; 16]);
    file.copy_from_slice(&key[..16]);
    stamp.copy_from_slice(&key[16..24]);
    writer.copy_from_slice(&key[24..]);
    let version = VersionId {
        stamp: Stamp(u64::from_be_bytes(stamp)),
        writer,
    };
    (FileId(file), version)
}

fn all_of(file: FileId) -> ([u8; 40], [u8; 40]) {
    let last = VersionId {
        stamp: Stamp(u64::MAX),
        writer: [0xff; 16],
    };
    (
        version_key(file, VersionId::default()),
        version_key(file, last),
    )
}

/// Reads a value of [`tables::PAST_CONTENTS`].
pub(super) fn decode_content(bytes: &[u8]) -> Result<Content, StoreError> {
    decode(bytes, "an earlier content")
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, StoreError> {
    match postcard::from_bytes::<(u8, T)>(bytes) {
        Ok((VERSION, value)) => Ok(value),
        _ => Err(StoreError::Damaged(format!("{what} cannot be read"))),
    }
}

fn encode(value: &impl serde::Serialize) -> Result<Vec<u8>, StoreError> {
    postcard::to_stdvec(&(VERSION, value))
        .map_err(|_| StoreError::Damaged("an earlier content could not be encoded".into()))
}

/// The earlier contents of a file for which there are rows, oldest first.
pub fn past_contents(read: &ReadTransaction, file: FileId) -> Result<Vec<Content>, StoreError> {
    let (from, to) = all_of(file);
    let table = read.open_table(tables::PAST_CONTENTS)?;
    let mut contents = Vec::new();
    for item in table.range::<&[u8; 40]>(&from..=&to)? {
        contents.push(decode_content(item?.1.value())?);
    }
    Ok(contents)
}

/// Shows every earlier content of every file, with the file. Walks the whole table.
pub fn each_past(
    read: &ReadTransaction,
    mut see: impl FnMut(FileId, Content),
) -> Result<(), StoreError> {
    for item in read.open_table(tables::PAST_CONTENTS)?.iter()? {
        let (key, value) = item?;
        see(key_version(key.value()).0, decode_content(value.value())?);
    }
    Ok(())
}

/// The same, the contents alone.
pub fn each_past_content(
    read: &ReadTransaction,
    mut see: impl FnMut(Content),
) -> Result<(), StoreError> {
    each_past(read, |_, content| see(content))
}

/// The tags of a file.
pub fn tags(
    read: &ReadTransaction,
    file: FileId,
) -> Result<BTreeMap<VersionId, String>, StoreError> {
    let (from, to) = all_of(file);
    let table = read.open_table(tables::TAGS)?;
    let mut tags = BTreeMap::new();
    for item in table.range::<&[u8; 40]>(&from..=&to)? {
        let (key, value) = item?;
        tags.insert(key_version(key.value()).1, decode(value.value(), "a tag")?);
    }
    Ok(tags)
}

/// What documents say of purging.
pub(super) fn purges(read: &ReadTransaction) -> Result<Vec<(FileId, Purge)>, StoreError> {
    let mut purges = Vec::new();
    for item in read.open_table(tables::PURGES)?.iter()? {
        let (key, value) = item?;
        purges.push((FileId(*key.value()), decode(value.value(), "a purge")?));
    }
    Ok(purges)
}

/// Makes the rows for a database that was begun before there were any.
pub(super) fn prepare(database: &Database) -> Result<(), StoreError> {
    let known = database
        .begin_read()?
        .open_table(tables::META)?
        .get(tables::meta::PAST)?
        .is_some();
    if known {
        return Ok(());
    }
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    {
        let mut past = transaction.open_table(tables::PAST_CONTENTS)?;
        let mut tags = transaction.open_table(tables::TAGS)?;
        let mut purges = transaction.open_table(tables::PURGES)?;
        transaction.open_table(tables::UNNAMED)?;
        transaction.open_table(tables::UNNAMED_RUNS)?;
        let ids: Vec<[u8; 18]> = {
            let states = transaction.open_table(tables::FILES)?;
            let keys = states.iter()?.map(|item| Ok(*item?.0.value()));
            keys.collect::<Result<_, redb::StorageError>>()?
        };
        let documents = DocumentTables::open(&transaction)?;
        for key in ids.into_iter().filter(|key| key[16..] == [0, 0]) {
            let mut id = FileId([0; 16]);
            id.0.copy_from_slice(&key[..16]);
            let key = DocumentKey::new(FILES, &id.to_string());
            let Some(row) = documents.row(key)?.filter(|row| row.changes > 1) else {
                continue;
            };
            let document = documents.load(key, &row)?;
            let present = files::read(&document).ok().and_then(|state| state.content);
            for (_, content) in files::contents(&document).unwrap_or_default() {
                if present.as_ref().map(Content::version) != Some(content.version()) {
                    insert(&mut past, id, &content)?;
                }
            }
            write_tags(&mut tags, id, &lasting::tags(&document))?;
            if let Some(purge) = lasting::purge(&document) {
                purges.insert(&id.0, &encode(&purge)?[..])?;
            }
        }
        transaction
            .open_table(tables::META)?
            .insert(tables::meta::PAST, &[1][..])?;
    }
    transaction.commit()?;
    Ok(())
}

fn insert(past: &mut PastTable<'_>, file: FileId, content: &Content) -> Result<(), StoreError> {
    // A link has no bytes that anybody could free.
    if content.target.is_none() {
        past.insert(&version_key(file, content.version()), &encode(content)?[..])?;
    }
    Ok(())
}

fn write_tags(
    table: &mut PastTable<'_>,
    file: FileId,
    tags: &BTreeMap<VersionId, String>,
) -> Result<(), StoreError> {
    let (from, to) = all_of(file);
    table.retain_in::<&[u8; 40], _>(&from..=&to, |_, _| false)?;
    for (version, label) in tags {
        table.insert(&version_key(file, *version), &encode(label)?[..])?;
    }
    Ok(())
}

impl Work<'_, '_> {
    /// An earlier content of a file, by its hash.
    pub(super) fn past_content(
        &self,
        id: FileId,
        hash: &[u8; 32],
    ) -> Result<Option<Content>, StoreError> {
        let (from, to) = all_of(id);
        let past = self.transaction.open_table(tables::PAST_CONTENTS)?;
        for item in past.range::<&[u8; 40]>(&from..=&to)? {
            let content = decode_content(item?.1.value())?;
            if content.hash == *hash {
                return Ok(Some(content));
            }
        }
        Ok(None)
    }

    /// Keeps the name of a content that `after` replaces.
    pub(super) fn replaced(
        &mut self,
        id: FileId,
        before: Option<&Content>,
        after: &FileState,
    ) -> Result<(), StoreError> {
        let Some(before) = before else { return Ok(()) };
        if after.content.as_ref().map(Content::version) == Some(before.version()) {
            return Ok(());
        }
        let mut past = self.transaction.open_table(tables::PAST_CONTENTS)?;
        insert(&mut past, id, before)
    }

    /// Takes in what a change that came from elsewhere may have brought beside the file's present state.
    pub(super) fn take_past(
        &mut self,
        id: FileId,
        document: &Document,
        after: &FileState,
    ) -> Result<(), StoreError> {
        let before = self.file(id)?.and_then(|state| state.content);
        self.replaced(id, before.as_ref(), after)?;
        let rivals = files::rivals(document).unwrap_or_default();
        if !rivals.is_empty() {
            let mut past = self.transaction.open_table(tables::PAST_CONTENTS)?;
            let own = self.core.state.writer.actor();
            for rival in &rivals {
                insert(&mut past, id, rival)?;
                if rival.dot.writer == own {
                    self.done.outdone.push((id, rival.hash));
                }
            }
        }
        if let Some(purge) = lasting::purge(document) {
            self.take_purge(id, purge)?;
        }
        if lasting::has_tags(document) {
            self.take_tags(id, document)?;
        }
        Ok(())
    }

    fn take_purge(&mut self, id: FileId, purge: Purge) -> Result<(), StoreError> {
        let bytes = encode(&purge)?;
        self.transaction
            .open_table(tables::PURGES)?
            .insert(&id.0, &bytes[..])?;
        self.done.purges.push((id, purge));
        Ok(())
    }

    fn take_tags(&mut self, id: FileId, document: &Document) -> Result<(), StoreError> {
        let tags = lasting::tags(document);
        write_tags(&mut self.transaction.open_table(tables::TAGS)?, id, &tags)?;
        let mut past = self.transaction.open_table(tables::PAST_CONTENTS)?;
        let mut unknown = Vec::new();
        for version in tags.keys() {
            if past.get(&version_key(id, *version))?.is_none() {
                unknown.push(*version);
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        // One that the rule had given up, or the present one: which then has a row too many.
        for (_, content) in files::contents(document).unwrap_or_default() {
            if unknown.contains(&content.version()) {
                insert(&mut past, id, &content)?;
            }
        }
        Ok(())
    }

    /// Purges what is in the trash. On what is not there it has no effect, now or later.
    pub(super) fn purge_file(&mut self, id: FileId, changed: &mut Changed) -> Result<(), Refusal> {
        let (row, mut document) = self.file_document(id)?;
        let replaced = lasting::purge(&document).map_or(Stamp(0), |purge| purge.stamp);
        let purge = Purge {
            clock: self.seen(),
            stamp: self.stamp_after(replaced),
            dot: self.dot(),
        };
        let (actor, time) = self.author();
        let change = lasting::set_purge(&mut document, &purge, actor, time)
            .map_err(|error| CommitError::Invalid(error.to_string()))?;
        let key = DocumentKey::new(FILES, &row.id);
        changed.push((FILES.into(), row.id.clone()));
        self.append_local(key, row, change.bytes, Some(&mut document))?;
        self.keep(key, document);
        Ok(self.take_purge(id, purge)?)
    }

    /// Sets or takes away the tag of one of a file's contents.
    pub(super) fn tag_file(
        &mut self,
        id: FileId,
        version: VersionId,
        label: Option<&String>,
        changed: &mut Changed,
    ) -> Result<(), Refusal> {
        if let Some(label) = label {
            lasting::check_label(label).map_err(|error| CommitError::Invalid(error.to_string()))?;
        }
        let (row, mut document) = self.file_document(id)?;
        let before = lasting::tag(&document, version);
        let tag = Tag {
            label: label.cloned(),
            stamp: self.stamp_after(before.map_or(Stamp(0), |tag| tag.stamp)),
            dot: self.dot(),
        };
        let (actor, time) = self.author();
        let change = lasting::set_tag(&mut document, version, &tag, actor, time)
            .map_err(|error| CommitError::Invalid(error.to_string()))?;
        let key = DocumentKey::new(FILES, &row.id);
        changed.push((FILES.into(), row.id.clone()));
        self.append_local(key, row, change.bytes, Some(&mut document))?;
        self.take_tags(id, &document)?;
        self.keep(key, document);
        Ok(())
    }

    /// A time of a content's own, which takes the place of none that somebody writes elsewhere.
    pub(super) fn set_time(
        &mut self,
        id: FileId,
        mtime_ms: i64,
        of: &[u8; 32],
        changed: &mut Changed,
    ) -> Result<(), Refusal> {
        let content = self.known_file(id)?.content;
        let Some(content) = content.filter(|content| content.hash == *of) else {
            return Err(CommitError::Changed(format!("file {id}")).into());
        };
        if content.mtime_ms == mtime_ms {
            return Ok(());
        }
        let before = files::times::times(&self.file_document(id)?.1);
        let last = before.iter().map(|times| times.stamp).max();
        let times = Times {
            mtime_ms,
            content: content.version(),
            stamp: self.stamp_after(last.unwrap_or_default().max(content.stamp)),
            dot: self.dot(),
        };
        let patch = FilePatch {
            times: Some(times),
            ..FilePatch::default()
        };
        self.edit_file(id, &patch, changed)
    }

    fn file_document(
        &mut self,
        id: FileId,
    ) -> Result<(crate::store::documents::Row, Document), Refusal> {
        let key = DocumentKey::new(FILES, &id.to_string());
        let row = self
            .documents
            .row(key)?
            .ok_or_else(|| CommitError::NotFound(format!("file {id}")))?;
        let document = self.load(key, &row)?;
        Ok((row, document))
    }
}
