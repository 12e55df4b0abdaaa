//! Vaults as a whole: found, erased, still there after a restart.

use super::super::{HeldStatement, Released};
use super::*;

pub async fn vaults_are_listed_in_pages(bench: &dyn Bench) {
    let store = bench.open().await;
    let mut ids: Vec<_> = (0..7).map(vault).collect();
    for (id, quota) in ids.iter().zip(1..) {
        serve(&store, *id, quota).await;
    }
    ids.sort_unstable();
    let page = async |after, max| -> Vec<VaultId> {
        let records = store.vaults(after, max).await.unwrap();
        records.into_iter().map(|record| record.vault).collect()
    };
    assert_eq!(page(None, 4).await, ids[..4]);
    assert_eq!(page(Some(ids[3]), 4).await, ids[4..]);
    assert_eq!(page(Some(ids[6]), 4).await, []);
    let totals = store.totals().await.unwrap();
    assert_eq!((totals.vaults, totals.quota), (7, 28));
}

pub async fn members_and_their_visits_are_kept(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    serve(&store, vault(1), PLENTY).await;
    let members = |of: &[u64]| of.iter().map(|n| device(*n)).collect::<Vec<_>>();
    let set = async |n, of: &[u64]| store.set_members(vault(n), members(of)).await.unwrap();
    set(0, &[1, 2, 2]).await;
    set(1, &[2, 3]).await;
    let of = async |n| store.vaults_of(device(n)).await.unwrap();
    let mut both = vec![vault(0), vault(1)];
    both.sort_unstable();
    assert_eq!(of(1).await, [vault(0)]);
    assert_eq!(of(2).await, both);
    assert_eq!(of(4).await, []);
    set(0, &[3]).await;
    assert_eq!((of(1).await, of(2).await), (vec![], vec![vault(1)]));
    assert_eq!(of(3).await, both);

    for (n, at) in [(1, 5), (2, 9), (1, 7), (2, 8)] {
        let noted = store.note_seen(vault(0), device(n), at);
        noted.await.unwrap();
    }
    let mut seen = vec![(device(1), 7), (device(2), 9)];
    seen.sort_unstable();
    assert_eq!(store.seen(vault(0)).await, Ok(seen));
    assert_eq!(store.seen(vault(1)).await, Ok(Vec::new()));
    store.erase(vault(1), Bytes::new(), NOW).await.unwrap();
    assert_eq!(of(2).await, []);
}

pub async fn what_is_not_served_is_refused(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    let v = vault(9);
    let none = StoreError::NoVault(v);
    assert_eq!(store.vault(v).await, Ok(None));
    assert_eq!(store.snapshot(v).await, Ok(None));
    assert_eq!(store.erase(v, Bytes::new(), NOW).await, Ok(false));
    assert_eq!(store.receipt(v).await, Ok(None));
    assert_eq!(store.set_quota(v, 1).await, Err(none.clone()));
    assert_eq!(store.set_members(v, vec![]).await, Err(none.clone()));
    assert_eq!(store.note_seen(v, device(1), 1).await, Err(none.clone()));
    assert_eq!(store.seen(v).await, Err(none.clone()));
    assert_eq!(store.put_grants(v, vec![]).await, Err(none.clone()));
    assert_eq!(store.grants(v).await, Err(none.clone()));
    assert_eq!(store.append(v, vec![]).await, Err(none.clone()));
    let read = store.entries(v, writer(1), 1, 1, 9).await;
    assert_eq!(read, Err(none.clone()));
    assert_eq!(store.clock(v).await, Err(none.clone()));
    let statement = HeldStatement {
        device: device(1),
        counter: 1,
        bytes: Bytes::new(),
    };
    assert_eq!(store.put_held(v, statement).await, Err(none.clone()));
    assert_eq!(store.held(v).await, Err(none.clone()));
    let stated = store.put_host_statement(v, 1, Bytes::new()).await;
    assert_eq!(stated, Err(none.clone()));
    assert_eq!(store.have(v, vec![hash(1)], false).await, Err(none.clone()));
    assert_eq!(store.have(v, vec![hash(1)], true).await, Err(none.clone()));
    assert_eq!(store.put(v, vec![blob(1, 9)]).await, Err(none.clone()));
    assert_eq!(all(&store, v, vec![hash(1)]).await, Err(none.clone()));
    assert_eq!(store.range(v, hash(1), 0, 9).await, Err(none.clone()));
    assert_eq!(store.list(v, None, 9).await, Err(none.clone()));
    let release = store.release(v, device(1), vec![hash(1)], NOW).await;
    assert_eq!(release, Err(none.clone()));
    assert_eq!(store.released(v, None, 9).await, Err(none.clone()));
    let freed = store.free(v, vec![]).await;
    assert_eq!(freed, Err(none));
}

/// Something of every kind.
async fn fill(store: &Store, v: VaultId) {
    let members = vec![device(1), device(2)];
    store.set_members(v, members).await.unwrap();
    store.note_seen(v, device(1), NOW).await.unwrap();
    let grants = (0..3).map(|n| (hash(n), content(n, 30_000))).collect();
    store.put_grants(v, grants).await.unwrap();
    let log = (1..=30).map(|seq| entry(1, seq, 0, 2000)).collect();
    store.append(v, log).await.unwrap();
    let statement = HeldStatement {
        device: device(1),
        counter: 4,
        bytes: content(4, 40_000),
    };
    store.put_held(v, statement).await.unwrap();
    let stated = store.put_host_statement(v, 1, content(5, 300)).await;
    assert_eq!(stated, Ok(true));
    let blobs: Vec<_> = (0..50).map(|n| blob(n, 9000)).collect();
    let ids = blobs.iter().take(20).map(|(id, _)| *id).collect();
    store.put(v, blobs).await.unwrap();
    store.release(v, device(2), ids, NOW).await.unwrap();
}

/// All that can be read of a vault.
async fn picture(store: &Store, v: VaultId) -> String {
    let ids = store.list(v, None, 9999).await;
    let blobs = all(store, v, ids.clone().unwrap_or_default()).await;
    let blobs = blobs.map(|blobs| {
        let bytes = blobs.into_iter().filter_map(|blob| blob.bytes);
        bytes.map(|bytes| blake3::hash(&bytes)).collect::<Vec<_>>()
    });
    format!(
        "{:?}",
        (
            store.snapshot(v).await,
            store.seen(v).await,
            store.grants(v).await,
            store.entries(v, writer(1), 1, 99, 1 << 20).await,
            store.held(v).await,
            store.released(v, None, 9999).await,
            store.vaults_of(device(1)).await,
            (ids, blobs),
        )
    )
}

pub async fn an_erased_vault_leaves_only_its_receipt(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    let empty = picture(&store, vault(0)).await;
    fill(&store, vault(0)).await;
    let receipt = content(99, 200);
    let erased = store.erase(vault(0), receipt.clone(), NOW + 5).await;
    assert_eq!(erased, Ok(true));
    assert_eq!(store.vault(vault(0)).await, Ok(None));
    assert_eq!(store.vaults_of(device(1)).await, Ok(Vec::new()));
    assert_eq!(store.receipt(vault(0)).await, Ok(Some(receipt.clone())));
    assert_eq!(store.totals().await, Ok(Default::default()));
    let again = store.erase(vault(0), content(1, 3), NOW + 9).await;
    assert_eq!(again, Ok(false));
    assert_eq!(store.receipt(vault(0)).await, Ok(Some(receipt)));

    // It comes back by another invitation, and with nothing.
    store.remove_invitation(Hash(vault(0).0)).await.unwrap();
    serve(&store, vault(0), PLENTY).await;
    assert_eq!(picture(&store, vault(0)).await, empty);
    fill(&store, vault(0)).await;
    while store.tidy().await.unwrap().more {}
    let ids = store.list(vault(0), None, 9999).await.unwrap();
    assert_eq!(ids.len(), 50);
    let found = all(&store, vault(0), ids).await.unwrap();
    assert!(found.iter().all(|blob| blob.bytes.is_some()));

    assert_eq!(store.forget(NOW + 5).await, Ok(0));
    assert_eq!(store.forget(NOW + 6).await, Ok(1));
    assert_eq!(store.receipt(vault(0)).await, Ok(None));
}

pub async fn erasing_hinders_no_other_vault(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    for n in 1..3 {
        serve(&store, vault(n), PLENTY).await;
    }
    for n in 0..3 {
        fill(&store, vault(n)).await;
    }
    let before = (
        picture(&store, vault(0)).await.replace("x", ""),
        picture(&store, vault(2)).await,
    );
    store.erase(vault(1), Bytes::new(), NOW).await.unwrap();
    while store.tidy().await.unwrap().more {}
    // All but who names them is as it was.
    let of = store.vaults_of(device(1)).await.unwrap();
    assert_eq!(of.len(), 2);
    for n in [0, 2] {
        fill_is_whole(&store, vault(n)).await;
    }
    assert_ne!(before.0, before.1);
}

async fn fill_is_whole(store: &Store, v: VaultId) {
    let record = store.vault(v).await.unwrap().unwrap();
    assert_eq!((record.usage.blobs, record.usage.entries), (50, 30));
    let ids = store.list(v, None, 99).await.unwrap();
    let found = all(store, v, ids.clone()).await.unwrap();
    for (id, blob) in ids.iter().zip(found) {
        let bytes = blob.bytes.expect("a blob that is listed");
        assert_eq!(Hash(*blake3::hash(&bytes).as_bytes()), *id);
    }
    let released: Vec<Released> = store.released(v, None, 99).await.unwrap();
    assert_eq!(released.len(), 20);
    let read = store.entries(v, writer(1), 1, 99, 1 << 20).await.unwrap();
    assert_eq!(read.len(), 30);
}

pub async fn everything_survives_reopening(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    fill(&store, vault(0)).await;
    serve(&store, vault(1), PLENTY).await;
    fill(&store, vault(1)).await;
    store.erase(vault(1), content(3, 9), NOW).await.unwrap();
    let before = (
        picture(&store, vault(0)).await,
        store.invitations(None, 99).await,
    );
    store.close().await;
    drop(store);
    let store = bench.open().await;
    let after = (
        picture(&store, vault(0)).await,
        store.invitations(None, 99).await,
    );
    assert_eq!(after, before);
    assert_eq!(store.vault(vault(1)).await, Ok(None));
    assert_eq!(store.receipt(vault(1)).await, Ok(Some(content(3, 9))));
    // And it goes on where it was.
    let next = store.append(vault(0), vec![entry(1, 31, 0, 9)]).await;
    assert_eq!(next, Ok(vec![super::super::Appended::Stored]));
    let put = store
        .put(vault(0), vec![blob(0, 9000), blob(60, 9000)])
        .await;
    let expected = vec![super::super::Put::Had, super::super::Put::Stored];
    assert_eq!(put, Ok(expected));
}

pub async fn a_closed_store_refuses(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    assert_eq!(store.ready().await, Ok(()));
    let mut changes = store.changes();
    store.close().await;
    assert_eq!(changes.next().await, None);
    assert_eq!(store.ready().await, Err(StoreError::Closed));
    assert_eq!(store.vault(vault(0)).await, Err(StoreError::Closed));
    assert_eq!(store.set_quota(vault(0), 1).await, Err(StoreError::Closed));
    let put = store.put(vault(0), vec![blob(1, 9)]).await;
    assert_eq!(put, Err(StoreError::Closed));
    let got = all(&store, vault(0), vec![hash(1)]).await;
    assert_eq!(got, Err(StoreError::Closed));
    let tidied = store.tidy().await;
    assert_eq!(tidied, Err(StoreError::Closed));
    store.close().await;
}

pub async fn what_was_only_dropped_opens_again(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    fill(&store, vault(0)).await;
    let before = picture(&store, vault(0)).await;
    drop(store);
    let store = bench.open().await;
    assert_eq!(picture(&store, vault(0)).await, before);
}
