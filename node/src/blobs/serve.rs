//! Answering batch GETs: other devices ask for blobs, this one gives those that it has, through the seam.
//!
//! One stream, three parts that overlap: requests are read ahead (a few), blobs are read and sealed where that may block, and
//! filled buffers are written. Answers come in the order of the request. Small blobs share a buffer, so that a thousand
//! files of 8 KiB are eight writes. Under a limit a buffer goes out in slices; while transfers are paused nobody is
//! answered, and a stream that is open then is closed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use coffer_protocol::blobs::Request;
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

/// Answers requests until the other side closes its half.
pub(super) async fn serve(
    shared: Arc<Shared>,
    device: DeviceId,
    stream: impl ByteStream,
) -> Result<(), ServeError> {
    let (mut reader, mut writer) = stream.split();
    let (request, mut requests) = mpsc::channel::<Request>(REQUESTS_AHEAD);
    let (filled, mut outgoing) = mpsc::channel::<Vec<u8>>(BUFFERS_AHEAD);
    let (used, mut reusable) = mpsc::channel::<Vec<u8>>(BUFFERS_AHEAD + 2);

    let read = async move {
        while let Some(next) = wire::read_request(&mut reader).await? {
            if request.send(next).await.is_err() {
                break;
            }
        }
        Ok::<_, ServeError>(())
    };
    let (rates, gate) = (Arc::clone(&shared), Arc::clone(&shared));
    let fill = async move {
        while let Some(request) = requests.recv().await {
            let (shared, filled) = (Arc::clone(&shared), filled.clone());
            let work = tokio::task::spawn_blocking(move || {
                let result = answer(&shared, &request, &filled, &mut reusable);
                (result, reusable)
            });
            let (result, back) = work.await.map_err(io::Error::other)?;
            reusable = back;
            result?;
        }
        Ok(())
    };
    let write = async move {
        while let Some(buffer) = outgoing.recv().await {
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
            // When nobody waits for it, it is freed.
            let _ = used.try_send(buffer);
        }
        writer.close().await?;
        Ok(())
    };
    tokio::select! {
        ended = async { futures::try_join!(read, fill, write) } => ended.map(drop),
        () = gate.gate.paused() => Err(ServeError::Paused),
    }
}

/// Fills buffers with the answers to one request. Of another vault nothing is here. Blocking.
fn answer(
    shared: &Shared,
    request: &Request,
    filled: &mpsc::Sender<Vec<u8>>,
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
        if buffer.len() >= FILL && filled.blocking_send(std::mem::take(&mut buffer)).is_err() {
            return Ok(());
        }
    }
    if !buffer.is_empty() {
        // A closed channel is a closed stream, which the other parts see.
        let _ = filled.blocking_send(buffer);
    }
    Ok(())
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
