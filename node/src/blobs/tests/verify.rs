//! Finding what has gone bad, and only that.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::fleet::{Node, Peers, noise};
use crate::blobs::placement::{self, Placement};
use crate::blobs::{AtRest, Fetch, Verified};

fn always(at_rest: bool) -> AtRest {
    Arc::new(move |_, _| at_rest)
}

/// Checks everything, stopping after each few bytes and going on from there.
async fn verify(node: &Node, at_rest: bool) -> Verified {
    let mut all = Verified::default();
    let mut after = None;
    loop {
        let found = node.blobs.verify(after, 1, always(at_rest)).await.unwrap();
        all.places += found.places;
        all.bytes += found.bytes;
        all.in_use += found.in_use;
        all.damaged.extend(found.damaged);
        after = found.last;
        if after.is_none() {
            return all;
        }
    }
}

fn flip(path: &std::path::Path, at: u64) {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn stored(node: &Node, pack: &[u8; 32]) -> std::path::PathBuf {
    let name = format!("{}.data", coffer_protocol::identity::Hash(*pack));
    node.dir.path().join("blobs/data").join(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_a_pack_costs_the_frame_that_it_is_in() {
    let (a, b) = (Node::new().await, Node::new().await);
    let mut contents = Vec::new();
    let jobs = (0..5u8).map(|n| {
        let path = a.dir.path().join(format!("elsewhere-{n}"));
        std::fs::write(&path, noise(u64::from(n), 50_000)).unwrap();
        let into = crate::blobs::Import::Store;
        crate::blobs::ImportJob { path, into }
    });
    for imported in a.blobs.import(jobs.collect()).await {
        let imported = imported.unwrap();
        a.commit(&imported.rows);
        contents.push(imported);
    }
    let sound = verify(&a, true).await;
    assert_eq!((sound.places, sound.in_use), (5, 0));
    assert!(
        sound.damaged.is_empty() && sound.bytes > 250_000,
        "{sound:?}"
    );

    let (blob, place) = contents[2].rows.placements[0].clone();
    let Placement::Pack { pack, offset, len } = place else {
        panic!("small contents ride in packs, not {place:?}");
    };
    flip(&stored(&a, &pack), u64::from(offset + len / 2));
    let found = verify(&a, true).await;
    assert_eq!(found.damaged, [(blob, place.clone())]);

    // Another device has it: forgotten and fetched, all is sound again.
    b.store(&noise(2, 50_000)).await;
    let transaction = a.db.begin_write().unwrap();
    placement::forget(&transaction, [(&blob, &place)]).unwrap();
    transaction.commit().unwrap();
    let blobs = BTreeSet::from([blob]);
    assert_eq!(a.blobs.without_place(&blobs).unwrap(), blobs);
    let named = a.blobs.chunks_named(blobs).await.unwrap();
    assert_eq!(named.len(), 1);
    let (nobody, _) = a.blobs.restore(&named, &Fetch::nobody()).await.unwrap();
    assert!(nobody.is_empty());
    let peers = Peers::default().with(1, &b).fetch();
    let (rows, _) = a.blobs.restore(&named, &peers).await.unwrap();
    a.commit(&rows);
    let found = verify(&a, true).await;
    assert_eq!((found.places, found.damaged.len()), (5, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_its_own_that_is_gone_or_flipped_is_found() {
    let a = Node::new().await;
    for n in 0..2 {
        let imported = a.store(&noise(n, 700_000)).await;
        let (blob, place) = imported.rows.placements[0].clone();
        assert_eq!(place, Placement::Store);
        match n {
            0 => flip(&stored(&a, &blob.0), 600_000),
            _ => std::fs::remove_file(stored(&a, &blob.0)).unwrap(),
        }
    }
    assert_eq!(verify(&a, true).await.damaged.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_folder_is_damaged_only_if_nobody_changed_it() {
    let a = Node::new().await;
    let bytes = noise(3, 3 << 20);
    a.add(1, &bytes).await;
    let sound = verify(&a, true).await;
    assert!(sound.damaged.is_empty() && sound.bytes > bytes.len() as u64);
    flip(&a.path("file-1"), 1 << 20);
    let changed = verify(&a, false).await;
    assert!(
        changed.damaged.is_empty() && changed.in_use > 1,
        "{changed:?}"
    );
    let rotten = verify(&a, true).await;
    assert_eq!(rotten.damaged.len(), 1, "{rotten:?}");
    a.set_path(1, None);
    let away = verify(&a, true).await;
    assert!(
        away.damaged.is_empty(),
        "a disk that is not there has lost nothing: {away:?}"
    );
}
