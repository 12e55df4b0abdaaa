//! Places that files of synced folders no longer are: such a file was removed, or has other bytes now.

use coffer_crdt::chunks::ChunkRoot;
use coffer_crdt::files::FileId;
use coffer_protocol::identity::Hash;
use redb::ReadableTable;

use super::request::{CommitRequest, FolderRow, Left};
use super::work::Work;
use crate::blobs::placement;
use crate::store::StoreError;
use crate::store::folder_keys::folder_key;

/// A synced folder's number, a file in it, and blobs that it no longer holds.
type LeftBehind = (u32, FileId, Vec<Hash>);

impl Work<'_, '_> {
    /// Blobs that files of synced folders no longer hold once this request is carried out: files that were removed, or
    /// that have other bytes now. Places are claims; these are known to be void.
    pub(super) fn bytes_left_behind(
        &self,
        request: &CommitRequest,
    ) -> Result<Vec<LeftBehind>, StoreError> {
        let mut left = Vec::new();
        for (folder, id, row) in &request.folder_rows {
            let Some(before) = self.folder_row(*folder, *id)? else {
                continue;
            };
            if row.as_ref().is_some_and(|row| row.hash == before.hash) {
                continue;
            }
            // What came from elsewhere is in the document long before it is on the disk.
            let present = self.file(*id)?.and_then(|state| state.content);
            let content = match present.filter(|content| content.hash == before.hash) {
                Some(content) => Some(content),
                None => self.past_content(*id, &before.hash)?,
            };
            match content.map(|content| content.root) {
                Some(ChunkRoot::Inline(list)) => {
                    let blobs = list.chunks.iter().map(|chunk| Hash(chunk.blob)).collect();
                    left.push((*folder, *id, blobs));
                }
                Some(root) => self.core.state.leave(*folder, *id, root),
                None => {}
            }
        }
        Ok(left)
    }

    /// Removes places that files of synced folders no longer are, unless such a file has changed again.
    pub(super) fn forget_left(&mut self, left: &[Left]) -> Result<(), StoreError> {
        for left in left {
            let now = self.folder_row(left.folder, left.file)?;
            if now.map(|row| row.hash) == left.now {
                placement::left_file(self.transaction, &left.blobs, (left.folder, left.file.0))?;
                self.done.wrote = true;
            }
        }
        Ok(())
    }

    fn folder_row(&self, folder: u32, id: FileId) -> Result<Option<FolderRow>, StoreError> {
        let key = folder_key(folder, id);
        let row = self.folder_rows.get(&key)?;
        Ok(row.and_then(|row| postcard::from_bytes(row.value()).ok()))
    }
}
