//! What changed in a document, when, and by whom.

use std::collections::{BTreeMap, BTreeSet};

use automerge::legacy::{Key, ObjectId, Op, OpType};
use automerge::{Automerge, Change};

use crate::change::{Actor, ChangeHash, DELETE, describe};

/// One change of a document's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// The change; `Document::json_at(&[hash])` reads the document as its author saw it after making it.
    pub hash: ChangeHash,
    /// The changes it was made on top of.
    pub deps: Vec<ChangeHash>,
    /// Who made it.
    pub actor: Actor,
    /// Its number among the changes of its actor in this document, from 1.
    pub seq: u64,
    /// When, by its author's clock: milliseconds since 1970, UTC.
    pub time_ms: i64,
    /// Whether it deleted the document.
    pub deleted: bool,
    /// The root fields in which it wrote, sorted.
    pub fields: Vec<String>,
}

/// All changes, each after those it depends on.
pub(crate) fn revisions(doc: &Automerge) -> Vec<Revision> {
    let mut homes = Homes::default();
    doc.get_changes(&[])
        .iter()
        .map(|change| revision(change, &mut homes))
        .collect()
}

fn revision(change: &Change, homes: &mut Homes) -> Revision {
    let info = describe(change);
    Revision {
        hash: info.hash,
        deps: info.deps,
        actor: info.actor,
        seq: info.seq,
        time_ms: info.time_ms,
        deleted: info.message.as_deref() == Some(DELETE),
        fields: homes.fields_of(change).into_iter().collect(),
    }
}

/// Which root field each object of a document lives under.
#[derive(Default)]
struct Homes(BTreeMap<(u64, Vec<u8>), String>);

impl Homes {
    fn fields_of(&mut self, change: &Change) -> BTreeSet<String> {
        let expanded = change.decode();
        let mut fields = BTreeSet::new();
        let ids = expanded.start_op.get()..;
        for (counter, op) in ids.zip(&expanded.operations) {
            let Some(field) = self.field_of(op) else {
                continue;
            };
            if let OpType::Make(_) = op.action {
                self.0.insert(
                    (counter, expanded.actor_id.to_bytes().to_vec()),
                    field.clone(),
                );
            }
            if !fields.contains(&field) {
                fields.insert(field);
            }
        }
        fields
    }

    fn field_of(&self, op: &Op) -> Option<String> {
        match (&op.obj, &op.key) {
            (ObjectId::Root, Key::Map(key)) => Some(key.to_string()),
            (ObjectId::Root, Key::Seq(_)) => None,
            (ObjectId::Id(id), _) => self
                .0
                .get(&(id.counter(), id.actor().to_bytes().to_vec()))
                .cloned(),
        }
    }
}
