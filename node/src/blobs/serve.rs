//! Answering: other devices ask for blobs, this one gives those that it has, through the seam.
//!
//! One stream, three parts that overlap: requests are read ahead (a few), blobs are read and sealed where that may block, and
//! filled buffers are written. Answers come in the order of the request. Small blobs share a buffer, so that a thousand
//! files of 8 KiB are eight writes. Under a limit a buffer goes out in slices. While transfers are paused who asks for
//! blobs is told so, of those that are here; a stream on which some are on their way then is closed, and so is one of
//! the first version, which has no word for it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use coffer_protocol::blobs::{AnswerHeader, Ask, Given, RESUMED, Request, Version};
use coffer_protocol::identity::DeviceId;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::error::{BlobsError, ServeError};
use super::seam::Seam;
use super::sources::ByteStream;
use super::{Shared, wire};

/// Requests read ahead of the answers.
const REQUESTS_AHEAD: usize = 4;

/// Filled buffers ahead of the network, of up to [`FILL`] and one blob.
const BUFFERS_AHEAD: usize = 2;

/// A buffer is sent when it holds this many bytes.
const FILL: usize = 1 << 20;

/// How long the other side may take nothing at all.
const STALL: Duration = Duration::from_secs(60);

/// What goes out in one piece.
enum Filled {
    /// Blobs: they keep to the limits, and wait for nobody once transfers are paused.
    Contents(Vec<u8>),
    /// Words without contents.
    Words(Vec<u8>),
}

/// Answers what is asked until the other side closes its half.
pub(super) async fn serve(
    shared: Arc<Shared>,
    device: DeviceId,
    version: Version,
    stream: impl ByteStream,
) -> Result<(), ServeError> {
    let (mut reader, mut writer) = stream.split();
    let (asked, mut asks) = mpsc::channel::<Ask>(REQUESTS_AHEAD);
    let (filled, mut outgoing) = mpsc::channel::<Filled>(BUFFERS_AHEAD);
    let (used, mut reusable) = mpsc::channel::<Vec<u8>>(BUFFERS_AHEAD + 2);

    let read = async move {
        while let Some(next) = wire::read_request(&mut reader, version).await? {
            if asked.send(next).await.is_err() {
                break;
            }
        }
        Ok::<_, ServeError>(())
    };
    let rates = Arc::clone(&shared);
    let fill = async move {
        while let Some(ask) = asks.recv().await {
            let paused = shared.gate.is_paused();
            let request = match ask {
                Ask::Get(request) if !paused => {
                    let (shared, filled) = (Arc::clone(&shared), filled.clone());
                    let work = tokio::task::spawn_blocking(move || {
                        let result = give(&shared, &request, &filled, &mut reusable);
                        (result, reusable)
                    });
                    let (result, back) = work.await.map_err(io::Error::other)?;
                    reusable = back;
                    result?;
                    continue;
                }
                Ask::Resumes(vault) if vault == shared.vault => {
                    tokio::select! {
                        () = shared.gate.goes_on() => {}
                        // Who waits asks nothing else, and may hang up.
                        _ = asks.recv() => return Ok(()),
                    }
                    let _ = filled.send(Filled::Words(vec![RESUMED])).await;
                    continue;
                }
                // Nothing of another vault is ever given.
                Ask::Resumes(_) => return Ok(()),
                // There is no word for it yet.
                Ask::Get(_) if version == Version::One => return Err(ServeError::Paused),
                Ask::Get(request) | Ask::Has(request) => request,
            };
            let from = Arc::clone(&shared);
            let here = if paused { Given::Paused } else { Given::Here };
            let work = tokio::task::spawn_blocking(move || tell(&from, &request, here));
            let words = work.await.map_err(io::Error::other)??;
            // A closed channel is a closed stream, which the other parts see.
            let _ = filled.send(Filled::Words(words)).await;
        }
        Ok(())
    };
    let write = async move {
        while let Some(next) = outgoing.recv().await {
            let buffer = match next {
                Filled::Words(words) => {
                    write_all(&mut writer, &words).await?;
                    writer.flush().await?;
                    continue;
                }
                Filled::Contents(buffer) => buffer,
            };
            let send = async {
                let _under_way = rates.rates.sending(device);
                let mut rest = &buffer[..];
                while !rest.is_empty() {
                    let (slice, limited) = rates.gate.up(rest.len()).await;
                    write_all(&mut writer, &rest[..slice]).await?;
                    rest = &rest[slice..];
                    if limited || rest.is_empty() && outgoing.is_empty() {
                        writer.flush().await?;
                    }
                    rates.rates.sent(device, slice as u64);
                }
                Ok::<_, ServeError>(())
            };
            tokio::select! {
                biased;
                () = rates.gate.paused() => return Err(ServeError::Paused),
                sent = send => sent?,
            }
            // When nobody waits for it, it is freed.
            let _ = used.try_send(buffer);
        }
        writer.close().await?;
        Ok(())
    };
    futures::try_join!(read, fill, write).map(drop)
}

/// Fills buffers with the blobs that one request names. Of another vault nothing is here. Blocking.
fn give(
    shared: &Shared,
    request: &Request,
    filled: &mpsc::Sender<Filled>,
    reusable: &mut mpsc::Receiver<Vec<u8>>,
) -> Result<(), BlobsError> {
    let mut seam = Seam::new(shared)?;
    let mut buffer = Vec::new();
    for (index, id) in (0..).zip(&request.ids) {
        if buffer.capacity() == 0 {
            buffer = reusable.try_recv().unwrap_or_default();
            buffer.clear();
        }
        let answer = wire::begin_answer(index, &mut buffer);
        if request.vault == shared.vault && seam.sealed(id, &mut buffer)? {
            wire::end_answer(answer, index, &mut buffer);
        }
        if buffer.len() >= FILL {
            let full = Filled::Contents(std::mem::take(&mut buffer));
            if filled.blocking_send(full).is_err() {
                return Ok(());
            }
        }
    }
    if !buffer.is_empty() {
        // A closed channel is a closed stream, which the other parts see.
        let _ = filled.blocking_send(Filled::Contents(buffer));
    }
    Ok(())
}

/// Says of each blob that one request names `here`, or that it is missing. Blocking.
fn tell(shared: &Shared, request: &Request, here: Given) -> Result<Vec<u8>, BlobsError> {
    let mut seam = Seam::new(shared)?;
    let mut words = Vec::with_capacity(request.ids.len() * AnswerHeader::LEN);
    for (index, id) in (0..).zip(&request.ids) {
        let is_here = request.vault == shared.vault && seam.has(id)?;
        let given = if is_here { here } else { Given::Missing };
        wire::answer(index, given, &mut words);
    }
    Ok(words)
}

/// Writes everything; gives up when nothing at all moves for [`STALL`].
async fn write_all(
    writer: &mut (impl futures::io::AsyncWrite + Unpin),
    mut bytes: &[u8],
) -> Result<(), ServeError> {
    while !bytes.is_empty() {
        let written = tokio::time::timeout(STALL, writer.write(bytes))
            .await
            .map_err(|_| ServeError::Stalled)??;
        if written == 0 {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        bytes = &bytes[written..];
    }
    Ok(())
}
