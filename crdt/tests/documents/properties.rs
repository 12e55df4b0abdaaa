//! Any documents, in any order: what is put reads back, and replicas converge.

use coffer_crdt::{Applied, Document, NewChange, Texts};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

use super::{A, B, C};

/// Any JSON value of moderate size.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e6..1e6f64).prop_map(Value::from),
        "[a-c]{0,3}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(any_key(), inner, 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-e]", 1 => "[^_].{0,6}", 1 => Just("id".to_owned()), 1 => Just(String::new())]
}

fn any_document() -> impl Strategy<Value = Value> {
    prop::collection::btree_map(any_key(), any_json(), 0..6)
        .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>()))
}

fn some_texts() -> Texts {
    Texts::none().with("/a").with("/b/c").with("/c/*")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_json_put_over_any_other_reads_back(values in prop::collection::vec(any_document(), 1..5)) {
        let mut doc = Document::empty();
        for value in &values {
            doc.put(value, &some_texts(), A, 1).unwrap();
            prop_assert_eq!(&doc.json(), value);
            prop_assert_eq!(doc.put(value, &some_texts(), A, 1).unwrap(), None);
        }
        let loaded = Document::load(Some(&doc.save()), []).unwrap();
        prop_assert_eq!(&loaded.json(), values.last().unwrap());
    }

    #[test]
    fn a_first_change_reads_the_same_fast_and_loaded(value in any_document()) {
        let change = coffer_crdt::first_change(&value, &some_texts(), B, 77).unwrap();
        prop_assert_eq!(coffer_crdt::read_first(&change.bytes).unwrap(), Some(value.clone()));
        let loaded = Document::load(None, [&change.bytes[..]]).unwrap();
        prop_assert_eq!(loaded.json(), value);
        prop_assert_eq!(loaded.heads(), vec![change.hash]);
    }

    #[test]
    fn three_replicas_converge_whatever_the_order(
        steps in prop::collection::vec((0usize..3, 0u8..6, any_document()), 1..12),
        order in any::<u64>(),
    ) {
        let actors = [A, B, C];
        let mut replicas = [Document::empty(), Document::empty(), Document::empty()];
        let mut changes: Vec<NewChange> = Vec::new();
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(order);
        for (who, what, value) in steps {
            let doc = &mut replicas[who];
            let made = match what {
                0 => Some(doc.delete(actors[who], 1).unwrap()),
                1..=2 => {
                    let one = &changes.get(rng.random_range(0..changes.len().max(1)));
                    one.map(|change| doc.apply(&change.bytes).unwrap());
                    None
                }
                3 => {
                    doc.put(&value, &some_texts(), actors[who], 2).unwrap()
                }
                _ => doc.merge_fields(&value, &some_texts(), actors[who], 3).unwrap(),
            };
            changes.extend(made);
        }
        for doc in &mut replicas {
            let mut waiting: Vec<&NewChange> = changes.iter().collect();
            while !waiting.is_empty() {
                let next = waiting.swap_remove(rng.random_range(0..waiting.len()));
                if let Applied::Missing(_) = doc.apply(&next.bytes).unwrap() {
                    waiting.push(next);
                }
            }
        }
        for other in &replicas[1..] {
            prop_assert_eq!(replicas[0].json(), other.json());
            prop_assert_eq!(replicas[0].heads(), other.heads());
            prop_assert_eq!(replicas[0].is_deleted(), other.is_deleted());
            prop_assert_eq!(replicas[0].conflicts(), other.conflicts());
        }
        let reloaded = Document::load(None, changes.iter().map(|change| &change.bytes[..])).unwrap();
        prop_assert_eq!(reloaded.json(), replicas[0].json());
        // Whatever concurrency left behind: a put makes it read as it says, and overwriting a field resolves it.
        let settled = json!({"settled": {"a": [1]}, "a": "text"});
        replicas[0].put(&settled, &some_texts(), A, 9).unwrap();
        prop_assert_eq!(replicas[0].json(), settled.clone());
        replicas[0].put(&json!({}), &some_texts(), A, 9).unwrap();
        replicas[0].put(&settled, &some_texts(), A, 9).unwrap();
        prop_assert_eq!(replicas[0].json(), settled);
        prop_assert!(replicas[0].conflicts().is_empty());
    }
}
