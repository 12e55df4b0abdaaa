//! Completeness: what was acknowledged is there.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use coffer_crdt::change::ChangeHash;
use coffer_crdt::files::{self, Actor, FileId};
use coffer_crdt::tree::Tree;
use coffer_node::store::documents::{DocumentKey, read_document, read_row};
use coffer_node::store::{StoreError, tables};
use coffer_node::vault::past::past_contents;
use coffer_node::vault::{Core, purging};
use redb::{Database, ReadableDatabase, ReadableTable};

use super::history;
use crate::ledger::{Acknowledged, Ledger};
use crate::operations::NOTES;

/// Checks that what a replica acknowledged is in its store.
pub fn check_acknowledged(name: &str, database: &Database, acknowledged: &Acknowledged) {
    for ((doctype, id), changes) in acknowledged {
        if is_purged(database, doctype, id) {
            continue;
        }
        let history =
            history(database, doctype, id).unwrap_or_else(|error| panic!("{name}: {error}"));
        let there: BTreeSet<ChangeHash> = history.iter().map(|revision| revision.hash).collect();
        let lost: Vec<_> = changes.difference(&there).collect();
        assert!(
            lost.is_empty(),
            "{name} has lost acknowledged changes of {doctype}/{id}: {lost:?}"
        );
    }
}

/// Whether a document was purged, as a store knows it.
pub fn is_purged(database: &Database, doctype: &str, id: &str) -> bool {
    let read = database.begin_read().map_err(StoreError::from);
    read.and_then(|read| purging::is_purged(&read, doctype, id))
        .unwrap_or(false)
}

/// Of what was purged nothing is there, and nothing was purged that nobody set out to purge.
fn check_purged(core: &Core, ledger: &Ledger) -> Result<(), StoreError> {
    let read = core.database().begin_read()?;
    let keys: BTreeSet<[u8; 32]> = ledger
        .purging
        .iter()
        .map(|(doctype, id)| DocumentKey::new(doctype, id).0)
        .collect();
    for item in read.open_table(tables::PURGED_DOCUMENTS)?.iter()? {
        let key = *item?.0.value();
        assert!(
            keys.contains(&key),
            "a document is purged that nobody purged"
        );
        let row = read_row(&read, DocumentKey(key))?;
        assert!(row.is_none(), "a purged document is there: {row:?}");
    }
    for item in read.open_table(tables::WAITING)?.iter()? {
        let (name, _) = item?;
        let (key, _) = name.value().split_at(32);
        let purged = read.open_table(tables::PURGED_DOCUMENTS)?;
        let is_purged = purged
            .iter()?
            .any(|row| row.is_ok_and(|row| row.0.value() == key));
        assert!(!is_purged, "a change waits for a purged document");
    }
    Ok(())
}

/// The changes of a document that one actor made.
pub fn changes_of(
    database: &Database,
    doctype: &str,
    id: &str,
    actor: Actor,
) -> Result<BTreeSet<ChangeHash>, StoreError> {
    let history = history(database, doctype, id)?;
    Ok(history
        .into_iter()
        .filter(|revision| revision.actor == actor)
        .map(|revision| revision.hash)
        .collect())
}

/// Nothing that was acknowledged is lost.
pub fn check_complete(core: &Core, ledger: &Ledger) {
    check_past(core);
    check_purged(core, ledger).unwrap_or_else(|error| panic!("{error}"));
    let database = core.database();
    for (id, typed) in &ledger.typed {
        let read = database
            .begin_read()
            .unwrap_or_else(|error| panic!("{error}"));
        let key = DocumentKey::new(NOTES, id);
        let row = read_row(&read, key).unwrap_or_else(|error| panic!("{error}"));
        let json = row.map(|row| {
            read_document(&read, key, &row)
                .unwrap_or_else(|error| panic!("{error}"))
                .json()
        });
        let text = json
            .as_ref()
            .and_then(|json| json["content"].as_str())
            .unwrap_or_default();
        for (character, typed) in typed {
            let there = text.contains(*character);
            assert!(
                there || !typed.acknowledged || typed.erasing,
                "{character} was typed into {id} and is gone: {text:?}"
            );
            assert!(
                !there || !typed.erased,
                "{character} was erased from {id} and is there: {text:?}"
            );
        }
    }
    let tree = core.tree().read().unwrap_or_else(PoisonError::into_inner);
    for id in &ledger.files {
        let Some(shown) = tree.shown(*id) else {
            panic!("file {id} was made and is gone")
        };
        if let Some(other) = shown.same_as {
            check_same(&tree, *id, other, ledger);
        } else if shown.trashed {
            let above = std::iter::successors(Some(*id), |id| {
                tree.shown(*id)
                    .map(|shown| shown.parent)
                    .filter(|parent| *parent != FileId::ROOT)
            });
            // Bounded: the tree has no cycles; a bound all the same, as this is what checks it.
            let trashed = above.take(1000).any(|id| {
                ledger.trashing.contains(&id)
                    || tree
                        .group(id)
                        .iter()
                        .any(|other| ledger.trashing.contains(other))
            });
            let merged = ledger
                .trashing
                .iter()
                .any(|trashed| tree.below(*trashed).any(|below| below == *id));
            assert!(
                trashed || merged,
                "file {id} is in the trash, and nobody put it or what it stands in there"
            );
        } else {
            assert_eq!(
                tree.lookup(shown.parent, &shown.name),
                Some(*id),
                "file {id} is not found under its name"
            );
            assert!(tree.path(*id).is_some(), "file {id} has no path");
        }
    }
}

/// Every content that a file ever had is the present one or has a row: the collector knows of no others.
pub fn check_past(core: &Core) {
    let read = core.database().begin_read();
    let read = read.unwrap_or_else(|error| panic!("{error}"));
    let tree = core.tree().read().unwrap_or_else(PoisonError::into_inner);
    for id in tree.below(FileId::ROOT) {
        let key = DocumentKey::new(files::DOCTYPE, &id.to_string());
        let document = read_row(&read, key)
            .and_then(|row| row.map(|row| read_document(&read, key, &row)).transpose())
            .unwrap_or_else(|error| panic!("{error}"))
            .unwrap_or_else(|| panic!("file {id} has no document"));
        let known: BTreeSet<_> = past_contents(&read, id)
            .unwrap_or_else(|error| panic!("{error}"))
            .iter()
            .map(|content| content.version())
            .collect();
        let present = files::read(&document).ok().and_then(|state| state.content);
        for (_, content) in files::contents(&document).unwrap_or_default() {
            assert!(
                content.target.is_some()
                    || present.as_ref().map(|present| present.version()) == Some(content.version())
                    || known.contains(&content.version()),
                "a content of file {id} is not known to whoever frees what nothing names"
            );
        }
    }
}

fn check_same(tree: &Tree, id: FileId, other: FileId, ledger: &Ledger) {
    let (mine, theirs) = (tree.get(id), tree.get(other));
    let (Some(mine), Some(theirs)) = (mine, theirs) else {
        panic!("file {id} is shown as {other}, which is not there")
    };
    assert_eq!(
        mine.kind, theirs.kind,
        "file {id} is shown as something else"
    );
    let equal =
        mine.content.map(|content| content.hash) == theirs.content.map(|content| content.hash);
    assert!(
        equal || ledger.merging.contains(&id),
        "file {id} is shown as {other}, which has other bytes"
    );
}
