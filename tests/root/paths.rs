//! Which paths devices find to each other through routers of the four usual kinds, over links with delay and loss, and over
//! one that comes and goes.
//!
//! The matrix as a table, as docs/performance.md has it:
//! `cargo test -p coffer --features root-tests --test root -- --nocapture routers`

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use coffer_node::net::{Device, HostOptions, Multiaddr, Role, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::internet::{ECHO, Internet, Node, Router};

/// Bound of every wait in here; nothing takes as long unless it fails.
const SOON: Duration = Duration::from_secs(40);

/// After this time a pair that is still connected through the host is counted as such: three tries of hole punching, of
/// which each ends after at most 10 s, have then begun.
const SETTLED: Duration = Duration::from_secs(15);

/// How a pair of devices came to be connected.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    connected: Duration,
    /// When the direct path was there, if it came.
    direct: Option<Duration>,
}

fn device_role(hole_punching: bool) -> Role {
    Role::Device { hole_punching }
}

/// The host, for two devices.
async fn host(internet: &mut Internet) -> (Node, BTreeMap<Device, Vec<Multiaddr>>) {
    internet.machine("host");
    let host = internet
        .node("host", 90, Role::Host(HostOptions::default()))
        .await;
    // Its port is a neighbour of the usual one where that looks taken: a command that another test starts at that moment
    // holds all sockets of this process until it has begun.
    let mut at = host.net.listen_addresses();
    at.retain(|one| !one.to_string().starts_with("/ip4/127."));
    let relays = BTreeMap::from([(host.device, at)]);
    (host, relays)
}

/// Both use the host and want each other; returns when both have their reservations.
async fn acquaint((host, relays): &(Node, BTreeMap<Device, Vec<Multiaddr>>), a: &Node, b: &Node) {
    let clients = [a.device, b.device].into();
    host.net.set_relay_clients(clients).await;
    for node in [a, b] {
        node.net.set_relays(relays.clone()).await;
        let began = Instant::now();
        while !node.net.reservations().contains(&host.device) {
            let (of_it, of_host) = (node.net.connections(), host.net.connections());
            assert!(
                began.elapsed() < SOON,
                "none; connected: {of_it:?}; the host: {of_host:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn eventually(is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < SOON, "waited {SOON:?} in vain");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Answers every stream with what it says.
fn echo(node: &mut Node) {
    let incoming = node.incoming.as_mut().and_then(|all| all.take(&ECHO));
    let mut incoming = incoming.expect("configured");
    tokio::spawn(async move {
        while let Some((_, stream)) = incoming.recv().await {
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(stream.into_tokio());
                tokio::io::copy(&mut read, &mut write).await.ok();
                write.shutdown().await.ok();
            });
        }
    });
}

/// Sends this much and hears it again.
async fn converse(stream: Stream, bytes: usize) -> std::io::Result<()> {
    let (mut read, mut write) = tokio::io::split(stream.into_tokio());
    let sent = async {
        let block = vec![7; 16 * 1024];
        let mut left = bytes;
        while left > 0 {
            let now = left.min(block.len());
            write.write_all(&block[..now]).await?;
            left -= now;
        }
        write.shutdown().await
    };
    let heard = async {
        let mut block = vec![0; 16 * 1024];
        let mut all = 0;
        loop {
            match read.read(&mut block).await? {
                0 => break,
                more => all += more,
            }
        }
        if all == bytes {
            Ok(())
        } else {
            Err(std::io::ErrorKind::UnexpectedEof.into())
        }
    };
    tokio::try_join!(sent, heard).map(|_| ())
}

fn is_direct(node: &Node, other: &Node) -> bool {
    let connections = node.net.connections();
    let mut of_it = connections.iter().filter(|one| one.device == other.device);
    of_it.any(|one| one.relayed.is_none())
}

/// A host and two devices on an internet that is gone with them.
struct Scene {
    a: Node,
    b: Node,
    host: Node,
    internet: Internet,
}

impl Scene {
    /// Starts the three nodes, which know each other, and waits for the reservations; the devices want each other then.
    async fn begin(mut internet: Internet, hole_punching: bool) -> Scene {
        let host = host(&mut internet).await;
        let a = internet.node("a", 1, device_role(hole_punching)).await;
        let mut b = internet.node("b", 2, device_role(hole_punching)).await;
        echo(&mut b);
        acquaint(&host, &a, &b).await;
        let wants = |node: &Node| BTreeMap::from([(node.device, Vec::new())]);
        a.net.set_wanted(wants(&b)).await;
        b.net.set_wanted(wants(&a)).await;
        Scene {
            a,
            b,
            host: host.0,
            internet,
        }
    }

    async fn are_connected(&self) {
        let (a, b) = (&self.a, &self.b);
        eventually(|| a.net.is_connected(&b.device) && b.net.is_connected(&a.device)).await;
    }

    async fn are_directly_connected(&self) {
        eventually(|| is_direct(&self.a, &self.b) && is_direct(&self.b, &self.a)).await;
    }

    /// A says this much to B, and hears it again, at the first try.
    async fn converse(&self, bytes: usize) {
        let stream = self.a.net.open(self.b.device, ECHO).await.expect("opens");
        converse(stream, bytes).await.expect("is heard");
    }
}

/// Connects two devices behind these routers.
async fn meet(routers: (Router, Router), hole_punching: bool) -> Outcome {
    let mut internet = Internet::new();
    internet.home("a", routers.0);
    internet.home("b", routers.1);
    let scene = Scene::begin(internet, hole_punching).await;
    let (a, b) = (&scene.a, &scene.b);
    let began = Instant::now();
    eventually(|| a.net.is_connected(&b.device)).await;
    let connected = began.elapsed();
    let mut direct = None;
    while direct.is_none() && began.elapsed() < SETTLED {
        direct = (is_direct(a, b) && is_direct(b, a)).then(|| began.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let stream = a.net.open(b.device, ECHO).await.expect("opens");
    assert_eq!(stream.relayed().is_none(), direct.is_some(), "{routers:?}");
    converse(stream, 100_000).await.expect("is heard");
    Outcome { connected, direct }
}

/// Whether a direct path must come, or cannot; `None` where it depends on who dials when.
fn comes_to_be_direct(one: Router, other: Router, hole_punching: bool) -> Option<bool> {
    use Router::{FullCone, PortRestricted, Symmetric};
    let is_one = |router| one == router || other == router;
    // Whoever wants to is let in: the host finds that out, and the other is told.
    if is_one(FullCone) {
        return Some(true);
    }
    // The port that the host sees is not the one at which the other router waits.
    if is_one(Symmetric) && (is_one(PortRestricted) || one == other) {
        return Some(false);
    }
    hole_punching.then_some(true)
}

#[test]
fn devices_behind_routers_of_all_kinds_reach_each_other_and_directly_where_it_can_be() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut pairs = Vec::new();
    for (at, one) in Router::ALL.into_iter().enumerate() {
        for other in &Router::ALL[at..] {
            for hole_punching in [false, true] {
                let met = runtime.spawn(meet((one, *other), hole_punching));
                pairs.push((one, *other, hole_punching, met));
            }
        }
    }
    println!(
        "| A's router | B's router | hole punching | path | through the host after | direct after |"
    );
    println!("|---|---|---|---|---|---|");
    for (one, other, hole_punching, met) in pairs {
        let outcome = runtime.block_on(met).expect("no panic");
        let direct = outcome.direct.is_some();
        if let Some(expected) = comes_to_be_direct(one, other, hole_punching) {
            assert_eq!(direct, expected, "{one:?} {other:?} {hole_punching}");
        }
        let after = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        println!(
            "| {one:?} | {other:?} | {} | {} | {} | {} |",
            if hole_punching { "with" } else { "without" },
            if direct { "direct" } else { "through the host" },
            after(outcome.connected),
            outcome.direct.map_or("–".into(), after),
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_devices_that_can_reach_only_the_host_work_through_it_until_the_way_opens() {
    let mut internet = Internet::new();
    internet.machine("a");
    internet.machine("b");
    internet.filter(
        "world",
        "table ip wall {
            chain between {
                type filter hook forward priority 0
                iifname a oifname b drop
                iifname b oifname a drop
            }
        }\n",
    );
    let scene = Scene::begin(internet, true).await;
    scene.are_connected().await;
    scene.converse(20_000_000).await;
    let through: Vec<_> = scene.a.net.connections();
    let through = through.iter().filter(|one| one.device == scene.b.device);
    let through: Vec<_> = through.map(|one| one.relayed).collect();
    assert_eq!(through, [Some(scene.host.device)]);
    scene.internet.filter("world", "flush ruleset");
    scene.are_directly_connected().await;
    scene.converse(1_000_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_with_delay_and_loss_are_punched_and_worked_over() {
    for (router, directly) in [(Router::PortRestricted, true), (Router::Symmetric, false)] {
        let mut internet = Internet::new();
        internet.home("a", router);
        internet.home("b", router);
        // The host is a machine of it too, and comes before the backbone is made slow.
        let mut scene = Scene::begin(internet, true).await;
        scene.internet.slow(40, 0.02, 1);
        scene.a.net.close_peer(scene.b.device).await;
        scene.are_connected().await;
        if directly {
            scene.are_directly_connected().await;
        }
        scene.converse(200_000).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_link_that_comes_and_goes_devices_find_each_other_again() {
    let mut internet = Internet::new();
    internet.home("a", Router::PortRestricted);
    internet.home("b", Router::Restricted);
    let scene = Scene::begin(internet, true).await;
    scene.are_directly_connected().await;
    for _ in 0..5 {
        scene.internet.plug("a-r", false);
        // What is said now is lost, or arrives late.
        let said = scene.a.net.open(scene.b.device, ECHO);
        tokio::time::timeout(Duration::from_millis(700), said)
            .await
            .ok();
        scene.internet.plug("a-r", true);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // And one that is long enough for routers and connections to forget.
    scene.internet.plug("a-r", false);
    scene.a.net.close_peer(scene.b.device).await;
    scene.b.net.close_peer(scene.a.device).await;
    scene.internet.plug("a-r", true);
    scene.are_connected().await;
    scene.converse(1_000_000).await;
    scene.are_directly_connected().await;
}
