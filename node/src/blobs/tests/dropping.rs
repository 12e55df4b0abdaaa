//! Taking away what no row names: files go, what is shared stays, packs are written anew.

use std::collections::HashSet;

use coffer_protocol::identity::Hash;

use super::fleet::{Node, noise};
use crate::blobs::placement::{self, Placement, Rows};
use crate::blobs::{Fetch, Hold, Import, ImportJob, Imported, file_of};

/// The bytes that the store's files take.
fn stored(node: &Node) -> u64 {
    let files = std::fs::read_dir(node.dir.path().join("blobs/data")).unwrap();
    files
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum()
}

/// Forgets the places of a content, and takes the files behind them away as far as nothing else is in them.
async fn drop_content(node: &Node, content: &Imported) -> u64 {
    let dropping = node.blobs.begin_dropping().await;
    let blobs = node
        .blobs
        .blobs_of(std::slice::from_ref(&content.root))
        .await;
    let blobs: HashSet<Hash> = blobs
        .into_iter()
        .next()
        .unwrap()
        .unwrap()
        .into_iter()
        .collect();
    let places = node.blobs.stored_places(blobs).await.unwrap();
    forget(node, &places);
    let files = places
        .iter()
        .filter_map(|(blob, place)| file_of(blob, place));
    let dropped = dropping.take_away(files.collect()).await.unwrap();
    node.commit(&Rows {
        placements: dropped.moved,
        chunks: Vec::new(),
    });
    forget(node, &dropped.left);
    let more = dropping.take_away(dropped.packs).await.unwrap();
    dropped.freed + more.freed
}

fn forget(node: &Node, places: &[(Hash, Placement)]) {
    let transaction = node.db.begin_write().unwrap();
    placement::forget(
        &transaction,
        places.iter().map(|(blob, place)| (blob, place)),
    )
    .unwrap();
    transaction.commit().unwrap();
}

async fn read(node: &Node, content: &Imported) -> Option<Vec<u8>> {
    let whole = 0..content.size;
    let nobody = Fetch::nobody();
    node.blobs
        .read_range(&content.root, whole, &nobody)
        .await
        .ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_dropped_frees_its_bytes_and_can_come_back() {
    let node = Node::new().await;
    // Long enough for pieces of its list, and two contents that share a part.
    let (bytes, more) = (noise(1, 20 << 20), noise(2, 3 << 20));
    let (mut first, other) = (node.store(&bytes).await, node.store(&more).await);
    first.hold = Hold::default();
    let before = stored(&node);
    assert!(drop_content(&node, &first).await >= 20 << 20);
    assert!(stored(&node) < before - (20 << 20));
    assert_eq!(read(&node, &first).await, None);
    assert!(read(&node, &other).await.unwrap() == more);
    let again = node.store(&bytes).await;
    assert_eq!(again.hash, first.hash);
    assert!(read(&node, &again).await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_is_hardly_used_any_more_is_written_anew() {
    let node = Node::new().await;
    let contents: Vec<_> = (0..40).map(|n| noise(n, 50_000)).collect();
    let jobs = (0..).zip(&contents).map(|(n, bytes)| {
        let path = node.path(&format!("small-{n}"));
        std::fs::write(&path, bytes).unwrap();
        ImportJob {
            path,
            into: Import::Store,
        }
    });
    let mut imported = Vec::new();
    for result in node.blobs.import(jobs.collect()).await {
        let mut content = result.unwrap();
        node.commit(&content.rows);
        content.hold = Hold::default();
        imported.push(content);
    }
    assert!(stored(&node) >= 40 * 50_000);
    for content in &imported[..37] {
        drop_content(&node, content).await;
    }
    assert!(stored(&node) < 8 * 60_000, "{} bytes", stored(&node));
    for (content, bytes) in imported.iter().zip(&contents).skip(37) {
        assert!(read(&node, content).await.unwrap() == *bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_added_while_files_are_taken_away_stays() {
    let node = Node::new().await;
    let bytes = noise(1, 1 << 20);
    let content = node.store(&bytes).await;
    let dropping = node.blobs.begin_dropping().await;
    let blobs = node
        .blobs
        .blobs_of(std::slice::from_ref(&content.root))
        .await;
    let blobs: HashSet<Hash> = blobs
        .into_iter()
        .next()
        .unwrap()
        .unwrap()
        .into_iter()
        .collect();
    let places = node.blobs.stored_places(blobs).await.unwrap();
    forget(&node, &places);
    let path = node.path("again");
    std::fs::write(&path, &bytes).unwrap();
    // Read in before the files went, committed after it.
    let again = node.blobs.import_file(path, Import::Store).await.unwrap();
    let files = places
        .iter()
        .filter_map(|(blob, place)| file_of(blob, place));
    let dropped = dropping.take_away(files.collect()).await.unwrap();
    assert_eq!(dropped.freed, 0);
    node.commit(&again.rows);
    assert!(read(&node, &again).await.unwrap() == bytes);
}
