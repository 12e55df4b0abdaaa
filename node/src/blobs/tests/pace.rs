//! How fast, from whom, and when: several devices at once, slow ones, limits and pauses.

use std::num::NonZeroU64;
use std::time::Duration;

use super::fleet::{Faults, Node, Peers, device, noise};
use crate::blobs::{Fetch, Imported, Limits, StoreJob, WriteError};

/// Shorter than what a device that stalls is given before it is left.
const BEFORE_A_STALL_ENDS: Duration = Duration::from_secs(28);

fn received(node: &Node) -> u64 {
    let rates = node.blobs.rates();
    rates.values().map(|rate| rate.received).sum()
}

fn slowly(bytes: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(bytes)
}

/// Waits until `is_so`, for a transfer goes on beside it.
async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn job(key: u64, content: &Imported) -> StoreJob {
    StoreJob {
        key,
        size: content.size,
        hash: content.hash,
        root: content.root.clone(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_devices_share_one_content() {
    let (a, b, c) = (Node::new().await, Node::new().await, Node::new().await);
    let bytes = noise(1, 64 << 20);
    let content = a.add(1, &bytes).await;
    b.add(1, &bytes).await;
    let both = Peers::default().with(1, &a).with(2, &b).fetch();
    let (results, done) = c.write(&[(1, &content)], &both).await;
    results[&1].as_ref().unwrap();
    assert_eq!(c.bytes(1), bytes);
    let rates = c.blobs.rates();
    for n in [1, 2] {
        let received = rates[&device(n)].received;
        assert!(received > 1 << 20, "device {n} gave {received} bytes");
    }
    assert!(done.fetched_bytes < (bytes.len() + bytes.len() / 8) as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_stalls_holds_up_nobody_who_has_another() {
    let (a, b, c) = (Node::new().await, Node::new().await, Node::new().await);
    let bytes = noise(2, 24 << 20);
    let content = a.add(1, &bytes).await;
    b.add(1, &bytes).await;
    let stalls = Faults {
        stall_at: Some(1 << 20),
        ..Faults::default()
    };
    let peers = Peers::default().faulty(1, &a, stalls).with(2, &b).fetch();
    let wanted = [(1, &content)];
    let written = c.write(&wanted, &peers);
    let (results, done) = tokio::time::timeout(BEFORE_A_STALL_ENDS, written)
        .await
        .expect("the other device gave it");
    results[&1].as_ref().unwrap();
    assert_eq!(c.bytes(1), bytes);
    assert!(done.misbehaved.is_empty(), "slow is not wrong");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_dies_midway_costs_what_was_under_way() {
    let (a, b, c) = (Node::new().await, Node::new().await, Node::new().await);
    let bytes = noise(3, 24 << 20);
    let content = a.add(1, &bytes).await;
    b.add(1, &bytes).await;
    let dies = Faults {
        cut_at: Some(3 << 20),
        ..Faults::default()
    };
    let peers = Peers::default().faulty(1, &a, dies).with(2, &b).fetch();
    let (results, _) = c.write(&[(1, &content)], &peers).await;
    results[&1].as_ref().unwrap();
    assert_eq!(c.bytes(1), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_on_either_side_until_they_are_lifted() {
    for up in [true, false] {
        let (a, b) = (Node::new().await, Node::new().await);
        let bytes = noise(4, 6 << 20);
        let content = a.add(1, &bytes).await;
        let limits = Limits {
            up: slowly(20_000).filter(|_| up),
            down: slowly(20_000).filter(|_| !up),
            paused: false,
        };
        let limited = if up { &a } else { &b };
        limited.blobs.set_limits(limits);
        let fetch = Peers::default().with(1, &a).fetch();
        let wanted = [(1, &content)];
        let writing = b.write(&wanted, &fetch);
        tokio::pin!(writing);
        // The first requests under a limit are answered: half a second's worth, or one chunk.
        tokio::select! {
            _ = &mut writing => panic!("five minutes' worth of bytes came at once"),
            () = until(|| received(&b) > 8_000) => {}
        }
        assert!(received(&b) < 3 << 20, "{}", received(&b));
        limited.blobs.set_limits(Limits::default());
        let (results, _) = writing.await;
        results[&1].as_ref().unwrap();
        assert_eq!(b.bytes(1), bytes);
        let sent = a.blobs.rates().values().map(|rate| rate.sent).sum::<u64>();
        assert!(sent >= received(&b), "what is counted is what went");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_stops_a_transfer_and_it_goes_on_where_it_stopped() {
    for serving in [true, false] {
        let (a, b) = (Node::new().await, Node::new().await);
        let bytes = noise(5, 24 << 20);
        let content = a.add(1, &bytes).await;
        let slow = Limits {
            down: slowly(4_000_000),
            ..Limits::default()
        };
        b.blobs.set_limits(slow);
        let pausing = if serving { &a } else { &b };
        let fetch = Peers::default().with(1, &a).fetch();
        let wanted = [(1, &content)];
        let pause = async {
            until(|| received(&b) > 3 << 20).await;
            pausing.blobs.set_limits(Limits {
                paused: true,
                ..Limits::default()
            });
        };
        let ((results, first), ()) = futures::join!(b.write(&wanted, &fetch), pause);
        assert!(matches!(results[&1], Err(WriteError::Unavailable { .. })));
        let before = received(&b);
        let (results, nothing) = b.write(&wanted, &fetch).await;
        assert!(matches!(results[&1], Err(WriteError::Unavailable { .. })));
        assert_eq!((nothing.fetched_bytes, received(&b)), (0, before));
        a.blobs.set_limits(Limits::default());
        b.blobs.set_limits(Limits::default());
        let (results, rest) = b.write(&wanted, &fetch).await;
        results[&1].as_ref().unwrap();
        assert_eq!(b.bytes(1), bytes);
        assert!(
            first.fetched_bytes + rest.fetched_bytes < 27 << 20,
            "{first:?} {rest:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_before_an_interruption_is_not_fetched_again() {
    let (a, b) = (Node::new().await, Node::new().await);
    let content = a.add(1, &noise(6, 24 << 20)).await;
    let cut = Faults {
        cut_at: Some(5 << 20),
        ..Faults::default()
    };
    let mut fetched = Vec::new();
    for peers in [
        Peers::default().faulty(1, &a, cut),
        Peers::default().with(1, &a),
    ] {
        let (done, mut groups) = tokio::sync::mpsc::channel(4);
        let fetch = peers.fetch();
        let storing = b.blobs.store_contents(vec![job(1, &content)], &fetch, done);
        let commit = async {
            let mut whole = false;
            while let Some(group) = groups.recv().await {
                b.commit(&group.shared);
                whole |= group.jobs.iter().any(|(_, result)| result.is_ok());
            }
            whole
        };
        let (done, whole) = futures::join!(storing, commit);
        fetched.push((done.fetched_bytes, whole));
    }
    assert!(!fetched[0].1 && fetched[0].0 > 1 << 20, "{fetched:?}");
    assert!(
        fetched[1].1 && fetched[0].0 + fetched[1].0 < 27 << 20,
        "{fetched:?}"
    );
    let nobody = Fetch::nobody();
    let alone = b.blobs.read_range(&content.root, 0..1000, &nobody);
    assert_eq!(alone.await.unwrap().len(), 1000);
}
