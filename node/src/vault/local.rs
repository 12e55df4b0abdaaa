//! What this device's people, programs and folders ask of the vault.

use coffer_crdt::change::{ChangeHash, NewChange};
use coffer_crdt::chunks::ChunkRoot;
use coffer_crdt::document::{Document, DocumentError};
use coffer_crdt::fast;
use coffer_crdt::files::{
    self, Content, Dot, FileId, FilePatch, FileState, Kind, MergedInto, Place, Stamp, Trash,
};
use coffer_crdt::json::Texts;

use crate::blobs::placement;
use crate::store::folder_keys::folder_key;

use super::batch::Refusal;
use super::core::Ticket;
use super::request::{CommitError, CommitRequest, ContentDraft, Operation};
use super::size::{check_edited, check_name, check_size};
use super::work::{FILES, Work};
use crate::store::StoreError;
use crate::store::documents::{DocumentKey, Row};

/// What the operations of a request changed so far.
#[derive(Default)]
pub(super) struct Changed {
    /// Documents and files: (doctype, id).
    pub documents: Vec<(String, String)>,
    /// See [`Committed::revisions`](super::request::Committed::revisions).
    pub revisions: Vec<Vec<ChangeHash>>,
}

impl Changed {
    pub(super) fn push(&mut self, document: (String, String)) {
        self.documents.push(document);
    }

    /// The document of the operation under way stands at these heads now.
    fn stands_at(&mut self, heads: Vec<ChangeHash>) {
        if let Some(revision) = self.revisions.last_mut() {
            *revision = heads;
        }
    }
}

impl Work<'_, '_> {
    /// Carries out a request whole; after an error the attempt must be abandoned.
    pub fn request(&mut self, ticket: Ticket, request: &CommitRequest) -> Result<(), Refusal> {
        if !request.operations.is_empty() {
            self.may_write()?;
        }
        let mut changed = Changed::default();
        let mut trashed = false;
        for (doctype, id) in &request.mend {
            self.mend(doctype, id)?;
        }
        let left = self.bytes_left_behind(request)?;
        self.forget_left(&request.left)?;
        for operation in &request.operations {
            trashed |= matches!(
                operation,
                Operation::TrashFile { .. } | Operation::PurgeFile { .. }
            );
            changed.revisions.push(Vec::new());
            self.operation(operation, &mut changed)?;
        }
        for (folder, id, blobs) in &left {
            placement::left_file(self.transaction, blobs, (*folder, id.0))
                .map_err(StoreError::from)?;
        }
        placement::forget(
            self.transaction,
            request.displaced.iter().map(|(blob, place)| (blob, place)),
        )
        .map_err(StoreError::from)?;
        placement::apply(
            self.transaction,
            request
                .placements
                .iter()
                .map(|(blob, place)| (blob, Some(place))),
            request.chunks.iter().map(|(chunk, row)| (chunk, row)),
        )
        .map_err(StoreError::from)?;
        for (folder, id, row) in &request.folder_rows {
            let key = folder_key(*folder, *id);
            match row {
                Some(row) => {
                    let bytes = postcard::to_stdvec(row).map_err(|_| {
                        StoreError::Damaged("a folder row could not be encoded".into())
                    })?;
                    self.folder_rows
                        .insert(&key, &bytes[..])
                        .map_err(StoreError::from)?;
                }
                None => {
                    self.folder_rows.remove(&key).map_err(StoreError::from)?;
                }
            }
        }
        self.brakes(request)?;
        self.settings(request)?;
        self.storage(&request.storage)?;
        self.hosts(&request.hosts)?;
        if self.all_placed(request)? {
            for (id, hash) in &request.held {
                self.got(*id, *hash)?;
            }
        } else {
            self.want_again(request)?;
        }
        for id in &request.recheck {
            if let Some(state) = self.file(*id)? {
                self.want(*id, &state)?;
            }
        }
        if request.recheck_all {
            for (id, state) in self.all_files()? {
                let root = state.content.as_ref().map(|content| &content.root);
                if !matches!(root, Some(ChunkRoot::Indirect { .. })) {
                    self.want(id, &state)?;
                }
            }
        }
        for id in &request.unwanted {
            self.unwant(*id)?;
        }
        let rows = request.placements.len()
            + request.displaced.len()
            + request.chunks.len()
            + request.folder_rows.len()
            + request.folder_brakes.len();
        self.done.wrote |=
            rows + request.recheck.len() + request.unwanted.len() > 0 || request.recheck_all;
        let collected = match &request.collect {
            Some(wanted) => self.collect(wanted)?,
            None => None,
        };
        self.answer(ticket, changed, collected);
        if trashed {
            // The trash's clock covers all that its entry did before; what comes after must have a later seq.
            self.close_entry()?;
        }
        Ok(())
    }

    fn operation(&mut self, operation: &Operation, changed: &mut Changed) -> Result<(), Refusal> {
        match operation {
            Operation::PutDocument {
                doctype,
                id,
                value,
                texts,
                base,
            } => {
                check_name(doctype, id)?;
                check_size(value)?;
                self.refuse_purged(doctype, id)?;
                let texts = texts_of(doctype, texts);
                let (actor, time) = self.author();
                let key = DocumentKey::new(doctype, id);
                let unknown = |error| unknown_base(error, doctype, id);
                let change = match self.documents.row(key)? {
                    None if !base.is_empty() => {
                        return Err(
                            CommitError::NotFound(format!("document {doctype}/{id}")).into()
                        );
                    }
                    None => {
                        let change =
                            fast::first_change(value, &texts, actor, time).map_err(invalid)?;
                        Some((Row::new(doctype, id), change, None))
                    }
                    Some(row) => {
                        let mut document = self.load(key, &row)?;
                        let change = match &base[..] {
                            [] => document.put(value, &texts, actor, time),
                            base => document.put_since(base, value, &texts, actor, time),
                        }
                        .map_err(unknown)?;
                        change.map(|change| (row, change, Some(document)))
                    }
                };
                if let Some((row, change, document)) = change {
                    self.written(key, row, change, document, changed)?;
                }
                Ok(())
            }
            Operation::MergeDocument {
                doctype,
                id,
                patch,
                texts,
                base,
                must_exist,
            } => {
                check_name(doctype, id)?;
                self.refuse_purged(doctype, id)?;
                let (actor, time) = self.author();
                let key = DocumentKey::new(doctype, id);
                let row = self.documents.row(key)?;
                if *must_exist && row.as_ref().is_none_or(|row| row.deleted) {
                    return Err(CommitError::NotFound(format!("document {doctype}/{id}")).into());
                }
                let row = row.unwrap_or_else(|| Row::new(doctype, id));
                let mut document = if row.changes == 0 {
                    Document::empty()
                } else {
                    self.load(key, &row)?
                };
                let texts = texts_of(doctype, texts);
                let before = document.heads();
                match match &base[..] {
                    [] => document.merge_fields(patch, &texts, actor, time),
                    base => document.merge_fields_since(base, patch, &texts, actor, time),
                }
                .map_err(|error| unknown_base(error, doctype, id))?
                {
                    Some(change) => {
                        check_edited(&document, &before, patch, &row)?;
                        self.written(key, row, change, Some(document), changed)?;
                    }
                    None => self.keep(key, document),
                }
                Ok(())
            }
            Operation::DeleteDocument { doctype, id } => {
                check_name(doctype, id)?;
                self.refuse_purged(doctype, id)?;
                let (actor, time) = self.author();
                let key = DocumentKey::new(doctype, id);
                let row = self.documents.row(key)?.filter(|row| !row.deleted);
                let row =
                    row.ok_or_else(|| CommitError::NotFound(format!("document {doctype}/{id}")))?;
                let mut document = self.load(key, &row)?;
                let change = document.delete(actor, time).map_err(invalid)?;
                self.written(key, row, change, Some(document), changed)
            }
            Operation::PurgeDocument { doctype, id } => {
                check_name(doctype, id)?;
                self.purge_document(doctype, id, changed)
            }
            Operation::CreateFile {
                id,
                kind,
                parent,
                name,
                content,
                created_ms,
            } => {
                let place = self.new_place(*id, *parent, name)?;
                let content = content.as_ref().map(|draft| self.content(draft));
                self.create_file(*id, *kind, *created_ms, place, content, changed)
            }
            Operation::CreateCopy {
                id,
                parent,
                name,
                content,
                written,
                created_ms,
            } => {
                let place = self.new_place(*id, *parent, name)?;
                let kind = content.kind();
                let mut content = self.content(content);
                content.stamp = *written;
                self.create_file(*id, kind, *created_ms, place, Some(content), changed)
            }
            Operation::MoveFile { id, parent, name } => {
                files::check_name(name).map_err(|error| CommitError::Invalid(error.to_string()))?;
                let state = self.known_file(*id)?;
                let place = state.place.moved(
                    *parent,
                    name.clone(),
                    self.stamp_after(state.place.stamp),
                    self.dot(),
                    &self.core.label,
                );
                let patch = FilePatch {
                    place: Some(place),
                    ..FilePatch::default()
                };
                self.edit_file(*id, &patch, changed)
            }
            Operation::SetContent {
                id,
                content,
                replaces,
            } => {
                let state = self.known_file(*id)?;
                if let Some(expected) = replaces
                    && state.content.as_ref().map(|content| &content.hash) != Some(expected)
                {
                    return Err(CommitError::Changed(format!("file {id}")).into());
                }
                if state.kind == Kind::Folder {
                    return Err(
                        CommitError::Invalid("a folder has no content of its own".into()).into(),
                    );
                }
                let mut content = self.content(content);
                if let Some(replaced) = &state.content {
                    content.stamp = self.stamp_after(replaced.stamp);
                }
                let patch = FilePatch {
                    content: Some(content),
                    ..FilePatch::default()
                };
                self.edit_file(*id, &patch, changed)
            }
            Operation::SetTime { id, mtime_ms, of } => self.set_time(*id, *mtime_ms, of, changed),
            Operation::TrashFile { id } => {
                let state = self.known_file(*id)?;
                let (clock, dot) = (self.seen(), self.dot());
                let replaced = state.trash.map_or(Stamp(0), |trash| trash.stamp);
                let trash = Trash {
                    clock,
                    stamp: self.stamp_after(replaced),
                    dot,
                };
                self.edit_file(
                    *id,
                    &FilePatch {
                        trash: Some(trash),
                        ..FilePatch::default()
                    },
                    changed,
                )
            }
            Operation::RestoreFile { id } => {
                let Some(trash) = self.known_file(*id)?.trash else {
                    return Ok(());
                };
                let trash = Trash::restored(self.stamp_after(trash.stamp), self.dot());
                self.edit_file(
                    *id,
                    &FilePatch {
                        trash: Some(trash),
                        ..FilePatch::default()
                    },
                    changed,
                )?;
                let state = self.known_file(*id)?;
                Ok(self.want(*id, &state)?)
            }
            Operation::PurgeFile { id } => self.purge_file(*id, changed),
            Operation::TagFile { id, version, label } => {
                self.tag_file(*id, *version, label.as_ref(), changed)
            }
            Operation::MergeFileInto { id, into } => {
                let state = self.known_file(*id)?;
                let merged = MergedInto::of(&state, *into, self.stamp(), self.dot());
                self.edit_file(
                    *id,
                    &FilePatch {
                        merged_into: Some(merged),
                        ..FilePatch::default()
                    },
                    changed,
                )
            }
        }
    }

    fn new_place(&mut self, id: FileId, parent: FileId, name: &str) -> Result<Place, Refusal> {
        files::check_name(name).map_err(|error| CommitError::Invalid(error.to_string()))?;
        if self.file(id)?.is_some() {
            return Err(CommitError::Exists(format!("a file with id {id}")).into());
        }
        let (stamp, dot) = (self.stamp(), self.dot());
        Ok(Place::new(
            parent,
            name,
            stamp,
            dot,
            self.core.label.clone(),
        ))
    }

    fn create_file(
        &mut self,
        id: FileId,
        kind: Kind,
        created_ms: i64,
        place: Place,
        content: Option<Content>,
        changed: &mut Changed,
    ) -> Result<(), Refusal> {
        let state = FileState {
            kind,
            created_ms,
            place,
            content,
            trash: None,
            also_deleted: Vec::new(),
            merged_into: None,
        };
        let name = id.to_string();
        let (actor, time) = self.author();
        let key = DocumentKey::new(FILES, &name);
        let change = files::first_change(&state, actor, time).map_err(invalid)?;
        self.append_local(key, Row::new(FILES, &name), change.bytes, None)?;
        self.set_file(id, state, true)?;
        changed.push((FILES.into(), name));
        Ok(())
    }

    pub(super) fn edit_file(
        &mut self,
        id: FileId,
        patch: &FilePatch,
        changed: &mut Changed,
    ) -> Result<(), Refusal> {
        let name = id.to_string();
        let (actor, time) = self.author();
        let key = DocumentKey::new(FILES, &name);
        let row = self
            .documents
            .row(key)?
            .ok_or_else(|| CommitError::NotFound(format!("file {id}")))?;
        let replaced = match &patch.content {
            Some(_) => self.file(id)?.and_then(|state| state.content),
            None => None,
        };
        let mut document = self.load(key, &row)?;
        let change = files::edit(&mut document, patch, actor, time).map_err(invalid)?;
        self.append_local(key, row, change.bytes, Some(&mut document))?;
        let state = files::read(&document).map_err(invalid)?;
        self.replaced(id, replaced.as_ref(), &state)?;
        self.set_file(id, state, true)?;
        self.keep(key, document);
        changed.push((FILES.into(), name));
        Ok(())
    }

    /// A change to an ordinary document is made: appends it and settles what derives from it.
    fn written(
        &mut self,
        key: DocumentKey,
        row: Row,
        change: NewChange,
        document: Option<Document>,
        changed: &mut Changed,
    ) -> Result<(), Refusal> {
        changed.push((row.doctype.clone(), row.id.clone()));
        match document {
            None => {
                changed.stands_at(vec![change.hash]);
                self.append_local(key, row, change.bytes, None)?;
            }
            Some(mut document) => {
                changed.stands_at(document.heads());
                let row = self.append_local(key, row, change.bytes, Some(&mut document))?;
                self.mark_deleted(key, row, document.is_deleted())?;
                self.keep(key, document);
            }
        }
        Ok(())
    }

    pub(super) fn known_file(&self, id: FileId) -> Result<FileState, Refusal> {
        if id == FileId::ROOT {
            return Err(CommitError::Invalid(
                "the vault's top folder itself cannot be changed".into(),
            )
            .into());
        }
        Ok(self
            .file(id)?
            .ok_or_else(|| CommitError::NotFound(format!("file {id}")))?)
    }

    pub(super) fn author(&self) -> ([u8; 16], i64) {
        (
            self.core.state.writer.actor(),
            i64::try_from(self.now_ms).unwrap_or(i64::MAX),
        )
    }

    fn stamp(&mut self) -> Stamp {
        let now = self.wall_ms();
        self.core.state.hlc.now(now)
    }

    /// What this device has seen, the entry under way included.
    pub(super) fn seen(&self) -> std::collections::BTreeMap<[u8; 16], u64> {
        let clock = self.core.state.clock.iter();
        let mut seen: std::collections::BTreeMap<_, _> = clock
            .map(|(writer, seq, _)| (writer.actor(), seq))
            .collect();
        let dot = self.dot();
        seen.insert(dot.writer, dot.seq);
        seen
    }

    pub(super) fn dot(&self) -> Dot {
        Dot {
            writer: self.core.state.writer.actor(),
            seq: self.next_seq(),
        }
    }

    /// A stamp that wins over what it replaces.
    pub(super) fn stamp_after(&mut self, replaced: Stamp) -> Stamp {
        let now = self.wall_ms();
        self.core.state.hlc.now_after(now, replaced)
    }

    fn content(&mut self, draft: &ContentDraft) -> Content {
        Content {
            size: draft.size,
            mtime_ms: draft.mtime_ms,
            executable: draft.executable,
            hash: draft.hash,
            target: draft.target.clone(),
            root: draft.root.clone(),
            stamp: self.stamp(),
            dot: self.dot(),
        }
    }
}

fn invalid(error: impl std::fmt::Display) -> Refusal {
    Refusal::Request(CommitError::Invalid(error.to_string()))
}

/// A state to start from that the document never had is one that was not found; all else is the value's fault.
fn unknown_base(error: DocumentError, doctype: &str, id: &str) -> Refusal {
    match error {
        DocumentError::UnknownChange(hash) => {
            CommitError::NotFound(format!("revision {hash} of document {doctype}/{id}")).into()
        }
        other => invalid(other),
    }
}

/// The fields declared as text, by the doctype or by the caller.
fn texts_of(doctype: &str, declared: &[String]) -> Texts {
    declared
        .iter()
        .fold(Texts::for_doctype(doctype), |texts, pointer| {
            texts.with(pointer)
        })
}
