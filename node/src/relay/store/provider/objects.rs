//! Packs as objects of an S3-compatible storage.
//!
//! An object is written once, under a name that was never used before, and is a run of blobs as in the pack files of the
//! embedded store: blob id[32] · length u32 big-endian · bytes.

use std::sync::Arc;

use bytes::Bytes;
use coffer_protocol::identity::Hash;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use super::super::StoreError;
use super::super::runs::Place;

/// Bytes in front of each blob.
pub const HEADER: u32 = 36;

/// The objects of one bucket, below a prefix.
#[derive(Clone)]
pub struct Objects {
    pub storage: Arc<dyn ObjectStore>,
    pub prefix: String,
}

impl Objects {
    pub fn path(&self, number: i64, pack: u64) -> Path {
        Path::from(format!("{}packs/{number}/{pack}", self.prefix))
    }

    /// Writes a pack; durable when it returns. Gives the places of the blobs.
    pub async fn write(
        &self,
        number: i64,
        pack: u64,
        blobs: &[(Hash, Bytes)],
    ) -> Result<Vec<Place>, StoreError> {
        let mut parts = Vec::with_capacity(2 * blobs.len());
        let mut places = Vec::with_capacity(blobs.len());
        let mut at = 0;
        for (id, bytes) in blobs {
            let len = bytes.len() as u32;
            let header = [&id.0[..], &len.to_be_bytes()].concat();
            parts.push(Bytes::from(header));
            parts.push(bytes.clone());
            let offset = at + HEADER;
            places.push(Place { pack, offset, len });
            at = offset + len;
        }
        let payload: PutPayload = parts.into_iter().collect();
        self.storage.put(&self.path(number, pack), payload).await?;
        Ok(places)
    }

    /// Reads a part of a pack; `None` if the pack is gone.
    pub async fn read(
        &self,
        number: i64,
        pack: u64,
        offset: u32,
        len: usize,
    ) -> Result<Option<Bytes>, StoreError> {
        if len == 0 {
            return Ok(Some(Bytes::new()));
        }
        let start = u64::from(offset);
        let range = start..start + len as u64;
        match self
            .storage
            .get_range(&self.path(number, pack), range)
            .await
        {
            Ok(bytes) if bytes.len() == len => Ok(Some(bytes)),
            Ok(_) => Err(StoreError::Damaged(format!("pack {pack} is cut short"))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a pack; one that is not there is no error.
    pub async fn remove(&self, number: i64, pack: u64) -> Result<(), StoreError> {
        match self.storage.delete(&self.path(number, pack)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the storage answers.
    pub async fn ready(&self) -> Result<(), StoreError> {
        let nothing = Path::from(format!("{}ready", self.prefix));
        match self.storage.head(&nothing).await {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl From<object_store::Error> for StoreError {
    fn from(error: object_store::Error) -> Self {
        use object_store::Error as Storage;
        let text = format!("object storage: {error}");
        match error {
            Storage::PermissionDenied { .. } | Storage::Unauthenticated { .. } => {
                StoreError::Permission(text)
            }
            Storage::Generic { .. } => StoreError::Unavailable(text),
            _ => StoreError::Failed(text),
        }
    }
}
