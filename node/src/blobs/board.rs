//! What is still to be fetched, and who is asked for what: the bookkeeping of one transfer.
//!
//! Inputs: blobs that are wanted, devices that come and go, answers. Each blob is in one state at a time; whoever takes it
//! out of one puts it into the next. A blob that a device lacks, or gave wrong, is asked of the next; a blob that no
//! device now connected can give is lost until another connects. What was asked of a slow device is, in the end, asked
//! of one more: the first answer counts, the other is thrown away. No I/O here, no clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use coffer_protocol::identity::{DeviceId, Hash};
use tokio::sync::Notify;

/// Most blobs asked for at a time: what one request may name.
pub(super) const BATCH_BLOBS: usize = coffer_protocol::blobs::MAX_IDS;

/// Most bytes asked for at a time. With three requests under way this fills 100 ms of a gigabit line ahead of the answers.
pub(super) const BATCH_BYTES: u64 = 8 << 20;

/// Which of the wanted blobs.
pub(super) type Item = u32;

/// Which of the devices.
pub(super) type Peer = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be read on this device; if that fails, to be fetched.
    Local,
    Pending,
    Asked(Peer),
    /// Its bytes are here and are being checked and written.
    Working,
    /// Written, or given up for a reason that no device can mend.
    Ended,
    Lost,
}

struct Wanted {
    blob: Hash,
    sealed_len: u32,
    state: State,
    /// Asked of this device too, because the first one is slow.
    also: Option<Peer>,
    /// Devices that do not have it, or gave it wrong.
    refused: Vec<Peer>,
}

impl Wanted {
    /// `peer` will not give it: another that was asked too takes its place. Whether now nobody is asked.
    fn is_dropped_by(&mut self, peer: Peer) -> bool {
        if self.also == Some(peer) {
            self.also = None;
            return false;
        }
        if self.state != State::Asked(peer) {
            return false;
        }
        match self.also.take() {
            Some(other) => {
                self.state = State::Asked(other);
                false
            }
            None => {
                self.state = State::Pending;
                true
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Live,
    Gone,
    /// It sent wrong bytes: nothing more is asked of it.
    Banned,
}

struct Device {
    id: DeviceId,
    standing: Standing,
    /// How often it was begun to be asked.
    attempts: u32,
}

#[derive(Default)]
struct Inner {
    items: Vec<Wanted>,
    local: VecDeque<Item>,
    pending: VecDeque<Item>,
    devices: Vec<Device>,
    /// Items in none of the states Ended and Lost.
    open: usize,
    aborted: bool,
    misbehaved: BTreeMap<DeviceId, String>,
}

/// The bookkeeping of one transfer, shared by its tasks and threads.
#[derive(Default)]
pub(super) struct Board {
    inner: Mutex<Inner>,
    changed: Notify,
}

impl Board {
    /// Wants `blobs` (id, sealed length in bytes, whether a place on this device is known), numbered in this order.
    pub fn new(blobs: impl IntoIterator<Item = (Hash, u32, bool)>) -> Self {
        let mut inner = Inner::default();
        for (blob, sealed_len, local) in blobs {
            let item = inner.items.len() as Item;
            let state = if local {
                inner.local.push_back(item);
                State::Local
            } else {
                inner.pending.push_back(item);
                State::Pending
            };
            inner.items.push(Wanted {
                blob,
                sealed_len,
                state,
                also: None,
                refused: Vec::new(),
            });
        }
        inner.open = inner.items.len();
        Self {
            inner: Mutex::new(inner),
            changed: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        super::lock(&self.inner)
    }

    /// Resolves at the next change after this was called.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// Whether nothing is left to do: every item is ended or lost.
    pub fn finished(&self) -> bool {
        self.lock().open == 0
    }

    /// Whether something has to come from other devices, or could come sooner with one more.
    pub fn needs_devices(&self) -> bool {
        let inner = self.lock();
        inner.items.iter().any(|item| match item.state {
            State::Pending | State::Lost => true,
            State::Asked(_) => item.also.is_none(),
            State::Local | State::Working | State::Ended => false,
        })
    }

    /// Items that no device could give.
    pub fn lost(&self) -> Vec<Item> {
        let inner = self.lock();
        (0..)
            .zip(&inner.items)
            .filter(|(_, item)| item.state == State::Lost)
            .map(|(index, _)| index)
            .collect()
    }

    /// What devices did wrong.
    pub fn misbehaved(&self) -> BTreeMap<DeviceId, String> {
        self.lock().misbehaved.clone()
    }

    /// Begins to ask a device; lost items are hoped for again. `None` if it is being asked already, sent wrong bytes, or
    /// was begun `max_attempts` times before.
    pub fn join(&self, id: DeviceId, max_attempts: u32) -> Option<(Peer, u32)> {
        let mut inner = self.lock();
        if inner.aborted {
            return None;
        }
        let peer = match inner.devices.iter().position(|device| device.id == id) {
            Some(peer) => {
                let device = &inner.devices[peer];
                let useful =
                    |item: &Wanted| item.state != State::Ended && !item.refused.contains(&peer);
                if device.standing != Standing::Gone
                    || device.attempts >= max_attempts
                    || !inner.items.iter().any(useful)
                {
                    return None;
                }
                let device = &mut inner.devices[peer];
                device.standing = Standing::Live;
                device.attempts += 1;
                peer
            }
            None => {
                inner.devices.push(Device {
                    id,
                    standing: Standing::Live,
                    attempts: 1,
                });
                inner.devices.len() - 1
            }
        };
        let attempts = inner.devices[peer].attempts;
        for index in 0..inner.items.len() {
            let item = &mut inner.items[index];
            if item.state == State::Lost && !item.refused.contains(&peer) {
                item.state = State::Pending;
                inner.open += 1;
                inner.pending.push_back(index as Item);
            }
        }
        drop(inner);
        self.changed.notify_waiters();
        Some((peer, attempts))
    }

    /// A device is not asked any more; what was asked of it is asked of others.
    pub fn leave(&self, peer: Peer) {
        let mut inner = self.lock();
        if inner.devices[peer].standing == Standing::Live {
            inner.devices[peer].standing = Standing::Gone;
        }
        for index in 0..inner.items.len() {
            if inner.items[index].is_dropped_by(peer) {
                inner.pending.push_front(index as Item);
            }
        }
        inner.give_up();
        drop(inner);
        self.changed.notify_waiters();
    }

    /// Gives up all that no live device can give; for when no further device will come.
    pub fn settle(&self) {
        // Who calls this looks at the outcome; nobody waits for what nobody gives.
        self.lock().give_up();
    }

    /// The next items to ask `peer` for, of about `bytes` together, waiting for some; `None` when it is to be asked for
    /// nothing more.
    pub async fn next_batch(&self, peer: Peer, bytes: u64) -> Option<Vec<Item>> {
        loop {
            let changed = self.changed();
            tokio::pin!(changed);
            // Registered before looking, so that no change is missed.
            changed.as_mut().enable();
            {
                let mut inner = self.lock();
                if inner.open == 0 || inner.devices[peer].standing != Standing::Live {
                    return None;
                }
                let batch = inner.take_batch(peer, bytes);
                if !batch.is_empty() {
                    return Some(batch);
                }
            }
            changed.await;
        }
    }

    /// Items of about `bytes` together that were asked of others and have not come, for `peer` that has nothing else to
    /// do; each is asked for twice at most.
    pub fn second_batch(&self, peer: Peer, bytes: u64) -> Vec<Item> {
        let mut inner = self.lock();
        if inner.devices[peer].standing != Standing::Live {
            return Vec::new();
        }
        let (mut batch, mut sum) = (Vec::new(), 0);
        for (index, item) in (0..).zip(&mut inner.items) {
            let asked = matches!(item.state, State::Asked(other) if other != peer);
            if !asked || item.also.is_some() || item.refused.contains(&peer) {
                continue;
            }
            sum += u64::from(item.sealed_len);
            if !batch.is_empty() && (sum > bytes || batch.len() == BATCH_BLOBS) {
                break;
            }
            item.also = Some(peer);
            batch.push(index);
        }
        batch
    }

    /// Sealed length of `items` together, in bytes.
    pub fn bytes(&self, items: &[Item]) -> u64 {
        let inner = self.lock();
        let lens = items
            .iter()
            .map(|item| inner.items[*item as usize].sealed_len);
        lens.map(u64::from).sum()
    }

    /// Whether answers of `peer` are still to be read.
    pub fn is_live(&self, peer: Peer) -> bool {
        self.lock().devices[peer].standing == Standing::Live
    }

    /// Blob ids of `items`, for a request.
    pub fn blobs(&self, items: &[Item]) -> Vec<Hash> {
        let inner = self.lock();
        items
            .iter()
            .map(|item| inner.items[*item as usize].blob)
            .collect()
    }

    /// The next item to be read on this device.
    pub fn next_local(&self) -> Option<Item> {
        let mut inner = self.lock();
        let item = inner.local.pop_front()?;
        inner.items[item as usize].state = State::Working;
        Some(item)
    }

    /// Bytes for `item` came. Whether they are the first: later ones are of no use.
    pub fn arrived(&self, item: Item) -> bool {
        let mut inner = self.lock();
        let wanted = &mut inner.items[item as usize];
        let first = matches!(wanted.state, State::Asked(_) | State::Pending);
        if first {
            wanted.state = State::Working;
            wanted.also = None;
        }
        first
    }

    /// `peer` does not have `item`.
    pub fn refused(&self, item: Item, peer: Peer) {
        let mut inner = self.lock();
        let wanted = &mut inner.items[item as usize];
        if !wanted.refused.contains(&peer) {
            wanted.refused.push(peer);
        }
        if wanted.is_dropped_by(peer) {
            inner.pending.push_back(item);
            inner.give_up_one(item);
        }
        drop(inner);
        self.changed.notify_waiters();
    }

    /// This device could not read `item` after all.
    pub fn not_local(&self, item: Item) {
        let mut inner = self.lock();
        if inner.aborted {
            return;
        }
        inner.items[item as usize].state = State::Pending;
        inner.pending.push_back(item);
        inner.give_up_one(item);
        drop(inner);
        self.changed.notify_waiters();
    }

    /// `item` arrived, but must be asked for again.
    pub fn again(&self, item: Item) {
        self.not_local(item);
    }

    /// `peer` sent wrong bytes, for `item` or at all: nothing more is asked of it.
    pub fn ban(&self, peer: Peer, item: Option<Item>, what: &str) {
        let mut inner = self.lock();
        let device = &mut inner.devices[peer];
        device.standing = Standing::Banned;
        let id = device.id;
        inner
            .misbehaved
            .entry(id)
            .or_insert_with(|| what.to_owned());
        if let Some(item) = item {
            inner.refuse(item, peer);
        }
        inner.give_up();
        drop(inner);
        self.changed.notify_waiters();
    }

    /// Ends everything now: what is not written yet is lost.
    pub fn abort(&self) {
        let mut inner = self.lock();
        inner.aborted = true;
        inner.local.clear();
        inner.pending.clear();
        for device in &mut inner.devices {
            device.standing = Standing::Banned;
        }
        for item in &mut inner.items {
            if item.state != State::Ended {
                item.state = State::Lost;
            }
        }
        inner.open = 0;
        drop(inner);
        self.changed.notify_waiters();
    }

    /// `item` was written, or cannot be for a reason that no device can mend.
    pub fn ended(&self, item: Item) {
        let mut inner = self.lock();
        if inner.aborted {
            return;
        }
        inner.items[item as usize].state = State::Ended;
        inner.open -= 1;
        let last = inner.open == 0;
        drop(inner);
        if last {
            self.changed.notify_waiters();
        }
    }
}

impl Inner {
    fn take_batch(&mut self, peer: Peer, max_bytes: u64) -> Vec<Item> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut passed = Vec::new();
        while let Some(item) = self.pending.pop_front() {
            let wanted = &mut self.items[item as usize];
            if wanted.state != State::Pending {
                // An answer that nobody waited for any more came all the same.
                continue;
            }
            if wanted.refused.contains(&peer) {
                passed.push(item);
                continue;
            }
            let len = u64::from(wanted.sealed_len);
            if !batch.is_empty() && bytes + len > max_bytes {
                self.pending.push_front(item);
                break;
            }
            bytes += len;
            wanted.state = State::Asked(peer);
            batch.push(item);
            if batch.len() == BATCH_BLOBS {
                break;
            }
        }
        for item in passed.into_iter().rev() {
            self.pending.push_front(item);
        }
        batch
    }

    fn refuse(&mut self, item: Item, peer: Peer) {
        if self.aborted {
            return;
        }
        let wanted = &mut self.items[item as usize];
        if !wanted.refused.contains(&peer) {
            wanted.refused.push(peer);
        }
        wanted.state = State::Pending;
        self.pending.push_back(item);
        self.give_up_one(item);
    }

    fn hopeless(&self, item: Item) -> bool {
        let refused = &self.items[item as usize].refused;
        !(0..self.devices.len())
            .any(|peer| self.devices[peer].standing == Standing::Live && !refused.contains(&peer))
    }

    /// Loses the item that was put last into `pending`, if nobody can give it.
    fn give_up_one(&mut self, item: Item) {
        // Before the first device has joined there is still hope: `settle` ends it.
        if !self.devices.is_empty() && self.hopeless(item) {
            self.pending.pop_back();
            self.items[item as usize].state = State::Lost;
            self.open -= 1;
        }
    }

    fn give_up(&mut self) {
        for item in std::mem::take(&mut self.pending) {
            if self.items[item as usize].state != State::Pending {
                continue;
            }
            if self.hopeless(item) {
                self.items[item as usize].state = State::Lost;
                self.open -= 1;
            } else {
                self.pending.push_back(item);
            }
        }
    }
}

#[cfg(test)]
mod tests;
