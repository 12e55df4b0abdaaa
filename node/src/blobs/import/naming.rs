//! Naming one chunk: under its old name if this device holds it, else sealed under the present epoch.

use coffer_protocol::frame::{self, Chunk, FrameIds};
use coffer_protocol::identity::EpochId;
use coffer_protocol::keys::{EpochKey, Keyring};

use super::super::content::Named;
use super::super::error::{BlobsError, ImportError};
use super::super::placement::{ChunkRow, Placement};
use super::{Desk, Import, Piece, Run};

impl Run<'_> {
    /// Names one chunk, sealing it as far as that needs. With `reuse` a chunk that is held is named as it was.
    pub(super) fn seal(
        &self,
        desk: &mut Desk,
        plain: &[u8],
        offset: u64,
        into: Import,
        reuse: bool,
    ) -> Result<Piece, ImportError> {
        let secret = self.keyring.secret();
        let chunk = Chunk::new(plain, secret);
        let held = match reuse {
            true => desk.reader.chunk(&chunk.id()).map_err(BlobsError::from)?,
            false => None,
        }
        .filter(|row| row.len as usize == plain.len() && self.hold.pin(&row.blob));
        if let Some(row) = held
            && let Some(piece) = self.name_again(desk, &chunk, &row, offset, into)?
        {
            return Ok(piece);
        }
        let compress = into == Import::Store;
        let epoch = self.keyring.current();
        let ids = sealed(&chunk, compress, &self.keyring, epoch, &mut desk.sealed)?;
        self.hold.pin(&ids.blob);
        self.place(
            desk,
            chunk_named(&ids, plain, &desk.sealed, epoch.id()),
            offset,
            into,
            true,
        )
    }

    fn name_again(
        &self,
        desk: &mut Desk,
        chunk: &Chunk<'_>,
        row: &ChunkRow,
        offset: u64,
        into: Import,
    ) -> Result<Option<Piece>, ImportError> {
        let stored = desk
            .reader
            .places(&row.blob)
            .map_err(BlobsError::from)?
            .iter()
            .any(|place| self.shared.store.has_file(&row.blob, place));
        let again = Piece {
            named: Named {
                id: chunk.id(),
                frame: row.frame,
                blob: row.blob,
                len: row.len,
                sealed_len: row.sealed_len,
                epoch: row.epoch,
            },
            place: None,
            fresh: false,
            kept: false,
        };
        if stored && into == Import::Store {
            return Ok(Some(again));
        }
        let Some(epoch) = self.keyring.epoch(&row.epoch) else {
            return Ok(None);
        };
        // Only an uncompressed frame can be made again from these bytes.
        let ids = sealed(chunk, false, &self.keyring, epoch, &mut desk.sealed)?;
        if ids.blob == row.blob {
            return self.place(desk, again.named, offset, into, false).map(Some);
        }
        Ok(stored.then_some(again))
    }

    /// The frame in `desk.sealed` gets its place.
    fn place(
        &self,
        desk: &Desk,
        named: Named,
        offset: u64,
        into: Import,
        fresh: bool,
    ) -> Result<Piece, ImportError> {
        let place = match into {
            Import::FileBacked { root, file } => Some(Placement::File {
                root,
                file,
                offset,
                len: named.len,
                frame: named.frame.0,
                epoch: named.epoch.0,
            }),
            Import::Store => {
                self.keeper
                    .keep(&self.shared.store, named.blob, &desk.sealed)?;
                None
            }
        };
        Ok(Piece {
            named,
            kept: place.is_none(),
            place,
            fresh,
        })
    }
}

fn sealed(
    chunk: &Chunk<'_>,
    compress: bool,
    keyring: &Keyring,
    epoch: &EpochKey,
    out: &mut Vec<u8>,
) -> Result<FrameIds, ImportError> {
    frame::seal_frame_into(chunk, compress, keyring.secret(), epoch, out)
        .map_err(|error| ImportError::Read(std::io::Error::other(error)))
}

fn chunk_named(ids: &FrameIds, plain: &[u8], sealed: &[u8], epoch: EpochId) -> Named {
    Named {
        id: ids.chunk,
        frame: ids.frame,
        blob: ids.blob,
        len: plain.len() as u32,
        sealed_len: sealed.len() as u32,
        epoch,
    }
}
