//! Entries come in, are checked, kept, and forwarded; nothing else is kept.

use std::sync::Arc;

use coffer_protocol::grants::Role;
use coffer_protocol::held::Held;
use coffer_protocol::identity::{DeviceKey, Hash, SpaceId};
use coffer_protocol::keys::SealingKey;
use coffer_protocol::log::{Clock, Entry};
use coffer_protocol::replication::Message;

use super::puppet::{Author, Puppet, TestHost, TestVault};
use crate::relay::store::embedded::EmbeddedStore;
use crate::relay::store::{NewEntry, RelayStore};
use crate::service::random;
use crate::vault::identity::Identity;

/// A vault of two devices, both with a session.
async fn two_devices(host: &TestHost) -> (TestVault, Puppet, Puppet, DeviceKey) {
    let (mut vault, owner) = TestVault::bound_to(host).await;
    let key = DeviceKey::from_secret([4; 32]);
    vault.admit(key.id(), Role::Owner);
    let second = Puppet::new(&key, host).await;
    second.join(&vault, None).await.unwrap();
    (vault, owner, second, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_is_kept_stated_and_reaches_the_other_device_at_once() {
    let host = TestHost::new("").await;
    let (vault, owner, second, _) = two_devices(&host).await;
    let mut first = owner.replicate(&vault, Clock::new()).await;
    let mut other = second.replicate(&vault, Clock::new()).await;
    // Both have introduced themselves when the host has answered.
    first.hear().await;
    other.hear().await;
    let mut author = Author::new(&vault.owner);
    let entry = author.next(&vault);
    first.say(&Message::Entries(vec![entry.clone()])).await;
    assert_eq!(other.hear_entries().await, [entry]);
    let clock = author.clock();
    let acknowledged = first
        .hear_until(|message| match message {
            Message::Clock(clock) => Some(clock),
            _ => None,
        })
        .await;
    assert_eq!(acknowledged, clock);
    let state = first
        .hear_that(&vault, host.id(), |state| state.entries == clock)
        .await;
    let again = other
        .hear_that(&vault, host.id(), |state| state.entries == clock)
        .await;
    assert_eq!(state, again);
    // One that comes later gets it from the store.
    drop(other);
    let mut later = second.replicate(&vault, Clock::new()).await;
    assert_eq!(later.hear_entries().await.len(), 1);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_foreign_gapped_and_replayed_entries_are_not_kept_and_not_forwarded() {
    let host = TestHost::new("").await;
    let (vault, owner, second, _) = two_devices(&host).await;
    let mut other = second.replicate(&vault, Clock::new()).await;
    other.hear().await;
    let foreign_vault = TestVault::new();
    let mut stranger = Author::new(&DeviceKey::from_secret([9; 32]));
    let mut author = Author::new(&vault.owner);
    let good = author.next(&vault);
    let mut forged = Entry::decode(&good).unwrap();
    forged.signature.0[0] ^= 1;
    let mut other_body = Entry::decode(&good).unwrap();
    other_body.body[0] ^= 1;
    let of_another = Author::new(&vault.owner).next(&foreign_vault);
    let second_entry = author.next(&vault);
    for bad in [
        forged.encode(),
        other_body.encode(),
        of_another,
        stranger.next(&vault),
        second_entry.clone(),
        b"no entry".to_vec(),
    ] {
        let mut session = owner.replicate(&vault, Clock::new()).await;
        session.hear().await;
        session.say(&Message::Entries(vec![bad])).await;
        // The answer to a question shows that what came before was looked at.
        session
            .say(&Message::NeedGrants { heads: Vec::new() })
            .await;
        session
            .hear_until(|message| matches!(message, Message::Grants { .. }).then_some(()))
            .await;
        let record = host.host().store.vault(vault.id).await.unwrap().unwrap();
        assert_eq!(record.usage.entries, 0);
    }
    assert!(other.hears_no_entries().await);
    let mut session = owner.replicate(&vault, Clock::new()).await;
    for entries in [
        vec![good.clone(), second_entry],
        vec![good.clone()],
        vec![good],
    ] {
        session.say(&Message::Entries(entries)).await;
    }
    assert_eq!(other.hear_entries().await.len(), 2);
    assert!(
        other.hears_no_entries().await,
        "a replayed entry is nothing new"
    );
    let record = host.host().store.vault(vault.id).await.unwrap().unwrap();
    assert_eq!(record.usage.entries, 2);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_entries_at_one_place_the_first_stays() {
    let host = TestHost::new("").await;
    let (vault, owner) = TestVault::bound_to(&host).await;
    let mut session = owner.replicate(&vault, Clock::new()).await;
    let (mut one, mut two) = (Author::new(&vault.owner), Author::new(&vault.owner));
    let first = one.next(&vault);
    two.next(&vault);
    session.say(&Message::Entries(vec![first.clone()])).await;
    session.say(&Message::Entries(vec![two.next(&vault)])).await;
    session
        .say(&Message::NeedGrants { heads: Vec::new() })
        .await;
    session
        .hear_until(|message| matches!(message, Message::Grants { .. }).then_some(()))
        .await;
    let clock = host.host().store.clock(vault.id).await.unwrap();
    assert_eq!(clock, one.clock());
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_vault_takes_entries_still_but_no_contents() {
    let host = TestHost::new("").await;
    let (vault, owner) = TestVault::bound_to(&host).await;
    host.host().store.set_quota(vault.id, 0).await.unwrap();
    let answer = owner.put(vault.id, &[vec![1; 100]]).await;
    assert!(
        matches!(answer, Some(coffer_protocol::relay::Answer::Refused { why, .. }) if why == coffer_protocol::relay::Refusal::FULL),
        "{answer:?}"
    );
    let mut session = owner.replicate(&vault, Clock::new()).await;
    let mut author = Author::new(&vault.owner);
    session
        .say(&Message::Entries(vec![author.next(&vault)]))
        .await;
    let clock = author.clock();
    let state = session
        .hear_that(&vault, host.id(), |state| state.entries == clock)
        .await;
    assert!(state.used_bytes() > state.quota_bytes);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_devices_are_checked_kept_and_forwarded() {
    let host = TestHost::new("").await;
    let (vault, owner, second, key) = two_devices(&host).await;
    let mut other = second.replicate(&vault, Clock::new()).await;
    let mut session = owner.replicate(&vault, Clock::new()).await;
    let held = |key: &DeviceKey, counter| {
        let held = Held {
            device: key.id(),
            counter,
            entries: Clock::new(),
            chunks: Clock::new(),
            exceptions: Vec::new(),
            more_missing: 0,
            pinned: true,
            unpinned_since: 0,
            awaited: 0,
            seen: Vec::new(),
            at_ms: 1,
        };
        let epoch = vault.keyring.current();
        let sealed = held.seal(key, vault.id, SpaceId::HOME, epoch, &mut random());
        sealed.unwrap().bytes().to_vec()
    };
    let stranger = DeviceKey::from_secret([9; 32]);
    for (device, statement) in [
        (stranger.id(), held(&stranger, 1)),
        (vault.owner.id(), held(&key, 1)),
        (vault.owner.id(), b"nonsense".to_vec()),
        (vault.owner.id(), held(&vault.owner, 5)),
        (vault.owner.id(), held(&vault.owner, 4)),
    ] {
        session.say(&Message::Held { device, statement }).await;
    }
    let owner_id = vault.owner.id();
    let heard = other
        .hear_until(|message| match message {
            Message::Held { device, statement } if device == owner_id => Some(statement),
            _ => None,
        })
        .await;
    assert_eq!(heard, held_of(&host, &vault).await);
    host.stop().await;
}

async fn held_of(host: &TestHost, vault: &TestVault) -> Vec<u8> {
    let held = host.host().store.held(vault.id).await.unwrap();
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].counter, 5);
    held[0].bytes.to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_the_counter_goes_on_and_the_vault_is_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("store");
    let store = || Arc::new(EmbeddedStore::open(&folder).unwrap());
    let identity = || Identity {
        key: DeviceKey::from_secret([5; 32]),
        sealing: SealingKey::from_seed([6; 32]),
    };
    let host = TestHost::on("", store(), identity()).await;
    let (vault, owner) = TestVault::bound_to(&host).await;
    let mut session = owner.replicate(&vault, Clock::new()).await;
    let mut author = Author::new(&vault.owner);
    session
        .say(&Message::Entries(vec![author.next(&vault)]))
        .await;
    let clock = author.clock();
    let before = session
        .hear_that(&vault, host.id(), |state| state.entries == clock)
        .await;
    drop((session, owner));
    host.stop().await;

    let host = TestHost::on("", store(), identity()).await;
    let owner = Puppet::new(&vault.owner, &host).await;
    let mut session = owner.replicate(&vault, author.clock()).await;
    let after = session.hear_statement(&vault, host.id()).await;
    assert_eq!((after.store, &after.entries), (before.store, &clock));
    assert!(after.counter >= before.counter);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_killed_before_it_stated_what_it_took_says_so_when_a_device_comes() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("store");
    let store = || Arc::new(EmbeddedStore::open(&folder).unwrap());
    let identity = || Identity {
        key: DeviceKey::from_secret([5; 32]),
        sealing: SealingKey::from_seed([6; 32]),
    };
    let host = TestHost::on("", store(), identity()).await;
    let (vault, owner) = TestVault::bound_to(&host).await;
    let mut session = owner.replicate(&vault, Clock::new()).await;
    let before = session.hear_statement(&vault, host.id()).await;
    drop((session, owner));
    host.stop().await;
    // What is durable, and was not stated any more.
    let mut author = Author::new(&vault.owner);
    let bytes = author.next(&vault);
    let entry = Entry::decode(&bytes).unwrap();
    let taken = NewEntry {
        writer: entry.header.writer,
        seq: 1,
        prev: Hash::ZERO,
        header: entry.header_hash(),
        bytes: bytes.into(),
    };
    let killed = store();
    killed.append(vault.id, vec![taken]).await.unwrap();
    killed.close().await;
    drop(killed);

    let host = TestHost::on("", store(), identity()).await;
    let owner = Puppet::new(&vault.owner, &host).await;
    let mut session = owner.replicate(&vault, author.clock()).await;
    let after = session.hear_statement(&vault, host.id()).await;
    assert_eq!(after.entries, author.clock());
    assert!(after.counter > before.counter);
    // Nothing is new to the next one.
    drop(session);
    let mut session = owner.replicate(&vault, author.clock()).await;
    let again = session.hear_statement(&vault, host.id()).await;
    assert_eq!(again, after);
    host.stop().await;
}
