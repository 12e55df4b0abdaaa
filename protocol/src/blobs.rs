//! Batch GET: many sealed blobs in one answer.
//!
//! A [`Request`] names up to [`MAX_IDS`] blobs of a vault. The answer is, for each of them and in any
//! order, a header of six bytes and then the blob's bytes; or a header that says it is missing. It
//! is over when each was answered once. The asker checks every length before it takes the bytes,
//! and every hash before it believes them.
//!
//! On a stream of the second version an [`Ask`] says besides what is wanted: the bytes, or only whether
//! they are there, or word of the end of a pause. While transfers are paused at the side that is asked,
//! what is there is answered as such, without bytes.
//!
//! No I/O: [`AnswerHeader`] is for those who write or read a stream themselves, [`Answers`] decodes
//! one from pieces of any size. Where a blob's bytes are, and who may ask, the shell knows. Neighbour:
//! [`crate::frame`], of which a blob is one. The bytes are in `docs/protocol/blobs.md`.

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::frame::MAX_SEALED;
use crate::identity::{Hash, VaultId};
use crate::version;

/// Most blobs in one request: 256 MiB of chunks of the usual size, and 32 KiB on the wire.
pub const MAX_IDS: usize = 1024;
/// Most bytes of an encoded request, in either version.
pub const MAX_REQUEST: usize = 64 + MAX_IDS * Hash::LEN;
/// Most bytes of one blob.
pub const MAX_BLOB: usize = MAX_SEALED;

/// Whether these are the bytes of the blob of this name.
pub fn is_blob(id: &Hash, bytes: &[u8]) -> bool {
    *blake3::hash(bytes).as_bytes() == id.0
}

/// Length that says "missing".
const MISSING: u32 = u32::MAX;
/// Length that says "here, and not given now". Since version 2.
const PAUSED: u32 = u32::MAX - 1;
/// Length that says "here", where that was asked. Since version 2.
const HERE: u32 = u32::MAX - 2;

/// The byte that answers [`Ask::Resumes`].
pub const RESUMED: u8 = 1;

/// Versions of the protocol, by which streams are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A request is a [`Request`]; an answer gives bytes, or says that they are missing.
    One,
    /// A request is an [`Ask`]; while transfers are paused answers say so.
    Two,
}

impl Version {
    /// The libp2p protocol of such a stream.
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::One => version::BLOBS,
            Self::Two => version::BLOBS_2,
        }
    }

    /// The canonical bytes of a request for `ids`.
    pub fn encode_get(self, vault: VaultId, ids: Vec<Hash>) -> Vec<u8> {
        let request = Request { vault, ids };
        match self {
            Self::One => request.encode(),
            Self::Two => Ask::Get(request).encode(),
        }
    }

    /// Reads a request of at most [`MAX_REQUEST`] bytes.
    pub fn decode(self, bytes: &[u8]) -> Result<Ask, CodecError> {
        match self {
            Self::One => Request::decode(bytes).map(Ask::Get),
            Self::Two => codec::decode(bytes, MAX_REQUEST),
        }
    }
}

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

/// What is asked on a stream of version 2, sent as a [`Request`] is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// The blobs themselves.
    Get(Request),
    /// Whether they are there: each is answered by a header alone.
    Has(Request),
    /// Word of when contents of this vault are given: one byte, [`RESUMED`], at once unless transfers are paused.
    Resumes(VaultId),
}

impl Ask {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }
}

/// What is said of one blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// So many bytes follow.
    Bytes(u32),
    /// It is not there.
    Missing,
    /// It is there, and not given now: transfers are paused.
    Paused,
    /// It is there, which is all that was asked.
    Here,
}

impl Given {
    /// So many bytes, or none where it is missing.
    pub fn bytes(len: Option<u32>) -> Self {
        len.map_or(Self::Missing, Self::Bytes)
    }
}

/// What stands in front of each blob of an answer: index (u16) and length (u32), little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerHeader {
    /// Which of the request's ids.
    pub index: u16,
    /// What is said of it.
    pub given: Given,
}

impl AnswerHeader {
    /// Length of the encoded header in bytes.
    pub const LEN: usize = 6;

    /// The bytes. A length above [`MAX_BLOB`] is a mistake that the other side will refuse.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..2].copy_from_slice(&self.index.to_le_bytes());
        let len = match self.given {
            Given::Bytes(len) => len,
            Given::Missing => MISSING,
            Given::Paused => PAUSED,
            Given::Here => HERE,
        };
        bytes[2..].copy_from_slice(&len.to_le_bytes());
        bytes
    }

    /// Reads a header; whether it fits the request is [`Answers::accept`]'s to say.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Self {
        let [i0, i1, l0, l1, l2, l3] = *bytes;
        Self {
            index: u16::from_le_bytes([i0, i1]),
            given: match u32::from_le_bytes([l0, l1, l2, l3]) {
                MISSING => Given::Missing,
                PAUSED => Given::Paused,
                HERE => Given::Here,
                len => Given::Bytes(len),
            },
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
    /// It gives bytes where it was asked whether they are there, or the other way round.
    #[error("blob {0} was answered as if something else had been asked")]
    OtherAnswer(u16),
    /// The bytes are not those of the blob.
    #[error("the bytes of blob {0} do not have its hash")]
    WrongHash(u16),
    /// The stream ended before everything was answered.
    #[error("the answer ended with {0} blobs unanswered")]
    Truncated(usize),
}

/// The answer to [`Ask::Has`]: takes headers until each id was answered.
pub struct Presence {
    said: Vec<Option<Given>>,
    unanswered: usize,
}

impl Presence {
    /// Expects the answer about so many ids, at most [`MAX_IDS`].
    pub fn of(count: usize) -> Self {
        let count = count.min(MAX_IDS);
        Self {
            said: vec![None; count],
            unanswered: count,
        }
    }

    /// Whether everything was answered.
    pub fn is_over(&self) -> bool {
        self.unanswered == 0
    }

    /// Takes the next header.
    pub fn accept(&mut self, header: AnswerHeader) -> Result<(), AnswerError> {
        let index = header.index;
        match self.said.get_mut(usize::from(index)) {
            None => Err(AnswerError::NotAsked(index)),
            Some(Some(_)) => Err(AnswerError::Repeated(index)),
            Some(_) if matches!(header.given, Given::Bytes(_)) => {
                Err(AnswerError::OtherAnswer(index))
            }
            Some(said) => {
                *said = Some(header.given);
                self.unanswered -= 1;
                Ok(())
            }
        }
    }

    /// What was said of each, in the order of the ids; what was not answered counts as missing.
    pub fn said(self) -> impl Iterator<Item = Given> {
        let said = self.said.into_iter();
        said.map(|given| given.unwrap_or(Given::Missing))
    }
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
    /// The other side has it, and gives it when transfers are not paused there.
    Paused {
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
        match header.given {
            Given::Bytes(len) if len > max => {
                return Err(AnswerError::TooLong { index, len, max });
            }
            Given::Here => return Err(AnswerError::OtherAnswer(index)),
            Given::Bytes(_) | Given::Missing | Given::Paused => {}
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
                let len = match header.given {
                    Given::Bytes(len) => len,
                    Given::Paused => return Ok(Some(Piece::Paused { index })),
                    Given::Missing | Given::Here => return Ok(Some(Piece::Missing { index })),
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
mod tests;
