//! Replication with connected devices: one stream per device, opened by the side with the smaller id. Those to hosts are
//! always opened here, by `hosts/link.rs`.
//!
//! A session moves frames between the stream and the vault's core and decides nothing. Strangers never get here: the
//! accepting side checks membership before it reads a byte, and says nothing to those who are not in the vault.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coffer_protocol::identity::DeviceId;
use coffer_protocol::replication::{ENTRIES_TARGET, MAX_MESSAGE, Message, Work};
use coffer_protocol::version;
use futures::AsyncReadExt;
use redb::{ReadTransaction, ReadableDatabase};
use tokio::sync::{Mutex, broadcast, mpsc, watch};
use tokio::task::JoinSet;

use super::stopped;
use crate::net::{
    Device, Multiaddr, Net, NetEvent, Stream, StreamProtocol, read_frame, write_frame,
};
use crate::store::{StoreError, ranges};
use crate::vault::{SessionQueue, VaultHandle};

/// Pause before a stream is opened again after it broke while the connection stays.
const REOPEN_AFTER: Duration = Duration::from_millis(250);
/// The same, when the last one broke at once.
const REOPEN_AT_MOST: Duration = Duration::from_secs(30);
/// One that lasted so long did not break at once: less than the turn of a node that shares its keys with another.
pub(super) const LASTED: Duration = Duration::from_secs(5);

/// How long a device that was put out is given to hear of it, before the connection to it is closed.
const PARTING: Duration = Duration::from_secs(5);

/// Keeps sessions with every connected device of the vault until `stop` says so.
pub async fn run(
    vault: VaultHandle,
    net: Net,
    incoming: Arc<Mutex<mpsc::Receiver<(Device, Stream)>>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut incoming = incoming.lock().await;
    let mut events = net.events();
    let mut members = vault.members();
    let mut sessions = JoinSet::new();
    let mut opening: BTreeMap<Device, tokio::task::AbortHandle> = BTreeMap::new();
    for connection in net.connections() {
        open_to(&vault, &net, connection.device, &mut opening, &mut sessions).await;
    }
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            event = events.recv() => match event {
                Ok(NetEvent::Connected { device, .. }) => open_to(&vault, &net, device, &mut opening, &mut sessions).await,
                Ok(NetEvent::Disconnected { device }) => {
                    if let Some(task) = opening.remove(&device) {
                        task.abort();
                    }
                }
                // The session with the one ends as that with the other begins.
                Ok(NetEvent::Turn { device }) => {
                    if let Some(task) = opening.remove(&device) {
                        task.abort();
                    }
                    open_to(&vault, &net, device, &mut opening, &mut sessions).await;
                }
                Ok(NetEvent::Addresses { device, addresses }) => remember(&vault, device, addresses).await,
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    for connection in net.connections() {
                        open_to(&vault, &net, connection.device, &mut opening, &mut sessions).await;
                    }
                }
                Err(broadcast::error::RecvError::Closed) => break,
            },
            // A device may be connected already when it is admitted.
            Ok(()) = members.changed() => {
                for connection in net.connections() {
                    open_to(&vault, &net, connection.device, &mut opening, &mut sessions).await;
                }
            }
            Some((device, stream)) = incoming.recv() => {
                if meets(&vault, device).await != Meets::Not {
                    let (vault, net) = (vault.clone(), net.clone());
                    sessions.spawn(async move {
                        if net.in_turn(stream.origin()).await {
                            hold(&vault, stream).await;
                        }
                    });
                } else {
                    tracing::debug!("a device that is not in the vault asked to replicate");
                    drop(stream);
                }
            }
            Some(_) = sessions.join_next() => {}
        }
    }
    sessions.shutdown().await;
}

/// Starts a task that holds a stream to `device` open while it is connected, where it is this side's turn.
async fn open_to(
    vault: &VaultHandle,
    net: &Net,
    device: Device,
    opening: &mut BTreeMap<Device, tokio::task::AbortHandle>,
    sessions: &mut JoinSet<()>,
) {
    let ours = vault.device().0 < device;
    let under_way = opening.get(&device).is_some_and(|task| !task.is_finished());
    let meets = meets(vault, device).await;
    if meets == Meets::ToPart {
        let (vault, net) = (vault.clone(), net.clone());
        sessions.spawn(async move {
            tokio::time::sleep(PARTING).await;
            if self::meets(&vault, device).await == Meets::ToPart {
                net.close_peer(device).await;
            }
        });
    }
    if !ours || under_way || meets == Meets::Not {
        return;
    }
    let (vault, net) = (vault.clone(), net.clone());
    let task = sessions.spawn(async move {
        let mut pause = REOPEN_AFTER;
        while net.is_connected(&device) {
            match net
                .open(device, StreamProtocol::new(version::REPLICATE))
                .await
            {
                Ok(stream) => {
                    let began = tokio::time::Instant::now();
                    hold(&vault, stream).await;
                    pause = if began.elapsed() > LASTED {
                        REOPEN_AFTER
                    } else {
                        (pause * 2).min(REOPEN_AT_MOST)
                    };
                }
                Err(error) => {
                    tracing::debug!(%error, "no stream to replicate on");
                    pause = (pause * 2).min(REOPEN_AT_MOST);
                }
            }
            tokio::time::sleep(pause).await;
        }
    });
    opening.insert(device, task);
}

/// One session, until either side ends it. Says whether the other side said anything.
pub(super) async fn hold(vault: &VaultHandle, stream: Stream) -> bool {
    let device = DeviceId(stream.device());
    let Ok(queue) = vault.connected(device).await else {
        return false;
    };
    let heard = std::sync::atomic::AtomicBool::new(false);
    let (mut read, write) = stream.split();
    let receive = async {
        let mut frame = Vec::new();
        loop {
            match read_frame(&mut read, &mut frame, MAX_MESSAGE).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::debug!(%device, %error, "the stream ended");
                    return;
                }
            }
            match Message::decode(&frame) {
                Ok(message) => {
                    heard.store(true, std::sync::atomic::Ordering::Relaxed);
                    if !vault.is_current(device, &queue)
                        || vault.message(device, message).await.is_err()
                    {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%device, %error, "a message cannot be read");
                    return;
                }
            }
        }
    };
    tokio::select! {
        () = receive => {}
        result = send(vault, &queue, write) => {
            if let Err(error) = result {
                tracing::debug!(%device, %error, "sending ended");
            }
        }
    }
    vault.disconnected(device, &queue).await;
    heard.into_inner()
}

async fn send(
    vault: &VaultHandle,
    queue: &Arc<SessionQueue>,
    mut write: futures::io::WriteHalf<Stream>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    while let Some(work) = queue.next().await {
        match work {
            Work::Message(message) => {
                write_frame(&mut write, &message.encode(), MAX_MESSAGE).await?
            }
            Work::Grants { they_have } => {
                let message = vault
                    .inspect(move |core| core.grants_after(&they_have))
                    .await?;
                write_frame(&mut write, &message.encode(), MAX_MESSAGE).await?;
            }
            Work::Entries {
                writer,
                from,
                to,
                ranges: knows,
            } => {
                let run = read(vault, move |read| {
                    ranges::read_run(read, writer, (from, to), knows, ENTRIES_TARGET)
                });
                let Some(run) = run.await? else {
                    return Err("entries that were to be sent are not in the store".into());
                };
                if let Some(message) = run.message {
                    write_frame(&mut write, &message.encode(), MAX_MESSAGE).await?;
                }
                queue.sent(writer, run.last);
            }
            Work::Range(name) => {
                let range = read(vault, move |read| {
                    ranges::range_message(read, name.writer, name.to)
                });
                if let Some(message) = range.await? {
                    write_frame(&mut write, &message.encode(), MAX_MESSAGE).await?;
                }
            }
            Work::Attestations(name) => {
                let said = read(vault, move |read| ranges::said_message(read, &name));
                if let Some(message) = said.await? {
                    write_frame(&mut write, &message.encode(), MAX_MESSAGE).await?;
                }
            }
            Work::Close(reason) => {
                tracing::info!(%reason, "replication with a device ends");
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Reads in the store, off the threads that carry streams.
async fn read<T: Send + 'static>(
    vault: &VaultHandle,
    look: impl FnOnce(&ReadTransaction) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Box<dyn std::error::Error + Send + Sync>> {
    let database = vault.database().clone();
    let done = tokio::task::spawn_blocking(move || look(&database.begin_read()?));
    Ok(done.await??)
}

/// How a device is met.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meets {
    AsMember,
    /// It was put out, or this device was: it is told so, and nothing else.
    ToPart,
    Not,
}

async fn meets(vault: &VaultHandle, device: Device) -> Meets {
    let look = move |core: &crate::vault::Core| {
        let (membership, device) = (&core.state().membership, DeviceId(device));
        let out = core.state().is_out_for_good();
        // Hosts are asked, and ask nothing: `hosts/link.rs` opens to them.
        let former = membership.former().get(&device);
        match (membership.role(&device), former) {
            (Some(role), _) if role.holds_keys() && out => Meets::ToPart,
            (Some(role), _) if role.holds_keys() => Meets::AsMember,
            (None, Some(former)) if former.device.role.holds_keys() => Meets::ToPart,
            _ => Meets::Not,
        }
    };
    vault.inspect(look).await.unwrap_or(Meets::Not)
}

/// Whether a device belongs to the vault and may read it. Hosts do not: they are asked, and ask nothing.
pub async fn holds_keys(vault: &VaultHandle, device: Device) -> bool {
    vault
        .inspect(move |core| {
            let role = core.state().membership.role(&DeviceId(device));
            role.is_some_and(|role| role.holds_keys())
        })
        .await
        .unwrap_or(false)
}

/// Keeps addresses at which a device was reached, for the next start.
async fn remember(vault: &VaultHandle, device: Device, addresses: Vec<Multiaddr>) {
    let request = crate::vault::CommitRequest {
        addresses: vec![(
            DeviceId(device),
            addresses
                .iter()
                .take(ADDRESSES_KEPT)
                .map(ToString::to_string)
                .collect(),
        )],
        ..Default::default()
    };
    if let Err(error) = vault.commit(request).await {
        tracing::debug!(%error, "addresses were not kept");
    }
}

/// Addresses kept of one device: a home, an office, and what a phone had lately.
const ADDRESSES_KEPT: usize = 16;
