//! A disk that forgets what was not synced.
//!
//! [`Disk`] is a redb storage backend in memory that keeps what was synced apart from what was only written. A crash
//! makes the image that a restarted machine finds: what was synced, and of the rest whatever [`Crash`] says. A fuse
//! makes every call fail from the n-th on, so that a crash hits the middle of an open, a read, a write or a sync;
//! a full disk fails one write. [`Disk::durable`] opens what a power cut at this moment would leave, without
//! touching it: the oracle for "it said so, and its disk says so too".

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::{Rng, RngExt};
use redb::StorageBackend;

/// What a write that reaches the disk in parts is cut into, in bytes: a disk writes a sector whole or not at all.
const SECTOR: usize = 512;

/// The call in which a fuse burnt through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// Reading: between the beginning of a transaction and its commit, or while opening.
    Read,
    /// Writing pages.
    Write,
    /// Growing or shrinking the file.
    Resize,
    /// Syncing: what was written before may be there or not.
    Sync,
}

impl Call {
    /// Its name in the coverage.
    pub fn name(self) -> &'static str {
        match self {
            Call::Read => "in a read, between begin and commit",
            Call::Write => "in a write of a commit",
            Call::Resize => "while the file grows",
            Call::Sync => "in the sync of a commit",
        }
    }
}

/// What becomes of writes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Crash {
    /// The program was killed: the system still has all of them.
    Killed,
    /// The power went: none is there.
    PowerLost,
    /// The power went: some are there, whatever their order.
    Reordered,
    /// The power went: of some, some sectors are there.
    Torn,
}

impl Crash {
    /// Its name in the coverage.
    pub fn name(self) -> &'static str {
        match self {
            Crash::Killed => "killed",
            Crash::PowerLost => "power lost, nothing unsynced kept",
            Crash::Reordered => "power lost, some writes kept",
            Crash::Torn => "power lost, some sectors kept",
        }
    }

    /// All of them.
    pub const ALL: [Crash; 4] = [
        Crash::Killed,
        Crash::PowerLost,
        Crash::Reordered,
        Crash::Torn,
    ];
}

enum Unsynced {
    Resize(usize),
    Write(usize, Vec<u8>),
}

#[derive(Default)]
struct State {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Unsynced>,
    syncs: u64,
    /// Calls, of this kind or of any, that still succeed.
    fuse: Option<(Option<Call>, u64)>,
    died_in: Option<Call>,
    /// Writes that still succeed; the next one after them finds the disk full.
    full_after: Option<u64>,
    was_full: bool,
}

/// A simulated disk with one file on it. Clones are the same disk.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

impl Disk {
    /// An empty disk.
    pub fn new() -> Disk {
        Disk::default()
    }

    fn with(image: Vec<u8>) -> Disk {
        let state = State {
            live: image.clone(),
            durable: image,
            ..State::default()
        };
        Disk(Arc::new(Mutex::new(state)))
    }

    /// Empties it.
    pub fn wipe(&self) {
        let mut state = self.lock();
        (state.live, state.durable, state.unsynced) = Default::default();
    }

    /// After `calls` more calls (of one kind, or of any), all fail: the machine is gone.
    pub fn light_fuse(&self, kind: Option<Call>, calls: u64) {
        self.lock().fuse = Some((kind, calls));
    }

    /// Takes the fuse out again, unless it burnt through.
    pub fn remove_fuse(&self) {
        let mut state = self.lock();
        state.fuse = None;
        state.full_after = None;
    }

    /// In which call the fuse burnt through.
    pub fn died_in(&self) -> Option<Call> {
        self.lock().died_in
    }

    /// After `writes` more writes, one fails for want of space.
    pub fn fill_up(&self, writes: u64) {
        self.lock().full_after = Some(writes);
    }

    /// Whether a write found the disk full since this was last asked.
    pub fn was_full(&self) -> bool {
        std::mem::take(&mut self.lock().was_full)
    }

    /// How often it was synced.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// What a machine finds that starts again after this crash. Whatever still uses the old disk can write no more.
    pub fn crash(&self, how: Crash, rng: &mut impl Rng) -> Disk {
        let mut state = self.lock();
        state.died_in.get_or_insert(Call::Read);
        let mut image = std::mem::take(&mut state.durable);
        let unsynced = std::mem::take(&mut state.unsynced);
        if how == Crash::Killed {
            return Disk::with(std::mem::take(&mut state.live));
        }
        for write in unsynced {
            if how == Crash::PowerLost || rng.random_bool(0.5) {
                continue;
            }
            match write {
                Unsynced::Resize(len) => image.resize(len, 0),
                Unsynced::Write(offset, bytes) => {
                    for (n, sector) in bytes.chunks(SECTOR).enumerate() {
                        if how == Crash::Reordered || rng.random_bool(0.5) {
                            put(&mut image, offset + n * SECTOR, sector);
                        }
                    }
                }
            }
        }
        Disk::with(image)
    }

    /// Another disk with what this one durably holds: somebody copied the data folder of a node that was not running.
    pub fn copy(&self) -> Disk {
        Disk::with(self.lock().durable.clone())
    }

    /// What a power cut at this moment would leave, to be looked at before the disk is written again.
    pub fn durable(&self) -> Durable {
        let len = self.lock().durable.len();
        Durable {
            disk: self.clone(),
            changed: Mutex::new(Changed {
                pages: BTreeMap::new(),
                len,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, call: Call) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        if let Some((kind, left)) = state.fuse
            && kind.is_none_or(|kind| kind == call)
        {
            if left == 0 {
                state.died_in.get_or_insert(call);
            }
            state.fuse = Some((kind, left.saturating_sub(1)));
        }
        match state.died_in {
            Some(_) => Err(io::Error::other("the machine is gone")),
            None => Ok(state),
        }
    }

    /// Whether the disk is full just now.
    fn take_space(state: &mut State) -> io::Result<()> {
        match state.full_after {
            Some(0) => {
                state.full_after = None;
                state.was_full = true;
                Err(io::ErrorKind::StorageFull.into())
            }
            Some(left) => {
                state.full_after = Some(left - 1);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn put(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[offset..end].copy_from_slice(bytes);
}

fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.call(Call::Read)?.live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.call(Call::Read)?;
        let offset = index(offset)?;
        let bytes = state
            .live
            .get(offset..offset + out.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.call(Call::Resize)?;
        Disk::take_space(&mut state)?;
        let len = index(len)?;
        state.live.resize(len, 0);
        state.unsynced.push(Unsynced::Resize(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.call(Call::Sync)?;
        let State {
            durable, unsynced, ..
        } = &mut *state;
        for write in unsynced.drain(..) {
            match write {
                Unsynced::Resize(len) => durable.resize(len, 0),
                Unsynced::Write(offset, bytes) => put(durable, offset, &bytes),
            }
        }
        state.syncs += 1;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.call(Call::Write)?;
        Disk::take_space(&mut state)?;
        let offset = index(offset)?;
        put(&mut state.live, offset, data);
        state.unsynced.push(Unsynced::Write(offset, data.to_vec()));
        Ok(())
    }
}

const PAGE: usize = 4096;

struct Changed {
    pages: BTreeMap<usize, Box<[u8; PAGE]>>,
    len: usize,
}

/// The durable image of a disk, to be opened as a database of its own: its repairs stay here.
pub struct Durable {
    disk: Disk,
    changed: Mutex<Changed>,
}

impl std::fmt::Debug for Durable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Durable")
    }
}

impl Durable {
    fn lock(&self) -> MutexGuard<'_, Changed> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes through the pages that a range touches: (page, from where in the page, from where in the range, how many bytes).
    fn spans(offset: usize, len: usize) -> impl Iterator<Item = (usize, usize, usize, usize)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let position = offset + at;
            let span = (
                position / PAGE,
                position % PAGE,
                at,
                (PAGE - position % PAGE).min(len - at),
            );
            at += span.3;
            (span.3 > 0).then_some(span)
        })
    }

    fn original(&self, page: usize) -> Box<[u8; PAGE]> {
        let mut bytes = Box::new([0; PAGE]);
        let state = self.disk.lock();
        let from = (page * PAGE).min(state.durable.len());
        let to = (from + PAGE).min(state.durable.len());
        bytes[..to - from].copy_from_slice(&state.durable[from..to]);
        bytes
    }
}

impl StorageBackend for Durable {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().len as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let changed = self.lock();
        let offset = index(offset)?;
        if offset + out.len() > changed.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (page, from, at, len) in Durable::spans(offset, out.len()) {
            let bytes = match changed.pages.get(&page) {
                Some(bytes) => bytes.clone(),
                None => self.original(page),
            };
            out[at..at + len].copy_from_slice(&bytes[from..from + len]);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.lock().len = index(len)?;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut changed = self.lock();
        let offset = index(offset)?;
        changed.len = changed.len.max(offset + data.len());
        for (page, from, at, len) in Durable::spans(offset, data.len()) {
            let bytes = changed
                .pages
                .entry(page)
                .or_insert_with(|| self.original(page));
            bytes[from..from + len].copy_from_slice(&data[at..at + len]);
        }
        Ok(())
    }
}
