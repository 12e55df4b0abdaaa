//! Documents: what the `doc` commands ask.

use std::sync::Arc;

use coffer_crdt::change::ChangeHash;
use coffer_crdt::document::Document;
use coffer_protocol::identity::DeviceId;
use redb::{ReadTransaction, ReadableDatabase};
use serde_json::Value;

use super::running::{Running, commit_error};
use super::{Node, store_error};
use crate::control::{
    ControlError, DocumentReply, DocumentRow, ErrorKind, Item, Reply, Revision, Session, Where,
};
use crate::index::{Condition, IndexError};
use crate::store::StoreError;
use crate::store::documents::{DocumentKey, Row, read_document, read_row};
use crate::vault::purging::is_purged;
use crate::vault::{CommitRequest, FILES, Operation};

/// Documents in one item of a list: keeps a line of the control protocol well under its limit.
const LISTED_AT_ONCE: u64 = 256;
/// Documents read from the index at a time.
const LIST_PAGE: u64 = 2048;

/// `doc put`.
pub async fn put(
    node: &Arc<Node>,
    doctype: String,
    id: String,
    value: Value,
    texts: Vec<String>,
    base: Option<String>,
) -> Result<Reply, ControlError> {
    object(&value)?;
    let base = state_read(&*node.vault().await?, &doctype, &id, base).await?;
    written(
        node,
        Operation::PutDocument {
            doctype: doctype.clone(),
            id: id.clone(),
            value,
            texts,
            base,
        },
        doctype,
        id,
    )
    .await
}

/// `doc edit`.
pub async fn edit(
    node: &Arc<Node>,
    doctype: String,
    id: String,
    patch: Value,
    texts: Vec<String>,
    base: Option<String>,
    create: bool,
) -> Result<Reply, ControlError> {
    object(&patch)?;
    let base = state_read(&*node.vault().await?, &doctype, &id, base).await?;
    let operation = Operation::MergeDocument {
        doctype: doctype.clone(),
        id: id.clone(),
        patch,
        texts,
        base,
        must_exist: !create,
    };
    written(node, operation, doctype, id).await
}

/// `doc delete`.
pub async fn delete(node: &Arc<Node>, doctype: String, id: String) -> Result<Reply, ControlError> {
    written(
        node,
        Operation::DeleteDocument {
            doctype: doctype.clone(),
            id: id.clone(),
        },
        doctype,
        id,
    )
    .await
}

pub(super) fn object(value: &Value) -> Result<(), ControlError> {
    if value.is_object() {
        Ok(())
    } else {
        Err(ControlError::usage("a document is a JSON object"))
    }
}

async fn written(
    node: &Arc<Node>,
    operation: Operation,
    doctype: String,
    id: String,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let request = CommitRequest {
        operations: vec![operation],
        ..Default::default()
    };
    let committed = running.vault.commit(request).await.map_err(commit_error)?;
    Ok(Reply::Written {
        doctype,
        id,
        revision: committed.revisions.first().and_then(|heads| named(heads)),
    })
}

/// The heads of the state that a caller had read, by the name that it gives to it; none where it gives none.
pub(super) async fn state_read(
    running: &Running,
    doctype: &str,
    id: &str,
    base: Option<String>,
) -> Result<Vec<ChangeHash>, ControlError> {
    let Some(base) = base else {
        return Ok(Vec::new());
    };
    let whole = |part: &str| -> Option<ChangeHash> {
        let mut hash = [0; 32];
        hex::decode_to_slice(part, &mut hash).ok()?;
        Some(ChangeHash(hash))
    };
    // Scripts give what they were told, whole: the document need not be read for that.
    match base.split('+').map(whole).collect() {
        Some(heads) => Ok(heads),
        None => find_revision(&load(running, doctype, id).await?.1, &base),
    }
}

/// The name of the state at these heads: the one head, or several joined by `+`. None for no heads.
pub fn named(heads: &[ChangeHash]) -> Option<String> {
    let heads: Vec<String> = heads.iter().map(|head| hex::encode(head.0)).collect();
    (!heads.is_empty()).then(|| heads.join("+"))
}

/// A document with all that it was, and its row.
async fn load(running: &Running, doctype: &str, id: &str) -> Result<(Row, Document), ControlError> {
    let database = running.vault.database().clone();
    let (doctype, id) = (doctype.to_owned(), id.to_owned());
    let read = tokio::task::spawn_blocking(move || -> Result<_, StoreError> {
        let read = database.begin_read()?;
        let key = DocumentKey::new(&doctype, &id);
        let Some(row) = read_row(&read, key)? else {
            return Ok(Err(not_there(&read, &doctype, &id)?));
        };
        let document = read_document(&read, key, &row)?;
        Ok(Ok((row, document)))
    });
    read.await
        .map_err(|error| ControlError::internal(error.to_string()))?
        .map_err(store_error)?
}

/// Why there is nothing to read under a type and id.
pub(super) fn not_there(
    read: &ReadTransaction,
    doctype: &str,
    id: &str,
) -> Result<ControlError, StoreError> {
    Ok(match is_purged(read, doctype, id)? {
        true => ControlError::not_found(format!("document {doctype}/{id} was purged"))
            .with_code("purged"),
        false => ControlError::not_found(format!("there is no document {doctype}/{id}")),
    })
}

/// `doc get`.
pub async fn get(
    node: &Arc<Node>,
    doctype: String,
    id: String,
    at: Option<String>,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let (row, document) = load(&running, &doctype, &id).await?;
    let (value, revision, deleted) = match at {
        None if row.deleted => {
            let message = format!("document {doctype}/{id} was deleted");
            return Err(ControlError::not_found(message).with_code("deleted"));
        }
        None => (
            document.json(),
            named(&document.heads()).unwrap_or_default(),
            false,
        ),
        Some(at) => {
            let heads = find_revision(&document, &at)?;
            let value = document
                .json_at(&heads)
                .map_err(|error| ControlError::not_found(error.to_string()))?;
            let deleted = document
                .history()
                .iter()
                .any(|revision| heads.contains(&revision.hash) && revision.deleted);
            (value, named(&heads).unwrap_or_default(), deleted)
        }
    };
    let conflicts = document
        .conflicts()
        .iter()
        .map(|conflict| conflict.pointer.clone())
        .collect();
    Ok(Reply::Document(DocumentReply {
        doctype,
        id,
        revision,
        deleted,
        value,
        conflicts,
    }))
}

/// Heads named by what a person typed: revisions or beginnings of them, joined by `+`.
fn find_revision(document: &Document, typed: &str) -> Result<Vec<ChangeHash>, ControlError> {
    let history = document.history();
    typed
        .split('+')
        .map(|part| {
            let part = part.trim().to_ascii_lowercase();
            let mut found = history.iter().filter(|revision| {
                part.len() >= 4 && hex::encode(revision.hash.0).starts_with(&part)
            });
            match (found.next(), found.next()) {
                (Some(revision), None) => Ok(revision.hash),
                (Some(_), Some(_)) => Err(ControlError::usage(format!(
                    "\"{part}\" is the beginning of several revisions"
                ))),
                _ => Err(ControlError::not_found(format!(
                    "there is no revision \"{part}\""
                ))),
            }
        })
        .collect()
}

/// `doc history`.
pub async fn history(node: &Arc<Node>, doctype: String, id: String) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let (_, document) = load(&running, &doctype, &id).await?;
    let names = Names::read(&running).await?;
    let mut revisions: Vec<Revision> = document
        .history()
        .into_iter()
        .map(|revision| Revision {
            revision: hex::encode(revision.hash.0),
            at_ms: revision.time_ms,
            device: names.of(revision.actor),
            deleted: revision.deleted,
            fields: revision.fields,
        })
        .collect();
    revisions.reverse();
    Ok(Reply::Revisions { revisions })
}

/// Which device wrote as which author.
pub struct Names(std::collections::BTreeMap<[u8; 16], String>);

impl Names {
    /// As the vault knows them now.
    pub async fn read(running: &Arc<Running>) -> Result<Names, ControlError> {
        let own = running.vault.device_label();
        let me = running.vault.device();
        let names = running.vault.glance(move |core| {
            let state = core.state();
            let name = |device: DeviceId| {
                if device == me {
                    Some(own.clone())
                } else {
                    state.membership.device_name(&device, &state.keyring)
                }
            };
            let writers = state
                .clock
                .iter()
                .map(|(writer, _, _)| *writer)
                .chain([state.writer]);
            writers
                .map(|writer| {
                    (
                        writer.actor(),
                        name(writer.device).unwrap_or_else(|| "unknown".into()),
                    )
                })
                .collect()
        });
        Ok(Names(names.await.map_err(commit_error)?))
    }

    /// The name of the device behind an author.
    pub fn of(&self, actor: [u8; 16]) -> String {
        self.0
            .get(&actor)
            .cloned()
            .unwrap_or_else(|| "unknown".into())
    }
}

/// `doc find`.
pub async fn find(
    node: &Arc<Node>,
    doctype: String,
    filters: Vec<Where>,
    text: Option<String>,
    limit: u64,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    up_to_date(&running, Some(&doctype)).await?;
    let index = running.index.clone();
    let conditions: Vec<Condition> = filters
        .into_iter()
        .map(|filter| Condition {
            field: filter.field,
            value: filter.value,
        })
        .collect();
    let found = tokio::task::spawn_blocking(move || {
        index.find(
            &doctype,
            &conditions,
            text.as_deref(),
            limit.saturating_add(1),
        )
    });
    let mut found = found
        .await
        .map_err(|error| ControlError::internal(error.to_string()))?
        .map_err(index_error)?;
    let more = found.len() as u64 > limit;
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let count = found.len() as u64;
    for document in found {
        let row = DocumentRow {
            doctype: document.doctype,
            id: document.id,
            value: Some(document.value),
        };
        session.item(Item::Documents(vec![row])).await?;
    }
    Ok(Reply::Listed { count, more })
}

/// `doc list`.
pub async fn list(
    node: &Arc<Node>,
    doctype: Option<String>,
    limit: Option<u64>,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    up_to_date(&running, doctype.as_deref()).await?;
    let limit = limit.unwrap_or(u64::MAX);
    let (mut count, mut after) = (0, (String::new(), String::new()));
    loop {
        let wanted = LIST_PAGE.min(limit - count);
        let (index, only, from) = (running.index.clone(), doctype.clone(), after.clone());
        let page = tokio::task::spawn_blocking(move || {
            index.list(
                only.as_deref(),
                (&from.0, &from.1),
                wanted.saturating_add(1),
            )
        });
        let mut page = page
            .await
            .map_err(|error| ControlError::internal(error.to_string()))?
            .map_err(index_error)?;
        let more = page.len() as u64 > wanted;
        page.truncate(wanted as usize);
        count += page.len() as u64;
        if let Some(last) = page.last() {
            after = last.clone();
        }
        let rows: Vec<DocumentRow> = page
            .into_iter()
            .map(|(doctype, id)| DocumentRow {
                doctype,
                id,
                value: None,
            })
            .collect();
        for rows in rows.chunks(LISTED_AT_ONCE as usize) {
            session.item(Item::Documents(rows.to_vec())).await?;
        }
        if !more || count >= limit {
            return Ok(Reply::Listed { count, more });
        }
    }
}

/// Waits until the index has seen what was committed before this was asked of documents of a type, or of all that are no files:
/// these do not wait for the files of a first sync.
async fn up_to_date(running: &Arc<Running>, doctype: Option<&str>) -> Result<(), ControlError> {
    let (now, documents) = running
        .vault
        .glance(|core| (core.state().transaction, core.state().documents_at))
        .await
        .map_err(commit_error)?;
    let seen = match doctype {
        Some(FILES) => running.index.wait_for(now).await,
        _ => running.index.wait_for_documents(documents).await,
    };
    seen.map_err(index_error)
}

/// A failure of the index, for a person.
pub fn index_error(error: IndexError) -> ControlError {
    match error {
        IndexError::Query(what) => ControlError::usage(what),
        IndexError::Store(error) => store_error(error),
        IndexError::Stopping => ControlError::new(ErrorKind::Cancelled, "the program is stopping"),
        IndexError::Sqlite(error) => {
            ControlError::internal(format!("the search index failed: {error}"))
        }
    }
}
