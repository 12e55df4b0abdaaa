//! Going through the tables, for checks of everything.

use std::collections::BTreeSet;
use std::ops::Bound;

use coffer_protocol::identity::Hash;
use redb::ReadableTableMetadata;

use super::{ChunkRow, Placement, PlacementError, Reader, decode_chunk, decode_places};

impl Reader {
    /// Up to `limit` blobs behind `after` in the order of their ids, with their places.
    pub fn behind(
        &self,
        after: Option<&Hash>,
        limit: usize,
    ) -> Result<Vec<(Hash, Vec<Placement>)>, PlacementError> {
        let Some(table) = &self.placement else {
            return Ok(Vec::new());
        };
        let from = after.map_or(Bound::Unbounded, |blob| Bound::Excluded(&blob.0));
        let mut found = Vec::new();
        for row in table
            .range::<&[u8; 32]>((from, Bound::Unbounded))?
            .take(limit)
        {
            let (key, value) = row?;
            let blob = Hash(*key.value());
            let places = decode_places(value.value())
                .map_err(|reason| PlacementError::Damaged { id: blob, reason })?;
            found.push((blob, places));
        }
        Ok(found)
    }

    /// How many blobs have a place.
    pub fn count(&self) -> Result<u64, PlacementError> {
        match &self.placement {
            Some(table) => Ok(table.len()?),
            None => Ok(0),
        }
    }

    /// Chunks that were named as one of `blobs`. Walks the whole table.
    pub fn chunks_of(
        &self,
        blobs: &BTreeSet<Hash>,
    ) -> Result<Vec<(Hash, ChunkRow)>, PlacementError> {
        let Some(table) = &self.chunks else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for row in table.range::<&[u8; 32]>(..)? {
            let (key, value) = row?;
            let id = Hash(*key.value());
            let row = decode_chunk(value.value())
                .map_err(|reason| PlacementError::Damaged { id, reason })?;
            if blobs.contains(&row.blob) {
                found.push((id, row));
            }
        }
        Ok(found)
    }
}
