//! From one node to another: whole, in part, disturbed, and refused.

use coffer_crdt::chunks::ChunkRoot;
use coffer_protocol::keys::Keyring;
use std::collections::BTreeMap;

use super::fleet::{FOLDER, Faults, Node, Peers, device, epoch, keyring, noise};
use crate::blobs::placement::{self, Placement};
use crate::blobs::{Fetch, StoreJob, WriteError};

#[tokio::test(flavor = "multi_thread")]
async fn files_of_all_sizes_arrive_and_can_be_passed_on() {
    let (a, b, c) = (Node::new().await, Node::new().await, Node::new().await);
    let sizes = [0, 1, 8 << 10, 1 << 20, (1 << 20) + 1, 20 << 20];
    let mut contents = Vec::new();
    for (file, size) in (1..).zip(sizes) {
        contents.push((file, a.add(file, &noise(size as u64, size)).await));
    }
    assert!(
        matches!(contents[5].1.root, ChunkRoot::Indirect { depth: 1, .. }),
        "the large one needs a list of its own"
    );
    let wanted: Vec<_> = contents
        .iter()
        .map(|(file, content)| (*file, content))
        .collect();
    let (results, transferred) = b
        .write(&wanted, &Peers::default().with(1, &a).fetch())
        .await;
    assert!(results.values().all(Result::is_ok), "{results:?}");
    assert!(transferred.misbehaved.is_empty());
    let (results, _) = c
        .write(&wanted, &Peers::default().with(2, &b).fetch())
        .await;
    assert!(results.values().all(Result::is_ok), "{results:?}");
    for (file, size) in (1..).zip(sizes) {
        assert_eq!(b.bytes(file), noise(size as u64, size));
        assert_eq!(c.bytes(file), noise(size as u64, size));
    }
    let again = b.blobs.import_file(
        b.path("file-6"),
        crate::blobs::Import::FileBacked {
            root: FOLDER,
            file: [6; 16],
        },
    );
    assert_eq!(
        again.await.unwrap().root,
        contents[5].1.root,
        "equal on every device"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_transfer_fetches_only_what_is_missing() {
    let (a, b) = (Node::new().await, Node::new().await);
    let bytes = noise(1, 24 << 20);
    let content = a.add(1, &bytes).await;
    let cut = Faults {
        cut_at: Some(5 << 20),
        ..Faults::default()
    };
    let (results, first) = b
        .write(
            &[(1, &content)],
            &Peers::default().faulty(1, &a, cut).fetch(),
        )
        .await;
    assert!(matches!(results[&1], Err(WriteError::Unavailable { missing }) if missing > 0));
    assert!(!b.path("file-1").exists(), "nothing incomplete is visible");
    assert!(first.fetched_bytes > 1 << 20);
    let (results, second) = b
        .write(&[(1, &content)], &Peers::default().with(1, &a).fetch())
        .await;
    results[&1].as_ref().unwrap();
    assert_eq!(b.bytes(1), bytes);
    let overhead = bytes.len() as u64 / 8;
    assert!(
        first.fetched_bytes + second.fetched_bytes < bytes.len() as u64 + overhead,
        "{first:?} {second:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_sends_wrong_bytes_is_reported_and_another_asked() {
    let (a, b) = (Node::new().await, Node::new().await);
    let bytes = noise(2, 9 << 20);
    let content = a.add(1, &bytes).await;
    let flip = Faults {
        flip_at: Some(3_000_000),
        ..Faults::default()
    };
    let liar = Peers::default().faulty(1, &a, flip);
    let (results, alone) = b.write(&[(1, &content)], &liar.fetch()).await;
    assert!(matches!(results[&1], Err(WriteError::Unavailable { .. })));
    assert!(alone.misbehaved.contains_key(&device(1)));
    let both = Peers::default().faulty(1, &a, flip).with(2, &a).dumb(3);
    let c = Node::new().await;
    let (results, done) = c.write(&[(1, &content)], &both.fetch()).await;
    results[&1].as_ref().unwrap();
    assert_eq!(c.bytes(1), bytes);
    assert!(!done.misbehaved.contains_key(&device(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_device_lacks_comes_from_another() {
    let (a, b, c) = (Node::new().await, Node::new().await, Node::new().await);
    let one = a.add(1, &noise(1, 3 << 20)).await;
    let two = b.add(2, &noise(2, 3 << 20)).await;
    let peers = Peers::default().with(1, &a).with(2, &b).fetch();
    let (results, _) = c.write(&[(1, &one), (2, &two)], &peers).await;
    assert!(results.values().all(Result::is_ok), "{results:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changed_is_not_passed_off_as_what_it_was() {
    let (a, b) = (Node::new().await, Node::new().await);
    let content = a.add(1, &noise(1, 50_000)).await;
    std::fs::write(a.path("file-1"), noise(9, 50_000)).unwrap();
    let (results, done) = b
        .write(&[(1, &content)], &Peers::default().with(1, &a).fetch())
        .await;
    assert!(matches!(
        results[&1],
        Err(WriteError::Unavailable { missing: 1 })
    ));
    assert!(
        done.misbehaved.is_empty(),
        "to lack something is no misbehaviour"
    );
    let stale = a.blobs.take_stale();
    assert!(matches!(&stale[..], [(_, Placement::File { file, .. })] if *file == [1; 16]));
    let transaction = a.db.begin_write().unwrap();
    placement::forget(
        &transaction,
        stale.iter().map(|(blob, place)| (blob, place)),
    )
    .unwrap();
    transaction.commit().unwrap();
    assert!(!a.reader().has(&stale[0].0).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_is_not_forgotten_for_a_file_that_is_being_moved_or_whose_folder_has_not_started() {
    let (a, b) = (Node::new().await, Node::new().await);
    let bytes = noise(1, 50_000);
    let content = a.add(1, &bytes).await;
    let peers = Peers::default().with(1, &a).fetch();
    let refused = |results: &BTreeMap<u8, Result<(), WriteError>>| {
        matches!(results[&1], Err(WriteError::Unavailable { missing: 1 }))
    };
    // Another file is at its path, and nobody has looked yet.
    a.set_moving(1, true);
    std::fs::rename(a.path("file-1"), a.path("moved")).unwrap();
    std::fs::write(a.path("file-1"), noise(9, 50_000)).unwrap();
    let (results, _) = b.write(&[(1, &content)], &peers).await;
    assert!(refused(&results));
    // Nothing is there at all.
    std::fs::remove_file(a.path("file-1")).unwrap();
    let (results, _) = b.write(&[(1, &content)], &peers).await;
    assert!(refused(&results));
    // Its folder is not known yet.
    a.set_path(1, None);
    let (results, _) = b.write(&[(1, &content)], &peers).await;
    assert!(refused(&results));
    assert!(a.blobs.take_stale().is_empty());
    a.set_path(1, Some(a.path("moved")));
    a.set_moving(1, false);
    let (results, _) = b.write(&[(1, &content)], &peers).await;
    assert!(results[&1].is_ok(), "{results:?}");
    assert_eq!(b.bytes(1), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_takes_its_old_chunks_from_this_device() {
    let (a, b) = (Node::new().await, Node::new().await);
    let old = noise(1, 10 << 20);
    let content = a.add(1, &old).await;
    b.write(&[(1, &content)], &Peers::default().with(1, &a).fetch())
        .await;
    let mut new = old.clone();
    new.splice(5_000_000..5_000_000, *b"an insertion");
    let content = a.add(1, &new).await;
    let (results, done) = b
        .write(&[(1, &content)], &Peers::default().with(1, &a).fetch())
        .await;
    results[&1].as_ref().unwrap();
    assert_eq!(b.bytes(1), new);
    assert!(done.local_bytes > 8 << 20, "{done:?}");
    assert!(done.fetched_bytes < 3 << 20, "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_contents_can_be_passed_on_from_a_folder() {
    let (a, b, c) = (Node::new().await, Node::new().await, Node::new().await);
    let text = "all work and no play ".repeat(5_000);
    let content = a.store(text.as_bytes()).await;
    let (results, done) = b
        .write(&[(1, &content)], &Peers::default().with(1, &a).fetch())
        .await;
    results[&1].as_ref().unwrap();
    assert!(
        done.fetched_bytes < text.len() as u64 / 4,
        "it was compressed"
    );
    let (results, _) = c
        .write(&[(1, &content)], &Peers::default().with(2, &b).fetch())
        .await;
    results[&1].as_ref().unwrap();
    assert_eq!(c.bytes(1), text.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_contradicts_its_document_is_refused() {
    let (a, b) = (Node::new().await, Node::new().await);
    let good = a.add(1, &noise(1, 5000)).await;
    let mut wrong_hash = good.clone();
    wrong_hash.hash[0] ^= 1;
    let mut wrong_size = good.clone();
    wrong_size.size += 1;
    let ChunkRoot::Inline(list) = &good.root else {
        panic!("a small file");
    };
    let mut wrong_len = good.clone();
    let mut bad = list.clone();
    bad.chunks[0].sealed_len += 1;
    wrong_len.root = ChunkRoot::Inline(bad);
    let mut wrong_frame = good.clone();
    let mut bad = list.clone();
    bad.chunks[0].frame[3] ^= 1;
    wrong_frame.root = ChunkRoot::Inline(bad);
    let wanted = [
        (1, &wrong_hash),
        (2, &wrong_size),
        (3, &wrong_len),
        (4, &wrong_frame),
        (5, &good),
    ];
    let (results, done) = b
        .write(&wanted, &Peers::default().with(1, &a).fetch())
        .await;
    for file in 1..5 {
        assert!(
            matches!(results[&file], Err(WriteError::BadList)),
            "{file}: {results:?}"
        );
    }
    results[&5].as_ref().unwrap();
    assert!(
        done.misbehaved.is_empty(),
        "the device is not to blame for the list"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_are_kept_in_the_store() {
    let (a, b) = (Node::new().await, Node::new().await);
    let mut jobs = Vec::new();
    let mut contents = Vec::new();
    for file in 1..=40 {
        let bytes = noise(u64::from(file), 10_000 * usize::from(file));
        contents.push((a.add(file, &bytes).await, bytes));
    }
    let large = noise(99, 12 << 20);
    contents.push((a.add(99, &large).await, large));
    for (key, (content, _)) in (0..).zip(&contents) {
        jobs.push(StoreJob {
            key,
            size: content.size,
            hash: content.hash,
            root: content.root.clone(),
        });
    }
    let (done, mut groups) = tokio::sync::mpsc::channel(100);
    let transferred = b
        .blobs
        .store_contents(jobs, &Peers::default().with(1, &a).fetch(), &done)
        .await;
    drop(done);
    assert!(transferred.misbehaved.is_empty());
    let mut ended = 0;
    while let Some(group) = groups.recv().await {
        b.commit(&group.shared);
        for (_, result) in group.jobs {
            b.commit(&result.unwrap());
            ended += 1;
        }
    }
    assert_eq!(ended, contents.len());
    for (content, bytes) in &contents {
        let read = b
            .blobs
            .read_range(&content.root, 0..content.size, &Fetch::nobody())
            .await;
        assert!(read.unwrap() == *bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_read_from_here_or_elsewhere() {
    let (a, b) = (Node::new().await, Node::new().await);
    let bytes = noise(3, 16 << 20);
    let content = a.add(1, &bytes).await;
    let range = 3_000_000..3_500_000;
    let from_here = a
        .blobs
        .read_range(&content.root, range.clone(), &Fetch::nobody())
        .await;
    assert!(from_here.unwrap() == bytes[3_000_000..3_500_000]);
    let peers = Peers::default().with(1, &a).fetch();
    let fetched = b
        .blobs
        .read_range(&content.root, range.clone(), &peers)
        .await;
    assert!(fetched.unwrap() == bytes[3_000_000..3_500_000]);
    let end = b
        .blobs
        .read_range(&content.root, (16 << 20) - 5..20 << 20, &peers)
        .await;
    assert!(end.unwrap() == bytes[(16 << 20) - 5..]);
    assert!(matches!(
        b.blobs
            .read_range(&content.root, range, &Fetch::nobody())
            .await,
        Err(WriteError::Unavailable { .. })
    ));
    assert!(matches!(
        b.blobs.read_range(&content.root, 0..u64::MAX, &peers).await,
        Err(WriteError::TooLong { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_key_of_its_epoch_a_file_waits() {
    let (a, b) = (Node::new().await, Node::new().await);
    let mut rotated = keyring();
    rotated.add(epoch(2));
    assert!(rotated.write_under(epoch(2).id()));
    a.blobs.set_keyring(rotated.clone().into());
    let content = a.add(1, &noise(1, 5000)).await;
    let peers = Peers::default().with(1, &a).fetch();
    let (results, _) = b.write(&[(1, &content)], &peers).await;
    assert!(matches!(results[&1], Err(WriteError::NoKey(missing)) if missing == epoch(2).id()));
    let later: Keyring = rotated;
    b.blobs.set_keyring(later.into());
    let (results, _) = b.write(&[(1, &content)], &peers).await;
    results[&1].as_ref().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_be_written_does_not_hold_up_the_others() {
    let (a, b) = (Node::new().await, Node::new().await);
    let content = a.add(1, &noise(1, 5000)).await;
    let mut lost = b.job(1, &content);
    lost.temp = b.path("no-such-folder/temp");
    let mut folder = b.job(2, &content);
    folder.temp = b.dir.path().to_owned();
    let good = b.job(3, &content);
    let (done, mut groups) = tokio::sync::mpsc::channel(100);
    let peers = Peers::default().with(1, &a).fetch();
    b.blobs
        .write_files(vec![lost, folder, good], &peers, &done)
        .await;
    drop(done);
    let mut results = Vec::new();
    while let Some(group) = groups.recv().await {
        results.extend(group.jobs);
    }
    results.sort_by_key(|(key, _)| *key);
    assert!(
        matches!(results[0], (1, Err(WriteError::Vanished))),
        "{results:?}"
    );
    assert!(
        matches!(results[1], (2, Err(WriteError::Write(_)))),
        "{results:?}"
    );
    assert!(matches!(results[2], (3, Ok(_))), "{results:?}");
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(b.path(".temp-3"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600, "private until it is in place");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_is_dropped_stops_and_is_taken_up_again() {
    let (a, b) = (Node::new().await, Node::new().await);
    let bytes = noise(5, 40 << 20);
    let content = a.add(1, &bytes).await;
    let fetch = Peers::default().with(1, &a).fetch();
    let (done, groups) = tokio::sync::mpsc::channel(4);
    let transfer = b.blobs.write_files(vec![b.job(1, &content)], &fetch, &done);
    let some_way = async {
        while fetch
            .progress
            .done_bytes
            .load(std::sync::atomic::Ordering::Relaxed)
            < 4 << 20
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = transfer => panic!("40 MiB arrived before 4"),
        () = some_way => {}
    }
    drop(groups);
    let (results, rest) = b
        .write(&[(1, &content)], &Peers::default().with(1, &a).fetch())
        .await;
    results[&1].as_ref().unwrap();
    assert_eq!(b.bytes(1), bytes);
    assert!(rest.fetched_bytes < 38 << 20, "{rest:?}");
}
