//! What devices are asked besides blobs, and what they say while transfers are paused.

use coffer_protocol::blobs::Version;
use coffer_protocol::identity::Hash;

use super::fleet::{Faults, Node, Peers, device, noise};
use crate::blobs::{Fetch, Imported, Limits, WriteError};

const PAUSED: Limits = Limits {
    up: None,
    down: None,
    paused: true,
};

async fn pieces(node: &Node, content: &Imported) -> Vec<Hash> {
    let chunks = node.blobs.expand(&content.root, &Fetch::nobody()).await;
    chunks.unwrap().iter().map(|chunk| chunk.blob).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_says_which_blobs_it_has_and_gives_none_for_that_paused_or_not() {
    let (a, b) = (Node::new().await, Node::new().await);
    let in_folder = pieces(&a, &a.add(1, &noise(1, 3 << 20)).await).await;
    let stored = pieces(&a, &a.store(&noise(2, 100_000)).await).await;
    let elsewhere = pieces(&b, &b.store(&noise(3, 100_000)).await).await;
    let all = [&in_folder[..], &stored, &elsewhere].concat();
    let fetch = Peers::default().with(1, &a).fetch();
    let ask = || b.blobs.ask(&*fetch.sources, device(1), &all);
    for limits in [Limits::default(), PAUSED, Limits::default()] {
        a.blobs.set_limits(limits);
        let had = ask().await.expect("it answers");
        assert_eq!(had.paused, limits.paused);
        assert_eq!(had.blobs.len(), in_folder.len() + stored.len());
        assert!(elsewhere.iter().all(|id| !had.blobs.contains(id)));
        let known = b
            .blobs
            .paused_elsewhere()
            .borrow()
            .devices
            .contains(&device(1));
        assert_eq!(known, limits.paused);
    }
    assert!(b.blobs.rates().is_empty(), "no contents went");
    // A file that somebody is changing does not count.
    a.set_moving(1, true);
    let had = ask().await.unwrap();
    assert!(in_folder.iter().all(|id| !had.blobs.contains(id)));
    assert_eq!(had.blobs.len(), stored.len());
    let own = a.blobs.have(all.clone()).await.unwrap();
    assert_eq!(own, had.blobs, "it tells itself the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_paused_says_so_at_once_and_when_it_is_over() {
    let (a, b) = (Node::new().await, Node::new().await);
    let bytes = noise(4, 3 << 20);
    let content = a.add(1, &bytes).await;
    a.blobs.set_limits(PAUSED);
    let fetch = Peers::default().with(1, &a).fetch();
    let paused = b.blobs.paused_elsewhere();
    let (results, _) = b.write(&[(1, &content)], &fetch).await;
    assert!(matches!(results[&1], Err(WriteError::Unavailable { .. })));
    assert!(paused.borrow().devices.contains(&device(1)));
    let over = b.blobs.wait_for_end_of_pause(&*fetch.sources, device(1));
    tokio::pin!(over);
    // A question and its answer, while the other one waits.
    tokio::select! {
        _ = &mut over => panic!("it is paused"),
        had = b.blobs.ask(&*fetch.sources, device(1), &[Hash::ZERO]) => assert!(had.is_some()),
    }
    a.blobs.set_limits(Limits::default());
    over.await.unwrap();
    assert_eq!(paused.borrow().ended, 0);
    let (results, _) = b.write(&[(1, &content)], &fetch).await;
    results[&1].as_ref().unwrap();
    assert_eq!(paused.borrow().ended, 1);
    assert!(
        !paused.borrow().devices.contains(&device(1)),
        "it gave something"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_the_first_version_gives_blobs_and_answers_no_questions() {
    let (a, b) = (Node::new().await, Node::new().await);
    let bytes = noise(5, 3 << 20);
    let content = a.add(1, &bytes).await;
    let earlier = Faults {
        speaks: Some(Version::One),
        ..Faults::default()
    };
    let fetch = Peers::default().faulty(1, &a, earlier).fetch();
    let asked = b.blobs.ask(&*fetch.sources, device(1), &[Hash::ZERO]).await;
    assert!(asked.is_none());
    a.blobs.set_limits(PAUSED);
    let (results, done) = b.write(&[(1, &content)], &fetch).await;
    assert!(matches!(results[&1], Err(WriteError::Unavailable { .. })));
    assert!(done.misbehaved.is_empty() && b.blobs.paused_elsewhere().borrow().devices.is_empty());
    a.blobs.set_limits(Limits::default());
    let (results, _) = b.write(&[(1, &content)], &fetch).await;
    results[&1].as_ref().unwrap();
    assert_eq!(b.bytes(1), bytes);
}
