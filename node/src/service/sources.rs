//! Where bytes can be had: the devices of the vault that are connected now. And the other way: serving them.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use coffer_protocol::blobs::Version;
use coffer_protocol::identity::DeviceId;
use futures::future::{BoxFuture, FutureExt};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;

use super::sessions::holds_keys;
use super::stopped;
use crate::blobs::{Blobs, Limits, Opened, Paused, Sources};
use crate::net::{Device, Multiaddr, Net, NetEvent, OpenError, Stream, StreamProtocol};
use crate::vault::VaultHandle;

/// After a host said something, how long more is let come: while another device brings it contents it says so all the
/// time, and each time it is asked for all that is missing.
const NEWS_GATHER: Duration = Duration::from_millis(400);

/// Connected devices as sources of bytes.
pub struct Connected {
    vault: VaultHandle,
    net: Option<Net>,
    limits: watch::Receiver<Limits>,
    paused_elsewhere: watch::Receiver<Paused>,
}

impl Connected {
    /// Sources among the devices that `net` connects, none while transfers are paused here.
    pub fn new(vault: VaultHandle, net: Option<Net>, blobs: &Blobs) -> Arc<Connected> {
        Arc::new(Connected {
            vault,
            net,
            limits: blobs.limits(),
            paused_elsewhere: blobs.paused_elsewhere(),
        })
    }
}

/// Devices that `net` connects and that talk with this vault, paused here or not.
pub fn connected(vault: &VaultHandle, net: &Net) -> Vec<DeviceId> {
    let mut devices: Vec<DeviceId> = net
        .connections()
        .into_iter()
        .map(|connection| DeviceId(connection.device))
        .collect();
    devices.sort_unstable();
    devices.dedup();
    devices.retain(|device| vault.has_session(*device));
    devices
}

impl Sources for Connected {
    fn candidates(&self) -> Vec<DeviceId> {
        let Some(net) = &self.net else {
            return Vec::new();
        };
        if self.limits.borrow().paused {
            return Vec::new();
        }
        connected(&self.vault, net)
    }

    fn connected(&self) -> Vec<DeviceId> {
        let net = self.net.as_ref();
        net.map(|net| connected(&self.vault, net))
            .unwrap_or_default()
    }

    fn open(&self, device: DeviceId) -> BoxFuture<'static, io::Result<Opened>> {
        let net = self.net.clone();
        async move {
            let net = net.ok_or(io::ErrorKind::NotConnected)?;
            let open = |version: Version| {
                let protocol = StreamProtocol::new(version.protocol());
                net.open(device.0, protocol)
            };
            let (version, stream) = match open(Version::Two).await {
                Err(OpenError::Unsupported) => (Version::One, open(Version::One).await),
                opened => (Version::Two, opened),
            };
            Ok(Opened {
                version,
                stream: Box::new(stream.map_err(io::Error::other)?),
            })
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
        let mut paused = self.paused_elsewhere.clone();
        let before = paused.borrow().ended;
        async move {
            let goes_on = async {
                let _ = paused.wait_for(|now| now.ended != before).await;
            };
            tokio::pin!(goes_on);
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
                    () = &mut goes_on => return,
                }
            }
        }
        .boxed()
    }
}

/// Answers what other devices ask on streams of one version.
pub async fn serve(
    vault: VaultHandle,
    blobs: Blobs,
    version: Version,
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
                    if let Err(error) = blobs.serve(DeviceId(device), version, stream).await {
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
