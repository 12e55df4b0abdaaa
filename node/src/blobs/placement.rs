//! Where the bytes of each blob are on this device, and which chunks it can name again.
//!
//! Two tables of the one vault database. The vault writes their rows in the transaction that names the blobs, so that a
//! document and the bytes that it names become visible together; [`super`] only ever reads them. A row is a list of up to
//! [`MAX_PLACES`] places, newest first: equal data is often at several places (two copies of a file in a folder), and the
//! blob is lost only with the last of them. A place is a claim, not a proof: whoever reads through it checks hashes.

mod reader;
#[cfg(test)]
mod tests;
mod walk;

pub use reader::Reader;

use std::collections::BTreeSet;

use coffer_protocol::codec::{self, CodecError, List};
use coffer_protocol::identity::{EpochId, Hash};
use redb::{ReadableTable, Table, TableDefinition, TableError, WriteTransaction};
use serde::{Deserialize, Serialize};

/// Blob → its places (postcard of version byte and list).
pub const PLACEMENT: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("placement_1");
/// Chunk id → the sealed form under which it was last named, [`ChunkRow`].
pub const CHUNKS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("chunks_1");

/// Most places kept for one blob. More copies of the same data add nothing to its safety, and each costs a read attempt
/// when it has gone stale; the oldest falls out.
pub const MAX_PLACES: usize = 8;

/// Shortest chunk for which a folder's file has a row in [`CHUNKS`], in bytes. Without one equal data is sealed again: under the
/// same epoch that gives the same blob, and under another one it costs less than the row, of which a large folder of tiny
/// files would have as many as it has files.
const SHORTEST_ROW: u32 = 1024;

/// Whether a chunk that lies in a file is to be found by its id.
pub(super) fn is_worth_a_row(len: u32) -> bool {
    len >= SHORTEST_ROW
}

/// Version of both kinds of row: their first field.
const ROW_VERSION: u16 = 1;

/// Most bytes of a row: eight places of about 110 bytes, and room.
const MAX_ROW: usize = 2048;

/// One place where the bytes of a blob are, or can be made from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Placement {
    /// A blob of its own in the blob store.
    Store,
    /// A range of a pack, itself a blob in the store.
    Pack {
        /// BLAKE3 of the pack.
        pack: [u8; 32],
        /// Where the sealed frame begins, in bytes.
        offset: u32,
        /// Its length in bytes.
        len: u32,
    },
    /// A range of a file in a synced folder: plaintext, sealed again on demand as an uncompressed frame.
    File {
        /// Number of the synced folder.
        root: u32,
        /// The file's id.
        file: [u8; 16],
        /// Where the chunk begins, in bytes.
        offset: u64,
        /// Its plaintext length in bytes.
        len: u32,
        /// Frame id that the sealed bytes must have.
        frame: [u8; 32],
        /// Epoch under which it is sealed.
        epoch: [u8; 32],
    },
    /// The same, in a file that a synced folder moved aside.
    Kept {
        /// Number of the synced folder.
        root: u32,
        /// Name of the file in the folder's place for kept files.
        name: [u8; 24],
        /// Where the chunk begins, in bytes.
        offset: u64,
        /// Its plaintext length in bytes.
        len: u32,
        /// Frame id that the sealed bytes must have.
        frame: [u8; 32],
        /// Epoch under which it is sealed.
        epoch: [u8; 32],
    },
}

impl Placement {
    /// Whether the blob store has the bytes.
    pub fn is_in_store(&self) -> bool {
        matches!(self, Placement::Store | Placement::Pack { .. })
    }

    /// Whether a file of one of these synced folders has them.
    pub fn is_in_folder(&self, folders: &BTreeSet<u32>) -> bool {
        matches!(self, Placement::File { root, .. } if folders.contains(root))
    }

    /// The same range of a synced file once that is another one, `file`; other places stay what they are.
    pub fn in_file(self, file: [u8; 16]) -> Placement {
        match self {
            Placement::File {
                root,
                offset,
                len,
                frame,
                epoch,
                ..
            } => Placement::File {
                root,
                file,
                offset,
                len,
                frame,
                epoch,
            },
            other => other,
        }
    }

    /// The same range of a synced file once that is moved aside as `name`; other places stay what they are.
    pub fn in_kept(self, name: [u8; 24]) -> Placement {
        match self {
            Placement::File {
                root,
                offset,
                len,
                frame,
                epoch,
                ..
            } => Placement::Kept {
                root,
                name,
                offset,
                len,
                frame,
                epoch,
            },
            other => other,
        }
    }
}

/// The sealed form of a chunk that this device holds or held: enough to name it again without sealing it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRow {
    /// Frame id.
    pub frame: Hash,
    /// BLAKE3 of the ciphertext.
    pub blob: Hash,
    /// Plaintext length in bytes.
    pub len: u32,
    /// Ciphertext length in bytes.
    pub sealed_len: u32,
    /// The epoch under which it was sealed.
    pub epoch: EpochId,
}

/// Rows for the vault to commit with the documents that name these blobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// A place more for each blob.
    pub placements: Vec<(Hash, Placement)>,
    /// What the chunks are named as.
    pub chunks: Vec<(Hash, ChunkRow)>,
}

impl Rows {
    /// Adds the rows of `other` to these.
    pub fn append(&mut self, mut other: Rows) {
        self.placements.append(&mut other.placements);
        self.chunks.append(&mut other.chunks);
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.placements.is_empty() && self.chunks.is_empty()
    }
}

/// Why placement rows could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PlacementError {
    /// The database failed.
    #[error("the placement tables failed: {0}")]
    Database(#[from] redb::Error),
    /// A row is not what this program, or a later one, wrote.
    #[error("the row of {id} does not decode: {reason}")]
    Damaged {
        /// The row's key: a blob or a chunk id.
        id: Hash,
        /// What is wrong with it.
        reason: CodecError,
    },
}

impl From<redb::StorageError> for PlacementError {
    fn from(error: redb::StorageError) -> Self {
        Self::Database(error.into())
    }
}

impl From<TableError> for PlacementError {
    fn from(error: TableError) -> Self {
        Self::Database(error.into())
    }
}

impl From<redb::TransactionError> for PlacementError {
    fn from(error: redb::TransactionError) -> Self {
        Self::Database(error.into())
    }
}

#[derive(Serialize, Deserialize)]
struct PlacesRow {
    version: u16,
    #[serde(with = "List::<MAX_PLACES>")]
    places: Vec<Placement>,
}

fn encode_places(places: Vec<Placement>) -> Vec<u8> {
    codec::encode(&PlacesRow {
        version: ROW_VERSION,
        places,
    })
}

/// Reads a value of [`PLACEMENT`]: newest place first.
pub fn decode_places(bytes: &[u8]) -> Result<Vec<Placement>, CodecError> {
    codec::decode_versioned::<PlacesRow>(bytes, MAX_ROW, ROW_VERSION).map(|row| row.places)
}

/// Reads a value of [`CHUNKS`].
pub fn decode_chunk(bytes: &[u8]) -> Result<ChunkRow, CodecError> {
    codec::decode_versioned::<(u16, ChunkRow)>(bytes, MAX_ROW, ROW_VERSION).map(|(_, row)| row)
}

/// Writes rows: `Some` adds a place to a blob (it becomes the first that is tried), `None` removes all of them.
///
/// Both tables are opened, and made if they are not there. Rows go in by their keys: those of many contents lie all over a
/// table, and neighbours share a page.
pub fn apply<'a>(
    transaction: &WriteTransaction,
    placements: impl IntoIterator<Item = (&'a Hash, Option<&'a Placement>)>,
    chunks: impl IntoIterator<Item = (&'a Hash, &'a ChunkRow)>,
) -> Result<(), PlacementError> {
    let mut table = transaction.open_table(PLACEMENT)?;
    let mut placements: Vec<_> = placements.into_iter().collect();
    placements.sort_by_key(|(blob, _)| *blob);
    for (blob, place) in placements {
        let Some(place) = place else {
            table.remove(&blob.0)?;
            continue;
        };
        let mut places = stored_places(&table, blob)?;
        if places.first() == Some(place) {
            continue;
        }
        places.retain(|known| known != place);
        places.insert(0, place.clone());
        places.truncate(MAX_PLACES);
        table.insert(&blob.0, &*encode_places(places))?;
    }
    let mut table = transaction.open_table(CHUNKS)?;
    let mut chunks: Vec<_> = chunks.into_iter().collect();
    chunks.sort_by_key(|(id, _)| *id);
    for (id, row) in chunks {
        table.insert(&id.0, &*codec::encode(&(ROW_VERSION, row)))?;
    }
    Ok(())
}

/// Writes the rows of an import or a transfer.
pub fn write(transaction: &WriteTransaction, rows: &Rows) -> Result<(), PlacementError> {
    apply(
        transaction,
        rows.placements
            .iter()
            .map(|(blob, place)| (blob, Some(place))),
        rows.chunks.iter().map(|(id, row)| (id, row)),
    )
}

/// Removes single places that turned out to be wrong or are about to go; a blob's row goes with its last place.
pub fn forget<'a>(
    transaction: &WriteTransaction,
    wrong: impl IntoIterator<Item = (&'a Hash, &'a Placement)>,
) -> Result<(), PlacementError> {
    let mut table = transaction.open_table(PLACEMENT)?;
    for (blob, place) in wrong {
        change_places(&mut table, blob, |known| {
            (known != place).then(|| known.clone())
        })?;
    }
    Ok(())
}

/// Removes the places in the blob store of blobs that also lie in one of these synced folders; gives those blobs.
pub fn leave_to_folders<'a>(
    transaction: &WriteTransaction,
    folders: &BTreeSet<u32>,
    blobs: impl IntoIterator<Item = &'a Hash>,
) -> Result<Vec<Hash>, PlacementError> {
    let mut table = transaction.open_table(PLACEMENT)?;
    let mut left = Vec::new();
    for blob in blobs {
        let places = stored_places(&table, blob)?;
        if is_doubled(&places, folders) {
            change_places(&mut table, blob, |known| {
                (!known.is_in_store()).then(|| known.clone())
            })?;
            left.push(*blob);
        }
    }
    Ok(left)
}

/// Whether the blob store has what lies in one of these synced folders too.
pub fn is_doubled(places: &[Placement], folders: &BTreeSet<u32>) -> bool {
    let in_folder = places.iter().any(|place| place.is_in_folder(folders));
    in_folder && places.iter().any(Placement::is_in_store)
}

/// Follows a synced file that the folder engine moved aside: places in it become places in the kept file.
pub fn moved_aside<'a>(
    transaction: &WriteTransaction,
    blobs: impl IntoIterator<Item = &'a Hash>,
    (folder, id): (u32, [u8; 16]),
    kept: [u8; 24],
) -> Result<(), PlacementError> {
    let mut table = transaction.open_table(PLACEMENT)?;
    for blob in blobs {
        change_places(&mut table, blob, |known| match *known {
            Placement::File { root, file, .. } if (root, file) == (folder, id) => {
                Some(known.clone().in_kept(kept))
            }
            _ => Some(known.clone()),
        })?;
    }
    Ok(())
}

/// Removes the places of `blobs` in one synced file, as before it is overwritten or when it has gone.
pub fn left_file<'a>(
    transaction: &WriteTransaction,
    blobs: impl IntoIterator<Item = &'a Hash>,
    (folder, id): (u32, [u8; 16]),
) -> Result<(), PlacementError> {
    let mut table = transaction.open_table(PLACEMENT)?;
    for blob in blobs {
        change_places(&mut table, blob, |known| match *known {
            Placement::File { root, file, .. } if (root, file) == (folder, id) => None,
            _ => Some(known.clone()),
        })?;
    }
    Ok(())
}

fn change_places(
    table: &mut Table<'_, &'static [u8; 32], &'static [u8]>,
    blob: &Hash,
    change: impl Fn(&Placement) -> Option<Placement>,
) -> Result<(), PlacementError> {
    let places = stored_places(table, blob)?;
    let mut changed: Vec<Placement> = Vec::with_capacity(places.len());
    for place in places.iter().filter_map(change) {
        if !changed.contains(&place) {
            changed.push(place);
        }
    }
    if changed == places {
        return Ok(());
    }
    if changed.is_empty() {
        table.remove(&blob.0)?;
    } else {
        table.insert(&blob.0, &*encode_places(changed))?;
    }
    Ok(())
}

fn stored_places(
    table: &impl ReadableTable<&'static [u8; 32], &'static [u8]>,
    blob: &Hash,
) -> Result<Vec<Placement>, PlacementError> {
    match table.get(&blob.0)? {
        Some(row) => decode_places(row.value())
            .map_err(|reason| PlacementError::Damaged { id: *blob, reason }),
        None => Ok(Vec::new()),
    }
}
