//! Ranges of logs.

use coffer_protocol::identity::{EpochId, SpaceId};
use coffer_protocol::ranges::Head;

use super::super::{Appended, KeptRange, NewRange, charge};
use super::*;

/// The range of entries `from` to `to` of the log of writer `n`, as [`entry`] makes them in version 0.
pub fn range(n: u64, from: u64, to: u64, len: usize) -> NewRange {
    NewRange {
        head: Head {
            version: 1,
            vault: vault(0),
            space: SpaceId::HOME,
            writer: writer(n),
            from,
            to,
            prev: entry(n, from, 0, 1).prev,
            last: entry(n, to, 0, 1).header,
            maker: writer(n).device,
            epoch: EpochId([7; 32]),
            salt: hash(n ^ from << 20 ^ to).0,
            root: hash(from ^ to),
            body_len: len as u32,
            body_hash: hash(9),
        },
        bytes: content(n << 40 ^ from << 20 ^ to, len),
    }
}

fn log(n: u64, upto: u64) -> Vec<NewEntry> {
    (1..=upto).map(|seq| entry(n, seq, 0, 1000)).collect()
}

async fn usage(store: &Store) -> u64 {
    let record = store.vault(vault(0)).await.unwrap().unwrap();
    record.usage.entry_bytes
}

pub async fn a_range_lies_beside_its_entries_until_they_are_dropped(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    store.append(vault(0), log(1, 9)).await.unwrap();
    let new = range(1, 3, 6, 700);
    assert_eq!(
        store.put_range(vault(0), new.clone()).await.unwrap(),
        Appended::Stored
    );
    let said = content(5, 200);
    store
        .put_said(vault(0), writer(1), 6, device(2), said.clone())
        .await
        .unwrap();
    // Of a range that is not here nothing is kept.
    store
        .put_said(vault(0), writer(1), 7, device(2), said.clone())
        .await
        .unwrap();
    let mut kept = KeptRange {
        head: new.head.clone(),
        alone: false,
        said: vec![(device(2), said)],
    };
    assert_eq!(store.ranges(vault(0)).await.unwrap(), [kept.clone()]);
    assert_eq!(usage(&store).await, 9 * charge(1000) + charge(700));
    let clock = store.clock(vault(0)).await.unwrap();
    let freed = store.drop_entries(vault(0), writer(1), 6).await.unwrap();
    assert_eq!(freed, 4 * charge(1000));
    assert_eq!(store.drop_entries(vault(0), writer(1), 6).await.unwrap(), 0);
    assert_eq!(usage(&store).await, 5 * charge(1000) + charge(700));
    store.close().await;
    drop(store);
    let store = bench.open().await;
    kept.alone = true;
    assert_eq!(store.ranges(vault(0)).await.unwrap(), [kept]);
    assert_eq!(
        store.range_of(vault(0), writer(1), 6).await.unwrap(),
        Some(new.bytes)
    );
    assert_eq!(store.range_of(vault(0), writer(1), 5).await.unwrap(), None);
    assert_eq!(store.clock(vault(0)).await.unwrap(), clock);
    let read = |from, to| store.entries(vault(0), writer(1), from, to, 1 << 20);
    assert_eq!(read(1, 9).await.unwrap().len(), 2);
    assert!(read(3, 9).await.unwrap().is_empty());
    assert_eq!(read(7, 9).await.unwrap().len(), 3);
    // An entry that comes again, where the range stands in its place, changes nothing.
    let again = store.append(vault(0), log(1, 9)).await.unwrap();
    assert_eq!(again, [Appended::Had; 9]);
}

pub async fn a_log_goes_on_after_a_range(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    store.append(vault(0), log(1, 2)).await.unwrap();
    let put = |range| store.put_range(vault(0), range);
    assert_eq!(
        put(range(1, 4, 6, 10)).await.unwrap(),
        Appended::Gap { last: 2 }
    );
    // Of which the first entries are here.
    assert_eq!(put(range(1, 2, 5, 10)).await.unwrap(), Appended::Stored);
    let clock = store.clock(vault(0)).await.unwrap();
    assert_eq!(clock.get(&writer(1)), Some((5, entry(1, 5, 0, 1).header)));
    assert!(store.ranges(vault(0)).await.unwrap()[0].alone);
    // And one in a log that had not begun.
    assert_eq!(put(range(2, 1, 3, 10)).await.unwrap(), Appended::Stored);
    let next = store.append(vault(0), vec![entry(2, 4, 0, 50)]).await;
    assert_eq!(next.unwrap(), [Appended::Stored]);
    let kept = store.ranges(vault(0)).await.unwrap();
    assert_eq!(kept.len(), 2);
}

pub async fn a_range_of_another_history_is_refused(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    store.append(vault(0), log(1, 6)).await.unwrap();
    let put = |range| store.put_range(vault(0), range);
    let forked = |seq| {
        let ours = entry(1, seq, 0, 1).header;
        Appended::Forked { seq, ours }
    };
    let mut other = range(1, 2, 4, 10);
    other.head.last = hash(1);
    assert_eq!(put(other).await.unwrap(), forked(4));
    let mut other = range(1, 2, 4, 10);
    other.head.prev = hash(1);
    assert_eq!(put(other).await.unwrap(), forked(1));
    let mut other = range(1, 7, 9, 10);
    other.head.prev = hash(1);
    assert_eq!(put(other).await.unwrap(), forked(6));
    assert!(store.ranges(vault(0)).await.unwrap().is_empty());
}

pub async fn a_range_takes_the_place_of_those_that_it_overlaps_but_not_of_one_that_is_alone(
    bench: &dyn Bench,
) {
    let store = serving(bench, PLENTY).await;
    store.append(vault(0), log(1, 9)).await.unwrap();
    let put = |range| store.put_range(vault(0), range);
    put(range(1, 1, 3, 300)).await.unwrap();
    put(range(1, 4, 6, 300)).await.unwrap();
    let said = store.put_said(vault(0), writer(1), 3, device(2), content(1, 9));
    said.await.unwrap();
    assert_eq!(put(range(1, 3, 5, 300)).await.unwrap(), Appended::Stored);
    let kept = store.ranges(vault(0)).await.unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].head.from, kept[0].head.to), (3, 5));
    assert!(kept[0].said.is_empty());
    store.drop_entries(vault(0), writer(1), 5).await.unwrap();
    assert_eq!(put(range(1, 1, 3, 300)).await.unwrap(), Appended::Had);
    assert_eq!(store.ranges(vault(0)).await.unwrap().len(), 1);
    // It counts as an entry, and stops where those stop.
    store.set_quota(vault(0), 0).await.unwrap();
    let reserve = 17 << 20;
    let full = put(range(1, 6, 8, 300)).await.unwrap();
    assert_eq!(full, Appended::Stored, "within the reserve");
    for n in 0.. {
        let many = entry(3, n + 1, 0, 1 << 20);
        if store.append(vault(0), vec![many]).await.unwrap() == [Appended::Full] {
            break;
        }
        assert!(n << 20 < reserve, "the reserve has no end");
    }
    let full = put(range(1, 9, 9, 1 << 20)).await.unwrap();
    assert_eq!(full, Appended::Full);
}
