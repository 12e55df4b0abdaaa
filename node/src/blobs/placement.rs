//! Where the bytes of each blob are on this device, and which chunks it can name again.
//!
//! Two tables of the one vault database. The vault writes their rows in the transaction that names the blobs, so that a
//! document and the bytes that it names become visible together; [`super`] only ever reads them. A row is a list of up to
//! [`MAX_PLACES`] places, newest first: equal data is often at several places (two copies of a file in a folder), and the
//! blob is lost only with the last of them. A place is a claim, not a proof: whoever reads through it checks hashes.

mod walk;

use std::collections::BTreeSet;

use coffer_protocol::codec::{self, CodecError, List};
use coffer_protocol::identity::{EpochId, Hash};
use redb::{
    ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableDefinition, TableError,
    WriteTransaction,
};
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

/// Both tables as of one moment.
pub struct Reader {
    placement: Option<ReadOnlyTable<&'static [u8; 32], &'static [u8]>>,
    chunks: Option<ReadOnlyTable<&'static [u8; 32], &'static [u8]>>,
}

impl Reader {
    /// Opens the tables; a database that has none yet reads as empty.
    pub fn new(transaction: &ReadTransaction) -> Result<Self, PlacementError> {
        let open = |definition| match transaction.open_table(definition) {
            Ok(table) => Ok(Some(table)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error),
        };
        Ok(Self {
            placement: open(PLACEMENT)?,
            chunks: open(CHUNKS)?,
        })
    }

    /// The places of a blob, to be tried in this order; none if it is not here.
    pub fn places(&self, blob: &Hash) -> Result<Vec<Placement>, PlacementError> {
        match &self.placement {
            Some(table) => stored_places(table, blob),
            None => Ok(Vec::new()),
        }
    }

    /// Whether a place of the blob is known.
    pub fn has(&self, blob: &Hash) -> Result<bool, PlacementError> {
        match &self.placement {
            Some(table) => Ok(table.get(&blob.0)?.is_some()),
            None => Ok(false),
        }
    }

    /// The sealed form under which a chunk was last named.
    pub fn chunk(&self, id: &Hash) -> Result<Option<ChunkRow>, PlacementError> {
        let Some(table) = &self.chunks else {
            return Ok(None);
        };
        table
            .get(&id.0)?
            .map(|row| {
                decode_chunk(row.value())
                    .map_err(|reason| PlacementError::Damaged { id: *id, reason })
            })
            .transpose()
    }

    /// Blobs that have a place in the blob store, and that place: for checks after an unclean stop. Walks the whole table.
    pub fn stored(&self) -> Result<Vec<(Hash, Placement)>, PlacementError> {
        self.select(Placement::is_in_store)
    }

    /// Blobs that have a place in a synced folder, and that place: for a folder that is no longer synced. Walks the whole
    /// table.
    pub fn in_folder(&self, number: u32) -> Result<Vec<(Hash, Placement)>, PlacementError> {
        self.select(|place| match place {
            Placement::File { root, .. } | Placement::Kept { root, .. } => *root == number,
            Placement::Store | Placement::Pack { .. } => false,
        })
    }

    fn select(
        &self,
        wanted: impl Fn(&Placement) -> bool,
    ) -> Result<Vec<(Hash, Placement)>, PlacementError> {
        let mut selected = Vec::new();
        self.for_each(|blob, place| {
            if wanted(place) {
                selected.push((blob, place.clone()));
            }
        })?;
        Ok(selected)
    }

    /// Shows every place of every blob. Walks the whole table.
    pub fn for_each(&self, mut see: impl FnMut(Hash, &Placement)) -> Result<(), PlacementError> {
        let Some(table) = &self.placement else {
            return Ok(());
        };
        for row in table.range::<&[u8; 32]>(..)? {
            let (key, value) = row?;
            let blob = Hash(*key.value());
            let places = decode_places(value.value())
                .map_err(|reason| PlacementError::Damaged { id: blob, reason })?;
            for place in &places {
                see(blob, place);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(n: u8) -> Placement {
        Placement::File {
            root: 1,
            file: [n; 16],
            offset: 300,
            len: 5,
            frame: [3; 32],
            epoch: [4; 32],
        }
    }

    #[test]
    fn rows_are_frozen() {
        let places = vec![
            Placement::Store,
            Placement::Pack {
                pack: [1; 32],
                offset: 300,
                len: 77,
            },
            file(2),
            Placement::Kept {
                root: 9,
                name: [5; 24],
                offset: 0,
                len: 1,
                frame: [6; 32],
                epoch: [7; 32],
            },
        ];
        let bytes = encode_places(places.clone());
        assert_eq!(hex(&bytes), FROZEN_PLACES);
        assert_eq!(decode_places(&bytes), Ok(places));
        let row = ChunkRow {
            frame: Hash([1; 32]),
            blob: Hash([2; 32]),
            len: 8192,
            sealed_len: 8400,
            epoch: EpochId([3; 32]),
        };
        let bytes = codec::encode(&(ROW_VERSION, &row));
        assert_eq!(hex(&bytes), FROZEN_CHUNK);
        assert_eq!(decode_chunk(&bytes), Ok(row));
    }

    const FROZEN_PLACES: &str = "010400010101010101010101010101010101010101010101010101010101010101010101ac024d02\
        0102020202020202020202020202020202ac02050303030303030303030303030303030303030303\
        03030303030303030303030304040404040404040404040404040404040404040404040404040404\
        04040404030905050505050505050505050505050505050505050505050500010606060606060606\
        06060606060606060606060606060606060606060606060607070707070707070707070707070707\
        07070707070707070707070707070707";
    const FROZEN_CHUNK: &str = "01010101010101010101010101010101010101010101010101010101010101010102020202020202\
        020202020202020202020202020202020202020202020202028040d0410303030303030303030303\
        030303030303030303030303030303030303030303";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_row_of_a_later_program_is_refused_as_newer() {
        assert_eq!(
            decode_places(&[2, 0]),
            Err(CodecError::Newer {
                found: 2,
                supported: 1
            })
        );
    }

    #[test]
    fn a_blob_has_a_bounded_list_of_places_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        let db = redb::Database::create(dir.path().join("db")).unwrap();
        let blob = Hash([1; 32]);
        let transaction = db.begin_write().unwrap();
        for n in 0..20 {
            apply(&transaction, [(&blob, Some(&file(n)))], []).unwrap();
        }
        apply(&transaction, [(&blob, Some(&file(15)))], []).unwrap();
        let places = |transaction: &WriteTransaction| {
            stored_places(&transaction.open_table(PLACEMENT).unwrap(), &blob).unwrap()
        };
        let expected: Vec<_> = [15, 19, 18, 17, 16, 14, 13, 12].map(file).into();
        assert_eq!(places(&transaction), expected);
        forget(&transaction, [(&blob, &file(19))]).unwrap();
        left_file(&transaction, [&blob], (1, [18; 16])).unwrap();
        moved_aside(&transaction, [&blob], (1, [17; 16]), [9; 24]).unwrap();
        assert!(matches!(places(&transaction)[1], Placement::Kept { name, .. } if name == [9; 24]));
        assert_eq!(places(&transaction).len(), 6);
        apply(&transaction, [(&blob, None)], []).unwrap();
        assert_eq!(places(&transaction), []);
    }

    fn place() -> impl Strategy<Value = Placement> {
        prop_oneof![
            Just(Placement::Store),
            (any::<[u8; 32]>(), any::<u32>(), any::<u32>())
                .prop_map(|(pack, offset, len)| Placement::Pack { pack, offset, len }),
            (
                any::<u32>(),
                any::<[u8; 16]>(),
                any::<u64>(),
                any::<u32>(),
                any::<[u8; 32]>()
            )
                .prop_map(|(root, file, offset, len, frame)| Placement::File {
                    root,
                    file,
                    offset,
                    len,
                    frame,
                    epoch: [1; 32],
                }),
        ]
    }

    proptest! {
        #[test]
        fn places_return_from_their_row(places in prop::collection::vec(place(), 0..=MAX_PLACES)) {
            prop_assert_eq!(decode_places(&encode_places(places.clone())), Ok(places));
        }

        #[test]
        fn whatever_decodes_is_canonical(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(places) = decode_places(&bytes) {
                prop_assert_eq!(encode_places(places), bytes.clone());
            }
            if let Ok(row) = decode_chunk(&bytes) {
                prop_assert_eq!(codec::encode(&(ROW_VERSION, &row)), bytes);
            }
        }

        #[test]
        fn altered_rows_never_panic(
            places in prop::collection::vec(place(), 0..=MAX_PLACES),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut bytes = encode_places(places);
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
            let _ = decode_places(&bytes);
            let _ = decode_places(&bytes[..at]);
        }
    }
}
