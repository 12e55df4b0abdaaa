//! Which conflicts a run ended up with, told from the histories of all documents; and that no stamp was given out twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use coffer_crdt::change::ChangeHash;
use coffer_crdt::document::Document;
use coffer_crdt::files::{self, Actor, FileId, Stamp};
use coffer_crdt::history::Revision;
use coffer_crdt::tree::Tree;
use coffer_node::store::documents::{DocumentKey, Row, read_document, read_row};
use coffer_node::store::tables;
use coffer_node::vault::{Core, FILES};
use redb::{ReadableDatabase, ReadableTable};

use super::file_rows;
use crate::coverage::Coverage;
use crate::operations::NOTES;

/// Counts the conflicts that the run ended up with, from the histories of all documents; checks their stamps.
pub fn count_conflicts(core: &Core, coverage: &mut Coverage) {
    let read = core
        .database()
        .begin_read()
        .unwrap_or_else(|error| panic!("{error}"));
    let table = read
        .open_table(tables::DOCUMENTS)
        .unwrap_or_else(|error| panic!("{error}"));
    let mut stamps = Stamps::default();
    for item in table.iter().unwrap_or_else(|error| panic!("{error}")) {
        let key = DocumentKey(*item.unwrap_or_else(|error| panic!("{error}")).0.value());
        let Ok(Some(row)) = read_row(&read, key) else {
            continue;
        };
        let document = read_document(&read, key, &row).unwrap_or_else(|error| panic!("{error}"));
        let history = document.history();
        count_concurrent(&row, &history, coverage);
        if row.doctype == FILES {
            stamps.note(&document);
        }
        if row.base_len > 0 {
            coverage.hit("store", "folded document");
        }
        if row.batches > 0 {
            coverage.hit("store", "batched changes");
        }
    }
    stamps.check();
    let tree = core.tree().read().unwrap_or_else(PoisonError::into_inner);
    for (id, state) in file_rows(core.database()).unwrap_or_else(|error| panic!("{error}")) {
        let Some(shown) = tree.shown(id) else {
            continue;
        };
        if shown.name.contains("(conflict from") {
            coverage.hit("conflict", "same name");
        }
        if !tree.group(id).is_empty() {
            coverage.hit("conflict", "shown as one");
        }
        if in_cycle(&tree, id) {
            coverage.hit("conflict", "cycle");
        }
        let deleted = state
            .trash
            .as_ref()
            .is_some_and(|trash| !trash.is_restored());
        if deleted && !shown.trashed {
            coverage.hit("conflict", "survives its trash");
        }
    }
}

/// Whether the places alone lead round in a circle.
fn in_cycle(tree: &Tree, id: FileId) -> bool {
    let mut at = id;
    for _ in 0..1000 {
        match tree.get(at) {
            Some(known) if known.place.parent == id => return true,
            Some(known) => at = known.place.parent,
            None => return false,
        }
    }
    false
}

fn count_concurrent(row: &Row, history: &[Revision], coverage: &mut Coverage) {
    let mut before: BTreeMap<ChangeHash, BTreeSet<ChangeHash>> = BTreeMap::new();
    for revision in history {
        let mut past: BTreeSet<ChangeHash> = revision.deps.iter().copied().collect();
        for dep in &revision.deps {
            past.extend(before.get(dep).into_iter().flatten().copied());
        }
        before.insert(revision.hash, past);
    }
    for (n, a) in history.iter().enumerate() {
        for b in history[..n]
            .iter()
            .filter(|b| !before[&a.hash].contains(&b.hash))
        {
            let both = |field: &str| {
                a.fields.iter().any(|f| f == field) && b.fields.iter().any(|f| f == field)
            };
            let one_each = |x: &str, y: &str| {
                let has =
                    |revision: &Revision, field: &str| revision.fields.iter().any(|f| f == field);
                (has(a, x) && has(b, y)) || (has(a, y) && has(b, x))
            };
            if row.doctype == FILES {
                if both("place") {
                    coverage.hit("conflict", "concurrent moves");
                }
                if both("content") {
                    coverage.hit("conflict", "concurrent content");
                }
                if both("trash") {
                    coverage.hit("conflict", "concurrent trash and restore");
                }
                if one_each("trash", "content") || one_each("trash", "place") {
                    coverage.hit("conflict", "trash vs edit");
                }
            } else {
                if row.doctype == NOTES && both("content") {
                    coverage.hit("conflict", "same text");
                }
                if a.deleted != b.deleted {
                    coverage.hit("conflict", "delete vs edit");
                }
                if row.doctype != NOTES && a.fields.iter().any(|field| b.fields.contains(field)) {
                    coverage.hit("conflict", "same field");
                }
                if a.deps.is_empty() && b.deps.is_empty() {
                    coverage.hit("conflict", "created twice");
                }
            }
        }
    }
}

/// Every stamp of the run, by writer.
#[derive(Default)]
struct Stamps(BTreeMap<Actor, BTreeSet<(u64, Stamp, String)>>);

impl Stamps {
    fn note(&mut self, document: &Document) {
        let Ok(state) = files::read(document) else {
            return;
        };
        let mut note = |dot: files::Dot, stamp: Stamp, what: String| {
            self.0
                .entry(dot.writer)
                .or_default()
                .insert((dot.seq, stamp, what));
        };
        let id = document
            .heads()
            .first()
            .map(ToString::to_string)
            .unwrap_or_default();
        note(state.place.dot, state.place.stamp, format!("place {id}"));
        if let Some(trash) = &state.trash {
            note(trash.dot, trash.stamp, format!("trash {id}"));
        }
        if let Some(merged) = &state.merged_into {
            note(merged.dot, merged.stamp, format!("merging {id}"));
        }
        for (_, content) in files::contents(document).unwrap_or_default() {
            note(content.dot, content.stamp, format!("content {id}"));
        }
    }

    /// No writer gives a stamp out twice, or goes back in time from one entry to a later one.
    fn check(&self) {
        for (writer, stamps) in &self.0 {
            let mut given: BTreeMap<Stamp, &str> = BTreeMap::new();
            let (mut last_seq, mut last, mut highest) = (0, Stamp(0), Stamp(0));
            for (seq, stamp, what) in stamps {
                if let Some(other) = given.insert(*stamp, what) {
                    panic!(
                        "writer {} gave one stamp to {other} and to {what}",
                        hex::encode(writer)
                    );
                }
                if *seq > last_seq {
                    (last_seq, last) = (*seq, highest);
                }
                assert!(
                    *stamp > last,
                    "writer {} went back in time with entry {seq}",
                    hex::encode(writer)
                );
                highest = highest.max(*stamp);
            }
        }
    }
}
