//! A content and its chunks: what a file document says, spelt out, and the way back.
//!
//! Short lists stand in the document. A longer one is encoded, cut and sealed like a file of its own, if need be several
//! times over (`coffer_crdt::chunks`): so an edit to a file of 8,000 chunks resends one or two pieces of its list.

use coffer_crdt::chunks::{ChunkList, ChunkListError, ChunkRef, ChunkRoot, INLINE_MAX, MAX_DEPTH};
use coffer_protocol::frame::{Expected, MAX_SEALED};
use coffer_protocol::identity::{EpochId, Hash};
use coffer_protocol::keys::SpaceSecret;

use super::error::WriteError;
use super::placement::ChunkRow;

/// Most bytes of one encoded chunk list that are held in memory at a time: a million chunks.
const MAX_LIST_BYTES: u64 = 120 << 20;

/// A chunk as a list names it, its epoch spelt out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Named {
    /// Keyed hash of the plaintext.
    pub id: Hash,
    /// Keyed hash of the sealed frame.
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

impl Named {
    /// The chunks that stand in a file document itself; none where its list is sound no more, or too long for that.
    pub fn inline(root: &ChunkRoot) -> Vec<Named> {
        match root {
            ChunkRoot::Inline(list) => named(list).unwrap_or_default(),
            ChunkRoot::Indirect { .. } => Vec::new(),
        }
    }

    pub(super) fn expected(&self) -> Expected {
        Expected {
            chunk: self.id,
            frame: self.frame,
        }
    }

    pub(super) fn row(&self) -> ChunkRow {
        ChunkRow {
            frame: self.frame,
            blob: self.blob,
            len: self.len,
            sealed_len: self.sealed_len,
            epoch: self.epoch,
        }
    }
}

/// The chunks of a list in order. Bounds of foreign lists are checked here: no chunk is empty, and no blob is longer than
/// a frame can be.
pub(super) fn named(list: &ChunkList) -> Result<Vec<Named>, WriteError> {
    list.check().map_err(|_| WriteError::BadList)?;
    list.chunks
        .iter()
        .map(|chunk| {
            let epoch = list.epoch_of(chunk).ok_or(WriteError::BadList)?;
            if chunk.sealed_len as usize > MAX_SEALED {
                return Err(WriteError::BadList);
            }
            Ok(Named {
                id: Hash(chunk.id),
                frame: Hash(chunk.frame),
                blob: Hash(chunk.blob),
                len: chunk.len,
                sealed_len: chunk.sealed_len,
                epoch: EpochId(*epoch),
            })
        })
        .collect()
}

/// A list of `chunks`. Fails at the 256th epoch.
pub(super) fn list<'a>(
    chunks: impl IntoIterator<Item = &'a Named>,
) -> Result<ChunkList, ChunkListError> {
    let mut list = ChunkList::default();
    for chunk in chunks {
        let reference = ChunkRef {
            id: chunk.id.0,
            frame: chunk.frame.0,
            blob: chunk.blob.0,
            len: chunk.len,
            sealed_len: chunk.sealed_len,
            epoch: 0,
        };
        list.push(reference, &chunk.epoch.0)?;
    }
    Ok(list)
}

/// The root for `chunks`, sealing list pieces with `seal` (plaintext of one list in, its named pieces out).
pub(super) fn root<E: From<ChunkListError>>(
    chunks: &[Named],
    mut seal: impl FnMut(&[u8]) -> Result<Vec<Named>, E>,
) -> Result<ChunkRoot, E> {
    let mut list = list(chunks)?;
    let mut depth = 0;
    while list.len() > INLINE_MAX {
        if depth == MAX_DEPTH {
            return Err(ChunkListError::TooManyChunks.into());
        }
        list = self::list(&seal(&list.encode()?)?)?;
        depth += 1;
    }
    Ok(match depth {
        0 => ChunkRoot::Inline(list),
        depth => ChunkRoot::Indirect { depth, list },
    })
}

/// Where the expansion of a root stands.
pub(super) enum Expansion {
    /// These are the content's chunks.
    Chunks(Vec<Named>),
    /// These pieces of a list, one after the other, are needed; their bytes go to [`Expansion::next`].
    Pieces(Vec<Named>, u8),
}

impl Expansion {
    pub fn of(root: &ChunkRoot) -> Result<Self, WriteError> {
        root.check().map_err(|_| WriteError::BadList)?;
        Self::at(
            root.list(),
            match root {
                ChunkRoot::Inline(_) => 0,
                ChunkRoot::Indirect { depth, .. } => *depth,
            },
        )
    }

    fn at(list: &ChunkList, depth: u8) -> Result<Self, WriteError> {
        let chunks = named(list)?;
        if depth == 0 {
            return Ok(Self::Chunks(chunks));
        }
        if list.len_bytes() > MAX_LIST_BYTES {
            return Err(WriteError::BadList);
        }
        Ok(Self::Pieces(chunks, depth))
    }

    /// One step down: `bytes` are those of all pieces of the list at `depth`.
    pub fn next(bytes: &[u8], depth: u8) -> Result<Self, WriteError> {
        let list = ChunkList::decode(bytes).map_err(|_| WriteError::BadList)?;
        Self::at(&list, depth.saturating_sub(1))
    }
}

/// Checks that `chunks` are what the document says of its content: a list that was put together by a faulty or malicious
/// device would else be written as a file whose bytes are not the document's.
pub(super) fn check(
    chunks: &[Named],
    size: u64,
    hash: &[u8; 32],
    secret: &SpaceSecret,
) -> Result<(), WriteError> {
    let total: u64 = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
    let ids = chunks.iter().map(|chunk| &chunk.id);
    if total != size || secret.content_hash(size, ids).0 != *hash {
        return Err(WriteError::BadList);
    }
    Ok(())
}
