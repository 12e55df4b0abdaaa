//! One device: the network of a real one, and a replication session in which it says no more than it must.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use coffer_node::net::{
    Multiaddr, Net, NetConfig, OpenError, Role, Stream, StreamProtocol, read_frame, write_frame,
};
use coffer_protocol::identity::DeviceId;
use coffer_protocol::relay::{DeviceSide, DeviceStep, HostInvitation, MAX_BIND};
use coffer_protocol::replication::{MAX_MESSAGE, Message};
use coffer_protocol::version;
use futures::io::{AsyncReadExt, AsyncWriteExt, WriteHalf};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

use super::Failed;
use super::vault::Vault;

/// An edit has come to a device.
pub struct Arrived {
    /// The vault's place in the list.
    pub place: usize,
    /// Which of its devices.
    pub which: usize,
    pub at: Instant,
}

pub struct Device {
    vault: Arc<Vault>,
    /// First or second of its vault.
    pub which: usize,
    place: usize,
    net: Net,
    /// Not used yet.
    invitation: Option<HostInvitation>,
    is_bound: AtomicBool,
    arrived: mpsc::Sender<Arrived>,
    session: Mutex<Option<Session>>,
}

struct Session {
    write: WriteHalf<Stream>,
    reading: JoinHandle<()>,
}

/// Between two tries to open a stream while there is no connection yet.
const AGAIN: Duration = Duration::from_millis(20);

impl Device {
    pub async fn new(
        vault: Arc<Vault>,
        which: usize,
        invitation: Option<HostInvitation>,
        place: usize,
        arrived: mpsc::Sender<Arrived>,
    ) -> Result<Device, Failed> {
        let (net, _) = Net::start(NetConfig {
            key: vault.key(which).boxed_secret(),
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse()?],
            mdns: false,
            protocols: Vec::new(),
            role: Role::default(),
            door: None,
        })
        .await?;
        Ok(Device {
            vault,
            which,
            place,
            net,
            invitation,
            is_bound: AtomicBool::new(false),
            arrived,
            session: Mutex::new(None),
        })
    }

    /// Connects, binds the vault if that is for this device to do, and returns once the host has answered its Hello.
    pub async fn come(&self, host: DeviceId, addresses: Vec<Multiaddr>) -> Result<(), Failed> {
        self.net
            .set_relays(BTreeMap::from([(host.0, addresses)]))
            .await;
        if let Some(invitation) = &self.invitation
            && !self.is_bound.load(Ordering::Relaxed)
        {
            self.bind(host, invitation).await?;
            self.is_bound.store(true, Ordering::Relaxed);
        }
        loop {
            if self.replicate(host).await? {
                return Ok(());
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn open(&self, host: DeviceId, protocol: &'static str) -> Result<Stream, Failed> {
        loop {
            match self.net.open(host.0, StreamProtocol::new(protocol)).await {
                Err(OpenError::NotConnected | OpenError::Broken) => {
                    tokio::time::sleep(AGAIN).await;
                }
                opened => return Ok(opened?),
            }
        }
    }

    async fn bind(&self, host: DeviceId, invitation: &HostInvitation) -> Result<(), Failed> {
        let mut stream = self.open(host, version::RELAY_JOIN).await?;
        let (mut side, mut steps) = DeviceSide::by_invitation(self.vault.id, host, invitation);
        loop {
            for step in std::mem::take(&mut steps) {
                match step {
                    DeviceStep::Send(bytes) => {
                        write_frame(&mut stream, &bytes, MAX_BIND).await?;
                        stream.flush().await?;
                    }
                    DeviceStep::Admit(_) => steps = side.admitted(Some(self.vault.grants())),
                    DeviceStep::Bound(_) => return Ok(()),
                    DeviceStep::Failed(why) => return Err(why.into()),
                }
            }
            if steps.is_empty() {
                let mut frame = Vec::new();
                steps = match read_frame(&mut stream, &mut frame, MAX_BIND).await {
                    Ok(true) => side.on_message(&frame),
                    _ => side.disconnected(),
                };
            }
        }
    }

    /// Opens a session; false if the host does not take it.
    async fn replicate(&self, host: DeviceId) -> Result<bool, Failed> {
        let stream = self.open(host, version::REPLICATE).await?;
        let (mut read, mut write) = stream.split();
        let hello = Message::Hello {
            versions: vec![version::REPLICATION],
            vault: self.vault.id,
            grant_heads: self.vault.membership.heads(),
            clock: self.vault.clock(),
        };
        write_frame(&mut write, &hello.encode(), MAX_MESSAGE).await?;
        write.flush().await?;
        let mut frame = Vec::new();
        if !matches!(
            read_frame(&mut read, &mut frame, MAX_MESSAGE).await,
            Ok(true)
        ) {
            return Ok(false);
        }
        let (arrived, place, which) = (self.arrived.clone(), self.place, self.which);
        let reading = tokio::spawn(async move {
            while let Ok(true) = read_frame(&mut read, &mut frame, MAX_MESSAGE).await {
                if let Ok(Message::Entries(_)) = Message::decode(&frame) {
                    let at = Instant::now();
                    // Nobody counts them any more once the program ends.
                    let _ = arrived.send(Arrived { place, which, at }).await;
                }
            }
        });
        *self.session.lock().await = Some(Session { write, reading });
        Ok(true)
    }

    /// Sends an entry.
    pub async fn send(&self, entry: Vec<u8>) -> Result<(), Failed> {
        let mut session = self.session.lock().await;
        let session = session.as_mut().ok_or("no session")?;
        let message = Message::Entries(vec![entry]).encode();
        write_frame(&mut session.write, &message, MAX_MESSAGE).await?;
        Ok(session.write.flush().await?)
    }

    /// Loses its connection.
    pub async fn cut(&self, host: DeviceId) {
        self.net.set_relays(BTreeMap::new()).await;
        self.net.close_peer(host.0).await;
        if let Some(session) = self.session.lock().await.take() {
            session.reading.abort();
        }
    }

    /// Ends.
    pub async fn leave(&self) {
        if let Some(session) = self.session.lock().await.take() {
            session.reading.abort();
        }
        self.net.shutdown().await;
    }
}
