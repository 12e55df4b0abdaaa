//! The engine as it runs: actor, watcher, disk; only vault and blobs are doubles.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coffer_crdt::files::FileId;
use coffer_protocol::identity::VaultId;

use super::super::{
    Activity, FolderConfig, FolderEngine, FolderHandle, FolderState, FolderVault, Folders, prepare,
    preview,
};
use super::cloud::{Cloud, TestContents};
use super::double::TestVault;
use super::puppet::listing;
use crate::vault::request::CommitError;

/// Longer than anything here takes, even on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Device {
    pub(super) dir: tempfile::TempDir,
    pub(super) vault: Arc<TestVault>,
    pub(super) contents: Arc<TestContents>,
    pub(super) folders: Folders,
    pub(super) handle: Option<FolderHandle>,
}

impl Device {
    pub(super) async fn new(number: u8, cloud: &Arc<Cloud>) -> Device {
        let dir = tempfile::tempdir().unwrap();
        let (vault, contents) = (
            Arc::new(TestVault::new(number)),
            Arc::new(TestContents(cloud.clone())),
        );
        let mut device = Device {
            dir,
            vault,
            contents,
            folders: Folders::new(),
            handle: None,
        };
        prepare(&device.config()).unwrap();
        device.start().await;
        device
    }

    pub(super) fn config(&self) -> FolderConfig {
        FolderConfig {
            number: 1,
            path: self.path(""),
            vault_folder: FileId::ROOT,
            vault: VaultId([9; 32]),
        }
    }

    pub(super) async fn start(&mut self) {
        let started = FolderEngine::start(
            self.config(),
            self.vault.clone(),
            self.contents.clone(),
            &self.folders,
        )
        .await;
        self.handle = Some(started.unwrap());
    }

    pub(super) async fn stop(&mut self) {
        self.handle.take().unwrap().stop().await;
    }

    pub(super) fn handle(&self) -> &FolderHandle {
        self.handle.as_ref().unwrap()
    }

    pub(super) fn path(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join("synced").join(path)
    }

    pub(super) fn write(&self, path: &str, bytes: &str) {
        std::fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        std::fs::write(self.path(path), bytes).unwrap();
    }

    pub(super) async fn settled(&self) {
        tokio::time::timeout(PATIENCE, async {
            while !self.handle().is_settled().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("not settled: {:?}", self.handle().state().borrow().clone()));
    }

    pub(super) async fn until(&self, is: impl FnMut(&FolderState) -> bool) -> FolderState {
        let mut state = self.handle().state();
        let found = tokio::time::timeout(PATIENCE, state.wait_for(is)).await;
        let Ok(found) = found else {
            panic!(
                "a state that never comes; it is {:?}",
                *self.handle().state().borrow()
            );
        };
        found.unwrap().clone()
    }

    pub(super) fn listing(&self) -> std::collections::BTreeMap<String, Option<String>> {
        listing(Path::new(&self.path("")))
    }
}

pub(super) async fn pair() -> (Device, Device, Arc<Cloud>) {
    let cloud = Arc::new(Cloud::default());
    (
        Device::new(1, &cloud).await,
        Device::new(2, &cloud).await,
        cloud,
    )
}

pub(super) async fn sync(a: &Device, b: &Device) {
    loop {
        a.settled().await;
        b.settled().await;
        let before = (a.vault.operations(), b.vault.operations());
        a.vault.pull(&b.vault);
        b.vault.pull(&a.vault);
        a.settled().await;
        b.settled().await;
        if before == (a.vault.operations(), b.vault.operations()) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_on_one_device_happens_on_the_other() {
    let (a, b, cloud) = pair().await;
    a.write("d/f", "1");
    a.write("d/g", "2");
    sync(&a, &b).await;
    assert_eq!(b.listing(), a.listing());
    assert_eq!(a.listing().len(), 3);
    let written = *cloud.written.lock().unwrap();
    std::fs::rename(a.path("d"), a.path("e")).unwrap();
    sync(&a, &b).await;
    assert_eq!(b.listing(), a.listing());
    assert_eq!(*cloud.written.lock().unwrap(), written);
    b.write("e/f", "changed on b");
    std::fs::remove_file(b.path("e/g")).unwrap();
    sync(&a, &b).await;
    assert_eq!(b.listing(), a.listing());
    assert_eq!(
        a.listing().get("e/f"),
        Some(&Some("changed on b".to_owned()))
    );
    assert_eq!(a.listing().len(), 2);
    assert_eq!(
        a.vault.kept(),
        2,
        "the old content and the deleted file can still be read"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asking_whether_all_is_settled_unsettles_nothing() {
    let (a, b, _) = pair().await;
    a.write("d/f", "1");
    sync(&a, &b).await;
    for _ in 0..20 {
        assert!(a.handle().is_settled().await && b.handle().is_settled().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_not_read_before_its_writer_closed_it_or_let_it_rest() {
    /// Rounds in which this test itself was held up for so long that the file was at rest prove nothing.
    const ROUNDS: usize = 20;
    let (a, _, _) = pair().await;
    a.settled().await;
    let mut proved = false;
    for round in 0..ROUNDS {
        let (slow, quick) = (format!("slow {round}"), format!("quick {round}"));
        let part = format!("{slow}.part");
        let mut file = std::fs::File::create(a.path(&part)).unwrap();
        let begun = std::time::Instant::now();
        std::io::Write::write_all(&mut file, b"half ").unwrap();
        // It may get its name before all of it is there.
        std::fs::rename(a.path(&part), a.path(&slow)).unwrap();
        // In the same folder, so whoever saw this one saw the other as well.
        a.write(&quick, "whole");
        let seen = async {
            while !a.vault.listing().contains_key(&quick) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.unwrap();
        let listed = a.vault.listing();
        if begun.elapsed() < Duration::from_millis(900) {
            assert!(!listed.contains_key(&slow), "it was read half-written");
            proved = true;
        }
        std::io::Write::write_all(&mut file, b"whole").unwrap();
        drop(file);
        a.settled().await;
        assert!(a.vault.listing().contains_key(&slow));
        if proved {
            return;
        }
    }
    panic!("this machine is too busy to tell");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_writes_do_not_echo() {
    let (a, b, _) = pair().await;
    a.write("d/f", "1");
    sync(&a, &b).await;
    let operations = (a.vault.operations(), b.vault.operations());
    b.handle().rescan().await;
    a.handle().rescan().await;
    sync(&a, &b).await;
    assert_eq!(operations, (a.vault.operations(), b.vault.operations()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_done_while_the_node_was_stopped_is_found() {
    let (mut a, b, cloud) = pair().await;
    a.write("a", "1");
    a.write("b", "2");
    a.write("gone", "3");
    sync(&a, &b).await;
    let written = *cloud.written.lock().unwrap();
    a.stop().await;
    std::fs::rename(a.path("a"), a.path("t")).unwrap();
    std::fs::rename(a.path("b"), a.path("a")).unwrap();
    std::fs::rename(a.path("t"), a.path("b")).unwrap();
    std::fs::remove_file(a.path("gone")).unwrap();
    a.start().await;
    sync(&a, &b).await;
    assert_eq!(b.listing(), a.listing());
    assert_eq!(b.listing().get("b"), Some(&Some("1".to_owned())));
    assert_eq!(b.listing().len(), 2);
    assert_eq!(*cloud.written.lock().unwrap(), written);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_vanished_deletes_nothing() {
    let (a, b, _) = pair().await;
    a.write("f", "1");
    sync(&a, &b).await;
    std::fs::rename(a.path(""), a.dir.path().join("elsewhere")).unwrap();
    a.handle().rescan().await;
    a.until(|state| matches!(state.activity, Activity::Missing(_)))
        .await;
    assert!(!a.handle().is_settled().await);
    // An empty mount point is no better.
    std::fs::create_dir(a.path("")).unwrap();
    a.handle().rescan().await;
    a.until(|state| matches!(state.activity, Activity::Missing(_)))
        .await;
    b.vault.pull(&a.vault);
    b.settled().await;
    assert_eq!(b.listing().len(), 1);
    std::fs::remove_dir(a.path("")).unwrap();
    std::fs::rename(a.dir.path().join("elsewhere"), a.path("")).unwrap();
    a.handle().rescan().await;
    a.settled().await;
    assert_eq!(a.listing().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_that_nobody_has_now_are_written_when_someone_comes() {
    let (a, b, cloud) = pair().await;
    cloud.set_offline(true);
    a.write("f", "1");
    a.settled().await;
    b.vault.pull(&a.vault);
    b.until(|state| state.pending_remote == 1 && state.activity == Activity::Applying)
        .await;
    assert!(!b.handle().is_settled().await);
    cloud.set_offline(false);
    b.handle().retry().await;
    b.settled().await;
    assert_eq!(b.listing(), a.listing());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_that_arrives_while_an_edit_is_recorded_is_not_overwritten() {
    let (a, b, _) = pair().await;
    a.write("f", "1");
    sync(&a, &b).await;
    b.write("f", "22");
    b.settled().await;
    a.vault.race(b.vault.clone());
    a.write("f", "333");
    a.settled().await;
    sync(&a, &b).await;
    let listing = a.listing();
    assert_eq!(listing, b.listing());
    assert_eq!(listing.len(), 2, "an edit and a conflict copy: {listing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_that_takes_nothing_for_now_stops_the_folder_and_loses_nothing() {
    let (a, b, _) = pair().await;
    a.settled().await;
    a.vault.refuse(Some(CommitError::DiskFull));
    a.write("f", "1");
    a.until(|state| matches!(state.activity, Activity::Stopped(_)))
        .await;
    a.vault.refuse(None);
    a.handle().retry().await;
    sync(&a, &b).await;
    assert_eq!(b.listing().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_synced_is_reported_and_the_rest_is_synced() {
    let (a, b, _) = pair().await;
    let _socket = std::os::unix::net::UnixListener::bind(a.path("socket")).unwrap();
    a.write("f", "1");
    sync(&a, &b).await;
    let state = a.until(|state| state.problem_count == 1).await;
    assert_eq!(state.problems[0].path, "socket");
    assert_eq!((state.files, state.bytes), (1, 1));
    assert_eq!(b.listing().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_preview_counts_and_changes_nothing() {
    let (a, b, _) = pair().await;
    for (path, bytes) in [("same", "1"), ("d/other", "22"), ("only a", "3")] {
        a.write(path, bytes);
    }
    a.settled().await;
    b.vault.pull(&a.vault);
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    for (path, bytes) in [("same", "1"), ("d/other", "33"), ("only b", "44")] {
        std::fs::write(dir.path().join(path), bytes).unwrap();
    }
    let before = listing(dir.path());
    let operations = b.vault.operations();
    let merge = preview(dir.path(), FileId::ROOT, b.vault.clone(), &*b.contents)
        .await
        .unwrap();
    assert_eq!(
        (
            merge.same,
            merge.conflicting,
            merge.new_here,
            merge.new_there
        ),
        (1, 1, 1, 1)
    );
    assert_eq!((merge.bytes_here, merge.bytes_there), (2, 1));
    assert_eq!(
        (listing(dir.path()), b.vault.operations()),
        (before, operations)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_that_breaks_down_is_begun_again() {
    let (a, b, cloud) = pair().await;
    *cloud.breaks.lock().unwrap() = true;
    a.write("f", "1");
    a.settled().await;
    b.vault.pull(&a.vault);
    while *cloud.breaks.lock().unwrap() {
        tokio::task::yield_now().await;
    }
    b.handle().retry().await;
    sync(&a, &b).await;
    assert_eq!(b.listing(), a.listing());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_find_a_file_wherever_it_is_now() {
    use crate::blobs::FolderPaths;
    let (a, _, _) = pair().await;
    a.write("d/f", "1");
    a.settled().await;
    let id = a
        .vault
        .rows()
        .into_iter()
        .find(|(_, row)| row.name == "f")
        .unwrap()
        .0;
    assert_eq!(a.folders.file(1, &id.0), Some(a.path("d/f")));
    std::fs::rename(a.path("d"), a.path("e")).unwrap();
    a.settled().await;
    assert_eq!(a.folders.file(1, &id.0), Some(a.path("e/f")));
    assert_eq!(a.folders.file(2, &id.0), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_a_moment_ago_is_in_the_trash_for_who_has_it_taken_in() {
    let cloud = Arc::new(Cloud::default());
    let device = Device::new(1, &cloud).await;
    device.write("a/letter.txt", "letter");
    device.settled().await;
    let id = device.vault.tree().resolve("a/letter.txt").unwrap();
    for name in ["a/letter.txt", "a"] {
        let path = device.path(name);
        let id = device.vault.tree().resolve(name).unwrap_or(id);
        match path.is_dir() {
            true => std::fs::remove_dir(&path).unwrap(),
            false => std::fs::remove_file(&path).unwrap(),
        }
        device.handle().take_in().await;
        assert!(device.vault.tree().shown(id).unwrap().trashed, "{name}");
    }
    // Nothing to take in: the answer comes all the same.
    device.handle().take_in().await;
}
