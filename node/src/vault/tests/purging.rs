//! Purging documents: nothing of one is left, on any device, whatever it had heard before.

use redb::{ReadableDatabase, ReadableTable};
use serde_json::{Value, json};

use super::several::{joined, meet};
use super::*;
use crate::store::documents::{DocumentKey, read_row};
use crate::store::tables;
use crate::vault::purging::{self, is_purged, purged_row};

const TYPE: &str = "io.cozy.notes";

fn put_value(id: &str, value: Value) -> Operation {
    Operation::PutDocument {
        doctype: TYPE.into(),
        id: id.into(),
        value,
        texts: Vec::new(),
        base: Vec::new(),
    }
}

fn purge(id: &str) -> Operation {
    Operation::PurgeDocument {
        doctype: TYPE.into(),
        id: id.into(),
    }
}

fn write(core: &mut Core, id: &str, n: u32) {
    commit(core, vec![put_value(id, json!({ "n": n }))]).unwrap();
}

fn knows(core: &Core, id: &str) -> bool {
    let read = core.database().begin_read().unwrap();
    let row = read_row(&read, DocumentKey::new(TYPE, id)).unwrap();
    assert_eq!(row.is_none(), is_purged(&read, TYPE, id).unwrap(), "{id}");
    row.is_some()
}

/// Rows of any table of documents whose key begins as that of the document.
fn rows_left(core: &Core, id: &str) -> usize {
    let read = core.database().begin_read().unwrap();
    let key = DocumentKey::new(TYPE, id).0;
    let documents = read.open_table(tables::DOCUMENTS).unwrap();
    let bases = read.open_table(tables::DOCUMENT_BASES).unwrap();
    let tails = read.open_table(tables::DOCUMENT_TAILS).unwrap();
    let waiting = read.open_table(tables::WAITING).unwrap();
    let is = |found: &[u8]| usize::from(found.starts_with(&key));
    documents
        .iter()
        .unwrap()
        .map(|row| is(row.unwrap().0.value()))
        .sum::<usize>()
        + bases
            .iter()
            .unwrap()
            .map(|row| is(row.unwrap().0.value()))
            .sum::<usize>()
        + tails
            .iter()
            .unwrap()
            .map(|row| is(row.unwrap().0.value()))
            .sum::<usize>()
        + waiting
            .iter()
            .unwrap()
            .map(|row| is(row.unwrap().0.value()))
            .sum::<usize>()
}

#[test]
fn nothing_of_a_purged_document_is_left_and_nothing_is_taken_under_its_name() {
    let mut core = vault();
    write(&mut core, "kept", 0);
    // Large enough that it has a base and batches.
    for n in 0..60 {
        let noise: String = (0..2000)
            .map(|at: u32| char::from(b'a' + ((at * n * 7 + at) % 23) as u8))
            .collect();
        commit(
            &mut core,
            vec![put_value("diary", json!({ "text": noise, "n": n }))],
        )
        .unwrap();
    }
    assert!(rows_left(&core, "diary") > 1);
    let committed = commit(&mut core, vec![purge("diary")]).unwrap();
    assert_eq!(committed.changed[0].0, purging::DOCTYPE);
    assert_eq!(rows_left(&core, "diary"), 0);
    assert!(!knows(&core, "diary") && knows(&core, "kept"));
    for again in [put_value("diary", json!({})), purge("diary")] {
        let refused = commit(&mut core, vec![again]);
        assert!(
            matches!(refused, Err(CommitError::Purged(_))),
            "{refused:?}"
        );
    }
    let absent = commit(&mut core, vec![purge("nobody")]);
    assert!(matches!(absent, Err(CommitError::NotFound(_))));
}

#[test]
fn the_name_of_what_was_purged_is_kept_until_the_index_knows_and_no_longer() {
    let mut core = vault();
    write(&mut core, "diary", 1);
    let committed = commit(&mut core, vec![purge("diary")]).unwrap();
    let key = DocumentKey::new(TYPE, "diary");
    let name = |core: &Core| {
        let read = core.database().begin_read().unwrap();
        purged_row(&read, key).unwrap().map(|row| row.id)
    };
    let prune = |core: &mut Core, upto| {
        let request = CommitRequest {
            prune_feed: Some(upto),
            ..Default::default()
        };
        core.process(vec![Input::Commit(1, Box::new(request))], wall_ms());
    };
    prune(&mut core, committed.transaction - 1);
    assert_eq!(name(&core).as_deref(), Some("diary"));
    prune(&mut core, committed.transaction);
    assert_eq!(name(&core), None);
    assert!(!knows(&core, "diary"));
}

#[test]
fn a_purge_reaches_who_edits_meanwhile_and_who_comes_later() {
    let mut first = vault();
    let mut second = joined(&mut first, 2);
    write(&mut first, "diary", 1);
    write(&mut first, "kept", 1);
    meet(&mut first, &mut second);
    assert!(knows(&second, "diary"));
    commit(&mut first, vec![purge("diary")]).unwrap();
    // It has not heard, and goes on writing.
    write(&mut second, "diary", 2);
    write(&mut second, "diary", 3);
    meet(&mut first, &mut second);
    let mut third = joined(&mut second, 3);
    meet(&mut third, &mut second);
    for core in [&first, &second, &third] {
        assert!(!knows(core, "diary"));
        assert_eq!(rows_left(core, "diary"), 0);
        assert!(knows(core, "kept"));
    }
    assert_eq!(first.state().clock, third.state().clock);
}

#[test]
fn what_waits_for_a_change_of_a_purged_document_goes_too() {
    let mut first = vault();
    let [mut second, mut third] = [2, 3].map(|n| joined(&mut first, n));
    write(&mut first, "diary", 1);
    meet(&mut first, &mut second);
    write(&mut second, "diary", 2);
    meet(&mut first, &mut third);
    // The third hears of the second's change alone, of which it lacks nothing; and of the purge after it.
    commit(&mut first, vec![purge("diary")]).unwrap();
    meet(&mut third, &mut second);
    assert!(knows(&third, "diary"));
    meet(&mut third, &mut first);
    assert_eq!(rows_left(&third, "diary"), 0);
    // Two that purge apart agree.
    write(&mut first, "letter", 1);
    for other in [&mut second, &mut third] {
        meet(&mut first, other);
        commit(other, vec![purge("letter")]).unwrap();
    }
    meet(&mut second, &mut third);
    meet(&mut second, &mut first);
    assert!(
        ![&first, &second, &third]
            .iter()
            .any(|core| knows(core, "letter"))
    );
}

#[test]
fn files_coffers_own_documents_and_records_of_purges_are_spared() {
    let mut core = vault();
    for doctype in [
        crate::vault::FILES,
        purging::DOCTYPE,
        "coffer.hosts",
        "io.coffer.settings",
    ] {
        let operation = Operation::PurgeDocument {
            doctype: doctype.into(),
            id: "x".into(),
        };
        let refused = commit(&mut core, vec![operation]);
        assert!(
            matches!(refused, Err(CommitError::Invalid(_))),
            "{doctype}: {refused:?}"
        );
    }
    write(&mut core, "diary", 1);
    commit(&mut core, vec![purge("diary")]).unwrap();
    let id = hex::encode(DocumentKey::new(TYPE, "diary").0);
    for operation in [
        Operation::DeleteDocument {
            doctype: purging::DOCTYPE.into(),
            id: id.clone(),
        },
        Operation::PutDocument {
            doctype: purging::DOCTYPE.into(),
            id,
            value: json!({}),
            texts: Vec::new(),
            base: Vec::new(),
        },
    ] {
        let refused = commit(&mut core, vec![operation]);
        assert!(
            matches!(refused, Err(CommitError::Invalid(_))),
            "{refused:?}"
        );
    }
    assert!(!knows(&core, "diary"));
}
