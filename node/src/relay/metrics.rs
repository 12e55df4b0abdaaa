//! What the host counts, under names that are documented in docs/hosting.md and stay as they are.
//!
//! No metric has a label that says who: only how many, how much, how long.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Why something was refused; see [`Metrics::refused`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Why {
    /// One of a few words that stand in the code.
    reason: &'static str,
}

/// Which protocol a stream spoke.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Spoken {
    protocol: &'static str,
}

type Amount = Gauge<i64, AtomicI64>;
type Count = Counter<u64, AtomicU64>;

/// All of them.
pub struct Metrics {
    registry: Registry,
    /// Connections with devices.
    pub connections: Amount,
    /// Replication sessions.
    pub sessions: Amount,
    /// Vaults in memory.
    pub vaults_resident: Amount,
    /// Vaults served.
    pub vaults: Amount,
    /// Bytes of entries kept.
    pub entry_bytes: Amount,
    /// Entries kept.
    pub entries: Amount,
    /// Bytes of blobs kept.
    pub blob_bytes: Amount,
    /// Blobs kept.
    pub blobs: Amount,
    /// Bytes that all quotas together promise.
    pub quota_bytes: Amount,
    /// Entries taken.
    pub entries_in: Count,
    /// Bytes of blobs taken.
    pub blob_bytes_in: Count,
    /// Bytes of blobs given.
    pub blob_bytes_out: Count,
    /// Blobs freed.
    pub blobs_freed: Count,
    /// Blobs that the disk has damaged.
    pub blobs_damaged: Count,
    /// Vaults bound.
    pub vaults_bound: Count,
    /// Vaults erased.
    pub vaults_erased: Count,
    /// Failures of the store.
    pub store_failures: Count,
    /// From a message with entries to their being durable.
    pub append_seconds: Histogram,
    /// From a batch of blobs to its being durable.
    pub put_seconds: Histogram,
    /// 1 while the host drains.
    pub draining: Amount,
    streams: Family<Spoken, Count>,
    refused: Family<Why, Count>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at nothing.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("coffer_relay");
        let amount = |registry: &mut Registry, name: &str, help: &str| {
            let gauge = Amount::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let bytes = |registry: &mut Registry, name: &str, help: &str| {
            let gauge = Amount::default();
            registry.register_with_unit(name, help, Unit::Bytes, gauge.clone());
            gauge
        };
        let count = |registry: &mut Registry, name: &str, help: &str| {
            let counter = Count::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let seconds = |registry: &mut Registry, name: &str, help: &str| {
            // 1 ms to 16 s: a commit on a good disk to one that a person would look at.
            let histogram = Histogram::new(exponential_buckets(0.001, 2.0, 15));
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
            histogram
        };
        let streams = Family::<Spoken, Count>::default();
        registry.register("streams", "Streams that devices opened", streams.clone());
        let refused = Family::<Why, Count>::default();
        registry.register("refused", "What was refused, by reason", refused.clone());
        let r = &mut registry;
        Self {
            connections: amount(r, "connections", "Connections with devices"),
            sessions: amount(r, "sessions", "Replication sessions"),
            vaults_resident: amount(r, "vaults_resident", "Vaults in memory"),
            vaults: amount(r, "vaults", "Vaults served"),
            entry_bytes: bytes(r, "entry", "Entries kept, as quotas count them"),
            entries: amount(r, "entries", "Entries kept"),
            blob_bytes: bytes(r, "blob", "Contents kept, as quotas count them"),
            blobs: amount(r, "blobs", "Blobs kept"),
            quota_bytes: bytes(r, "quota", "All quotas together"),
            entries_in: count(r, "entries_in", "Entries taken from devices"),
            blob_bytes_in: count(r, "blob_in_bytes", "Bytes of blobs taken from devices"),
            blob_bytes_out: count(r, "blob_out_bytes", "Bytes of blobs given to devices"),
            blobs_freed: count(r, "blobs_freed", "Blobs freed because no device names them"),
            blobs_damaged: count(
                r,
                "blobs_damaged",
                "Blobs whose bytes turned out to be damaged or lost on the disk",
            ),
            vaults_bound: count(r, "vaults_bound", "Vaults that were bound to this host"),
            vaults_erased: count(r, "vaults_erased", "Vaults that were erased"),
            store_failures: count(r, "store_failures", "Requests that the store failed"),
            append_seconds: seconds(r, "append", "Time until entries are durable"),
            put_seconds: seconds(r, "put", "Time until a batch of blobs is durable"),
            draining: amount(r, "draining", "1 while the host ends"),
            streams,
            refused,
            registry,
        }
    }

    /// Counts a stream.
    pub fn stream(&self, protocol: &'static str) {
        self.streams.get_or_create(&Spoken { protocol }).inc();
    }

    /// Counts a refusal. The reason is a word of the code, never something that a device said.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Why { reason }).inc();
    }

    /// Counts the connections that the network has not let in, all since the start.
    pub fn turned_away(&self, total: u64) {
        let reason = "connection";
        let counter = self.refused.get_or_create(&Why { reason });
        counter.inc_by(total.saturating_sub(counter.get()));
    }

    /// The text that Prometheus reads.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into memory does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// A number for a gauge.
pub fn gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that people's dashboards hold on to.
    const NAMES: &[&str] = &[
        "coffer_relay_connections",
        "coffer_relay_sessions",
        "coffer_relay_vaults_resident",
        "coffer_relay_vaults",
        "coffer_relay_entry_bytes",
        "coffer_relay_entries",
        "coffer_relay_blob_bytes",
        "coffer_relay_blobs",
        "coffer_relay_quota_bytes",
        "coffer_relay_entries_in_total",
        "coffer_relay_blob_in_bytes_total",
        "coffer_relay_blob_out_bytes_total",
        "coffer_relay_blobs_freed_total",
        "coffer_relay_blobs_damaged_total",
        "coffer_relay_vaults_bound_total",
        "coffer_relay_vaults_erased_total",
        "coffer_relay_store_failures_total",
        "coffer_relay_append_seconds",
        "coffer_relay_put_seconds",
        "coffer_relay_draining",
        "coffer_relay_streams_total",
        "coffer_relay_refused_total",
    ];

    #[test]
    fn the_documented_names_are_those_that_are_served() {
        let metrics = Metrics::new();
        metrics.stream("replicate");
        metrics.refused("stranger");
        let text = metrics.text();
        let mut served: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|line| line.split(' ').next())
            .collect();
        served.sort_unstable();
        let mut names: Vec<&str> = NAMES
            .iter()
            .map(|name| name.strip_suffix("_total").unwrap_or(name))
            .collect();
        names.sort_unstable();
        assert_eq!(served, names);
        let documented = include_str!("../../../docs/hosting.md");
        for name in NAMES {
            assert!(
                documented.contains(&format!("`{name}`")),
                "{name} is not documented"
            );
        }
    }
}
