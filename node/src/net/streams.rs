//! Streams on one connection: the libp2p connection handler of a node.
//!
//! Our own, because `libp2p-stream` drops inbound streams silently when its reader is late. Here the side that accepts a
//! stream answers with one byte after protocol negotiation: accepted (it *is* in the queue of its protocol), busy, moved (the
//! connection is closing, try another) or unserved. The opener learns what became of its stream, at no extra round trip.
//!
//! Neighbours: [`super::connections`] makes a [`Handler`] for each connection; [`super::Net::open`] talks to it through
//! [`Connection::opener`].

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use futures::{
    future::BoxFuture,
    io::{AsyncReadExt, AsyncWriteExt},
};
use libp2p::{
    Multiaddr, StreamProtocol,
    core::upgrade::UpgradeInfo,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
        },
    },
};
use tokio::sync::{mpsc, oneshot};

use super::{
    Door,
    address::Device,
    limits::{OPEN_TIMEOUT, QUEUE_PATIENCE},
    presence::{self, PRESENCE},
    role::Role,
    roster::{Connection, Roster},
    stream::Stream,
};

/// A stream that arrived, and from whom.
pub type Inbound = (Device, Stream);

/// A protocol that this node answers, and where its streams go.
pub(super) struct Served {
    pub name: StreamProtocol,
    pub queue: mpsc::Sender<Inbound>,
    pub per_device: usize,
}

/// What behaviour and handlers share.
pub(super) struct Shared {
    pub roster: Arc<Roster>,
    pub served: Vec<Served>,
    pub role: Role,
    pub door: Option<Arc<dyn Door>>,
}

/// The accepting side's answer; the numbers are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Answer {
    /// The stream is in its queue.
    Accepted = 1,
    /// The queue, or the opener's share of it, is full.
    Busy = 2,
    /// This connection is closing.
    Moved = 3,
    /// Nobody takes streams of this protocol any more.
    Unserved = 4,
}

/// Why a stream did not open on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The connection is gone, or closing at our end.
    Gone,
    /// It is closing at the other end.
    Moved,
    Busy,
    Unsupported,
    Timeout,
    /// The stream broke before it was accepted.
    Broken,
}

/// Asks the handler of a connection for a stream.
#[derive(Debug)]
pub(super) struct OpenRequest {
    protocol: StreamProtocol,
    reply: oneshot::Sender<Result<libp2p::Stream, Failure>>,
}

impl Connection {
    /// Opens a stream over this connection, once there is room.
    pub async fn open(&self, protocol: &StreamProtocol) -> Result<Stream, Failure> {
        let permit = self
            .slots
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| Failure::Gone)?;
        let in_use = self.usage.enter().ok_or(Failure::Gone)?;
        let stream = self.open_bare(protocol).await?;
        Ok(Stream::new(stream, self, in_use, permit))
    }

    /// Opens a stream that counts in no limit and keeps nothing alive.
    pub async fn open_bare(&self, protocol: &StreamProtocol) -> Result<libp2p::Stream, Failure> {
        let (reply, answer) = oneshot::channel();
        let request = OpenRequest {
            protocol: protocol.clone(),
            reply,
        };
        self.opener.send(request).await.map_err(|_| Failure::Gone)?;
        answer.await.unwrap_or(Err(Failure::Gone))
    }
}

// ---- negotiation of one stream

/// The accepting side of a new stream.
pub(super) struct Accept {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
}

/// Addresses that the other end told us; empty for streams of other protocols.
type Told = Option<Vec<Multiaddr>>;

/// The names that this node answers; made anew at each poll of a connection, so it allocates nothing.
pub(super) struct Names(Arc<Shared>, usize);

impl Iterator for Names {
    type Item = StreamProtocol;

    fn next(&mut self) -> Option<StreamProtocol> {
        let at = self.1;
        self.1 += 1;
        match at.checked_sub(1) {
            None => Some(PRESENCE),
            Some(at) => self.0.served.get(at).map(|served| served.name.clone()),
        }
    }
}

impl UpgradeInfo for Accept {
    type Info = StreamProtocol;
    type InfoIter = Names;

    fn protocol_info(&self) -> Names {
        Names(self.shared.clone(), 0)
    }
}

impl libp2p::core::upgrade::InboundUpgrade<libp2p::Stream> for Accept {
    type Output = Told;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Told>>;

    fn upgrade_inbound(self, stream: libp2p::Stream, protocol: StreamProtocol) -> Self::Future {
        Box::pin(self.accept(stream, protocol))
    }
}

impl Accept {
    async fn accept(
        self,
        mut stream: libp2p::Stream,
        protocol: StreamProtocol,
    ) -> io::Result<Told> {
        if protocol == PRESENCE {
            say(&mut stream, Answer::Accepted).await?;
            let own = presence::own_message(&self.shared.roster, &self.connection);
            let told = presence::answer(stream, &own).await?;
            self.connection.is_of(told.instance);
            return Ok(Some(told.addresses));
        }
        match self.deliver(stream, &protocol).await? {
            Answer::Accepted => {}
            answer => {
                self.shared.roster.refused.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%protocol, ?answer, "refused a stream");
            }
        }
        Ok(None)
    }

    /// Puts the stream into its queue, or tells the opener why not.
    async fn deliver(
        &self,
        mut stream: libp2p::Stream,
        protocol: &StreamProtocol,
    ) -> io::Result<Answer> {
        let connection = &*self.connection;
        let found = self
            .shared
            .served
            .iter()
            .zip(connection.inbound.iter())
            .find(|(served, _)| served.name == *protocol);
        let Some((served, room)) = found else {
            return refuse(stream, Answer::Unserved).await;
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            return refuse(stream, Answer::Busy).await;
        };
        let Some(in_use) = connection.usage.enter() else {
            return refuse(stream, Answer::Moved).await;
        };
        let place = match tokio::time::timeout(QUEUE_PATIENCE, served.queue.reserve()).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return refuse(stream, Answer::Unserved).await,
            Err(_) => return refuse(stream, Answer::Busy).await,
        };
        say(&mut stream, Answer::Accepted).await?;
        place.send((
            connection.device,
            Stream::new(stream, connection, in_use, permit),
        ));
        Ok(Answer::Accepted)
    }
}

async fn say(stream: &mut libp2p::Stream, answer: Answer) -> io::Result<()> {
    stream.write_all(&[answer as u8]).await?;
    stream.flush().await
}

async fn refuse(mut stream: libp2p::Stream, answer: Answer) -> io::Result<Answer> {
    say(&mut stream, answer).await?;
    stream.close().await?;
    Ok(answer)
}

/// The opening side of a new stream.
pub(super) struct Ask(StreamProtocol);

impl UpgradeInfo for Ask {
    type Info = StreamProtocol;
    type InfoIter = std::iter::Once<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(self.0.clone())
    }
}

impl libp2p::core::upgrade::OutboundUpgrade<libp2p::Stream> for Ask {
    type Output = libp2p::Stream;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<libp2p::Stream, Failure>>;

    fn upgrade_outbound(self, mut stream: libp2p::Stream, _: StreamProtocol) -> Self::Future {
        Box::pin(async move {
            let mut answer = [0u8];
            stream
                .read_exact(&mut answer)
                .await
                .map_err(|_| Failure::Broken)?;
            match answer[0] {
                byte if byte == Answer::Accepted as u8 => Ok(stream),
                byte if byte == Answer::Busy as u8 => Err(Failure::Busy),
                byte if byte == Answer::Moved as u8 => Err(Failure::Moved),
                byte if byte == Answer::Unserved as u8 => Err(Failure::Unsupported),
                _ => Err(Failure::Broken),
            }
        })
    }
}

// ---- one connection

/// Opens and accepts the streams of one connection.
pub(super) struct Handler {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    requests: mpsc::Receiver<OpenRequest>,
    told: VecDeque<Vec<Multiaddr>>,
}

impl Handler {
    pub fn new(
        shared: Arc<Shared>,
        connection: Arc<Connection>,
        requests: mpsc::Receiver<OpenRequest>,
    ) -> Self {
        Self {
            shared,
            connection,
            requests,
            told: VecDeque::new(),
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Vec<Multiaddr>;
    type InboundProtocol = Accept;
    type OutboundProtocol = Ask;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = OpenRequest;

    fn listen_protocol(&self) -> SubstreamProtocol<Accept> {
        let accept = Accept {
            shared: self.shared.clone(),
            connection: self.connection.clone(),
        };
        SubstreamProtocol::new(accept, ()).with_timeout(OPEN_TIMEOUT)
    }

    /// Always: which connection ends when is the swarm actor's decision.
    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Ask, OpenRequest, Vec<Multiaddr>>> {
        if let Some(addresses) = self.told.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(addresses));
        }
        loop {
            match self.requests.poll_recv(cx) {
                Poll::Ready(Some(request)) if request.reply.is_closed() => {}
                Poll::Ready(Some(request)) => {
                    let protocol = SubstreamProtocol::new(Ask(request.protocol.clone()), request)
                        .with_timeout(OPEN_TIMEOUT);
                    return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                        protocol,
                    });
                }
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Accept, Ask, (), OpenRequest>) {
        // An opener that has given up has dropped its end: the stream is dropped, and so reset.
        match event {
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol,
                info,
            }) => {
                info.reply.send(Ok(protocol)).ok();
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let failure = match error {
                    StreamUpgradeError::Timeout => Failure::Timeout,
                    StreamUpgradeError::Apply(failure) => failure,
                    StreamUpgradeError::NegotiationFailed => Failure::Unsupported,
                    StreamUpgradeError::Io(_) => Failure::Broken,
                };
                info.reply.send(Err(failure)).ok();
            }
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: Some(told),
                ..
            }) => {
                // The latest is the truth; a flood of them keeps one.
                self.told.clear();
                self.told.push_back(told);
            }
            _ => {}
        }
    }
}
