//! What is to be brought to the disk, in which order, and how much of it at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use coffer_crdt::files::FileId;

use super::engine::Engine;
use super::plan::Bring;
use super::remote::TRANSFER_FILES;
use super::{Contents, FolderVault};

/// Bytes in one transfer, at most (a larger file is one alone).
const TRANSFER_BYTES: u64 = 512 << 20;
/// Files larger than this, in bytes, come after all others.
const LARGE: u64 = 16 << 20;
/// Newly wanted files that go before others, at most.
const MAX_JUMPERS: usize = 100;

impl<V: FolderVault, C: Contents> Engine<V, C> {
    /// What to bring next. Files that are on their way already wait for that.
    pub(super) fn next_batch(&mut self) -> Vec<Bring> {
        let busy: BTreeSet<FileId> = self
            .flights
            .values()
            .map(|flight| flight.bring.id)
            .collect();
        let batch = self.take_batch(&busy);
        if !batch.is_empty() || self.wanted.keys().all(|id| busy.contains(id)) {
            return batch;
        }
        self.order = self.in_order();
        self.take_batch(&busy)
    }

    fn take_batch(&mut self, busy: &BTreeSet<FileId>) -> Vec<Bring> {
        let (mut bytes, mut batch, mut taken) = (0, Vec::new(), BTreeSet::new());
        while let Some(id) = self.order.pop_front() {
            let free = !busy.contains(&id) && taken.insert(id);
            let Some(bring) = self.wanted.get(&id).filter(|_| free) else {
                continue;
            };
            bytes += bring.content.size;
            if !batch.is_empty() && (bytes > TRANSFER_BYTES || batch.len() >= TRANSFER_FILES) {
                self.order.push_front(id);
                break;
            }
            batch.push(bring.clone());
        }
        batch
    }

    /// Notes what to bring. A few new ones go before the many that wait already: a person may be waiting for them.
    pub(super) fn want(&mut self, bring: Vec<Bring>) {
        if bring.len() > MAX_JUMPERS {
            self.order.clear();
        } else {
            for bring in &bring {
                self.order.push_front(bring.id);
            }
        }
        for bring in bring {
            self.unreachable.remove(&bring.id);
            self.wanted.insert(bring.id, bring);
        }
    }

    /// All that is wanted, the large files last so that none holds up others, else folder by folder, as it was most likely read and packed on the device that has it. Files of
    /// one folder arrive together then: what the watcher names afterwards is few folders, not all of them each time.
    fn in_order(&self) -> VecDeque<FileId> {
        let tree = self.vault.tree();
        let mut folders: BTreeMap<FileId, String> = BTreeMap::new();
        let mut all: Vec<(bool, FileId, Arc<str>, FileId)> = Vec::with_capacity(self.wanted.len());
        for (id, bring) in &self.wanted {
            let (folder, name) = match tree.shown(*id) {
                Some(shown) => (shown.parent, shown.name),
                None => (FileId::ROOT, Arc::from("")),
            };
            folders
                .entry(folder)
                .or_insert_with(|| tree.path(folder).unwrap_or_default());
            all.push((bring.content.size > LARGE, folder, name, *id));
        }
        let mut ranked: Vec<(String, FileId)> = folders
            .into_iter()
            .map(|(folder, path)| (path, folder))
            .collect();
        ranked.sort_unstable();
        let rank: BTreeMap<FileId, usize> = ranked
            .into_iter()
            .enumerate()
            .map(|(rank, (_, folder))| (folder, rank))
            .collect();
        all.sort_unstable_by(|one, other| {
            (one.0, rank.get(&one.1), &one.2).cmp(&(other.0, rank.get(&other.1), &other.2))
        });
        all.into_iter().map(|(.., id)| id).collect()
    }
}
