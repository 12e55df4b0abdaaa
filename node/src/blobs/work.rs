//! The workers of a transfer: threads that check, open and hand on what was received, and read what is here.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, TryLockError};

use coffer_protocol::frame;
use tokio::sync::mpsc;

use super::board::{Item, Peer};
use super::error::WriteError;
use super::seam::Seam;
use super::sources::Progress;
use super::transfer::{Arrived, DELIVERIES, Delivery, Sink, Transfer};
use super::{lock, workers};

/// Chunks read on this device by one seam, before a new one sees newer rows.
const LOCAL_RUN: usize = 64;

/// What a worker works with.
#[derive(Default)]
struct Desk {
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

impl<S: Sink> Transfer<S> {
    /// A worker's life: what was received goes before what is here, so that the network never waits.
    pub(super) fn work(&self, deliveries: &Mutex<mpsc::Receiver<Delivery>>) {
        let mut desk = Desk::default();
        loop {
            let received = match deliveries.try_lock() {
                Ok(mut deliveries) => deliveries.try_recv().ok(),
                Err(TryLockError::WouldBlock) => None,
                Err(TryLockError::Poisoned(_)) => return,
            };
            if let Some(delivery) = received {
                self.receive(delivery, &mut desk);
                continue;
            }
            if self.read_local(&mut desk) {
                continue;
            }
            let received = match deliveries.lock() {
                Ok(mut deliveries) => deliveries.blocking_recv(),
                Err(_) => return,
            };
            match received {
                Some(delivery) => self.receive(delivery, &mut desk),
                None => return,
            }
        }
    }

    /// Reads a run of chunks on this device; false when there are none left.
    fn read_local(&self, desk: &mut Desk) -> bool {
        let mut seam = None;
        for _ in 0..LOCAL_RUN {
            let Some(item) = self.board.next_local() else {
                return seam.is_some();
            };
            let seam = seam.get_or_insert_with(|| Seam::new(&self.shared).ok());
            let named = &self.wanted[item as usize];
            let read = match seam {
                Some(seam) => seam.plain(named, &mut desk.plain).unwrap_or(None),
                None => None,
            };
            match read {
                Some(origin) => {
                    self.local_bytes
                        .fetch_add(u64::from(named.len), Ordering::Relaxed);
                    let arrived = Arrived {
                        named,
                        plain: &desk.plain,
                        sealed: None,
                        local: Some(origin),
                    };
                    self.take(item, &arrived);
                }
                None => self.board.not_local(item),
            }
        }
        true
    }

    fn receive(&self, mut delivery: Delivery, desk: &mut Desk) {
        for (item, start, len) in std::mem::take(&mut delivery.parts) {
            let sealed = &mut delivery.buffer[start..start + len];
            self.open(item, delivery.peer, sealed, desk);
        }
        let mut buffers = lock(&self.buffers);
        if buffers.len() < DELIVERIES + workers() {
            buffers.push(delivery.buffer);
        }
    }

    /// Checks one received blob, opens it, and gives it to the sink.
    fn open(&self, item: Item, peer: Peer, sealed: &mut [u8], desk: &mut Desk) {
        let named = &self.wanted[item as usize];
        if frame::blob_id(sealed) != named.blob {
            self.board.ban(
                peer,
                Some(item),
                "it sent bytes that are not the blob asked for",
            );
            return;
        }
        let len = sealed.len();
        // The blob is the one named. What is wrong from here on is wrong in the list that names it.
        if len != named.sealed_len as usize {
            return self.fail(item, &WriteError::BadList);
        }
        let Some(epoch) = self.keyring.epoch(&named.epoch) else {
            return self.fail(item, &WriteError::NoKey(named.epoch));
        };
        let copied = S::SEALED
            || len != frame::sealed_len(named.len as usize)
            || self.disguised().contains(&item);
        if copied {
            desk.sealed.clear();
            desk.sealed.extend_from_slice(sealed);
        }
        desk.plain.clear();
        let opened = frame::open_frame(
            sealed,
            &named.expected(),
            self.keyring.secret(),
            epoch,
            &mut desk.plain,
        )
        .map(<[u8]>::as_ptr_range);
        let (plain, compressed) = match opened {
            Ok(range) if range == desk.plain.as_ptr_range() => (&desk.plain[..], true),
            Ok(_) => (&sealed[frame::FRAME_HEADER_LEN..], false),
            Err(_) => return self.fail(item, &WriteError::BadList),
        };
        let Some(plain) = plain.get(..named.len as usize) else {
            return self.fail(item, &WriteError::BadList);
        };
        if compressed && !copied {
            self.disguised().insert(item);
            return self.board.again(item);
        }
        self.fetched_blobs.fetch_add(1, Ordering::Relaxed);
        self.fetched_bytes.fetch_add(len as u64, Ordering::Relaxed);
        Progress::add(&self.progress.fetched_bytes, u64::from(named.len));
        let arrived = Arrived {
            named,
            plain,
            sealed: (S::SEALED || compressed).then_some(&desk.sealed),
            local: None,
        };
        self.take(item, &arrived);
    }

    fn take(&self, item: Item, arrived: &Arrived<'_>) {
        self.sink.take(item, arrived);
        self.ended(item);
    }

    fn fail(&self, item: Item, why: &WriteError) {
        self.sink.fail(item, why);
        self.ended(item);
    }

    /// Of many small files each would else wake who flushes, who would find that it is too soon.
    fn ended(&self, item: Item) {
        self.board.ended(item);
        if self.sink.ready() {
            self.taken.notify_one();
        }
    }

    fn disguised(&self) -> MutexGuard<'_, HashSet<Item>> {
        lock(&self.disguised)
    }
}
