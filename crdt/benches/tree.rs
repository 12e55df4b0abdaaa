//! The tree of 20,000 files: taking it in, changing it, asking it.

use std::hint::black_box;
use std::time::Duration;

use coffer_crdt::chunks::{ChunkList, ChunkRef, ChunkRoot};
use coffer_crdt::files::{self, Content, Dot, FileId, FileState, Kind, Place, Stamp, Trash};
use coffer_crdt::tree::Tree;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use rand::seq::SliceRandom;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

const WRITER: [u8; 16] = [7; 16];
const MS: i64 = 1_795_305_600_000;

fn id(n: u64) -> FileId {
    let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&hash.to_be_bytes());
    id[8..].copy_from_slice(&n.to_be_bytes());
    FileId(id)
}

fn place(parent: FileId, name: String, seq: u64) -> Place {
    Place::new(
        parent,
        name,
        Stamp::from_ms(MS + seq as i64),
        Dot {
            writer: WRITER,
            seq,
        },
        "laptop",
    )
}

fn folder(parent: FileId, name: String, seq: u64) -> FileState {
    FileState {
        kind: Kind::Folder,
        created_ms: MS,
        place: place(parent, name, seq),
        content: None,
        trash: None,
        also_deleted: Vec::new(),
        merged_into: None,
    }
}

fn file(parent: FileId, name: String, seq: u64) -> FileState {
    let mut list = ChunkList::default();
    let chunk = ChunkRef {
        id: [1; 32],
        frame: [2; 32],
        blob: [3; 32],
        len: 4096,
        sealed_len: 4224,
        epoch: 0,
    };
    list.push(chunk, &[9; 32]).unwrap();
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&seq.to_be_bytes());
    let place = place(parent, name, seq);
    let content = Content {
        size: 4096,
        mtime_ms: MS,
        executable: false,
        hash,
        target: None,
        root: ChunkRoot::Inline(list),
        stamp: place.stamp,
        dot: place.dot,
    };
    FileState {
        kind: Kind::File,
        created_ms: MS,
        place,
        content: Some(content),
        trash: None,
        also_deleted: Vec::new(),
        merged_into: None,
    }
}

/// 200 folders of 99 files in one folder: 20,001 nodes, each after its folder.
fn nodes() -> Vec<(FileId, FileState)> {
    let mut nodes = vec![(id(1), folder(FileId::ROOT, "top".into(), 1))];
    for n in 0..200 {
        let within = id(1_000_000 + n);
        nodes.push((within, folder(id(1), format!("folder {n:03}"), 2)));
        nodes.extend((0..99).map(|k| {
            (
                id(1_000 * (n + 1) + k),
                file(within, format!("photograph {k:04}.jpeg"), 1_000 * n + k + 3),
            )
        }));
    }
    nodes
}

fn tree(nodes: &[(FileId, FileState)]) -> Tree {
    let mut tree = Tree::new();
    nodes.iter().for_each(|(id, state)| tree.set(*id, state));
    tree.take_changed();
    tree
}

fn taking_in(c: &mut Criterion) {
    let mut group = c.benchmark_group("tree of 20,000");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(4));
    let mut nodes = nodes();
    group.bench_function("take in, folders first", |b| {
        b.iter_with_large_drop(|| tree(&nodes))
    });
    nodes.shuffle(&mut ChaCha8Rng::seed_from_u64(1));
    group.bench_function("take in, in any order", |b| {
        b.iter_with_large_drop(|| tree(&nodes))
    });
    group.finish();
}

fn changing(c: &mut Criterion) {
    let mut group = c.benchmark_group("tree of 20,000");
    let mut tree = tree(&nodes());
    let mut seq = 1_000_000;
    let mut next = || {
        seq += 1;
        seq
    };
    group.bench_function("rename the folder of all", |b| {
        b.iter(|| {
            let seq = next();
            tree.set(id(1), &folder(FileId::ROOT, format!("top {seq}"), seq));
            assert_eq!(tree.take_changed().len(), 1);
        })
    });
    group.bench_function("edit a file", |b| {
        b.iter(|| {
            tree.set(
                id(1_005),
                &file(id(1_000_000), "photograph 0005.jpeg".into(), next()),
            );
            assert_eq!(tree.take_changed().len(), 1);
        })
    });
    group.bench_function("make and break a cycle", |b| {
        b.iter(|| {
            tree.set(id(1), &folder(id(1_000_000), "top".into(), next()));
            tree.set(id(1), &folder(FileId::ROOT, "top".into(), next()));
            black_box(tree.take_changed());
        })
    });
    group.sample_size(20);
    group.bench_function("delete and restore the folder of all", |b| {
        b.iter(|| {
            let seq = next();
            let mut top = folder(FileId::ROOT, "top".into(), 1);
            let dot = Dot {
                writer: WRITER,
                seq,
            };
            top.trash = Some(Trash {
                clock: [(WRITER, seq)].into(),
                stamp: Stamp::from_ms(MS),
                dot,
            });
            tree.set(id(1), &top);
            assert_eq!(tree.take_changed().len(), 1);
            top.trash = Some(Trash::restored(Stamp::from_ms(MS), dot));
            tree.set(id(1), &top);
            assert_eq!(tree.take_changed().len(), 1);
        })
    });
    group.finish();
}

fn asking(c: &mut Criterion) {
    let mut group = c.benchmark_group("tree of 20,000");
    let tree = tree(&nodes());
    group.bench_function("path of a file", |b| {
        b.iter(|| tree.path(black_box(id(1_005))))
    });
    group.bench_function("file at a path", |b| {
        b.iter(|| tree.resolve(black_box("top/folder 000/photograph 0005.jpeg")))
    });
    group.bench_function("list a folder of 99", |b| {
        b.iter(|| tree.children(black_box(id(1_000_000))).count())
    });
    group.finish();
}

fn documents(c: &mut Criterion) {
    let mut group = c.benchmark_group("file document");
    let state = file(FileId::ROOT, "photograph 0005.jpeg".into(), 1);
    group.bench_function("first change", |b| {
        b.iter(|| files::first_change(black_box(&state), WRITER, MS).unwrap())
    });
    let change = files::first_change(&state, WRITER, MS).unwrap();
    group.bench_function("read first change", |b| {
        b.iter(|| {
            files::read_first(black_box(&change.bytes))
                .unwrap()
                .unwrap()
        })
    });
    group.bench_function("load, move, encode", |b| {
        let place = state.place.moved(
            id(1),
            "b",
            Stamp::from_ms(MS),
            Dot {
                writer: WRITER,
                seq: 2,
            },
            "laptop",
        );
        let patch = files::FilePatch {
            place: Some(place),
            ..files::FilePatch::default()
        };
        b.iter_batched(
            || (),
            |()| {
                let mut document =
                    coffer_crdt::Document::load(None, [change.bytes.as_slice()]).unwrap();
                files::edit(&mut document, &patch, WRITER, MS).unwrap()
            },
            BatchSize::SmallInput,
        )
    });
    group.finish();
}

criterion_group!(benches, taking_in, changing, asking, documents);
criterion_main!(benches);
