//! `/coffer/relay-blobs/1`: devices leave blobs here, ask after them, and release them.
//!
//! Requests of a stream are answered one after the other. A batch that comes in has its room in memory reserved before
//! it is read, whole; who finds none waits, and its own flow control with it. Every blob is hashed before it is kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use coffer_protocol::grants::Role;
use coffer_protocol::identity::{DeviceId, Hash, VaultId};
use coffer_protocol::relay::{
    Answer, Bitmap, MAX_ANSWER, MAX_REQUEST, PutHeader, RangeBytes, Refusal, Request,
};
use futures::io::AsyncRead;
use futures::{AsyncReadExt, AsyncWriteExt};

use super::erasing;
use super::host::{Host, now_ms};
use super::rates::Pace;
use super::resident::Resident;
use super::scrubbing;
use super::serving::take_leave;
use super::session::admitted;
use super::store::{Put, RelayStore, StoreError, charge};
use crate::net::{Stream, read_frame, write_frame};

/// How long a device may be silent on such a stream: it opens another when it has something again.
const IDLE: Duration = Duration::from_secs(120);
/// How long nothing at all may move in the middle of a batch, or of an answer.
const STALL: Duration = Duration::from_secs(30);
/// A batch takes at most this, and its bytes at [`SLOWEST`] beside: who trickles does not hold memory for ever.
const BATCH_WITHIN: Duration = Duration::from_secs(60);
/// Bytes a second of the slowest line that a batch is waited for.
const SLOWEST: u64 = 16 << 10;

/// Carries one stream to its end.
pub async fn serve(host: &Arc<Host>, stream: Stream) {
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
            return;
        }
        pace.took(frame.len()).await;
        let (answer, goes_on) = match Request::decode(&frame) {
            Ok(Request::Put {
                vault,
                count,
                bytes,
            }) => match take_batch(host, device, vault, count, bytes, &mut read, &pace).await {
                Some(taken) => taken,
                None => return,
            },
            Ok(request) => answer(host, device, request).await,
            // What follows it on the stream is anybody's guess.
            Err(_) => (Answer::refused(Refusal::MALFORMED), false),
        };
        if let Answer::Refused { why, .. } = &answer {
            host.metrics.refused(word(*why));
        }
        let sent = async {
            write_frame(&mut write, &answer.encode(), MAX_ANSWER)
                .await
                .ok()?;
            write.flush().await.ok()
        };
        if !matches!(tokio::time::timeout(STALL, sent).await, Ok(Some(()))) || !goes_on {
            break;
        }
    }
    take_leave(read, write).await;
}

/// The word that metrics have for a refusal.
fn word(why: Refusal) -> &'static str {
    match why {
        Refusal::NOT_YOURS => "stranger",
        Refusal::FULL => "over-quota",
        Refusal::MALFORMED => "malformed",
        Refusal::BUSY => "busy",
        Refusal::ORDER => "order",
        _ => "failing",
    }
}

/// Who may leave something here, or ask after it: a device of the vault that can read it.
async fn keyholder(host: &Host, vault: VaultId, device: DeviceId) -> Option<Arc<Resident>> {
    let resident = admitted(host, vault, device).await?;
    resident
        .role(&device)
        .is_some_and(Role::holds_keys)
        .then_some(resident)
}

/// An answer, and whether the stream goes on after it.
type Answered = (Answer, bool);

async fn answer(host: &Host, device: DeviceId, request: Request) -> Answered {
    let Request::Erase { order } = &request else {
        let Some(vault) = request.vault() else {
            return (Answer::refused(Refusal::MALFORMED), false);
        };
        let Some(resident) = keyholder(host, vault, device).await else {
            // Strangers have nothing more to say.
            return (Answer::refused(Refusal::NOT_YOURS), false);
        };
        debug_assert_eq!(resident.vault, vault);
        let answered = async {
            // Read whole: a host that shows some good bytes of a damaged blob would go on saying that it is here.
            if let Request::Range { id, .. } = &request {
                scrubbing::doubt(host, vault, &[*id]).await?;
            }
            look_after(host.store.as_ref(), device, request, now_ms()).await
        };
        return (
            answered.await.unwrap_or_else(|error| {
                host.store_failed("look after blobs", &error);
                Answer::refused(Refusal::FAILING)
            }),
            true,
        );
    };
    (erasing::on_order(host, device, order).await, true)
}

/// What a device that may ask is answered, but for what it leaves here and has erased.
pub async fn look_after(
    store: &dyn RelayStore,
    device: DeviceId,
    request: Request,
    now_ms: u64,
) -> Result<Answer, StoreError> {
    Ok(match request {
        Request::Have { vault, ids, claim } => {
            Answer::Have(Bitmap::new(store.have(vault, ids, claim).await?))
        }
        Request::List { vault, after, max } => {
            let after = (after != Hash::ZERO).then_some(after);
            Answer::Listed(store.list(vault, after, usize::from(max)).await?)
        }
        Request::Release { vault, ids } => {
            store.release(vault, device, ids, now_ms).await?;
            Answer::Released
        }
        Request::Range {
            vault,
            id,
            offset,
            len,
        } => {
            let (offset, len) = (u64::from(offset), u32::from(len));
            let bytes = store.range(vault, id, offset, len).await?;
            Answer::Range(bytes.map(|bytes| RangeBytes(bytes.to_vec())))
        }
        // Both are answered elsewhere; here they would be a mistake of ours, and harm nobody.
        Request::Put { .. } | Request::Erase { .. } => {
            tracing::error!("a request went the wrong way");
            Answer::refused(Refusal::FAILING)
        }
    })
}

/// Reads a batch, and keeps it if it may. `None`: the stream broke.
async fn take_batch(
    host: &Host,
    device: DeviceId,
    vault: VaultId,
    count: u16,
    bytes: u64,
    read: &mut (impl AsyncRead + Unpin),
    pace: &Pace,
) -> Option<Answered> {
    let Some(resident) = keyholder(host, vault, device).await else {
        return Some((Answer::refused(Refusal::NOT_YOURS), false));
    };
    let within = BATCH_WITHIN + Duration::from_secs(bytes / SLOWEST);
    let deadline = tokio::time::Instant::now() + within;
    let record = match host.store.vault(vault).await {
        Ok(Some(record)) => record,
        Ok(None) => return Some((Answer::refused(Refusal::NOT_YOURS), false)),
        Err(error) => {
            host.store_failed("look after blobs", &error);
            return Some((Answer::refused(Refusal::FAILING), false));
        }
    };
    // Into a full vault nothing fits: it is read, as the other side sends it, and let go.
    let used = record.usage.bytes();
    if used >= record.quota {
        tokio::time::timeout_at(deadline, skip(read, count, bytes))
            .await
            .ok()??;
        pace.took(usize::try_from(bytes).unwrap_or(usize::MAX))
            .await;
        return Some((full(used, record.quota), true));
    }
    let room = u32::try_from(bytes.div_ceil(1024))
        .unwrap_or(u32::MAX)
        .max(1);
    let _room = tokio::time::timeout_at(deadline, host.arriving.acquire_many(room))
        .await
        .ok()?
        .ok()?;
    let blobs = tokio::time::timeout_at(deadline, read_batch(read, count, bytes))
        .await
        .ok()??;
    pace.took(usize::try_from(bytes).unwrap_or(usize::MAX))
        .await;
    let begun = Instant::now();
    let (blobs, sound) = tokio::task::spawn_blocking(move || {
        let sound = blobs.iter().all(|(header, bytes)| header.fits(bytes));
        (blobs, sound)
    })
    .await
    .ok()?;
    if !sound {
        return Some((Answer::refused(Refusal::MALFORMED), true));
    }
    let blobs: Vec<(Hash, Bytes)> = blobs
        .into_iter()
        .map(|(header, bytes)| (header.id, bytes))
        .collect();
    let answer = keep(host, &resident, blobs).await.unwrap_or_else(|error| {
        host.store_failed("keep blobs", &error);
        Answer::refused(Refusal::FAILING)
    });
    if matches!(answer, Answer::Stored { .. }) {
        host.metrics.blob_bytes_in.inc_by(bytes);
        host.metrics
            .put_seconds
            .observe(begun.elapsed().as_secs_f64());
    }
    Some((answer, true))
}

fn full(used_bytes: u64, quota_bytes: u64) -> Answer {
    Answer::Refused {
        why: Refusal::FULL,
        used_bytes,
        quota_bytes,
    }
}

/// Keeps blobs whose hashes were checked: all, or none for want of room.
async fn keep(
    host: &Host,
    resident: &Resident,
    blobs: Vec<(Hash, Bytes)>,
) -> Result<Answer, StoreError> {
    let vault = resident.vault;
    let Some(before) = host.store.vault(vault).await? else {
        return Ok(Answer::refused(Refusal::NOT_YOURS));
    };
    let ids: Vec<Hash> = blobs.iter().map(|(id, _)| *id).collect();
    let have = host.store.have(vault, ids, false).await?;
    let new: u64 = blobs
        .iter()
        .zip(have)
        .filter(|(_, have)| !have)
        .map(|((_, bytes), _)| charge(bytes.len()))
        .sum();
    let used = before.usage.bytes();
    if new > 0 && used.saturating_add(new) > before.quota {
        return Ok(full(used, before.quota));
    }
    let outcomes = host.store.put(vault, blobs).await?;
    let Some(after) = host.store.vault(vault).await? else {
        return Ok(Answer::refused(Refusal::NOT_YOURS));
    };
    resident.to_be_stated(host);
    // Another device was quicker to the last room. What fitted stays, and is found there when it is asked after.
    if outcomes.contains(&Put::Full) {
        return Ok(full(after.usage.bytes(), after.quota));
    }
    Ok(Answer::Stored {
        used_bytes: after.usage.bytes(),
        quota_bytes: after.quota,
    })
}

/// Reads the blobs of a batch; memory grows with what comes, within what was announced. `None`: the stream broke, or its
/// blobs are not what was announced.
async fn read_batch(
    read: &mut (impl AsyncRead + Unpin),
    count: u16,
    bytes: u64,
) -> Option<Vec<(PutHeader, Bytes)>> {
    let mut left = usize::try_from(bytes).ok()?;
    let mut blobs = Vec::new();
    for _ in 0..count {
        let header = read_header(read, left).await?;
        let len = header.len as usize;
        left -= len;
        let mut blob = BytesMut::with_capacity(len);
        blob.resize(len, 0);
        read_all(read, &mut blob).await?;
        blobs.push((header, blob.freeze()));
    }
    (left == 0).then_some(blobs)
}

/// Reads a batch and keeps nothing of it.
async fn skip(read: &mut (impl AsyncRead + Unpin), count: u16, bytes: u64) -> Option<()> {
    let mut left = usize::try_from(bytes).ok()?;
    let mut scratch = vec![0; 64 << 10];
    for _ in 0..count {
        let header = read_header(read, left).await?;
        let mut len = header.len as usize;
        left -= len;
        while len > 0 {
            let part = len.min(scratch.len());
            read_all(read, &mut scratch[..part]).await?;
            len -= part;
        }
    }
    (left == 0).then_some(())
}

async fn read_header(read: &mut (impl AsyncRead + Unpin), left: usize) -> Option<PutHeader> {
    let mut header = [0; PutHeader::LEN];
    read_all(read, &mut header).await?;
    PutHeader::decode(&header)
        .ok()
        .filter(|header| header.len as usize <= left)
}

async fn read_all(read: &mut (impl AsyncRead + Unpin), mut into: &mut [u8]) -> Option<()> {
    while !into.is_empty() {
        let got = tokio::time::timeout(STALL, read.read(into))
            .await
            .ok()?
            .ok()?;
        if got == 0 {
            return None;
        }
        into = &mut into[got..];
    }
    Some(())
}
