//! The writing thread beside others that use the same file. What queries find is tested with the service.

use std::time::Duration;

use rusqlite::Connection;

use super::{BUSY, Index};
use crate::store::{self, tables};

/// A checkpoint on a busy disk holds the file for longer than SQLite waits; who waits for the index is answered all the
/// same, though nothing else changes in the vault.
#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_after_it_was_locked() {
    let folder = tempfile::tempdir().unwrap();
    let vault = store::open(&folder.path().join("vault.redb")).unwrap();
    let path = folder.path().join("index.sqlite");
    let (index, thread) = Index::open(&path, vault.clone()).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();

    let write = vault.begin_write().unwrap();
    let mut key = [0; 12];
    key[..8].copy_from_slice(&1u64.to_be_bytes());
    let mut meta = write.open_table(tables::META).unwrap();
    meta.insert(tables::meta::TRANSACTION, 1u64.to_be_bytes().as_slice())
        .unwrap();
    drop(meta);
    let mut feed = write.open_table(tables::FEED).unwrap();
    feed.insert(&key, &[7; 32]).unwrap();
    drop(feed);
    write.commit().unwrap();
    index.wake();

    let held = std::thread::spawn(move || {
        // Longer than the attempts that the two wakes bring.
        std::thread::sleep(BUSY * 4);
        other.execute_batch("ROLLBACK").unwrap();
    });
    let waited = tokio::time::timeout(Duration::from_secs(60), index.wait_for(1)).await;
    waited.expect("the index follows").unwrap();
    held.join().unwrap();
    index.stop();
    thread.join().await;
}
