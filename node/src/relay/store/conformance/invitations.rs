//! Invitations: each serves one vault, once.

use super::*;

pub async fn an_invitation_is_used_by_one_vault(bench: &dyn Bench) {
    let store = bench.open().await;
    let unknown = store.consume_invitation(hash(1), vault(0), [1; 16], NOW);
    assert_eq!(unknown.await, Ok(Consumed::Unknown));
    assert_eq!(store.vault(vault(0)).await, Ok(None));

    store.add_invitation(invitation(1, 500)).await.unwrap();
    let used = store.consume_invitation(hash(1), vault(0), [7; 16], NOW + 3);
    let Ok(Consumed::Now(record)) = used.await else {
        panic!("refused");
    };
    assert_eq!((record.vault, record.epoch), (vault(0), [7; 16]));
    assert_eq!((record.quota, record.added_ms), (500, NOW + 3));
    assert_eq!((record.usage, record.grants), Default::default());
    assert_eq!(store.vault(vault(0)).await, Ok(Some(record)));
    let kept = store.invitation(hash(1)).await.unwrap().unwrap();
    assert_eq!(kept.used, Some((vault(0), NOW + 3)));
    assert_eq!(kept.check, content(1, 32));

    let other = store.consume_invitation(hash(1), vault(1), [1; 16], NOW);
    assert_eq!(other.await, Ok(Consumed::Spent));
    assert_eq!(store.vault(vault(1)).await, Ok(None));
}

pub async fn of_two_who_ask_at_once_one_gets_it(bench: &dyn Bench) {
    let store = bench.open().await;
    let beside = bench.open_beside().await;
    let other = beside.as_ref().unwrap_or(&store);
    for round in 0..8 {
        store.add_invitation(invitation(round, 500)).await.unwrap();
        let (one, two) = tokio::join!(
            store.consume_invitation(hash(round), vault(2 * round), [1; 16], NOW),
            other.consume_invitation(hash(round), vault(2 * round + 1), [1; 16], NOW),
        );
        let got = |used: &Result<Consumed, _>| matches!(used, Ok(Consumed::Now(_)));
        let lost = |used: &Result<Consumed, _>| matches!(used, Ok(Consumed::Spent));
        assert!(
            got(&one) && lost(&two) || lost(&one) && got(&two),
            "{one:?} {two:?}"
        );
        let served = store.vaults(None, 100).await.unwrap().len();
        assert_eq!(served as u64, round + 1);
    }
}

pub async fn using_an_invitation_again_changes_nothing(bench: &dyn Bench) {
    let store = bench.open().await;
    store.add_invitation(invitation(1, 500)).await.unwrap();
    let used = store.consume_invitation(hash(1), vault(0), [1; 16], NOW);
    let Ok(Consumed::Now(_)) = used.await else {
        panic!("refused");
    };
    store.set_quota(vault(0), 100).await.unwrap();
    let record = store.vault(vault(0)).await.unwrap().unwrap();
    assert_eq!(record.quota, 100);
    // Even after it expired, for the answer to the first may have been lost.
    let again = store.consume_invitation(hash(1), vault(0), [2; 16], NOW + 9999);
    assert_eq!(again.await, Ok(Consumed::Before(record)));
    // Nor does adding it again make it new.
    store.add_invitation(invitation(1, 900)).await.unwrap();
    let kept = store.invitation(hash(1)).await.unwrap().unwrap();
    assert_eq!((kept.quota, kept.used), (500, Some((vault(0), NOW))));

    store.erase(vault(0), Bytes::new(), NOW).await.unwrap();
    let after = store.consume_invitation(hash(1), vault(0), [3; 16], NOW);
    assert_eq!(after.await, Ok(Consumed::Spent));
}

pub async fn an_invitation_expires_and_is_forgotten(bench: &dyn Bench) {
    let store = bench.open().await;
    store.add_invitation(invitation(1, 500)).await.unwrap();
    let late = store.consume_invitation(hash(1), vault(0), [1; 16], NOW + 1000);
    assert_eq!(late.await, Ok(Consumed::Expired));
    assert_eq!(store.vault(vault(0)).await, Ok(None));

    assert_eq!(store.forget(NOW + 1000).await, Ok(0));
    assert!(store.invitation(hash(1)).await.unwrap().is_some());
    assert_eq!(store.forget(NOW + 1001).await, Ok(1));
    assert_eq!(store.invitation(hash(1)).await, Ok(None));
}

pub async fn a_vault_that_is_served_keeps_the_larger_quota(bench: &dyn Bench) {
    let store = bench.open().await;
    for (n, quota) in [(1, 500), (2, 900), (3, 700)] {
        store.add_invitation(invitation(n, quota)).await.unwrap();
    }
    let mut quotas = Vec::new();
    for n in 1..=3 {
        let used = store.consume_invitation(hash(n), vault(0), [n as u8; 16], NOW);
        let Ok(Consumed::Now(record)) = used.await else {
            panic!("refused");
        };
        assert_eq!(record.epoch, [n as u8; 16]);
        quotas.push(record.quota);
    }
    assert_eq!(quotas, [500, 900, 900]);
}

pub async fn a_new_invitation_begins_another_life_of_a_vault(bench: &dyn Bench) {
    let store = bench.open().await;
    serve(&store, vault(0), 500).await;
    store
        .append(vault(0), vec![entry(1, 1, 0, 300)])
        .await
        .unwrap();
    for counter in 1..=3 {
        let stated = store.put_host_statement(vault(0), counter, content(counter, 300));
        assert_eq!(stated.await, Ok(true));
    }
    store.add_invitation(invitation(1, 400)).await.unwrap();
    let again = async || {
        store
            .consume_invitation(hash(1), vault(0), [9; 16], NOW)
            .await
    };
    assert!(matches!(again().await, Ok(Consumed::Now(_))));
    let snapshot = async || store.snapshot(vault(0)).await.unwrap().unwrap();
    let after = snapshot().await;
    assert_eq!((after.record.epoch, after.record.quota), ([9; 16], 500));
    assert_eq!((after.counter, &after.statement), (NOW, &None));
    assert_eq!(after.clock.len(), 1);
    let old = store.put_host_statement(vault(0), 4, content(4, 300));
    assert_eq!(old.await, Ok(false));
    let next = store.put_host_statement(vault(0), NOW + 1, content(5, 300));
    assert_eq!(next.await, Ok(true));
    // An answer that was lost: asked again, it is the same life.
    assert!(matches!(again().await, Ok(Consumed::Before(_))));
    let after = snapshot().await;
    assert_eq!(
        (after.counter, after.statement),
        (NOW + 1, Some(content(5, 300)))
    );
}

pub async fn invitations_are_listed_and_removed(bench: &dyn Bench) {
    let store = bench.open().await;
    let mut made: Vec<_> = (0..5).map(|n| invitation(n, n)).collect();
    for invitation in &made {
        store.add_invitation(invitation.clone()).await.unwrap();
    }
    made.sort_by_key(|invitation| invitation.id);
    assert_eq!(store.invitations(None, 3).await.as_deref(), Ok(&made[..3]));
    let rest = store.invitations(Some(made[2].id), 9).await;
    assert_eq!(rest.as_deref(), Ok(&made[3..]));
    assert_eq!(store.remove_invitation(made[0].id).await, Ok(true));
    assert_eq!(store.remove_invitation(made[0].id).await, Ok(false));
    assert_eq!(store.invitations(None, 9).await.as_deref(), Ok(&made[1..]));
    let used = store.consume_invitation(made[0].id, vault(0), [1; 16], NOW);
    assert_eq!(used.await, Ok(Consumed::Unknown));
}
