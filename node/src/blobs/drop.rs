//! Taking files of the blob store away that no row names any more.
//!
//! The vault forgets places first, in a transaction; then the files behind them go, if nothing else is in them. A pack
//! of which less than half is still named is written anew with what is. What is added while this goes on stays: an
//! import that began before the places were forgotten may be about to name it. Each file that may have to go is in a
//! table until it has been looked at, so that a crash in between leaves nothing behind.
//!
//! Deleting by `FsStore` itself is only its own garbage collection over all tags, so its files are removed by path, as
//! they are read: a blob that is added again is written again.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use coffer_crdt::chunks::ChunkRoot;
use coffer_protocol::frame;
use coffer_protocol::identity::Hash;
use tokio::sync::OwnedMutexGuard;

use super::error::{BlobsError, WriteError};
use super::pins::Hold;
use super::placement::Placement;
use super::sources::Fetch;
use super::store::Keeper;
use super::{Blobs, Shared, read};

/// Files of the store are being taken away; one of these at a time.
pub struct Dropping {
    shared: Arc<Shared>,
    _turn: OwnedMutexGuard<()>,
}

/// What became of files that were looked at.
#[derive(Debug, Default)]
pub struct Dropped {
    /// Bytes that were freed.
    pub freed: u64,
    /// Where blobs are now that were in packs hardly used any more: to be committed.
    pub moved: Vec<(Hash, Placement)>,
    /// Where they were: to be forgotten in the same transaction.
    pub left: Vec<(Hash, Placement)>,
    /// Those packs: to be looked at again after it.
    pub packs: Vec<Hash>,
    /// Keeps the new packs until then.
    pub hold: Hold,
}

impl Blobs {
    /// Begins to take files away; before the transaction that forgets their places.
    pub async fn begin_dropping(&self) -> Dropping {
        let turn = Arc::clone(&self.shared.store.dropping).lock_owned().await;
        self.shared.store.watch_added(true);
        Dropping {
            shared: Arc::clone(&self.shared),
            _turn: turn,
        }
    }

    /// The blobs of each content: its chunks and the pieces of their list, as far as all of that list is here.
    pub async fn blobs_of(&self, roots: &[ChunkRoot]) -> Vec<Result<Vec<Hash>, WriteError>> {
        let (hold, (mut done, mut rows)) = (self.shared.pins.hold(), Default::default());
        let nobody = Fetch::nobody();
        let expanded =
            read::expand::<false>(&self.shared, roots, &nobody, &hold, &mut done, &mut rows).await;
        roots
            .iter()
            .zip(expanded)
            .map(|(root, chunks)| {
                let mut blobs: Vec<Hash> = chunks?.iter().map(|chunk| chunk.blob).collect();
                if let ChunkRoot::Indirect { list, .. } = root {
                    blobs.extend(list.chunks.iter().map(|piece| Hash(piece.blob)));
                }
                Ok(blobs)
            })
            .collect()
    }

    /// The bytes that these places in the blob store take.
    pub async fn places_len(&self, places: Vec<(Hash, Placement)>) -> Result<u64, BlobsError> {
        self.blocking(move |shared| {
            let mut bytes = 0;
            for (blob, place) in places {
                bytes += match place {
                    Placement::Store => shared.store.len(&blob),
                    place => packed_len(&place),
                };
            }
            Ok(bytes)
        })
        .await
    }

    /// The places of blobs in the blob store.
    pub async fn stored_places(
        &self,
        blobs: HashSet<Hash>,
    ) -> Result<Vec<(Hash, Placement)>, BlobsError> {
        self.blocking(move |shared| {
            let reader = shared.reader()?;
            let mut found = Vec::new();
            for blob in blobs {
                let places = reader.places(&blob)?.into_iter();
                found.extend(
                    places
                        .filter(|place| file_of(&blob, place).is_some())
                        .map(|place| (blob, place)),
                );
            }
            Ok(found)
        })
        .await
    }
}

/// The file of the blob store that a place is in.
pub fn file_of(blob: &Hash, place: &Placement) -> Option<Hash> {
    match place {
        Placement::Store => Some(*blob),
        Placement::Pack { pack, .. } => Some(Hash(*pack)),
        Placement::File { .. } | Placement::Kept { .. } => None,
    }
}

impl Dropping {
    /// Takes those of `files` away in which nothing is named any more.
    pub async fn take_away(&self, files: Vec<Hash>) -> Result<Dropped, BlobsError> {
        let shared = Arc::clone(&self.shared);
        let work = move || take_away(&shared, &files.into_iter().collect());
        match tokio::task::spawn_blocking(work).await {
            Ok(dropped) => dropped,
            Err(error) => Err(BlobsError::Store(error.to_string())),
        }
    }
}

impl Drop for Dropping {
    fn drop(&mut self) {
        self.shared.store.watch_added(false);
    }
}

/// Blocking. Walks the whole table of places once.
fn take_away(shared: &Shared, files: &BTreeSet<Hash>) -> Result<Dropped, BlobsError> {
    let mut dropped = Dropped {
        hold: shared.pins.hold(),
        ..Dropped::default()
    };
    if files.is_empty() {
        return Ok(dropped);
    }
    let mut named: BTreeMap<Hash, Vec<(Hash, Placement)>> = BTreeMap::new();
    shared.reader()?.for_each(|blob, place| {
        if let Some(file) = file_of(&blob, place).filter(|file| files.contains(file)) {
            let inside = named.entry(file).or_default();
            inside.push((blob, place.clone()));
        }
    })?;
    let keeper = Keeper::new(dropped.hold.clone());
    for file in files {
        let Some(inside) = named.get(file) else {
            let in_use = |file: &Hash| shared.pins.is_pinned(&file.0);
            dropped.freed += shared.store.remove_unless_added(file, in_use)?;
            continue;
        };
        let used: u64 = inside.iter().map(|(_, place)| packed_len(place)).sum();
        let is_pack = used > 0;
        if is_pack && used < shared.store.len(file) / 2 && keep_anew(shared, &keeper, inside)? {
            dropped.left.extend(inside.iter().cloned());
            dropped.packs.push(*file);
        }
    }
    dropped.moved = keeper.flush(&shared.store)?;
    Ok(dropped)
}

/// Bytes of a pack that a place takes; 0 where it is not in one.
fn packed_len(place: &Placement) -> u64 {
    match place {
        Placement::Pack { len, .. } => u64::from(*len),
        _ => 0,
    }
}

/// Puts what is named in a pack into another; false if a part of it is damaged, which is for others to find out.
fn keep_anew(
    shared: &Shared,
    keeper: &Keeper,
    inside: &[(Hash, Placement)],
) -> Result<bool, BlobsError> {
    let mut frames = Vec::with_capacity(inside.len());
    for (blob, place) in inside {
        let mut sealed = Vec::new();
        if !shared.store.read(blob, place, &mut sealed)? || frame::blob_id(&sealed) != *blob {
            return Ok(false);
        }
        frames.push((*blob, sealed));
    }
    for (blob, sealed) in frames {
        keeper.keep(&shared.store, blob, &sealed)?;
    }
    Ok(true)
}
