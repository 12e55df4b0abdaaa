//! Collecting against a real vault and a real blob store; only the time is made up.

use coffer_crdt::files::{FileId, Kind};
use coffer_crdt::retention::VersionId;

use super::{CollectError, Limits, Report, collect, named};
use crate::blobs::{Blobs, Fetch, Imported};
use crate::service::random;
use crate::store;
use crate::vault::identity::Identity;
use crate::vault::{
    CommitRequest, ContentDraft, Operation, VaultHandle, VaultThread, founding, rule, wall_ms,
};
use coffer_protocol::identity::Hash;

const DAY: u64 = 24 * 60 * 60 * 1000;

struct Bench {
    dir: tempfile::TempDir,
    vault: VaultHandle,
    thread: Option<VaultThread>,
    blobs: Blobs,
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

impl Bench {
    async fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let database = store::open(&dir.path().join("vault.redb")).unwrap();
        let identity = Identity::generate(&mut random());
        founding::found(
            &database,
            &identity,
            "desk",
            b"here",
            wall_ms(),
            &mut random(),
        )
        .unwrap();
        let core = founding::open(database.clone(), identity, b"here", Box::new(random())).unwrap();
        let (keyring, id) = (core.state().keyring.clone(), core.state().vault);
        let (vault, thread) = VaultHandle::start(core).unwrap();
        let blobs = Blobs::open(&dir.path().join("blobs"), id, database, keyring)
            .await
            .unwrap();
        Bench {
            dir,
            vault,
            thread: Some(thread),
            blobs,
        }
    }

    async fn stop(mut self) {
        self.vault.stop().await;
        self.thread.take().unwrap().join().await;
        self.blobs.shutdown().await.unwrap();
    }

    async fn commit(&self, operations: Vec<Operation>) {
        let request = CommitRequest {
            operations,
            ..CommitRequest::default()
        };
        self.vault.commit(request).await.unwrap();
    }

    async fn import(&self, bytes: &[u8]) -> Imported {
        self.blobs.import_bytes(bytes.to_vec()).await.unwrap()
    }

    async fn name(&self, file: u8, imported: Imported) {
        let content = ContentDraft {
            size: imported.size,
            mtime_ms: 0,
            executable: false,
            hash: imported.hash,
            target: None,
            root: imported.root,
        };
        let id = FileId([file; 16]);
        let known = self.vault.file(id).unwrap().is_some();
        let operation = match known {
            true => Operation::SetContent {
                id,
                content,
                replaces: None,
            },
            false => Operation::CreateFile {
                id,
                kind: Kind::File,
                parent: FileId::ROOT,
                name: format!("file-{file}"),
                content: Some(content),
                created_ms: 0,
            },
        };
        let request = CommitRequest {
            operations: vec![operation],
            placements: imported.rows.placements,
            chunks: imported.rows.chunks,
            holds: vec![imported.hold],
            ..CommitRequest::default()
        };
        self.vault.commit(request).await.unwrap();
    }

    async fn add(&self, file: u8, bytes: &[u8]) {
        let imported = self.import(bytes).await;
        self.name(file, imported).await;
    }

    async fn read(&self, file: u8) -> Option<Vec<u8>> {
        let content = self.vault.file(FileId([file; 16])).unwrap()?.content?;
        let end = content.size;
        let nobody = Fetch::nobody();
        let read = self.blobs.read_range(&content.root, 0..end, &nobody);
        read.await.ok()
    }

    async fn purge(&self, file: u8) {
        let id = FileId([file; 16]);
        self.commit(vec![Operation::TrashFile { id }]).await;
        self.commit(vec![Operation::PurgeFile { id }]).await;
    }

    async fn run(&self, days: u64) -> Result<Report, CollectError> {
        let now = wall_ms() + days * DAY;
        collect(&self.vault, &self.blobs, &[], now, Limits::default()).await
    }

    /// Notes what is unnamed, and frees it when the grace is over; then once more for what that left behind.
    async fn collect(&self, days: u64) -> u64 {
        let mut freed = 0;
        for day in [days, days + 2, days + 3] {
            freed += self.run(day).await.unwrap().freed_bytes;
        }
        freed
    }

    fn stored(&self) -> u64 {
        let files = self.blobs.stored_files().unwrap();
        files
            .iter()
            .map(|file| self.blobs.stored_len(&file.name))
            .sum()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_purged_is_freed_after_the_grace_and_what_is_in_the_trash_is_not() {
    let bench = Bench::new().await;
    let (small, large) = (noise(1, 5_000), noise(2, 3 << 20));
    bench.add(1, &small).await;
    bench.add(2, &large).await;
    bench.add(3, &noise(3, 9_000)).await;
    let id = FileId([3; 16]);
    bench.commit(vec![Operation::TrashFile { id }]).await;
    assert_eq!(bench.collect(20).await, 0);
    bench.purge(2).await;
    let first = bench.run(20).await.unwrap();
    assert_eq!((first.freed_blobs, first.freed_bytes), (0, 0), "the grace");
    assert!(first.waiting_bytes >= 3 << 20, "{first:?}");
    let second = bench.run(22).await.unwrap();
    assert!(second.freed_bytes >= 3 << 20, "{second:?}");
    assert_eq!(second.waiting_bytes, 0);
    assert!(bench.stored() < 100_000, "the lists went as well");
    assert_eq!(bench.read(2).await, None);
    assert_eq!(bench.read(1).await, Some(small));
    assert_eq!(bench.read(3).await, Some(noise(3, 9_000)));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_added_again_after_it_was_freed_is_stored_again() {
    let bench = Bench::new().await;
    let contents = [noise(1, 5_000), noise(2, 3 << 20), noise(3, 300_000)];
    for (file, bytes) in (1..).zip(&contents) {
        bench.add(file, bytes).await;
        bench.purge(file).await;
    }
    bench.collect(0).await;
    assert_eq!(bench.stored(), 0);
    for (file, bytes) in (11..).zip(&contents) {
        bench.add(file, bytes).await;
        assert!(bench.read(file).await.as_ref() == Some(bytes));
    }
    assert_eq!(bench.collect(0).await, 0);
    for (file, bytes) in (11..).zip(&contents) {
        assert!(bench.read(file).await.as_ref() == Some(bytes));
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn earlier_contents_are_kept_by_the_rule_and_tagged_ones_for_ever() {
    let bench = Bench::new().await;
    let id = FileId([1; 16]);
    let mut versions: Vec<VersionId> = Vec::new();
    for seed in 1..=3 {
        bench.add(1, &noise(seed, 400_000)).await;
        let state = bench.vault.file(id).unwrap().unwrap();
        versions.push(state.content.unwrap().version());
    }
    let tag = Operation::TagFile {
        id,
        version: versions[0],
        label: Some("first".into()),
    };
    bench.commit(vec![tag]).await;
    assert_eq!(bench.run(0).await.unwrap().waiting_bytes, 0);
    // A rule that keeps nothing but what must be.
    let strict = coffer_crdt::retention::Rule {
        all_ms: 0,
        hourly_ms: 0,
        daily_ms: 0,
        weekly_ms: 0,
        ..Default::default()
    };
    let put = Operation::PutDocument {
        doctype: rule::DOCTYPE.into(),
        id: rule::ID.into(),
        value: rule::to_json(&strict),
        texts: Vec::new(),
        base: Vec::new(),
    };
    bench.commit(vec![put]).await;
    let freed = bench.collect(1).await;
    assert!(
        (400_000..500_000).contains(&freed),
        "only the second: {freed}"
    );
    let untag = Operation::TagFile {
        id,
        version: versions[0],
        label: None,
    };
    bench.commit(vec![untag]).await;
    let freed = bench.collect(10).await;
    assert!(
        (400_000..500_000).contains(&freed),
        "now the first: {freed}"
    );
    assert_eq!(bench.read(1).await, Some(noise(3, 400_000)));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_file_names_too_is_not_freed() {
    let bench = Bench::new().await;
    let shared = noise(1, 2 << 20);
    let longer = [shared.clone(), noise(2, 1 << 20)].concat();
    bench.add(1, &longer).await;
    bench.add(2, &shared).await;
    bench.purge(1).await;
    bench.collect(0).await;
    assert!(bench.read(2).await == Some(shared));
    let names = named(&bench.vault, &bench.blobs, wall_ms()).await.unwrap();
    let content = bench.vault.file(FileId([2; 16])).unwrap().unwrap().content;
    let chunks = content.unwrap().root.list().chunks.clone();
    assert!(chunks.iter().all(|chunk| names.contains(&Hash(chunk.blob))));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_about_to_name_a_blob_keeps_it() {
    let bench = Bench::new().await;
    let (small, large) = (noise(1, 5_000), noise(2, 3 << 20));
    bench.add(1, &small).await;
    bench.add(2, &large).await;
    bench.purge(1).await;
    bench.purge(2).await;
    bench.run(0).await.unwrap();
    // Read in, and nothing is stored anew, for all of it is here; it is named only after the collector ran.
    let (first, second) = (bench.import(&small).await, bench.import(&large).await);
    assert!(first.rows.placements.is_empty() && second.rows.placements.is_empty());
    let report = bench.run(5).await.unwrap();
    assert_eq!((report.freed_blobs, report.freed_bytes), (0, 0));
    bench.name(3, first).await;
    bench.name(4, second).await;
    assert_eq!(bench.collect(10).await, 0);
    assert_eq!(bench.read(3).await, Some(small));
    assert!(bench.read(4).await == Some(large));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restored_and_edited_while_it_waited_is_kept() {
    let bench = Bench::new().await;
    bench.add(1, &noise(1, 300_000)).await;
    bench.purge(1).await;
    assert!(bench.run(0).await.unwrap().waiting_bytes > 0);
    let id = FileId([1; 16]);
    bench.commit(vec![Operation::RestoreFile { id }]).await;
    assert_eq!(bench.collect(5).await, 0);
    assert_eq!(bench.read(1).await, Some(noise(1, 300_000)));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_moved_aside_go_when_no_kept_content_is_in_them() {
    let bench = Bench::new().await;
    let kept = bench.dir.path().join("folder/.vault/kept");
    std::fs::create_dir_all(&kept).unwrap();
    // Two files' bytes are only in files that a synced folder moved aside.
    for file in [1u8, 2] {
        let bytes = noise(file.into(), 5_000);
        let path = kept.join(hex::encode([file; 24]));
        std::fs::write(&path, &bytes).unwrap();
        let into = crate::blobs::Import::FileBacked {
            root: 7,
            file: [file; 16],
        };
        let mut imported = bench.blobs.import_file(path, into).await.unwrap();
        for (_, place) in &mut imported.rows.placements {
            *place = place.clone().in_kept([file; 24]);
        }
        bench.name(file, imported).await;
    }
    let pending = kept.join(format!("{}.pending", hex::encode([3; 24])));
    std::fs::write(&pending, "moved a moment ago").unwrap();
    bench.purge(1).await;
    let folders = [(7, bench.dir.path().join("folder"))];
    let mut freed = 0;
    for days in [0, 2] {
        let now = wall_ms() + days * DAY;
        let report = collect(&bench.vault, &bench.blobs, &folders, now, Limits::default()).await;
        freed += report.unwrap().freed_bytes;
    }
    assert_eq!(freed, 5_000);
    assert!(!kept.join(hex::encode([1; 24])).exists());
    assert!(kept.join(hex::encode([2; 24])).exists() && pending.exists());
    bench.stop().await;
}

/// A folder of which only files moved aside are read.
struct Aside(std::path::PathBuf);

impl crate::blobs::FolderPaths for Aside {
    fn file(&self, _: u32, _: &[u8; 16]) -> Option<std::path::PathBuf> {
        None
    }

    fn is_as_recorded(&self, _: u32, _: &[u8; 16], _: &std::fs::Metadata) -> bool {
        false
    }

    fn is_there(&self, _: u32) -> bool {
        true
    }

    fn kept(&self, _: u32, name: &[u8; 24]) -> Option<std::path::PathBuf> {
        Some(self.0.join(hex::encode(name)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_large_file_that_is_edited_often_one_whole_former_content_stays_and_the_changes() {
    let bench = Bench::new().await;
    let folder = bench.dir.path().join("folder");
    let kept = folder.join(".vault/kept");
    std::fs::create_dir_all(&kept).unwrap();
    bench
        .blobs
        .set_folders(std::sync::Arc::new(Aside(kept.clone())));
    let content = |edit: u64| {
        let mut bytes = noise(1, 6 << 20);
        let at = usize::try_from(edit).unwrap() << 20;
        bytes[at..at + 1000].copy_from_slice(&noise(100 + edit, 1000));
        bytes
    };
    // What four remote changes moved aside, one after the other.
    let mut roots = Vec::new();
    for edit in 1..=4u8 {
        let path = kept.join(hex::encode([edit; 24]));
        std::fs::write(&path, content(edit.into())).unwrap();
        let into = crate::blobs::Import::FileBacked {
            root: 7,
            file: [1; 16],
        };
        let mut imported = bench.blobs.import_file(path, into).await.unwrap();
        for (_, place) in &mut imported.rows.placements {
            *place = place.clone().in_kept([edit; 24]);
        }
        roots.push((imported.root.clone(), imported.size));
        bench.name(1, imported).await;
    }
    let folders = [(7, folder)];
    // Moved aside, written elsewhere, freed.
    for hours in [0, 2, 4] {
        let now = wall_ms() + hours * DAY / 24;
        let report = collect(&bench.vault, &bench.blobs, &folders, now, Limits::default()).await;
        assert_eq!(report.unwrap().waiting_bytes, 0);
    }
    let whole = std::fs::read_dir(&kept).unwrap().count();
    assert_eq!(whole, 1, "one whole content");
    assert!(bench.stored() < 3 << 20, "{}", bench.stored());
    for (edit, (root, size)) in (1..).zip(roots) {
        let read = bench
            .blobs
            .read_range(&root, 0..size, &Fetch::nobody())
            .await;
        assert!(read.unwrap() == content(edit), "content {edit}");
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_that_are_mostly_empty_are_written_anew() {
    let bench = Bench::new().await;
    // One import fills one pack with all of them.
    let folder = bench.dir.path().join("in");
    std::fs::create_dir(&folder).unwrap();
    let jobs = (0..40u8).map(|n| {
        let path = folder.join(n.to_string());
        std::fs::write(&path, noise(n.into(), 40_000)).unwrap();
        crate::blobs::ImportJob {
            path,
            into: crate::blobs::Import::Store,
        }
    });
    let imported = bench.blobs.import(jobs.collect()).await;
    for (file, imported) in (0..).zip(imported) {
        bench.name(file, imported.unwrap()).await;
    }
    let before = bench.stored();
    for file in 3..40 {
        bench.purge(file).await;
    }
    bench.collect(0).await;
    bench.run(4).await.unwrap();
    assert!(
        bench.stored() < 130_000,
        "{before} became {}",
        bench.stored()
    );
    for file in 0..3u8 {
        assert_eq!(bench.read(file).await, Some(noise(file.into(), 40_000)));
    }
    bench.stop().await;
}
