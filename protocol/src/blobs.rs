//! Batch GET: many sealed blobs in one answer.
//!
//! A [`Request`] names up to [`MAX_IDS`] blobs of a vault. The answer is, for each of them and in any
//! order, a header of six bytes and then the blob's bytes; or a header that says it is missing. It
//! is over when each was answered once. The asker checks every length before it takes the bytes,
//! and every hash before it believes them.
//!
//! No I/O: [`AnswerHeader`] is for those who write or read a stream themselves, [`Answers`] decodes
//! one from pieces of any size. Where a blob's bytes are, and who may ask, the shell knows. Neighbour:
//! [`crate::frame`], of which a blob is one. The bytes are in `docs/protocol/blobs.md`.

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::frame::MAX_SEALED;
use crate::identity::{Hash, VaultId};

/// Most blobs in one request: 256 MiB of chunks of the usual size, and 32 KiB on the wire.
pub const MAX_IDS: usize = 1024;
/// Most bytes of an encoded request.
pub const MAX_REQUEST: usize = 64 + MAX_IDS * Hash::LEN;
/// Most bytes of one blob.
pub const MAX_BLOB: usize = MAX_SEALED;

/// Whether these are the bytes of the blob of this name.
pub fn is_blob(id: &Hash, bytes: &[u8]) -> bool {
    *blake3::hash(bytes).as_bytes() == id.0
}

/// Length that says "missing".
const MISSING: u32 = u32::MAX;

/// What is asked for. Sent as one length-prefixed frame, at the start of a stream or after an
/// earlier answer on the same stream has been read to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The vault whose member asks: a relay host serves many.
    pub vault: VaultId,
    /// BLAKE3 hashes of the blobs' bytes, at most [`MAX_IDS`]; one that is named twice is answered twice.
    #[serde(with = "codec::List::<MAX_IDS>")]
    pub ids: Vec<Hash>,
}

impl Request {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a request of at most [`MAX_REQUEST`] bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, MAX_REQUEST)
    }
}

/// What stands in front of each blob of an answer: index (u16) and length (u32), little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerHeader {
    /// Which of the request's ids.
    pub index: u16,
    /// Bytes that follow; `None` if the blob is missing there.
    pub len: Option<u32>,
}

impl AnswerHeader {
    /// Length of the encoded header in bytes.
    pub const LEN: usize = 6;

    /// The bytes. A length above [`MAX_BLOB`] is a mistake that the other side will refuse.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..2].copy_from_slice(&self.index.to_le_bytes());
        bytes[2..].copy_from_slice(&self.len.unwrap_or(MISSING).to_le_bytes());
        bytes
    }

    /// Reads a header; whether it fits the request is [`Answers::accept`]'s to say.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Self {
        let [i0, i1, l0, l1, l2, l3] = *bytes;
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        Self {
            index: u16::from_le_bytes([i0, i1]),
            len: (len != MISSING).then_some(len),
        }
    }
}

/// Why an answer is not believed. The stream is of no more use then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It answers what was not asked.
    #[error("the answer names blob {0}, which was not asked for")]
    NotAsked(u16),
    /// It answers one question twice.
    #[error("blob {0} was answered twice")]
    Repeated(u16),
    /// It is longer than the asker said it can be.
    #[error("blob {index} would have {len} bytes, of which {max} were expected at most")]
    TooLong {
        /// Which of the request's ids.
        index: u16,
        /// Bytes that were announced.
        len: u32,
        /// Bytes that were expected at most.
        max: u32,
    },
    /// The bytes are not those of the blob.
    #[error("the bytes of blob {0} do not have its hash")]
    WrongHash(u16),
    /// The stream ended before everything was answered.
    #[error("the answer ended with {0} blobs unanswered")]
    Truncated(usize),
}

/// One blob that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Its hash.
    pub id: Hash,
    /// Most bytes that it may have: its sealed length where that is known, else [`MAX_BLOB`].
    pub max_len: u32,
}

/// A piece of a decoded answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A blob of this length begins.
    Begins {
        /// Which of the request's ids.
        index: u16,
        /// Bytes that follow.
        len: u32,
    },
    /// The next bytes of it. Not to be believed before `Whole`.
    Bytes {
        /// Which of the request's ids.
        index: u16,
        /// Never empty.
        bytes: &'a [u8],
    },
    /// All its bytes were there, and have its hash.
    Whole {
        /// Which of the request's ids.
        index: u16,
    },
    /// The other side does not have it.
    Missing {
        /// Which of the request's ids.
        index: u16,
    },
}

/// Decodes the answer to one request, from pieces of any size, without copying.
pub struct Answers {
    wanted: Vec<Wanted>,
    answered: Vec<bool>,
    unanswered: usize,
    state: State,
}

enum State {
    Header {
        bytes: [u8; AnswerHeader::LEN],
        have: usize,
    },
    Blob {
        index: u16,
        left: u32,
        hasher: Box<blake3::Hasher>,
    },
}

impl State {
    const START: State = State::Header {
        bytes: [0; AnswerHeader::LEN],
        have: 0,
    };
}

impl Answers {
    /// Expects the answer to a request for these blobs; those beyond [`MAX_IDS`] are not expected.
    pub fn new(mut wanted: Vec<Wanted>) -> Self {
        wanted.truncate(MAX_IDS);
        Self {
            answered: vec![false; wanted.len()],
            unanswered: wanted.len(),
            wanted,
            state: State::START,
        }
    }

    /// Whether everything was answered. What comes after belongs to the next answer.
    pub fn is_over(&self) -> bool {
        self.unanswered == 0 && matches!(self.state, State::Header { .. })
    }

    /// Whether the stream may end here.
    pub fn end(&self) -> Result<(), AnswerError> {
        match self.state {
            State::Header { .. } if self.unanswered == 0 => Ok(()),
            State::Header { .. } => Err(AnswerError::Truncated(self.unanswered)),
            State::Blob { .. } => Err(AnswerError::Truncated(self.unanswered + 1)),
        }
    }

    /// Checks a header and counts its blob as answered: for shells that read the bytes themselves,
    /// and then check their hash with [`check`](Self::check).
    pub fn accept(&mut self, header: AnswerHeader) -> Result<(), AnswerError> {
        let index = header.index;
        let (Some(wanted), Some(answered)) = (
            self.wanted.get(usize::from(index)),
            self.answered.get_mut(usize::from(index)),
        ) else {
            return Err(AnswerError::NotAsked(index));
        };
        if *answered {
            return Err(AnswerError::Repeated(index));
        }
        let max = wanted.max_len.min(MAX_BLOB as u32);
        if let Some(len) = header.len
            && len > max
        {
            return Err(AnswerError::TooLong { index, len, max });
        }
        *answered = true;
        self.unanswered -= 1;
        Ok(())
    }

    /// Checks the whole bytes of a blob.
    pub fn check(&self, index: u16, bytes: &[u8]) -> Result<(), AnswerError> {
        self.compare(index, blake3::hash(bytes))
    }

    /// Takes the next piece off the front of `input`; `None` when more input is needed, or
    /// everything was answered.
    pub fn next_piece<'a>(
        &mut self,
        input: &mut &'a [u8],
    ) -> Result<Option<Piece<'a>>, AnswerError> {
        match &mut self.state {
            State::Header { bytes, have } => {
                if self.unanswered == 0 {
                    return Ok(None);
                }
                let take = input.len().min(AnswerHeader::LEN - *have);
                let (taken, rest) = input.split_at(take);
                bytes[*have..*have + take].copy_from_slice(taken);
                *have += take;
                *input = rest;
                if *have < AnswerHeader::LEN {
                    return Ok(None);
                }
                let header = AnswerHeader::decode(bytes);
                self.accept(header)?;
                self.state = State::START;
                let index = header.index;
                let Some(len) = header.len else {
                    return Ok(Some(Piece::Missing { index }));
                };
                self.state = State::Blob {
                    index,
                    left: len,
                    hasher: Box::new(blake3::Hasher::new()),
                };
                Ok(Some(Piece::Begins { index, len }))
            }
            State::Blob {
                index,
                left,
                hasher,
            } => {
                let index = *index;
                if *left == 0 {
                    let hash = hasher.finalize();
                    self.state = State::START;
                    self.compare(index, hash)?;
                    return Ok(Some(Piece::Whole { index }));
                }
                if input.is_empty() {
                    return Ok(None);
                }
                let take = input.len().min(*left as usize);
                let (bytes, rest) = input.split_at(take);
                *input = rest;
                *left -= take as u32;
                hasher.update(bytes);
                Ok(Some(Piece::Bytes { index, bytes }))
            }
        }
    }

    fn compare(&self, index: u16, hash: blake3::Hash) -> Result<(), AnswerError> {
        match self.wanted.get(usize::from(index)) {
            None => Err(AnswerError::NotAsked(index)),
            Some(wanted) if wanted.id.0 == *hash.as_bytes() => Ok(()),
            Some(_) => Err(AnswerError::WrongHash(index)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(bytes: &[u8]) -> Hash {
        Hash(*blake3::hash(bytes).as_bytes())
    }

    fn wanted(blobs: &[Vec<u8>]) -> Vec<Wanted> {
        blobs
            .iter()
            .map(|bytes| Wanted {
                id: id(bytes),
                max_len: bytes.len() as u32,
            })
            .collect()
    }

    fn answer(index: u16, bytes: Option<&[u8]>) -> Vec<u8> {
        let header = AnswerHeader {
            index,
            len: bytes.map(|bytes| bytes.len() as u32),
        };
        [&header.encode()[..], bytes.unwrap_or_default()].concat()
    }

    /// Decodes `stream` in pieces of `step` bytes: what was whole, by index, and what was missing.
    #[allow(clippy::type_complexity)]
    fn decode(
        answers: &mut Answers,
        stream: &[u8],
        step: usize,
    ) -> Result<(Vec<(u16, Vec<u8>)>, Vec<u16>), AnswerError> {
        let (mut whole, mut missing, mut current) = (Vec::new(), Vec::new(), Vec::new());
        for mut input in stream.chunks(step) {
            while let Some(piece) = answers.next_piece(&mut input)? {
                match piece {
                    Piece::Begins { .. } => current.clear(),
                    Piece::Bytes { bytes, .. } => current.extend_from_slice(bytes),
                    Piece::Whole { index } => whole.push((index, current.clone())),
                    Piece::Missing { index } => missing.push(index),
                }
            }
        }
        answers.end()?;
        Ok((whole, missing))
    }

    #[test]
    fn frozen_request_and_answer() {
        let request = Request {
            vault: VaultId([0x11; 32]),
            ids: vec![Hash([0x22; 32]), Hash([0x33; 32])],
        };
        let frozen = [
            "11".repeat(32),
            "02".into(),
            "22".repeat(32),
            "33".repeat(32),
        ]
        .concat();
        assert_eq!(hex::encode(request.encode()), frozen);
        assert_eq!(Request::decode(&request.encode()), Ok(request));

        let stream = [answer(1, Some(b"abc")), answer(0, None)].concat();
        assert_eq!(hex::encode(stream), "0100030000006162630000ffffffff");
    }

    #[test]
    fn more_ids_than_allowed_are_refused() {
        let request = |count| Request {
            vault: VaultId([0; 32]),
            ids: vec![Hash::ZERO; count],
        };
        assert!(Request::decode(&request(MAX_IDS).encode()).is_ok());
        assert!(Request::decode(&request(MAX_IDS + 1).encode()).is_err());
        assert!(request(MAX_IDS).encode().len() <= MAX_REQUEST);
    }

    #[test]
    fn each_kind_of_bad_answer_is_named() {
        let blobs = [b"first".to_vec(), b"second".to_vec()];
        for (stream, error) in [
            (answer(2, None), AnswerError::NotAsked(2)),
            (
                [answer(0, None), answer(0, Some(b"first"))].concat(),
                AnswerError::Repeated(0),
            ),
            (
                answer(0, Some(b"longer")),
                AnswerError::TooLong {
                    index: 0,
                    len: 6,
                    max: 5,
                },
            ),
            (answer(0, Some(b"First")), AnswerError::WrongHash(0)),
            (answer(0, Some(b"first")), AnswerError::Truncated(1)),
            (
                answer(0, Some(b"first"))[..8].to_vec(),
                AnswerError::Truncated(2),
            ),
            (Vec::new(), AnswerError::Truncated(2)),
        ] {
            assert_eq!(
                decode(&mut Answers::new(wanted(&blobs)), &stream, 3),
                Err(error)
            );
        }
    }

    #[test]
    fn what_follows_an_answer_is_left_for_the_next() {
        let blobs = [b"only".to_vec()];
        let stream = [answer(0, Some(b"only")), vec![7; 3]].concat();
        let mut answers = Answers::new(wanted(&blobs));
        let mut input = &stream[..];
        while answers.next_piece(&mut input).unwrap().is_some() {}
        assert!(answers.is_over());
        assert_eq!(input, [7; 3]);
    }

    #[test]
    fn a_shell_that_reads_itself_uses_the_same_checks() {
        let blobs = [b"first".to_vec()];
        let mut answers = Answers::new(wanted(&blobs));
        let header = AnswerHeader {
            index: 0,
            len: Some(5),
        };
        assert_eq!(answers.accept(header), Ok(()));
        assert_eq!(answers.check(0, b"first"), Ok(()));
        assert_eq!(answers.check(0, b"fiRst"), Err(AnswerError::WrongHash(0)));
        assert_eq!(answers.check(9, b""), Err(AnswerError::NotAsked(9)));
    }

    proptest! {
        #[test]
        fn every_answer_reads_back_in_any_order_and_pieces(
            blobs in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..20),
            missing in prop::collection::vec(any::<bool>(), 20),
            shuffle: u64,
            step in 1usize..80,
        ) {
            let mut order: Vec<usize> = (0..blobs.len()).collect();
            order.sort_by_key(|index| blake3::hash(&[&shuffle.to_le_bytes()[..], &[*index as u8]].concat()).to_hex());
            let stream: Vec<u8> = order
                .iter()
                .flat_map(|i| answer(*i as u16, (!missing[*i]).then_some(&blobs[*i])))
                .collect();
            let (whole, gone) = decode(&mut Answers::new(wanted(&blobs)), &stream, step).unwrap();
            prop_assert_eq!(whole.len() + gone.len(), blobs.len());
            for (index, bytes) in whole {
                prop_assert_eq!(&bytes, &blobs[usize::from(index)]);
            }
            for index in gone {
                prop_assert!(missing[usize::from(index)]);
            }
        }

        #[test]
        fn foreign_bytes_never_panic_and_never_pass_as_a_blob(
            stream in prop::collection::vec(any::<u8>(), 0..200), step in 1usize..20,
        ) {
            let blobs = [b"first".to_vec(), b"second".to_vec()];
            let result = decode(&mut Answers::new(wanted(&blobs)), &stream, step);
            prop_assert!(result.map_or(true, |(whole, _)| whole.is_empty()));
        }

        #[test]
        fn whatever_decodes_as_a_request_is_canonical(
            bytes in prop::collection::vec(any::<u8>(), 0..150),
        ) {
            if let Ok(request) = Request::decode(&bytes) {
                prop_assert_eq!(request.encode(), bytes);
            }
        }
    }
}
