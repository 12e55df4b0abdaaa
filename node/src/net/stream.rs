//! A stream to another device, which counts its bytes and holds its place in the limits until it is dropped.

use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use futures::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{
    address::{Device, Transport},
    roster::Connection,
    turns::Instance,
    usage::InUse,
};

/// Resolves when the connection beneath has died.
type Death = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A stream to another device: `AsyncRead + AsyncWrite` of `futures`, whose `split()` gives halves that are `Sync`.
///
/// Close it (`AsyncWriteExt::close`) to say that nothing more will be written; dropping it without that resets it over TCP,
/// and the other side may lose what it has not read yet.
pub struct Stream {
    inner: libp2p::Stream,
    device: Device,
    transport: Transport,
    relayed: Option<Device>,
    in_use: InUse,
    /// The place that it takes: among our outbound streams, or among the device's inbound ones of its protocol.
    _permit: OwnedSemaphorePermit,
    death: watch::Receiver<bool>,
    instance: Arc<OnceLock<Instance>>,
    /// One for each direction, because two tasks may wait; made when first needed.
    read_death: Option<Death>,
    write_death: Option<Death>,
}

impl Stream {
    pub(super) fn new(
        inner: libp2p::Stream,
        connection: &Connection,
        in_use: InUse,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            inner,
            device: connection.device,
            transport: connection.transport,
            relayed: connection.relayed,
            in_use,
            _permit: permit,
            death: connection.dead.subscribe(),
            instance: connection.instance.clone(),
            read_death: None,
            write_death: None,
        }
    }

    /// The other device.
    pub fn device(&self) -> Device {
        self.device
    }

    /// How the connection beneath is carried.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Where it has come from, to wait for its turn: see [`Net::in_turn`](super::Net::in_turn).
    pub fn origin(&self) -> Origin {
        Origin {
            device: self.device,
            instance: self.instance.clone(),
            death: self.death.clone(),
        }
    }

    /// The host that carries the connection beneath; `None` if it is direct.
    pub fn relayed(&self) -> Option<Device> {
        self.relayed
    }

    /// The same stream with tokio's traits.
    pub fn into_tokio(self) -> TokioStream {
        TokioStream(self)
    }
}

/// Which node a stream has come from, and whether its connection is still there.
pub struct Origin {
    pub(super) device: Device,
    instance: Arc<OnceLock<Instance>>,
    death: watch::Receiver<bool>,
}

impl Origin {
    /// Which run of the device's node it is, if it has said so.
    pub(super) fn instance(&self) -> Option<Instance> {
        self.instance.get().copied()
    }

    /// Resolves when the connection beneath has died.
    pub(super) async fn died(&mut self) {
        drop(self.death.wait_for(|dead| *dead).await);
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

/// What is left to say when the stream itself waits: an error if its connection has died, which the multiplexer may never
/// notice (a closing yamux connection with a dead peer wakes nobody who reads).
fn poll_death<T>(
    death: &mut Option<Death>,
    signal: &watch::Receiver<bool>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<T>> {
    let death = death.get_or_insert_with(|| {
        let mut signal = signal.clone();
        // An error means that the connection's record is gone, which is as good as a signal.
        Box::pin(async move { drop(signal.wait_for(|dead| *dead).await) })
    });
    death
        .as_mut()
        .poll(cx)
        .map(|()| Err(io::ErrorKind::ConnectionAborted.into()))
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_read(cx, buffer) {
            Poll::Pending => poll_death(&mut this.read_death, &this.death, cx),
            Poll::Ready(Ok(read)) => {
                this.in_use.0.add_in(read);
                Poll::Ready(Ok(read))
            }
            failed => failed,
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_write(cx, bytes) {
            Poll::Pending => poll_death(&mut this.write_death, &this.death, cx),
            Poll::Ready(Ok(written)) => {
                this.in_use.0.add_out(written);
                Poll::Ready(Ok(written))
            }
            failed => failed,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_flush(cx) {
            Poll::Pending => poll_death(&mut this.write_death, &this.death, cx),
            done => done,
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_close(cx) {
            Poll::Pending => poll_death(&mut this.write_death, &this.death, cx),
            done => done,
        }
    }
}

/// A [`Stream`] with tokio's `AsyncRead + AsyncWrite`; `shutdown` closes it.
#[derive(Debug)]
pub struct TokioStream(Stream);

impl TokioStream {
    /// The stream itself.
    pub fn into_inner(self) -> Stream {
        self.0
    }
}

impl tokio::io::AsyncRead for TokioStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read =
            std::task::ready!(Pin::new(&mut self.0).poll_read(cx, buffer.initialize_unfilled()))?;
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl tokio::io::AsyncWrite for TokioStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}
