//! One document in memory.
//!
//! A document starts empty, the same everywhere, and is the sum of its changes. Every operation works on a copy that
//! replaces the document only when it succeeded (Automerge shares unchanged columns between copies), so neither a
//! refused change nor a panic inside Automerge leaves a half-changed document behind.
//!
//! Deleting adds an empty change with the message `delete` and removes no field: so an edit that the deleter had not
//! seen brings the document back whole, and a later `put` writes against what is still there.

use std::collections::BTreeMap;

use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{
    ActorId, Automerge, AutomergeError, Change, LoadOptions, ReadDoc, ScalarValue, TextEncoding,
};
use serde_json::{Map, Value};

use crate::change::{
    Actor, ChangeError, ChangeHash, ChangeInfo, DELETE, NewChange, actor_bytes, describe, guard,
    is_document_chunk, parse, vet,
};
use crate::fast;
use crate::history::{self, Revision};
use crate::json::{Texts, checked, merge_patch};
use crate::read::{Conflict, Node, Reader};
use crate::write::Writer;

/// Largest saved base that is loaded, in bytes.
pub const MAX_BASE: usize = 64 << 20;

/// Why an operation on a document failed. The document is as it was before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// A change was refused.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// While loading, this change could not be applied to what came before it.
    #[error("change {hash} does not fit the document: {reason}")]
    BadChange {
        /// The change that must be set aside.
        hash: ChangeHash,
        /// What was wrong with it.
        reason: String,
    },
    /// Changes were given whose dependencies were not.
    #[error("{} changes that others depend on are missing", .0.len())]
    Missing(Vec<ChangeHash>),
    /// Two different changes carry the same number of the same actor.
    #[error("actor {} made two different changes number {seq}", hex::encode(.actor))]
    Fork {
        /// The actor.
        actor: Actor,
        /// The number that it used twice.
        seq: u64,
    },
    /// The saved base is damaged or too large.
    #[error("the saved document cannot be read: {0}")]
    Base(String),
    /// The document has no such change.
    #[error("the document has no change {0}")]
    UnknownChange(ChangeHash),
    /// Only an object can be a document.
    #[error("a document must be a JSON object")]
    NotAnObject,
    /// Keys that start with `_` at the top are not the document's own.
    #[error("the field {0:?} is reserved")]
    ReservedKey(String),
    /// Nested deeper than [`crate::json::MAX_DEPTH`].
    #[error("a document may be nested {} levels deep", crate::json::MAX_DEPTH)]
    TooDeep,
    /// The same field was given twice.
    #[error("the field {0:?} is given twice")]
    RepeatedKey(String),
    /// Automerge refused the operation.
    #[error("the document cannot be changed: {0}")]
    Refused(String),
}

impl From<AutomergeError> for DocumentError {
    fn from(error: AutomergeError) -> Self {
        match error {
            AutomergeError::DuplicateSeqNumber(seq, actor) => DocumentError::Fork {
                actor: actor_bytes(&actor),
                seq,
            },
            other => DocumentError::Refused(other.to_string()),
        }
    }
}

/// What became of a change given to [`Document::apply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is now part of the document.
    Done,
    /// It was part of it before.
    Duplicate,
    /// Nothing was changed: these changes must come first.
    Missing(Vec<ChangeHash>),
}

/// One document in memory.
#[derive(Clone, Debug)]
pub struct Document {
    doc: Automerge,
}

impl Default for Document {
    fn default() -> Self {
        Document::empty()
    }
}

impl Document {
    /// The document before its first change.
    pub fn empty() -> Document {
        Document {
            doc: Automerge::new_with_encoding(TextEncoding::UnicodeCodePoint),
        }
    }

    /// A document from its saved base and the raw changes made since, in any order.
    ///
    /// # Errors
    /// `Base` when the base is unreadable; `Missing` when dependencies are lacking; `BadChange` names the first change
    /// that is malformed or does not fit, so that it can be set aside and the rest loaded.
    pub fn load<'a>(
        base: Option<&[u8]>,
        changes: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Document, DocumentError> {
        let start = base.map_or_else(|| Ok(Document::empty()), Document::from_base)?;
        let changes = changes
            .into_iter()
            .map(parse)
            .collect::<Result<Vec<Change>, _>>()?;
        if changes.is_empty() {
            return Ok(start);
        }
        let mut whole = start.doc.clone();
        match guard(|| whole.apply_changes(changes.iter().cloned())) {
            Ok(Ok(())) => {}
            _ => return start.apply_one_by_one(changes),
        }
        let loaded = Document { doc: whole };
        match loaded.lacking(&changes) {
            missing if missing.is_empty() => Ok(loaded),
            missing => Err(DocumentError::Missing(missing)),
        }
    }

    fn from_base(base: &[u8]) -> Result<Document, DocumentError> {
        if base.len() > MAX_BASE {
            return Err(DocumentError::Base(format!("larger than {MAX_BASE} bytes")));
        }
        // Automerge would also take bare changes here, which nobody has vetted.
        if !is_document_chunk(base) {
            return Err(DocumentError::Base("not a saved document".into()));
        }
        let options = LoadOptions::new().text_encoding(TextEncoding::UnicodeCodePoint);
        let doc = guard(|| Automerge::load_with_options(base, options))
            .map_err(|error| DocumentError::Base(error.to_string()))?
            .map_err(|error| DocumentError::Base(error.to_string()))?;
        Ok(Document { doc })
    }

    /// The slow way to load, taken when all changes at once fail: finds the change that is to blame.
    fn apply_one_by_one(mut self, mut waiting: Vec<Change>) -> Result<Document, DocumentError> {
        while !waiting.is_empty() {
            let before = waiting.len();
            let mut later = Vec::new();
            for change in waiting {
                let hash = change.hash().into();
                match self.apply_parsed(change.clone()) {
                    Ok(Applied::Missing(_)) => later.push(change),
                    Ok(_) => {}
                    Err(fork @ DocumentError::Fork { .. }) => return Err(fork),
                    Err(error) => {
                        return Err(DocumentError::BadChange {
                            hash,
                            reason: error.to_string(),
                        });
                    }
                }
            }
            if later.len() == before {
                return Err(DocumentError::Missing(self.lacking(&later)));
            }
            waiting = later;
        }
        Ok(self)
    }

    /// Dependencies of `changes` that are neither among them nor in the document.
    fn lacking(&self, changes: &[Change]) -> Vec<ChangeHash> {
        let given: std::collections::BTreeSet<_> = changes.iter().map(Change::hash).collect();
        let deps: std::collections::BTreeSet<_> = changes
            .iter()
            .flat_map(|change| change.deps())
            .copied()
            .collect();
        deps.into_iter()
            .filter(|dep| !given.contains(dep) && !self.knows(dep))
            .map(ChangeHash::from)
            .collect()
    }

    fn knows(&self, hash: &automerge::ChangeHash) -> bool {
        self.doc.get_change_meta_by_hash(hash).is_some()
    }

    /// Adds a change that came from elsewhere. When dependencies are missing the caller keeps it and tries again.
    ///
    /// # Errors
    /// `Change` when the bytes are unacceptable or Automerge fails on them, `Fork` when the actor made another change
    /// with this number.
    pub fn apply(&mut self, raw: &[u8]) -> Result<Applied, DocumentError> {
        let change = parse(raw)?;
        vet(&change, |_| ())?;
        self.apply_parsed(change)
    }

    fn apply_parsed(&mut self, change: Change) -> Result<Applied, DocumentError> {
        let hash = change.hash();
        if self.knows(&hash) {
            return Ok(Applied::Duplicate);
        }
        let missing = self.lacking(std::slice::from_ref(&change));
        if !missing.is_empty() {
            return Ok(Applied::Missing(missing));
        }
        self.doc = self.with(&change)?;
        Ok(Applied::Done)
    }

    /// Whether a change could be applied now.
    pub(crate) fn admit(&self, change: &Change) -> Result<(), ChangeError> {
        match self.with(change) {
            Ok(_) => Ok(()),
            Err(DocumentError::Change(error)) => Err(error),
            Err(other) => Err(ChangeError::Malformed(other.to_string().into())),
        }
    }

    /// The document with one more change, whose dependencies it has.
    fn with(&self, change: &Change) -> Result<Automerge, DocumentError> {
        self.check_numbers(change)?;
        let mut next = self.doc.clone();
        guard(|| next.apply_changes([change.clone()]))??;
        // Operations that refer to nothing sensible are dropped or bent silently, and would surface as a saved document
        // that nobody can load.
        let kept = guard(|| next.get_change_by_hash(&change.hash()))?;
        match kept.is_some_and(|kept| kept.raw_bytes() == change.raw_bytes()) {
            true => Ok(next),
            false => Err(ChangeError::malformed("its operations do not fit the document").into()),
        }
    }

    /// Whether a change numbers itself and its operations as its dependencies demand: after its author's last change,
    /// which is always among them, and after all operations that it has seen. Automerge relies on it without checking.
    fn check_numbers(&self, change: &Change) -> Result<(), ChangeError> {
        let (mut max_op, mut own) = (0, change.seq() == 1);
        for dep in change.deps() {
            let Some(meta) = self.doc.get_change_meta_by_hash(dep) else {
                continue;
            };
            max_op = max_op.max(meta.max_op);
            own |= *meta.actor == *change.actor_id() && meta.seq + 1 == change.seq();
        }
        if !own {
            return Err(ChangeError::malformed(
                "does not follow its author's last change",
            ));
        }
        match change.start_op().get() == max_op + 1 {
            true => Ok(()),
            false => Err(ChangeError::malformed(
                "its operations are numbered wrongly",
            )),
        }
    }

    /// Makes the document read as `value`, with the smallest set of operations. `None` when it reads so already.
    /// A deleted document comes back.
    ///
    /// # Errors
    /// `NotAnObject`, `ReservedKey` and `TooDeep` for what no document can hold; `Change` when the change would be
    /// larger than other devices accept.
    pub fn put(
        &mut self,
        value: &Value,
        texts: &Texts,
        actor: Actor,
        time_ms: i64,
    ) -> Result<Option<NewChange>, DocumentError> {
        let fields = checked(value)?;
        if self.is_empty() {
            let first = fast::build(fields, texts, actor, time_ms);
            return self.adopt(first).map(Some);
        }
        let old = self.nodes()?;
        let made = self.transact(actor, time_ms, None, |tx| {
            Writer::new(tx, texts).update_root(&old, fields)
        })?;
        match made {
            None if self.is_deleted() => self.mark(actor, time_ms, None).map(Some),
            made => Ok(made),
        }
    }

    /// Changes the fields that `patch` names, as JSON merge patch (RFC 7396) does: null removes a field, objects are
    /// merged, anything else replaces. On a deleted or empty document the patch starts from `{}`.
    ///
    /// # Errors
    /// As for [`Document::put`].
    pub fn merge_fields(
        &mut self,
        patch: &Value,
        texts: &Texts,
        actor: Actor,
        time_ms: i64,
    ) -> Result<Option<NewChange>, DocumentError> {
        let patch = checked(patch)?;
        let mut fields = match self.is_deleted() {
            true => Map::new(),
            false => json_fields(self.nodes()?),
        };
        merge_patch(&mut fields, patch);
        self.put(&Value::Object(fields), texts, actor, time_ms)
    }

    /// Deletes the document. Whoever edits it without having seen this keeps it alive.
    ///
    /// # Errors
    /// Only when Automerge fails.
    pub fn delete(&mut self, actor: Actor, time_ms: i64) -> Result<NewChange, DocumentError> {
        self.mark(actor, time_ms, Some(DELETE))
    }

    /// Whether everybody who wrote last deleted it: every head is a deletion. An empty document is not deleted.
    pub fn is_deleted(&self) -> bool {
        self.all_delete(&self.doc.get_heads())
    }

    /// Whether it was deleted when these changes were the latest.
    pub(crate) fn was_deleted(&self, heads: &[ChangeHash]) -> bool {
        let heads: Vec<_> = heads.iter().map(|head| (*head).into()).collect();
        self.all_delete(&heads)
    }

    fn all_delete(&self, heads: &[automerge::ChangeHash]) -> bool {
        let deletes = |hash: &automerge::ChangeHash| {
            self.doc
                .get_change_meta_by_hash(hash)
                .is_some_and(|meta| meta.message.as_deref() == Some(DELETE))
        };
        !heads.is_empty() && heads.iter().all(deletes)
    }

    /// Whether it has no change at all.
    pub fn is_empty(&self) -> bool {
        self.doc.get_heads().is_empty()
    }

    /// What the document reads as: an object, without keys that start with `_`. A deleted document still reads as it
    /// was. `null`, which no document is, if Automerge fails on a peer's crafted change.
    pub fn json(&self) -> Value {
        guard(|| Value::Object(json_fields(Reader::new(&self.doc).root()))).unwrap_or(Value::Null)
    }

    /// What the document read as when these changes were the latest.
    ///
    /// # Errors
    /// `UnknownChange` when one of them is not part of the document.
    pub fn json_at(&self, heads: &[ChangeHash]) -> Result<Value, DocumentError> {
        let heads = self.own_hashes(heads)?;
        Ok(guard(|| {
            Value::Object(json_fields(Reader::at(&self.doc, heads).root()))
        })?)
    }

    /// Its fields as they read, with the Automerge objects behind them.
    pub(crate) fn nodes(&self) -> Result<BTreeMap<String, Node>, ChangeError> {
        guard(|| Reader::new(&self.doc).root())
    }

    fn own_hashes(
        &self,
        heads: &[ChangeHash],
    ) -> Result<Vec<automerge::ChangeHash>, DocumentError> {
        let known = |hash: &ChangeHash| match self.knows(&(*hash).into()) {
            true => Ok((*hash).into()),
            false => Err(DocumentError::UnknownChange(*hash)),
        };
        heads.iter().map(known).collect()
    }

    /// Fields where concurrent writes left values that are not shown, in the order of the document.
    pub fn conflicts(&self) -> Vec<Conflict> {
        guard(|| Reader::new(&self.doc).conflicts()).unwrap_or_default()
    }

    /// The latest changes, sorted: the document is the sum of them and of all they depend on.
    pub fn heads(&self) -> Vec<ChangeHash> {
        self.doc
            .get_heads()
            .into_iter()
            .map(ChangeHash::from)
            .collect()
    }

    /// All of the document and its history, as a base for [`Document::load`].
    pub fn save(&self) -> Vec<u8> {
        self.doc.save()
    }

    /// As [`Document::save`], and proven to load: what a caller wants before it drops the changes that a new base
    /// replaces. Costs one more load.
    ///
    /// # Errors
    /// `Base` when what Automerge saved does not load to this document again; then the changes must be kept.
    pub fn save_proven(&self) -> Result<Vec<u8>, DocumentError> {
        let base = guard(|| self.save())?;
        match Document::from_base(&base)?.heads() == self.heads() {
            true => Ok(base),
            false => Err(DocumentError::Base("it loads to another document".into())),
        }
    }

    /// Its changes, each after those it depends on.
    pub fn history(&self) -> Vec<Revision> {
        guard(|| history::revisions(&self.doc)).unwrap_or_default()
    }

    /// What one of its changes says of itself.
    pub fn change(&self, hash: ChangeHash) -> Option<ChangeInfo> {
        guard(|| self.doc.get_change_by_hash(&hash.into()))
            .ok()
            .flatten()
            .map(|change| describe(&change))
    }

    /// The scalars that stand at a root field, the latest (by Automerge's order) last: more than one after concurrent
    /// writes, none when the field is missing or an object.
    pub fn get_all_scalars(&self, key: &str) -> Vec<ScalarValue> {
        guard(|| scalars(self.doc.get_all(automerge::ROOT, key))).unwrap_or_default()
    }

    /// The root fields whose names begin with `prefix`, sorted.
    pub fn keys_from(&self, prefix: &str) -> Vec<String> {
        guard(|| {
            self.doc
                .keys(automerge::ROOT)
                .filter(|key| key.starts_with(prefix))
                .collect()
        })
        .unwrap_or_default()
    }

    /// As [`Document::get_all_scalars`], when these changes were the latest.
    ///
    /// # Errors
    /// `UnknownChange` when one of them is not part of the document.
    pub fn get_all_scalars_at(
        &self,
        key: &str,
        heads: &[ChangeHash],
    ) -> Result<Vec<ScalarValue>, DocumentError> {
        let heads = self.own_hashes(heads)?;
        Ok(guard(|| {
            scalars(self.doc.get_all_at(automerge::ROOT, key, &heads))
        })?)
    }

    /// Writes root fields as they are given, also where they are equal to what stands there: the new value overwrites
    /// all that stood there concurrently.
    ///
    /// # Errors
    /// `RepeatedKey`; `Change` when the change would be larger than other devices accept.
    pub fn set_scalars(
        &mut self,
        fields: &[(&str, ScalarValue)],
        actor: Actor,
        time_ms: i64,
    ) -> Result<NewChange, DocumentError> {
        if self.is_empty() {
            let first = fast::build_scalars(fields, actor, time_ms)?;
            return self.adopt(first);
        }
        fast::refuse_repeated(fields)?;
        let made = self.transact(actor, time_ms, None, |tx| {
            fields
                .iter()
                .try_for_each(|(key, value)| tx.put(automerge::ROOT, *key, value.clone()))
        })?;
        made.map_or_else(|| self.mark(actor, time_ms, None), Ok)
    }

    /// Takes in the first change of this document, built here outside a transaction.
    fn adopt(&mut self, change: Change) -> Result<NewChange, DocumentError> {
        let made = NewChange::encode(change.clone())?;
        let mut next = self.doc.clone();
        guard(|| next.apply_changes([change]))??;
        self.doc = next;
        Ok(made)
    }

    /// A change without operations.
    fn mark(
        &mut self,
        actor: Actor,
        time_ms: i64,
        message: Option<&str>,
    ) -> Result<NewChange, DocumentError> {
        let mut next = self.doc.clone();
        let made = guard(|| {
            next.set_actor(ActorId::from(actor));
            let hash = next.empty_commit(options(time_ms, message));
            next.get_change_by_hash(&hash)
        })?;
        let made = NewChange::encode(made.ok_or(ChangeError::Panicked)?)?;
        self.doc = next;
        Ok(made)
    }

    /// Runs one transaction; `None` when it did nothing.
    fn transact(
        &mut self,
        actor: Actor,
        time_ms: i64,
        message: Option<&str>,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<(), AutomergeError>,
    ) -> Result<Option<NewChange>, DocumentError> {
        let mut next = self.doc.clone();
        let made = guard(|| {
            next.set_actor(ActorId::from(actor));
            let mut tx = next.transaction();
            work(&mut tx)?;
            let (hash, _) = tx.commit_with(options(time_ms, message));
            Ok::<_, AutomergeError>(hash.and_then(|hash| next.get_change_by_hash(&hash)))
        })??;
        let Some(change) = made else { return Ok(None) };
        let made = NewChange::encode(change)?;
        self.doc = next;
        Ok(Some(made))
    }
}

fn options(time_ms: i64, message: Option<&str>) -> CommitOptions {
    CommitOptions {
        message: message.map(str::to_owned),
        time: Some(time_ms),
    }
}

fn json_fields(root: BTreeMap<String, Node>) -> Map<String, Value> {
    root.into_iter()
        .map(|(key, node)| (key, node.into_json()))
        .collect()
}

fn scalars(
    found: Result<Vec<(automerge::Value<'_>, automerge::ObjId)>, AutomergeError>,
) -> Vec<ScalarValue> {
    let mut found = found.unwrap_or_default();
    found.sort_by(|a, b| a.1.cmp(&b.1));
    found
        .into_iter()
        .filter_map(|(value, _)| value.into_scalar().ok())
        .collect()
}
