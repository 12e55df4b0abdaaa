//! Where a file's bytes are: chunk references and the lists of them.
//!
//! A file's plaintext is cut into chunks; each chunk is sealed into a blob. A [`ChunkRef`] says how to find, open and
//! check one of them, a [`ChunkList`] is all of them in the order of the file, and a [`ChunkRoot`] is what the file
//! document holds: the list itself when it is short, otherwise a short list of the sealed pieces of the encoded list.
//!
//! This file reads and writes those bytes and nothing else. Cutting, sealing and fetching are the node's business.
//! Layouts: docs/protocol/files.md.

use serde::{Deserialize, Serialize};

/// The longest list that stands in the document itself, and the longest list of list pieces.
///
/// Eight references are under 900 bytes: more would make every edit of a large file send a large change.
pub const INLINE_MAX: usize = 8;

/// The largest plaintext of one chunk, in bytes. The cutter never makes a larger one.
pub const MAX_CHUNK: u32 = 4 * 1024 * 1024;

/// The largest blob that a chunk may be sealed into, in bytes: [`MAX_CHUNK`] with padding (at most an eighth) and tags.
pub const MAX_SEALED: u32 = 5 * 1024 * 1024;

/// The most references in one list. At the 2 MiB that very large files are cut to, this is 2 TiB.
pub const MAX_LIST_CHUNKS: usize = 1 << 20;

/// The most epochs that one list may name: its chunks hold a one-byte index.
pub const MAX_LIST_EPOCHS: usize = 255;

/// The most layers of indirection. One layer holds 8 pieces of 4 MiB (310,000 chunks); two hold any list.
pub const MAX_DEPTH: u8 = 3;

/// The version that [`ChunkList::encode`] writes as its first byte.
const LIST_VERSION: u8 = 1;

/// One chunk of plaintext and the blob that it was sealed into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRef {
    /// Keyed hash of the plaintext: equal for equal bytes within a space.
    pub id: [u8; 32],
    /// Keyed hash of the sealed frame: the key of the blob is derived from it, and it is checked after opening.
    pub frame: [u8; 32],
    /// BLAKE3 of the ciphertext: the name under which stores and peers know the blob.
    pub blob: [u8; 32],
    /// Length of the plaintext in bytes, 1 to [`MAX_CHUNK`].
    pub len: u32,
    /// Length of the ciphertext in bytes, 1 to [`MAX_SEALED`].
    pub sealed_len: u32,
    /// Index into [`ChunkList::epochs`]: the epoch under whose key the blob was sealed.
    pub epoch: u8,
}

/// References to consecutive pieces of some bytes, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkList {
    /// The epochs that the chunks were sealed under, in order of first use, each once.
    pub epochs: Vec<[u8; 32]>,
    /// The chunks.
    pub chunks: Vec<ChunkRef>,
}

/// What a file document holds in place of its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChunkRoot {
    /// The chunks of the file: at most [`INLINE_MAX`]; none for an empty file.
    Inline(ChunkList),
    /// The chunks, in order, of an encoded list that is too long to stand here.
    Indirect {
        /// How many encoded lists lie between this one and the file's chunks, 1 to [`MAX_DEPTH`]: at depth 1 the
        /// bytes that `list` names decode to the list of the file's chunks, at depth 2 to a list whose bytes do so.
        depth: u8,
        /// 1 to [`INLINE_MAX`] pieces of the next encoded list.
        list: ChunkList,
    },
}

/// Why bytes are no chunk list, or a list cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkListError {
    /// The bytes end early, go on too long, or are not the one way to write their list.
    #[error("the chunk list is damaged")]
    Damaged,
    /// Written by a later version of coffer.
    #[error("the chunk list has version {0}, which this version of coffer does not know")]
    Newer(u8),
    /// More chunks than [`MAX_LIST_CHUNKS`].
    #[error("the chunk list names too many chunks")]
    TooManyChunks,
    /// More epochs than [`MAX_LIST_EPOCHS`], or one of them twice.
    #[error("the chunk list names too many epochs, or one twice")]
    BadEpochs,
    /// A chunk's length, sealed length or epoch index is out of range.
    #[error("chunk {0} of the list has an impossible length or epoch")]
    BadChunk(usize),
}

impl ChunkList {
    /// The number of bytes that the list stands for.
    pub fn len_bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.len)).sum()
    }

    /// The number of chunks.
    pub fn len(&self) -> usize {
        self.chunks.len()
    }

    /// True for the list of an empty file.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The epoch under which a chunk of this list was sealed; `None` if the chunk is not of this list.
    pub fn epoch_of(&self, chunk: &ChunkRef) -> Option<&[u8; 32]> {
        self.epochs.get(usize::from(chunk.epoch))
    }

    /// Adds a chunk at the end and sets its `epoch` to the index of the given epoch, which is added when it is new.
    ///
    /// Fails with [`ChunkListError::BadEpochs`] at the 256th epoch: seal the chunk again under a newer one.
    pub fn push(&mut self, chunk: ChunkRef, epoch: &[u8; 32]) -> Result<(), ChunkListError> {
        let index = match self.epochs.iter().rposition(|known| known == epoch) {
            Some(index) => index,
            None if self.epochs.len() >= MAX_LIST_EPOCHS => return Err(ChunkListError::BadEpochs),
            None => {
                self.epochs.push(*epoch);
                self.epochs.len() - 1
            }
        };
        // The index is under MAX_LIST_EPOCHS, which fits one byte.
        self.chunks.push(ChunkRef {
            epoch: index as u8,
            ..chunk
        });
        Ok(())
    }

    /// Checks every bound stated on this type and on [`ChunkRef`].
    pub fn check(&self) -> Result<(), ChunkListError> {
        if self.chunks.len() > MAX_LIST_CHUNKS {
            return Err(ChunkListError::TooManyChunks);
        }
        let mut epochs: Vec<&[u8; 32]> = self.epochs.iter().collect();
        epochs.sort_unstable();
        epochs.dedup();
        if epochs.len() != self.epochs.len() || self.epochs.len() > MAX_LIST_EPOCHS {
            return Err(ChunkListError::BadEpochs);
        }
        for (index, chunk) in self.chunks.iter().enumerate() {
            let sane = (1..=MAX_CHUNK).contains(&chunk.len)
                && (1..=MAX_SEALED).contains(&chunk.sealed_len)
                && usize::from(chunk.epoch) < self.epochs.len();
            if !sane {
                return Err(ChunkListError::BadChunk(index));
            }
        }
        Ok(())
    }

    /// The bytes that are themselves cut, sealed and named by a [`ChunkRoot::Indirect`].
    ///
    /// References follow each other unchanged, so inserting a chunk leaves most pieces of the encoded list as they were.
    pub fn encode(&self) -> Result<Vec<u8>, ChunkListError> {
        self.check()?;
        let bytes = Vec::with_capacity(8 + self.epochs.len() * 32 + self.chunks.len() * 105);
        postcard::to_extend(&(LIST_VERSION, self), bytes).map_err(|_| ChunkListError::Damaged)
    }

    /// Reads what [`ChunkList::encode`] wrote, and only that: any other way to write the same list is refused.
    pub fn decode(bytes: &[u8]) -> Result<ChunkList, ChunkListError> {
        let (&version, body) = bytes.split_first().ok_or(ChunkListError::Damaged)?;
        if version != LIST_VERSION {
            return Err(if version == 0 {
                ChunkListError::Damaged
            } else {
                ChunkListError::Newer(version)
            });
        }
        let list: ChunkList = postcard::from_bytes(body).map_err(|_| ChunkListError::Damaged)?;
        if list.encode()? != bytes {
            return Err(ChunkListError::Damaged);
        }
        Ok(list)
    }
}

impl ChunkRoot {
    /// The root of an empty file.
    pub fn empty() -> ChunkRoot {
        ChunkRoot::Inline(ChunkList::default())
    }

    /// The list that stands in the document, whatever it names.
    pub fn list(&self) -> &ChunkList {
        match self {
            ChunkRoot::Inline(list) | ChunkRoot::Indirect { list, .. } => list,
        }
    }

    /// Checks the bounds stated on this type.
    pub fn check(&self) -> Result<(), ChunkListError> {
        let list = self.list();
        list.check()?;
        let shape_is_sane = match self {
            ChunkRoot::Inline(_) => true,
            ChunkRoot::Indirect { depth, list } => {
                (1..=MAX_DEPTH).contains(depth) && !list.is_empty()
            }
        };
        match shape_is_sane {
            _ if list.len() > INLINE_MAX => Err(ChunkListError::TooManyChunks),
            true => Ok(()),
            false => Err(ChunkListError::Damaged),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunk(n: u8) -> ChunkRef {
        ChunkRef {
            id: [n; 32],
            frame: [n + 1; 32],
            blob: [n + 2; 32],
            len: 300,
            sealed_len: 352,
            epoch: 0,
        }
    }

    fn two() -> ChunkList {
        let mut list = ChunkList::default();
        list.push(chunk(0x10), &[0xe1; 32]).unwrap();
        list.push(chunk(0x20), &[0xe2; 32]).unwrap();
        list
    }

    /// These bytes are sealed into people's vaults: a change here is a new version, never another reading of this one.
    #[test]
    fn the_bytes_of_a_list_are_frozen() {
        let of = |byte: &str| byte.repeat(32);
        let expected = [
            "01".into(), // version
            "02".into(),
            of("e1"),
            of("e2"),    // epochs
            "02".into(), // chunks
            of("10"),
            of("11"),
            of("12"),
            "ac02e00200".into(),
            of("20"),
            of("21"),
            of("22"),
            "ac02e00201".into(),
        ];
        let expected: String = expected.concat();
        assert_eq!(hex::encode(two().encode().unwrap()), expected);
        assert_eq!(
            ChunkList::decode(&hex::decode(expected).unwrap()),
            Ok(two())
        );
    }

    #[test]
    fn a_list_names_each_epoch_once() {
        let mut list = two();
        list.push(chunk(0x30), &[0xe1; 32]).unwrap();
        assert_eq!(
            (
                list.epochs.len(),
                list.chunks[2].epoch,
                list.len_bytes(),
                list.len()
            ),
            (2, 0, 900, 3)
        );
        assert_eq!(list.epoch_of(&list.chunks[1]), Some(&[0xe2; 32]));
        list.epochs.push([0xe1; 32]);
        assert_eq!(list.encode(), Err(ChunkListError::BadEpochs));
    }

    #[test]
    fn a_list_takes_no_more_epochs_than_an_index_can_tell_apart() {
        let mut list = ChunkList::default();
        for n in 0..=254 {
            list.push(chunk(1), &[n; 32]).unwrap();
        }
        assert_eq!(
            list.push(chunk(1), &[255; 32]),
            Err(ChunkListError::BadEpochs)
        );
        assert_eq!(ChunkList::decode(&list.encode().unwrap()), Ok(list));
    }

    #[test]
    fn impossible_chunks_are_refused() {
        let damages: [fn(&mut ChunkRef); 5] = [
            |chunk| chunk.len = 0,
            |chunk| chunk.len = MAX_CHUNK + 1,
            |chunk| chunk.sealed_len = 0,
            |chunk| chunk.sealed_len = MAX_SEALED + 1,
            |chunk| chunk.epoch = 2,
        ];
        for damage in damages {
            let mut list = two();
            damage(&mut list.chunks[1]);
            assert_eq!(list.encode(), Err(ChunkListError::BadChunk(1)));
            let bytes = postcard::to_stdvec(&(LIST_VERSION, &list)).unwrap();
            assert_eq!(ChunkList::decode(&bytes), Err(ChunkListError::BadChunk(1)));
        }
    }

    #[test]
    fn a_list_has_one_spelling() {
        let bytes = two().encode().unwrap();
        let mut longer = bytes.clone();
        longer.push(0);
        for wrong in [&bytes[..bytes.len() - 1], &longer, &[], &[0], &[1]] {
            assert_eq!(ChunkList::decode(wrong), Err(ChunkListError::Damaged));
        }
        assert_eq!(ChunkList::decode(&[2, 0, 0]), Err(ChunkListError::Newer(2)));
    }

    #[test]
    fn a_claim_of_endless_chunks_costs_nothing() {
        let mut bytes = vec![LIST_VERSION, 0];
        bytes.extend([0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(ChunkList::decode(&bytes), Err(ChunkListError::Damaged));
    }

    #[test]
    fn a_root_is_short_and_of_a_known_depth() {
        assert_eq!(ChunkRoot::empty().check(), Ok(()));
        let mut long = ChunkList::default();
        (0..9).for_each(|n| long.push(chunk(n), &[0; 32]).unwrap());
        assert_eq!(
            ChunkRoot::Inline(long.clone()).check(),
            Err(ChunkListError::TooManyChunks)
        );
        assert_eq!(
            ChunkRoot::Indirect {
                depth: 1,
                list: long
            }
            .check(),
            Err(ChunkListError::TooManyChunks)
        );
        assert_eq!(
            ChunkRoot::Indirect {
                depth: 1,
                list: two()
            }
            .check(),
            Ok(())
        );
        assert_eq!(
            ChunkRoot::Indirect {
                depth: 0,
                list: two()
            }
            .check(),
            Err(ChunkListError::Damaged)
        );
        assert_eq!(
            ChunkRoot::Indirect {
                depth: 1,
                list: ChunkList::default()
            }
            .check(),
            Err(ChunkListError::Damaged)
        );
    }

    proptest! {
        #[test]
        fn lists_are_read_back(chunks in proptest::collection::vec((any::<[u8; 32]>(), 1..=MAX_CHUNK, 1..=MAX_SEALED, 0u8..5), 0..40)) {
            let mut list = ChunkList::default();
            for (id, len, sealed_len, epoch) in chunks {
                list.push(ChunkRef { id, frame: id, blob: id, len, sealed_len, epoch: 0 }, &[epoch; 32]).unwrap();
            }
            prop_assert_eq!(ChunkList::decode(&list.encode().unwrap()), Ok(list));
        }

        #[test]
        fn foreign_bytes_are_read_one_way_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>(), flip: u8) {
            let mut damaged = two().encode().unwrap();
            let at = at.index(damaged.len());
            damaged[at] ^= flip;
            for bytes in [bytes, damaged] {
                if let Ok(list) = ChunkList::decode(&bytes) {
                    prop_assert_eq!(list.encode().unwrap(), bytes);
                }
            }
        }
    }
}
