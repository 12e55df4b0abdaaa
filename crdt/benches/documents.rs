//! What one document costs: JSON to operations, a first change built and read, a change applied, a document loaded.
//!
//! `cargo bench -p coffer-crdt --bench documents`. The contact has ten scalar fields, as an imported record does.

use std::hint::black_box;

use coffer_crdt::{Actor, Document, Texts, first_change, inspect, read_first};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};

const A: Actor = [0xaa; 16];
const B: Actor = [0xbb; 16];

fn contact() -> Value {
    json!({
        "fullname": "Ada Lovelace", "given": "Ada", "family": "Lovelace", "birthday": "1815-12-10", "company": "none",
        "email": "ada@example.org", "phone": "+44 20 7946 0000", "me": false, "rank": 12, "score": 0.5,
    })
}

fn nested() -> Value {
    let mut value = contact();
    value["address"] = json!([{"id": 1, "street": "12 St James's Square", "town": "London", "geo": {"lat": 51.5, "lon": -0.1}}]);
    value["tags"] = json!(["a", "b", "c", "d"]);
    value
}

fn note() -> String {
    "A line of a note that somebody typed on the train.\n".repeat(200)
}

fn first_changes(c: &mut Criterion) {
    let none = Texts::none();
    let (flat, deep) = (contact(), nested());
    let flat_raw = first_change(&flat, &none, A, 1).unwrap().bytes;
    let deep_raw = first_change(&deep, &none, A, 1).unwrap().bytes;
    let mut group = c.benchmark_group("first change");
    group.bench_function("build, 10 fields", |b| {
        b.iter(|| first_change(black_box(&flat), &none, A, 1).unwrap())
    });
    group.bench_function("build, nested", |b| {
        b.iter(|| first_change(black_box(&deep), &none, A, 1).unwrap())
    });
    group.bench_function("read, 10 fields", |b| {
        b.iter(|| read_first(black_box(&flat_raw)).unwrap())
    });
    group.bench_function("read, nested", |b| {
        b.iter(|| read_first(black_box(&deep_raw)).unwrap())
    });
    group.bench_function("inspect, 10 fields", |b| {
        b.iter(|| inspect(black_box(&flat_raw)).unwrap())
    });
    group.finish();
}

fn documents(c: &mut Criterion) {
    let none = Texts::none();
    let first = first_change(&nested(), &none, A, 1).unwrap().bytes;
    let doc = Document::load(None, [&first[..]]).unwrap();
    let mut edited = doc.clone();
    let edit = edited
        .merge_fields(
            &json!({"rank": 13, "tags": ["a", "c", "d", "e"]}),
            &none,
            B,
            2,
        )
        .unwrap()
        .unwrap();
    let base = edited.save();
    let mut target = doc.json();
    target["rank"] = json!(14);

    let mut group = c.benchmark_group("document");
    group.bench_function("apply its first change", |b| {
        b.iter_batched(
            Document::empty,
            |mut doc| doc.apply(black_box(&first)).unwrap(),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("apply an edit", |b| {
        b.iter_batched(
            || doc.clone(),
            |mut doc| doc.apply(black_box(&edit.bytes)).unwrap(),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("put, one field differs", |b| {
        let put = |mut doc: Document| doc.put(black_box(&target), &none, B, 3).unwrap();
        b.iter_batched(|| doc.clone(), put, BatchSize::SmallInput);
    });
    group.bench_function("put, nothing differs", |b| {
        let same = doc.json();
        b.iter_batched(
            || doc.clone(),
            |mut doc| doc.put(black_box(&same), &none, B, 3),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("json", |b| b.iter(|| black_box(&doc).json()));
    group.bench_function("load a base", |b| {
        b.iter(|| Document::load(Some(black_box(&base)), []).unwrap())
    });
    group.bench_function("load a tail of two", |b| {
        b.iter(|| Document::load(None, [black_box(&first[..]), &edit.bytes]).unwrap());
    });
    group.bench_function("copy", |b| b.iter(|| black_box(&doc).clone()));
    group.finish();
}

fn texts(c: &mut Criterion) {
    let texts = Texts::for_doctype("io.cozy.notes");
    let mut doc = Document::empty();
    doc.put(&json!({"content": note()}), &texts, A, 1).unwrap();
    let typed = json!({"content": note().replacen("train", "long train", 1)});
    let mut group = c.benchmark_group("note of 10,000 characters");
    group.bench_function("type a word", |b| {
        b.iter_batched(
            || doc.clone(),
            |mut doc| doc.put(black_box(&typed), &texts, B, 2),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("json", |b| b.iter(|| black_box(&doc).json()));
    group.bench_function("copy", |b| b.iter(|| black_box(&doc).clone()));
    group.finish();
}

criterion_group!(benches, first_changes, documents, texts);
criterion_main!(benches);
