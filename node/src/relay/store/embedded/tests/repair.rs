//! What is put right when a store is opened, and what is refused.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::PermissionsExt;

use redb::Database;

use super::super::{EmbeddedStore, Repaired, tables};
use super::Folder;
use crate::relay::store::conformance::{Bench, PLENTY, all, blob, serving, vault};
use crate::relay::store::{Put, RelayStore, StoreError};

#[tokio::test]
async fn blobs_that_a_disk_lost_are_not_said_to_be_here() {
    let folder = Folder::new();
    let store = serving(&folder, PLENTY).await;
    let blobs: Vec<_> = (0..10).map(|n| blob(n, 1000)).collect();
    let ids: Vec<_> = blobs.iter().map(|(id, _)| *id).collect();
    store.put(vault(0), blobs.clone()).await.unwrap();
    store.close().await;
    let pack = folder.path().join("packs/0/0.pack");
    let file = OpenOptions::new().write(true).open(&pack).unwrap();
    file.set_len(4 * 1036 + 500).unwrap();

    let opened = EmbeddedStore::open(folder.path()).unwrap();
    let expected = Repaired {
        orphans: 0,
        lost: 6,
    };
    assert_eq!(opened.repaired(), expected);
    opened.close().await;
    let store = folder.open().await;
    let have = store.have(vault(0), ids.clone(), false).await.unwrap();
    assert_eq!(have.iter().filter(|here| **here).count(), 4);
    let usage = store.vault(vault(0)).await.unwrap().unwrap().usage;
    assert_eq!((usage.blobs, usage.blob_bytes), (4, 4000));
    // They come again, into the same pack, and all can be read and moved.
    let put = store.put(vault(0), blobs).await.unwrap();
    assert_eq!(put.iter().filter(|put| **put == Put::Stored).count(), 6);
    assert_eq!(fs::metadata(&pack).unwrap().len(), 10 * 1036);
    let found = all(&store, vault(0), ids).await.unwrap();
    for (n, blob) in (0..).zip(found) {
        assert_eq!(
            blob.bytes,
            Some(super::super::super::conformance::content(n, 1000))
        );
    }
}

#[tokio::test]
async fn a_pack_that_is_gone_takes_only_its_blobs_along() {
    let folder = Folder::new();
    let store = serving(&folder, PLENTY).await;
    let large = |n| blob(n, 15 << 20);
    for n in 0..2 {
        store.put(vault(0), vec![large(n)]).await.unwrap();
    }
    store.close().await;
    fs::remove_file(folder.path().join("packs/0/0.pack")).unwrap();
    let store = folder.open().await;
    let have = store.have(vault(0), vec![large(0).0, large(1).0], false);
    assert_eq!(have.await, Ok(vec![false, true]));
    store.put(vault(0), vec![large(0)]).await.unwrap();
    let found = all(&store, vault(0), vec![large(0).0]).await.unwrap();
    assert!(found[0].bytes == Some(large(0).1));
}

#[tokio::test]
async fn what_no_row_names_is_removed() {
    let folder = Folder::new();
    let store = serving(&folder, PLENTY).await;
    store.put(vault(0), vec![blob(1, 100)]).await.unwrap();
    store.close().await;
    let packs = folder.path().join("packs");
    fs::write(packs.join("0/1.pack"), b"never committed").unwrap();
    fs::create_dir(packs.join("7")).unwrap();
    fs::write(packs.join("7/0.pack"), b"of a vault that is gone").unwrap();
    let mut tail = fs::read(packs.join("0/0.pack")).unwrap();
    tail.extend_from_slice(b"never committed either");
    fs::write(packs.join("0/0.pack"), tail).unwrap();

    let opened = EmbeddedStore::open(folder.path()).unwrap();
    let expected = Repaired {
        orphans: 2,
        lost: 0,
    };
    assert_eq!(opened.repaired(), expected);
    opened.put(vault(0), vec![blob(2, 100)]).await.unwrap();
    opened.close().await;
    assert!(!packs.join("7").exists() && !packs.join("0/1.pack").exists());
    assert_eq!(fs::metadata(packs.join("0/0.pack")).unwrap().len(), 2 * 136);
}

#[tokio::test]
async fn a_store_is_opened_once_and_by_its_owner() {
    let folder = Folder::new();
    let store = folder.open().await;
    let again = EmbeddedStore::open(folder.path()).map(|_| ());
    assert_eq!(again, Err(StoreError::InUse));
    let mode = |path| {
        fs::metadata(folder.path().join(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!((mode("host.redb"), mode("packs")), (0o600, 0o700));
    store.close().await;
    folder.open().await;
}

#[tokio::test]
async fn a_newer_layout_is_refused_and_left_as_it_is() {
    let folder = Folder::new();
    folder.open().await.close().await;
    let path = folder.path().join("host.redb");
    let database = Database::open(&path).unwrap();
    let write = database.begin_write().unwrap();
    let newer = tables::LAYOUT + 1;
    write
        .open_table(tables::META)
        .unwrap()
        .insert(tables::LAYOUT_NAME, newer)
        .unwrap();
    write.commit().unwrap();
    drop(database);
    let refused = EmbeddedStore::open(folder.path()).map(|_| ());
    let expected = StoreError::Newer {
        found: newer,
        known: tables::LAYOUT,
    };
    assert_eq!(refused, Err(expected));
}
