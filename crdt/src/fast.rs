//! A first change built and read without a document in memory.
//!
//! Most documents of an import or a first sync consist of one change. Building that change as Automerge's expanded
//! form and encoding it costs a twentieth of a transaction on a document, reading it a tenth of loading one. What is
//! built here is a change like any other: Automerge's own transaction makes the same bytes (a test holds them equal).

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;

use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId, OpType, SortedVec};
use automerge::{ActorId, Change, ExpandedChange, ObjType, ScalarValue};
use serde_json::{Map, Value};

use crate::change::{Actor, ChangeError, ChangeInfo, DELETE, NewChange, inspect_with, parse, vet};
use crate::document::DocumentError;
use crate::json::{MAX_DEPTH, Texts, checked, from_owned_scalar, is_reserved, sorted, to_scalar};

/// The first change of a document that is to read as `value`. `time_ms` is milliseconds since 1970, UTC.
///
/// # Errors
/// As for [`crate::Document::put`].
pub fn first_change(
    value: &Value,
    texts: &Texts,
    actor: Actor,
    time_ms: i64,
) -> Result<NewChange, DocumentError> {
    Ok(NewChange::encode(build(
        checked(value)?,
        texts,
        actor,
        time_ms,
    ))?)
}

/// The first change of a document whose root fields are all scalars, bytes too.
///
/// # Errors
/// `RepeatedKey`; `Change` when it would be larger than other devices accept.
pub fn first_change_scalars(
    fields: &[(&str, ScalarValue)],
    actor: Actor,
    time_ms: i64,
) -> Result<NewChange, DocumentError> {
    Ok(NewChange::encode(build_scalars(fields, actor, time_ms)?)?)
}

/// What a document reads as that consists of this one change. `None` where only loading it can tell: it is no first
/// change, a deletion, or made by a program that writes in other ways.
///
/// # Errors
/// When the bytes are no acceptable change.
pub fn read_first(raw: &[u8]) -> Result<Option<Value>, ChangeError> {
    let change = parse(raw)?;
    let reading = vet(&change, |expanded| {
        is_whole(expanded).then(|| Reading::of(expanded)).flatten()
    })?;
    Ok(reading.and_then(Reading::into_json))
}

/// The root fields, sorted by key, of a document that consists of this one change. `None` where it is no first change,
/// a deletion, or has anything but scalars.
///
/// # Errors
/// When the bytes are no acceptable change.
pub fn read_first_scalars(raw: &[u8]) -> Result<Option<Vec<(String, ScalarValue)>>, ChangeError> {
    let change = parse(raw)?;
    vet(&change, |expanded| {
        is_whole(expanded).then(|| root_scalars(expanded)).flatten()
    })
}

/// Root fields, sorted by key.
pub(crate) type Scalars = Vec<(String, ScalarValue)>;

/// As [`crate::change::inspect`], with what [`read_first_scalars`] gives.
pub(crate) fn inspect_first_scalars(
    raw: &[u8],
) -> Result<(ChangeInfo, Option<Scalars>), ChangeError> {
    inspect_with(raw, |expanded| {
        is_whole(expanded).then(|| root_scalars(expanded)).flatten()
    })
}

fn root_scalars(change: &ExpandedChange) -> Option<Vec<(String, ScalarValue)>> {
    let mut fields = BTreeMap::new();
    for op in &change.operations {
        let (ObjectId::Root, Key::Map(key), OpType::Put(value), false) =
            (&op.obj, &op.key, &op.action, op.insert)
        else {
            return None;
        };
        if !op.pred.is_empty() || fields.insert(key.to_string(), value.clone()).is_some() {
            return None;
        }
    }
    Some(fields.into_iter().collect())
}

/// Whether a change can stand alone as a document that is not deleted.
fn is_whole(change: &ExpandedChange) -> bool {
    change.deps.is_empty()
        && change.seq == 1
        && change.start_op == NonZeroU64::MIN
        && change.message.as_deref() != Some(DELETE)
}

/// Whether [`read_first`] can read this change. Then loading it gives the same.
pub(crate) fn is_readable(change: &ExpandedChange) -> bool {
    is_whole(change) && Reading::of(change).is_some()
}

pub(crate) fn build(
    fields: &Map<String, Value>,
    texts: &Texts,
    actor: Actor,
    time_ms: i64,
) -> Change {
    let mut builder = Builder::new(actor, texts);
    builder.fill_map(&ObjectId::Root, fields);
    builder.finish(time_ms)
}

pub(crate) fn build_scalars(
    fields: &[(&str, ScalarValue)],
    actor: Actor,
    time_ms: i64,
) -> Result<Change, DocumentError> {
    refuse_repeated(fields)?;
    let texts = Texts::none();
    let mut builder = Builder::new(actor, &texts);
    for (key, value) in fields {
        builder.push(
            OpType::Put(value.clone()),
            &ObjectId::Root,
            Key::from(key),
            false,
        );
    }
    Ok(builder.finish(time_ms))
}

pub(crate) fn refuse_repeated(fields: &[(&str, ScalarValue)]) -> Result<(), DocumentError> {
    let mut seen = BTreeSet::new();
    match fields.iter().find(|(key, _)| !seen.insert(*key)) {
        Some((key, _)) => Err(DocumentError::RepeatedKey((*key).to_owned())),
        None => Ok(()),
    }
}

/// Collects the operations of a first change; the n-th has the id (n, actor), from 1.
struct Builder<'a> {
    actor: ActorId,
    ops: Vec<Op>,
    texts: &'a Texts,
    path: Vec<String>,
}

impl<'a> Builder<'a> {
    fn new(actor: Actor, texts: &'a Texts) -> Self {
        Builder {
            actor: ActorId::from(actor),
            ops: Vec::new(),
            texts,
            path: Vec::new(),
        }
    }

    fn push(&mut self, action: OpType, obj: &ObjectId, key: Key, insert: bool) -> OpId {
        self.ops.push(Op {
            action,
            obj: obj.clone(),
            key,
            pred: SortedVec::new(),
            insert,
        });
        OpId::new(self.ops.len() as u64, &self.actor)
    }

    fn fill_map(&mut self, obj: &ObjectId, fields: &Map<String, Value>) {
        for (key, value) in sorted(fields) {
            if !self.texts.is_empty() {
                self.path.push(key.clone());
            }
            self.put(obj, Key::from(key), value, false);
            self.path.pop();
        }
    }

    /// Puts a value, and all that is in it, at a key of a map or behind an element of a list.
    fn put(&mut self, obj: &ObjectId, key: Key, value: &Value, insert: bool) -> OpId {
        match value {
            Value::Object(fields) => {
                let id = self.push(OpType::Make(ObjType::Map), obj, key, insert);
                self.fill_map(&ObjectId::Id(id.clone()), fields);
                id
            }
            Value::Array(items) => {
                let id = self.push(OpType::Make(ObjType::List), obj, key, insert);
                self.fill_list(&ObjectId::Id(id.clone()), items);
                id
            }
            Value::String(text) if self.texts.takes(&self.path, text) => {
                let id = self.push(OpType::Make(ObjType::Text), obj, key, insert);
                self.fill_text(&ObjectId::Id(id.clone()), text);
                id
            }
            scalar => {
                let scalar = to_scalar(scalar).unwrap_or(ScalarValue::Null);
                self.push(OpType::Put(scalar), obj, key, insert)
            }
        }
    }

    fn fill_list(&mut self, obj: &ObjectId, items: &[Value]) {
        let mut after = ElementId::Head;
        for (index, item) in items.iter().enumerate() {
            if !self.texts.is_empty() {
                self.path.push(index.to_string());
            }
            after = ElementId::Id(self.put(obj, Key::Seq(after), item, true));
            self.path.pop();
        }
    }

    fn fill_text(&mut self, obj: &ObjectId, text: &str) {
        let mut after = ElementId::Head;
        let mut buffer = [0; 4];
        for char in text.chars() {
            let one = ScalarValue::Str((&*char.encode_utf8(&mut buffer)).into());
            after = ElementId::Id(self.push(OpType::Put(one), obj, Key::Seq(after), true));
        }
    }

    fn finish(self, time_ms: i64) -> Change {
        Change::from(ExpandedChange {
            operations: self.ops,
            actor_id: self.actor,
            hash: None,
            seq: 1,
            start_op: NonZeroU64::MIN,
            time: time_ms,
            message: None,
            deps: Vec::new(),
            extra_bytes: Vec::new(),
            author: None,
        })
    }
}

/// What the operations of a first change make, taken one by one.
struct Reading {
    actor: ActorId,
    /// By the number of the operation that made them; the root is 0.
    containers: BTreeMap<u64, Container>,
}

enum Container {
    Map(BTreeMap<String, Item>),
    /// `last` is the operation that inserted the last item so far, 0 at first: only appending is read here.
    List {
        last: u64,
        items: Vec<Item>,
    },
    Text {
        last: u64,
        text: String,
    },
}

enum Item {
    Scalar(ScalarValue),
    Container(u64),
}

impl Reading {
    fn of(change: &ExpandedChange) -> Option<Reading> {
        let containers = BTreeMap::from([(0, Container::Map(BTreeMap::new()))]);
        let mut reading = Reading {
            actor: change.actor_id.clone(),
            containers,
        };
        for (counter, op) in (1..).zip(&change.operations) {
            reading.take(counter, op)?;
        }
        Some(reading)
    }

    fn take(&mut self, counter: u64, op: &Op) -> Option<()> {
        if !op.pred.is_empty() {
            return None;
        }
        let (item, made) = match &op.action {
            OpType::Put(value) => (Item::Scalar(value.clone()), None),
            OpType::Make(kind) => (Item::Container(counter), Some(Container::new(*kind)?)),
            _ => return None,
        };
        let parent = match &op.obj {
            ObjectId::Root => 0,
            ObjectId::Id(id) if *id.actor() == self.actor => id.counter(),
            ObjectId::Id(_) => return None,
        };
        match (self.containers.get_mut(&parent)?, &op.key) {
            (Container::Map(fields), Key::Map(key)) if !op.insert => {
                if fields.insert(key.to_string(), item).is_some() {
                    return None;
                }
            }
            (Container::List { last, items }, Key::Seq(after))
                if op.insert && appends(after, *last, &self.actor) =>
            {
                *last = counter;
                items.push(item);
            }
            (Container::Text { last, text }, Key::Seq(after))
                if op.insert && appends(after, *last, &self.actor) =>
            {
                let Item::Scalar(ScalarValue::Str(piece)) = item else {
                    return None;
                };
                *last = counter;
                text.push_str(&piece);
            }
            _ => return None,
        }
        if let Some(container) = made {
            self.containers.insert(counter, container);
        }
        Some(())
    }

    fn into_json(mut self) -> Option<Value> {
        let mut root = self.json_of(0, 1)?;
        if let Value::Object(fields) = &mut root {
            fields.retain(|key, _| !is_reserved(key));
        }
        Some(root)
    }

    /// `None` when nested too deep: the full reading decides what such a document shows.
    fn json_of(&mut self, container: u64, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        Some(match self.containers.remove(&container)? {
            Container::Text { text, .. } => Value::String(text),
            Container::List { items, .. } => Value::Array(
                items
                    .into_iter()
                    .map(|item| self.item(item, depth))
                    .collect::<Option<_>>()?,
            ),
            Container::Map(fields) => {
                let field = |(key, item)| Some((key, self.item(item, depth)?));
                Value::Object(
                    fields
                        .into_iter()
                        .map(field)
                        .collect::<Option<Map<_, _>>>()?,
                )
            }
        })
    }

    fn item(&mut self, item: Item, depth: usize) -> Option<Value> {
        match item {
            Item::Scalar(value) => Some(from_owned_scalar(value)),
            Item::Container(id) => self.json_of(id, depth + 1),
        }
    }
}

impl Container {
    fn new(kind: ObjType) -> Option<Container> {
        match kind {
            ObjType::Map => Some(Container::Map(BTreeMap::new())),
            ObjType::List => Some(Container::List {
                last: 0,
                items: Vec::new(),
            }),
            ObjType::Text => Some(Container::Text {
                last: 0,
                text: String::new(),
            }),
            ObjType::Table => None,
        }
    }
}

fn appends(after: &ElementId, last: u64, actor: &ActorId) -> bool {
    match after {
        ElementId::Head => last == 0,
        ElementId::Id(id) => id.counter() == last && id.actor() == actor,
    }
}
