//! What files cost: reading them in, and getting them from one node to another over a stream in memory.
//!
//! Large is one file of 64 MiB, small are 1,000 files of 8 KiB. All bytes are in the page cache; writing is durable.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use coffer_node::blobs::{
    Blobs, Fetch, FolderPaths, Import, ImportJob, Imported, Opened, Rows, Sources, StoreJob,
    WriteJob, placement,
};
use coffer_protocol::blobs::Version;
use coffer_protocol::identity::{DeviceId, SpaceId, VaultId};
use coffer_protocol::keys::{EpochKey, Keyring, SpaceSecret};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead as _, AsyncWrite as _, DuplexStream, ReadBuf};
use tokio::runtime::Runtime;

struct Paths(BTreeMap<[u8; 16], PathBuf>);

impl FolderPaths for Paths {
    fn file(&self, _: u32, file: &[u8; 16]) -> Option<PathBuf> {
        self.0.get(file).cloned()
    }

    fn is_as_recorded(&self, _: u32, _: &[u8; 16], _: &std::fs::Metadata) -> bool {
        true
    }

    fn is_there(&self, _: u32) -> bool {
        true
    }

    fn kept(&self, _: u32, _: &[u8; 24]) -> Option<PathBuf> {
        None
    }
}

struct Pipe(DuplexStream);

impl futures::io::AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut into))?;
        Poll::Ready(Ok(into.filled().len()))
    }
}

impl futures::io::AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

struct One(Blobs);

impl Sources for One {
    fn candidates(&self) -> Vec<DeviceId> {
        vec![DeviceId([1; 32])]
    }

    fn open(&self, _: DeviceId) -> BoxFuture<'static, io::Result<Opened>> {
        let blobs = self.0.clone();
        async move {
            let (here, there) = tokio::io::duplex(1 << 20);
            let version = Version::Two;
            tokio::spawn(async move { blobs.serve(DeviceId([2; 32]), version, Pipe(there)).await });
            Ok(Opened {
                version,
                stream: Box::new(Pipe(here)),
            })
        }
        .boxed()
    }

    fn changed(&self) -> BoxFuture<'static, ()> {
        futures::future::pending().boxed()
    }
}

async fn node(dir: &Path) -> (Arc<redb::Database>, Blobs) {
    let keyring = Keyring::new(
        SpaceId::HOME,
        SpaceSecret::from_secret(&[5; 32]),
        EpochKey::from_secret(&[1; 32]),
    );
    std::fs::create_dir_all(dir).unwrap();
    let db = Arc::new(redb::Database::create(dir.join("vault.redb")).unwrap());
    let vault = VaultId([1; 32]);
    let blobs = Blobs::open(&dir.join("blobs"), vault, db.clone(), Arc::new(keyring)).await;
    (db, blobs.unwrap())
}

fn file_id(number: usize) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(number as u64).to_be_bytes());
    id
}

fn files(dir: &Path, sizes: &[usize]) -> (Vec<ImportJob>, Paths) {
    std::fs::create_dir_all(dir).unwrap();
    let mut paths = BTreeMap::new();
    let mut noise = blake3::Hasher::new().finalize_xof();
    let mut jobs = Vec::new();
    for (number, size) in sizes.iter().enumerate() {
        let mut bytes = vec![0; *size];
        noise.fill(&mut bytes);
        let path = dir.join(number.to_string());
        std::fs::write(&path, bytes).unwrap();
        paths.insert(file_id(number), path.clone());
        let into = Import::FileBacked {
            root: 1,
            file: file_id(number),
        };
        jobs.push(ImportJob { path, into });
    }
    (jobs, Paths(paths))
}

/// Into fresh temporary files, which are removed afterwards.
async fn fetch(from: &Blobs, to: &Blobs, contents: &[Imported], dir: &Path) {
    std::fs::create_dir(dir).unwrap();
    let jobs = contents
        .iter()
        .enumerate()
        .map(|(number, content)| WriteJob {
            content: StoreJob {
                key: number as u64,
                size: content.size,
                hash: content.hash,
                root: content.root.clone(),
            },
            temp: dir.join(number.to_string()),
            folder: 1,
            file: file_id(number),
        });
    let (done, mut groups) = tokio::sync::mpsc::channel(4);
    let sources = Fetch::from(Arc::new(One(from.clone())));
    let transfer = to.write_files(jobs.collect(), &sources, done);
    let receive = async {
        let mut whole = 0;
        while let Some(group) = groups.recv().await {
            whole += group
                .jobs
                .into_iter()
                .filter(|(_, result)| result.is_ok())
                .count();
        }
        whole
    };
    let (_, whole) = futures::join!(transfer, receive);
    assert_eq!(whole, contents.len());
    std::fs::remove_dir_all(dir).unwrap();
}

fn blobs(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    for (name, sizes) in [("large", vec![64 << 20]), ("small", vec![8 << 10; 1000])] {
        let dir = tempfile::tempdir().unwrap();
        let (db, a) = runtime.block_on(node(&dir.path().join("a")));
        let (_, b) = runtime.block_on(node(&dir.path().join("b")));
        let (jobs, paths) = files(&dir.path().join("folder"), &sizes);
        a.set_folders(Arc::new(paths));
        let mut group = c.benchmark_group(format!("blobs/{name}"));
        group.sample_size(10);
        group.throughput(Throughput::Bytes(sizes.iter().sum::<usize>() as u64));
        group.bench_function("import", |bench| {
            bench.iter_batched(
                || jobs.clone(),
                |jobs| black_box(runtime.block_on(a.import(jobs))),
                BatchSize::PerIteration,
            );
        });
        let contents: Vec<Imported> = runtime
            .block_on(a.import(jobs))
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let mut rows = Rows::default();
        for content in &contents {
            rows.append(content.rows.clone());
        }
        let transaction = db.begin_write().unwrap();
        placement::write(&transaction, &rows).unwrap();
        transaction.commit().unwrap();
        group.bench_function("fetch and write", |bench| {
            bench.iter(|| runtime.block_on(fetch(&a, &b, &contents, &dir.path().join("temp"))));
        });
        group.finish();
    }
}

criterion_group!(benches, blobs);
criterion_main!(benches);
