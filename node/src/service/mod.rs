//! A whole node: what starts, what stops, and in which order.
//!
//! Start: data folder and its lock, the device's keys, the control socket, the network; then, once the data folder holds
//! a vault, the vault's own parts ([`Running`]). Where the keys are sealed, it starts locked, and what follows the keys
//! comes when it is unlocked (`locking.rs`). Stop is the reverse: nobody is let in, requests end, folders stop,
//! sessions end, the vault answers what it had begun and closes cleanly, the network goes last. Every task that is
//! started here is awaited here.

mod answers;
mod awake;
mod backup;
mod bringing;
mod check;
mod collecting;
mod conflicts;
mod data_folder;
mod devices;
mod displaced;
mod documents;
mod erasing;
mod events;
mod export;
mod figures;
mod files;
mod folders;
mod hosts;
mod ignored;
mod keeper;
mod limits;
mod lines;
mod locking;
mod login;
pub(crate) mod memory;
mod pairing;
mod pauses;
mod purging;
mod recovering;
mod recovery;
mod relocking;
mod reopen;
mod returned;
mod running;
mod sessions;
pub(crate) mod sources;
mod sparing;
pub(crate) mod status;
mod storage;
mod trash;
mod tries;
mod unsyncing;
mod versions;
mod whereabouts;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coffer_protocol::identity::DeviceId;
use coffer_protocol::version;
use rand::SeedableRng;
use tokio::sync::{Mutex, RwLock, mpsc, watch};

use crate::control::{
    ControlError, DataLock, ErrorKind, NewVault, Options, Ready, Server, StartError,
};
use crate::net::{Device, Net, NetConfig, Protocol, Role, Stream, StreamProtocol};
use crate::store::{self, StoreError};
use crate::vault::founding::{self, DATABASE, FoundingError};
use crate::vault::identity::{Identity, binding};
use crate::vault::wall_ms;

pub use data_folder::{has_vault, look, protection};
pub use memory::bound_heaps;
pub use running::Running;

/// Streams that may wait to be accepted, for each protocol.
const INCOMING_QUEUE: usize = 64;
/// Replication streams that one device may have open: the one in use, and one that replaces it.
const REPLICATE_PER_DEVICE: usize = 4;
/// Streams for blobs that one device may have open: some batches in flight, for folders and keeper each.
const BLOBS_PER_DEVICE: usize = 32;
/// Streams for pairing, or to get a vault back, that one device may have open.
const PAIR_PER_DEVICE: usize = 2;
/// How long stopping may take before what is left is dropped: systemd and people wait about as long.
const STOP_WITHIN: Duration = Duration::from_millis(4500);

/// Inbound streams of one protocol: whoever answers them now holds the lock.
type Streams = Arc<Mutex<mpsc::Receiver<(Device, Stream)>>>;

/// A node: alive from [`run`] until its shutdown.
pub struct Node {
    options: Options,
    started: std::time::Instant,
    /// What there is while the keys of this device are open.
    awake: std::sync::RwLock<Option<Arc<awake::Awake>>>,
    /// How this device is locked and unlocked.
    locking: locking::Locking,
    /// The vault's parts, once there is a vault.
    running: RwLock<Option<Arc<Running>>>,
    /// Why the vault that is there is closed, while the disk fails it: see `reopen.rs`.
    closed: reopen::Closed,
    /// Taken while a vault is begun, joined or replaced.
    founding: Mutex<()>,
    /// Taken by whoever works on a backup.
    backing_up: Mutex<()>,
    /// The invitation that is open, if one is.
    inviting: Mutex<Option<pairing::Open>>,
    /// Set once the copy in the data folder is to be erased when the node has ended.
    erase: std::sync::atomic::AtomicBool,
    stop: watch::Sender<bool>,
}

impl Node {
    /// The vault's parts.
    ///
    /// # Errors
    /// [`ErrorKind::NoVault`] while there is no vault; why it is closed while the disk fails it.
    pub async fn vault(&self) -> Result<Arc<Running>, ControlError> {
        if let Some(running) = self.running.read().await.clone() {
            return Ok(running);
        }
        self.closed.check()?;
        self.awake()?;
        Err(ControlError::new(
            ErrorKind::NoVault,
            "this data folder belongs to no vault yet",
        ))
    }

    /// Has the node end a moment from now, so that an answer leaves before it does.
    fn stop_soon(&self) {
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            stop.send_replace(true);
        });
    }

    fn data_dir(&self) -> &Path {
        &self.options.data_dir
    }

    fn identity(&self) -> Result<Identity, ControlError> {
        Ok(self.awake()?.identity.clone())
    }

    /// This device's id.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`].
    pub fn device(&self) -> Result<DeviceId, ControlError> {
        Ok(self.awake()?.identity.key.id())
    }

    /// Whether the data folder holds a vault.
    async fn holds_vault(&self) -> Result<bool, ControlError> {
        let path = self.data_dir().join(DATABASE);
        if !path.exists() {
            return Ok(false);
        }
        let looked = tokio::task::spawn_blocking(move || -> Result<bool, StoreError> {
            let database = store::open(&path)?;
            Ok(founding::vault_of(&database)?.is_some())
        });
        looked
            .await
            .map_err(|error| ControlError::internal(error.to_string()))?
            .map_err(store_error)
    }

    /// Starts the vault of the data folder, or begins one where that is wanted. Says whether it began one.
    async fn open_vault(&self) -> Result<bool, ControlError> {
        if self.holds_vault().await? {
            self.start_vault().await?;
        } else if data_folder::has_remains(self.data_dir()) {
            let why = "the file vault.redb holds nothing of it";
            return Err(data_folder::damaged(self.data_dir(), why));
        } else if self.options.new_vault == NewVault::Create {
            self.found(None).await?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Begins a vault in this data folder.
    async fn found(&self, name: Option<String>) -> Result<Arc<Running>, ControlError> {
        self.closed.check()?;
        let guard = self.founding.lock().await;
        if self.running.read().await.is_some() {
            let message = format!("there is a vault in {} already", self.data_dir().display());
            return Err(ControlError::conflict(message).with_code("vault-exists"));
        }
        let identity = self.identity()?;
        let name = device_name(name.or_else(|| self.options.device_name.clone()));
        let (path, place) = (self.data_dir().join(DATABASE), binding(self.data_dir()));
        tokio::task::spawn_blocking(move || -> Result<(), FoundingError> {
            let database = store::open(&path)?;
            founding::found(
                &database,
                &identity,
                &name,
                &place,
                wall_ms(),
                &mut random(),
            )
            .map(drop)
        })
        .await
        .map_err(|error| ControlError::internal(error.to_string()))?
        .map_err(founding_error)?;
        let running = self.start_vault().await?;
        drop(guard);
        Ok(running)
    }

    /// Starts the parts of the vault that the data folder holds.
    async fn start_vault(&self) -> Result<Arc<Running>, ControlError> {
        let running = Running::start(self).await?;
        *self.running.write().await = Some(running.clone());
        Ok(running)
    }

    /// Stops them.
    async fn stop_vault(&self) {
        let running = self.running.write().await.take();
        if let Some(running) = running {
            running.stop(self).await;
        }
    }
}

/// Runs a node until `shutdown` resolves or a `stop` request comes.
///
/// # Errors
/// [`ErrorKind::AlreadyRunning`] when another process has the data folder, [`ErrorKind::Permission`],
/// [`ErrorKind::DiskFull`], [`ErrorKind::NewerVersion`] or [`ErrorKind::Damaged`] when it cannot be used;
/// [`ErrorKind::Io`] when the disk failed it later, and only a new process can open it again.
pub async fn run(
    mut options: Options,
    ready: impl FnOnce(Ready),
    shutdown: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let started = std::time::Instant::now();
    prepare_data_dir(&options.data_dir)?;
    let _lock = DataLock::acquire(&options.data_dir)?;
    if erasing::is_begun(&options.data_dir) {
        erasing::finish(&options.data_dir)
            .map_err(|error| ControlError::io("finish erasing what was here", &error))?;
    }
    data_folder::check_whole(&options.data_dir)?;
    let (opened, protected_by, mut notes) = locking::open_at_start(&mut options).await?;
    let node = Arc::new(Node {
        started,
        awake: std::sync::RwLock::new(None),
        locking: locking::Locking::new(protected_by, opened.is_none()),
        running: RwLock::new(None),
        closed: reopen::Closed::default(),
        founding: Mutex::new(()),
        backing_up: Mutex::new(()),
        inviting: Mutex::new(None),
        erase: std::sync::atomic::AtomicBool::new(false),
        stop: watch::channel(false).0,
        options,
    });
    let open = opened.is_some();
    if let Some(identity) = opened {
        notes.extend(node.wake(identity).await?);
    }
    let server = Server::bind(node.data_dir())
        .map_err(|error| ControlError::io("open the control socket", &error))?;
    let created = open && node.open_vault().await?;
    let reopening = tokio::spawn(reopen::keep_open(node.clone()));
    let mut stopping = node.stop.subscribe();
    let control = tokio::spawn(
        server.run(Arc::new(answers::Answers(node.clone())), async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        }),
    );
    ready(node.ready(created, notes).await);
    let mut stopping = node.stop.subscribe();
    tokio::select! {
        () = shutdown => {}
        () = stopped(&mut stopping) => {}
    }
    node.stop.send_replace(true);
    let stop = async {
        let _ = control.await;
        let _ = reopening.await;
        node.stop_vault().await;
        node.fall_asleep().await;
    };
    if tokio::time::timeout(STOP_WITHIN, stop).await.is_err() {
        tracing::warn!("stopping took too long; the rest is left to the next start's checks");
    }
    if node.erase.load(std::sync::atomic::Ordering::Acquire) {
        erasing::finish(node.data_dir())
            .map_err(|error| ControlError::io("erase what is here", &error))?;
    }
    node.closed.gave_up().map_or(Ok(()), Err)
}

impl Node {
    async fn ready(&self, created: bool, notes: Vec<String>) -> Ready {
        let running = self.running.read().await.clone();
        let mut ready = Ready {
            data_dir: self.data_dir().to_path_buf(),
            vault: None,
            created,
            locked: self.awake().is_err(),
            device_name: None,
            devices: 0,
            addresses: self
                .net()
                .map(|net| {
                    net.listen_addresses()
                        .iter()
                        .map(status::show_address)
                        .collect()
                })
                .unwrap_or_default(),
            notes,
        };
        if let Some(running) = running {
            let (vault, devices) = running
                .vault
                .inspect(|core| (core.state().vault, core.state().membership.devices().len()))
                .await
                .map(|(vault, devices)| (Some(vault.to_string()), devices as u64))
                .unwrap_or((None, 0));
            (ready.vault, ready.devices) = (vault, devices);
            ready.device_name = Some(running.vault.device_label());
        }
        ready
    }
}

/// Makes the data folder (0700) if it is not there, and checks that it can be written.
fn prepare_data_dir(dir: &Path) -> Result<(), ControlError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir);
    if dir.exists() && !dir.is_dir() {
        return Err(data_folder::not_a_folder(dir));
    }
    made.map_err(|error| {
        ControlError::io(
            format_args!("make the data folder {}", dir.display()),
            &error,
        )
    })
}

async fn start_network(
    options: &Options,
    identity: &Identity,
) -> Result<(Net, crate::net::Incoming), ControlError> {
    let port = options.port.unwrap_or(crate::net::DEFAULT_PORT);
    let listen = if options.listen.is_empty() {
        NetConfig::default_listen(port)
    } else {
        options
            .listen
            .iter()
            .flat_map(|address| sources::listen_on(*address, port))
            .collect()
    };
    let protocol = |name: &'static str, per_device| Protocol {
        name: StreamProtocol::new(name),
        queue: INCOMING_QUEUE,
        per_device,
    };
    let config = NetConfig {
        door: None,
        key: identity.key.boxed_secret(),
        listen,
        mdns: options.discover,
        protocols: vec![
            protocol(version::REPLICATE, REPLICATE_PER_DEVICE),
            protocol(version::BLOBS, BLOBS_PER_DEVICE),
            protocol(version::BLOBS_2, BLOBS_PER_DEVICE),
            protocol(version::PAIR, PAIR_PER_DEVICE),
            protocol(version::RECOVER_PROTOCOL, PAIR_PER_DEVICE),
        ],
        role: Role::default(),
    };
    Net::start(config).await.map_err(|error| {
        let told = format!("the network cannot be used: {error}");
        if options.listen.is_empty() {
            ControlError::new(ErrorKind::Io, told)
        } else {
            ControlError::usage(told).with_code("cannot-listen")
        }
    })
}

/// What to tell where the wanted port was taken.
fn other_port(options: &Options, net: &Net) -> Option<String> {
    let wanted = options.port.unwrap_or(crate::net::DEFAULT_PORT);
    let ends = [format!(":{wanted}/tcp"), format!(":{wanted}/quic")];
    let addresses: Vec<String> = net
        .listen_addresses()
        .iter()
        .map(status::show_address)
        .collect();
    let has_it = |address: &String| ends.iter().any(|end| address.ends_with(end));
    let first = addresses.first()?;
    (wanted != 0 && !addresses.iter().any(has_it))
        .then(|| format!("port {wanted} is taken; it listens on {first} instead"))
}

/// Resolves when a node or a vault is to stop.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The system's secure randomness, through a generator of the user's own process.
pub(crate) fn random() -> rand::rngs::StdRng {
    rand::rngs::StdRng::from_rng(&mut rand::rng())
}

/// The name under which other devices know this one: what was asked for, else the host's.
fn device_name(asked: Option<String>) -> String {
    asked
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok())
        .map(|name| {
            name.trim()
                .chars()
                .filter(|character| !character.is_control())
                .take(40)
                .collect::<String>()
        })
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "computer".into())
}

/// A failure of the store, for a person.
pub(crate) fn store_error(error: StoreError) -> ControlError {
    let kind = match &error {
        StoreError::DiskFull => ErrorKind::DiskFull,
        StoreError::Permission => ErrorKind::Permission,
        StoreError::InUse => ErrorKind::AlreadyRunning,
        StoreError::Newer { .. } => ErrorKind::NewerVersion,
        StoreError::Damaged(_) => ErrorKind::Damaged,
        StoreError::Database(_) => ErrorKind::Io,
    };
    let told = ControlError::new(kind, error.to_string());
    match error {
        StoreError::Damaged(_) => told.with_code(data_folder::DAMAGED),
        _ => told,
    }
}

fn founding_error(error: FoundingError) -> ControlError {
    match error {
        FoundingError::Store(error) => store_error(error),
        FoundingError::Grants(error) => ControlError::new(ErrorKind::Damaged, error.to_string()),
        FoundingError::Exists => {
            ControlError::conflict("this data folder belongs to a vault already")
        }
    }
}
