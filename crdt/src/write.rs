//! The smallest set of operations that makes a document read as given JSON.
//!
//! What is equal is not touched, so a concurrent edit elsewhere survives. Where something is written, what stood
//! there concurrently is resolved: the new value goes to the latest of the united objects and leaves the others.

use std::collections::BTreeMap;

use automerge::transaction::{Transactable, Transaction};
use automerge::{AutomergeError, ObjId, ObjType, Prop, ReadDoc, ScalarValue};
use serde_json::{Map, Value};

use crate::diff::{Hunk, Numbering, hunks, text_edits};
use crate::json::{Texts, fits_text, sorted, to_scalar};
use crate::read::{Node, unite};

type Outcome = Result<(), AutomergeError>;

/// Writes into one transaction.
pub(crate) struct Writer<'a, 'doc> {
    tx: &'a mut Transaction<'doc>,
    texts: &'a Texts,
    path: Vec<String>,
}

impl<'a, 'doc> Writer<'a, 'doc> {
    pub(crate) fn new(tx: &'a mut Transaction<'doc>, texts: &'a Texts) -> Self {
        Writer {
            tx,
            texts,
            path: Vec::new(),
        }
    }

    /// Turns the document that reads as `old` into one that reads as `new`.
    pub(crate) fn update_root(
        &mut self,
        old: &BTreeMap<String, Node>,
        new: &Map<String, Value>,
    ) -> Outcome {
        self.update_map(&[automerge::ROOT], old, new)
    }

    fn update_map(
        &mut self,
        ids: &[ObjId],
        old: &BTreeMap<String, Node>,
        new: &Map<String, Value>,
    ) -> Outcome {
        for key in old.keys().filter(|key| !new.contains_key(*key)) {
            self.remove_key(ids, key)?;
        }
        for (key, value) in sorted(new) {
            self.path.push(key.clone());
            match old.get(key) {
                Some(node) => self.update(ids, Prop::Map(key.as_str().into()), node, value)?,
                None => self.put(ids, Prop::Map(key.as_str().into()), value)?,
            }
            self.path.pop();
        }
        Ok(())
    }

    fn remove_key(&mut self, ids: &[ObjId], key: &str) -> Outcome {
        for id in ids {
            if ids.len() == 1 || self.tx.get(id, key)?.is_some() {
                self.tx.delete(id, key)?;
            }
        }
        Ok(())
    }

    /// Makes the place that reads as `node` read as `value`. `parents` are its united containers, the latest last.
    fn update(&mut self, parents: &[ObjId], prop: Prop, node: &Node, value: &Value) -> Outcome {
        match (node, value) {
            (Node::Scalar(old), new) if old == new => Ok(()),
            (Node::Map { ids, fields }, Value::Object(new)) => self.update_map(ids, fields, new),
            (Node::List { id, items }, Value::Array(new)) => self.update_list(id, items, new),
            (Node::Text { text, .. }, Value::String(new)) if text == new => Ok(()),
            (Node::Text { ids, text }, Value::String(new)) if ids.len() == 1 && fits_text(new) => {
                self.edit_text(&ids[0], text, new)
            }
            (Node::Text { ids, text }, Value::String(new)) if fits_text(new) => {
                self.update_united(ids, text, new)
            }
            _ => self.put(parents, prop, value),
        }
    }

    /// Makes several texts that were begun concurrently, and read as `old` together, read as `new`. None of them is
    /// overwritten: somebody who has not seen the others may still be typing into it.
    fn update_united(&mut self, ids: &[ObjId], old: &str, new: &str) -> Outcome {
        let mut texts = Vec::with_capacity(ids.len());
        for id in ids {
            texts.push(self.tx.text(id)?);
        }
        // An edit within one of the texts stays in that one; erasing all of it takes the line end along.
        for (at, id) in ids.iter().enumerate() {
            for edited in [edit_within(&texts[at], old, new), Some(String::new())] {
                let Some(edited) = edited else { continue };
                let mut after = texts.clone();
                after[at].clone_from(&edited);
                if unite(after) == new {
                    return self.edit_text(id, &texts[at], &edited);
                }
            }
        }
        // Otherwise the latest takes up everything, and the others are emptied.
        let latest = ids.len() - 1;
        for (id, text) in ids[..latest].iter().zip(&texts) {
            self.edit_text(id, text, "")?;
        }
        self.edit_text(&ids[latest], &texts[latest], new)
    }

    fn edit_text(&mut self, id: &ObjId, old: &str, new: &str) -> Outcome {
        for edit in text_edits(old, new) {
            self.tx
                .splice_text(id, edit.at, edit.delete as isize, &edit.insert)?;
        }
        Ok(())
    }

    /// Overwrites a place.
    fn put(&mut self, parents: &[ObjId], prop: Prop, value: &Value) -> Outcome {
        self.leave_only_latest(parents, &prop)?;
        let parent = latest(parents);
        match value {
            Value::Object(fields) => {
                let id = self.tx.put_object(parent, prop, ObjType::Map)?;
                self.fill_map(&id, fields)
            }
            Value::Array(items) => {
                let id = self.tx.put_object(parent, prop, ObjType::List)?;
                self.fill_list(&id, 0, items.iter())
            }
            Value::String(text) if self.texts.takes(&self.path, text) => {
                self.put_text(parent, prop, text)
            }
            scalar => self
                .tx
                .put(parent, prop, to_scalar(scalar).unwrap_or(ScalarValue::Null)),
        }
    }

    fn put_text(&mut self, parent: &ObjId, prop: Prop, text: &str) -> Outcome {
        let id = self.tx.put_object(parent, prop, ObjType::Text)?;
        self.tx.splice_text(&id, 0, 0, text)
    }

    /// Of several united objects, only the latest keeps a value at `prop`, which the caller then overwrites.
    fn leave_only_latest(&mut self, parents: &[ObjId], prop: &Prop) -> Outcome {
        let Some((_, earlier)) = parents.split_last() else {
            return Ok(());
        };
        for id in earlier {
            if self.tx.get(id, prop.clone())?.is_some() {
                self.tx.delete(id, prop.clone())?;
            }
        }
        Ok(())
    }

    fn fill_map(&mut self, id: &ObjId, fields: &Map<String, Value>) -> Outcome {
        for (key, value) in sorted(fields) {
            self.path.push(key.clone());
            self.put(
                std::slice::from_ref(id),
                Prop::Map(key.as_str().into()),
                value,
            )?;
            self.path.pop();
        }
        Ok(())
    }

    fn fill_list<'v>(
        &mut self,
        id: &ObjId,
        at: usize,
        items: impl Iterator<Item = &'v Value>,
    ) -> Outcome {
        for (offset, value) in items.enumerate() {
            self.insert(id, at + offset, value)?;
        }
        Ok(())
    }

    fn insert(&mut self, list: &ObjId, index: usize, value: &Value) -> Outcome {
        self.path.push(index.to_string());
        match value {
            Value::Object(fields) => {
                let id = self.tx.insert_object(list, index, ObjType::Map)?;
                self.fill_map(&id, fields)?;
            }
            Value::Array(items) => {
                let id = self.tx.insert_object(list, index, ObjType::List)?;
                self.fill_list(&id, 0, items.iter())?;
            }
            Value::String(text) if self.texts.takes(&self.path, text) => {
                let id = self.tx.insert_object(list, index, ObjType::Text)?;
                self.tx.splice_text(&id, 0, 0, text)?;
            }
            scalar => {
                self.tx
                    .insert(list, index, to_scalar(scalar).unwrap_or(ScalarValue::Null))?
            }
        }
        self.path.pop();
        Ok(())
    }

    /// Items that stay the same item keep their place and are edited inside; the rest is removed and inserted.
    /// From the end to the start, so that positions found in the old list stay right.
    fn update_list(&mut self, id: &ObjId, old: &[Node], new: &[Value]) -> Outcome {
        let old_json: Vec<Value> = old.iter().map(Node::to_json).collect();
        let mut numbering = Numbering::default();
        let old_ids: Vec<u32> = old_json
            .iter()
            .map(|item| numbering.number(identity(item)))
            .collect();
        let new_ids: Vec<u32> = new
            .iter()
            .map(|item| numbering.number(identity(item)))
            .collect();
        let differing = hunks(&old_ids, &new_ids);
        let (mut old_end, mut new_end) = (old.len(), new.len());
        for hunk in differing.iter().rev() {
            self.update_aligned(id, old, new, hunk.old.end..old_end, hunk.new.end..new_end)?;
            self.replace_items(id, old, &old_json, new, hunk)?;
            (old_end, new_end) = (hunk.old.start, hunk.new.start);
        }
        self.update_aligned(id, old, new, 0..old_end, 0..new_end)
    }

    /// Items with the same identity, one to one: only objects with an `id` can still differ inside.
    fn update_aligned(
        &mut self,
        id: &ObjId,
        old: &[Node],
        new: &[Value],
        from: std::ops::Range<usize>,
        to: std::ops::Range<usize>,
    ) -> Outcome {
        for (at, target) in from.zip(to) {
            self.path.push(at.to_string());
            self.update(
                std::slice::from_ref(id),
                Prop::Seq(at),
                &old[at],
                &new[target],
            )?;
            self.path.pop();
        }
        Ok(())
    }

    fn replace_items(
        &mut self,
        id: &ObjId,
        old: &[Node],
        old_json: &[Value],
        new: &[Value],
        hunk: &Hunk,
    ) -> Outcome {
        let paired = hunk
            .old
            .clone()
            .zip(hunk.new.clone())
            .take_while(|(a, b)| stays(&old_json[*a], &new[*b]))
            .count();
        for at in (hunk.old.start + paired..hunk.old.end).rev() {
            self.tx.delete(id, at)?;
        }
        self.fill_list(
            id,
            hunk.old.start + paired,
            new[hunk.new.start + paired..hunk.new.end].iter(),
        )?;
        let (from, to) = (hunk.old.start, hunk.new.start);
        self.update_aligned(id, old, new, from..from + paired, to..to + paired)
    }
}

/// What an item of a list *is*: its `id` or `_id` where it has one, else all of it.
pub(crate) fn identity(item: &Value) -> String {
    match item_id(item) {
        Some(id) => format!("#{id}"),
        None => item.to_string(),
    }
}

fn item_id(item: &Value) -> Option<&Value> {
    let fields = item.as_object()?;
    let id = fields.get("_id").or_else(|| fields.get("id"))?;
    (id.is_string() || id.is_number()).then_some(id)
}

/// Whether an item that changed is edited where it stands. Strings and items with an id are exchanged instead, so
/// that two devices which put different ones in the same place keep both.
pub(crate) fn stays(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::Object(_), Value::Object(_)) => item_id(old).is_none() && item_id(new).is_none(),
        (Value::Array(_), Value::Array(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::Bool(_), Value::Bool(_)) => true,
        _ => false,
    }
}

fn latest(parents: &[ObjId]) -> &ObjId {
    parents.last().unwrap_or(&automerge::ROOT)
}

/// What `part`, one of the lines of text that make up `old`, is after the edit that made `new` of `old`; `None` if that
/// edit reaches beyond it.
fn edit_within(part: &str, old: &str, new: &str) -> Option<String> {
    let start = old.find(part)?;
    let (head, tail) = (&old[..start], &old[start + part.len()..]);
    let inner = new.strip_prefix(head)?.strip_suffix(tail)?;
    Some(inner.to_owned())
}
