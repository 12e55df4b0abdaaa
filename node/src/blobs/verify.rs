//! Reading what is kept, to find what has gone bad: piece by piece, in the order of the blobs' ids, so that it can be
//! taken up again anywhere.
//!
//! A place in the blob store is damaged if the bytes there do not hash to the blob, or cannot be read. A place in a file of
//! a synced folder is damaged only if the file is still the one that was read: of one that was changed the folder engine
//! knows, or will soon. Nothing is changed here; the vault forgets what was found wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coffer_protocol::frame;
use coffer_protocol::identity::Hash;

use super::content::Named;
use super::error::{BlobsError, WriteError};
use super::pins::Hold;
use super::placement::{Placement, Rows};
use super::read::gather;
use super::seam::Seam;
use super::sources::Fetch;
use super::{Blobs, Shared};

/// Blobs whose rows are read at a time.
const ROWS: usize = 256;

/// Plaintext bytes that are fetched again at a time: they are in memory meanwhile.
const RESTORE_BYTES: u64 = 32 << 20;

/// Whether a file of a synced folder (number, id) is the one that was read, unchanged.
pub type AtRest = Arc<dyn Fn(u32, &[u8; 16]) -> bool + Send + Sync>;

/// What a stretch of a check found.
#[derive(Debug, Default)]
pub struct Verified {
    /// The last blob that was looked at; absent at the end of all.
    pub last: Option<Hash>,
    /// Places that were read and are good, or are damaged.
    pub places: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Places in files that have changed, or that cannot be read just now.
    pub in_use: u64,
    /// Damaged places.
    pub damaged: Vec<(Hash, Placement)>,
}

enum State {
    Good,
    Damaged,
    InUse,
}

impl Blobs {
    /// Checks the blobs behind `after` (all, if absent), until about `max_bytes` were read.
    ///
    /// # Errors
    /// [`BlobsError`] when the placement tables cannot be read, or the system gives no more files or memory.
    pub async fn verify(
        &self,
        after: Option<Hash>,
        max_bytes: u64,
        at_rest: AtRest,
    ) -> Result<Verified, BlobsError> {
        self.blocking(move |shared| verify(shared, after, max_bytes, &at_rest))
            .await
    }

    /// How many blobs have a place on this device.
    ///
    /// # Errors
    /// [`BlobsError`] when the placement tables cannot be read.
    pub fn count(&self) -> Result<u64, BlobsError> {
        Ok(self.shared.reader()?.count()?)
    }

    /// Those of `blobs` of which no place is known here.
    ///
    /// # Errors
    /// [`BlobsError`] when the placement tables cannot be read.
    pub fn without_place(&self, blobs: &BTreeSet<Hash>) -> Result<BTreeSet<Hash>, BlobsError> {
        let reader = self.shared.reader()?;
        let mut gone = BTreeSet::new();
        for blob in blobs {
            if !reader.has(blob)? {
                gone.insert(*blob);
            }
        }
        Ok(gone)
    }

    /// Blobs of which no place is left here once these are forgotten.
    ///
    /// # Errors
    /// [`BlobsError`] when the placement tables cannot be read.
    pub fn lost_with(&self, places: &[(Hash, Placement)]) -> Result<BTreeSet<Hash>, BlobsError> {
        let mut going: BTreeMap<Hash, BTreeSet<&Placement>> = BTreeMap::new();
        for (blob, place) in places {
            going.entry(*blob).or_default().insert(place);
        }
        let reader = self.shared.reader()?;
        let mut lost = BTreeSet::new();
        for (blob, going) in going {
            let known = reader.places(&blob)?;
            if known.iter().all(|place| going.contains(place)) {
                lost.insert(blob);
            }
        }
        Ok(lost)
    }

    /// What is needed to open those of `blobs` that were once named as chunks on this device. Walks a whole table.
    ///
    /// # Errors
    /// [`BlobsError`] when the placement tables cannot be read.
    pub async fn chunks_named(&self, blobs: BTreeSet<Hash>) -> Result<Vec<Named>, BlobsError> {
        let rows =
            self.blocking(move |shared| Ok::<_, BlobsError>(shared.reader()?.chunks_of(&blobs)?));
        let name = |(id, row): (Hash, super::ChunkRow)| Named {
            id,
            frame: row.frame,
            blob: row.blob,
            len: row.len,
            sealed_len: row.sealed_len,
            epoch: row.epoch,
        };
        Ok(rows.await?.into_iter().map(name).collect())
    }

    /// Fetches `chunks` into the blob store, as far as they have no place here. Gives where they are now, durable, to be
    /// committed together with the hold that keeps them until then.
    ///
    /// # Errors
    /// [`WriteError`] when the placement tables cannot be read.
    pub async fn restore(
        &self,
        chunks: &[Named],
        fetch: &Fetch,
    ) -> Result<(Rows, Hold), WriteError> {
        let (mut rows, hold) = (Rows::default(), self.shared.pins.hold());
        let mut rest = chunks;
        while !rest.is_empty() {
            let mut bytes = 0;
            let lot = rest.iter().take_while(|chunk| {
                bytes += u64::from(chunk.len);
                bytes <= RESTORE_BYTES
            });
            let (now, later) = rest.split_at(lot.count().max(1));
            let mut done = super::Transferred::default();
            gather::<true>(&self.shared, now, fetch, &hold, &mut done, &mut rows).await?;
            rest = later;
        }
        Ok((rows, hold))
    }
}

fn verify(
    shared: &Shared,
    mut after: Option<Hash>,
    max_bytes: u64,
    at_rest: &AtRest,
) -> Result<Verified, BlobsError> {
    let mut found = Verified::default();
    loop {
        let blobs = shared.reader()?.behind(after.as_ref(), ROWS)?;
        let mut seam = Seam::new(shared)?;
        let mut buffer = Vec::new();
        let ended = blobs.len() < ROWS;
        for (blob, places) in blobs {
            for place in places {
                buffer.clear();
                match look(shared, &mut seam, &blob, &place, at_rest, &mut buffer)? {
                    State::Good => found.places += 1,
                    State::InUse => found.in_use += 1,
                    State::Damaged => {
                        found.places += 1;
                        found.damaged.push((blob, place));
                    }
                }
                found.bytes += buffer.len() as u64;
            }
            after = Some(blob);
            if found.bytes >= max_bytes {
                found.last = after;
                return Ok(found);
            }
        }
        if ended {
            return Ok(found);
        }
    }
}

fn look(
    shared: &Shared,
    seam: &mut Seam<'_>,
    blob: &Hash,
    place: &Placement,
    at_rest: &AtRest,
    buffer: &mut Vec<u8>,
) -> Result<State, BlobsError> {
    match place {
        Placement::Store | Placement::Pack { .. } => {
            match shared.store.read(blob, place, buffer) {
                Ok(true) if frame::blob_id(buffer) == *blob => Ok(State::Good),
                Ok(_) => Ok(State::Damaged),
                // A sector that the disk cannot read any more.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(State::Damaged),
                Err(error) => Err(error.into()),
            }
        }
        Placement::File {
            root, file, epoch, ..
        } => {
            let usable = |seam: &Seam<'_>| seam.has_epoch(epoch) && at_rest(*root, file);
            if !usable(seam) {
                return Ok(State::InUse);
            }
            match seam.check(blob, place, buffer) {
                true => Ok(State::Good),
                // Changed meanwhile, or truly bad?
                false if usable(seam) && seam.can_open(place) => Ok(State::Damaged),
                false => Ok(State::InUse),
            }
        }
        Placement::Kept { epoch, .. } => {
            if !seam.has_epoch(epoch) {
                return Ok(State::InUse);
            }
            match seam.check(blob, place, buffer) {
                true => Ok(State::Good),
                // A disk that is not mounted has not lost anything.
                false if seam.can_open(place) => Ok(State::Damaged),
                false => Ok(State::InUse),
            }
        }
    }
}
