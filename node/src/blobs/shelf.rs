//! Blobs that lie somewhere else than in a store, such as in a backup, taken from there as from a device: the same
//! transfers, checks and resumption, over a stream that never leaves the process.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use coffer_protocol::blobs::{Ask, Version};
use coffer_protocol::identity::{DeviceId, Hash, VaultId};
use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::io::{AsyncRead as _, AsyncWrite as _, DuplexStream, ReadBuf};
use tokio::task::JoinSet;

use super::error::ServeError;
use super::sources::{ByteStream, Opened, Sources};
use super::{lock, wire};

/// Bytes on the way between the two ends.
const ON_THE_WAY: usize = 256 << 10;
/// Answers are sent once they have so many bytes.
const FILL: usize = 1 << 20;

/// What is spoken with a shelf: it is only ever asked for blobs.
const VERSION: Version = Version::One;

/// What holds sealed blobs.
pub trait Shelf: Send + Sync + 'static {
    /// Appends the ciphertext of `blob` to `out`; false, and nothing is appended, if it is not there or damaged. Blocking.
    fn sealed(&self, blob: &Hash, out: &mut Vec<u8>) -> bool;
}

/// A shelf as the only one who can be asked.
pub struct FromShelf {
    vault: VaultId,
    shelf: Arc<dyn Shelf>,
    serving: Mutex<JoinSet<()>>,
}

impl FromShelf {
    /// Gives the blobs of `vault` that lie on `shelf`.
    pub fn new(vault: VaultId, shelf: Arc<dyn Shelf>) -> Arc<FromShelf> {
        Arc::new(FromShelf {
            vault,
            shelf,
            serving: Mutex::default(),
        })
    }
}

impl Sources for FromShelf {
    fn candidates(&self) -> Vec<DeviceId> {
        vec![DeviceId([0; 32])]
    }

    fn open(&self, _: DeviceId) -> BoxFuture<'static, io::Result<Opened>> {
        let (near, far) = tokio::io::duplex(ON_THE_WAY);
        let (vault, shelf) = (self.vault, self.shelf.clone());
        let mut serving = lock(&self.serving);
        while serving.try_join_next().is_some() {}
        serving.spawn(async move {
            if let Err(error) = serve(vault, shelf, Pipe(far)).await {
                tracing::debug!(%error, "giving blobs of a backup ended");
            }
        });
        let opened = Opened {
            version: VERSION,
            stream: Box::new(Pipe(near)),
        };
        Box::pin(async move { Ok(opened) })
    }

    fn changed(&self) -> BoxFuture<'static, ()> {
        Box::pin(futures::future::pending())
    }
}

/// Answers requests until the other side closes its half.
async fn serve(
    vault: VaultId,
    shelf: Arc<dyn Shelf>,
    stream: impl ByteStream,
) -> Result<(), ServeError> {
    let (mut reader, mut writer) = stream.split();
    while let Some(Ask::Get(request)) = wire::read_request(&mut reader, VERSION).await? {
        let mut next = 0;
        while next < request.ids.len() {
            let (shelf, ids) = (shelf.clone(), request.ids.clone());
            let is_ours = request.vault == vault;
            let fill = tokio::task::spawn_blocking(move || {
                let mut buffer = Vec::new();
                let mut at = next;
                while at < ids.len() && buffer.len() < FILL {
                    let index = at as u16;
                    let answer = wire::begin_answer(index, &mut buffer);
                    if is_ours && shelf.sealed(&ids[at], &mut buffer) {
                        wire::end_answer(answer, index, &mut buffer);
                    }
                    at += 1;
                }
                (buffer, at)
            });
            let (buffer, at) = fill.await.map_err(io::Error::other)?;
            writer.write_all(&buffer).await?;
            next = at;
        }
        writer.flush().await?;
    }
    writer.close().await?;
    Ok(())
}

/// One end of a pipe in this process, with the traits that streams of the network have.
struct Pipe(DuplexStream);

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(into);
        ready!(Pin::new(&mut self.0).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
