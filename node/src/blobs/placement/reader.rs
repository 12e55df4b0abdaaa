//! What the rows say, read from one snapshot of the database.

use coffer_protocol::identity::Hash;
use redb::{ReadOnlyTable, ReadTransaction, TableError};

use super::{
    CHUNKS, ChunkRow, PLACEMENT, Placement, PlacementError, decode_chunk, decode_places,
    stored_places,
};

/// Both tables as of one moment.
pub struct Reader {
    pub(super) placement: Option<ReadOnlyTable<&'static [u8; 32], &'static [u8]>>,
    pub(super) chunks: Option<ReadOnlyTable<&'static [u8; 32], &'static [u8]>>,
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
