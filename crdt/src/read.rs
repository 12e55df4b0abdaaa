//! The merged reading of a document: which of several concurrent values counts, and what they make together.
//!
//! At any key several values can stand side by side after concurrent writes. Automerge's latest (highest operation
//! id, the same on every device) decides what the place *is*; what it shows is then
//! - an object: the union of all objects that stand there, merged key by key by these same rules;
//! - a text: all different texts that stand there, one below the other, so that nobody's typing disappears;
//! - anything else: the latest value alone.
//!
//! Values that are not shown are listed as a [`Conflict`] until somebody overwrites the field; an edit inside an object,
//! list or text that is shown leaves them where they are.

use std::collections::BTreeMap;

use automerge::{Automerge, ChangeHash, ObjId, ObjType, ReadDoc, ValueRef};
use serde_json::{Map, Value};

use crate::json::{MAX_DEPTH, from_owned_scalar, from_scalar, is_reserved};

/// A field where concurrent writes left several values, of which one is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// Where, as a JSON pointer (RFC 6901) into the document's JSON.
    pub pointer: String,
    /// What is shown there.
    pub shown: Value,
    /// The other values, earliest first.
    pub others: Vec<Value>,
}

/// A place in a document as it reads, with the Automerge objects behind it.
pub(crate) enum Node {
    Scalar(Value),
    /// `ids`: the objects that were united, the latest last; a new key goes to that one.
    Map {
        ids: Vec<ObjId>,
        fields: BTreeMap<String, Node>,
    },
    List {
        id: ObjId,
        items: Vec<Node>,
    },
    Text {
        ids: Vec<ObjId>,
        text: String,
    },
}

impl Node {
    pub(crate) fn into_json(self) -> Value {
        match self {
            Node::Scalar(value) => value,
            Node::Map { fields, .. } => Value::Object(
                fields
                    .into_iter()
                    .map(|(key, node)| (key, node.into_json()))
                    .collect::<Map<_, _>>(),
            ),
            Node::List { items, .. } => {
                Value::Array(items.into_iter().map(Node::into_json).collect())
            }
            Node::Text { text, .. } => Value::String(text),
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        match self {
            Node::Scalar(value) => value.clone(),
            Node::Map { fields, .. } => Value::Object(
                fields
                    .iter()
                    .map(|(key, node)| (key.clone(), node.to_json()))
                    .collect::<Map<_, _>>(),
            ),
            Node::List { items, .. } => Value::Array(items.iter().map(Node::to_json).collect()),
            Node::Text { text, .. } => Value::String(text.clone()),
        }
    }
}

/// Reads a document as it is, or as it was at some heads.
pub(crate) struct Reader<'a> {
    doc: &'a Automerge,
    heads: Option<Vec<ChangeHash>>,
    path: Vec<String>,
    conflicts: Option<Vec<Conflict>>,
}

/// One of the values that stand at a place, with the operation that put it there.
struct Standing {
    id: ObjId,
    value: Held,
}

enum Held {
    Scalar(Value),
    Object(ObjType),
}

impl<'a> Reader<'a> {
    pub(crate) fn new(doc: &'a Automerge) -> Self {
        Reader {
            doc,
            heads: None,
            path: Vec::new(),
            conflicts: None,
        }
    }

    pub(crate) fn at(doc: &'a Automerge, heads: Vec<ChangeHash>) -> Self {
        Reader {
            heads: Some(heads),
            ..Reader::new(doc)
        }
    }

    /// The whole document; fields with reserved names are left out.
    pub(crate) fn root(&mut self) -> BTreeMap<String, Node> {
        self.fields(&[automerge::ROOT], 1)
    }

    pub(crate) fn conflicts(mut self) -> Vec<Conflict> {
        self.conflicts = Some(Vec::new());
        self.root();
        self.conflicts.unwrap_or_default()
    }

    /// What `standing` makes together. `depth` counts the containers around it.
    fn node(&mut self, mut standing: Vec<Standing>, depth: usize) -> Node {
        standing.sort_by(|a, b| a.id.cmp(&b.id));
        let Some(latest) = standing.last() else {
            return Node::Scalar(Value::Null);
        };
        let kind = match &latest.value {
            Held::Object(_) if depth >= MAX_DEPTH => return Node::Scalar(Value::Null),
            Held::Object(kind) => Some(*kind),
            Held::Scalar(_) => None,
        };
        let same_kind =
            |one: &Standing| matches!(one.value, Held::Object(other) if Some(other) == kind);
        match kind {
            Some(ObjType::Map | ObjType::Table) => {
                let (united, others) = standing.into_iter().partition::<Vec<_>, _>(same_kind);
                let ids: Vec<ObjId> = united.into_iter().map(|one| one.id).collect();
                let fields = self.fields(&ids, depth + 1);
                self.shown_instead_of(Node::Map { ids, fields }, others, depth)
            }
            Some(ObjType::Text) => {
                let (united, others) = standing.into_iter().partition::<Vec<_>, _>(same_kind);
                let ids: Vec<ObjId> = united.into_iter().map(|one| one.id).collect();
                let text = unite(ids.iter().map(|id| self.text(id)).collect());
                self.shown_instead_of(Node::Text { ids, text }, others, depth)
            }
            Some(ObjType::List) => {
                let Some(Standing { id, .. }) = standing.pop() else {
                    return Node::Scalar(Value::Null);
                };
                let items = self.items(&id, depth + 1);
                self.shown_instead_of(Node::List { id, items }, standing, depth)
            }
            None => {
                let value = match standing.pop() {
                    Some(Standing {
                        value: Held::Scalar(value),
                        ..
                    }) => value,
                    _ => Value::Null,
                };
                self.shown_instead_of(Node::Scalar(value), standing, depth)
            }
        }
    }

    /// Notes a conflict where one is asked for, and passes the node on.
    fn shown_instead_of(&mut self, node: Node, others: Vec<Standing>, depth: usize) -> Node {
        let Some(mut conflicts) = self.conflicts.take() else {
            return node;
        };
        let shown = node.to_json();
        let mut hidden = Vec::new();
        for other in others {
            // With `conflicts` taken, conflicts inside a value that is not shown are not noted.
            let value = self.node(vec![other], depth).into_json();
            if value != shown && !hidden.contains(&value) {
                hidden.push(value);
            }
        }
        if !hidden.is_empty() {
            conflicts.push(Conflict {
                pointer: self.pointer(),
                shown,
                others: hidden,
            });
        }
        self.conflicts = Some(conflicts);
        node
    }

    /// The fields of one object, or the union of several.
    fn fields(&mut self, ids: &[ObjId], depth: usize) -> BTreeMap<String, Node> {
        let mut gathered: BTreeMap<String, Vec<Standing>> = BTreeMap::new();
        for id in ids {
            let range = match &self.heads {
                None => self.doc.map_range(id, ..),
                Some(heads) => self.doc.map_range_at(id, .., heads),
            };
            for item in range {
                let values = match item.conflict {
                    true => self.all(id, item.key.as_ref()),
                    false => vec![Standing {
                        id: item.id(),
                        value: Held::from(item.value),
                    }],
                };
                gathered
                    .entry(item.key.into_owned())
                    .or_default()
                    .extend(values);
            }
        }
        let mut fields = BTreeMap::new();
        for (key, standing) in gathered {
            if self.path.is_empty() && is_reserved(&key) {
                continue;
            }
            self.path.push(key);
            let node = self.node(standing, depth);
            if let Some(key) = self.path.pop() {
                fields.insert(key, node);
            }
        }
        fields
    }

    fn items(&mut self, id: &ObjId, depth: usize) -> Vec<Node> {
        let range = match &self.heads {
            None => self.doc.list_range(id, ..),
            Some(heads) => self.doc.list_range_at(id, .., heads),
        };
        let mut standing = Vec::new();
        for item in range {
            standing.push(match item.conflict {
                true => self.all(id, item.index),
                false => vec![Standing {
                    id: item.id(),
                    value: Held::from(item.value),
                }],
            });
        }
        let mut items = Vec::with_capacity(standing.len());
        for (index, values) in standing.into_iter().enumerate() {
            self.path.push(index.to_string());
            items.push(self.node(values, depth));
            self.path.pop();
        }
        items
    }

    fn all(&self, id: &ObjId, prop: impl Into<automerge::Prop>) -> Vec<Standing> {
        let values = match &self.heads {
            None => self.doc.get_all(id, prop),
            Some(heads) => self.doc.get_all_at(id, prop, heads),
        };
        let standing = |(value, id): (automerge::Value<'_>, ObjId)| Standing {
            id,
            value: Held::from(value),
        };
        values
            .unwrap_or_default()
            .into_iter()
            .map(standing)
            .collect()
    }

    fn text(&self, id: &ObjId) -> String {
        match &self.heads {
            None => self.doc.text(id),
            Some(heads) => self.doc.text_at(id, heads),
        }
        .unwrap_or_default()
    }

    fn pointer(&self) -> String {
        self.path
            .iter()
            .map(|part| format!("/{}", part.replace('~', "~0").replace('/', "~1")))
            .collect()
    }
}

impl From<ValueRef<'_>> for Held {
    fn from(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Object(kind) => Held::Object(kind),
            ValueRef::Scalar(scalar) => Held::Scalar(from_scalar(scalar)),
        }
    }
}

impl From<automerge::Value<'_>> for Held {
    fn from(value: automerge::Value<'_>) -> Self {
        match value {
            automerge::Value::Object(kind) => Held::Object(kind),
            automerge::Value::Scalar(scalar) => {
                Held::Scalar(from_owned_scalar(scalar.into_owned()))
            }
        }
    }
}

/// Several texts as one: those that another one contains are left out, the rest stand below each other.
pub(crate) fn unite(mut texts: Vec<String>) -> String {
    if texts.len() == 1 {
        return texts.swap_remove(0);
    }
    let mut kept: Vec<String> = Vec::new();
    for text in texts {
        if kept.iter().any(|other| other.contains(&text)) {
            continue;
        }
        kept.retain(|other| !text.contains(other.as_str()));
        kept.push(text);
    }
    kept.join("\n")
}
