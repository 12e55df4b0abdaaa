//! `/coffer/blobs`: devices of a vault get its blobs back, in whatever order the store reads them cheapest, or ask which are
//! here. What the disk has damaged is not given: it counts as missing from then on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coffer_protocol::blobs::{
    AnswerHeader, Ask, Given, MAX_REQUEST, RESUMED, Request, Version, is_blob,
};
use coffer_protocol::identity::DeviceId;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};

use super::host::Host;
use super::scrubbing;
use super::session::admitted;
use super::store::StoreError;
use crate::net::{Stream, read_frame};

/// How long a device may ask nothing on such a stream.
const IDLE: Duration = Duration::from_secs(120);
/// How long it may take nothing of an answer.
const STALL: Duration = Duration::from_secs(60);
/// Small blobs share a write of about so many bytes.
const FILL: usize = 256 << 10;

/// Carries one stream to its end.
pub async fn serve(host: &Arc<Host>, version: Version, stream: Stream) {
    let device = DeviceId(stream.device());
    let (mut read, mut write) = stream.split();
    let pace = host.pace(device.0);
    let mut frame = Vec::new();
    while !host.is_draining() {
        let next = tokio::time::timeout(IDLE, read_frame(&mut read, &mut frame, MAX_REQUEST));
        let next = tokio::select! {
            () = host.drains() => break,
            next = next => next,
        };
        if !matches!(next, Ok(Ok(true))) {
            break;
        }
        pace.took(frame.len()).await;
        let Ok(ask) = version.decode(&frame) else {
            host.metrics.refused("malformed");
            return;
        };
        let vault = match &ask {
            Ask::Get(request) | Ask::Has(request) => request.vault,
            Ask::Resumes(vault) => *vault,
        };
        if admitted(host, vault, device).await.is_none() {
            return;
        }
        let Ok(_room) = host.giving.acquire().await else {
            return;
        };
        let answered = match ask {
            Ask::Get(request) => give(host, request, &mut write).await,
            Ask::Has(request) => tell(host, request, &mut write).await,
            // A host never pauses.
            Ask::Resumes(_) => Ok(said(&mut write, &[RESUMED]).await),
        };
        match answered {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                host.store_failed("give blobs", &error);
                return;
            }
        }
    }
    let _ = tokio::time::timeout(STALL, write.close()).await;
}

/// Answers one request. `Ok(false)`: the other side is gone, or takes nothing.
async fn give(
    host: &Host,
    request: Request,
    write: &mut (impl futures::io::AsyncWrite + Unpin),
) -> Result<bool, StoreError> {
    let ids = request.ids;
    let mut blobs = host.store.get(request.vault, ids.clone());
    let mut buffer = Vec::new();
    let mut doubtful = Vec::new();
    while let Some(blob) = blobs.next().await {
        let mut blob = match blob {
            // Which of them is damaged is found one by one; the device asks again.
            Err(error @ StoreError::Damaged(_)) => {
                scrubbing::doubt(host, request.vault, &ids).await?;
                return Err(error);
            }
            blob => blob?,
        };
        let is_whole = |bytes: &Bytes| is_blob(&ids[blob.index], bytes);
        if blob.bytes.as_ref().is_some_and(|bytes| !is_whole(bytes)) {
            doubtful.push(ids[blob.index]);
            blob.bytes = None;
        }
        // A request names at most 1024.
        let Ok(index) = u16::try_from(blob.index) else {
            continue;
        };
        let len = blob
            .bytes
            .as_ref()
            .and_then(|bytes| u32::try_from(bytes.len()).ok());
        let given = Given::bytes(len);
        buffer.extend_from_slice(&AnswerHeader { index, given }.encode());
        if let Some(bytes) = blob.bytes {
            host.metrics.blob_bytes_out.inc_by(bytes.len() as u64);
            if bytes.len() >= FILL {
                if !send(write, &buffer).await || !send(write, &bytes).await {
                    return Ok(false);
                }
                buffer.clear();
                continue;
            }
            buffer.extend_from_slice(&bytes);
        }
        if buffer.len() >= FILL {
            if !send(write, &buffer).await {
                return Ok(false);
            }
            buffer.clear();
        }
    }
    scrubbing::doubt(host, request.vault, &doubtful).await?;
    Ok(said(write, &buffer).await)
}

/// Answers which blobs are here, without claiming them for anybody. `Ok(false)` as in [`give`].
async fn tell(
    host: &Host,
    request: Request,
    write: &mut (impl futures::io::AsyncWrite + Unpin),
) -> Result<bool, StoreError> {
    let had = host.store.have(request.vault, request.ids, false).await?;
    let mut words = Vec::with_capacity(had.len() * AnswerHeader::LEN);
    for (index, is_here) in (0..).zip(had) {
        let given = if is_here { Given::Here } else { Given::Missing };
        words.extend_from_slice(&AnswerHeader { index, given }.encode());
    }
    Ok(said(write, &words).await)
}

/// Writes the last of an answer, and sends it off.
async fn said(write: &mut (impl futures::io::AsyncWrite + Unpin), bytes: &[u8]) -> bool {
    send(write, bytes).await
        && matches!(tokio::time::timeout(STALL, write.flush()).await, Ok(Ok(())))
}

/// Writes everything; gives up when nothing moves for [`STALL`].
async fn send(write: &mut (impl futures::io::AsyncWrite + Unpin), mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match tokio::time::timeout(STALL, write.write(bytes)).await {
            Ok(Ok(written)) if written > 0 => bytes = &bytes[written..],
            _ => return false,
        }
    }
    true
}
