//! Behaviours of libp2p, kept within what this node wants of them.
//!
//! - *Only where chosen.* identify and DCUtR tell whoever asks where this node is; strangers are to learn nothing of our
//!   networks. A connection that is not chosen gets a handler that knows no protocol.
//! - *At rest.* AutoNAT's client wakes up every few seconds for ever. Here it is polled only for a while after it has got
//!   something to do.
//! - *Fallible.* Their books of connections are kept by assertions, and some sequence of messages that a peer chooses may
//!   break one (a reservation that ends while its renewal is being answered does, in libp2p-relay 0.22). That is the end of
//!   that peer's connection and not of the network.

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use either::Either;
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour,
        NotifyHandler, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
    },
};

/// Says whether a behaviour may act on a connection: with whom, and whether we dialled it.
type Choice = Box<dyn Fn(&PeerId, bool) -> bool + Send>;

/// A behaviour within bounds.
pub(super) struct Foreign<B> {
    inner: B,
    choice: Choice,
    chosen: HashSet<ConnectionId>,
    /// How long it is polled after there was something to do; `None`: always.
    attention: Option<Duration>,
    attentive_until: Instant,
    /// Connections on which it has failed.
    failed: Vec<(PeerId, ConnectionId)>,
}

impl<B> Foreign<B> {
    pub fn new(inner: B) -> Self {
        Self {
            inner,
            choice: Box::new(|_, _| true),
            chosen: HashSet::new(),
            attention: None,
            attentive_until: Instant::now(),
            failed: Vec::new(),
        }
    }

    /// Lets it act on connections that `choice` accepts, and on no others.
    pub fn only(mut self, choice: impl Fn(&PeerId, bool) -> bool + Send + 'static) -> Self {
        self.choice = Box::new(choice);
        self
    }

    /// Polls it only for a while after there was something to do.
    pub fn resting_after(mut self, attention: Duration) -> Self {
        self.attention = Some(attention);
        self
    }

    fn attend(&mut self) {
        if let Some(attention) = self.attention {
            self.attentive_until = Instant::now() + attention;
        }
    }

    fn choose<H>(
        &mut self,
        id: ConnectionId,
        peer: &PeerId,
        outbound: bool,
        handler: H,
    ) -> Either<H, dummy::ConnectionHandler> {
        if (self.choice)(peer, outbound) {
            self.chosen.insert(id);
            Either::Left(handler)
        } else {
            Either::Right(dummy::ConnectionHandler)
        }
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Foreign<B> {
    type ConnectionHandler = Either<THandler<B>, dummy::ConnectionHandler>;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner
            .handle_pending_inbound_connection(id, local, remote)
    }

    // The inner one is asked for a handler of every connection: it counts them there.

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let handler = self
            .inner
            .handle_established_inbound_connection(id, peer, local, remote)?;
        Ok(self.choose(id, &peer, false, handler))
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner
            .handle_pending_outbound_connection(id, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let handler = self
            .inner
            .handle_established_outbound_connection(id, peer, address, role, port)?;
        Ok(self.choose(id, &peer, true, handler))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match &event {
            FromSwarm::NewExternalAddrCandidate(_) => self.attend(),
            FromSwarm::ConnectionClosed(closed) => {
                self.chosen.remove(&closed.connection_id);
            }
            // Refused by another behaviour after this one had made a handler.
            FromSwarm::DialFailure(failure) => {
                self.chosen.remove(&failure.connection_id);
            }
            FromSwarm::ListenFailure(failure) => {
                self.chosen.remove(&failure.connection_id);
            }
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.attend();
        let Either::Left(event) = event;
        let inner = AssertUnwindSafe(|| self.inner.on_connection_handler_event(peer, id, event));
        if catch_unwind(inner).is_err() {
            tracing::error!("libp2p failed on what a peer sent; its connection is closed");
            self.failed.push((peer, id));
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some((peer_id, id)) = self.failed.pop() {
            return Poll::Ready(ToSwarm::CloseConnection {
                peer_id,
                connection: CloseConnection::One(id),
            });
        }
        if self.attention.is_some() && self.attentive_until < Instant::now() {
            return Poll::Pending;
        }
        loop {
            return match self.inner.poll(cx) {
                Poll::Ready(ToSwarm::NotifyHandler { handler, .. })
                    if !self.is_chosen(&handler) =>
                {
                    continue;
                }
                Poll::Ready(event) => Poll::Ready(event.map_in(Either::Left)),
                Poll::Pending => Poll::Pending,
            };
        }
    }
}

impl<B> Foreign<B> {
    /// Whether a message has a handler to go to. None of them speaks to "any" connection of a peer.
    fn is_chosen(&self, handler: &NotifyHandler) -> bool {
        match handler {
            NotifyHandler::One(id) => self.chosen.contains(id),
            NotifyHandler::Any => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker;
    use libp2p::{StreamProtocol, core::upgrade::ReadyUpgrade, swarm::OneShotHandler};

    use super::*;

    /// Fails on everything that a peer sends.
    struct Fragile;

    #[derive(Debug)]
    struct Sent;

    impl From<libp2p::Stream> for Sent {
        fn from(_: libp2p::Stream) -> Self {
            Self
        }
    }

    type Upgrade = ReadyUpgrade<StreamProtocol>;

    impl NetworkBehaviour for Fragile {
        type ConnectionHandler = OneShotHandler<Upgrade, Upgrade, Sent>;
        type ToSwarm = ();

        fn handle_established_inbound_connection(
            &mut self,
            _: ConnectionId,
            _: PeerId,
            _: &Multiaddr,
            _: &Multiaddr,
        ) -> Result<THandler<Self>, ConnectionDenied> {
            let upgrade = ReadyUpgrade::new(StreamProtocol::new("/test/1"));
            let protocol = libp2p::swarm::SubstreamProtocol::new(upgrade, ());
            Ok(OneShotHandler::new(protocol, Default::default()))
        }

        fn handle_established_outbound_connection(
            &mut self,
            id: ConnectionId,
            peer: PeerId,
            address: &Multiaddr,
            _: Endpoint,
            _: PortUse,
        ) -> Result<THandler<Self>, ConnectionDenied> {
            self.handle_established_inbound_connection(id, peer, address, address)
        }

        fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

        fn on_connection_handler_event(
            &mut self,
            _: PeerId,
            _: ConnectionId,
            _: THandlerOutEvent<Self>,
        ) {
            unreachable!("as a broken assertion");
        }

        fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<(), THandlerInEvent<Self>>> {
            Poll::Ready(ToSwarm::GenerateEvent(()))
        }
    }

    fn poll(foreign: &mut Foreign<Fragile>) -> Poll<ToSwarm<(), THandlerInEvent<Fragile>>> {
        let waker = noop_waker();
        foreign
            .poll(&mut Context::from_waker(&waker))
            .map(|event| event.map_in(|either| either.left().expect("the only kind")))
    }

    #[test]
    fn what_breaks_an_assertion_ends_one_connection() {
        let (peer, id) = (PeerId::random(), ConnectionId::new_unchecked(7));
        let mut foreign = Foreign::new(Fragile);
        foreign.on_connection_handler_event(peer, id, Either::Left(Ok(Sent)));
        let Poll::Ready(ToSwarm::CloseConnection {
            peer_id,
            connection: CloseConnection::One(closed),
        }) = poll(&mut foreign)
        else {
            panic!("the connection is to be closed");
        };
        assert_eq!((peer_id, closed), (peer, id));
        assert!(matches!(
            poll(&mut foreign),
            Poll::Ready(ToSwarm::GenerateEvent(()))
        ));
    }

    #[test]
    fn only_a_chosen_connection_gets_a_handler_that_knows_a_protocol() {
        let (chosen, other) = (PeerId::random(), PeerId::random());
        let mut foreign = Foreign::new(Fragile).only(move |peer, _| *peer == chosen);
        let nowhere = Multiaddr::empty();
        let mut handler = |peer| {
            let id = ConnectionId::new_unchecked(1);
            foreign
                .handle_established_inbound_connection(id, peer, &nowhere, &nowhere)
                .expect("is let in")
        };
        assert!(handler(chosen).is_left());
        assert!(handler(other).is_right());
    }

    #[test]
    fn at_rest_it_is_polled_only_after_news() {
        let mut foreign = Foreign::new(Fragile).resting_after(Duration::from_secs(600));
        foreign.attentive_until = Instant::now() - Duration::from_secs(1);
        assert!(poll(&mut foreign).is_pending());
        let seen_from = Multiaddr::empty();
        let news = libp2p::swarm::NewExternalAddrCandidate { addr: &seen_from };
        foreign.on_swarm_event(FromSwarm::NewExternalAddrCandidate(news));
        assert!(poll(&mut foreign).is_ready());
    }
}
