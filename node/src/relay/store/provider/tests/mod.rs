//! The provider's store: the conformance suite on a real PostgreSQL and an S3-compatible server, and what several
//! processes on one store see of each other.

mod services;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use coffer_protocol::identity::{Hash, VaultId};
use futures::StreamExt;
use object_store::ObjectStoreExt;

use super::{ProviderConfig, ProviderStore};
use crate::relay::store::conformance::{
    self, Bench, Damage, NOW, PLENTY, Store, blob, conformance, device, entry, serve, serving,
    vault,
};
use crate::relay::store::{Bounded, Change, RelayStore, StoreError, What};
use services::{Objects, database};

/// A database and a bucket of one test.
struct Services {
    config: ProviderConfig,
    _objects: Objects,
}

impl Services {
    async fn new() -> Self {
        let objects = Objects::start().await;
        let config = ProviderConfig {
            postgres: database().await,
            postgres_ca: None,
            connections: 4,
            endpoint: objects.endpoint.clone(),
            region: objects.region.clone(),
            bucket: objects.bucket.clone(),
            prefix: objects.prefix.clone(),
            access_key: objects.access_key.clone(),
            secret_key: objects.secret_key.clone(),
            linger: Duration::ZERO,
        };
        Services {
            config,
            _objects: objects,
        }
    }

    async fn another(&self) -> ProviderStore {
        let opened = ProviderStore::open(self.config.clone()).await;
        opened.expect("the provider's store opens")
    }
}

#[async_trait]
impl Bench for Services {
    async fn open(&self) -> Store {
        Arc::new(Bounded::new(self.another().await))
    }

    async fn open_beside(&self) -> Option<Store> {
        Some(Arc::new(Bounded::new(self.another().await)))
    }

    async fn damage(&self, vault: VaultId, id: Hash, damage: Damage) {
        let store = self.another().await;
        let (number, places) = super::blobs::places(&store.inner, vault, &[id])
            .await
            .unwrap();
        let objects = &store.inner.objects;
        let path = objects.path(number, places[&id].pack);
        if damage == Damage::Lost {
            objects.storage.delete(&path).await.unwrap();
            return;
        }
        let whole = objects.storage.get(&path).await.unwrap();
        let mut bytes = whole.bytes().await.unwrap().to_vec();
        bytes[places[&id].offset as usize] ^= 1;
        objects.storage.put(&path, bytes.into()).await.unwrap();
    }
}

conformance!(async { Services::new().await }, 8);

/// Waits for a change that is like this one.
async fn hears(
    changes: &mut (impl futures::Stream<Item = Change> + Unpin),
    wanted: Change,
) -> Duration {
    let began = Instant::now();
    let heard = async { while changes.next().await != Some(wanted) {} };
    tokio::time::timeout(Duration::from_secs(20), heard)
        .await
        .unwrap_or_else(|_| panic!("never heard {wanted:?}"));
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_process_stores_another_hears_within_a_second() {
    let services = Services::new().await;
    let one = serving(&services, PLENTY).await;
    let two = services.another().await;
    let mut heard = two.changes();
    let mut own = one.changes();
    let change = |what| Change::In {
        vault: vault(0),
        what,
    };
    for seq in 1..=20 {
        one.append(vault(0), vec![entry(1, seq, 0, 500)])
            .await
            .unwrap();
        let waited = hears(&mut heard, change(What::Entries)).await;
        assert!(waited < Duration::from_secs(1), "{waited:?}");
        let read = two.entries(vault(0), conformance::writer(1), seq, seq, 1 << 20);
        assert_eq!(read.await.unwrap().len(), 1);
    }
    one.put(vault(0), vec![blob(1, 900)]).await.unwrap();
    hears(&mut heard, change(What::Blobs)).await;
    one.set_quota(vault(0), 5).await.unwrap();
    hears(&mut heard, change(What::Vault)).await;
    // What changes nothing is not told, and nobody hears oneself.
    one.append(vault(0), vec![entry(1, 1, 0, 500)])
        .await
        .unwrap();
    two.note_seen(vault(0), device(1), NOW).await.unwrap();
    serve(&one, vault(1), PLENTY).await;
    let next = Change::In {
        vault: vault(1),
        what: What::Vault,
    };
    assert_eq!(heard.next().await, Some(next));
    two.set_quota(vault(1), 7).await.unwrap();
    assert_eq!(own.next().await, Some(next));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_loses_the_connection_is_told_that_something_was_missed() {
    let services = Services::new().await;
    let one = serving(&services, PLENTY).await;
    let two = services.another().await;
    let mut heard = two.changes();
    services::cut_all_connections(&services.config.postgres).await;
    hears(&mut heard, Change::Missed).await;
    // The pool finds that its connections are dead, and opens others.
    let served = async {
        while one.vault(vault(0)).await.is_err() || two.vault(vault(0)).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), served).await;
    waited.expect("the store works again");
    let again = one.set_quota(vault(0), 9).await;
    assert_eq!(again, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_of_a_put_is_removed() {
    let services = Services::new().await;
    let store = services.another().await;
    let shared: Store = Arc::new(services.another().await);
    serve(&shared, vault(0), PLENTY).await;
    let connection = super::database::connection(&store.inner.pool)
        .await
        .unwrap();
    let number = super::database::served(&connection, vault(0))
        .await
        .unwrap()
        .number;
    let pack = super::blobs::begin_pack(&connection, number).await.unwrap();
    let bytes = [blob(1, 5000)];
    let written = store.inner.objects.write(number, pack, &bytes);
    written.await.unwrap();
    drop(connection);
    // The process dies here, and another tidies.
    let is_there = async || store.inner.objects.read(number, pack, 0, 9).await.unwrap();
    assert!(is_there().await.is_some());
    let tidied = shared.tidy().await.unwrap();
    assert_eq!(tidied.packs, 1);
    assert!(is_there().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_packs_become_one() {
    let services = Services::new().await;
    let store = serving(&services, PLENTY).await;
    let mut ids = Vec::new();
    for n in 0..40 {
        ids.push(blob(n, 700).0);
        store.put(vault(0), vec![blob(n, 700)]).await.unwrap();
    }
    let mut gone = 0;
    loop {
        let tidied = store.tidy().await.unwrap();
        gone += tidied.packs;
        if !tidied.more {
            break;
        }
    }
    assert!(gone >= 30, "{gone}");
    let found = conformance::all(&store, vault(0), ids).await.unwrap();
    for (n, blob) in (0..).zip(found) {
        assert_eq!(blob.bytes, Some(conformance::content(n, 700)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_layout_is_refused() {
    let services = Services::new().await;
    let store = services.another().await;
    let connection = super::database::connection(&store.inner.pool)
        .await
        .unwrap();
    connection
        .batch_execute("UPDATE coffer_layout SET layout = 99")
        .await
        .unwrap();
    let refused = ProviderStore::open(services.config.clone())
        .await
        .map(|_| ());
    assert_eq!(
        refused,
        Err(StoreError::Newer {
            found: 99,
            known: 2
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_encrypted_and_the_servers_certificate_is_checked() {
    let server = services::Encrypted::start().await;
    let services = Services::new().await;
    let with = |mode: &str, trusted: bool| {
        let mut config = services.config.clone();
        config.postgres = format!("{} sslmode={mode}", server.network);
        let certificate = server.certificate.display().to_string();
        config.postgres_ca = trusted.then_some(certificate);
        ProviderStore::open(config)
    };
    for mode in ["prefer", "require"] {
        let refused = with(mode, false).await.map(|_| ());
        assert!(
            matches!(&refused, Err(StoreError::Unavailable(why)) if why.contains("certificate")),
            "{refused:?}"
        );
        let store: Store = Arc::new(with(mode, true).await.expect("it is encrypted"));
        let listens = with(mode, true).await.expect("so is another");
        let mut heard = listens.changes();
        serve(&store, vault(u64::from(mode == "require")), PLENTY).await;
        heard.next().await.expect("what the other changed");
        assert_eq!(connections(&server.socket).await, (0, true), "{mode}");
    }
    let plain = with("disable", false).await.expect("it is not encrypted");
    plain.ready().await.unwrap();
    assert!(connections(&server.socket).await.0 > 0);
    let mut wrong = services.config.clone();
    wrong.postgres_ca = Some("/nonexistent/ca.pem".into());
    let refused = ProviderStore::open(wrong).await.map(|_| ());
    assert!(
        matches!(&refused, Err(StoreError::Failed(why)) if why.contains("postgres_ca")),
        "{refused:?}"
    );
}

/// How many connections to a database are not encrypted, but for the one that asks, and whether any is.
async fn connections(database: &str) -> (i64, bool) {
    let (client, connection) = tokio_postgres::connect(database, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let sql = "SELECT count(*) FILTER (WHERE NOT ssl), count(*) FILTER (WHERE ssl) \
        FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let row = client.query_one(sql, &[]).await.unwrap();
    (row.get(0), row.get::<_, i64>(1) > 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_answer_is_named() {
    let services = Services::new().await;
    let mut config = services.config.clone();
    config.postgres = "host=/nonexistent user=coffer".into();
    let refused = ProviderStore::open(config).await.map(|_| ());
    assert!(
        matches!(&refused, Err(StoreError::Unavailable(why)) if why.contains("PostgreSQL")),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn records_cost_what_the_capacity_plan_says() {
    const BLOBS: u64 = 6000;
    const ENTRIES: u64 = 2000;
    let services = Services::new().await;
    let store = serving(&services, PLENTY).await;
    for batch in 0..6 {
        let blobs = (0..BLOBS / 6).map(|n| blob(batch << 20 | n, 16)).collect();
        store.put(vault(0), blobs).await.unwrap();
    }
    for batch in 0..20 {
        let seqs = batch * ENTRIES / 20 + 1..=(batch + 1) * ENTRIES / 20;
        let entries = seqs.map(|seq| entry(1, seq, 0, 700)).collect();
        store.append(vault(0), entries).await.unwrap();
    }
    let (client, connection) =
        tokio_postgres::connect(&services.config.postgres, tokio_postgres::NoTls)
            .await
            .unwrap();
    tokio::spawn(connection);
    let size = async |table: &str| -> u64 {
        let sql = format!("SELECT pg_total_relation_size('{table}')");
        let row = client.query_one(&sql, &[]).await.unwrap();
        row.get::<_, i64>(0).unsigned_abs()
    };
    let blob = size("blobs").await / BLOBS;
    let entry = size("entries").await / ENTRIES;
    println!("a blob's record: {blob} bytes; an entry of 700 bytes: {entry} bytes");
    // docs/hosting.md plans with these.
    assert!(blob <= 280, "{blob}");
    assert!(entry <= 1200, "{entry}");
}
