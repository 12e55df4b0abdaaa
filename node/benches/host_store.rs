//! What keeping blobs costs a host with the embedded store: 20,000 of 8 KiB put in batches, and got in batches.
//!
//! Writing is durable; reading is from the page cache.

use std::hint::black_box;

use bytes::Bytes;
use coffer_node::relay::store::embedded::EmbeddedStore;
use coffer_node::relay::store::{Invitation, RelayStore};
use coffer_protocol::identity::{Hash, VaultId};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures::TryStreamExt;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const BLOBS: u64 = 20_000;
const LEN: usize = 8 << 10;
/// As an uploading device sends them: 4 MiB at a time.
const BATCH: usize = 512;
const VAULT: VaultId = VaultId([7; 32]);

fn blobs() -> Vec<(Hash, Bytes)> {
    let blob = |n: u64| {
        let mut bytes = vec![0; LEN];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&n.to_be_bytes());
        hasher.finalize_xof().fill(&mut bytes);
        (Hash(*blake3::hash(&bytes).as_bytes()), Bytes::from(bytes))
    };
    (0..BLOBS).map(blob).collect()
}

async fn open() -> (TempDir, EmbeddedStore) {
    let folder = TempDir::new().expect("a folder");
    let store = EmbeddedStore::open(folder.path()).expect("a store");
    let invitation = Invitation {
        id: Hash::ZERO,
        check: Bytes::new(),
        quota: 1 << 40,
        made_ms: 0,
        expires_ms: 1,
        used: None,
    };
    store.add_invitation(invitation).await.expect("kept");
    let used = store.consume_invitation(Hash::ZERO, VAULT, [0; 16], 0);
    used.await.expect("a vault that is served");
    (folder, store)
}

async fn put(store: &EmbeddedStore, blobs: &[(Hash, Bytes)]) {
    for batch in blobs.chunks(BATCH) {
        let put = store.put(VAULT, batch.to_vec()).await;
        black_box(put.expect("stored"));
    }
}

fn host_store(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let blobs = blobs();
    let mut group = criterion.benchmark_group("host store");
    group.sample_size(10);
    group.throughput(Throughput::Elements(BLOBS));
    group.bench_function("put 20,000 blobs of 8 KiB", |bencher| {
        bencher.iter_batched(
            || runtime.block_on(open()),
            |(folder, store)| {
                runtime.block_on(put(&store, &blobs));
                (folder, store)
            },
            BatchSize::PerIteration,
        );
    });
    let (folder, store) = runtime.block_on(open());
    runtime.block_on(put(&store, &blobs));
    // As a device asks: in no order.
    let mut ids: Vec<Hash> = blobs.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    group.bench_function("get 20,000 blobs of 8 KiB", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                for batch in ids.chunks(1024) {
                    let got: Vec<_> = store
                        .get(VAULT, batch.to_vec())
                        .try_collect()
                        .await
                        .expect("all there");
                    black_box(got);
                }
            });
        });
    });
    group.finish();
    drop(folder);
}

criterion_group!(benches, host_store);
criterion_main!(benches);
