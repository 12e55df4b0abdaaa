//! What bytes from elsewhere can do: be refused.

use automerge::Change;
use coffer_crdt::change::{MAX_CHANGE, MAX_EXPANDED, MAX_OPS};
use coffer_crdt::{
    Actor, Applied, ChangeError, Document, ScalarValue, Texts, first_change, first_change_scalars,
    inspect, read_first, read_first_scalars,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const A: Actor = [0xaa; 16];
const B: Actor = [0xbb; 16];

fn contact() -> Value {
    json!({"fullname": "Ada Lovelace", "email": [{"address": "ada@example.org"}], "born": 1815, "me": false, "note": "x"})
}

/// The checksum of an uncompressed chunk made right again, so that what is behind it gets tested.
fn with_checksum(mut raw: Vec<u8>) -> Vec<u8> {
    let silent =
        std::panic::catch_unwind(|| Change::try_from(&raw[..]).map(|change| change.hash()));
    if let Ok(Ok(hash)) = silent {
        raw[4..8].copy_from_slice(&hash.0[..4]);
    }
    raw
}

fn try_everything(raw: &[u8]) {
    let info = inspect(raw);
    if info.is_ok_and(|info| info.deps.is_empty()) {
        let alone =
            Document::load(None, [raw]).expect("an inspected change without dependencies loads");
        alone.save_proven().expect("and its base too");
        if let Ok(Some(value)) = read_first(raw) {
            assert_eq!(alone.json(), value);
        }
    }
    let _ = read_first(raw);
    let _ = read_first_scalars(raw);
    let _ = Document::load(Some(raw), []);
    let _ = Document::load(None, [raw]);
    let mut doc = Document::empty();
    let first = first_change(&contact(), &Texts::none().with("/note"), A, 1).unwrap();
    doc.apply(&first.bytes).unwrap();
    let before = doc.json();
    match doc.apply(raw) {
        Ok(Applied::Done) => {
            // What was let in must not spoil what is saved.
            let saved = Document::load(Some(&doc.save()), []).expect("a saved document loads");
            assert_eq!(saved.json(), doc.json());
            assert_eq!(saved.heads(), doc.heads());
            let _ = (doc.json(), doc.history(), doc.conflicts(), doc.is_deleted());
            let _ = doc.put(&json!({"fresh": 1}), &Texts::none(), B, 2);
        }
        _ => {
            assert_eq!(doc.json(), before);
            doc.put(&json!({"fresh": 1}), &Texts::none(), B, 2).unwrap();
            assert_eq!(doc.json(), json!({"fresh": 1}));
        }
    }
}

#[test]
fn a_first_change_has_these_bytes() {
    // Frozen: what has been written to logs must be read for ever, and the same document must keep its hash.
    let value = json!({"name": "Ada", "age": 36, "tags": ["x", 1.5], "m": {"k": null, "ok": true}, "t": "hi"});
    let change = first_change(&value, &Texts::none().with("/t"), A, 1_700_000_000_123).unwrap();
    assert_eq!(change.hash.to_string(), FROZEN_HASH);
    assert_eq!(hex::encode(&change.bytes), FROZEN_BYTES);
    let raw = hex::decode(FROZEN_BYTES).unwrap();
    assert_eq!(read_first(&raw).unwrap(), Some(value.clone()));
    assert_eq!(Document::load(None, [&raw[..]]).unwrap().json(), value);
    let info = inspect(&raw).unwrap();
    assert_eq!(
        (info.actor, info.seq, info.start_op, info.max_op),
        (A, 1, 1, 11)
    );
    assert_eq!(
        (info.time_ms, info.ops, info.message),
        (1_700_000_000_123, 11, None)
    );
}

const FROZEN_HASH: &str = "31c19b76b29dff40ac1c760818dec61c0bc225f0e41b714b555d8ac7eee81727";
const FROZEN_BYTES: &str = concat!(
    "856f4a8331c19b7601a9010010aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa0101fbd095ffbc3100000a010c020c1108130a",
    "151d3404420d560f570f700200020200000202000001020000020202000202060001020900077f0000027f0000067e00",
    "0700017e790a7a03616765016d016b026f6b046e616d65017400027f04746167730002060201027e010003017f040201",
    "7f0202017f1402007d02360002167d0016850124416461686978000000000000f83f0b00",
);

#[test]
fn automerge_makes_the_same_first_change_itself() {
    use automerge::transaction::{CommitOptions, Transactable};
    use automerge::{ActorId, Automerge, ObjType, ROOT, ReadDoc};
    let value = json!({"a": 1, "l": [1, "x"], "m": {"k": null}, "t": "hé", "z": u64::MAX});
    let fast = first_change(&value, &Texts::none().with("/t"), A, 9).unwrap();
    let mut doc = Automerge::new().with_actor(ActorId::from(A));
    let mut tx = doc.transaction();
    tx.put(ROOT, "a", 1).unwrap();
    let list = tx.put_object(ROOT, "l", ObjType::List).unwrap();
    tx.insert(&list, 0, 1).unwrap();
    tx.insert(&list, 1, "x").unwrap();
    let map = tx.put_object(ROOT, "m", ObjType::Map).unwrap();
    tx.put(&map, "k", ()).unwrap();
    let text = tx.put_object(ROOT, "t", ObjType::Text).unwrap();
    tx.splice_text(&text, 0, 0, "hé").unwrap();
    tx.put(ROOT, "z", u64::MAX).unwrap();
    let (hash, _) = tx.commit_with(CommitOptions::default().with_time(9));
    let change = doc.get_change_by_hash(&hash.unwrap()).unwrap();
    assert_eq!(change.raw_bytes(), &fast.bytes[..]);
    assert_eq!(change.hash().0, fast.hash.0);
}

#[test]
fn plain_automerge_loads_a_first_change_to_the_same_hash_and_values() {
    use automerge::ReadDoc;
    let change = first_change(&contact(), &Texts::none(), A, 1).unwrap();
    let doc = automerge::Automerge::load(&change.bytes).unwrap();
    assert_eq!(doc.get_heads()[0].0, change.hash.0);
    let read = serde_json::to_value(automerge::AutoSerde::from(&doc)).unwrap();
    assert_eq!(read, contact());
    assert_eq!(doc.stats().num_changes, 1);
}

#[test]
fn scalars_of_a_first_change_read_back_with_bytes() {
    let fields = [
        ("type", "file".into()),
        ("place", ScalarValue::Bytes(vec![0, 255, 7])),
        ("at", ScalarValue::Int(-1)),
    ];
    let change = first_change_scalars(&fields, A, 3).unwrap();
    let read = read_first_scalars(&change.bytes).unwrap().unwrap();
    let mut expected: Vec<_> = fields
        .iter()
        .map(|(key, value)| (key.to_string(), value.clone()))
        .collect();
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(read, expected);
    let doc = Document::load(None, [&change.bytes[..]]).unwrap();
    assert_eq!(
        doc.get_all_scalars("place"),
        vec![ScalarValue::Bytes(vec![0, 255, 7])]
    );
    assert_eq!(doc.heads(), vec![change.hash]);
}

#[test]
fn an_empty_document_is_a_change_too() {
    let change = first_change(&json!({}), &Texts::none(), A, 3).unwrap();
    assert_eq!(inspect(&change.bytes).unwrap().max_op, 0);
    assert_eq!(read_first(&change.bytes).unwrap(), Some(json!({})));
    let mut doc = Document::load(None, [&change.bytes[..]]).unwrap();
    assert_eq!(doc.json(), json!({}));
    assert!(!doc.is_deleted() && !doc.is_empty());
    doc.put(&json!({"a": 1}), &Texts::none(), A, 4).unwrap();
    assert_eq!(
        Document::load(Some(&doc.save()), []).unwrap().json(),
        json!({"a": 1})
    );
}

#[test]
fn what_is_no_first_change_is_left_to_a_full_load() {
    let mut doc = Document::empty();
    doc.put(&json!({"a": 1}), &Texts::none(), A, 1).unwrap();
    let second = doc
        .put(&json!({"a": 2}), &Texts::none(), A, 2)
        .unwrap()
        .unwrap();
    assert_eq!(read_first(&second.bytes).unwrap(), None);
    let gone = Document::empty().delete(A, 1).unwrap();
    assert_eq!(read_first(&gone.bytes).unwrap(), None);
    assert_eq!(read_first_scalars(&gone.bytes).unwrap(), None);
    let nested = first_change(&json!({"a": {}}), &Texts::none(), A, 1).unwrap();
    assert_eq!(read_first_scalars(&nested.bytes).unwrap(), None);
}

#[test]
fn a_wrong_checksum_is_refused() {
    let mut raw = first_change(&contact(), &Texts::none(), A, 1)
        .unwrap()
        .bytes;
    raw[5] ^= 1;
    assert_eq!(inspect(&raw), Err(ChangeError::Checksum));
}

#[test]
fn a_base_or_a_cut_or_longer_change_is_no_change() {
    let change = first_change(&contact(), &Texts::none(), A, 1).unwrap();
    let base = Document::load(None, [&change.bytes[..]]).unwrap().save();
    assert!(inspect(&base).is_err());
    assert!(inspect(&change.bytes[..change.bytes.len() - 1]).is_err());
    let longer: Vec<u8> = change.bytes.iter().copied().chain([0]).collect();
    assert!(inspect(&longer).is_err());
    assert!(inspect(&[]).is_err());
    assert_eq!(
        inspect(&vec![0; MAX_CHANGE + 1]),
        Err(ChangeError::TooLarge { limit: MAX_CHANGE })
    );
}

/// A chunk of the given kind around a body, with an arbitrary checksum.
fn chunk(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut raw = vec![0x85, 0x6f, 0x4a, 0x83, 1, 2, 3, 4, kind];
    let mut len = body.len();
    while len >= 0x80 {
        raw.push(len as u8 | 0x80);
        len >>= 7;
    }
    raw.push(len as u8);
    raw.extend_from_slice(body);
    raw
}

/// The body of a change whose action and predecessor-count columns are given.
fn body(action: &[u8], preds: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 16];
    body.extend_from_slice(&A);
    body.extend_from_slice(&[
        1,
        1,
        0,
        0,
        0,
        2,
        0x42,
        action.len() as u8,
        0x70,
        preds.len() as u8,
    ]);
    body.extend_from_slice(action);
    body.extend_from_slice(preds);
    body
}

#[test]
fn a_few_bytes_that_claim_endless_operations_are_refused_at_once() {
    let endless = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 1];
    assert_eq!(
        inspect(&chunk(1, &body(&endless, &[]))),
        Err(ChangeError::TooManyOperations)
    );
    let many_preds = [1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f];
    assert_eq!(
        inspect(&chunk(1, &body(&[1, 1], &many_preds))),
        Err(ChangeError::TooManyOperations)
    );
    let null_run = [0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f];
    assert_eq!(
        inspect(&chunk(1, &body(&null_run, &[]))),
        Err(ChangeError::TooManyOperations)
    );
    const { assert!(MAX_OPS < 1 << 20) };
}

#[test]
fn a_small_chunk_that_inflates_without_end_is_refused() {
    use std::io::Read;
    let mut deflated = Vec::new();
    let zeros = std::io::repeat(0).take(MAX_EXPANDED as u64 + 1);
    flate2::read::DeflateEncoder::new(zeros, flate2::Compression::fast())
        .read_to_end(&mut deflated)
        .unwrap();
    assert!(deflated.len() < MAX_CHANGE);
    assert_eq!(
        inspect(&chunk(2, &deflated)),
        Err(ChangeError::TooLarge {
            limit: MAX_EXPANDED
        })
    );
}

#[test]
fn a_damaged_change_is_named_while_loading_so_that_the_rest_can_be_kept() {
    let mut doc = Document::empty();
    let first = doc.put(&contact(), &Texts::none(), A, 1).unwrap().unwrap();
    // Number 3 of an actor whose numbers 1 and 2 nobody has.
    let mut expanded = Change::try_from(&first.bytes[..]).unwrap().decode();
    expanded.actor_id = automerge::ActorId::from(B);
    expanded.seq = 3;
    let stray = Change::from(expanded);
    let loaded = Document::load(None, [&first.bytes[..], stray.raw_bytes()]);
    assert!(
        matches!(&loaded, Err(coffer_crdt::DocumentError::BadChange { hash, .. }) if hash.0 == stray.hash().0),
        "{loaded:?}"
    );
}

#[test]
fn a_foreign_document_nested_without_end_is_read_to_a_depth() {
    use automerge::transaction::Transactable;
    use automerge::{Automerge, ObjType, ROOT, ReadDoc};
    let mut doc = Automerge::new().with_actor(automerge::ActorId::from(A));
    let mut tx = doc.transaction();
    let mut inner = tx.put_object(ROOT, "d", ObjType::Map).unwrap();
    for _ in 0..20_000 {
        inner = tx.put_object(&inner, "d", ObjType::Map).unwrap();
    }
    let (hash, _) = tx.commit();
    let mut change = doc.get_change_by_hash(&hash.unwrap()).unwrap();
    let raw = change.bytes().into_owned();
    let mut doc = Document::load(None, [&raw[..]]).unwrap();
    assert!(doc.json()["d"]["d"].is_object());
    assert_eq!(read_first(&raw).unwrap(), None);
    doc.put(&json!({"flat": 1}), &Texts::none(), B, 2).unwrap();
    assert_eq!(doc.json(), json!({"flat": 1}));
}

/// A well-formed change whose operations make no sense.
fn senseless_change() -> impl Strategy<Value = Vec<u8>> {
    use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId, OpType};
    let actor = |mine: bool| automerge::ActorId::from(if mine { B } else { A });
    let id = move || {
        (1u64..24, any::<bool>()).prop_map(move |(counter, mine)| OpId::new(counter, &actor(mine)))
    };
    let obj = move || prop_oneof![1 => Just(ObjectId::Root), 2 => id().prop_map(ObjectId::Id)];
    let key = move || {
        prop_oneof![
            "[a-c]|note|email".prop_map(|key| Key::from(&key)),
            Just(Key::Seq(ElementId::Head)),
            id().prop_map(|id| Key::Seq(ElementId::Id(id))),
        ]
    };
    let action = prop_oneof![
        3 => Just(OpType::Put(ScalarValue::Int(1))),
        2 => Just(OpType::Put(ScalarValue::from("x"))),
        1 => Just(OpType::Put(ScalarValue::counter(3))),
        2 => prop_oneof![
            Just(automerge::ObjType::Map), Just(automerge::ObjType::List), Just(automerge::ObjType::Text),
            Just(automerge::ObjType::Table),
        ].prop_map(OpType::Make),
        2 => Just(OpType::Delete),
        1 => Just(OpType::Increment(2)),
        1 => any::<bool>().prop_map(OpType::MarkEnd),
    ];
    let op = (
        action,
        obj(),
        key(),
        prop::collection::vec(id(), 0..3),
        any::<bool>(),
    )
        .prop_map(|(action, obj, key, pred, insert)| Op {
            action,
            obj,
            key,
            pred: pred.into(),
            insert,
        });
    let first = first_change(&contact(), &Texts::none().with("/note"), A, 1).unwrap();
    let first_ops = inspect(&first.bytes).unwrap().max_op;
    (
        prop::collection::vec(op, 0..6),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_filter_map(
            "Automerge cannot encode it",
            move |(operations, depends, mine)| {
                let (seq, start_op) = if depends {
                    (1 + u64::from(!mine), first_ops + 1)
                } else {
                    (1, 1)
                };
                let change = automerge::ExpandedChange {
                    operations,
                    actor_id: actor(mine),
                    hash: None,
                    seq,
                    start_op: std::num::NonZeroU64::new(start_op)?,
                    time: 0,
                    message: None,
                    deps: depends
                        .then_some(automerge::ChangeHash(first.hash.0))
                        .into_iter()
                        .collect(),
                    extra_bytes: Vec::new(),
                    author: None,
                };
                std::panic::catch_unwind(move || Change::from(change).raw_bytes().to_vec()).ok()
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn senseless_operations_never_panic(raw in senseless_change()) {
        try_everything(&raw);
    }

    #[test]
    fn random_bytes_never_panic(raw in prop::collection::vec(any::<u8>(), 0..200)) {
        try_everything(&raw);
    }

    #[test]
    fn random_bytes_in_a_change_chunk_never_panic(kind in 0u8..4, body in prop::collection::vec(any::<u8>(), 0..200)) {
        try_everything(&chunk(kind, &body));
    }

    #[test]
    fn a_change_with_some_bytes_changed_never_panics(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        nested in any::<bool>(),
    ) {
        let texts = Texts::none().with("/note");
        let value = if nested { contact() } else { json!({"a": 1, "b": "x", "c": true, "d": 1.5}) };
        let mut raw = first_change(&value, &texts, B, 1).unwrap().bytes;
        for (at, byte) in &edits {
            let at = 10 + at.index(raw.len() - 10);
            raw[at] = *byte;
        }
        try_everything(&with_checksum(raw));
    }

    #[test]
    fn a_later_change_with_some_bytes_changed_never_panics(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let texts = Texts::none().with("/note");
        let mut doc = Document::empty();
        let first = first_change(&contact(), &texts, A, 1).unwrap();
        doc.apply(&first.bytes).unwrap();
        let new = json!({"email": [{"address": "other"}, 2], "born": null, "note": "xyz", "more": {"k": [1]}});
        let mut raw = doc.put(&new, &texts, B, 2).unwrap().unwrap().bytes;
        for (at, byte) in &edits {
            let at = 10 + at.index(raw.len() - 10);
            raw[at] = *byte;
        }
        try_everything(&with_checksum(raw));
    }

    #[test]
    fn a_saved_base_with_some_bytes_changed_never_panics(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let first = first_change(&contact(), &Texts::none().with("/note"), A, 1).unwrap();
        let mut base = Document::load(None, [&first.bytes[..]]).unwrap().save();
        for (at, byte) in &edits {
            let at = at.index(base.len());
            base[at] = *byte;
        }
        if let Ok(doc) = Document::load(Some(&base), []) {
            let _ = (doc.json(), doc.history());
        }
    }
}
