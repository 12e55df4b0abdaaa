//! Streams come in, and each goes to the one who speaks its protocol, in a task of its own.
//!
//! Bounded: streams of one device by the network's own limits ([`protocols`]), streams in a minute by device, joins at
//! once. All tasks belong to [`run`], which ends when the host drains: it takes nothing new, waits for what is under way
//! as long as was configured, and drops the rest.

use std::sync::Arc;
use std::time::Duration;

use coffer_protocol::blobs::Version;
use coffer_protocol::version;
use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::host::Host;
use super::{deposit, giving, joining, recovering, session};
use crate::net::{Inbound, Incoming, Protocol, Stream, StreamProtocol};

/// Accepted streams that may wait for this loop.
const QUEUE: usize = 128;
/// Joins at a time; each may hold the grants of a vault in memory.
const MAX_JOINS: usize = 16;

/// What a host answers, and how many streams of it one device may have open: a device has one vault, a person's test
/// machine a few.
pub fn protocols() -> Vec<Protocol> {
    let protocol = |name, per_device| Protocol {
        name: StreamProtocol::new(name),
        queue: QUEUE,
        per_device,
    };
    vec![
        protocol(version::REPLICATE, 8),
        protocol(version::BLOBS, 8),
        protocol(version::BLOBS_2, 8),
        protocol(version::RELAY_BLOBS, 4),
        protocol(version::RELAY_JOIN, 2),
        protocol(version::RECOVER_PROTOCOL, 2),
    ]
}

/// Who carries a stream to its end.
type Speaker = fn(Arc<Host>, Stream) -> BoxFuture<'static, ()>;

/// Serves until the host drains, and to the end of what is under way.
pub async fn run(host: Arc<Host>, mut incoming: Incoming) {
    let mut take = |name| {
        let name = StreamProtocol::new(name);
        // A protocol that was not configured stays silent.
        incoming.take(&name).unwrap_or_else(|| mpsc::channel(1).1)
    };
    let mut replicate = take(version::REPLICATE);
    let mut give = take(version::BLOBS);
    let mut give_2 = take(version::BLOBS_2);
    let mut deposit = take(version::RELAY_BLOBS);
    let mut join = take(version::RELAY_JOIN);
    let mut recover = take(version::RECOVER_PROTOCOL);
    let mut tasks = JoinSet::new();
    let mut joins = JoinSet::new();
    loop {
        tokio::select! {
            () = host.drains() => break,
            Some(inbound) = replicate.recv() => admit(&host, inbound, "replicate", &mut tasks, |host, stream| {
                Box::pin(async move { session::hold(&host, stream).await })
            }),
            Some(inbound) = give.recv() => admit(&host, inbound, "blobs", &mut tasks, |host, stream| {
                Box::pin(async move { giving::serve(&host, Version::One, stream).await })
            }),
            Some(inbound) = give_2.recv() => admit(&host, inbound, "blobs", &mut tasks, |host, stream| {
                Box::pin(async move { giving::serve(&host, Version::Two, stream).await })
            }),
            Some(inbound) = deposit.recv() => admit(&host, inbound, "relay-blobs", &mut tasks, |host, stream| {
                Box::pin(async move { deposit::serve(&host, stream).await })
            }),
            Some(inbound) = join.recv() => {
                if joins.len() < MAX_JOINS {
                    admit(&host, inbound, "relay-join", &mut joins, |host, stream| {
                        Box::pin(async move { joining::join(&host, stream).await })
                    });
                } else {
                    host.metrics.refused("busy");
                }
            }
            Some(inbound) = recover.recv() => {
                if joins.len() < MAX_JOINS {
                    admit(&host, inbound, "recover", &mut joins, |host, stream| {
                        Box::pin(async move { recovering::serve(&host, stream).await })
                    });
                } else {
                    host.metrics.refused("busy");
                }
            }
            Some(_) = tasks.join_next() => {}
            Some(_) = joins.join_next() => {}
            else => break,
        }
    }
    let patience = tokio::time::timeout(host.config.drain, async {
        while tasks.join_next().await.is_some() {}
        while joins.join_next().await.is_some() {}
    });
    if patience.await.is_err() {
        tracing::warn!("ended before everything under way had");
    }
    tasks.shutdown().await;
    joins.shutdown().await;
}

fn admit(
    host: &Arc<Host>,
    (device, stream): Inbound,
    protocol: &'static str,
    tasks: &mut JoinSet<()>,
    speaker: Speaker,
) {
    if !host.allows_stream(device) {
        host.metrics.refused("stream-rate");
        return;
    }
    host.metrics.stream(protocol);
    tasks.spawn(speaker(host.clone(), stream));
}

/// How long, and for how many bytes, the other side may go on after the last answer.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);
const LEAVE_BYTES: usize = 1 << 20;

/// Closes a stream so that the last answer arrives: what is dropped while the other side still sends is reset, and an
/// answer that it has not read yet may be lost.
pub async fn take_leave(mut read: impl AsyncRead + Unpin, mut write: impl AsyncWrite + Unpin) {
    let leave = async {
        let _ = write.close().await;
        let mut scratch = vec![0; 16 << 10];
        let mut left = LEAVE_BYTES;
        while let Ok(got) = read.read(&mut scratch).await
            && got > 0
            && left > got
        {
            left -= got;
        }
    };
    let _ = tokio::time::timeout(LEAVE_WITHIN, leave).await;
}
