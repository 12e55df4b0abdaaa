//! What all parts of a host share: its keys, its store, its limits, what is counted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use coffer_protocol::identity::{DeviceId, DeviceKey, VaultId};
use coffer_protocol::keys::SealingPublic;
use tokio::sync::{Semaphore, mpsc, watch};

use super::config::RelayConfig;
use super::marks::Marks;
use super::metrics::{Metrics, gauge};
use super::places::{ip_of, network_of};
use super::rates::{Pace, Rate, Rates};
use super::scrubbing::Suspects;
use super::store::{RelayStore, StoreError};
use super::vaults::Vaults;
use crate::net::{Device, Net};

/// What is counted anew for metrics at most this often.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// A host.
pub struct Host {
    /// Its id, which is its public key.
    pub id: DeviceId,
    /// Signs statements and receipts.
    pub key: DeviceKey,
    /// Named in its admissions; nothing is sealed to it.
    pub sealing: SealingPublic,
    /// What it calls itself.
    pub name: String,
    /// What its person set.
    pub config: RelayConfig,
    /// What it keeps.
    pub store: Arc<dyn RelayStore>,
    /// The network.
    pub net: Net,
    /// What it counts.
    pub metrics: Metrics,
    /// What stands in the log for ids.
    pub marks: Marks,
    /// The vaults in memory.
    pub vaults: Vaults,
    /// Room in memory for blobs that come in, in KiB: a batch is taken whole or not at all.
    pub arriving: Arc<Semaphore>,
    /// Answers to batch GETs under way.
    pub giving: Arc<Semaphore>,
    /// When it started, in milliseconds since 1970.
    pub started_ms: u64,
    /// Vaults of which something new is to be stated.
    pub to_state: mpsc::Sender<VaultId>,
    /// Connected devices that may have come into a vault just now.
    pub to_look_at: mpsc::Sender<Device>,
    /// Vaults in which something damaged was found.
    pub suspects: Suspects,
    /// Whether it is ending.
    draining: watch::Sender<bool>,
    rates: Mutex<Limits>,
    /// Of devices with a stream.
    paces: Mutex<HashMap<Device, Weak<Pace>>>,
    measured: tokio::sync::Mutex<Option<Instant>>,
}

/// What is limited by device or address.
struct Limits {
    streams: Rates<Device>,
    joins: Rates<Option<IpAddr>>,
}

/// What a [`Host`] is made of.
pub struct Parts {
    /// Its key.
    pub key: DeviceKey,
    /// Its sealing key.
    pub sealing: SealingPublic,
    /// What its person set.
    pub config: RelayConfig,
    /// What it keeps.
    pub store: Arc<dyn RelayStore>,
    /// The network, on which it listens.
    pub net: Net,
    /// Random, for marks in the log.
    pub mark_key: [u8; 32],
}

/// Vaults that wait to be stated: each is there once, so as many as are in memory, and some that only the clean-up
/// touched.
const TO_STATE: usize = 4096;

/// Devices that wait to be looked at.
const TO_LOOK_AT: usize = 1024;

/// What one answer to a batch GET may hold in memory at a time, in bytes.
const GIVING_EACH: u64 = 4 << 20;

impl Host {
    /// Closes the connection to a device that was put out of a vault, unless it is in another one that is served.
    pub async fn let_go(&self, device: DeviceId) {
        match self.store.vaults_of(device).await {
            Ok(vaults) if vaults.is_empty() => self.net.close_peer(device.0).await,
            Ok(_) => {}
            Err(error) => self.store_failed("look for a device", &error),
        }
    }

    /// A host that serves nobody yet, and the queues of what it has to state, and of whom it has to look at.
    pub fn new(parts: Parts) -> (Arc<Host>, mpsc::Receiver<VaultId>, mpsc::Receiver<Device>) {
        let (to_state, stating) = mpsc::channel(TO_STATE);
        let (to_look_at, looking) = mpsc::channel(TO_LOOK_AT);
        let config = parts.config;
        let buffers_kib = usize::try_from(config.buffers >> 10).unwrap_or(Semaphore::MAX_PERMITS);
        let host = Host {
            id: parts.key.id(),
            key: parts.key,
            sealing: parts.sealing,
            name: host_name(&config.name),
            store: parts.store,
            net: parts.net,
            metrics: Metrics::new(),
            marks: Marks::new(config.log_identities, parts.mark_key),
            vaults: Vaults::new(config.resident),
            arriving: Arc::new(Semaphore::new(buffers_kib.min(Semaphore::MAX_PERMITS))),
            giving: Arc::new(Semaphore::new(
                usize::try_from(config.buffers / GIVING_EACH)
                    .unwrap_or(1)
                    .max(1),
            )),
            started_ms: now_ms(),
            to_state,
            to_look_at,
            suspects: Suspects::default(),
            draining: watch::Sender::new(false),
            rates: Mutex::new(Limits {
                streams: Rates::new(Rate::per_minute(config.streams_per_minute)),
                joins: Rates::new(Rate::per_minute(config.joins_per_minute)),
            }),
            paces: Mutex::new(HashMap::new()),
            measured: tokio::sync::Mutex::new(None),
            config,
        };
        (Arc::new(host), stating, looking)
    }

    fn limits(&self) -> MutexGuard<'_, Limits> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How fast a device may ask and send, over all its streams.
    pub fn pace(&self, device: Device) -> Arc<Pace> {
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pace) = paces.get(&device).and_then(Weak::upgrade) {
            return pace;
        }
        // Those whose streams have ended make room; the others are bounded by the connections.
        if paces.len() == paces.capacity() {
            paces.retain(|_, pace| pace.strong_count() > 0);
        }
        let config = &self.config;
        let pace = Arc::new(Pace::new(
            config.requests_per_second,
            config.bytes_in_per_second,
            Instant::now(),
        ));
        paces.insert(device, Arc::downgrade(&pace));
        pace
    }

    /// Whether a device may open one more stream now.
    pub fn allows_stream(&self, device: Device) -> bool {
        self.limits().streams.allows(device, Instant::now())
    }

    /// Whether somebody at the address of this device may try to use one more invitation now.
    pub fn allows_join(&self, device: Device) -> bool {
        let from = self.address_of(device).map(network_of);
        self.limits().joins.allows(from, Instant::now())
    }

    /// Where a device is connected from.
    pub fn address_of(&self, device: Device) -> Option<IpAddr> {
        let connections = self.net.connections_of(&device);
        ip_of(&connections.first()?.address)
    }

    /// Whether it is ending: nothing new begins.
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Begins to end.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Resolves when it begins to end.
    pub async fn drains(&self) {
        stopped(&mut self.draining.subscribe()).await;
    }

    /// Whether devices should come here now.
    pub async fn readiness(&self) -> Result<(), String> {
        if self.is_draining() {
            return Err("the host is ending".to_owned());
        }
        self.store.ready().await.map_err(|error| error.to_string())
    }

    /// A failure of the store, for the log and the count.
    pub fn store_failed(&self, doing: &'static str, error: &StoreError) {
        // A vault that was removed meanwhile is no failure.
        if matches!(error, StoreError::NoVault(_)) {
            return;
        }
        self.metrics.store_failures.inc();
        // The message names no vault but in `NoVault`.
        tracing::warn!(doing, %error, "the store failed");
    }

    /// Reads the amounts that metrics show.
    pub async fn measure(&self) {
        let mut measured = self.measured.lock().await;
        let now = Instant::now();
        self.metrics
            .connections
            .set(gauge(self.net.connection_count() as u64));
        self.metrics
            .vaults_resident
            .set(gauge(self.vaults.len() as u64));
        self.metrics.draining.set(i64::from(self.is_draining()));
        self.metrics.turned_away(self.net.turned_away());
        if measured.is_some_and(|at| now.saturating_duration_since(at) < MEASURE_EVERY) {
            return;
        }
        *measured = Some(now);
        match self.store.totals().await {
            Ok(totals) => {
                let metrics = &self.metrics;
                metrics.vaults.set(gauge(totals.vaults));
                metrics.entries.set(gauge(totals.usage.entries));
                metrics.entry_bytes.set(gauge(totals.usage.entry_bytes));
                metrics.blobs.set(gauge(totals.usage.blobs));
                metrics.blob_bytes.set(gauge(totals.usage.blob_bytes));
                metrics.quota_bytes.set(gauge(totals.quota));
            }
            Err(error) => self.store_failed("count what is kept", &error),
        }
    }
}

/// The wall clock, in milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |passed| {
            u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
        })
}

/// The configured name, else that of the machine.
fn host_name(configured: &str) -> String {
    if !configured.trim().is_empty() {
        return configured.trim().to_owned();
    }
    // The first is hidden from a service that may see only processes.
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::fs::read_to_string("/etc/hostname"))
        .unwrap_or_default();
    match machine.trim() {
        "" => "host".to_owned(),
        name => name.to_owned(),
    }
}

/// Resolves when `stop` says so, or whoever would say so is gone.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
