//! What the collector needs of this room: what lists name, what lies in the store, and taking it away.

use std::time::UNIX_EPOCH;

use coffer_crdt::chunks::ChunkRoot;
use coffer_protocol::frame;
use coffer_protocol::identity::Hash;

use super::content::Expansion;
use super::error::BlobsError;
use super::pins::{Claim, Collecting, Hold};
use super::placement::Placement;
use super::seam::Seam;
use super::store::Keeper;
use super::{Blobs, Shared};

/// Files of the store removed while nothing can be added.
const REMOVED_AT_ONCE: usize = 64;

/// A file of the blob store: a blob, or a pack of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// BLAKE3 of its bytes.
    pub name: Hash,
    /// When it was written, in milliseconds since 1970.
    pub modified_ms: u64,
}

/// A blob that is to leave some of its places.
#[derive(Clone, Debug)]
pub struct Leaving {
    /// The blob.
    pub blob: Hash,
    /// The places.
    pub from: Vec<Placement>,
    /// Other places of it that may be relied on, if they give it.
    pub others: Vec<Placement>,
}

/// Blobs that left places: what is nowhere else was written into new packs, durably.
#[derive(Debug, Default)]
pub struct Repacked {
    /// Where they are now.
    pub placed: Vec<(Hash, Placement)>,
    /// Where they are to be no more.
    pub displaced: Vec<(Hash, Placement)>,
    /// Keeps the new packs until both are committed.
    pub hold: Hold,
}

impl Blobs {
    /// Begins to hold on to blobs, for a commit that names them without an import or a transfer.
    pub fn hold(&self) -> Hold {
        self.shared.pins.hold()
    }

    /// Holds on to all that a content is made of, as far as it is here; and how many of its chunks are not.
    ///
    /// # Errors
    /// As [`Blobs::expand`].
    pub async fn hold_content(
        &self,
        root: &ChunkRoot,
        fetch: &super::Fetch,
    ) -> Result<(Hold, usize), super::WriteError> {
        let hold = self.hold();
        // What stands in the document first: it is what the list is read from.
        hold.pin_all(&super::content::named(root.list())?).await;
        let chunks = self.expand(root, fetch).await?;
        hold.pin_all(&chunks).await;
        let missing = self.missing(&chunks)?.len();
        Ok((hold, missing))
    }

    /// Pins outlive their holds until this is dropped.
    pub(crate) fn collecting(&self) -> Collecting {
        self.shared.pins.collecting()
    }

    /// Claims those of `blobs` that nobody is about to name; the others are taken from the list.
    pub(crate) fn claim<T>(&self, blobs: &mut Vec<(Hash, T)>) -> Claim {
        self.shared.pins.claim(blobs, |(blob, _)| blob.0)
    }

    /// Calls `add` for every blob that a content is made of: pieces of its list, and chunks. Of a list that was never
    /// here, for what is known of it; says whether that is all. Blocking.
    ///
    /// # Errors
    /// [`BlobsError::Store`] where a piece should be here and cannot be read.
    pub(crate) fn names_of(
        &self,
        root: &ChunkRoot,
        mut add: impl FnMut(&Hash),
    ) -> Result<bool, BlobsError> {
        let Ok(mut expansion) = Expansion::of(root) else {
            return Ok(false);
        };
        let reader = self.shared.reader()?;
        let mut seam = Seam::new(&self.shared)?;
        let mut plain = Vec::new();
        loop {
            match expansion {
                Expansion::Chunks(chunks) => {
                    chunks.iter().for_each(|chunk| add(&chunk.blob));
                    return Ok(true);
                }
                Expansion::Pieces(pieces, depth) => {
                    pieces.iter().for_each(|piece| add(&piece.blob));
                    let mut bytes = Vec::new();
                    for piece in &pieces {
                        if seam.plain(piece, &mut plain)?.is_none() {
                            return match reader.has(&piece.blob)? {
                                true => Err(BlobsError::Store(format!(
                                    "the list piece {} is damaged or gone",
                                    piece.blob
                                ))),
                                false => Ok(false),
                            };
                        }
                        bytes.extend_from_slice(&plain);
                    }
                    // A list that a faulty device wrote can be read by nobody.
                    let Ok(next) = Expansion::next(&bytes, depth) else {
                        return Ok(false);
                    };
                    expansion = next;
                }
            }
        }
    }

    /// Whether a blob has a place on this device, looked at or not.
    pub(crate) fn is_here(&self, blob: &Hash) -> Result<bool, BlobsError> {
        Ok(self.shared.reader()?.has(blob)?)
    }

    /// The length of a file of the store; 0 if it is not there.
    pub(crate) fn stored_len(&self, name: &Hash) -> u64 {
        self.shared.store.len(name)
    }

    /// All files of the store. Blocking.
    pub(crate) fn stored_files(&self) -> Result<Vec<StoredFile>, BlobsError> {
        let mut files = Vec::new();
        for (name, meta) in self.shared.store.files()? {
            let modified = meta.modified()?.duration_since(UNIX_EPOCH);
            files.push(StoredFile {
                name,
                modified_ms: modified.map_or(0, |since| since.as_millis() as u64),
            });
        }
        Ok(files)
    }

    /// Removes files of the store that no row names, unless somebody is about to use them; gives the bytes.
    pub(crate) async fn remove_files(&self, files: Vec<Hash>) -> Result<u64, BlobsError> {
        let mut bytes = 0;
        for batch in files.chunks(REMOVED_AT_ONCE) {
            let pins = &self.shared.pins;
            let removed = self
                .shared
                .store
                .remove(batch, |file| pins.is_pinned(&file.0));
            bytes += removed.await?;
        }
        Ok(bytes)
    }

    /// Has blobs leave places. Those that no other place gives are written into new packs; what cannot be read is left
    /// where it is.
    pub(crate) async fn repack(&self, leaving: Vec<Leaving>) -> Result<Repacked, BlobsError> {
        self.blocking(move |shared| repack(shared, leaving)).await
    }
}

fn repack(shared: &Shared, leaving: Vec<Leaving>) -> Result<Repacked, BlobsError> {
    let hold = shared.pins.hold();
    let keeper = Keeper::new(hold.clone());
    let mut seam = Seam::new(shared)?;
    let mut displaced = Vec::with_capacity(leaving.len());
    let mut sealed = Vec::new();
    for Leaving { blob, from, others } in leaving {
        let mut gives = |place: &Placement| {
            sealed.clear();
            match place.is_in_store() {
                true => {
                    let read = shared.store.read(&blob, place, &mut sealed);
                    read.is_ok_and(|read| read && frame::blob_id(&sealed) == blob)
                }
                false => seam.check(&blob, place, &mut sealed),
            }
        };
        if !others.iter().any(&mut gives) {
            if !from.iter().any(&mut gives) {
                continue;
            }
            keeper.keep(&shared.store, blob, &sealed)?;
        }
        displaced.extend(from.into_iter().map(|place| (blob, place)));
    }
    Ok(Repacked {
        placed: keeper.flush(&shared.store)?,
        displaced,
        hold,
    })
}
