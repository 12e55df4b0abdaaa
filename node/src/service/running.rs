//! The parts of a node that exist once there is a vault.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coffer_protocol::identity::{DeviceId, VaultId};
use coffer_protocol::keys::Keyring;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::stopped;
use super::{
    Node, check, displaced, founding, keeper, limits, memory, random, reopen, sessions, sources,
    store_error,
};
use crate::blobs::{Blobs, Fetch};
use crate::control::ControlError;
use crate::folder::Folders;
use crate::index::{Index, IndexThread};
use crate::net::Multiaddr;
use crate::store::{self, StoreError};
use crate::vault::founding::DATABASE;
use crate::vault::identity::binding;
use crate::vault::{CommitRequest, Continuity, VaultHandle, VaultThread, wall_ms};

/// How often names of hosts are asked for again: an address at home changes once a day.
const RESOLVE_EVERY: Duration = Duration::from_secs(300);
/// The same while one is not known: the machine may just be coming onto a network.
const RESOLVE_AGAIN: Duration = Duration::from_secs(30);

/// What runs while a vault is open.
pub struct Running {
    /// The vault.
    pub vault: VaultHandle,
    /// The bytes of files.
    pub blobs: Blobs,
    /// The derived index.
    pub index: Index,
    /// The synced folders.
    pub folders: super::folders::Synced,
    /// Where the folders' files are, for the blobs.
    pub paths: Folders,
    /// How bytes are fetched.
    pub fetch: Fetch,
    /// What is being fetched into the store.
    pub keeper: keeper::Keeper,
    /// What transfers are held to.
    pub limiting: limits::Limiting,
    /// The check that goes on by itself.
    pub checking: check::Checking,
    /// What frees what nothing names.
    pub collector: super::collecting::Collector,
    /// Changes the key from time to time.
    pub relocking: super::relocking::Schedule,
    /// The relay hosts, and how far each is.
    pub hosts: super::hosts::Hosts,
    /// What is kept here on demand.
    pub keeping: super::storage::Keeping,
    /// What all files come to in numbers.
    pub figures: super::figures::Figures,
    /// Whether the data folder was found in another place than before.
    pub moved: bool,
    stop: watch::Sender<bool>,
    threads: std::sync::Mutex<Option<(VaultThread, IndexThread)>>,
    tasks: std::sync::Mutex<Vec<JoinHandle<()>>>,
}

/// Bytes that stay free on the data folder's disk beside what a transaction may take, so that one which has begun can end.
const SPARE_BYTES: u64 = 24 << 20;

/// Whether the disk of the data folder has room for a transaction of so many bytes, as far as is known.
fn has_room(data_dir: &Path, may_take: u64) -> bool {
    let free = super::status::free_bytes(data_dir);
    free.is_none_or(|free| free >= SPARE_BYTES + may_take)
}

impl Running {
    /// Opens the vault in the node's data folder and starts everything around it.
    pub(super) async fn start(node: &Node) -> Result<Arc<Running>, ControlError> {
        let dir = node.data_dir().to_path_buf();
        let awake = node.awake()?;
        let (identity, net) = (awake.identity.clone(), awake.net.clone());
        let place = binding(&dir);
        let (path, continuity) = (dir.join(DATABASE), Continuity::of(&dir));
        let opened = tokio::task::spawn_blocking(move || -> Result<_, StoreError> {
            let database = store::open_existing(&path)?;
            let unclean = founding::mark_running(&database, true)?;
            let moved = founding::was_moved(&database, &place)?;
            let mut core = founding::open(database, identity, &place, Box::new(random()))?;
            core.started(&continuity, wall_ms())?;
            Ok((core, unclean, moved))
        });
        let (mut core, unclean, moved) = opened
            .await
            .map_err(|error| ControlError::internal(error.to_string()))?
            .map_err(store_error)?;
        let disk = dir.clone();
        core.write_only_while(Box::new(move |may_take| has_room(&disk, may_take)));
        let (keyring, id) = (core.state().keyring.clone(), core.state().vault);
        let (vault, vault_thread) =
            VaultHandle::start(core).map_err(|error| ControlError::io("start a thread", &error))?;
        let contents = Contents::open(&dir, id, &vault, keyring, unclean).await;
        let Contents {
            blobs,
            index,
            index_thread,
        } = match contents {
            Ok(contents) => contents,
            Err(error) => {
                // The thread would hold the database open.
                vault.stop().await;
                vault_thread.join().await;
                return Err(error);
            }
        };
        let (stop, stopping) = watch::channel(false);
        let paths = Folders::default();
        blobs.set_folders(Arc::new(paths.clone()));
        let limiting = limits::Limiting::load(vault.database(), &blobs).map_err(store_error)?;
        let checking = check::Checking::load(vault.database()).map_err(store_error)?;
        let connected = sources::Connected::new(vault.clone(), net.clone(), &blobs);
        let fetch = Fetch::from(connected);
        let keeper = keeper::Keeper::default();
        let running = Arc::new(Running {
            folders: super::folders::Synced::default(),
            vault: vault.clone(),
            blobs: blobs.clone(),
            index: index.clone(),
            paths,
            fetch,
            keeper,
            limiting,
            checking,
            collector: super::collecting::Collector::default(),
            relocking: super::relocking::Schedule::default(),
            hosts: super::hosts::Hosts::default(),
            keeping: super::storage::Keeping::default(),
            figures: super::figures::Figures::default(),
            moved,
            stop,
            threads: std::sync::Mutex::new(Some((vault_thread, index_thread))),
            tasks: std::sync::Mutex::default(),
        });
        running.spawn(follow_changes(vault.clone(), index, stopping.clone()));
        running.spawn(follow_members(
            running.clone(),
            net.clone(),
            stopping.clone(),
        ));
        if let Some(net) = &net {
            if let Some(streams) = awake.replicate_streams.clone() {
                running.spawn(sessions::run(
                    vault.clone(),
                    net.clone(),
                    streams,
                    stopping.clone(),
                ));
            }
            for (version, streams) in awake.blob_streams.clone() {
                running.spawn(sources::serve(
                    vault.clone(),
                    blobs.clone(),
                    version,
                    streams,
                    stopping.clone(),
                ));
            }
            running.spawn(super::pauses::run(
                running.clone(),
                net.clone(),
                stopping.clone(),
            ));
        }
        if let Some(streams) = awake.recover_streams.clone() {
            running.spawn(super::recovering::serve(
                running.clone(),
                streams,
                stopping.clone(),
            ));
        }
        if let Some(net) = &net {
            running.spawn(super::hosts::run(
                running.clone(),
                net.clone(),
                stopping.clone(),
            ));
        }
        running.spawn(memory::give_back(vault.activity(), stopping.clone()));
        running.spawn(prune_feed(running.clone(), stopping.clone()));
        running.spawn(limits::run(running.clone(), stopping.clone()));
        running.spawn(check::run(running.clone(), stopping.clone()));
        running.spawn(super::collecting::run(running.clone(), stopping.clone()));
        running.spawn(super::relocking::run(running.clone(), stopping.clone()));
        running.spawn(keeper::run(running.clone(), stopping.clone()));
        running.spawn(super::sparing::run(running.clone(), stopping.clone()));
        running.spawn(reopen::watch(
            vault,
            node.closed.clone(),
            running.stopping(),
        ));
        if let Err(error) = super::folders::start_all(&running).await {
            running.stop(node).await;
            return Err(error);
        }
        // Only now: what lies in synced folders must be known before anything is taken for not needed.
        running.spawn(super::storage::run(running.clone(), stopping));
        Ok(running)
    }

    /// A task of this vault, awaited when it stops.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self
            .tasks
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        tasks.retain(|task| !task.is_finished());
        tasks.push(tokio::spawn(task));
    }

    /// Stops everything, in the reverse order, and closes the vault cleanly.
    pub(super) async fn stop(&self, _node: &Node) {
        super::folders::stop_all(self).await;
        self.stop.send_replace(true);
        let tasks = std::mem::take(
            &mut *self
                .tasks
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        for task in tasks {
            let _ = task.await;
        }
        self.index.stop();
        self.vault.stop().await;
        let threads = self
            .threads
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some((vault, index)) = threads {
            vault.join().await;
            index.join().await;
        }
        if let Err(error) = self.blobs.shutdown().await {
            tracing::warn!(%error, "the contents of files were not closed cleanly");
        }
        let database = self.vault.database().clone();
        let marked =
            tokio::task::spawn_blocking(move || founding::mark_running(&database, false)).await;
        if let Ok(Err(error)) = marked {
            tracing::warn!(%error, "the clean end could not be noted; the next start checks more than it must");
        }
    }

    /// A receiver that turns true when this vault is to stop.
    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }
}

/// What stands beside the database in a data folder.
struct Contents {
    blobs: Blobs,
    index: Index,
    index_thread: IndexThread,
}

impl Contents {
    async fn open(
        dir: &Path,
        id: VaultId,
        vault: &VaultHandle,
        keyring: Arc<Keyring>,
        unclean: bool,
    ) -> Result<Contents, ControlError> {
        let database = vault.database().clone();
        closed_to_others(&dir.join("blobs"))
            .map_err(|error| ControlError::io("close the contents' folder to others", &error))?;
        let blobs = Blobs::open(&dir.join("blobs"), id, database.clone(), keyring)
            .await
            .map_err(blobs_error)?;
        if unclean {
            tracing::info!("the last run did not end cleanly: checking what was written then");
            let damaged = blobs
                .verify_after_unclean_stop()
                .await
                .map_err(blobs_error)?;
            if !damaged.is_empty() {
                tracing::warn!(
                    count = damaged.len(),
                    "damaged contents were found and will be fetched again"
                );
                let request = CommitRequest {
                    displaced: damaged,
                    ..Default::default()
                };
                displaced::forget(vault, &blobs, request).await?;
            }
        }
        match Index::open(&dir.join("index.sqlite"), database) {
            Ok((index, index_thread)) => Ok(Contents {
                blobs,
                index,
                index_thread,
            }),
            Err(error) => {
                let _ = blobs.shutdown().await;
                Err(if has_room(dir, 0) {
                    ControlError::internal(error.to_string())
                } else {
                    store_error(StoreError::DiskFull)
                })
            }
        }
    }
}

/// Makes a folder that only its owner may look into. What the store of contents puts there is readable for all by itself.
fn closed_to_others(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let made = std::fs::DirBuilder::new().mode(0o700).create(dir);
    match made {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
        }
        made => made,
    }
}

/// Once after a start: what the index durably has need not stay in its feed.
async fn prune_feed(running: Arc<Running>, mut stop: watch::Receiver<bool>) {
    let prune = async {
        let now = running
            .vault
            .inspect(|core| core.state().transaction)
            .await
            .ok()?;
        running.index.wait_for(now).await.ok()?;
        let index = running.index.clone();
        let seen = tokio::task::spawn_blocking(move || index.make_durable())
            .await
            .ok()?
            .ok()?;
        let request = CommitRequest {
            prune_feed: Some(seen),
            ..Default::default()
        };
        running.vault.commit(request).await.ok()
    };
    tokio::select! {
        () = stopped(&mut stop) => {}
        _ = prune => {}
    }
}

/// Wakes the index when documents change.
async fn follow_changes(vault: VaultHandle, index: Index, mut stop: watch::Receiver<bool>) {
    let mut changes = vault.subscribe();
    index.wake();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            change = changes.recv() => match change {
                Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => index.wake(),
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            },
        }
    }
}

/// Keeps the network's set of wanted devices, and the blobs' keys, in step with who belongs to the vault.
async fn follow_members(
    running: Arc<Running>,
    net: Option<crate::net::Net>,
    mut stop: watch::Receiver<bool>,
) {
    let mut members = running.vault.members();
    let mut resolve_after = None;
    loop {
        members.borrow_and_update();
        let found = running.vault.inspect(|core| {
            let state = core.state();
            let devices = state.membership.devices().iter();
            (
                devices
                    .filter(|(_, device)| device.role.holds_keys())
                    .map(|(device, _)| *device)
                    .collect::<Vec<DeviceId>>(),
                state.keyring.clone(),
            )
        });
        let Ok((devices, keyring)) = found.await else {
            return;
        };
        running.blobs.set_keyring(keyring);
        if let Some(net) = &net {
            let known: BTreeMap<DeviceId, Vec<String>> =
                founding::addresses(running.vault.database())
                    .unwrap_or_default()
                    .into_iter()
                    .collect();
            let parsed = |texts: &[String]| -> Vec<Multiaddr> {
                let texts = texts.iter();
                texts.filter_map(|text| text.parse().ok()).collect()
            };
            let reached = |device: &DeviceId| {
                known
                    .get(device)
                    .map(|texts| parsed(texts))
                    .unwrap_or_default()
            };
            let wanted = devices
                .into_iter()
                .filter(|device| *device != running.vault.device())
                .map(|device| (device.0, reached(&device)));
            net.set_wanted(wanted.collect()).await;
            let hosts = running.vault.hosts().await.unwrap_or_default();
            let hosts = hosts.into_iter().filter(|(_, setting)| setting.in_use);
            let hosts = hosts.map(|(host, setting)| {
                // Where its person says that it is comes first: what was learnt may be of an earlier place.
                let mut addresses = parsed(&setting.addresses);
                let more = reached(&host);
                addresses.extend(
                    more.into_iter()
                        .filter(|one| !setting.addresses.contains(&one.to_string())),
                );
                (host.0, addresses)
            });
            let hosts: BTreeMap<_, _> = hosts.collect();
            tokio::select! {
                () = stopped(&mut stop) => return,
                later = follow_hosts(net, hosts) => resolve_after = later,
            }
        }
        tokio::select! {
            () = stopped(&mut stop) => return,
            changed = members.changed() => if changed.is_err() { return },
            () = later(resolve_after) => {}
        }
    }
}

/// Keeps the network's set of hosts in use. Says after which time it should be done again: where names stand for hosts,
/// others may be behind them by then.
async fn follow_hosts(
    net: &crate::net::Net,
    hosts: BTreeMap<crate::net::Device, Vec<Multiaddr>>,
) -> Option<Duration> {
    let named = hosts.values().flatten().any(crate::net::has_name);
    let (mut relays, mut all_known) = (BTreeMap::new(), true);
    let resolved = hosts
        .into_iter()
        .map(|(host, addresses)| async move { (host, crate::net::resolve(&addresses).await) });
    for (host, resolved) in futures::future::join_all(resolved).await {
        for (_, why) in &resolved.unknown {
            all_known = false;
            tracing::debug!(host = %DeviceId(host), why, "the name of a host is not known now");
        }
        relays.insert(host, resolved.addresses);
    }
    net.set_relays(relays).await;
    match (named, all_known) {
        (false, _) => None,
        (true, true) => Some(RESOLVE_EVERY),
        (true, false) => Some(RESOLVE_AGAIN),
    }
}

/// Resolves after this time; never where there is none.
async fn later(after: Option<Duration>) {
    match after {
        Some(after) => tokio::time::sleep(after).await,
        None => std::future::pending().await,
    }
}

pub(super) fn blobs_error(error: crate::blobs::BlobsError) -> ControlError {
    use crate::blobs::BlobsError;
    use crate::control::ErrorKind;
    match error {
        BlobsError::Damaged => {
            let message = format!("the data folder is damaged: {error}");
            ControlError::new(ErrorKind::Damaged, message).with_code(super::data_folder::DAMAGED)
        }
        BlobsError::DiskFull => ControlError::new(ErrorKind::DiskFull, error.to_string()),
        _ => ControlError::new(
            ErrorKind::Io,
            format!("the contents of files cannot be read: {error}"),
        ),
    }
}

/// A refused or failed commit, for a person.
pub(super) fn commit_error(error: crate::vault::CommitError) -> ControlError {
    use crate::control::ErrorKind;
    use crate::vault::CommitError;
    let kind = match &error {
        CommitError::NotFound(_) => ErrorKind::NotFound,
        CommitError::Invalid(_) | CommitError::TooLarge => ErrorKind::Usage,
        CommitError::Exists(_)
        | CommitError::Purged(_)
        | CommitError::Changed(_)
        | CommitError::Meanwhile => ErrorKind::Conflict,
        CommitError::PutOut | CommitError::ReadOnly | CommitError::NoKey => ErrorKind::Conflict,
        CommitError::DiskFull => ErrorKind::DiskFull,
        CommitError::Storage(_) => ErrorKind::Io,
        CommitError::Stopping => ErrorKind::Cancelled,
    };
    let told = ControlError::new(kind, error.to_string());
    match error {
        CommitError::TooLarge => told.with_code("too-large"),
        CommitError::Purged(_) => told.with_code("purged"),
        _ => told,
    }
}
