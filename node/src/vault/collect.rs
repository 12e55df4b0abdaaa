//! The collector's part in the vault: what it may rely on, and the transaction in which places of blobs go.
//!
//! The collector looks at the vault as of one transaction and takes its time. Whatever was named since then is found out
//! here, in the same transaction that takes the places away, on the one thread that commits: so nothing is freed that
//! anybody names. Where that cannot be told cheaply the collector is sent away, and looks again later.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, PoisonError};

use coffer_crdt::chunks::ChunkRoot;
use coffer_crdt::files::FileId;
use coffer_crdt::retention::VersionId;
use coffer_protocol::eviction::Kind;
use coffer_protocol::grants::Role;
use coffer_protocol::identity::Hash;
use coffer_protocol::log::Clock;
use redb::{ReadTransaction, ReadableDatabase, ReadableTable};

use super::core::Core;
use super::past::{decode_content, version_key};
use super::rule;
use super::work::{FILES, Work};
use crate::blobs::placement::{self, Placement};
use crate::store::documents::DocumentKey;
use crate::store::{StoreError, pieces, records, tables};

/// Version of the rows of [`tables::UNNAMED_RUNS`].
const VERSION: u8 = 1;

/// Documents that may have changed since the collector looked, at most: more are too many to look at in a transaction
/// that others wait for.
const CHANGED_MAX: usize = 4096;

/// What the collector wants done in one transaction.
#[derive(Clone, Debug, Default)]
pub struct Collect {
    /// The transaction as of which it looked.
    pub as_of: u64,
    /// When it looked, in milliseconds since 1970.
    pub now_ms: u64,
    /// What it took to be gone from the trash for good.
    pub purged: Arc<BTreeSet<FileId>>,
    /// Blobs that it is the first to find unnamed.
    pub fresh: Vec<Hash>,
    /// Blobs that are named again, or not here any more.
    pub again: Vec<Hash>,
    /// Blobs to free, and the places that were seen of each.
    pub free: Vec<(Hash, Vec<Placement>)>,
    /// Blobs whose places in the blob store are to go, if they still lie in one of these synced folders too.
    pub doubled: (Vec<Hash>, Arc<BTreeSet<u32>>),
    /// Earlier contents that are not kept any longer.
    pub past: Vec<(FileId, VersionId)>,
    /// Chunks that cannot be named again: their blobs are neither named nor here.
    pub chunks: Vec<Hash>,
    /// Runs that nothing waits for any more.
    pub runs_over: Vec<u64>,
}

/// The vault as the collector looks at it.
pub struct View {
    /// Its tables.
    pub read: ReadTransaction,
    /// The transaction that they are as of.
    pub transaction: u64,
    /// What went from the trash for good.
    pub purged: BTreeSet<FileId>,
    /// What this device has.
    pub clock: Clock,
    /// The other devices.
    pub others: Vec<Other>,
    /// Whether another device has stated that it keeps all that this one names.
    pub is_kept_elsewhere: bool,
}

/// What is known of another device.
#[derive(Clone, Debug)]
pub struct Other {
    /// What it durably has and when it said so, if it ever did.
    pub held: Option<(Clock, u64)>,
    /// When it was admitted, in milliseconds since 1970.
    pub admitted_ms: u64,
    /// Whether it is connected.
    pub connected: bool,
}

/// A run that found blobs unnamed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What this device had then: the un-naming is in it.
    pub clock: Clock,
}

impl Run {
    /// Whether what the run found unnamed may be freed: the grace is over, and every device that counts has said that it
    /// has what un-named it, and has told this one all that it had done until then. A device that is not connected and
    /// was not heard of for `silent_ms` does not count.
    pub fn is_due(
        &self,
        own: &Clock,
        others: &[Other],
        now_ms: u64,
        grace_ms: u64,
        silent_ms: u64,
    ) -> bool {
        now_ms >= self.at_ms.saturating_add(grace_ms)
            && others.iter().all(|other| match &other.held {
                Some((held, _)) if held.covers_clock(&self.clock) && own.covers_clock(held) => true,
                Some((_, at_ms)) => !other.connected && now_ms > at_ms.saturating_add(silent_ms),
                None => now_ms > other.admitted_ms.max(self.at_ms).saturating_add(silent_ms),
            })
    }
}

/// All runs for which something waits.
pub fn runs(read: &ReadTransaction) -> Result<Vec<(u64, Run)>, StoreError> {
    let table = read.open_table(tables::UNNAMED_RUNS)?;
    let mut runs = Vec::new();
    for item in table.iter()? {
        let key = *item?.0.value();
        if key[8..] != [0, 0] {
            continue;
        }
        let (mut number, bytes) = ([0; 8], pieces::read(&table, &key)?.unwrap_or_default());
        number.copy_from_slice(&key[..8]);
        match postcard::from_bytes::<(u8, u64, Clock)>(&bytes) {
            Ok((VERSION, at_ms, clock)) => {
                runs.push((u64::from_be_bytes(number), Run { at_ms, clock }));
            }
            _ => {
                return Err(StoreError::Damaged(
                    "a collector's row cannot be read".into(),
                ));
            }
        }
    }
    Ok(runs)
}

fn run_key(run: u64) -> [u8; 10] {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&run.to_be_bytes());
    key
}

impl Core {
    /// The vault as it is now, for the collector: tables and tree are of the same moment.
    pub fn view(&self) -> Result<View, StoreError> {
        let state = self.state();
        let own = self.device();
        let tree = self.tree().read().unwrap_or_else(PoisonError::into_inner);
        let devices = state.membership.devices().iter();
        Ok(View {
            read: self.database().begin_read()?,
            transaction: state.transaction,
            purged: tree.purged_ids(),
            clock: state.clock.clone(),
            is_kept_elsewhere: state.others(own).any(|(kind, held)| {
                kind == Kind::Device
                    && held.pinned
                    && held.awaited == 0
                    && held.exceptions.is_empty()
                    && held.more_missing == 0
                    && held.chunks.covers_clock(&state.clock)
            }),
            others: devices
                .filter(|(device, known)| **device != own && known.role != Role::Relay)
                .map(|(device, known)| Other {
                    held: state
                        .held
                        .get(device)
                        .map(|held| (held.entries.clone(), held.at_ms)),
                    admitted_ms: known.admitted_ms,
                    connected: self.is_connected(device),
                })
                .collect(),
        })
    }
}

impl Work<'_, '_> {
    /// Does what the collector wants, as far as it is still right. Gives the blobs that have no places any more, or none in
    /// the store; `None` if too much has changed since it looked, and nothing was done.
    pub(super) fn collect(&mut self, wanted: &Collect) -> Result<Option<Vec<Hash>>, StoreError> {
        let Some((named, files)) = self.named_since(wanted)? else {
            return Ok(None);
        };
        self.done.wrote = true;
        let mut unnamed = self.transaction.open_table(tables::UNNAMED)?;
        let mut runs = self.transaction.open_table(tables::UNNAMED_RUNS)?;
        for blob in &wanted.again {
            unnamed.remove(&blob.0)?;
        }
        let key = run_key(wanted.as_of);
        if !wanted.fresh.is_empty() && runs.get(&key)?.is_none() {
            let row = (VERSION, wanted.now_ms, &self.core.state.clock);
            let bytes = postcard::to_stdvec(&row).map_err(|_| {
                StoreError::Damaged("a collector's row could not be encoded".into())
            })?;
            pieces::write(&mut runs, &key, &bytes)?;
        }
        for blob in wanted.fresh.iter().filter(|blob| !named.contains(&blob.0)) {
            if unnamed.get(&blob.0)?.is_none() {
                unnamed.insert(&blob.0, wanted.as_of)?;
            }
        }
        for run in &wanted.runs_over {
            pieces::remove(&mut runs, &run_key(*run))?;
        }
        let mut freed = Vec::new();
        for (blob, places) in wanted
            .free
            .iter()
            .filter(|(blob, _)| !named.contains(&blob.0))
        {
            placement::forget(self.transaction, places.iter().map(|place| (blob, place)))?;
            unnamed.remove(&blob.0)?;
            freed.push(*blob);
        }
        let (doubled, folders) = &wanted.doubled;
        freed.extend(placement::leave_to_folders(
            self.transaction,
            folders,
            doubled,
        )?);
        let mut past = self.transaction.open_table(tables::PAST_CONTENTS)?;
        for (file, version) in wanted.past.iter().filter(|(file, _)| !files.contains(file)) {
            past.remove(&version_key(*file, *version))?;
        }
        let mut chunks = self.transaction.open_table(tables::CHUNKS)?;
        for chunk in &wanted.chunks {
            chunks.remove(&chunk.0)?;
        }
        Ok(Some(freed))
    }

    /// Blobs that documents name which changed since the collector looked, and the files among those documents. What
    /// they ever named counts: that is cheaper to tell than what they still do.
    #[expect(clippy::type_complexity, reason = "read once, by the function above")]
    fn named_since(
        &self,
        wanted: &Collect,
    ) -> Result<Option<(HashSet<[u8; 32]>, HashSet<FileId>)>, StoreError> {
        let pruned = records::get_u64(&self.meta, tables::meta::FEED_PRUNED)?.unwrap_or(0);
        if !self.touched.is_empty() || pruned > wanted.as_of {
            return Ok(None);
        }
        {
            let tree = self
                .core
                .tree()
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            if !wanted.purged.iter().all(|id| tree.is_purged(*id)) {
                return Ok(None);
            }
        }
        let mut from = [0; 12];
        from[..8].copy_from_slice(&wanted.as_of.saturating_add(1).to_be_bytes());
        let (mut named, mut files) = (HashSet::new(), HashSet::new());
        let past = self.transaction.open_table(tables::PAST_CONTENTS)?;
        for (count, item) in self.feed.range::<&[u8; 12]>(&from..)?.enumerate() {
            if count >= CHANGED_MAX {
                return Ok(None);
            }
            let key = DocumentKey(*item?.1.value());
            if key == DocumentKey::new(rule::DOCTYPE, rule::ID) {
                return Ok(None);
            }
            let Some(row) = self.documents.row(key)?.filter(|row| row.doctype == FILES) else {
                continue;
            };
            let Some(id) = row.id.parse::<FileId>().ok().filter(|id| files.insert(*id)) else {
                continue;
            };
            let present = self.file(id)?.and_then(|state| state.content);
            named.extend(present.iter().flat_map(|content| blobs(&content.root)));
            let mut last = version_key(id, VersionId::default());
            last[16..].fill(0xff);
            let first = version_key(id, VersionId::default());
            for item in past.range::<&[u8; 40]>(&first..=&last)? {
                let content = decode_content(item?.1.value())?;
                named.extend(blobs(&content.root));
            }
        }
        Ok(Some((named, files)))
    }
}

/// The blobs that stand in a document: chunks, or pieces of the list of them.
fn blobs(root: &ChunkRoot) -> impl Iterator<Item = [u8; 32]> + '_ {
    root.list().chunks.iter().map(|chunk| chunk.blob)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_protocol::identity::{DeviceId, WriterId};

    const DAY: u64 = 24 * 60 * 60 * 1000;

    fn clock(seqs: &[(u8, u64)]) -> Clock {
        let mut clock = Clock::new();
        for (device, seq) in seqs {
            let writer = WriterId {
                device: DeviceId([*device; 32]),
                incarnation: 0,
            };
            clock.observe(writer, *seq, Hash([1; 32]));
        }
        clock
    }

    fn other(held: Option<(&[(u8, u64)], u64)>, connected: bool) -> Other {
        Other {
            held: held.map(|(seqs, at_ms)| (clock(seqs), at_ms)),
            admitted_ms: 0,
            connected,
        }
    }

    #[test]
    fn what_is_unnamed_waits_for_the_grace_and_for_every_device_that_counts() {
        let run = Run {
            at_ms: 10 * DAY,
            clock: clock(&[(1, 5), (2, 3)]),
        };
        let own = clock(&[(1, 6), (2, 4)]);
        let due = |others: &[Other], now| run.is_due(&own, others, now, DAY, 180 * DAY);
        assert!(!due(&[], 11 * DAY - 1) && due(&[], 11 * DAY));
        let knows = other(Some((&[(1, 5), (2, 4)], 12 * DAY)), false);
        let behind = other(Some((&[(1, 4), (2, 4)], 12 * DAY)), false);
        let ahead = other(Some((&[(1, 5), (2, 5)], 12 * DAY)), false);
        assert!(due(std::slice::from_ref(&knows), 12 * DAY));
        assert!(!due(&[knows.clone(), behind.clone()], 12 * DAY));
        assert!(
            !due(std::slice::from_ref(&ahead), 12 * DAY),
            "it did what is not known here"
        );
        assert!(!due(std::slice::from_ref(&behind), 192 * DAY));
        assert!(
            due(std::slice::from_ref(&behind), 193 * DAY),
            "silent for long"
        );
        let talking = Other {
            connected: true,
            ..behind
        };
        assert!(!due(&[talking], 193 * DAY));
        let never = other(None, false);
        assert!(!due(std::slice::from_ref(&never), 189 * DAY));
        assert!(due(&[never], 191 * DAY));
    }

    #[test]
    fn rows_of_runs_are_frozen() {
        let row = (VERSION, 300u64, clock(&[(1, 2)]));
        let bytes = postcard::to_stdvec(&row).unwrap();
        assert_eq!(
            hex::encode(bytes),
            format!("01ac0201{}0002{}", "01".repeat(32), "01".repeat(32))
        );
    }
}
