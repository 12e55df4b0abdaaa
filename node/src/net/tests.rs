//! Networks on loopback, with real sockets.

use std::{collections::BTreeMap, future::Future, net::TcpListener, time::Duration};

use super::limits::Patience;
use super::*;
use futures::{
    StreamExt,
    future::{join, join_all},
    io::{AsyncReadExt, AsyncWriteExt},
};

mod ending;
mod relays;

const ECHO: StreamProtocol = StreamProtocol::new("/test/echo/1");
const OTHER: StreamProtocol = StreamProtocol::new("/test/other/1");

/// Bound of every wait in here; nothing takes as long unless it fails.
const SOON: Duration = Duration::from_secs(30);

struct Node {
    net: Net,
    incoming: Incoming,
    device: Device,
}

#[derive(Clone)]
struct Setup {
    seed: u8,
    listen: Vec<Multiaddr>,
    queue: usize,
    per_device: usize,
    patience: Patience,
    role: Role,
}

impl Setup {
    fn new(seed: u8) -> Self {
        Self {
            seed,
            listen: loopback(0, 0),
            queue: 16,
            per_device: 1024,
            patience: Patience::default(),
            role: Role::default(),
        }
    }

    async fn start(self) -> Node {
        let config = NetConfig {
            door: None,
            key: Box::new([self.seed; 32]),
            listen: self.listen,
            mdns: false,
            protocols: vec![Protocol {
                name: ECHO,
                queue: self.queue,
                per_device: self.per_device,
            }],
            role: self.role,
        };
        let (net, incoming) = Net::start_with(config, self.patience)
            .await
            .expect("starts");
        Node {
            device: net.local_device(),
            net,
            incoming,
        }
    }

    /// Starts on the very ports that `listen` names: another test may have got one meanwhile, and gives it back.
    async fn start_there(self) -> Node {
        within(async {
            loop {
                let node = self.clone().start().await;
                let is_there = |one| node.net.listen_addresses().contains(one);
                if self.listen.iter().all(is_there) {
                    return node;
                }
                node.net.shutdown().await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await
    }
}

async fn node(seed: u8) -> Node {
    Setup::new(seed).start().await
}

fn at(text: &str) -> Multiaddr {
    text.parse().expect("address")
}

fn loopback(tcp: u16, quic: u16) -> Vec<Multiaddr> {
    vec![
        at(&format!("/ip4/127.0.0.1/tcp/{tcp}")),
        at(&format!("/ip4/127.0.0.1/udp/{quic}/quic-v1")),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_free_port_is_one_number_for_tcp_and_quic() {
    for seed in 1..=8 {
        let node = node(seed).await;
        assert_eq!(node.port(Transport::Tcp), node.port(Transport::Quic));
        assert_ne!(node.port(Transport::Tcp), 0);
    }
}

impl Node {
    fn over(&self, transport: Transport) -> Vec<Multiaddr> {
        let place = |address: &Multiaddr| address::Place::of(address).expect("shape").transport;
        self.net
            .listen_addresses()
            .into_iter()
            .filter(|address| place(address) == transport)
            .collect()
    }

    fn port(&self, transport: Transport) -> u16 {
        address::Place::of(&self.over(transport)[0])
            .expect("shape")
            .port
    }

    /// Answers every stream with what it says.
    fn echo(&mut self) {
        let mut incoming = self.incoming.take(&ECHO).expect("configured");
        tokio::spawn(async move {
            while let Some((_, mut stream)) = incoming.recv().await {
                tokio::spawn(async move {
                    let mut buffer = Vec::new();
                    while let Ok(true) = read_frame(&mut stream, &mut buffer, 1024).await {
                        write_frame(&mut stream, &buffer, 1024)
                            .await
                            .expect("written");
                        stream.flush().await.expect("flushed");
                    }
                    stream.close().await.ok();
                });
            }
        });
    }

    async fn connect(&self, other: &Node) {
        within(self.net.dial(other.device, other.net.listen_addresses()))
            .await
            .expect("connects");
    }

    async fn want(&self, other: &Node, addresses: Vec<Multiaddr>) {
        self.net
            .set_wanted(BTreeMap::from([(other.device, addresses)]))
            .await;
    }

    /// Waits until the number of connections is this.
    async fn settles_at(&self, connections: usize) {
        let mut changes = self.net.roster.changes();
        within(async {
            while self.net.connections().len() != connections {
                changes.changed().await.expect("the network runs");
            }
        })
        .await;
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("in time")
}

/// Says something, and hears it again.
async fn converse(net: &Net, device: Device, text: &[u8]) -> Result<(), OpenError> {
    let mut stream = net.open(device, ECHO).await?;
    write_frame(&mut stream, text, 1024).await.expect("written");
    stream.close().await.expect("closed");
    let mut buffer = Vec::new();
    assert!(
        read_frame(&mut stream, &mut buffer, 1024)
            .await
            .expect("read")
    );
    assert_eq!(buffer, text);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_connect_over_tcp_near_by_and_say_where_they_listen() {
    let (a, mut b) = (node(1).await, node(2).await);
    b.echo();
    let mut events = b.net.events();
    b.want(&a, vec![]).await;
    a.want(&b, b.net.listen_addresses()).await;
    a.settles_at(1).await;
    within(converse(&a.net, b.device, b"hello"))
        .await
        .expect("opens");
    let info = &a.net.connections()[0];
    assert_eq!(
        (info.device, info.transport, info.outbound),
        (b.device, Transport::Tcp, true)
    );
    assert_eq!((info.bytes_out, info.bytes_in), (9, 9));
    // B never dialled; it was told.
    let told = within(async {
        loop {
            if let Ok(NetEvent::Addresses { device, addresses }) = events.recv().await {
                break (device, addresses);
            }
        }
    })
    .await;
    let mut expected = a.net.listen_addresses();
    expected.sort();
    assert_eq!(told, (a.device, expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_streams_at_once_are_all_served() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let (a, mut b) = (node(1).await, node(2).await);
        b.echo();
        within(a.net.dial(b.device, b.over(transport)))
            .await
            .expect("connects");
        assert_eq!(a.net.connections()[0].transport, transport);
        let tasks = (0..5_000u32).map(|number| {
            let net = a.net.clone();
            let device = b.device;
            tokio::spawn(async move {
                // Waiting for a slot counts against the timeout, and 5,000 may wait longer on a slow machine.
                let mut tries = 0;
                loop {
                    match converse(&net, device, &number.to_be_bytes()).await {
                        Err(OpenError::Timeout) if tries < 5 => tries += 1,
                        result => break result,
                    }
                }
            })
        });
        for outcome in within(join_all(tasks)).await {
            assert_eq!(outcome.expect("no panic"), Ok(()));
        }
        assert_eq!(b.net.refused_streams(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_says_so() {
    let a = node(1).await;
    let mut b = Setup {
        queue: 1,
        ..Setup::new(2)
    }
    .start()
    .await;
    a.connect(&b).await;
    let first = within(a.net.open(b.device, ECHO))
        .await
        .expect("there is room for one");
    assert_eq!(
        within(a.net.open(b.device, ECHO)).await.map(drop),
        Err(OpenError::Busy)
    );
    assert_eq!(b.net.refused_streams(), 1);
    let (from, _) = within(b.incoming.take(&ECHO).expect("configured").recv())
        .await
        .expect("the first arrived");
    assert_eq!(from, a.device);
    drop(first);
    // Its queue was dropped above: the protocol is not served any more.
    assert_eq!(
        within(a.net.open(b.device, ECHO)).await.map(drop),
        Err(OpenError::Unsupported)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_has_its_share_of_streams_and_gets_it_back() {
    let a = node(1).await;
    let mut b = Setup {
        per_device: 2,
        ..Setup::new(2)
    }
    .start()
    .await;
    let mut incoming = b.incoming.take(&ECHO).expect("configured");
    a.connect(&b).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let ours = within(a.net.open(b.device, ECHO))
            .await
            .expect("within its share");
        held.push((ours, within(incoming.recv()).await.expect("arrives")));
    }
    assert_eq!(
        within(a.net.open(b.device, ECHO)).await.map(drop),
        Err(OpenError::Busy)
    );
    held.pop();
    within(a.net.open(b.device, ECHO))
        .await
        .expect("one was given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_refuses_tls_is_reached_over_noise() {
    use libp2p::{SwarmBuilder, noise, swarm::SwarmEvent, tcp, yamux};
    let node = Setup {
        listen: vec![at("/ip4/127.0.0.1/tcp/0")],
        ..Setup::new(1)
    }
    .start()
    .await;
    let mut other = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .expect("noise")
        .with_behaviour(|_| libp2p::swarm::dummy::Behaviour)
        .expect("a behaviour")
        .with_swarm_config(|config| config.with_idle_connection_timeout(SOON))
        .build();
    other
        .listen_on(at("/ip4/127.0.0.1/tcp/0"))
        .expect("listens");
    let own = *other.local_peer_id();
    let address = within(async {
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = other.select_next_some().await {
                break address;
            }
        }
    })
    .await;
    let device = address::device_of(&own).expect("an Ed25519 key");
    // Whoever dials offers both; the one that knows only Noise picks that.
    let dial = node.net.dial(device, vec![address]);
    let heard = async {
        loop {
            if let SwarmEvent::ConnectionEstablished { peer_id, .. } =
                other.select_next_some().await
            {
                break peer_id;
            }
        }
    };
    let (dialled, peer) = within(join(dial, heard)).await;
    dialled.expect("connects");
    assert_eq!(address::device_of(&peer), Some(node.device));
    assert!(node.net.is_connected(&device));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_opened_is_refused_by_reason() {
    let (a, b) = (node(1).await, node(2).await);
    assert_eq!(
        within(a.net.open(b.device, ECHO)).await.map(drop),
        Err(OpenError::NotConnected)
    );
    a.connect(&b).await;
    assert_eq!(
        within(a.net.open(b.device, OTHER)).await.map(drop),
        Err(OpenError::Unsupported)
    );
    let c = node(3).await;
    let wrong = a.net.dial(c.device, b.net.listen_addresses());
    assert!(matches!(
        within(wrong).await,
        Err(DialError::Unreachable(_))
    ));
    assert!(matches!(
        within(a.net.dial(c.device, vec![at("/dns4/x/tcp/1")])).await,
        Err(DialError::Unreachable(_))
    ));
    assert!(matches!(
        a.net.dial(a.device, vec![]).await,
        Err(DialError::BadKey)
    ));
    within(a.net.shutdown()).await;
    assert_eq!(
        a.net.open(b.device, ECHO).await.map(drop),
        Err(OpenError::Closed)
    );
    assert!(matches!(
        a.net.dial(b.device, vec![]).await,
        Err(DialError::Closed)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_device_is_connected_again_whoever_dials() {
    let a = node(1).await;
    let b = node(2).await;
    let listen = loopback(b.port(Transport::Tcp), b.port(Transport::Quic));
    let addresses = b.net.listen_addresses();
    a.want(&b, addresses.clone()).await;
    a.settles_at(1).await;

    // It comes back at its address and waits: we dial.
    within(b.net.shutdown()).await;
    a.settles_at(0).await;
    let b = Setup {
        listen,
        ..Setup::new(2)
    }
    .start_there()
    .await;
    assert_eq!(b.over(Transport::Tcp), addresses[..1].to_vec());
    let back = std::time::Instant::now();
    a.settles_at(1).await;
    assert!(
        back.elapsed() < Duration::from_secs(3),
        "took {:?}",
        back.elapsed()
    );

    // It comes back elsewhere, and dials.
    within(b.net.shutdown()).await;
    a.settles_at(0).await;
    let b = node(2).await;
    let back = std::time::Instant::now();
    b.want(&a, a.net.listen_addresses()).await;
    a.settles_at(1).await;
    assert!(
        back.elapsed() < Duration::from_secs(1),
        "took {:?}",
        back.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_can_be_asked_for_while_the_device_is_being_reconnected() {
    let (a, mut b) = (node(1).await, node(2).await);
    b.echo();
    a.want(&b, b.net.listen_addresses()).await;
    within(converse(
        &a.net,
        b.device,
        b"waits for the first connection",
    ))
    .await
    .expect("opens");
    a.net.close_peer(b.device).await;
    within(converse(&a.net, b.device, b"waits for the second"))
        .await
        .expect("opens");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_replaced_even_if_its_holder_would_share_it() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = holder.local_addr().expect("bound").port();
    let a = Setup {
        listen: loopback(taken, taken),
        ..Setup::new(1)
    }
    .start()
    .await;
    assert_ne!(a.port(Transport::Tcp), taken);
    assert_eq!(a.port(Transport::Tcp), a.port(Transport::Quic));
    // libp2p's own listeners share ports.
    let same = loopback(a.port(Transport::Tcp), a.port(Transport::Quic));
    let b = Setup {
        listen: same,
        ..Setup::new(2)
    }
    .start()
    .await;
    assert_ne!(b.port(Transport::Tcp), a.port(Transport::Tcp));
    b.connect(&a).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn halves_of_a_stream_can_be_shared_and_tokio_can_use_it() {
    fn is_sync(_: &impl Sync) {}
    let (a, mut b) = (node(1).await, node(2).await);
    b.echo();
    a.connect(&b).await;
    let (mut reader, mut writer) = within(a.net.open(b.device, ECHO))
        .await
        .expect("opens")
        .split();
    is_sync(&reader);
    is_sync(&writer);
    write_frame(&mut writer, b"halves", 1024)
        .await
        .expect("written");
    writer.flush().await.expect("flushed");
    let mut buffer = Vec::new();
    assert!(
        within(read_frame(&mut reader, &mut buffer, 1024))
            .await
            .expect("read")
    );

    let mut stream = within(a.net.open(b.device, ECHO))
        .await
        .expect("opens")
        .into_tokio();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"\0\0\0\x02hi")
        .await
        .expect("written");
    tokio::io::AsyncWriteExt::shutdown(&mut stream)
        .await
        .expect("shut");
    let mut answer = Vec::new();
    within(tokio::io::AsyncReadExt::read_to_end(
        &mut stream,
        &mut answer,
    ))
    .await
    .expect("read");
    assert_eq!(answer, b"\0\0\0\x02hi");
}
