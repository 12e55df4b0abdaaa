//! The store is stopped at every place where it could be interrupted, and opened again on what was on the disk then.
//!
//! Bytes of packs that nobody had made durable yet are cut off, as a loss of power may do.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use tempfile::TempDir;

use super::super::{Boundaries, EmbeddedStore};
use crate::relay::store::conformance::{Step, Store, act, look, steps};
use crate::relay::store::memory::MemoryStore;

/// What was on the disk at one boundary.
struct Image {
    step: usize,
    boundary: &'static str,
    folder: TempDir,
}

/// Takes an image at each boundary.
#[derive(Default)]
struct Camera {
    step: usize,
    /// Packs, and how much of them was made durable.
    synced: BTreeMap<PathBuf, u64>,
    images: Vec<Image>,
}

impl Camera {
    fn at(&mut self, boundary: &'static str, store: &Path) {
        if boundary == "after sync of a pack" {
            self.synced = packs(store).into_iter().collect();
        }
        let folder = TempDir::new().unwrap();
        fs::copy(store.join("host.redb"), folder.path().join("host.redb")).unwrap();
        for (path, _) in packs(store) {
            let copy = folder.path().join(path.strip_prefix(store).unwrap());
            if let Some(len) = self.synced.get(&path) {
                fs::create_dir_all(copy.parent().unwrap()).unwrap();
                fs::copy(&path, &copy).unwrap();
                let file = OpenOptions::new().write(true).open(&copy).unwrap();
                file.set_len(*len).unwrap();
            }
        }
        self.images.push(Image {
            step: self.step,
            boundary,
            folder,
        });
    }
}

/// All packs and their lengths.
fn packs(store: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for folder in fs::read_dir(store.join("packs")).unwrap() {
        for file in fs::read_dir(folder.unwrap().path()).unwrap() {
            let file = file.unwrap();
            found.push((file.path(), file.metadata().unwrap().len()));
        }
    }
    found
}

/// Histories of the suite, but without pauses.
fn history(runner: &mut TestRunner) -> Vec<Step> {
    // First a pack of which little stays, so that it is rewritten.
    let mut all = vec![
        Step::Invite(0, 100_000),
        Step::Consume(0, 0, 0),
        Step::Put(0, vec![3, 7, 11]),
        Step::Release(0, 0, vec![3, 7], 0),
        Step::Free(0, 9),
        Step::Tidy,
    ];
    while all.len() < 120 {
        let steps = steps().new_tree(runner).unwrap().current();
        let writes =
            |step: &Step| !matches!(step, Step::Reopen | Step::Get(..) | Step::Entries(..));
        all.extend(steps.into_iter().filter(writes));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_acknowledged_is_there_after_a_crash_anywhere() {
    let mut runner = TestRunner::deterministic();
    let folder = TempDir::new().unwrap();
    let camera = Arc::new(Mutex::new(Camera::default()));
    let probe = {
        let (camera, store) = (Arc::clone(&camera), folder.path().to_owned());
        move |boundary| camera.lock().unwrap().at(boundary, &store)
    };
    let boundaries = Boundaries(Some(Arc::new(probe)));
    let store: Store = Arc::new(EmbeddedStore::open_probed(folder.path(), boundaries).unwrap());
    let model: Store = Arc::new(MemoryStore::new());
    let mut states = vec![look(&model).await];
    let (mut stale, mut stale_model) = (Vec::new(), Vec::new());
    for (at, step) in history(&mut runner).iter().enumerate() {
        camera.lock().unwrap().step = at;
        let expected = act(&model, step, &mut stale_model).await;
        assert_eq!(act(&store, step, &mut stale).await, expected, "{step:?}");
        states.push(look(&model).await);
    }
    store.close().await;
    let images = std::mem::take(&mut camera.lock().unwrap().images);
    let mut met = BTreeMap::new();
    for image in images {
        *met.entry(image.boundary).or_insert(0) += 1;
        let store: Store = Arc::new(EmbeddedStore::open(image.folder.path()).unwrap());
        let found = look(&store).await;
        let (before, after) = (&states[image.step], &states[image.step + 1]);
        assert!(
            found == *before || found == *after,
            "step {}, {}: {found}\n\nnor {before}\n\nnor {after}",
            image.step,
            image.boundary
        );
        // And it goes on: what a crash left is in nobody's way.
        while store.tidy().await.unwrap().more {}
        assert_eq!(look(&store).await, found);
        store.close().await;
    }
    for boundary in [
        "before sync of a pack",
        "after sync of a pack",
        "before commit",
        "after commit",
        "before removal of a pack",
        "packs of an erased vault are gone",
    ] {
        assert!(met.contains_key(boundary), "never at: {boundary}");
    }
}
