//! A host that lies: the program's own, on a store that does not do what it says.
//!
//! It runs in this process, on a port of its own, with the data folder and the commands of a host. What it tells, signs and
//! refuses is what the program tells of such a store.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use coffer_node::relay::store::embedded::EmbeddedStore;
use coffer_node::relay::store::*;
use coffer_node::relay::{HostOptions, RelayConfig, run_on};
use coffer_protocol::identity::{DeviceId, Hash, VaultId, WriterId};
use coffer_protocol::log::Clock;
use futures::stream::BoxStream;
use tokio::sync::oneshot;

use crate::device::SOON;
use crate::host::Host;

/// What it does otherwise than an honest one.
#[derive(Default)]
pub struct Lies {
    /// Gives no entries, though it says that it has them.
    pub withholds: AtomicBool,
    /// Cannot show any contents.
    pub shows_nothing: AtomicBool,
}

/// A host that lies.
pub struct Liar {
    /// Its folder and commands.
    pub host: Host,
    /// What it does.
    pub lies: Arc<Lies>,
    running: Option<(oneshot::Sender<()>, std::thread::JoinHandle<()>)>,
}

impl Liar {
    /// One that has begun to serve, and is honest so far.
    pub fn started() -> Liar {
        let host = Host::new(Vec::new());
        host.prepare();
        let config = RelayConfig {
            name: "attic".into(),
            listen: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            port: host.port(),
            http: None,
            ..RelayConfig::default()
        };
        let options = HostOptions {
            data_dir: host.data.clone(),
            config,
        };
        let lies = Arc::<Lies>::default();
        let (is_ready, ready) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let folder = host.data.join("store");
        let lying = lies.clone();
        let thread = std::thread::spawn(move || {
            let store = async move {
                let honest = EmbeddedStore::open(&folder).expect("a store");
                let store = LyingStore {
                    honest,
                    lies: lying,
                };
                Ok(Arc::new(Bounded::new(store)) as Arc<dyn RelayStore>)
            };
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let ran = runtime.block_on(run_on(
                options,
                store,
                |_| is_ready.send(()).expect("the test waits"),
                async {
                    let _ = stopped.await;
                },
            ));
            ran.expect("the host ends in order");
        });
        ready.recv_timeout(SOON).expect("the host gets ready");
        Liar {
            host,
            lies,
            running: Some((stop, thread)),
        }
    }

    /// Lies in every way that there is, or in none.
    pub fn lies(&self, does: bool) {
        self.lies.withholds.store(does, Ordering::Relaxed);
        self.lies.shows_nothing.store(does, Ordering::Relaxed);
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            let _ = stop.send(());
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

struct LyingStore {
    honest: EmbeddedStore,
    lies: Arc<Lies>,
}

/// What the honest store does is done.
macro_rules! honest {
    ($(fn $name:ident($($argument:ident: $kind:ty),*) -> $gives:ty;)*) => {
        #[async_trait]
        impl RelayStore for LyingStore {
            $(async fn $name(&self, $($argument: $kind),*) -> $gives {
                self.honest.$name($($argument),*).await
            })*

            async fn entries(
                &self,
                vault: VaultId,
                writer: WriterId,
                from: u64,
                to: u64,
                max_bytes: usize,
            ) -> Result<Vec<StoredEntry>, StoreError> {
                match self.lies.withholds.load(Ordering::Relaxed) {
                    true => Ok(Vec::new()),
                    false => self.honest.entries(vault, writer, from, to, max_bytes).await,
                }
            }

            async fn verify(&self, vault: VaultId, ids: Vec<Hash>) -> Result<Vec<Hash>, StoreError> {
                match self.lies.shows_nothing.load(Ordering::Relaxed) {
                    true => Err(StoreError::Failed("so it says".into())),
                    false => self.honest.verify(vault, ids).await,
                }
            }

            fn get(&self, vault: VaultId, ids: Vec<Hash>) -> BoxStream<'static, Result<Blob, StoreError>> {
                self.honest.get(vault, ids)
            }

            fn changes(&self) -> BoxStream<'static, Change> {
                self.honest.changes()
            }

            async fn close(&self) {
                self.honest.close().await;
            }
        }
    };
}

honest! {
    fn add_invitation(invitation: Invitation) -> Result<(), StoreError>;
    fn invitation(id: Hash) -> Result<Option<Invitation>, StoreError>;
    fn invitations(after: Option<Hash>, max: usize) -> Result<Vec<Invitation>, StoreError>;
    fn remove_invitation(id: Hash) -> Result<bool, StoreError>;
    fn consume_invitation(id: Hash, vault: VaultId, epoch: [u8; 16], now_ms: u64) -> Result<Consumed, StoreError>;
    fn vault(vault: VaultId) -> Result<Option<VaultRecord>, StoreError>;
    fn vaults(after: Option<VaultId>, max: usize) -> Result<Vec<VaultRecord>, StoreError>;
    fn set_quota(vault: VaultId, quota: u64) -> Result<(), StoreError>;
    fn set_members(vault: VaultId, members: Vec<DeviceId>) -> Result<(), StoreError>;
    fn vaults_of(device: DeviceId) -> Result<Vec<VaultId>, StoreError>;
    fn note_seen(vault: VaultId, device: DeviceId, at_ms: u64) -> Result<(), StoreError>;
    fn seen(vault: VaultId) -> Result<Vec<(DeviceId, u64)>, StoreError>;
    fn erase(vault: VaultId, receipt: Bytes, now_ms: u64) -> Result<bool, StoreError>;
    fn receipt(vault: VaultId) -> Result<Option<Bytes>, StoreError>;
    fn forget(before_ms: u64) -> Result<u64, StoreError>;
    fn put_grants(vault: VaultId, grants: Vec<(Hash, Bytes)>) -> Result<usize, StoreError>;
    fn grants(vault: VaultId) -> Result<Vec<Bytes>, StoreError>;
    fn append(vault: VaultId, entries: Vec<NewEntry>) -> Result<Vec<Appended>, StoreError>;
    fn put_range(vault: VaultId, range: NewRange) -> Result<Appended, StoreError>;
    fn drop_entries(vault: VaultId, writer: WriterId, to: u64) -> Result<u64, StoreError>;
    fn put_said(vault: VaultId, writer: WriterId, to: u64, device: DeviceId, said: Bytes) -> Result<(), StoreError>;
    fn ranges(vault: VaultId) -> Result<Vec<KeptRange>, StoreError>;
    fn range_of(vault: VaultId, writer: WriterId, to: u64) -> Result<Option<Bytes>, StoreError>;
    fn clock(vault: VaultId) -> Result<Clock, StoreError>;
    fn put_held(vault: VaultId, statement: HeldStatement) -> Result<bool, StoreError>;
    fn held(vault: VaultId) -> Result<Vec<HeldStatement>, StoreError>;
    fn snapshot(vault: VaultId) -> Result<Option<Snapshot>, StoreError>;
    fn put_host_statement(vault: VaultId, counter: u64, statement: Bytes) -> Result<bool, StoreError>;
    fn have(vault: VaultId, ids: Vec<Hash>, claim: bool) -> Result<Vec<bool>, StoreError>;
    fn put(vault: VaultId, blobs: Vec<(Hash, Bytes)>) -> Result<Vec<Put>, StoreError>;
    fn range(vault: VaultId, id: Hash, offset: u64, len: u32) -> Result<Option<Bytes>, StoreError>;
    fn list(vault: VaultId, after: Option<Hash>, max: usize) -> Result<Vec<Hash>, StoreError>;
    fn release(vault: VaultId, device: DeviceId, ids: Vec<Hash>, now_ms: u64) -> Result<(), StoreError>;
    fn released(vault: VaultId, after: Option<Hash>, max: usize) -> Result<Vec<Released>, StoreError>;
    fn free(vault: VaultId, blobs: Vec<Released>) -> Result<Freed, StoreError>;
    fn totals() -> Result<Totals, StoreError>;
    fn tidy() -> Result<Tidied, StoreError>;
    fn ready() -> Result<(), StoreError>;
}
