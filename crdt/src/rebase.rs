//! Writing a document that was made from an earlier state, without undoing what came since.
//!
//! A caller reads a document, thinks, and writes it back whole; meanwhile others changed it. What the caller *did* is
//! the difference to the state that it had read, so that difference is carried over to the present state, by the rules
//! that hold between devices: different fields both count, of two values for one field the one that is written now is
//! shown (the other stays in the history), what one side removed and the other changed stays, insertions into a list
//! or text all stay. The result is then written like any other [`Document::put`].

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::change::{Actor, ChangeHash, NewChange};
use crate::diff::{Numbering, hunks, text_edits};
use crate::document::{Document, DocumentError};
use crate::json::{Texts, checked, merge_patch};
use crate::read::Node;
use crate::write::{identity, stays};

impl Document {
    /// As [`Document::put`], for a value that was made from the state at `base`: only what differs from that state is
    /// written. `None` when nothing does, or all of it is there already.
    ///
    /// # Errors
    /// `UnknownChange` when `base` names a change that the document has not; else as for [`Document::put`].
    pub fn put_since(
        &mut self,
        base: &[ChangeHash],
        value: &Value,
        texts: &Texts,
        actor: Actor,
        time_ms: i64,
    ) -> Result<Option<NewChange>, DocumentError> {
        let wanted = checked(value)?;
        let read = self.json_at(base)?;
        if self.stands_at(base) {
            return self.put(value, texts, actor, time_ms);
        }
        if read == *value && !self.was_deleted(base) {
            return Ok(None);
        }
        let read = read.as_object().cloned().unwrap_or_default();
        let target = fields(&read, wanted, &self.nodes()?);
        self.put(&Value::Object(target), texts, actor, time_ms)
    }

    /// As [`Document::merge_fields`], for a patch that was made from the state at `base`. It differs from a patch of the
    /// present state where the patch holds a text or a list.
    ///
    /// # Errors
    /// As for [`Document::put_since`].
    pub fn merge_fields_since(
        &mut self,
        base: &[ChangeHash],
        patch: &Value,
        texts: &Texts,
        actor: Actor,
        time_ms: i64,
    ) -> Result<Option<NewChange>, DocumentError> {
        let patch = checked(patch)?;
        let read = self.json_at(base)?;
        let mut wanted = match (self.was_deleted(base), read) {
            (false, Value::Object(read)) => read,
            _ => Map::new(),
        };
        merge_patch(&mut wanted, patch);
        self.put_since(base, &Value::Object(wanted), texts, actor, time_ms)
    }

    fn stands_at(&self, base: &[ChangeHash]) -> bool {
        self.heads().into_iter().collect::<BTreeSet<_>>() == base.iter().copied().collect()
    }
}

/// What an object is that read as `base`, was changed to `wanted`, and reads as `present` by now.
fn fields(
    base: &Map<String, Value>,
    wanted: &Map<String, Value>,
    present: &BTreeMap<String, Node>,
) -> Map<String, Value> {
    let keys: BTreeSet<&String> = wanted.keys().chain(present.keys()).collect();
    let field = |key: &String| {
        let (base, wanted, present) = (base.get(key), wanted.get(key), present.get(key));
        if wanted == base {
            return present.map(Node::to_json);
        }
        match (wanted, present) {
            (Some(wanted), Some(present)) => Some(place(base, wanted, present)),
            (Some(wanted), None) => Some(wanted.clone()),
            // Removed by the caller: unless somebody changed it, which the caller had not seen.
            (None, Some(present)) => Some(present.to_json()).filter(|now| Some(now) != base),
            (None, None) => None,
        }
    };
    keys.into_iter()
        .filter_map(|key| Some((key.clone(), field(key)?)))
        .collect()
}

/// What a place holds; the caller changed it.
fn place(base: Option<&Value>, wanted: &Value, present: &Node) -> Value {
    let nothing = Map::new();
    match (base, wanted, present) {
        (base, Value::Object(wanted), Node::Map { fields: now, .. }) => {
            let base = base.and_then(Value::as_object).unwrap_or(&nothing);
            Value::Object(fields(base, wanted, now))
        }
        (Some(Value::Array(base)), Value::Array(wanted), Node::List { items: now, .. }) => {
            Value::Array(list(base, wanted, now))
        }
        (Some(Value::String(base)), Value::String(wanted), Node::Text { text: now, .. }) => {
            Value::String(text(base, wanted, now))
        }
        _ => wanted.clone(),
    }
}

/// One text after two edits of `base` that knew nothing of each other.
fn text(base: &str, wanted: &str, present: &str) -> String {
    let base_chars: Vec<char> = base.chars().collect();
    let mut removed = vec![false; base_chars.len()];
    let mut inserted: Vec<Vec<(usize, String)>> = vec![Vec::new(); base_chars.len() + 1];
    for after in [present, wanted] {
        for edit in text_edits(base, after) {
            removed[edit.at..edit.at + edit.delete].fill(true);
            let one = (edit.delete, edit.insert);
            // The same edit on both sides is one.
            if !inserted[edit.at].contains(&one) {
                inserted[edit.at].push(one);
            }
        }
    }
    let mut out = String::with_capacity(present.len().max(wanted.len()));
    for (at, inserted) in inserted.iter().enumerate() {
        out.extend(inserted.iter().map(|(_, text)| text.as_str()));
        if removed.get(at) == Some(&false) {
            out.push(base_chars[at]);
        }
    }
    out
}

/// One list after two edits of `base` that knew nothing of each other.
fn list(base: &[Value], wanted: &[Value], present: &[Node]) -> Vec<Value> {
    let now: Vec<Value> = present.iter().map(Node::to_json).collect();
    let (theirs, ours) = (Alignment::of(base, &now), Alignment::of(base, wanted));
    let mut out = Vec::with_capacity(now.len().max(wanted.len()));
    for at in 0..=base.len() {
        let added = &now[theirs.inserted[at].clone()];
        out.extend_from_slice(added);
        let own = &wanted[ours.inserted[at].clone()];
        if own != added {
            out.extend_from_slice(own);
        }
        let Some(was) = base.get(at) else { break };
        match (ours.stands[at], theirs.stands[at]) {
            (Some(own), Some(other)) if wanted[own] == *was => out.push(now[other].clone()),
            (Some(own), Some(other)) => {
                out.push(place(Some(was), &wanted[own], &present[other]));
            }
            // Removed on one side: it stays if the other changed it.
            (Some(own), None) if wanted[own] != *was => out.push(wanted[own].clone()),
            (None, Some(other)) if now[other] != *was => out.push(now[other].clone()),
            _ => {}
        }
    }
    out
}

/// Where the items of a list stand in a later one.
struct Alignment {
    /// For each item, its index there, unless it was removed.
    stands: Vec<Option<usize>>,
    /// For each item, and for the end, what was inserted right before it.
    inserted: Vec<std::ops::Range<usize>>,
}

impl Alignment {
    fn of(old: &[Value], new: &[Value]) -> Alignment {
        let mut numbering = Numbering::default();
        let mut number = |items: &[Value]| -> Vec<u32> {
            let identities = items.iter().map(identity);
            identities.map(|item| numbering.number(item)).collect()
        };
        let (old_ids, new_ids) = (number(old), number(new));
        let mut stands = vec![None; old.len()];
        let mut inserted = vec![0..0; old.len() + 1];
        let (mut old_at, mut new_at) = (0, 0);
        for hunk in hunks(&old_ids, &new_ids) {
            for (stands, at) in stands[old_at..hunk.old.start].iter_mut().zip(new_at..) {
                *stands = Some(at);
            }
            let paired = hunk
                .old
                .clone()
                .zip(hunk.new.clone())
                .take_while(|(a, b)| stays(&old[*a], &new[*b]))
                .count();
            for (a, b) in hunk.old.clone().zip(hunk.new.clone()).take(paired) {
                stands[a] = Some(b);
            }
            inserted[hunk.old.start + paired] = hunk.new.start + paired..hunk.new.end;
            (old_at, new_at) = (hunk.old.end, hunk.new.end);
        }
        for (stands, at) in stands[old_at..].iter_mut().zip(new_at..) {
            *stands = Some(at);
        }
        Alignment { stands, inserted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const A: Actor = [0xaa; 16];
    const B: Actor = [0xbb; 16];

    fn texts() -> Texts {
        Texts::none().with("/text").with("/list/*")
    }

    /// What a document reads as that read as `base`, was changed to `meanwhile`, and then put as `wanted` since `base`.
    fn after(base: &Value, meanwhile: &Value, wanted: &Value) -> Value {
        let mut document = Document::empty();
        document.put(base, &texts(), A, 1).unwrap();
        let read = document.heads();
        document.put(meanwhile, &texts(), B, 2).unwrap();
        document.put_since(&read, wanted, &texts(), A, 3).unwrap();
        let loaded = Document::load(Some(&document.save()), []).unwrap();
        assert_eq!(loaded.json(), document.json());
        document.json()
    }

    #[test]
    fn an_old_copy_put_back_undoes_nothing() {
        let base = json!({ "name": "Ana", "phone": "1", "gone": 1, "deep": { "a": 1 } });
        let meanwhile = json!({ "name": "Ana", "phone": "2", "deep": { "a": 2, "new": true } });
        assert_eq!(after(&base, &meanwhile, &base), meanwhile);
        let mut wanted = base.clone();
        wanted["city"] = json!("Porto");
        let mut expected = meanwhile.clone();
        expected["city"] = json!("Porto");
        assert_eq!(after(&base, &meanwhile, &wanted), expected);
    }

    #[test]
    fn of_two_values_the_one_written_now_is_shown_and_the_other_stays_in_the_history() {
        let [base, other, own] = ["1", "2", "3"].map(|phone| json!({ "phone": phone }));
        let mut document = Document::empty();
        document.put(&base, &texts(), A, 1).unwrap();
        let read = document.heads();
        document.put(&other, &texts(), B, 2).unwrap();
        let came = document.heads();
        let made = document.put_since(&read, &own, &texts(), A, 3).unwrap();
        assert_eq!(document.json(), own);
        assert_eq!(document.json_at(&came).unwrap(), other);
        assert_eq!(document.heads(), [made.unwrap().hash]);
    }

    #[test]
    fn what_one_side_removed_and_the_other_changed_stays() {
        let base = json!({ "a": 1, "b": 1, "c": 1 });
        let meanwhile = json!({ "a": 2, "c": 1 });
        let wanted = json!({ "b": 2 });
        assert_eq!(after(&base, &meanwhile, &wanted), json!({ "a": 2, "b": 2 }));
    }

    #[test]
    fn texts_and_lists_keep_what_both_put_in() {
        let base = json!({ "text": "The fox jumps.", "list": [1, { "id": "x", "n": 1 }, "end"] });
        let meanwhile = json!({ "text": "The quick fox jumps.", "list": [0, 1, { "id": "x", "n": 1, "m": 2 }, "end"] });
        let wanted = json!({ "text": "The fox jumps high.", "list": [1, { "id": "x", "n": 5 }, "end", "more"] });
        let expected = json!({
            "text": "The quick fox jumps high.",
            "list": [0, 1, { "id": "x", "n": 5, "m": 2 }, "end", "more"],
        });
        assert_eq!(after(&base, &meanwhile, &wanted), expected);
    }

    #[test]
    fn an_edit_made_from_an_earlier_state_keeps_what_was_typed_meanwhile() {
        let mut document = Document::empty();
        let put = |document: &mut Document, text: &str| {
            let value = json!({ "text": text, "n": 1 });
            document.put(&value, &texts(), B, 2).unwrap();
        };
        put(&mut document, "one\ntwo\n");
        let read = document.heads();
        put(&mut document, "zero\none\ntwo\n");
        let patch = json!({ "text": "one\ntwo\nthree\n", "n": null });
        let made = document.merge_fields_since(&read, &patch, &texts(), A, 3);
        assert!(made.unwrap().is_some());
        assert_eq!(
            document.json(),
            json!({ "text": "zero\none\ntwo\nthree\n" })
        );
    }

    #[test]
    fn a_state_that_the_document_never_had_is_refused() {
        let mut document = Document::empty();
        document.put(&json!({}), &texts(), A, 1).unwrap();
        let unknown = ChangeHash([7; 32]);
        assert_eq!(
            document.put_since(&[unknown], &json!({ "n": 1 }), &texts(), A, 2),
            Err(DocumentError::UnknownChange(unknown))
        );
    }

    #[test]
    fn a_deletion_that_came_meanwhile_yields_to_a_change_and_to_nothing_else() {
        let base = json!({ "n": 1 });
        let mut document = Document::empty();
        document.put(&base, &texts(), A, 1).unwrap();
        let read = document.heads();
        document.delete(B, 2).unwrap();
        let made = document.put_since(&read, &base, &texts(), A, 3).unwrap();
        assert!(made.is_none() && document.is_deleted());
        let value = json!({ "n": 2 });
        document.put_since(&read, &value, &texts(), A, 4).unwrap();
        assert!(!document.is_deleted());
        assert_eq!(document.json(), value);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let list = prop::collection::vec(
            prop_oneof![
                (0..3).prop_map(|n| json!(n)),
                "[ab]{0,2}".prop_map(|text| json!(text)),
                (0..2, 0..3).prop_map(|(id, n)| json!({ "id": id, "n": n })),
                (0..3).prop_map(|n| json!({ "n": n })),
            ],
            0..5,
        );
        (
            "[ab\n]{0,8}",
            list,
            prop::collection::btree_map("[xy]", 0..3, 0..3),
        )
            .prop_map(|(text, list, map)| json!({ "text": text, "list": list, "map": map }))
    }

    proptest! {
        #[test]
        fn a_put_since_a_state_that_nobody_changed_is_a_put(base in any_value(), wanted in any_value()) {
            prop_assert_eq!(after(&base, &base, &wanted), wanted);
        }

        #[test]
        fn an_unchanged_copy_changes_nothing(base in any_value(), meanwhile in any_value()) {
            prop_assert_eq!(after(&base, &meanwhile, &base), meanwhile);
        }

        #[test]
        fn the_same_change_on_both_sides_is_made_once(base in any_value(), wanted in any_value()) {
            prop_assert_eq!(after(&base, &wanted, &wanted), wanted);
        }

        #[test]
        fn what_either_side_typed_is_there(base in "[ab]{0,9}", one in "[cd]{1,3}", other in "[ef]{1,3}", at in (0usize..9, 0usize..9)) {
            let typed = |text: &str, at: usize| {
                let at = at.min(base.len());
                format!("{}{text}{}", &base[..at], &base[at..])
            };
            let merged = text(&base, &typed(&one, at.0), &typed(&other, at.1));
            prop_assert_eq!(merged.len(), base.len() + one.len() + other.len());
            prop_assert!(merged.contains(&one) && merged.contains(&other), "{}", merged);
        }
    }
}
