//! Grants and statements.

use super::super::{HeldStatement, MAX_GRANTS};
use super::*;

pub async fn grants_are_kept_once_and_in_order(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    let grant = |n: u64| (hash(n), content(n, 100 + 20_000 * (n as usize % 2)));
    let first = store.put_grants(vault(0), vec![grant(9), grant(4), grant(9)]);
    assert_eq!(first.await, Ok(2));
    let more = store.put_grants(vault(0), vec![grant(4), grant(1)]);
    assert_eq!(more.await, Ok(1));
    let again = store.put_grants(vault(0), vec![grant(9), grant(4), grant(1)]);
    assert_eq!(again.await, Ok(0));
    let all = vec![grant(9).1, grant(4).1, grant(1).1];
    assert_eq!(store.grants(vault(0)).await, Ok(all));
    let record = store.vault(vault(0)).await.unwrap().unwrap();
    assert_eq!(record.grants, 3);
}

pub async fn too_many_grants_are_refused_as_a_whole(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    let grants = |of: std::ops::Range<u64>| of.map(|n| (hash(n), content(n, 10))).collect();
    let half = MAX_GRANTS as u64 / 2;
    assert_eq!(
        store.put_grants(vault(0), grants(0..half)).await,
        Ok(half as usize)
    );
    let refused = store.put_grants(vault(0), grants(half..2 * half + 1)).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })));
    let record = store.vault(vault(0)).await.unwrap().unwrap();
    assert_eq!(u64::from(record.grants), half);
    // Those that are there already are not counted twice.
    let rest = store.put_grants(vault(0), grants(1..2 * half)).await;
    assert_eq!(rest, Ok(half as usize));
}

pub async fn the_newest_held_statement_stays(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    let statement = |n: u64, counter: u64, len: usize| HeldStatement {
        device: device(n),
        counter,
        bytes: content(counter, len),
    };
    let put = async |statement| store.put_held(vault(0), statement).await;
    assert_eq!(put(statement(1, 5, 100_000)).await, Ok(true));
    assert_eq!(put(statement(1, 5, 7)).await, Ok(false));
    assert_eq!(put(statement(1, 4, 7)).await, Ok(false));
    assert_eq!(put(statement(2, 1, 0)).await, Ok(true));
    let mut both = vec![statement(1, 5, 100_000), statement(2, 1, 0)];
    both.sort_by_key(|statement| statement.device);
    assert_eq!(store.held(vault(0)).await, Ok(both));
    // A shorter one leaves nothing of the longer one.
    assert_eq!(put(statement(1, u64::MAX, 10)).await, Ok(true));
    let held = store.held(vault(0)).await.unwrap();
    assert!(held.contains(&statement(1, u64::MAX, 10)));
    assert_eq!(held.len(), 2);
}

pub async fn a_host_states_each_number_once(bench: &dyn Bench) {
    let store = serving(bench, PLENTY).await;
    let beside = bench.open_beside().await;
    let other = beside.as_ref().unwrap_or(&store);
    let before = store.snapshot(vault(0)).await.unwrap().unwrap();
    assert_eq!((before.counter, &before.statement), (0, &None));
    for counter in 1..8 {
        let (one, two) = tokio::join!(
            store.put_host_statement(vault(0), counter, content(1, 40_000)),
            other.put_host_statement(vault(0), counter, content(2, 40_000)),
        );
        assert_ne!(one, two, "{counter}");
        let kept = content(if one == Ok(true) { 1 } else { 2 }, 40_000);
        let after = other.snapshot(vault(0)).await.unwrap().unwrap();
        assert_eq!((after.counter, after.statement), (counter, Some(kept)));
        for wrong in [0, counter, counter + 2] {
            let refused = store.put_host_statement(vault(0), wrong, Bytes::new());
            assert_eq!(refused.await, Ok(false));
        }
    }
    store
        .append(vault(0), vec![entry(1, 1, 0, 300)])
        .await
        .unwrap();
    let after = store.snapshot(vault(0)).await.unwrap().unwrap();
    assert_eq!(after.clock, store.clock(vault(0)).await.unwrap());
    assert_eq!(Some(after.record), store.vault(vault(0)).await.unwrap());
}
