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
        let all: Vec<(FileId, u64)> = self
            .wanted
            .values()
            .map(|bring| (bring.id, bring.content.size))
            .collect();
        (self.order, self.large) = self.in_order(all);
        self.take_batch(&busy)
    }

    fn take_batch(&mut self, busy: &BTreeSet<FileId>) -> Vec<Bring> {
        let (mut bytes, mut batch, mut taken) = (0, Vec::new(), BTreeSet::new());
        loop {
            let (small, next) = match self.order.pop_front() {
                Some(id) => (true, Some(id)),
                None => (false, self.large.pop_front()),
            };
            let Some(id) = next else { break };
            let free = !busy.contains(&id) && taken.insert(id);
            let Some(bring) = self.wanted.get(&id).filter(|_| free) else {
                continue;
            };
            bytes += bring.content.size;
            if !batch.is_empty() && (bytes > TRANSFER_BYTES || batch.len() >= TRANSFER_FILES) {
                match small {
                    true => self.order.push_front(id),
                    false => self.large.push_front(id),
                }
                break;
            }
            batch.push(bring.clone());
        }
        batch
    }

    /// Notes what to bring. A few new ones go before the many that wait already: a person may be waiting for them. Many
    /// come after those, in an order of their own: while a first sync comes in there are many again and again, and to sort
    /// all of them each time would take longer the more there are.
    pub(super) fn want(&mut self, bring: Vec<Bring>) {
        if bring.len() > MAX_JUMPERS {
            let new = bring.iter().map(|bring| (bring.id, bring.content.size));
            let (mut order, mut large) = self.in_order(new.collect());
            self.order.append(&mut order);
            self.large.append(&mut large);
            // What is wanted again and again must not make the order grow: it is made anew when it is used up.
            if self.order.len() + self.large.len() > 2 * (self.wanted.len() + bring.len()) {
                self.order.clear();
                self.large.clear();
            }
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

    /// Files by id and size, folder by folder, as they were most likely read and packed on the device that has them, and
    /// the large ones apart, which come last so that none holds up others. Files of one folder arrive together then: what
    /// the watcher names afterwards is few folders, not all of them each time.
    fn in_order(&self, files: Vec<(FileId, u64)>) -> (VecDeque<FileId>, VecDeque<FileId>) {
        let tree = self.vault.tree();
        let mut folders: BTreeMap<FileId, String> = BTreeMap::new();
        let mut all: Vec<(FileId, Arc<str>, FileId, bool)> = Vec::with_capacity(files.len());
        for (id, size) in files {
            let (folder, name) = match tree.shown(id) {
                Some(shown) => (shown.parent, shown.name),
                None => (FileId::ROOT, Arc::from("")),
            };
            folders
                .entry(folder)
                .or_insert_with(|| tree.path(folder).unwrap_or_default());
            all.push((folder, name, id, size > LARGE));
        }
        drop(tree);
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
        all.sort_by_cached_key(|(folder, name, ..)| (rank.get(folder).copied(), name.clone()));
        let (mut order, mut apart) = (VecDeque::new(), VecDeque::new());
        for (.., id, large) in all {
            match large {
                true => apart.push_back(id),
                false => order.push_back(id),
            }
        }
        (order, apart)
    }
}
