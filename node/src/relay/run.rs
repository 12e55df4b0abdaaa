//! What of a host starts and stops, in which order.
//!
//! Start: lock and keys, store, network, control socket, monitoring, then those who serve. Stop is told by the caller
//! (SIGTERM): first nothing new begins and `/readyz` says no, what is under way ends, then what was not yet stated is
//! stated, the store closes, and the network last, so that answers reach who waits for them.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::config::RelayConfig;
use super::config::provider::Overrides;
use super::control::{HostRequest, Server};
use super::door::HostDoor;
use super::host::{Host, Parts};
use super::store::embedded::EmbeddedStore;
use super::store::{Bounded, RelayStore};
use super::{
    asked, clients, folder, following, freeing, http, places, resting, scrubbing, serving, stating,
};
use crate::control::{ControlError, DataLock, ErrorKind};
use crate::net::{HostOptions as NetOptions, Incoming, Multiaddr, Net, NetConfig, Role};
use crate::service::random;
use crate::service::sources::listen_on;
use crate::service::status::show_address;
use crate::vault::identity::Identity;

/// What a host is started with.
pub struct HostOptions {
    /// The data folder, which `folder::init` made.
    pub data_dir: PathBuf,
    /// What its person set.
    pub config: RelayConfig,
}

/// Said once a host serves.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct HostReady {
    /// The data folder.
    pub data_dir: PathBuf,
    /// The host's id.
    pub host: String,
    /// Addresses listened on.
    pub addresses: Vec<String>,
    /// Where metrics are answered, if anywhere.
    pub http: Option<String>,
}

/// Runs a host until `shutdown` resolves and everything has ended.
pub async fn run(
    options: HostOptions,
    ready: impl FnOnce(HostReady) + Send,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ControlError> {
    let (folder, provider) = (options.data_dir.clone(), options.config.provider.clone());
    let store = async move { open_store(&folder, &provider).await };
    run_on(options, store, ready, shutdown).await
}

/// The same on what another store keeps, which is opened once the data folder is this process's.
pub async fn run_on(
    options: HostOptions,
    store: impl Future<Output = Result<Arc<dyn RelayStore>, ControlError>> + Send,
    ready: impl FnOnce(HostReady) + Send,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ControlError> {
    let HostOptions { data_dir, config } = options;
    let identity = folder::identity(&data_dir)?;
    let _lock = DataLock::acquire(&data_dir)?;
    let listener = match config.http {
        Some(address) => Some(http::bind(address).await.map_err(|error| {
            ControlError::io(format_args!("answer monitoring on {address}"), &error)
        })?),
        None => None,
    };
    let address = listener
        .as_ref()
        .and_then(|listener| listener.local_addr().ok());
    let server = Server::bind(&data_dir)
        .map_err(|error| ControlError::io("open the control socket", &error))?;
    let store = store.await?;
    let mut serving = Serving::start(config, identity, store).await?;
    let host = serving.host.clone();
    if let Some(listener) = listener {
        let stopping = serving.stop.subscribe();
        serving
            .tasks
            .spawn(http::serve(listener, host.clone(), stopping));
    }
    let commands = commands(server, host.clone(), &data_dir, serving.stop.subscribe());
    serving.tasks.spawn(commands);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "the host serves");
    let listening = host.net.listen_addresses();
    ready(HostReady {
        data_dir,
        host: host.id.to_string(),
        addresses: listening.iter().map(show_address).collect(),
        http: address.map(|address| address.to_string()),
    });
    shutdown.await;
    tracing::info!("the host ends: nothing new begins");
    serving.stop().await;
    tracing::info!("the host has ended");
    Ok(())
}

/// A host that serves.
pub(super) struct Serving {
    /// What its parts share.
    pub host: Arc<Host>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    streams: JoinHandle<()>,
}

impl Serving {
    /// Starts the network and everything that serves.
    pub async fn start(
        config: RelayConfig,
        identity: Identity,
        store: Arc<dyn RelayStore>,
    ) -> Result<Serving, ControlError> {
        let (net, incoming) = start_network(&config, &identity).await?;
        let mut mark_key = [0; 32];
        rand::Rng::fill_bytes(&mut random(), &mut mark_key);
        let (host, to_state, to_look_at) = Host::new(Parts {
            sealing: identity.sealing.public(),
            key: identity.key,
            config,
            store,
            net,
            mark_key,
        });
        host.metrics.blobs_damaged.inc_by(host.store.lost_before());
        let (stop, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(stating::run(host.clone(), to_state, stopping.clone()));
        tasks.spawn(freeing::run(host.clone(), stopping.clone()));
        tasks.spawn(following::run(host.clone(), stopping.clone()));
        tasks.spawn(scrubbing::run(host.clone(), stopping.clone()));
        tasks.spawn(clients::run(host.clone(), to_look_at, stopping.clone()));
        tasks.spawn(resting::run(host.clone(), stopping));
        Ok(Serving {
            streams: tokio::spawn(serving::run(host.clone(), incoming)),
            host,
            stop,
            tasks,
        })
    }

    /// Ends in order; see the module.
    pub async fn stop(mut self) {
        self.host.drain();
        if let Err(error) = self.streams.await {
            tracing::error!(%error, "what serves streams failed");
        }
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        self.host.store.close().await;
        self.host.net.shutdown().await;
    }
}

fn commands(
    server: Server,
    host: Arc<Host>,
    data_dir: &Path,
    stop: watch::Receiver<bool>,
) -> impl Future<Output = ()> + use<> {
    let data_dir: Arc<Path> = data_dir.into();
    let answer = move |request: HostRequest| -> futures::future::BoxFuture<'static, _> {
        Box::pin(asked::answer(host.clone(), data_dir.clone(), request))
    };
    server.run(Arc::new(answer), stop)
}

async fn start_network(
    config: &RelayConfig,
    identity: &Identity,
) -> Result<(Net, Incoming), ControlError> {
    let listen = if config.listen.is_empty() {
        NetConfig::default_listen(config.port)
    } else {
        let addresses = config.listen.iter();
        addresses
            .flat_map(|address| listen_on(*address, config.port))
            .collect()
    };
    let started = Net::start(NetConfig {
        key: identity.key.boxed_secret(),
        listen,
        mdns: false,
        protocols: serving::protocols(),
        role: Role::Host(NetOptions {
            external: external(config),
            reservations: if config.circuits == 0 {
                0
            } else {
                config.connections
            },
            circuits: config.circuits,
            circuits_per_device: config.circuits_per_device,
            circuit_duration: config.circuit_duration,
            circuit_bytes: config.circuit_bytes,
            strangers: config.strangers,
            ..NetOptions::default()
        }),
        door: Some(Arc::new(HostDoor::new(config))),
    })
    .await;
    let (net, incoming) = started.map_err(|error| {
        ControlError::new(
            ErrorKind::Io,
            format!("the network cannot be used: {error}"),
        )
    })?;
    // Devices come to the port that invitations name: another one is no help.
    let wanted = [
        format!("/tcp/{}", config.port),
        format!("/udp/{}/", config.port),
    ];
    let is_wanted = |text: String| wanted.iter().any(|end| text.contains(end.as_str()));
    let has_it = net
        .listen_addresses()
        .iter()
        .any(|address| is_wanted(address.to_string()));
    if config.port != 0 && !has_it {
        net.shutdown().await;
        return Err(ControlError::conflict(format!(
            "port {} is taken by another program",
            config.port
        ))
        .with_code("host-port-taken"));
    }
    Ok((net, incoming))
}

/// Addresses beside those of the machine's own interfaces: those that were announced as addresses, not as names.
fn external(config: &RelayConfig) -> Vec<Multiaddr> {
    let texts = config.announce.iter();
    texts
        .flat_map(|text| places::read(text, config.port))
        .filter(|address| places::ip_of(address).is_some())
        .collect()
}

/// Name of the store's folder in the data folder.
const STORE: &str = "store";

/// Name of the file in the data folder that says where a provider's records and blobs are, if they are not here.
const PROVIDER: &str = "provider.toml";

#[cfg(feature = "provider")]
async fn open_provider(
    settings: &Path,
    overrides: &Overrides,
) -> Result<Arc<dyn RelayStore>, ControlError> {
    use super::store::StoreError;
    use super::store::provider::{ProviderConfig, ProviderStore};
    let text = match std::fs::read_to_string(settings) {
        // The environment may say all of it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(StoreError::from),
    };
    let opened = match text.and_then(|text| ProviderConfig::parse(&text, overrides)) {
        Ok(config) => ProviderStore::open(config).await,
        Err(error) => Err(error),
    };
    let store = opened.map_err(|error| asked::store_error(&error))?;
    Ok(Arc::new(Bounded::new(store)))
}

#[cfg(not(feature = "provider"))]
async fn open_provider(
    settings: &Path,
    overrides: &Overrides,
) -> Result<Arc<dyn RelayStore>, ControlError> {
    let named = match overrides.is_empty() {
        true => format!("{} names", settings.display()),
        false => "the environment names".to_owned(),
    };
    Err(ControlError::conflict(format!(
        "{named} a database, and this coffer was built without the feature provider"
    )))
}

/// Opens the store in the data folder, or the provider's.
async fn open_store(
    data_dir: &Path,
    overrides: &Overrides,
) -> Result<Arc<dyn RelayStore>, ControlError> {
    let provider = data_dir.join(PROVIDER);
    if provider.exists() || !overrides.is_empty() {
        return open_provider(&provider, overrides).await;
    }
    let folder = data_dir.join(STORE);
    let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(&folder)).await;
    let store = opened
        .map_err(|error| ControlError::internal(error.to_string()))?
        .map_err(|error| asked::store_error(&error))?;
    Ok(Arc::new(Bounded::new(store)))
}
