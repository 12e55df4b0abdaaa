//! What happens to documents on several devices, through the public calls only.

mod properties;

use coffer_crdt::{
    Actor, Applied, ChangeHash, Document, DocumentError, NewChange, ScalarValue, Texts,
};
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

const A: Actor = [0xaa; 16];
const B: Actor = [0xbb; 16];
const C: Actor = [0xcc; 16];

fn put(doc: &mut Document, value: Value, actor: Actor) -> NewChange {
    doc.put(&value, &Texts::none(), actor, 1_700_000_000_000)
        .unwrap()
        .expect("a change")
}

fn patch(doc: &mut Document, value: Value, actor: Actor) -> NewChange {
    doc.merge_fields(&value, &Texts::none(), actor, 1_700_000_000_001)
        .unwrap()
        .expect("a change")
}

/// Gives both documents each other's change and checks that they read the same.
fn exchange(
    left: &mut Document,
    from_left: &NewChange,
    right: &mut Document,
    from_right: &NewChange,
) -> Value {
    assert_eq!(left.apply(&from_right.bytes).unwrap(), Applied::Done);
    assert_eq!(right.apply(&from_left.bytes).unwrap(), Applied::Done);
    assert_eq!(left.json(), right.json());
    assert_eq!(left.heads(), right.heads());
    left.json()
}

/// The same document on two devices.
fn shared(value: Value) -> (Document, Document) {
    let mut left = Document::empty();
    let first = put(&mut left, value, A);
    let right = Document::load(None, [&first.bytes[..]]).unwrap();
    (left, right)
}

#[test]
fn put_reads_back_faithfully() {
    let value = json!({
        "null": null, "yes": true, "int": -3, "big": u64::MAX, "small": i64::MIN, "float": 1.0, "tiny": 5e-324,
        "text": "é🙂\u{0}", "": "empty key", "a/b~c": [], "deep": {"list": [1, [2, {"x": {}}]]},
    });
    let mut doc = Document::empty();
    put(&mut doc, value.clone(), A);
    assert_eq!(doc.json(), value);
    assert_eq!(Document::load(Some(&doc.save()), []).unwrap().json(), value);
}

#[test]
fn putting_what_is_there_makes_no_change() {
    let (mut doc, _) = shared(json!({"a": [1, {"b": null}], "n": 1.5}));
    let again = doc.json();
    assert_eq!(doc.put(&again, &Texts::none(), A, 5).unwrap(), None);
}

#[test]
fn a_put_writes_only_what_differs() {
    let (mut doc, _) = shared(json!({"a": 1, "list": [1, 2, 3, 4], "m": {"x": 1, "y": 2}}));
    let change = put(
        &mut doc,
        json!({"a": 1, "list": [1, 3, 4, 5], "m": {"x": 1, "y": 3}}),
        A,
    );
    // One deletion and one insertion in the list, one field of the map.
    assert_eq!(coffer_crdt::inspect(&change.bytes).unwrap().ops, 3);
}

#[test]
fn two_devices_changing_different_fields_both_survive() {
    let (mut left, mut right) = shared(json!({"name": "n", "phone": "1", "mail": "m"}));
    let from_left = patch(&mut left, json!({"phone": "2"}), A);
    let from_right = patch(&mut right, json!({"mail": "x", "name": null}), B);
    let merged = exchange(&mut left, &from_left, &mut right, &from_right);
    assert_eq!(merged, json!({"phone": "2", "mail": "x"}));
}

#[test]
fn two_devices_changing_different_fields_of_a_nested_map_both_survive() {
    let (mut left, mut right) =
        shared(json!({"address": {"street": "a", "town": "b", "geo": {"lat": 1, "lon": 2}}}));
    let from_left = patch(&mut left, json!({"address": {"geo": {"lat": 5}}}), A);
    let from_right = patch(
        &mut right,
        json!({"address": {"town": null, "geo": {"lon": 7}}}),
        B,
    );
    let merged = exchange(&mut left, &from_left, &mut right, &from_right);
    assert_eq!(
        merged,
        json!({"address": {"street": "a", "geo": {"lat": 5, "lon": 7}}})
    );
}

#[test]
fn the_same_new_document_made_offline_twice_merges_by_field() {
    let mut left = Document::empty();
    let mut right = Document::empty();
    let from_left = put(
        &mut left,
        json!({"name": "L", "card": {"a": 1, "deep": {"p": 1}}, "only": "left"}),
        A,
    );
    let from_right = put(
        &mut right,
        json!({"name": "R", "card": {"b": 2, "deep": {"q": 2}}, "other": "right"}),
        B,
    );
    let merged = exchange(&mut left, &from_left, &mut right, &from_right);
    assert_eq!(
        merged,
        json!({"name": merged["name"], "card": {"a": 1, "b": 2, "deep": {"p": 1, "q": 2}}, "only": "left", "other": "right"})
    );
    let conflicts = left.conflicts();
    assert_eq!(conflicts, right.conflicts());
    assert_eq!(conflicts.len(), 1);
    assert_eq!(conflicts[0].pointer, "/name");
}

#[test]
fn a_united_map_can_be_edited_and_stays_one() {
    let mut left = Document::empty();
    let mut right = Document::empty();
    let from_left = put(
        &mut left,
        json!({"card": {"a": 1, "both": "l", "deep": {"p": 1}}}),
        A,
    );
    let from_right = put(
        &mut right,
        json!({"card": {"b": 2, "both": "r", "deep": {"q": 2}}}),
        B,
    );
    exchange(&mut left, &from_left, &mut right, &from_right);
    let edited = patch(
        &mut left,
        json!({"card": {"a": 9, "both": "x", "deep": {"p": null}, "new": 3}}),
        A,
    );
    assert_eq!(right.apply(&edited.bytes).unwrap(), Applied::Done);
    assert_eq!(
        right.json(),
        json!({"card": {"a": 9, "b": 2, "both": "x", "deep": {"q": 2}, "new": 3}})
    );
    assert_eq!(left.json(), right.json());
    assert!(left.conflicts().is_empty());
    let removed = patch(&mut right, json!({"card": {"both": null, "deep": null}}), B);
    left.apply(&removed.bytes).unwrap();
    assert_eq!(left.json(), json!({"card": {"a": 9, "b": 2, "new": 3}}));
}

#[test]
fn texts_typed_by_two_devices_both_survive() {
    let texts = Texts::for_doctype("io.cozy.notes");
    let mut left = Document::empty();
    let first = left
        .put(&json!({"content": "Buy milk\nand bread"}), &texts, A, 1)
        .unwrap()
        .unwrap();
    let mut right = Document::load(None, [&first.bytes[..]]).unwrap();
    let from_left = left
        .put(&json!({"content": "Buy oat milk\nand bread"}), &texts, A, 2)
        .unwrap()
        .unwrap();
    let from_right = right
        .put(&json!({"content": "Buy milk\nand bread 🍞!"}), &texts, B, 2)
        .unwrap()
        .unwrap();
    let merged = exchange(&mut left, &from_left, &mut right, &from_right);
    assert_eq!(merged, json!({"content": "Buy oat milk\nand bread 🍞!"}));
    assert_eq!(coffer_crdt::inspect(&from_left.bytes).unwrap().ops, 4);
}

#[test]
fn typing_into_a_text_keeps_the_value_it_hides_listed_until_the_field_is_overwritten() {
    let texts = Texts::none().with("/a");
    let mut left = Document::empty();
    let mut right = Document::empty();
    let from_left = left
        .put(&json!({"a": null}), &texts, A, 1)
        .unwrap()
        .unwrap();
    let from_right = right
        .put(&json!({"a": "t"}), &texts, B, 1)
        .unwrap()
        .unwrap();
    assert_eq!(
        exchange(&mut left, &from_left, &mut right, &from_right),
        json!({"a": "t"})
    );
    left.put(&json!({"a": "typed"}), &texts, A, 2).unwrap();
    let conflicts = left.conflicts();
    assert_eq!(conflicts.len(), 1);
    assert_eq!(
        (&conflicts[0].shown, &conflicts[0].others),
        (&json!("typed"), &vec![json!(null)])
    );
    left.put(&json!({"a": 1}), &texts, A, 3).unwrap();
    assert!(left.conflicts().is_empty());
}

#[test]
fn a_text_stays_a_text_for_a_caller_that_does_not_declare_it() {
    let texts = Texts::none().with("/body");
    let mut left = Document::empty();
    let first = left
        .put(&json!({"body": "one two"}), &texts, A, 1)
        .unwrap()
        .unwrap();
    let mut right = Document::load(None, [&first.bytes[..]]).unwrap();
    let from_left = put(&mut left, json!({"body": "one, two"}), A);
    let from_right = put(&mut right, json!({"body": "one two three"}), B);
    assert_eq!(
        exchange(&mut left, &from_left, &mut right, &from_right),
        json!({"body": "one, two three"})
    );
}

#[test]
fn texts_begun_on_two_devices_are_shown_below_each_other() {
    let texts = Texts::none().with("/body");
    let mut left = Document::empty();
    let mut right = Document::empty();
    let from_left = left
        .put(&json!({"body": "mine"}), &texts, A, 1)
        .unwrap()
        .unwrap();
    let from_right = right
        .put(&json!({"body": "yours"}), &texts, B, 1)
        .unwrap()
        .unwrap();
    let merged = exchange(&mut left, &from_left, &mut right, &from_right);
    assert_eq!(merged, json!({"body": "mine\nyours"}));
    assert_eq!(left.put(&merged, &texts, A, 2).unwrap(), None);
    let edited = left
        .put(&json!({"body": "mine and yours"}), &texts, A, 3)
        .unwrap()
        .unwrap();
    right.apply(&edited.bytes).unwrap();
    assert_eq!(right.json(), json!({"body": "mine and yours"}));
}

#[test]
fn typing_into_one_of_two_texts_survives_somebody_else_editing_both() {
    let texts = Texts::none().with("/body");
    let put = |doc: &mut Document, body: &str, actor: Actor| {
        doc.put(&json!({ "body": body }), &texts, actor, 1)
            .unwrap()
            .unwrap()
    };
    for edited in ["mine!\nyours", "mine, yours"] {
        let (mut left, mut right) = (Document::empty(), Document::empty());
        let from_left = put(&mut left, "mine", A);
        let from_right = put(&mut right, "yours", B);
        left.apply(&from_right.bytes).unwrap();
        let from_left_too = put(&mut left, edited, A);
        // The right one has not seen any of it.
        let more = put(&mut right, "yours, more", B);
        for change in [&from_left, &from_left_too] {
            right.apply(&change.bytes).unwrap();
        }
        left.apply(&more.bytes).unwrap();
        assert_eq!(left.json(), right.json());
        let merged = left.json()["body"].to_string();
        assert!(
            merged.contains("more") && merged.contains("mine"),
            "{merged}"
        );
    }
}

#[test]
fn a_delete_and_a_concurrent_edit_keep_the_edit_and_the_rest() {
    let (mut left, mut right) = shared(json!({"a": 1, "b": 2}));
    let gone = left.delete(A, 10).unwrap();
    assert!(left.is_deleted());
    let edit = patch(&mut right, json!({"b": 3}), B);
    let merged = exchange(&mut left, &gone, &mut right, &edit);
    assert_eq!(merged, json!({"a": 1, "b": 3}));
    assert!(!left.is_deleted() && !right.is_deleted());
}

#[test]
fn two_concurrent_deletes_delete() {
    let (mut left, mut right) = shared(json!({"a": 1}));
    let from_left = left.delete(A, 10).unwrap();
    let from_right = right.delete(B, 11).unwrap();
    exchange(&mut left, &from_left, &mut right, &from_right);
    assert!(left.is_deleted() && right.is_deleted());
}

#[test]
fn a_put_brings_a_deleted_document_back() {
    let (mut doc, _) = shared(json!({"a": 1}));
    doc.delete(A, 10).unwrap();
    // Even when nothing differs from what it was.
    assert!(
        doc.put(&json!({"a": 1}), &Texts::none(), A, 11)
            .unwrap()
            .is_some()
    );
    assert!(!doc.is_deleted());
    assert_eq!(doc.json(), json!({"a": 1}));
    doc.delete(A, 12).unwrap();
    patch(&mut doc, json!({"b": 2}), A);
    assert_eq!(doc.json(), json!({"b": 2}));
}

#[test]
fn items_added_to_a_list_on_two_devices_both_survive() {
    let (mut left, mut right) = shared(json!({"tags": ["a", "b"]}));
    let from_left = patch(&mut left, json!({"tags": ["a", "l", "b"]}), A);
    let from_right = patch(&mut right, json!({"tags": ["b", "r"]}), B);
    assert_eq!(
        exchange(&mut left, &from_left, &mut right, &from_right),
        json!({"tags": ["l", "b", "r"]})
    );
}

#[test]
fn an_item_with_an_id_is_edited_inside_while_others_move_around_it() {
    let (mut left, mut right) =
        shared(json!({"people": [{"id": 1, "n": "x", "m": 1}, {"id": 2, "n": "y"}]}));
    let from_left = patch(
        &mut left,
        json!({"people": [{"id": 0}, {"id": 1, "n": "X", "m": 1}]}),
        A,
    );
    let from_right = patch(
        &mut right,
        json!({"people": [{"id": 1, "n": "x", "m": 2}, {"id": 2, "n": "y"}]}),
        B,
    );
    let merged = exchange(&mut left, &from_left, &mut right, &from_right);
    assert_eq!(
        merged,
        json!({"people": [{"id": 0}, {"id": 1, "n": "X", "m": 2}]})
    );
}

#[test]
fn history_tells_who_changed_which_fields_and_what_was_read_then() {
    let (mut left, mut right) = shared(json!({"a": 1, "m": {"x": {"y": 1}}, "l": [1]}));
    let edit = patch(&mut right, json!({"m": {"x": {"y": 2}}, "l": [1, 2]}), B);
    left.apply(&edit.bytes).unwrap();
    let gone = left.delete(A, 12).unwrap();
    let history = left.history();
    let told: Vec<_> = history
        .iter()
        .map(|r| (r.actor, r.seq, r.deleted, r.fields.join(" ")))
        .collect();
    let expected = vec![
        (A, 1, false, "a l m".to_owned()),
        (B, 1, false, "l m".to_owned()),
        (A, 2, true, String::new()),
    ];
    assert_eq!(told, expected);
    assert_eq!(history[2].hash, gone.hash);
    assert_eq!(history[2].time_ms, 12);
    assert_eq!(
        left.json_at(&[history[0].hash]).unwrap(),
        json!({"a": 1, "m": {"x": {"y": 1}}, "l": [1]})
    );
    assert_eq!(left.json_at(&[edit.hash]).unwrap(), left.json());
    assert_eq!(left.change(edit.hash).unwrap().deps, vec![history[0].hash]);
    let unknown = ChangeHash([7; 32]);
    assert_eq!(
        left.json_at(&[unknown]),
        Err(DocumentError::UnknownChange(unknown))
    );
}

#[test]
fn a_change_waits_for_what_it_depends_on_and_comes_once() {
    let mut doc = Document::empty();
    let first = put(&mut doc, json!({"a": 1}), A);
    let second = patch(&mut doc, json!({"a": 2}), A);
    let mut other = Document::empty();
    assert_eq!(
        other.apply(&second.bytes).unwrap(),
        Applied::Missing(vec![first.hash])
    );
    assert!(other.is_empty());
    assert_eq!(other.apply(&first.bytes).unwrap(), Applied::Done);
    assert_eq!(other.apply(&second.bytes).unwrap(), Applied::Done);
    assert_eq!(other.apply(&second.bytes).unwrap(), Applied::Duplicate);
    assert_eq!(other.json(), doc.json());
    assert_eq!(
        Document::load(None, [&second.bytes[..]]).unwrap_err(),
        DocumentError::Missing(vec![first.hash])
    );
    assert_eq!(
        Document::load(None, [&second.bytes[..], &first.bytes])
            .unwrap()
            .json(),
        doc.json()
    );
}

#[test]
fn a_base_with_a_tail_loads_to_the_same_document() {
    let mut doc = Document::empty();
    put(&mut doc, json!({"a": 1}), A);
    let base = doc.save();
    let tail = [
        patch(&mut doc, json!({"b": [1]}), B),
        patch(&mut doc, json!({"b": [1, 2]}), A),
    ];
    let loaded = Document::load(Some(&base), tail.iter().map(|change| &change.bytes[..])).unwrap();
    assert_eq!(loaded.json(), json!({"a": 1, "b": [1, 2]}));
    assert_eq!(loaded.heads(), doc.heads());
}

#[test]
fn two_changes_with_one_number_are_a_fork_and_change_nothing() {
    let (mut left, mut right) = shared(json!({"a": 1}));
    let one = patch(&mut left, json!({"a": 2}), A);
    let other = patch(&mut right, json!({"a": 3}), A);
    let fork = DocumentError::Fork { actor: A, seq: 2 };
    assert_eq!(left.apply(&other.bytes), Err(fork.clone()));
    assert_eq!(left.json(), json!({"a": 2}));
    let first = left.history()[0].hash;
    assert_eq!(left.heads(), vec![one.hash]);
    assert_ne!(first, one.hash);
    left.delete(A, 9).unwrap();
    assert!(left.is_deleted());
}

#[test]
fn scalars_written_by_two_devices_all_stand_until_one_is_written_again() {
    let bytes = |byte: u8| ScalarValue::Bytes(vec![byte; 3]);
    let mut left = Document::empty();
    let mut right = Document::empty();
    let from_left = left
        .set_scalars(&[("place", bytes(1)), ("type", "file".into())], A, 1)
        .unwrap();
    let from_right = right.set_scalars(&[("place", bytes(2))], B, 1).unwrap();
    exchange(&mut left, &from_left, &mut right, &from_right);
    let mut standing = left.get_all_scalars("place");
    assert_eq!(standing, right.get_all_scalars("place"));
    standing.sort_by_key(|value| format!("{value:?}"));
    assert_eq!(standing, vec![bytes(1), bytes(2)]);
    assert_eq!(
        left.get_all_scalars_at("place", &[from_left.hash]).unwrap(),
        vec![bytes(1)]
    );
    let settled = right.set_scalars(&[("place", bytes(1))], B, 2).unwrap();
    left.apply(&settled.bytes).unwrap();
    assert_eq!(left.get_all_scalars("place"), vec![bytes(1)]);
    assert!(left.get_all_scalars("absent").is_empty());
    let twice = left.set_scalars(&[("x", bytes(1)), ("x", bytes(2))], A, 3);
    assert_eq!(twice, Err(DocumentError::RepeatedKey("x".into())));
}

#[test]
fn a_change_too_large_for_other_devices_is_refused_and_leaves_the_document() {
    let mut rng = rand_chacha::ChaCha8Rng::from_seed([7; 32]);
    let noise: String = (0..3 << 20)
        .map(|_| char::from(rng.random_range(b' '..b'~')))
        .collect();
    let (mut doc, _) = shared(json!({"a": 1}));
    let refused = doc.put(&json!({"a": 1, "noise": noise}), &Texts::none(), A, 2);
    assert!(matches!(
        refused,
        Err(DocumentError::Change(
            coffer_crdt::ChangeError::TooLarge { .. }
        ))
    ));
    assert_eq!(doc.json(), json!({"a": 1}));
    patch(&mut doc, json!({"a": 2}), A);
    assert_eq!(doc.json(), json!({"a": 2}));
}

#[test]
fn a_large_change_travels_deflated_and_is_read_back() {
    let long = "word and word. ".repeat(20_000);
    let mut doc = Document::empty();
    let change = doc
        .put(&json!({"long": long}), &Texts::none(), A, 2)
        .unwrap()
        .unwrap();
    assert!(change.bytes.len() < 20_000);
    assert_eq!(
        coffer_crdt::read_first(&change.bytes).unwrap().unwrap()["long"],
        json!(long)
    );
    assert_eq!(
        Document::load(None, [&change.bytes[..]]).unwrap().json(),
        doc.json()
    );
}

#[test]
fn a_text_too_long_for_characters_becomes_one_value() {
    let texts = Texts::none().with("/t");
    let mut doc = Document::empty();
    let long = "x".repeat(coffer_crdt::json::MAX_TEXT_CHARS + 1);
    let first = doc
        .put(&json!({"t": "short"}), &texts, A, 1)
        .unwrap()
        .unwrap();
    assert_eq!(coffer_crdt::inspect(&first.bytes).unwrap().ops, 6);
    let change = doc.put(&json!({"t": long}), &texts, A, 2).unwrap().unwrap();
    assert_eq!(coffer_crdt::inspect(&change.bytes).unwrap().ops, 1);
    assert_eq!(doc.json(), json!({"t": long}));
}
