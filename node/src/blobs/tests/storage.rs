//! What stays on a node: rows, packs, names that are used again, and what a bad stop leaves.

use std::collections::BTreeSet;

use super::fleet::{FOLDER, Node, Peers, epoch, keyring, noise};
use crate::blobs::placement::{self, Placement};
use crate::blobs::{Fetch, Import, ImportError, ImportJob, StoreJob};

#[tokio::test(flavor = "multi_thread")]
async fn small_contents_ride_in_packs() {
    let node = Node::new().await;
    let contents: Vec<_> = (0..300)
        .map(|n| noise(n, 2_000 + n as usize * 100))
        .collect();
    let jobs = (0..).zip(&contents).map(|(n, bytes)| {
        let path = node.path(&format!("small-{n}"));
        std::fs::write(&path, bytes).unwrap();
        ImportJob {
            path,
            into: Import::Store,
        }
    });
    let results = node.blobs.import(jobs.collect()).await;
    let mut packs = BTreeSet::new();
    for (result, bytes) in results.iter().zip(&contents) {
        let imported = result.as_ref().unwrap();
        node.commit(&imported.rows);
        match &imported.rows.placements[..] {
            [(_, Placement::Pack { pack, .. })] => packs.insert(*pack),
            other => panic!("{other:?}"),
        };
        let read = node
            .blobs
            .read_range(&imported.root, 0..1 << 20, &Fetch::nobody())
            .await;
        assert!(read.unwrap() == *bytes);
    }
    assert!(packs.len() <= 3, "{} packs for 5 MB", packs.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_is_named_again_and_stored_once() {
    let node = Node::new().await;
    let bytes = noise(1, 3 << 20);
    let first = node.store(&bytes).await;
    assert!(!first.rows.placements.is_empty());
    let mut rotated = keyring();
    rotated.add(epoch(2));
    assert!(rotated.write_under(epoch(2).id()));
    node.blobs.set_keyring(rotated.into());
    let second = node.store(&bytes).await;
    assert_eq!(second.root, first.root, "named under the old epoch");
    assert_eq!(second.hash, first.hash);
    assert!(second.rows.placements.is_empty(), "nothing is stored twice");
    let other = node.store(&noise(2, 5000)).await;
    assert_eq!(other.root.list().epochs, [epoch(2).id().0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_in_the_folder_keeps_the_data_when_the_original_goes() {
    let (a, b) = (Node::new().await, Node::new().await);
    let bytes = noise(1, 2 << 20);
    let first = a.add(1, &bytes).await;
    let second = a.add(2, &bytes).await;
    assert_eq!(first.root, second.root);
    for changed in [1, 2] {
        let peers = Peers::default().with(1, &a).fetch();
        let (results, _) = b.write(&[(changed, &first)], &peers).await;
        results[&changed].as_ref().unwrap();
        // First one of the copies goes, then nothing more is asked of `a`.
        a.set_path(1, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_moved_aside_still_gives_its_chunks() {
    let (a, b) = (Node::new().await, Node::new().await);
    let bytes = noise(1, 2 << 20);
    let content = a.add(1, &bytes).await;
    let kept = a.path("kept-file");
    std::fs::rename(a.path("file-1"), &kept).unwrap();
    a.set_path(1, None);
    a.set_kept([3; 24], kept);
    let chunks = a
        .blobs
        .expand(&content.root, &Fetch::nobody())
        .await
        .unwrap();
    let blobs = chunks.iter().map(|chunk| &chunk.blob);
    let transaction = a.db.begin_write().unwrap();
    placement::moved_aside(&transaction, blobs, (FOLDER, [1; 16]), [3; 24]).unwrap();
    transaction.commit().unwrap();
    let (results, _) = b
        .write(&[(1, &content)], &Peers::default().with(1, &a).fetch())
        .await;
    results[&1].as_ref().unwrap();
    assert_eq!(b.bytes(1), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_is_here_only_while_each_of_its_chunks_has_a_place() {
    let a = Node::new().await;
    let content = a.add(1, &noise(1, 3 << 20)).await;
    assert!(a.blobs.has_all(&content.root).await.unwrap());
    let fetch = Fetch::nobody();
    let chunks = a.blobs.expand(&content.root, &fetch).await.unwrap();
    assert!(chunks.len() > 1);
    // The file was changed behind everybody's back: the place of one chunk is found to be void.
    let blob = chunks[1].blob;
    let places = a.reader().places(&blob).unwrap();
    let transaction = a.db.begin_write().unwrap();
    placement::forget(&transaction, places.iter().map(|place| (&blob, place))).unwrap();
    transaction.commit().unwrap();
    assert!(!a.blobs.has_all(&content.root).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_unclean_stop_damaged_is_found_and_fetched_again() {
    let (a, mut b) = (Node::new().await, Node::new().await);
    let bytes = noise(1, 3 << 20);
    let content = a.add(1, &bytes).await;
    let store = |node: &Node| {
        let job = StoreJob {
            key: 1,
            size: content.size,
            hash: content.hash,
            root: content.root.clone(),
        };
        let (blobs, fetch) = (node.blobs.clone(), Peers::default().with(1, &a).fetch());
        async move {
            let (done, mut groups) = tokio::sync::mpsc::channel(100);
            blobs.store_contents(vec![job], &fetch, &done).await;
            drop(done);
            let mut rows = placement::Rows::default();
            while let Some(group) = groups.recv().await {
                rows.append(group.shared);
                for (_, result) in group.jobs {
                    rows.append(result.unwrap());
                }
            }
            rows
        }
    };
    let rows = store(&b).await;
    b.commit(&rows);
    assert!(
        b.blobs
            .verify_after_unclean_stop()
            .await
            .unwrap()
            .is_empty()
    );

    b.restart_uncleanly().await;
    let data = b.dir.path().join("blobs/data");
    let mut files: Vec<_> = std::fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "data")
        })
        .collect();
    files.sort();
    let mut torn = std::fs::read(&files[0]).unwrap();
    let middle = torn.len() / 2;
    torn[middle..].fill(0);
    std::fs::write(&files[0], torn).unwrap();
    let wrong = b.blobs.verify_after_unclean_stop().await.unwrap();
    assert!(!wrong.is_empty());
    let transaction = b.db.begin_write().unwrap();
    placement::forget(
        &transaction,
        wrong.iter().map(|(blob, place)| (blob, place)),
    )
    .unwrap();
    transaction.commit().unwrap();
    let rows = store(&b).await;
    assert_eq!(
        rows.placements.len(),
        wrong.len(),
        "only what was damaged is fetched again"
    );
    b.commit(&rows);
    let read = b
        .blobs
        .read_range(&content.root, 0..content.size, &Fetch::nobody())
        .await;
    assert!(read.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_readable_file_is_refused_by_kind() {
    let node = Node::new().await;
    let link = node.path("link");
    std::fs::write(node.path("target"), b"x").unwrap();
    std::os::unix::fs::symlink(node.path("target"), &link).unwrap();
    let pipe = node.path("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let import = |path| node.blobs.import_file(path, Import::Store);
    assert!(matches!(
        import(node.path("nothing")).await,
        Err(ImportError::Vanished)
    ));
    assert!(matches!(
        import(node.path("target/below")).await,
        Err(ImportError::Vanished)
    ));
    assert!(matches!(import(link).await, Err(ImportError::NotAFile)));
    assert!(matches!(import(pipe).await, Err(ImportError::NotAFile)));
    assert!(matches!(
        import(node.dir.path().to_owned()).await,
        Err(ImportError::NotAFile)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn large_and_small_contents_of_memory_are_stored() {
    let node = Node::new().await;
    for len in [0, 1, 100_000, 60 << 20] {
        let bytes = noise(len as u64, len);
        let imported = node.blobs.import_bytes(bytes.clone()).await.unwrap();
        node.commit(&imported.rows);
        let read = node
            .blobs
            .read_range(&imported.root, 0..len as u64, &Fetch::nobody())
            .await;
        assert!(read.unwrap() == bytes);
    }
}
