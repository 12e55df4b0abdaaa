//! Blobs: kept once, within the quota, and freed only as the caller saw them.

use super::super::{Freed, MAX_IDS, MAX_PUT_BYTES, Put, Released, charge};
use super::*;

pub async fn blobs_come_back(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    let sizes = [0, 1, 255, 256, 8192, 70_000, 1 << 20, (1 << 20) + 17];
    let blobs: Vec<_> = (0..).zip(sizes).map(|(n, len)| blob(n, len)).collect();
    let ids: Vec<_> = blobs.iter().map(|(id, _)| *id).collect();
    let missing = store.have(vault(0), ids.clone(), false).await.unwrap();
    assert_eq!(missing, vec![false; ids.len()]);
    let stored = store.put(vault(0), blobs.clone()).await.unwrap();
    assert_eq!(stored, vec![Put::Stored; ids.len()]);
    let have = store.have(vault(0), ids.clone(), false).await.unwrap();
    assert_eq!(have, vec![true; ids.len()]);
    let read = all(&store, vault(0), ids.clone()).await.unwrap();
    let read: Vec<_> = read.into_iter().map(|blob| blob.bytes).collect();
    let kept: Vec<_> = blobs.iter().map(|(_, bytes)| Some(bytes.clone())).collect();
    assert!(read == kept);
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    assert_eq!(store.list(vault(0), None, 9999).await, Ok(sorted.clone()));
    assert_eq!(
        store.list(vault(0), None, 3).await.as_deref(),
        Ok(&sorted[..3])
    );
    let rest = store.list(vault(0), Some(sorted[2]), 99).await;
    assert_eq!(rest.as_deref(), Ok(&sorted[3..]));
    let usage = store.vault(vault(0)).await.unwrap().unwrap().usage;
    assert_eq!(usage.blobs, sizes.len() as u64);
    assert_eq!(usage.blob_bytes, sizes.map(charge).iter().sum::<u64>());
    let totals = store.totals().await.unwrap();
    assert_eq!((totals.vaults, totals.usage), (1, usage));
}

pub async fn every_id_is_answered_once(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    let mut ids = Vec::new();
    for batch in 0..3 {
        let blobs: Vec<_> = (0..300).map(|n| blob(batch * 1000 + n, 9000)).collect();
        ids.extend(blobs.iter().map(|(id, _)| *id));
        store.put(vault(0), blobs).await.unwrap();
    }
    let mut asked: Vec<_> = ids.iter().rev().step_by(2).copied().collect();
    asked.extend((0..50).map(hash));
    asked.extend(ids.iter().take(20));
    asked.extend(ids.iter().take(20));
    let answers = all(&store, vault(0), asked.clone()).await.unwrap();
    assert_eq!(answers.len(), asked.len());
    for (at, (blob, id)) in answers.iter().zip(&asked).enumerate() {
        assert_eq!(blob.index, at);
        let found = blob
            .bytes
            .as_ref()
            .map(|bytes| Hash(*blake3::hash(bytes).as_bytes()));
        assert_eq!(found, ids.contains(id).then_some(*id));
    }
    assert_eq!(all(&store, vault(0), Vec::new()).await, Ok(Vec::new()));
}

pub async fn a_blob_is_kept_once(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    let batch = vec![blob(1, 500), blob(2, 500), blob(1, 500)];
    let put = store.put(vault(0), batch.clone()).await.unwrap();
    assert_eq!(put, [Put::Stored, Put::Stored, Put::Had]);
    let again = store.put(vault(0), batch).await.unwrap();
    assert_eq!(again, [Put::Had; 3]);
    let usage = store.vault(vault(0)).await.unwrap().unwrap().usage;
    assert_eq!((usage.blobs, usage.blob_bytes), (2, 1000));
    // Another vault's are its own.
    serve(&store, vault(1), PLENTY).await;
    let have = store.have(vault(1), vec![blob(1, 500).0], false).await;
    assert_eq!(have, Ok(vec![false]));
    let other = all(&store, vault(1), vec![blob(1, 500).0]).await.unwrap();
    assert_eq!(other[0].bytes, None);
}

pub async fn blobs_stop_at_the_quota(bench: &dyn Bench) {
    let store = serving(bench, 10_000).await;
    let batch = vec![blob(1, 6000), blob(2, 5000), blob(3, 4000), blob(4, 1)];
    use Put::{Full, Had, Stored};
    let put = store.put(vault(0), batch.clone()).await.unwrap();
    assert_eq!(put, [Stored, Full, Stored, Full]);
    let again = store.put(vault(0), batch).await.unwrap();
    assert_eq!(again, [Had, Full, Had, Full]);
    let usage = store.vault(vault(0)).await.unwrap().unwrap().usage;
    assert_eq!((usage.blobs, usage.bytes()), (2, 10_000));
    // A quota that shrinks takes nothing away.
    store.set_quota(vault(0), 0).await.unwrap();
    let read = all(&store, vault(0), vec![blob(1, 6000).0]).await.unwrap();
    assert_eq!(read[0].bytes, Some(content(1, 6000)));
}

pub async fn puts_at_once_stay_within_the_quota(bench: &dyn Bench) {
    let store = serving(bench, 50_000).await;
    let beside = bench.open_beside().await;
    let other = beside.as_ref().unwrap_or(&store);
    let batch = |from: u64| -> Vec<_> { (from..from + 7).map(|n| blob(n, 1000)).collect() };
    let puts = (0..16).map(|n| match n % 2 {
        0 => store.put(vault(0), batch(n * 5)),
        _ => other.put(vault(0), batch(n * 5)),
    });
    let outcomes = futures::future::join_all(puts).await;
    let stored = outcomes.iter().flatten().flatten();
    let stored = stored.filter(|put| **put == Put::Stored).count();
    assert_eq!(stored, 50);
    let usage = store.vault(vault(0)).await.unwrap().unwrap().usage;
    assert_eq!((usage.blobs, usage.blob_bytes), (50, 50_000));
    let ids = store.list(vault(0), None, 99).await.unwrap();
    assert_eq!(ids.len(), 50);
    for (id, found) in ids
        .iter()
        .zip(all(&store, vault(0), ids.clone()).await.unwrap())
    {
        let bytes = found.bytes.expect("a blob that is listed");
        assert_eq!(Hash(*blake3::hash(&bytes).as_bytes()), *id);
    }
}

async fn released(store: &Store) -> Vec<Released> {
    store.released(vault(0), None, MAX_IDS).await.unwrap()
}

pub async fn a_release_alone_frees_nothing(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    let id = blob(1, 500).0;
    store.put(vault(0), vec![blob(1, 500)]).await.unwrap();
    assert_eq!(released(&store).await, []);
    let (one, two) = (device(1).min(device(2)), device(1).max(device(2)));
    let release = async |device, at| {
        let ids = vec![id, hash(77)];
        store.release(vault(0), device, ids, at).await.unwrap();
    };
    release(two, NOW).await;
    release(one, NOW + 5).await;
    // The first time counts.
    release(two, NOW + 9).await;
    let by = vec![(one, NOW + 5), (two, NOW)];
    assert_eq!(released(&store).await, [Released { id, by: by.clone() }]);
    store.tidy().await.unwrap();
    let have = store.have(vault(0), vec![id], false).await;
    assert_eq!(have, Ok(vec![true]));
    let freed = store.free(vault(0), vec![Released { id, by }]).await;
    assert_eq!(
        freed,
        Ok(Freed {
            blobs: 1,
            bytes: 500
        })
    );
    let have = store.have(vault(0), vec![id], false).await;
    assert_eq!(have, Ok(vec![false]));
    assert_eq!(released(&store).await, []);
    assert_eq!(store.list(vault(0), None, 9).await, Ok(Vec::new()));
}

pub async fn a_claim_takes_releases_back(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    let ids: Vec<_> = (0..3).map(|n| blob(n, 500).0).collect();
    let blobs = (0..3).map(|n| blob(n, 500)).collect();
    store.put(vault(0), blobs).await.unwrap();
    let release = store.release(vault(0), device(1), ids.clone(), NOW);
    release.await.unwrap();
    let asked = vec![ids[0], hash(77), ids[1]];
    let looked = store.have(vault(0), asked.clone(), false).await;
    assert_eq!(looked, Ok(vec![true, false, true]));
    assert_eq!(released(&store).await.len(), 3);
    let claimed = store.have(vault(0), asked, true).await;
    assert_eq!(claimed, Ok(vec![true, false, true]));
    let left: Vec<_> = released(&store)
        .await
        .into_iter()
        .map(|one| one.id)
        .collect();
    assert_eq!(left, [ids[2]]);
}

pub async fn a_put_takes_releases_back(bench: &dyn Bench) {
    let store = serving(bench, 1000).await;
    let blobs = vec![blob(1, 500), blob(2, 500)];
    let ids = blobs.iter().map(|(id, _)| *id).collect();
    store.put(vault(0), blobs).await.unwrap();
    let release = store.release(vault(0), device(1), ids, NOW);
    release.await.unwrap();
    // Also where the quota is full.
    let put = store.put(vault(0), vec![blob(3, 9), blob(1, 500)]).await;
    assert_eq!(put, Ok(vec![Put::Full, Put::Had]));
    let left: Vec<_> = released(&store)
        .await
        .into_iter()
        .map(|one| one.id)
        .collect();
    assert_eq!(left, [blob(2, 500).0]);
}

pub async fn what_changed_since_is_not_freed(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    let ids: Vec<_> = (0..3).map(|n| blob(n, 500).0).collect();
    let blobs = (0..3).map(|n| blob(n, 500)).collect();
    store.put(vault(0), blobs).await.unwrap();
    let release = store.release(vault(0), device(1), ids.clone(), NOW);
    release.await.unwrap();
    let seen = released(&store).await;
    assert_eq!(seen.len(), 3);
    // Claimed and released again, which is another release.
    store.have(vault(0), vec![ids[0]], true).await.unwrap();
    let again = store.release(vault(0), device(1), vec![ids[0]], NOW + 1);
    again.await.unwrap();
    let more = store.release(vault(0), device(2), vec![ids[1]], NOW);
    more.await.unwrap();
    let never = Released {
        id: ids[2],
        by: Vec::new(),
    };
    let freed = store.free(vault(0), vec![never]).await.unwrap();
    assert_eq!(freed.blobs, 0);
    let freed = store.free(vault(0), seen.clone()).await.unwrap();
    assert_eq!((freed.blobs, freed.bytes), (1, 500));
    let have = store.have(vault(0), ids, false).await;
    assert_eq!(have, Ok(vec![true, true, false]));
    let again = store.free(vault(0), seen).await.unwrap();
    assert_eq!(again.blobs, 0);
}

pub async fn freed_room_is_used_again(bench: &dyn Bench) {
    let store = serving(bench, 100_000).await;
    for round in 0..5 {
        let blobs: Vec<_> = (0..100).map(|n| blob(round << 20 | n, 1000)).collect();
        let ids: Vec<_> = blobs.iter().map(|(id, _)| *id).collect();
        let put = store.put(vault(0), blobs).await.unwrap();
        assert_eq!(put, vec![Put::Stored; 100], "{round}");
        let release = store.release(vault(0), device(1), ids, NOW);
        release.await.unwrap();
        let freed = store.free(vault(0), released(&store).await).await;
        assert_eq!(freed.unwrap().blobs, 100);
        while store.tidy().await.unwrap().more {}
    }
    let usage = store.vault(vault(0)).await.unwrap().unwrap().usage;
    assert_eq!(usage, Default::default());
}

pub async fn what_stays_is_read_after_tidying(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    let mut ids = Vec::new();
    for batch in 0..6 {
        let blobs: Vec<_> = (0..6).map(|n| blob(batch << 20 | n, 1 << 20)).collect();
        ids.extend(blobs.iter().map(|(id, _)| *id));
        store.put(vault(0), blobs).await.unwrap();
    }
    let (go, stay): (Vec<_>, Vec<_>) = ids.iter().enumerate().partition(|(at, _)| at % 4 != 0);
    let only = |of: Vec<(usize, &Hash)>| of.into_iter().map(|(_, id)| *id).collect::<Vec<_>>();
    let (go, stay) = (only(go), only(stay));
    let release = store.release(vault(0), device(1), go.clone(), NOW);
    release.await.unwrap();
    store.free(vault(0), released(&store).await).await.unwrap();
    let mut freed = 0;
    loop {
        let tidied = store.tidy().await.unwrap();
        freed += tidied.freed_bytes;
        if !tidied.more {
            break;
        }
    }
    assert!(freed >= 16 << 20, "{freed}");
    for (id, found) in stay
        .iter()
        .zip(all(&store, vault(0), stay.clone()).await.unwrap())
    {
        let bytes = found.bytes.expect("a blob that stays");
        assert_eq!(Hash(*blake3::hash(&bytes).as_bytes()), *id);
    }
    let gone = store.have(vault(0), go.clone(), false).await.unwrap();
    assert_eq!(gone, vec![false; go.len()]);
}

pub async fn parts_of_blobs_are_read(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    let (id, bytes) = blob(1, 10_000);
    let put = vec![blob(0, 3000), (id, bytes.clone()), blob(2, 3000)];
    store.put(vault(0), put).await.unwrap();
    let range = async |offset, len| store.range(vault(0), id, offset, len).await;
    assert_eq!(range(0, 4096).await, Ok(Some(bytes.slice(..4096))));
    assert_eq!(range(9000, 4096).await, Ok(Some(bytes.slice(9000..))));
    assert_eq!(range(10_000, 1).await, Ok(Some(Bytes::new())));
    assert_eq!(range(u64::MAX, u32::MAX).await, Ok(Some(Bytes::new())));
    assert_eq!(range(5, 0).await, Ok(Some(Bytes::new())));
    assert_eq!(store.range(vault(0), hash(9), 0, 9).await, Ok(None));
}

pub async fn damaged_bytes_are_forgotten_and_put_again(bench: &dyn Bench) {
    let store = serving(bench, 10_000).await;
    serve(&store, vault(1), PLENTY).await;
    let blobs: Vec<_> = (0..4).map(|n| blob(n, 2500)).collect();
    let ids: Vec<_> = blobs.iter().map(|(id, _)| *id).collect();
    for one in &blobs {
        store.put(vault(0), vec![one.clone()]).await.unwrap();
    }
    let other = vec![blob(7, 2500)];
    store.put(vault(1), other.clone()).await.unwrap();
    let verify = async |ids: &[Hash]| store.verify(vault(0), ids.to_vec()).await;
    let asked = [&ids[..], &[hash(77), other[0].0, ids[0]]].concat();
    assert_eq!(verify(&asked).await, Ok(Vec::new()));
    bench.damage(vault(0), ids[1], Damage::Altered).await;
    bench.damage(vault(1), other[0].0, Damage::Lost).await;
    let release = store.release(vault(0), device(1), ids.clone(), NOW);
    release.await.unwrap();
    // Nobody has looked: they count as here.
    let have = store.have(vault(0), ids.clone(), false).await;
    assert_eq!(have, Ok(vec![true; 4]));
    assert_eq!(verify(&asked).await, Ok(vec![ids[1]]));
    let lost = store.verify(vault(1), vec![other[0].0]).await;
    assert_eq!(lost, Ok(vec![other[0].0]));
    let have = store.have(vault(0), ids.clone(), false).await;
    assert_eq!(have, Ok(vec![true, false, true, true]));
    assert_eq!(store.list(vault(0), None, 9).await.unwrap().len(), 3);
    assert_eq!(store.range(vault(0), ids[1], 0, 9).await, Ok(None));
    let left = released(&store).await;
    assert!(left.len() == 3 && left.iter().all(|one| one.id != ids[1]));
    let usage = store.vault(vault(0)).await.unwrap().unwrap().usage;
    assert_eq!((usage.blobs, usage.blob_bytes), (3, 7500));
    // There is room for them, and they are whole.
    let put = store.put(vault(0), blobs.clone()).await.unwrap();
    assert_eq!(put, [Put::Had, Put::Stored, Put::Had, Put::Had]);
    let put = store.put(vault(1), other.clone()).await.unwrap();
    assert_eq!(put, [Put::Stored]);
    assert_eq!(verify(&asked).await, Ok(Vec::new()));
    let found = all(&store, vault(0), ids).await.unwrap();
    for (found, (_, bytes)) in found.iter().zip(&blobs) {
        assert_eq!(found.bytes.as_ref(), Some(bytes));
    }
    let usage = store.vault(vault(0)).await.unwrap().unwrap().usage;
    assert_eq!((usage.blobs, usage.blob_bytes), (4, 10_000));
    let many = (0..=super::super::MAX_VERIFY as u64).map(hash).collect();
    let refused = store.verify(vault(0), many).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })));
    let nobody = store.verify(vault(9), Vec::new()).await;
    assert_eq!(nobody, Err(StoreError::NoVault(vault(9))));
}

pub async fn what_is_whole_survives_tidying_beside_what_is_damaged(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    let blobs: Vec<_> = (0..12).map(|n| blob(n, 3 << 20)).collect();
    for one in &blobs {
        store.put(vault(0), vec![one.clone()]).await.unwrap();
    }
    let ids: Vec<_> = blobs.iter().map(|(id, _)| *id).collect();
    bench.damage(vault(0), ids[0], Damage::Altered).await;
    // Little is left of what lies together.
    let go = ids.iter().enumerate().filter(|(at, _)| at % 4 != 0);
    let go: Vec<_> = go.map(|(_, id)| *id).collect();
    let release = store.release(vault(0), device(1), go.clone(), NOW);
    release.await.unwrap();
    store.free(vault(0), released(&store).await).await.unwrap();
    while store.tidy().await.unwrap().more {}
    store.verify(vault(0), vec![ids[0]]).await.unwrap();
    let found = all(&store, vault(0), ids.clone()).await.unwrap();
    for (at, found) in found.iter().enumerate() {
        let is_here = at % 4 == 0 && at > 0;
        assert!(
            found.bytes.as_ref() == is_here.then_some(&blobs[at].1),
            "{at}"
        );
    }
    store.put(vault(0), vec![blobs[0].clone()]).await.unwrap();
    let found = all(&store, vault(0), vec![ids[0]]).await.unwrap();
    assert!(found[0].bytes.as_ref() == Some(&blobs[0].1));
}

pub async fn too_much_at_once_is_refused(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    let big = vec![blob(1, MAX_PUT_BYTES / 2), blob(2, MAX_PUT_BYTES / 2 + 1)];
    let refused = |error| matches!(error, StoreError::TooLarge { .. });
    assert!(store.put(vault(0), big).await.is_err_and(refused));
    let many: Vec<_> = (0..=MAX_IDS as u64).map(hash).collect();
    let have = store.have(vault(0), many.clone(), true).await;
    assert!(have.is_err_and(refused));
    assert!(
        all(&store, vault(0), many.clone())
            .await
            .is_err_and(refused)
    );
    let release = store.release(vault(0), device(1), many, NOW).await;
    assert!(release.is_err_and(refused));
    assert_eq!(store.list(vault(0), None, 9).await, Ok(Vec::new()));
}
