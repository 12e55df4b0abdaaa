//! Which connections end: those of strangers, surplus ones, and those that have died.

use tokio::{net::TcpStream, sync::watch};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_stranger_is_sent_away_and_a_busy_one_is_not() {
    let hasty = || Patience {
        stranger_idle: Duration::from_millis(200),
        ..Patience::default()
    };
    let a = Setup {
        patience: hasty(),
        ..Setup::new(1)
    }
    .start()
    .await;
    let b = node(2).await;
    let stream = {
        b.connect(&a).await;
        within(b.net.open(a.device, ECHO)).await.expect("opens")
    };
    tokio::time::timeout(Duration::from_millis(600), b.settles_at(0))
        .await
        .expect_err("kept while in use");
    drop(stream);
    // The other end still waits in the queue.
    drop(a.incoming);
    b.settles_at(0).await;
    assert_eq!(a.net.roster.strangers(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_strangers_are_let_in_but_always_the_wanted() {
    let a = node(0).await;
    let mut strangers = Vec::new();
    for seed in 1..=limits::STRANGERS {
        let stranger = node(seed as u8).await;
        stranger.connect(&a).await;
        strangers.push(stranger);
    }
    a.settles_at(limits::STRANGERS).await;
    let last = node(100).await;
    // Over TCP the dialler sees its connection come up and end at once.
    last.net.dial(a.device, a.net.listen_addresses()).await.ok();
    last.settles_at(0).await;
    a.want(&last, vec![]).await;
    last.connect(&a).await;
    a.settles_at(limits::STRANGERS + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_is_left_of_several_and_no_stream_is_lost_over_it() {
    for round in 0..4u8 {
        let patience = || Patience {
            surplus_idle: Duration::from_millis(50),
            ..Patience::default()
        };
        let mut a = Setup {
            patience: patience(),
            ..Setup::new(1)
        }
        .start()
        .await;
        let mut b = Setup {
            patience: patience(),
            ..Setup::new(2)
        }
        .start()
        .await;
        a.echo();
        b.echo();
        // Both dial at once, by different transports.
        let (ours, theirs) = if round % 2 == 0 {
            (Transport::Tcp, Transport::Quic)
        } else {
            (Transport::Quic, Transport::Tcp)
        };
        tokio::join!(a.want(&b, b.over(ours)), b.want(&a, a.over(theirs)));
        let mut tasks = Vec::new();
        for number in 0..300u32 {
            let (from, to) = if number % 2 == 0 { (&a, &b) } else { (&b, &a) };
            let (net, device) = (from.net.clone(), to.device);
            tasks.push(tokio::spawn(async move {
                converse(&net, device, &number.to_be_bytes()).await
            }));
        }
        for outcome in within(join_all(tasks)).await {
            assert_eq!(outcome.expect("no panic"), Ok(()));
        }
        a.settles_at(1).await;
        b.settles_at(1).await;
        within(converse(&a.net, b.device, b"still there"))
            .await
            .expect("opens");
        within(converse(&b.net, a.device, b"still there"))
            .await
            .expect("opens");
    }
}

/// Passes bytes between a device and whoever dials it here, until told to swallow them.
async fn wire_to(port: u16) -> (u16, watch::Sender<bool>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let here = listener.local_addr().expect("bound").port();
    let (cut, is_cut) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut is_cut = is_cut.clone();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(("127.0.0.1", port))
                    .await
                    .expect("connects");
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = async { drop(is_cut.wait_for(|cut| *cut).await) } => {}
                }
                // Cut: the sockets stay open and silent.
                std::future::pending::<()>().await;
                drop((near, far));
            });
        }
    });
    (here, cut)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_died_silently_is_found_out_and_its_streams_break() {
    let patience = Patience {
        check_interval: Duration::from_millis(100),
        check_timeout: Duration::from_millis(300),
        ..Patience::default()
    };
    let a = Setup {
        patience,
        ..Setup::new(1)
    }
    .start()
    .await;
    let mut b = node(2).await;
    let mut incoming = b.incoming.take(&ECHO).expect("configured");
    let (port, cut) = wire_to(b.port(Transport::Tcp)).await;
    let mut events = a.net.events();
    a.want(&b, vec![at(&format!("/ip4/127.0.0.1/tcp/{port}"))])
        .await;
    let mut stream = within(a.net.open(b.device, ECHO)).await.expect("opens");
    let _held = within(incoming.recv()).await;
    cut.send_replace(true);
    within(stream.read(&mut [0; 8]))
        .await
        .expect_err("the stream breaks");
    let gone = within(async {
        loop {
            if let Ok(NetEvent::Disconnected { device }) = events.recv().await {
                break device;
            }
        }
    });
    assert_eq!(gone.await, b.device);
}
