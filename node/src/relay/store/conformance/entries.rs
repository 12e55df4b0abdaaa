//! Logs: appended in order, never two entries at one number.

use super::super::{Appended, MAX_APPEND_BYTES, MAX_WRITERS, StoredEntry, entry_limit};
use super::*;
use coffer_protocol::log::Clock;

pub async fn entries_are_read_as_they_were_appended(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    let log: Vec<_> = (1..=20).map(|seq| entry(1, seq, 0, 500)).collect();
    let mut mixed = log.clone();
    mixed.insert(7, entry(2, 1, 0, 10));
    let stored = store.append(vault(0), mixed).await.unwrap();
    assert_eq!(stored, vec![Appended::Stored; 21]);
    let read = async |from, to| {
        let read = store.entries(vault(0), writer(1), from, to, 1 << 20);
        read.await.unwrap()
    };
    let expected = |from: usize, to: usize| -> Vec<_> {
        let part = log[from - 1..to].iter();
        part.map(|entry| StoredEntry {
            seq: entry.seq,
            bytes: entry.bytes.clone(),
        })
        .collect()
    };
    assert_eq!(read(1, 20).await, expected(1, 20));
    assert_eq!(read(5, 9).await, expected(5, 9));
    assert_eq!(read(0, 2).await, expected(1, 2));
    assert_eq!(read(19, u64::MAX).await, expected(19, 20));
    assert_eq!(read(21, 30).await, []);
    assert_eq!(read(9, 5).await, []);
    let clock: Clock = [
        (writer(1), (20, log[19].header)),
        (writer(2), (1, entry(2, 1, 0, 10).header)),
    ]
    .into_iter()
    .collect();
    assert_eq!(store.clock(vault(0)).await, Ok(clock));
    let usage = store.vault(vault(0)).await.unwrap().unwrap().usage;
    assert_eq!((usage.entries, usage.entry_bytes), (21, 20 * 500 + 256));
}

pub async fn appending_again_changes_nothing(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    let log: Vec<_> = (1..=5).map(|seq| entry(1, seq, 0, 300)).collect();
    store.append(vault(0), log[..3].to_vec()).await.unwrap();
    let again = store.append(vault(0), log.clone()).await.unwrap();
    use Appended::{Had, Stored};
    assert_eq!(again, [Had, Had, Had, Stored, Stored]);
    let twice = store
        .append(vault(0), vec![entry(2, 1, 0, 9), entry(2, 1, 0, 9)])
        .await;
    assert_eq!(twice.unwrap(), [Stored, Had]);
    let usage = store.vault(vault(0)).await.unwrap().unwrap().usage;
    assert_eq!(usage.entries, 6);
}

pub async fn another_entry_at_a_number_is_refused(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    let log: Vec<_> = (1..=5).map(|seq| entry(1, seq, 0, 300)).collect();
    store.append(vault(0), log.clone()).await.unwrap();
    for seq in 1..=5 {
        let forged = store
            .append(vault(0), vec![entry(1, seq, 1, 300), entry(2, seq, 0, 9)])
            .await;
        let ours = log[seq as usize - 1].header;
        // What is refused of one log hinders no other.
        let expected = [Appended::Forked { seq, ours }, Appended::Stored];
        assert_eq!(forged.unwrap(), expected);
    }
    let read = store.entries(vault(0), writer(1), 1, 9, 1 << 20).await;
    let read: Vec<_> = read.unwrap().into_iter().map(|entry| entry.bytes).collect();
    let kept: Vec<_> = log.into_iter().map(|entry| entry.bytes).collect();
    assert_eq!(read, kept);
}

pub async fn a_gap_is_refused_and_named(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    let refused = store.append(vault(0), vec![entry(1, 2, 0, 9)]).await;
    assert_eq!(refused.unwrap(), [Appended::Gap { last: 0 }]);
    assert_eq!(store.clock(vault(0)).await, Ok(Clock::new()));
    let batch = vec![entry(1, 1, 0, 9), entry(1, 3, 0, 9), entry(1, 2, 0, 9)];
    let stored = store.append(vault(0), batch).await.unwrap();
    let gap = Appended::Gap { last: 1 };
    assert_eq!(stored, [Appended::Stored, gap, Appended::Stored]);
}

pub async fn an_entry_needs_its_predecessor(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    let first = entry(1, 1, 0, 9);
    let ours = first.header;
    store.append(vault(0), vec![first]).await.unwrap();
    let forked = store.append(vault(0), vec![entry(1, 2, 1, 9)]).await;
    assert_eq!(forked.unwrap(), [Appended::Forked { seq: 1, ours }]);
    assert_eq!(
        store.clock(vault(0)).await.unwrap().get(&writer(1)),
        Some((1, ours))
    );
}

pub async fn entries_have_a_reserve_beyond_the_quota(bench: &dyn Bench) {
    let quota = 1 << 20;
    let store = serving(bench, quota).await;
    let len = 4 << 20;
    let fits = entry_limit(quota) / len as u64;
    for seq in 1..=fits {
        let stored = store.append(vault(0), vec![entry(1, seq, 0, len)]).await;
        assert_eq!(stored.unwrap(), [Appended::Stored]);
    }
    let full = store.append(
        vault(0),
        vec![entry(1, fits + 1, 0, len), entry(2, 1, 0, 9)],
    );
    assert_eq!(full.await.unwrap(), [Appended::Full, Appended::Stored]);
    let blob = store.put(vault(0), vec![blob(1, 9)]).await.unwrap();
    assert_eq!(blob, [super::super::Put::Full]);
    // What is there is still read, and a larger quota takes more.
    store.set_quota(vault(0), 1 << 30).await.unwrap();
    let stored = store.append(vault(0), vec![entry(1, fits + 1, 0, len)]);
    assert_eq!(stored.await.unwrap(), [Appended::Stored]);
}

pub async fn answers_of_entries_are_bounded(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    let log: Vec<_> = (1..=10).map(|seq| entry(1, seq, 0, 1000)).collect();
    store.append(vault(0), log).await.unwrap();
    let count = async |from, max_bytes| {
        let read = store.entries(vault(0), writer(1), from, 10, max_bytes);
        read.await.unwrap().len()
    };
    assert_eq!(count(1, 3500).await, 3);
    assert_eq!(count(1, 3000).await, 3);
    assert_eq!(count(8, 5000).await, 3);
    // One always comes, or nobody would get on.
    assert_eq!(count(1, 0).await, 1);
    let large: Vec<_> = (1..=2)
        .map(|seq| entry(2, seq, 0, MAX_APPEND_BYTES - 100))
        .collect();
    for entry in large {
        store.append(vault(0), vec![entry]).await.unwrap();
    }
    let read = store.entries(vault(0), writer(2), 1, 2, usize::MAX).await;
    assert_eq!(read.unwrap().len(), 1);
}

pub async fn logs_are_bounded_in_number(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    let first = |n: usize| entry(n as u64, 1, 0, 9);
    let all: Vec<_> = (0..=MAX_WRITERS).map(first).collect();
    let stored = store.append(vault(0), all).await.unwrap();
    assert_eq!(stored[..MAX_WRITERS], vec![Appended::Stored; MAX_WRITERS]);
    assert_eq!(stored[MAX_WRITERS], Appended::TooManyWriters);
    let next = store.append(vault(0), vec![entry(0, 2, 0, 9)]).await;
    assert_eq!(next.unwrap(), [Appended::Stored]);
    assert_eq!(store.clock(vault(0)).await.unwrap().len(), MAX_WRITERS);
}

pub async fn entries_of_any_size_come_back(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    let sizes = [0, 1, 16_351, 16_352, 16_353, 32_736, 70_000, 1 << 20];
    let log: Vec<_> = (1..)
        .zip(sizes)
        .map(|(seq, len)| entry(1, seq, 0, len))
        .collect();
    store.append(vault(0), log.clone()).await.unwrap();
    let read = store.entries(vault(0), writer(1), 1, 99, usize::MAX).await;
    let read: Vec<_> = read.unwrap().into_iter().map(|entry| entry.bytes).collect();
    let kept: Vec<_> = log.into_iter().map(|entry| entry.bytes).collect();
    assert_eq!(read, kept);
}

pub async fn two_who_append_one_log_at_once_agree(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    let beside = bench.open_beside().await;
    let other = beside.as_ref().unwrap_or(&store);
    let version = |version: u64| -> Vec<_> {
        let log = (1..=10).map(|seq| entry(1, seq, version, 300));
        log.collect()
    };
    let (one, two) = tokio::join!(
        store.append(vault(0), version(0)),
        other.append(vault(0), version(1)),
    );
    let is_whole = |outcomes: &[Appended]| outcomes.iter().all(|one| *one == Appended::Stored);
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(is_whole(&one), is_whole(&two), "{one:?} {two:?}");
    let kept = version(u64::from(is_whole(&two)));
    let clock = store.clock(vault(0)).await.unwrap();
    assert_eq!(clock.get(&writer(1)), Some((10, kept[9].header)));
    let (one, two) = tokio::join!(
        store.append(vault(0), kept.clone()),
        other.append(vault(0), kept.clone()),
    );
    assert_eq!(one.unwrap(), vec![Appended::Had; 10]);
    assert_eq!(two.unwrap(), vec![Appended::Had; 10]);
}
