//! The store of a hosting provider: PostgreSQL for records, S3-compatible object storage for blobs.
//!
//! ```text
//! config.rs     `provider.toml`
//! database.rs   connections, layout, errors    objects.rs     packs as objects
//! schema.sql    every table                    listening.rs   what other processes changed
//! vaults.rs     invitations, vaults            entries.rs     grants, logs, statements
//! blobs.rs      blobs and their releases       tidy.rs        packs, erasures
//! verify.rs     bytes that the storage has damaged
//! ```
//!
//! Any number of processes share one database and one bucket. Every change of a vault locks the vault's row first, so
//! that processes take turns for one vault and never for two. Objects are written before the rows that point to them, under
//! a name that a row was given before that: what a crash leaves is found and removed after [`LINGER`].
//!
//! Connections to PostgreSQL are encrypted as the connection string says (`tls.rs`).

mod blobs;
mod config;
mod database;
mod entries;
mod listening;
mod objects;
mod ranges;
#[cfg(all(test, feature = "provider-tests"))]
mod tests;
mod tidy;
mod tls;
mod vaults;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use coffer_protocol::identity::{DeviceId, Hash, VaultId, WriterId};
use coffer_protocol::log::Clock;
use deadpool_postgres::Pool;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::{ObjectStore, RetryConfig};
use tokio::sync::{broadcast, watch};

use super::{
    Appended, Blob, Change, Consumed, Freed, HeldStatement, Invitation, KeptRange, NewEntry,
    NewRange, Put, RelayStore, Released, Snapshot, StoreError, StoredEntry, Tidied, Totals,
    VaultRecord, What,
};
pub use config::ProviderConfig;
use database::{connection, found, moment};
use listening::{Listening, notify};
use objects::Objects;

/// How long an object that nothing names stays: longer than any write of one takes, and than anybody reads from a place
/// that was looked up before.
pub const LINGER: Duration = Duration::from_secs(3600);
/// How long the object storage is asked again before an error is given.
const RETRY: Duration = Duration::from_secs(30);

/// A provider's store.
pub struct ProviderStore {
    inner: Arc<Inner>,
    listening: Listening,
    closed: watch::Sender<bool>,
}

/// What the parts of this module share.
struct Inner {
    pool: Pool,
    objects: Objects,
    /// Names this process in what it tells others.
    instance: String,
    linger: Duration,
}

impl ProviderStore {
    /// Connects, and brings the database's layout up to date.
    ///
    /// # Errors
    /// What database or object storage say; [`StoreError::Newer`] if a newer program was here.
    pub async fn open(config: ProviderConfig) -> Result<Self, StoreError> {
        let failed = |error: object_store::Error| StoreError::Failed(error.to_string());
        let storage = AmazonS3Builder::new()
            .with_endpoint(&config.endpoint)
            .with_allow_http(config.endpoint.starts_with("http://"))
            .with_region(&config.region)
            .with_bucket_name(&config.bucket)
            .with_access_key_id(&config.access_key)
            .with_secret_access_key(&config.secret_key)
            .with_retry(RetryConfig {
                retry_timeout: RETRY,
                ..RetryConfig::default()
            })
            .build()
            .map_err(failed)?;
        Self::open_with(&config, Arc::new(storage)).await
    }

    async fn open_with(
        config: &ProviderConfig,
        storage: Arc<dyn ObjectStore>,
    ) -> Result<Self, StoreError> {
        let postgres: tokio_postgres::Config = config
            .postgres
            .parse()
            .map_err(|error| StoreError::Failed(format!("how PostgreSQL is reached: {error}")))?;
        let tls = tls::connector(config, postgres.get_ssl_mode())?;
        let pool = database::pool(postgres.clone(), tls.clone(), config.connections)?;
        database::prepare(&pool).await?;
        let objects = Objects {
            storage,
            prefix: config.prefix.clone(),
        };
        objects.ready().await?;
        let closed = watch::channel(false).0;
        let instance = hex::encode(rand::random::<[u8; 8]>());
        let listening =
            Listening::start(postgres, tls, instance.clone(), closed.subscribe()).await?;
        Ok(ProviderStore {
            inner: Arc::new(Inner {
                pool,
                objects,
                instance,
                linger: config.linger,
            }),
            listening,
            closed,
        })
    }
}

/// Reads at one moment.
macro_rules! read {
    ($self:ident, $transaction:ident => $act:expr) => {{
        let mut connection = connection(&$self.inner.pool).await?;
        let $transaction = moment(&mut connection).await?;
        let read = $act;
        $transaction.commit().await?;
        Ok(read)
    }};
}

/// Writes in one step; `$told` of the vault is told to other processes if the result is one of a change.
macro_rules! write {
    ($self:ident, $transaction:ident => $act:expr) => {{
        let mut connection = connection(&$self.inner.pool).await?;
        let $transaction = connection.transaction().await?;
        let done = $act;
        $transaction.commit().await?;
        Ok(done)
    }};
    ($self:ident, $vault:ident, $told:expr, $changed:expr, $transaction:ident => $act:expr) => {
        write!($self, $transaction => {
            let done = $act;
            if $changed(&done) {
                notify(&$transaction, &$self.inner.instance, $vault, $told).await?;
            }
            done
        })
    };
}

fn always<T>(_: &T) -> bool {
    true
}

#[async_trait]
impl RelayStore for ProviderStore {
    async fn add_invitation(&self, invitation: Invitation) -> Result<(), StoreError> {
        write!(self, write => vaults::add_invitation(&write, &invitation).await?)
    }

    async fn invitation(&self, id: Hash) -> Result<Option<Invitation>, StoreError> {
        read!(self, read => vaults::invitation(&read, id).await?)
    }

    async fn invitations(
        &self,
        after: Option<Hash>,
        max: usize,
    ) -> Result<Vec<Invitation>, StoreError> {
        read!(self, read => vaults::invitations(&read, after, max).await?)
    }

    async fn remove_invitation(&self, id: Hash) -> Result<bool, StoreError> {
        write!(self, write => vaults::remove_invitation(&write, id).await?)
    }

    async fn consume_invitation(
        &self,
        id: Hash,
        vault: VaultId,
        epoch: [u8; 16],
        now_ms: u64,
    ) -> Result<Consumed, StoreError> {
        let is_new = |used: &Consumed| matches!(used, Consumed::Now(_));
        write!(self, vault, What::Vault, is_new, write => {
            vaults::consume(&write, id, vault, epoch, now_ms).await?
        })
    }

    async fn vault(&self, vault: VaultId) -> Result<Option<VaultRecord>, StoreError> {
        read!(self, read => found(&read, vault).await?.map(|row| row.record))
    }

    async fn vaults(
        &self,
        after: Option<VaultId>,
        max: usize,
    ) -> Result<Vec<VaultRecord>, StoreError> {
        read!(self, read => vaults::page(&read, after, max).await?)
    }

    async fn set_quota(&self, vault: VaultId, quota: u64) -> Result<(), StoreError> {
        write!(self, vault, What::Vault, always, write => {
            let number = database::locked(&write, vault).await?.number;
            let sql = "UPDATE vaults SET quota = $2 WHERE number = $1";
            database::run(&write, sql, &[&number, &database::kept(quota)]).await?;
        })
    }

    async fn set_members(&self, vault: VaultId, members: Vec<DeviceId>) -> Result<(), StoreError> {
        write!(self, write => vaults::set_members(&write, vault, &members).await?)
    }

    async fn vaults_of(&self, device: DeviceId) -> Result<Vec<VaultId>, StoreError> {
        read!(self, read => vaults::of_device(&read, device).await?)
    }

    async fn note_seen(
        &self,
        vault: VaultId,
        device: DeviceId,
        at_ms: u64,
    ) -> Result<(), StoreError> {
        write!(self, write => vaults::note_seen(&write, vault, device, at_ms).await?)
    }

    async fn seen(&self, vault: VaultId) -> Result<Vec<(DeviceId, u64)>, StoreError> {
        read!(self, read => vaults::seen(&read, vault).await?)
    }

    async fn erase(&self, vault: VaultId, receipt: Bytes, now_ms: u64) -> Result<bool, StoreError> {
        let begun: Result<_, StoreError> = write!(self, vault, What::Vault, Option::is_some, write => {
            vaults::begin_erasing(&write, vault, &receipt, now_ms).await?
        });
        let Some(number) = begun? else {
            return Ok(false);
        };
        while tidy::erase_some(&self.inner, number).await? {}
        Ok(true)
    }

    async fn receipt(&self, vault: VaultId) -> Result<Option<Bytes>, StoreError> {
        read!(self, read => vaults::receipt(&read, vault).await?)
    }

    async fn forget(&self, before_ms: u64) -> Result<u64, StoreError> {
        write!(self, write => vaults::forget(&write, before_ms).await?)
    }

    async fn put_grants(
        &self,
        vault: VaultId,
        grants: Vec<(Hash, Bytes)>,
    ) -> Result<usize, StoreError> {
        let some = |new: &usize| *new > 0;
        write!(self, vault, What::Grants, some, write => {
            entries::put_grants(&write, vault, grants).await?
        })
    }

    async fn grants(&self, vault: VaultId) -> Result<Vec<Bytes>, StoreError> {
        read!(self, read => entries::grants(&read, vault).await?)
    }

    async fn append(
        &self,
        vault: VaultId,
        entries: Vec<NewEntry>,
    ) -> Result<Vec<Appended>, StoreError> {
        let any_stored = |outcomes: &Vec<_>| outcomes.contains(&Appended::Stored);
        write!(self, vault, What::Entries, any_stored, write => {
            entries::append(&write, vault, &entries).await?
        })
    }

    async fn entries(
        &self,
        vault: VaultId,
        writer: WriterId,
        from: u64,
        to: u64,
        max_bytes: usize,
    ) -> Result<Vec<StoredEntry>, StoreError> {
        read!(self, read => entries::read(&read, vault, writer, from..=to, max_bytes).await?)
    }

    async fn put_range(&self, vault: VaultId, range: NewRange) -> Result<Appended, StoreError> {
        let stored = |outcome: &Appended| *outcome == Appended::Stored;
        write!(self, vault, What::Entries, stored, write => {
            ranges::put(&write, vault, &range).await?
        })
    }

    async fn drop_entries(
        &self,
        vault: VaultId,
        writer: WriterId,
        to: u64,
    ) -> Result<u64, StoreError> {
        let some = |freed: &u64| *freed > 0;
        write!(self, vault, What::Entries, some, write => {
            ranges::drop_entries(&write, vault, writer, to).await?
        })
    }

    async fn put_said(
        &self,
        vault: VaultId,
        writer: WriterId,
        to: u64,
        device: DeviceId,
        said: Bytes,
    ) -> Result<(), StoreError> {
        write!(self, vault, What::Entries, always, write => {
            ranges::put_said(&write, vault, (writer, to), device, &said).await?
        })
    }

    async fn ranges(&self, vault: VaultId) -> Result<Vec<KeptRange>, StoreError> {
        read!(self, read => ranges::all(&read, vault).await?)
    }

    async fn range_of(
        &self,
        vault: VaultId,
        writer: WriterId,
        to: u64,
    ) -> Result<Option<Bytes>, StoreError> {
        read!(self, read => ranges::range(&read, vault, writer, to).await?)
    }

    async fn clock(&self, vault: VaultId) -> Result<Clock, StoreError> {
        read!(self, read => {
            let number = database::served(&read, vault).await?.number;
            entries::clock(&read, number).await?
        })
    }

    async fn put_held(&self, vault: VaultId, statement: HeldStatement) -> Result<bool, StoreError> {
        let newer = |newer: &bool| *newer;
        write!(self, vault, What::Statements, newer, write => {
            entries::put_held(&write, vault, &statement).await?
        })
    }

    async fn held(&self, vault: VaultId) -> Result<Vec<HeldStatement>, StoreError> {
        read!(self, read => entries::held(&read, vault).await?)
    }

    async fn snapshot(&self, vault: VaultId) -> Result<Option<Snapshot>, StoreError> {
        read!(self, read => match found(&read, vault).await? {
            Some(row) => {
                let (counter, statement) = entries::host_statement(&read, row.number).await?;
                Some(Snapshot {
                    clock: entries::clock(&read, row.number).await?,
                    counter,
                    statement,
                    record: row.record,
                })
            }
            None => None,
        })
    }

    async fn put_host_statement(
        &self,
        vault: VaultId,
        counter: u64,
        statement: Bytes,
    ) -> Result<bool, StoreError> {
        let next = |next: &bool| *next;
        write!(self, vault, What::Statements, next, write => {
            entries::put_host_statement(&write, vault, counter, &statement).await?
        })
    }

    async fn have(
        &self,
        vault: VaultId,
        ids: Vec<Hash>,
        claim: bool,
    ) -> Result<Vec<bool>, StoreError> {
        match claim {
            true => write!(self, write => blobs::claim(&write, vault, &ids).await?),
            false => read!(self, read => blobs::have(&read, vault, &ids).await?),
        }
    }

    async fn put(&self, vault: VaultId, blobs: Vec<(Hash, Bytes)>) -> Result<Vec<Put>, StoreError> {
        blobs::put(&self.inner, vault, blobs).await
    }

    fn get(&self, vault: VaultId, ids: Vec<Hash>) -> BoxStream<'static, Result<Blob, StoreError>> {
        blobs::get(Arc::clone(&self.inner), vault, ids)
    }

    async fn range(
        &self,
        vault: VaultId,
        id: Hash,
        offset: u64,
        len: u32,
    ) -> Result<Option<Bytes>, StoreError> {
        blobs::range(&self.inner, vault, id, offset, len).await
    }

    async fn verify(&self, vault: VaultId, ids: Vec<Hash>) -> Result<Vec<Hash>, StoreError> {
        verify::verify(&self.inner, vault, &ids).await
    }

    async fn list(
        &self,
        vault: VaultId,
        after: Option<Hash>,
        max: usize,
    ) -> Result<Vec<Hash>, StoreError> {
        read!(self, read => blobs::list(&read, vault, after, max).await?)
    }

    async fn release(
        &self,
        vault: VaultId,
        device: DeviceId,
        ids: Vec<Hash>,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        write!(self, write => blobs::release(&write, vault, device, &ids, now_ms).await?)
    }

    async fn released(
        &self,
        vault: VaultId,
        after: Option<Hash>,
        max: usize,
    ) -> Result<Vec<Released>, StoreError> {
        read!(self, read => blobs::released(&read, vault, after, max).await?)
    }

    async fn free(&self, vault: VaultId, blobs: Vec<Released>) -> Result<Freed, StoreError> {
        let some = |freed: &Freed| freed.blobs > 0;
        write!(self, vault, What::Blobs, some, write => {
            blobs::free(&write, vault, blobs).await?
        })
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        read!(self, read => vaults::totals(&read).await?)
    }

    async fn tidy(&self) -> Result<Tidied, StoreError> {
        tidy::tidy(&self.inner).await
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn ready(&self) -> Result<(), StoreError> {
        let client = connection(&self.inner.pool).await?;
        database::row(&client, "SELECT 1", &[]).await?;
        self.inner.objects.ready().await
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        let mut closed = self.closed.subscribe();
        let changes = self.listening.changes.subscribe();
        stream::unfold(changes, |mut changes| async {
            match changes.recv().await {
                Ok(change) => Some((change, changes)),
                Err(broadcast::error::RecvError::Lagged(_)) => Some((Change::Missed, changes)),
                Err(broadcast::error::RecvError::Closed) => None,
            }
        })
        .take_until(async move {
            let _ = closed.wait_for(|closed| *closed).await;
        })
        .boxed()
    }

    async fn close(&self) {
        self.inner.pool.close();
        self.closed.send_replace(true);
    }
}
