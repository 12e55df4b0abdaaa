//! What a node has only while this device's keys are open: the keys themselves, the network, and who answers on it.
//!
//! A locked node has none of it: its process goes on, answers on the control socket, and holds no secret.

use std::sync::{Arc, Mutex, PoisonError};

use coffer_protocol::blobs::Version;
use coffer_protocol::version;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Node, Streams, other_port, pairing, start_network};
use crate::control::{ControlError, ErrorKind};
use crate::net::{Net, StreamProtocol};
use crate::vault::identity::Identity;

/// A node's open half.
pub struct Awake {
    /// This device's keys.
    pub identity: Identity,
    /// The network, unless the node was started without one.
    pub net: Option<Net>,
    /// Inbound streams for contents, of each version.
    pub blob_streams: Vec<(Version, Streams)>,
    /// Inbound streams of replication.
    pub replicate_streams: Option<Streams>,
    /// Inbound streams of who has the vault's words.
    pub recover_streams: Option<Streams>,
    pairing: Mutex<Option<JoinHandle<()>>>,
    stop: watch::Sender<bool>,
}

impl Awake {
    /// Turns true when the keys are about to be dropped.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Ends all that works with the keys, apart from the vault, which has ended before.
    pub async fn close(&self) {
        self.stop.send_replace(true);
        let pairing = self
            .pairing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(pairing) = pairing {
            let _ = pairing.await;
        }
        if let Some(net) = &self.net {
            net.shutdown().await;
        }
    }
}

impl Node {
    /// What there is while the keys are open.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`].
    pub fn awake(&self) -> Result<Arc<Awake>, ControlError> {
        let awake = self.awake.read().unwrap_or_else(PoisonError::into_inner);
        awake.clone().ok_or_else(locked)
    }

    /// The network, if there is one now.
    pub fn net(&self) -> Option<Net> {
        self.awake().ok()?.net.clone()
    }

    /// Starts the network with these keys, and begins to answer devices that want to be let in. Gives what a person should
    /// be told about it.
    pub(super) async fn wake(
        self: &Arc<Node>,
        identity: Identity,
    ) -> Result<Vec<String>, ControlError> {
        let mut notes = Vec::new();
        let mut incoming = None;
        let net = if self.options.network {
            let (options, keys) = (self.options.clone(), identity.clone());
            let runtime = tokio::runtime::Handle::current();
            // libp2p moves the device's key about by value while it is set up.
            let started = apart(move || runtime.block_on(start_network(&options, &keys)));
            let (net, streams) = started.await??;
            incoming = Some(streams);
            notes.extend(other_port(&self.options, &net));
            Some(net)
        } else {
            notes.push("it does not connect to other devices (--no-network)".to_string());
            None
        };
        let mut take = |name: &'static str| {
            incoming
                .as_mut()
                .and_then(|incoming| incoming.take(&StreamProtocol::new(name)))
        };
        let shared = |streams| Arc::new(tokio::sync::Mutex::new(streams));
        let pair_streams = take(version::PAIR);
        let awake = Arc::new(Awake {
            identity,
            net,
            blob_streams: [Version::One, Version::Two]
                .into_iter()
                .filter_map(|version| Some((version, shared(take(version.protocol())?))))
                .collect(),
            replicate_streams: take(version::REPLICATE).map(shared),
            recover_streams: take(version::RECOVER_PROTOCOL).map(shared),
            pairing: Mutex::new(None),
            stop: watch::channel(false).0,
        });
        if let Some(streams) = pair_streams {
            let answering = pairing::answer(self.clone(), streams, awake.stopping());
            *awake.pairing.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(tokio::spawn(answering));
        }
        *self.awake.write().unwrap_or_else(PoisonError::into_inner) = Some(awake);
        Ok(notes)
    }

    /// Drops the keys, with all that works with them.
    pub(super) async fn fall_asleep(&self) {
        let awake = self
            .awake
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(awake) = awake {
            awake.close().await;
        }
    }
}

/// Works with secrets on a thread of its own, which ends with it: what moving them about leaves on its stack goes back to
/// the system with the thread. The stacks of the runtime's threads would keep it for as long as nothing overwrites it.
pub(super) async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ControlError> {
    let (done, doing) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("secrets".into())
        .spawn(move || {
            let _ = done.send(work());
        })
        .map_err(|error| ControlError::io("start a thread", &error))?;
    let result = doing
        .await
        .map_err(|_| ControlError::internal("work with secrets ended early"));
    // It has nothing left to do.
    let _ = thread.join();
    result
}

/// The answer to whoever needs what is locked.
pub(super) fn locked() -> ControlError {
    ControlError::new(ErrorKind::Locked, "coffer is locked on this device")
}
