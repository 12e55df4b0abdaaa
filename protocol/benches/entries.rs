//! The entry codec: what one edit, and what a batch of an import, costs on its way into a log and
//! out of it on another device.

use std::hint::black_box;

use coffer_protocol::identity::{DeviceKey, Hash, SpaceId, VaultId, WriterId};
use coffer_protocol::keys::EpochKey;
use coffer_protocol::log::{Body, Change, Clock, Entry, EntryParams, open_entry, seal_entry};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;

/// Changes of some 250 bytes, half of them noise, as first changes of small documents are.
fn body(changes: usize, writer: WriterId) -> Body {
    let mut rng = ChaCha12Rng::seed_from_u64(1);
    let change = |n: usize| {
        let mut bytes = b"io.cozy.contacts fields of a small document ".repeat(3);
        let noise = bytes.len();
        bytes.resize(noise + 120, 0);
        rng.fill_bytes(&mut bytes[noise..]);
        Change {
            doctype: "io.cozy.contacts".into(),
            id: format!("{n:032x}"),
            bytes,
        }
    };
    Body {
        clock: Clock::from_iter([(writer, (1, Hash([7; 32])))]),
        changes: (0..changes).map(change).collect(),
    }
}

fn entries(c: &mut Criterion) {
    let key = DeviceKey::from_secret([1; 32]);
    let epoch = EpochKey::from_secret(&[2; 32]);
    let vault = VaultId([3; 32]);
    let params = EntryParams {
        vault,
        space: SpaceId::HOME,
        writer: WriterId {
            device: key.id(),
            incarnation: 0,
        },
        seq: 1,
        prev: Hash::ZERO,
        grant_heads: &[Hash([4; 32])],
    };
    let mut rng = ChaCha12Rng::seed_from_u64(5);
    let mut group = c.benchmark_group("entry");
    for changes in [1, 100, 3000] {
        let body = body(changes, params.writer);
        let entry = seal_entry(&key, &params, &body, &epoch, &mut rng).expect("within bounds");
        let bytes = entry.encode();
        group.throughput(Throughput::Elements(changes as u64));
        group.bench_function(BenchmarkId::new("seal", changes), |b| {
            b.iter(|| seal_entry(&key, &params, black_box(&body), &epoch, &mut rng));
        });
        group.bench_function(BenchmarkId::new("encode", changes), |b| {
            b.iter(|| black_box(&entry).encode());
        });
        group.bench_function(BenchmarkId::new("decode", changes), |b| {
            b.iter(|| Entry::decode(black_box(&bytes)));
        });
        group.bench_function(BenchmarkId::new("verify", changes), |b| {
            b.iter(|| black_box(&entry).verify(&vault));
        });
        group.bench_function(BenchmarkId::new("open", changes), |b| {
            b.iter(|| open_entry(black_box(&entry), &epoch));
        });
    }
    group.finish();
}

criterion_group!(benches, entries);
criterion_main!(benches);
