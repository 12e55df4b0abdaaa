//! Sealing and opening frames, in bytes of plaintext per second: what importing, sending and
//! receiving files costs in cryptography.

use std::hint::black_box;

use coffer_protocol::frame::{
    Chunk, FRAME_HEADER_LEN, blob_id, open_frame, seal_frame, seal_frame_in_place, seal_frame_into,
};
use coffer_protocol::keys::{EpochKey, SpaceSecret};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;

const SIZES: [(&str, usize); 3] = [("4 KiB", 4 << 10), ("64 KiB", 64 << 10), ("1 MiB", 1 << 20)];

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ChaCha12Rng::seed_from_u64(1).fill_bytes(&mut bytes);
    bytes
}

fn text(len: usize) -> Vec<u8> {
    let words = [
        "vault", "device", "folder", "file", "host", "the", "a", "of",
    ];
    let mut rng = ChaCha12Rng::seed_from_u64(2);
    let mut text = Vec::with_capacity(len + 8);
    while text.len() < len {
        text.extend_from_slice(words[(rng.next_u32() % 8) as usize].as_bytes());
        text.push(b' ');
    }
    text.truncate(len);
    text
}

fn frames(c: &mut Criterion) {
    let secret = SpaceSecret::from_secret(&[1; 32]);
    let epoch = EpochKey::from_secret(&[2; 32]);
    let mut group = c.benchmark_group("frame");
    for (name, len) in SIZES {
        let plain = noise(len);
        let words = text(len);
        let sealed = seal_frame(&plain, false, &secret, &epoch).expect("within the bound");
        let packed = seal_frame(&words, true, &secret, &epoch).expect("within the bound");
        group.throughput(Throughput::Bytes(len as u64));

        group.bench_function(BenchmarkId::new("chunk id", name), |b| {
            b.iter(|| secret.chunk_id(black_box(&plain)));
        });
        group.bench_function(BenchmarkId::new("blob id", name), |b| {
            b.iter(|| blob_id(black_box(&sealed.bytes)));
        });
        group.bench_function(BenchmarkId::new("seal", name), |b| {
            let mut out = Vec::new();
            b.iter(|| {
                let chunk = Chunk::new(black_box(&plain), &secret);
                seal_frame_into(&chunk, false, &secret, &epoch, &mut out)
            });
        });
        group.bench_function(BenchmarkId::new("seal in place", name), |b| {
            let mut buffer = Vec::with_capacity(sealed.bytes.len());
            b.iter(|| {
                buffer.resize(FRAME_HEADER_LEN + len, 0);
                seal_frame_in_place(&mut buffer, &secret, &epoch)
            });
        });
        group.bench_function(BenchmarkId::new("seal text with zstd", name), |b| {
            let mut out = Vec::new();
            b.iter(|| {
                let chunk = Chunk::new(black_box(&words), &secret);
                seal_frame_into(&chunk, true, &secret, &epoch, &mut out)
            });
        });
        group.bench_function(BenchmarkId::new("seal noise trying zstd", name), |b| {
            let mut out = Vec::new();
            b.iter(|| {
                let chunk = Chunk::new(black_box(&plain), &secret);
                seal_frame_into(&chunk, true, &secret, &epoch, &mut out)
            });
        });
        for (what, sealed) in [("open", &sealed), ("open text with zstd", &packed)] {
            group.bench_function(BenchmarkId::new(what, name), |b| {
                let expected = sealed.ids.expected();
                let mut scratch = Vec::new();
                b.iter_batched_ref(
                    || sealed.bytes.clone(),
                    |bytes| {
                        let plain = open_frame(bytes, &expected, &secret, &epoch, &mut scratch);
                        plain.map(<[u8]>::len)
                    },
                    BatchSize::LargeInput,
                );
            });
        }
    }
    group.finish();
}

criterion_group!(benches, frames);
criterion_main!(benches);
