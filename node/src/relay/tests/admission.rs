//! Who comes in, with what, and who gets nothing.

use coffer_protocol::grants::{Cutoff, Role};
use coffer_protocol::identity::DeviceKey;
use coffer_protocol::log::Clock;
use coffer_protocol::relay::{Answer, BindError, JoinError, Refusal, Request};
use coffer_protocol::replication::{ByeReason, Message};
use coffer_protocol::{blobs, version};
use futures::AsyncWriteExt;

use super::puppet::{Author, Puppet, TestHost, TestVault, id_of, rest_of};
use crate::net::write_frame;

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_binds_one_vault_and_the_same_one_again() {
    let host = TestHost::new("").await;
    let invitation = host.invite(1 << 30, 60).await;
    let mut vault = TestVault::new();
    vault.admit(host.id(), Role::Relay);
    let puppet = Puppet::new(&vault.owner, &host).await;
    assert_eq!(puppet.join(&vault, Some(&invitation)).await, Ok(()));
    assert_eq!(puppet.join(&vault, Some(&invitation)).await, Ok(()));
    let record = host.host().store.vault(vault.id).await.unwrap().unwrap();
    assert_eq!(
        (record.quota, record.grants as usize),
        (1 << 30, vault.grants().len())
    );

    let mut other = TestVault::new();
    other.admit(host.id(), Role::Relay);
    let second = Puppet::new(&other.owner, &host).await;
    assert_eq!(
        second.join(&other, Some(&invitation)).await,
        Err(JoinError::Used)
    );
    assert_eq!(host.host().store.vault(other.id).await.unwrap(), None);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_invitation_that_counts_nothing_is_bound_and_nothing_kept() {
    let host = TestHost::new("").await;
    let mut vault = TestVault::new();
    vault.admit(host.id(), Role::Relay);
    let puppet = Puppet::new(&vault.owner, &host).await;
    assert_eq!(puppet.join(&vault, None).await, Err(JoinError::NotInvited));
    let mut forged = host.invite(1 << 30, 60).await;
    forged.secret = [1; 32];
    assert_eq!(
        puppet.join(&vault, Some(&forged)).await,
        Err(JoinError::NotInvited)
    );
    // Grants that do not admit this host, and those that a device shows which they do not make an owner.
    let invitation = host.invite(1 << 30, 60).await;
    let bare = TestVault::new();
    let owner = Puppet::new(&bare.owner, &host).await;
    let refused = owner.join(&bare, Some(&invitation)).await;
    assert_eq!(refused, Err(JoinError::Refused(BindError::Host)));
    let stranger = Puppet::new(&DeviceKey::from_secret([9; 32]), &host).await;
    let refused = stranger.join(&vault, Some(&invitation)).await;
    assert_eq!(refused, Err(JoinError::Refused(BindError::Device)));
    assert!(host.host().store.vaults(None, 10).await.unwrap().is_empty());
    // None of it has used the invitation up.
    assert_eq!(puppet.join(&vault, Some(&invitation)).await, Ok(()));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_expires() {
    let host = TestHost::new("").await;
    let invitation = host.invite(1 << 30, 1).await;
    let mut vault = TestVault::new();
    vault.admit(host.id(), Role::Relay);
    let puppet = Puppet::new(&vault.owner, &host).await;
    let began = std::time::Instant::now();
    while crate::relay::host::now_ms() < invitation.expires_ms {
        assert!(began.elapsed().as_secs() < 10);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(
        puppet.join(&vault, Some(&invitation)).await,
        Err(JoinError::Expired)
    );
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_admitted_while_the_host_was_away_makes_itself_known() {
    let host = TestHost::new("").await;
    let (mut vault, _owner) = TestVault::bound_to(&host).await;
    let key = DeviceKey::from_secret([4; 32]);
    let second = Puppet::new(&key, &host).await;
    let mut early = second.replicate(&vault, Clock::new()).await;
    assert_eq!(early.hear().await, None, "the host has not heard of it");
    vault.admit(key.id(), Role::Owner);
    assert_eq!(second.join(&vault, None).await, Ok(()));
    let mut session = second.replicate(&vault, Clock::new()).await;
    assert!(matches!(session.hear().await, Some(Message::Hello { .. })));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_told_so_and_served_no_more() {
    let host = TestHost::new("").await;
    let (mut vault, owner) = TestVault::bound_to(&host).await;
    let key = DeviceKey::from_secret([4; 32]);
    vault.admit(key.id(), Role::Owner);
    let lost = Puppet::new(&key, &host).await;
    assert_eq!(lost.join(&vault, None).await, Ok(()));
    let mut author = Author::new(&key);
    let within = author.next(&vault);
    let cutoff = author.clock();
    let beyond = author.next(&vault);
    let mut session = lost.replicate(&vault, Clock::new()).await;
    assert!(matches!(session.hear().await, Some(Message::Hello { .. })));

    let cutoffs = cutoff.iter().map(|(writer, seq, header)| Cutoff {
        writer: *writer,
        seq,
        header,
    });
    let grant = vault.revoke(key.id(), cutoffs.collect());
    let mut other = owner.replicate(&vault, Clock::new()).await;
    let heads = vault.membership.heads();
    let grants = vec![grant];
    other.say(&Message::Grants { heads, grants }).await;
    let told = session.hear_until(|message| match message {
        Message::Bye { reason } => Some(reason),
        _ => None,
    });
    assert_eq!(told.await, ByeReason::PUT_OUT);
    let record = host.host().store.vault(vault.id).await.unwrap().unwrap();
    assert_eq!(record.grants as usize, vault.grants().len());

    // Whatever it asks or sends from then on, on whatever connection, is not taken.
    let again = Puppet::new(&key, &host).await;
    let blob = b"sealed by somebody".to_vec();
    assert!(
        again
            .put(vault.id, &[blob])
            .await
            .is_none_or(|answer| { !matches!(answer, Answer::Stored { .. }) })
    );
    let once_more = Puppet::new(&key, &host).await;
    let mut session = once_more.replicate(&vault, author.clock()).await;
    let unheard = Message::Entries(vec![within.clone(), beyond]);
    // The host may have closed already.
    session.try_say(&unheard).await.ok();
    while let Some(message) = session.hear().await {
        if let Message::Bye { reason } = message {
            assert_eq!(reason, ByeReason::PUT_OUT);
        }
    }
    // What others had of it within the cutoff is kept for them.
    other.say(&Message::Entries(vec![within])).await;
    let writer = author
        .clock()
        .iter()
        .next()
        .map(|(writer, ..)| *writer)
        .unwrap();
    let stored = other.hear_until(|message| match message {
        Message::Clock(clock) => Some(clock.seq(&writer)),
        _ => None,
    });
    assert_eq!(stored.await, 1);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_gets_nothing_and_is_not_told_whether_there_is_anything() {
    let host = TestHost::new("").await;
    let (vault, owner) = TestVault::bound_to(&host).await;
    let blob = b"sealed by somebody".to_vec();
    assert!(matches!(
        owner.put(vault.id, std::slice::from_ref(&blob)).await,
        Some(Answer::Stored { .. })
    ));
    let stranger = Puppet::new(&DeviceKey::from_secret([9; 32]), &host).await;
    let unserved = TestVault::new();
    let mut told = Vec::new();
    for asked in [vault.id, unserved.id] {
        let mut session = stranger.open(version::REPLICATE).await;
        let hello = Message::Hello {
            versions: vec![version::REPLICATION],
            vault: asked,
            grant_heads: Vec::new(),
            clock: Clock::new(),
        };
        write_frame(&mut session, &hello.encode(), 1 << 20)
            .await
            .unwrap();
        session.flush().await.unwrap();
        let replicated = rest_of(&mut session).await;
        let mut get = stranger.open(version::BLOBS).await;
        let request = blobs::Request {
            vault: asked,
            ids: vec![id_of(&blob)],
        };
        write_frame(&mut get, &request.encode(), 1 << 20)
            .await
            .unwrap();
        get.flush().await.unwrap();
        let got = rest_of(&mut get).await;
        let have = Request::Have {
            vault: asked,
            ids: vec![id_of(&blob)],
            claim: true,
        };
        let have = stranger.ask(have).await;
        let put = stranger.put(asked, &[b"mine".to_vec()]).await;
        let list = Request::List {
            vault: asked,
            after: coffer_protocol::identity::Hash::ZERO,
            max: 10,
        };
        told.push((
            replicated,
            got,
            have,
            put,
            stranger.ask(list).await,
            stranger.join(&unserved, None).await,
        ));
    }
    assert_eq!(told[0], told[1]);
    let (replicated, got, have, put, list, _) = &told[0];
    assert!(replicated.is_empty() && got.is_empty());
    let not_yours = Some(Answer::refused(Refusal::NOT_YOURS));
    assert_eq!((have, put, list), (&not_yours, &not_yours, &not_yours));
    let record = host.host().store.vault(vault.id).await.unwrap().unwrap();
    assert_eq!(record.usage.blobs, 1);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_invitations_is_slowed_by_address() {
    let host = TestHost::new("[limits]\njoins_per_minute = 3").await;
    let vault = TestVault::new();
    let puppet = Puppet::new(&vault.owner, &host).await;
    let mut outcomes = Vec::new();
    for _ in 0..5 {
        outcomes.push(puppet.join(&vault, None).await);
    }
    assert_eq!(outcomes[..3], [Err(JoinError::NotInvited); 3]);
    assert_eq!(outcomes[3..], [Err(JoinError::Disconnected); 2]);
    host.stop().await;
}
