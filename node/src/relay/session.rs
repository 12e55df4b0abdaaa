//! One device replicates one vault, on a stream that it opened.
//!
//! Before the host says anything it reads the device's Hello, of bounded length, and looks whether the device is in the
//! vault that it names. If it is not, the stream is closed without a word.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coffer_protocol::identity::{DeviceId, VaultId};
use coffer_protocol::log::CLOCK_MAX_LEN;
use coffer_protocol::replication::{MAX_HEADS, MAX_MESSAGE, Message, Work};
use futures::AsyncReadExt;

use super::host::{Host, now_ms};
use super::resident::{LoadError, Resident};
use super::stating;
use crate::net::{FrameError, Stream, read_frame, write_frame};
use crate::vault::SessionQueue;

/// Bytes of the longest Hello: a clock, the heads of grants, and some versions.
const MAX_HELLO: usize = CLOCK_MAX_LEN + MAX_HEADS * 32 + 256;
/// How long a device may take to say it.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// How long a device may take nothing of what is sent to it.
const STALL: Duration = Duration::from_secs(60);
/// Bytes a second of the slowest line that a message is waited for beyond that.
const SLOWEST: u64 = 4 << 10;
/// A buffer that grew beyond this for one message is given back afterwards.
const KEEP_BUFFER: usize = 64 * 1024;
/// How often it is noted that a device is here.
const NOTE_SEEN_EVERY: Duration = Duration::from_secs(60 * 60);

/// Carries one session to its end.
pub async fn hold(host: &Arc<Host>, stream: Stream) {
    let device = DeviceId(stream.device());
    let (mut read, write) = stream.split();
    let mut frame = Vec::new();
    let first = tokio::time::timeout(HELLO_WITHIN, read_frame(&mut read, &mut frame, MAX_HELLO));
    if !matches!(first.await, Ok(Ok(true))) {
        host.metrics.refused("no-hello");
        return;
    }
    let Ok(hello @ Message::Hello { vault, .. }) = Message::decode(&frame) else {
        host.metrics.refused("no-hello");
        return;
    };
    let Some(resident) = admitted(host, vault, device).await else {
        part(host, vault, device, write).await;
        return;
    };
    let mark = (host.marks.vault(vault), host.marks.device(device));
    tracing::debug!(vault = %mark.0, device = %mark.1, "a device replicates");
    host.metrics.sessions.inc();
    // It may have come into the vault after it connected. When many do at once, they are looked at as they connect.
    let _ = host.to_look_at.try_send(device.0);
    let queue = resident.connect(device).await;
    let receive = receive(host, &resident, device, &queue, &mut read, hello, frame);
    tokio::select! {
        () = receive => {}
        result = send(host, &resident, &queue, write) => {
            if let Err(error) = result {
                tracing::debug!(device = %mark.1, %error, "sending ended");
            }
        }
    }
    resident.disconnect(device, &queue).await;
    host.metrics.sessions.dec();
    if resident.role(&device).is_none() {
        host.let_go(device).await;
    }
    tracing::debug!(vault = %mark.0, device = %mark.1, "a session ended");
}

/// Tells a device that was put out so, if its vault is in memory: then it knows before it asks anybody else. Strangers are
/// told nothing.
async fn part(
    host: &Host,
    vault: VaultId,
    device: DeviceId,
    write: futures::io::WriteHalf<Stream>,
) {
    let Some(resident) = host.vaults.get(&vault) else {
        return;
    };
    if let Some(queue) = resident.part_with(device).await
        && let Err(error) = send(host, &resident, &queue, write).await
    {
        tracing::debug!(%error, "a device that is out could not be told");
    }
}

/// The vault, if the device is in it. What is not in memory is asked of the store's index first: a stranger costs one
/// look.
pub async fn admitted(host: &Host, vault: VaultId, device: DeviceId) -> Option<Arc<Resident>> {
    let known = match host.vaults.get(&vault) {
        Some(resident) => resident.role(&device).is_some(),
        None => match host.store.vaults_of(device).await {
            Ok(vaults) => vaults.contains(&vault),
            Err(error) => {
                host.store_failed("look for a device", &error);
                return None;
            }
        },
    };
    if !known {
        host.metrics.refused("stranger");
        return None;
    }
    match host.vaults.load(host, vault).await {
        Ok(resident) => {
            // The index may be behind the grants.
            let admitted = resident.role(&device).is_some();
            if !admitted {
                host.metrics.refused("stranger");
            }
            admitted.then_some(resident)
        }
        Err(LoadError::NotServed) => None,
        Err(LoadError::Store(error)) => {
            host.store_failed("read a vault", &error);
            None
        }
        Err(error @ (LoadError::Crowded | LoadError::Damaged(_))) => {
            host.metrics.refused("not-loaded");
            tracing::warn!(vault = %host.marks.vault(vault), %error, "a vault cannot be served");
            None
        }
    }
}

async fn receive(
    host: &Host,
    resident: &Resident,
    device: DeviceId,
    queue: &Arc<SessionQueue>,
    read: &mut (impl futures::io::AsyncRead + Unpin),
    hello: Message,
    mut frame: Vec<u8>,
) {
    let pace = host.pace(device.0);
    let mut seen: Option<Instant> = None;
    let mut message = hello;
    loop {
        if seen.is_none_or(|at| at.elapsed() >= NOTE_SEEN_EVERY) {
            seen = Some(Instant::now());
            if let Err(error) = note_seen(host, resident, device).await {
                host.store_failed("note that a device is here", &error);
                return;
            }
        }
        match resident.received(host, device, queue, message).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                host.store_failed("take what a device sent", &error);
                return;
            }
        }
        if frame.capacity() > KEEP_BUFFER {
            frame = Vec::new();
        }
        let next = tokio::select! {
            () = host.drains() => return,
            next = read_frame(read, &mut frame, MAX_MESSAGE) => next,
        };
        match next {
            Ok(true) => {}
            Ok(false) | Err(FrameError::Io(_)) => return,
            Err(error) => {
                host.metrics.refused("message");
                tracing::debug!(%error, "a message cannot be read");
                return;
            }
        }
        pace.took(frame.len()).await;
        message = match Message::decode(&frame) {
            Ok(message) => message,
            Err(_) => {
                host.metrics.refused("message");
                return;
            }
        };
    }
}

async fn note_seen(
    host: &Host,
    resident: &Resident,
    device: DeviceId,
) -> Result<(), super::store::StoreError> {
    host.store
        .note_seen(resident.vault, device, now_ms())
        .await?;
    stating::state_if_due(host, resident.vault).await
}

async fn send(
    host: &Host,
    resident: &Resident,
    queue: &SessionQueue,
    mut write: futures::io::WriteHalf<Stream>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    while let Some(work) = queue.next().await {
        match work {
            Work::Message(message) => put(&mut write, &message).await?,
            Work::Grants { they_have } => {
                for message in resident.grants_after(&they_have).await {
                    put(&mut write, &message).await?;
                }
            }
            Work::Entries {
                writer,
                from,
                to,
                ranges,
            } => {
                let run = resident.run_of(host, writer, (from, to), ranges).await?;
                let Some(run) = run else {
                    return Err("entries that were to be sent are not in the store".into());
                };
                if let Some(message) = run.message {
                    put(&mut write, &message).await?;
                }
                queue.sent(writer, run.last);
            }
            Work::Range(name) => {
                if let Some(message) = resident.range_message(host, name.writer, name.to).await? {
                    put(&mut write, &message).await?;
                }
            }
            Work::Attestations(name) => {
                let said = resident.said_of(name.writer, name.to).await;
                put(&mut write, &Message::Attestations(said)).await?;
            }
            Work::Close(reason) => {
                tracing::debug!(%reason, "replication with a device ends");
                return Ok(());
            }
        }
    }
    Ok(())
}

async fn put(
    write: &mut (impl futures::io::AsyncWrite + Unpin),
    message: &Message,
) -> Result<(), FrameError> {
    let bytes = message.encode();
    let within = STALL + Duration::from_secs(bytes.len() as u64 / SLOWEST);
    tokio::time::timeout(within, write_frame(write, &bytes, MAX_MESSAGE))
        .await
        .unwrap_or_else(|_| Err(FrameError::Io(std::io::ErrorKind::TimedOut.into())))
}
