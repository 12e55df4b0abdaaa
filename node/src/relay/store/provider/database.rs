//! The connection to PostgreSQL: its layout, its errors, and how statements are sent.

use coffer_protocol::identity::{DeviceId, Hash, VaultId};
use deadpool_postgres::{GenericClient, Manager, ManagerConfig, Object, Pool, RecyclingMethod};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Config, IsolationLevel, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::{StoreError, Usage, VaultRecord};

/// The layout that this program reads and writes.
const LAYOUT: i32 = 2;
/// Steps to each layout from the one before.
const STEPS: [&str; LAYOUT as usize] = [include_str!("schema.sql"), include_str!("schema_2.sql")];
/// Names the lock under which the layout is brought up to date: any number that nothing else in the database locks.
const LAYOUT_LOCK: i64 = 0x636f_6666_6572;

pub type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Connections that are opened as they are needed.
pub fn pool(
    config: Config,
    tls: MakeRustlsConnect,
    connections: usize,
) -> Result<Pool, StoreError> {
    let recycling_method = RecyclingMethod::Fast;
    let manager = Manager::from_config(config, tls, ManagerConfig { recycling_method });
    Pool::builder(manager)
        .max_size(connections)
        .build()
        .map_err(|error| StoreError::Failed(error.to_string()))
}

/// A connection of the pool.
pub async fn connection(pool: &Pool) -> Result<Object, StoreError> {
    use deadpool_postgres::PoolError;
    match pool.get().await {
        Ok(connection) => Ok(connection),
        Err(PoolError::Closed) => Err(StoreError::Closed),
        Err(PoolError::Backend(error)) => Err(error.into()),
        Err(error) => Err(StoreError::Unavailable(error.to_string())),
    }
}

/// Brings the layout up to date, or makes it.
pub async fn prepare(pool: &Pool) -> Result<(), StoreError> {
    let mut connection = connection(pool).await?;
    let transaction = connection.transaction().await?;
    let lock = format!("SELECT pg_advisory_xact_lock({LAYOUT_LOCK})");
    transaction.batch_execute(&lock).await?;
    let table = "CREATE TABLE IF NOT EXISTS coffer_layout (layout integer NOT NULL)";
    transaction.batch_execute(table).await?;
    let row = transaction
        .query_opt("SELECT layout FROM coffer_layout", &[])
        .await?;
    let found: i32 = row.map_or(0, |row| row.get(0));
    if found > LAYOUT {
        return Err(StoreError::Newer {
            found: found.unsigned_abs(),
            known: LAYOUT.unsigned_abs(),
        });
    }
    for step in STEPS.iter().skip(found.unsigned_abs() as usize) {
        transaction.batch_execute(step).await?;
    }
    let note = format!("DELETE FROM coffer_layout; INSERT INTO coffer_layout VALUES ({LAYOUT})");
    transaction.batch_execute(&note).await?;
    Ok(transaction.commit().await?)
}

/// Sends a statement that the connection prepares once.
pub async fn rows(
    client: &impl GenericClient,
    sql: &str,
    parameters: Parameters<'_>,
) -> Result<Vec<Row>, StoreError> {
    let statement = client.prepare_cached(sql).await?;
    Ok(client.query(&statement, parameters).await?)
}

/// The same for one that gives at most one row.
pub async fn row(
    client: &impl GenericClient,
    sql: &str,
    parameters: Parameters<'_>,
) -> Result<Option<Row>, StoreError> {
    let statement = client.prepare_cached(sql).await?;
    Ok(client.query_opt(&statement, parameters).await?)
}

/// The same for one that gives none; says how many rows it changed.
pub async fn run(
    client: &impl GenericClient,
    sql: &str,
    parameters: Parameters<'_>,
) -> Result<u64, StoreError> {
    let statement = client.prepare_cached(sql).await?;
    Ok(client.execute(&statement, parameters).await?)
}

/// A transaction that sees the database at one moment.
pub async fn moment(
    connection: &mut Object,
) -> Result<deadpool_postgres::Transaction<'_>, StoreError> {
    Ok(connection
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?)
}

/// A number as it is kept: those beyond what PostgreSQL counts are cut.
pub fn kept(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that was kept.
pub fn given(number: i64) -> u64 {
    number.max(0).unsigned_abs()
}

/// A counter as it is kept: in the same order, whatever its value.
pub fn kept_counter(counter: u64) -> i64 {
    (counter ^ (1 << 63)).cast_signed()
}

/// A counter that was kept.
pub fn given_counter(counter: i64) -> u64 {
    counter.cast_unsigned() ^ (1 << 63)
}

/// 32 bytes of a column.
pub fn bytes32(row: &Row, column: usize) -> Result<[u8; 32], StoreError> {
    let bytes: &[u8] = row.try_get(column)?;
    bytes
        .try_into()
        .map_err(|_| StoreError::Damaged(format!("column {column} has {} bytes", bytes.len())))
}

pub fn hash_at(row: &Row, column: usize) -> Result<Hash, StoreError> {
    bytes32(row, column).map(Hash)
}

pub fn device_at(row: &Row, column: usize) -> Result<DeviceId, StoreError> {
    bytes32(row, column).map(DeviceId)
}

pub fn number_at(row: &Row, column: usize) -> Result<u64, StoreError> {
    Ok(given(row.try_get(column)?))
}

/// A vault that is served.
pub struct VaultRow {
    pub number: i64,
    pub record: VaultRecord,
    pub grant_bytes: u64,
}

/// Columns of a [`VaultRow`], in its order.
pub const VAULT: &str = "vault, number, epoch, quota, added_ms, entries, entry_bytes, blobs, \
    blob_bytes, grants, grant_bytes";

impl VaultRow {
    pub fn read(row: &Row) -> Result<Self, StoreError> {
        let epoch: &[u8] = row.try_get(2)?;
        let epoch = epoch.try_into();
        Ok(VaultRow {
            number: row.try_get(1)?,
            record: VaultRecord {
                vault: VaultId(bytes32(row, 0)?),
                epoch: epoch.map_err(|_| StoreError::Damaged("an epoch".into()))?,
                quota: number_at(row, 3)?,
                added_ms: number_at(row, 4)?,
                usage: Usage {
                    entries: number_at(row, 5)?,
                    entry_bytes: number_at(row, 6)?,
                    blobs: number_at(row, 7)?,
                    blob_bytes: number_at(row, 8)?,
                },
                grants: u32::try_from(number_at(row, 9)?).unwrap_or(u32::MAX),
            },
            grant_bytes: number_at(row, 10)?,
        })
    }
}

/// The row of a vault that is served, as it is now.
pub async fn found(
    client: &impl GenericClient,
    vault: VaultId,
) -> Result<Option<VaultRow>, StoreError> {
    let sql = format!("SELECT {VAULT} FROM vaults WHERE vault = $1");
    let row = row(client, &sql, &[&&vault.0[..]]).await?;
    row.as_ref().map(VaultRow::read).transpose()
}

/// The same, or [`StoreError::NoVault`].
pub async fn served(client: &impl GenericClient, vault: VaultId) -> Result<VaultRow, StoreError> {
    let found = found(client, vault).await?;
    found.ok_or(StoreError::NoVault(vault))
}

/// The row of a vault, which nobody else changes until the transaction ends: every change of a vault begins with it.
pub async fn locked(client: &impl GenericClient, vault: VaultId) -> Result<VaultRow, StoreError> {
    let sql = format!("SELECT {VAULT} FROM vaults WHERE vault = $1 FOR UPDATE");
    match row(client, &sql, &[&&vault.0[..]]).await? {
        Some(row) => VaultRow::read(&row),
        None => Err(StoreError::NoVault(vault)),
    }
}

/// Writes what a vault uses.
pub async fn keep_usage(
    client: &impl GenericClient,
    number: i64,
    usage: &Usage,
) -> Result<(), StoreError> {
    run(
        client,
        "UPDATE vaults SET entries = $2, entry_bytes = $3, blobs = $4, blob_bytes = $5 \
         WHERE number = $1",
        &[
            &number,
            &kept(usage.entries),
            &kept(usage.entry_bytes),
            &kept(usage.blobs),
            &kept(usage.blob_bytes),
        ],
    )
    .await
    .map(|_| ())
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(told) = error.as_db_error() else {
            let cause = std::error::Error::source(&error);
            let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            return StoreError::Unavailable(format!("PostgreSQL: {error}{cause}"));
        };
        let text = format!("PostgreSQL: {}", told.message());
        match told.code() {
            code if *code == SqlState::DISK_FULL => StoreError::DiskFull,
            code if *code == SqlState::INSUFFICIENT_PRIVILEGE
                || *code == SqlState::INVALID_PASSWORD
                || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION
                || *code == SqlState::READ_ONLY_SQL_TRANSACTION =>
            {
                StoreError::Permission(text)
            }
            // Classes: connection, transaction rolled back, out of resources, operator, system.
            code if ["08", "40", "53", "57", "58"].contains(&&code.code()[..2]) => {
                StoreError::Unavailable(text)
            }
            _ => StoreError::Failed(text),
        }
    }
}
