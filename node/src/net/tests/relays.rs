//! Devices that reach each other through a host.

use tokio::sync::broadcast;

use super::*;

/// A device that has no direct way to others unless it is told one.
fn device(seed: u8) -> Setup {
    Setup {
        role: Role::Device {
            hole_punching: false,
        },
        ..Setup::new(seed)
    }
}

fn host(options: HostOptions) -> Setup {
    Setup {
        role: Role::Host(options),
        ..Setup::new(90)
    }
}

impl Node {
    async fn serves(&self, clients: &[&Node]) {
        let clients = clients.iter().map(|client| client.device).collect();
        self.net.set_relay_clients(clients).await;
    }

    /// Uses a host.
    async fn uses(&self, host: &Node) {
        let relays = BTreeMap::from([(host.device, host.net.listen_addresses())]);
        self.net.set_relays(relays).await;
    }

    async fn eventually(&self, what: impl Fn(&Net) -> bool) {
        let mut changes = self.net.roster.changes();
        within(async {
            while !what(&self.net) {
                changes.changed().await.expect("the network runs");
            }
        })
        .await;
    }

    async fn reserves(&self, host: &Node) {
        self.eventually(|net| net.reservations().contains(&host.device))
            .await;
    }

    /// How another device is connected: through whom each connection goes.
    fn ways_to(&self, other: &Node) -> Vec<Option<Device>> {
        let connections = self.net.connections();
        let of_it = connections.iter().filter(|one| one.device == other.device);
        of_it.map(|one| one.relayed).collect()
    }
}

/// Two devices that are connected through a host, and know no other way.
async fn pair_through(host: &Node) -> (Node, Node) {
    let (a, mut b) = (device(1).start().await, device(2).start().await);
    b.echo();
    host.serves(&[&a, &b]).await;
    b.uses(host).await;
    b.reserves(host).await;
    a.uses(host).await;
    a.want(&b, vec![]).await;
    b.want(&a, vec![]).await;
    a.eventually(|net| net.is_connected(&b.device)).await;
    b.eventually(|net| net.is_connected(&a.device)).await;
    (a, b)
}

async fn next_event(
    events: &mut broadcast::Receiver<NetEvent>,
    is_it: impl Fn(&NetEvent) -> bool,
) -> NetEvent {
    loop {
        let event = within(events.recv()).await.expect("the network runs");
        if is_it(&event) {
            return event;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_know_only_a_host_reach_each_other_through_it() {
    let host = host(HostOptions::default()).start().await;
    let (a, b) = pair_through(&host).await;
    assert_eq!(a.ways_to(&b), [Some(host.device)]);
    assert_eq!(b.ways_to(&a), [Some(host.device)]);
    within(converse(&a.net, b.device, b"through a host"))
        .await
        .expect("opens");
    let stream = within(a.net.open(b.device, ECHO)).await.expect("opens");
    assert_eq!(stream.relayed(), Some(host.device));
    // The host carries it and is no end of it.
    assert_eq!(host.net.refused_streams(), 0);
    let load = host.net.relay_load();
    assert_eq!(load.reservations, 2);
    assert!((1..=2).contains(&load.circuits), "{load:?}");
    assert_eq!(load.refused_total, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_no_client_gets_no_reservation_and_a_former_client_is_cut_off() {
    let host = host(HostOptions::default()).start().await;
    let (a, b) = pair_through(&host).await;
    let stranger = device(3).start().await;
    let mut events = stranger.net.events();
    stranger.uses(&host).await;
    stranger
        .eventually(|net| net.is_connected(&host.device))
        .await;
    // Nor a circuit to one who has.
    stranger.want(&b, vec![]).await;
    within(converse(&stranger.net, b.device, b"let me in"))
        .await
        .expect_err("is not let through");
    assert!(stranger.net.reservations().is_empty());
    assert!(host.net.relay_load().refused_total >= 2);
    let is_reservation = |event: &NetEvent| matches!(event, NetEvent::Reservation { .. });
    while let Ok(event) = events.try_recv() {
        assert!(!is_reservation(&event));
    }
    let mut events = b.net.events();
    host.serves(&[&a]).await;
    a.eventually(|net| !net.is_connected(&b.device)).await;
    let event = next_event(&mut events, is_reservation).await;
    assert!(
        matches!(event, NetEvent::Reservation { host: from, holds: false } if from == host.device)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_is_renewed_while_it_is_wanted() {
    let options = HostOptions {
        reservation_duration: Duration::from_secs(3),
        ..HostOptions::default()
    };
    let host = host(options).start().await;
    let (a, b) = pair_through(&host).await;
    let mut events = b.net.events();
    let lost = next_event(&mut events, |event| {
        matches!(event, NetEvent::Reservation { .. })
    });
    tokio::time::timeout(Duration::from_secs(5), lost)
        .await
        .expect_err("neither lost nor made anew");
    a.net.close_peer(b.device).await;
    within(converse(&a.net, b.device, b"by a new circuit"))
        .await
        .expect("opens");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_host_was_away_all_is_as_before() {
    let first = host(HostOptions::default()).start().await;
    let (a, b) = pair_through(&first).await;
    let listen = loopback(first.port(Transport::Tcp), first.port(Transport::Quic));
    within(first.net.shutdown()).await;
    a.settles_at(0).await;
    b.settles_at(0).await;
    b.eventually(|net| net.reservations().is_empty()).await;
    let again = Setup {
        listen,
        ..host(HostOptions::default())
    };
    let again = again.start_there().await;
    again.serves(&[&a, &b]).await;
    b.reserves(&again).await;
    a.eventually(|net| net.is_connected(&b.device)).await;
    within(converse(&a.net, b.device, b"as before"))
        .await
        .expect("opens");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_two_hosts_the_loss_of_one_is_no_loss() {
    let first = host(HostOptions::default()).start().await;
    let second = Setup {
        role: Role::Host(HostOptions::default()),
        ..Setup::new(91)
    };
    let second = second.start().await;
    let (a, mut b) = (device(1).start().await, device(2).start().await);
    b.echo();
    let relays: BTreeMap<_, _> = [&first, &second]
        .map(|host| (host.device, host.net.listen_addresses()))
        .into();
    for host in [&first, &second] {
        host.serves(&[&a, &b]).await;
    }
    for node in [&a, &b] {
        node.net.set_relays(relays.clone()).await;
        node.reserves(&first).await;
        node.reserves(&second).await;
    }
    a.want(&b, vec![]).await;
    b.want(&a, vec![]).await;
    a.eventually(|net| net.is_connected(&b.device)).await;
    let used = a.ways_to(&b)[0];
    let (used, left) = if used == Some(first.device) {
        (first, second)
    } else {
        (second, first)
    };
    within(used.net.shutdown()).await;
    a.eventually(|_| a.ways_to(&b) == [Some(left.device)]).await;
    within(converse(&a.net, b.device, b"through the other"))
        .await
        .expect("opens");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_keeps_its_limits() {
    let options = HostOptions {
        reservations: 1,
        circuit_bytes: 64 * 1024,
        ..HostOptions::default()
    };
    let host = host(options).start().await;
    let (a, mut b) = (device(1).start().await, device(2).start().await);
    host.serves(&[&a, &b]).await;
    b.uses(&host).await;
    b.reserves(&host).await;
    let mut incoming = b.incoming.take(&ECHO).expect("configured");
    a.uses(&host).await;
    a.want(&b, vec![]).await;
    a.eventually(|net| net.is_connected(&b.device)).await;
    let mut stream = within(a.net.open(b.device, ECHO)).await.expect("opens");
    assert!(a.net.reservations().is_empty());
    // More than one circuit may carry: it breaks, and the next one comes up by itself.
    let sent = async {
        let block = [7; 16 * 1024];
        while stream.write_all(&block).await.is_ok() && stream.flush().await.is_ok() {}
    };
    let (_, mut theirs) = within(incoming.recv()).await.expect("arrives");
    let received = async {
        let mut block = vec![0; 16 * 1024];
        let mut all = 0;
        while let Ok(read @ 1..) = theirs.read(&mut block).await {
            all += read;
        }
        all
    };
    let ((), received) = within(join(sent, received)).await;
    assert!(received <= 64 * 1024, "{received}");
    drop(stream);
    within(a.net.open(b.device, ECHO))
        .await
        .expect("opens again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_path_replaces_one_through_a_host() {
    let host = host(HostOptions::default()).start().await;
    let (a, b) = pair_through(&host).await;
    let mut events = a.net.events();
    // One that stays open, and one that comes when both paths are there.
    let mut old = within(a.net.open(b.device, ECHO)).await.expect("opens");
    assert_eq!(old.relayed(), Some(host.device));
    a.want(&b, b.net.listen_addresses()).await;
    let is_direct = |event: &NetEvent| matches!(event, NetEvent::Direct { .. });
    let event = next_event(&mut events, is_direct).await;
    assert!(
        matches!(event, NetEvent::Direct { device, transport: Transport::Tcp, .. } if device == b.device)
    );
    let new = within(a.net.open(b.device, ECHO)).await.expect("opens");
    assert_eq!(new.relayed(), None);
    a.eventually(|_| a.ways_to(&b) == [None]).await;
    b.eventually(|_| b.ways_to(&a) == [None]).await;
    // The old one is cut after a grace; by whom decides whether that looks like an error or like an end.
    assert!(!matches!(within(old.read(&mut [0; 8])).await, Ok(1..)));
    within(converse(&a.net, b.device, b"directly"))
        .await
        .expect("opens");
    // And back, when the direct way is closed.
    a.want(&b, vec![]).await;
    within(b.net.shutdown()).await;
    a.eventually(|net| !net.is_connected(&b.device)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_see_each_other_through_a_host_find_the_direct_path_themselves() {
    let host = host(HostOptions::default()).start().await;
    let (a, mut b) = (node(1).await, node(2).await);
    b.echo();
    host.serves(&[&a, &b]).await;
    b.uses(&host).await;
    b.reserves(&host).await;
    a.uses(&host).await;
    // Both have to want it: nobody is told where we are whom we do not know.
    b.want(&a, vec![]).await;
    a.want(&b, vec![]).await;
    a.eventually(|_| a.ways_to(&b) == [None]).await;
    b.eventually(|_| b.ways_to(&a) == [None]).await;
    within(converse(&a.net, b.device, b"punched"))
        .await
        .expect("opens");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_tries_whether_its_client_can_be_reached_and_leaves_no_connection() {
    let host = host(HostOptions::default()).start().await;
    let a = device(1).start().await;
    host.serves(&[&a]).await;
    let quic = host.over(Transport::Quic);
    a.net
        .set_relays(BTreeMap::from([(host.device, quic)]))
        .await;
    within(async {
        while a.net.external_addresses().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(a.net.external_addresses(), a.over(Transport::Quic));
    assert_eq!(a.net.connections().len(), 1);
    assert_eq!(host.net.connections().len(), 1);
}
