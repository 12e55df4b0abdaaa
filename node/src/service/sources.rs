//! Where bytes can be had: the devices of the vault that are connected now. And the other way: serving them.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use coffer_protocol::identity::DeviceId;
use coffer_protocol::version;
use futures::future::{BoxFuture, FutureExt};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;

use super::sessions::holds_keys;
use super::stopped;
use crate::blobs::{Blobs, ByteStream, Limits, Sources};
use crate::net::{Device, Multiaddr, Net, NetEvent, Stream, StreamProtocol};
use crate::vault::VaultHandle;

/// After a host said something, how long more is let come: while another device brings it contents it says so all the
/// time, and each time it is asked for all that is missing.
const NEWS_GATHER: Duration = Duration::from_millis(400);

/// Connected devices as sources of bytes.
pub struct Connected {
    vault: VaultHandle,
    net: Option<Net>,
    limits: watch::Receiver<Limits>,
}

impl Connected {
    /// Sources among the devices that `net` connects, none while `limits` say that transfers are paused.
    pub fn new(
        vault: VaultHandle,
        net: Option<Net>,
        limits: watch::Receiver<Limits>,
    ) -> Arc<Connected> {
        Arc::new(Connected { vault, net, limits })
    }
}

impl Sources for Connected {
    fn candidates(&self) -> Vec<DeviceId> {
        let Some(net) = &self.net else {
            return Vec::new();
        };
        if self.limits.borrow().paused {
            return Vec::new();
        }
        let mut devices: Vec<DeviceId> = net
            .connections()
            .into_iter()
            .map(|connection| DeviceId(connection.device))
            .collect();
        devices.sort_unstable();
        devices.dedup();
        devices.retain(|device| self.vault.has_session(*device));
        devices
    }

    fn open(&self, device: DeviceId) -> BoxFuture<'static, io::Result<Box<dyn ByteStream>>> {
        let net = self.net.clone();
        async move {
            let net = net.ok_or(io::ErrorKind::NotConnected)?;
            let stream = net
                .open(device.0, StreamProtocol::new(version::BLOBS))
                .await
                .map_err(io::Error::other)?;
            Ok(Box::new(stream) as Box<dyn ByteStream>)
        }
        .boxed()
    }

    fn changed(&self) -> BoxFuture<'static, ()> {
        let Some(net) = &self.net else {
            return std::future::pending().boxed();
        };
        let mut events = net.events();
        let mut sessions = self.vault.sessions_changed();
        // A host that says something has something new, mostly.
        let mut news = self.vault.hosts_news();
        news.mark_unchanged();
        let mut limits = self.limits.clone();
        limits.mark_unchanged();
        async move {
            loop {
                tokio::select! {
                    event = events.recv() => match event {
                        Ok(NetEvent::Disconnected { .. }) | Err(_) => return,
                        Ok(_) => {}
                    },
                    changed = sessions.changed() => {
                        let _ = changed;
                        return;
                    }
                    _ = news.changed() => {
                        tokio::time::sleep(NEWS_GATHER).await;
                        return;
                    }
                    // Only a pause changes who can be asked, but that is rare enough.
                    _ = limits.changed() => return,
                }
            }
        }
        .boxed()
    }
}

/// Answers other devices' requests for bytes.
pub async fn serve(
    vault: VaultHandle,
    blobs: Blobs,
    streams: Arc<Mutex<mpsc::Receiver<(Device, Stream)>>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut streams = streams.lock().await;
    let mut serving = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = serving.join_next() => {}
            next = streams.recv() => {
                let Some((device, stream)) = next else { break };
                if !holds_keys(&vault, device).await {
                    tracing::debug!("a device that is not in the vault asked for contents");
                    continue;
                }
                let blobs = blobs.clone();
                serving.spawn(async move {
                    if let Err(error) = blobs.serve(DeviceId(device), stream).await {
                        tracing::debug!(%error, "serving contents ended");
                    }
                });
            }
        }
    }
    serving.shutdown().await;
}

/// The two listen addresses of an IP address: TCP and QUIC.
pub fn listen_on(address: IpAddr, port: u16) -> Vec<Multiaddr> {
    let ip = match address {
        IpAddr::V4(ip) => format!("/ip4/{ip}"),
        IpAddr::V6(ip) => format!("/ip6/{ip}"),
    };
    [
        format!("{ip}/tcp/{port}"),
        format!("{ip}/udp/{port}/quic-v1"),
    ]
    .iter()
    .filter_map(|text| text.parse().ok())
    .collect()
}
