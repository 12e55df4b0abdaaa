//! Blobs come in whole and checked, go out to members, and go when everyone has let go of them.

use std::sync::Arc;

use coffer_protocol::blobs::{AnswerHeader, Ask, Given, RESUMED, Request as Get};
use coffer_protocol::grants::Role;
use coffer_protocol::identity::{DeviceKey, Hash, StoreId};
use coffer_protocol::keys::SealingKey;
use coffer_protocol::log::Clock;
use coffer_protocol::relay::{
    Answer, EraseOrder, PutHeader, Refusal, Request, SignedOrder, SignedReceipt,
};
use coffer_protocol::version;
use futures::AsyncWriteExt;

use super::puppet::{Puppet, TestHost, TestVault, id_of, rest_of};
use crate::net::write_frame;
use crate::relay::freeing;
use crate::relay::store::embedded::EmbeddedStore;
use crate::relay::store::memory::MemoryStore;
use crate::service::random;
use crate::vault::identity::Identity;

fn refusal(answer: Option<Answer>) -> Option<Refusal> {
    match answer {
        Some(Answer::Refused { why, .. }) => Some(why),
        _ => None,
    }
}

/// What a batch GET of these gives, each with its place.
async fn get(puppet: &Puppet, vault: &TestVault, ids: Vec<Hash>) -> Vec<(u16, Option<Vec<u8>>)> {
    let mut stream = puppet.open(version::BLOBS).await;
    let request = Get {
        vault: vault.id,
        ids,
    };
    write_frame(&mut stream, &request.encode(), 1 << 20)
        .await
        .unwrap();
    stream.close().await.unwrap();
    let bytes = rest_of(&mut stream).await;
    let mut rest = &bytes[..];
    let mut found = Vec::new();
    while let Some((header, behind)) = rest.split_first_chunk::<{ AnswerHeader::LEN }>() {
        let header = AnswerHeader::decode(header);
        let len = match header.given {
            Given::Bytes(len) => Some(len as usize),
            _ => None,
        };
        found.push((header.index, len.map(|len| behind[..len].to_vec())));
        rest = &behind[len.unwrap_or(0)..];
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_says_which_blobs_it_has_without_giving_or_claiming_them() {
    let host = TestHost::new("").await;
    let (vault, owner) = TestVault::bound_to(&host).await;
    let blobs = [vec![1; 500], vec![2; 500]];
    owner.put(vault.id, &blobs).await;
    let ids = vec![id_of(&blobs[1]), Hash([9; 32]), id_of(&blobs[0])];
    let mut stream = owner.open(version::BLOBS_2).await;
    let has = Ask::Has(Get {
        vault: vault.id,
        ids,
    });
    for ask in [has, Ask::Resumes(vault.id)] {
        write_frame(&mut stream, &ask.encode(), 1 << 20)
            .await
            .unwrap();
    }
    stream.close().await.unwrap();
    let said = rest_of(&mut stream).await;
    let answers = [Given::Here, Given::Missing, Given::Here];
    let answers = (0..).zip(answers);
    let mut expected: Vec<u8> = answers
        .flat_map(|(index, given)| AnswerHeader { index, given }.encode())
        .collect();
    expected.push(RESUMED);
    assert_eq!(said, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_disk_has_damaged_is_not_given_nor_confirmed_and_is_taken_anew() {
    let store = Arc::new(MemoryStore::default());
    let keys = Identity::generate(&mut random());
    let host = TestHost::on("", store.clone(), keys).await;
    let (vault, owner) = TestVault::bound_to(&host).await;
    let mut session = owner.replicate(&vault, Clock::new()).await;
    let blobs: Vec<Vec<u8>> = (0..200u8).map(|n| vec![n; 500]).collect();
    let ids: Vec<Hash> = blobs.iter().map(|blob| id_of(blob)).collect();
    owner.put(vault.id, &blobs).await;
    session
        .hear_that(&vault, host.id(), |state| state.blobs == 200)
        .await;
    let damage = |at: usize| {
        let bytes = Some(vec![0xee; 500].into());
        assert_eq!(store.damage(vault.id, ids[at], bytes), Ok(true));
    };
    // One is read for a device; the others nobody asks for.
    for at in [3, 50, 120] {
        damage(at);
    }
    let got = get(&owner, &vault, vec![ids[2], ids[3]]).await;
    assert_eq!(got, [(0, Some(blobs[2].clone())), (1, None)]);
    session
        .hear_that(&vault, host.id(), |state| state.blobs == 197)
        .await;
    let have = Request::Have {
        vault: vault.id,
        ids: ids.clone(),
        claim: true,
    };
    let Some(Answer::Have(bits)) = owner.ask(have).await else {
        panic!("another answer");
    };
    let lacking: Vec<usize> = (0..200).filter(|at| !bits.get(*at)).collect();
    assert_eq!(lacking, [3, 50, 120]);
    owner
        .put(
            vault.id,
            &[blobs[3].clone(), blobs[50].clone(), blobs[120].clone()],
        )
        .await;
    let got = get(&owner, &vault, vec![ids[120]]).await;
    assert_eq!(got, [(0, Some(blobs[120].clone()))]);
    // Some bytes that are good are no proof of the rest.
    let mut bytes = blobs[7].clone();
    bytes[499] ^= 1;
    store.damage(vault.id, ids[7], Some(bytes.into())).unwrap();
    let range = Request::Range {
        vault: vault.id,
        id: ids[7],
        offset: 0,
        len: 16,
    };
    assert_eq!(owner.ask(range).await, Some(Answer::Range(None)));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_is_there_for_the_other_devices_and_stated() {
    let host = TestHost::new("").await;
    let (vault, owner) = TestVault::bound_to(&host).await;
    let mut session = owner.replicate(&vault, Clock::new()).await;
    let blobs: Vec<Vec<u8>> = (0..50u8).map(|n| vec![n; 1000 + usize::from(n)]).collect();
    let total: u64 = blobs.iter().map(|blob| blob.len() as u64).sum();
    let answer = owner.put(vault.id, &blobs).await;
    assert_eq!(
        answer,
        Some(Answer::Stored {
            used_bytes: total,
            quota_bytes: 1 << 30
        })
    );
    let state = session
        .hear_that(&vault, host.id(), |state| state.blobs == 50)
        .await;
    assert_eq!(state.blob_bytes, total);
    let absent = id_of(b"absent");
    let got = get(
        &owner,
        &vault,
        vec![id_of(&blobs[7]), absent, id_of(&blobs[3])],
    )
    .await;
    assert_eq!(
        got,
        [
            (0, Some(blobs[7].clone())),
            (1, None),
            (2, Some(blobs[3].clone()))
        ]
    );
    let range = Request::Range {
        vault: vault.id,
        id: id_of(&blobs[9]),
        offset: 1000,
        len: 100,
    };
    let Some(Answer::Range(Some(bytes))) = owner.ask(range).await else {
        panic!("no bytes");
    };
    assert_eq!(bytes.0, [9; 9]);
    let list = Request::List {
        vault: vault.id,
        after: Hash::ZERO,
        max: 8192,
    };
    let Some(Answer::Listed(listed)) = owner.ask(list).await else {
        panic!("no list");
    };
    let mut ids: Vec<Hash> = blobs.iter().map(|blob| id_of(blob)).collect();
    ids.sort_unstable();
    assert_eq!(listed, ids);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_one_blob_of_another_name_is_not_kept() {
    let host = TestHost::new("").await;
    let (vault, owner) = TestVault::bound_to(&host).await;
    let (good, bad) = (vec![1u8; 100], vec![2u8; 100]);
    let mut following = Vec::new();
    for (id, blob) in [(id_of(&good), &good), (id_of(b"another"), &bad)] {
        following.extend_from_slice(&PutHeader { id, len: 100 }.encode());
        following.extend_from_slice(blob);
    }
    let request = Request::Put {
        vault: vault.id,
        count: 2,
        bytes: 200,
    };
    let answer = owner.ask_with(request, &following).await;
    assert_eq!(refusal(answer), Some(Refusal::MALFORMED));
    let record = host.host().store.vault(vault.id).await.unwrap().unwrap();
    assert_eq!(record.usage.blobs, 0);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_quota_nothing_is_taken_and_what_is_there_stays() {
    let host = TestHost::new("").await;
    let (vault, owner) = TestVault::bound_to(&host).await;
    host.host().store.set_quota(vault.id, 5000).await.unwrap();
    let first = vec![1u8; 3000];
    assert!(matches!(
        owner.put(vault.id, std::slice::from_ref(&first)).await,
        Some(Answer::Stored { .. })
    ));
    let more = [vec![2u8; 1500], vec![3u8; 1500]];
    assert_eq!(
        refusal(owner.put(vault.id, &more).await),
        Some(Refusal::FULL)
    );
    // Small ones count more than their bytes.
    let many: Vec<Vec<u8>> = (0..20u8).map(|n| vec![n; 10]).collect();
    assert_eq!(
        refusal(owner.put(vault.id, &many).await),
        Some(Refusal::FULL)
    );
    let record = host.host().store.vault(vault.id).await.unwrap().unwrap();
    assert_eq!((record.usage.blobs, record.usage.blob_bytes), (1, 3000));
    assert_eq!(
        get(&owner, &vault, vec![id_of(&first)]).await,
        [(0, Some(first.clone()))]
    );
    // What is there already is no more.
    let again = owner.put(vault.id, &[first]).await;
    assert!(
        matches!(
            again,
            Some(Answer::Stored {
                used_bytes: 3000,
                ..
            })
        ),
        "{again:?}"
    );
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_devices_word_frees_nothing_everyones_does_after_the_grace() {
    let host = TestHost::new("[vaults]\ngrace = \"0s\"").await;
    let (mut vault, owner) = TestVault::bound_to(&host).await;
    let key = DeviceKey::from_secret([4; 32]);
    vault.admit(key.id(), Role::Owner);
    let second = Puppet::new(&key, &host).await;
    second.join(&vault, None).await.unwrap();
    let (named, unnamed) = (vec![1u8; 500], vec![2u8; 500]);
    owner.put(vault.id, &[named.clone(), unnamed.clone()]).await;
    let release = |ids| Request::Release {
        vault: vault.id,
        ids,
    };
    let both = vec![id_of(&named), id_of(&unnamed)];
    assert_eq!(
        owner.ask(release(both.clone())).await,
        Some(Answer::Released)
    );
    freeing::clean(host.host()).await.unwrap();
    let blobs = || async {
        host.host()
            .store
            .vault(vault.id)
            .await
            .unwrap()
            .unwrap()
            .usage
            .blobs
    };
    assert_eq!(blobs().await, 2);
    assert_eq!(second.ask(release(both)).await, Some(Answer::Released));
    let claim = Request::Have {
        vault: vault.id,
        ids: vec![id_of(&named)],
        claim: true,
    };
    assert!(matches!(second.ask(claim).await, Some(Answer::Have(_))));
    freeing::clean(host.host()).await.unwrap();
    assert_eq!(blobs().await, 1);
    let got = get(&owner, &vault, vec![id_of(&named), id_of(&unnamed)]).await;
    assert_eq!(got, [(0, Some(named)), (1, None)]);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_owners_order_for_this_very_store_erases_and_the_receipt_can_be_had_again() {
    let host = TestHost::new("").await;
    let (mut vault, owner) = TestVault::bound_to(&host).await;
    let reader_key = DeviceKey::from_secret([4; 32]);
    vault.admit(reader_key.id(), Role::Member);
    let member = Puppet::new(&reader_key, &host).await;
    member.join(&vault, None).await.unwrap();
    owner.put(vault.id, &[vec![1u8; 500]]).await;
    let store = host
        .host()
        .store
        .vault(vault.id)
        .await
        .unwrap()
        .unwrap()
        .epoch;
    let order = |key: &DeviceKey, store| {
        let order = EraseOrder {
            version: version::ERASE_ORDER,
            vault: vault.id,
            host: host.id(),
            store: StoreId(store),
            owner: key.id(),
            at_ms: 1,
        };
        SignedOrder::sign(order, key).unwrap()
    };
    let ask = |order: &SignedOrder| Request::Erase {
        order: order.bytes().to_vec(),
    };
    let refused = member.ask(ask(&order(&reader_key, store))).await;
    assert_eq!(refusal(refused), Some(Refusal::ORDER));
    let refused = owner.ask(ask(&order(&vault.owner, [0; 16]))).await;
    assert_eq!(refusal(refused), Some(Refusal::ORDER));
    let good = order(&vault.owner, store);
    let mut session = owner.replicate(&vault, Clock::new()).await;
    session.hear().await;
    for _ in 0..2 {
        let Some(Answer::Erased(receipt)) = owner.ask(ask(&good)).await else {
            panic!("no receipt");
        };
        let receipt = SignedReceipt::read(&receipt, &good).unwrap();
        assert_eq!((receipt.value().blobs, receipt.value().bytes), (1, 500));
    }
    while session.hear().await.is_some() {}
    assert_eq!(host.host().store.vault(vault.id).await.unwrap(), None);
    let have = Request::Have {
        vault: vault.id,
        ids: Vec::new(),
        claim: false,
    };
    assert_eq!(refusal(owner.ask(have).await), Some(Refusal::NOT_YOURS));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_disk_lost_while_the_host_was_stopped_is_counted_and_stated() {
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
    let blobs: Vec<Vec<u8>> = (0..3u8).map(|n| vec![n; 500]).collect();
    owner.put(vault.id, &blobs).await.unwrap();
    session
        .hear_that(&vault, host.id(), |state| state.blobs == 3)
        .await;
    assert_eq!(host.host().metrics.blobs_damaged.get(), 0);
    drop((session, owner));
    host.stop().await;
    std::fs::remove_file(folder.join("packs/0/0.pack")).unwrap();

    let host = TestHost::on("", store(), identity()).await;
    assert_eq!(host.host().metrics.blobs_damaged.get(), 3);
    let owner = Puppet::new(&vault.owner, &host).await;
    let mut session = owner.replicate(&vault, Clock::new()).await;
    let state = session.hear_statement(&vault, host.id()).await;
    assert_eq!((state.blobs, state.blob_bytes), (0, 0));
    host.stop().await;
}
