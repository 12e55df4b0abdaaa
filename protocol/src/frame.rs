//! Frames: how one chunk of a file's plaintext becomes a blob that any host may keep.
//!
//! A frame is the chunk (or its zstd form) with a small header and padding; see
//! `docs/protocol/frame.md`. Its key is derived from the epoch's key and from the **frame id**, a
//! keyed hash of exactly the bytes that are sealed, so the nonce can be zero: two different frames
//! never share a key, and one frame sealed twice gives the same blob. (A key from the plaintext
//! would not do: zstd's output differs between its versions.) The **blob** is the plain BLAKE3 hash
//! of the ciphertext, which hosts can check; frame and chunk id are checked after opening.
//!
//! Nothing here allocates when the caller's buffers are large enough. One MiB costs three passes:
//! the chunk's hash, AES-256-GCM, the blob's hash.

use crate::identity::Hash;
use crate::keys::{self, EpochKey, SpaceSecret, TAG_LEN};
use crate::padded;

/// Bytes of the longest chunk.
pub const MAX_CHUNK: usize = 4 << 20;

/// Bytes that a caller leaves free in front of the plaintext for [`seal_frame_in_place`].
pub const FRAME_HEADER_LEN: usize = padded::HEADER_LEN;

/// Bytes of the longest sealed frame.
pub const MAX_SEALED: usize = sealed_len(MAX_CHUNK);

/// Bytes of the sealed frame of a chunk of `plain_len` bytes that is not compressed.
pub const fn sealed_len(plain_len: usize) -> usize {
    padded::packed_len(plain_len) + TAG_LEN
}

/// Why a frame was not sealed or not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The plaintext is longer than a chunk may be, or the sealed frame longer than one can get.
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
    /// The buffer is shorter than the header that must be free in front.
    #[error("the buffer has no room for the frame's header")]
    NoRoomForHeader,
    /// Another epoch's key, or altered bytes.
    #[error("the frame does not open with this epoch's key")]
    CannotOpen,
    /// It opens, but is not laid out as a frame is.
    #[error("the opened frame is malformed")]
    Malformed,
    /// It is a frame, but not the one that was named.
    #[error("the frame is not the one expected")]
    WrongFrame,
    /// The frame is the one named, its plaintext is not.
    #[error("the frame's chunk is not the one expected")]
    WrongChunk,
}

/// A plaintext together with its id in a space. Made by hashing, so the two always belong together:
/// sealing relies on that.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    plain: &'a [u8],
    id: Hash,
}

impl<'a> Chunk<'a> {
    /// Hashes `plain`. What `plain` points to must not change afterwards (a file mapped into memory
    /// can): what is sealed would no longer be what its key was made for.
    pub fn new(plain: &'a [u8], secret: &SpaceSecret) -> Self {
        Self {
            plain,
            id: secret.chunk_id(plain),
        }
    }

    /// The chunk's id, by which one finds out whether it is held already.
    pub fn id(&self) -> Hash {
        self.id
    }

    /// The plaintext.
    pub fn plain(&self) -> &'a [u8] {
        self.plain
    }
}

/// The names of a sealed frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameIds {
    /// Keyed hash of the plaintext.
    pub chunk: Hash,
    /// Keyed hash of the frame that was sealed.
    pub frame: Hash,
    /// BLAKE3 of the ciphertext.
    pub blob: Hash,
}

/// A sealed frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Its names.
    pub ids: FrameIds,
    /// The ciphertext.
    pub bytes: Vec<u8>,
}

/// What an opened frame must turn out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Keyed hash of the plaintext.
    pub chunk: Hash,
    /// Keyed hash of the frame.
    pub frame: Hash,
}

/// The name of a blob with this ciphertext, the same that iroh-blobs gives it.
pub fn blob_id(sealed: &[u8]) -> Hash {
    Hash(*blake3::hash(sealed).as_bytes())
}

/// Seals `plain` (at most [`MAX_CHUNK`] bytes) into a new buffer; see [`seal_frame_into`].
pub fn seal_frame(
    plain: &[u8],
    compress: bool,
    secret: &SpaceSecret,
    epoch: &EpochKey,
) -> Result<Sealed, FrameError> {
    let mut bytes = Vec::new();
    let chunk = Chunk::new(plain, secret);
    let ids = seal_frame_into(&chunk, compress, secret, epoch, &mut bytes)?;
    Ok(Sealed { ids, bytes })
}

/// Seals `chunk` under `epoch` into `out`, which is cleared first. With `compress` the frame holds
/// the zstd form if that is notably smaller; only uncompressed frames can be sealed again later from
/// the plaintext alone.
pub fn seal_frame_into(
    chunk: &Chunk<'_>,
    compress: bool,
    secret: &SpaceSecret,
    epoch: &EpochKey,
    out: &mut Vec<u8>,
) -> Result<FrameIds, FrameError> {
    if chunk.plain.len() > MAX_CHUNK {
        return Err(FrameError::TooLong(chunk.plain.len()));
    }
    let payload_id = if padded::pack(chunk.plain, compress, out) {
        let unpacked = padded::unpack(out, MAX_CHUNK).map_err(|_| FrameError::Malformed)?;
        secret.chunk_id(unpacked.payload)
    } else {
        chunk.id
    };
    Ok(seal_packed(chunk.id, payload_id, secret, epoch, out))
}

/// Seals, uncompressed and without copying it, the plaintext that `buffer` holds behind
/// [`FRAME_HEADER_LEN`] bytes of any value; `buffer` is then the ciphertext.
pub fn seal_frame_in_place(
    buffer: &mut Vec<u8>,
    secret: &SpaceSecret,
    epoch: &EpochKey,
) -> Result<FrameIds, FrameError> {
    let plain = buffer
        .get(FRAME_HEADER_LEN..)
        .ok_or(FrameError::NoRoomForHeader)?;
    if plain.len() > MAX_CHUNK {
        return Err(FrameError::TooLong(plain.len()));
    }
    let chunk = secret.chunk_id(plain);
    buffer.reserve(sealed_len(plain.len()) - buffer.len());
    padded::pack_in_place(buffer);
    Ok(seal_packed(chunk, chunk, secret, epoch, buffer))
}

fn seal_packed(
    chunk: Hash,
    payload_id: Hash,
    secret: &SpaceSecret,
    epoch: &EpochKey,
    packed: &mut Vec<u8>,
) -> FrameIds {
    let frame = secret.frame_id(&packed[..padded::HEADER_LEN], &payload_id);
    let key = keys::one_time_key(epoch.frames(), &[&frame.0]);
    keys::seal_in_place(&key, &[], packed, 0);
    FrameIds {
        chunk,
        frame,
        blob: blob_id(packed),
    }
}

/// Opens `sealed` in place and gives the plaintext: a part of `sealed` itself, or, if the frame was
/// compressed, `scratch`. `sealed` is not a ciphertext any more afterwards, also on failure.
pub fn open_frame<'a>(
    sealed: &'a mut [u8],
    expected: &Expected,
    secret: &SpaceSecret,
    epoch: &EpochKey,
    scratch: &'a mut Vec<u8>,
) -> Result<&'a [u8], FrameError> {
    if sealed.len() > MAX_SEALED {
        return Err(FrameError::TooLong(sealed.len()));
    }
    let key = keys::one_time_key(epoch.frames(), &[&expected.frame.0]);
    let packed = keys::open_in_place(&key, &[], sealed).map_err(|_| FrameError::CannotOpen)?;
    let unpacked = padded::unpack(packed, MAX_CHUNK).map_err(|_| FrameError::Malformed)?;
    let payload_id = secret.chunk_id(unpacked.payload);
    if secret.frame_id(unpacked.header, &payload_id) != expected.frame {
        return Err(FrameError::WrongFrame);
    }
    if !unpacked.compressed {
        if payload_id != expected.chunk {
            return Err(FrameError::WrongChunk);
        }
        return Ok(unpacked.payload);
    }
    padded::decompress(unpacked.payload, unpacked.plain_len, scratch)
        .map_err(|_| FrameError::Malformed)?;
    if secret.chunk_id(scratch) != expected.chunk {
        return Err(FrameError::WrongChunk);
    }
    Ok(scratch)
}

/// Opens `sealed` into `out`, which is cleared first and empty on failure; true if the frame was compressed. Where the ciphertext may
/// be overwritten, [`open_frame`] saves a copy.
pub fn open_frame_into(
    sealed: &[u8],
    expected: &Expected,
    secret: &SpaceSecret,
    epoch: &EpochKey,
    out: &mut Vec<u8>,
) -> Result<bool, FrameError> {
    out.clear();
    if sealed.len() > MAX_SEALED {
        return Err(FrameError::TooLong(sealed.len()));
    }
    out.extend_from_slice(sealed);
    let mut scratch = Vec::new();
    match open_frame(out, expected, secret, epoch, &mut scratch).map(<[u8]>::len) {
        Ok(_) if !scratch.is_empty() => {
            *out = scratch;
            Ok(true)
        }
        // Uncompressed: the plaintext lies behind the header.
        Ok(len) => {
            out.copy_within(FRAME_HEADER_LEN..FRAME_HEADER_LEN + len, 0);
            out.truncate(len);
            Ok(false)
        }
        Err(error) => {
            out.clear();
            Err(error)
        }
    }
}

impl FrameIds {
    /// What opening the frame must give.
    pub fn expected(&self) -> Expected {
        Expected {
            chunk: self.chunk,
            frame: self.frame,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys() -> (SpaceSecret, EpochKey) {
        (
            SpaceSecret::from_secret(&[1; 32]),
            EpochKey::from_secret(&[2; 32]),
        )
    }

    fn open(sealed: &[u8], expected: &Expected) -> Result<Vec<u8>, FrameError> {
        let (secret, epoch) = keys();
        let mut out = Vec::new();
        open_frame_into(sealed, expected, &secret, &epoch, &mut out).map(|_| out)
    }

    #[test]
    fn every_way_of_sealing_a_plaintext_gives_the_same_blob() {
        let (secret, epoch) = keys();
        for len in [0, 1, 15, 4096, 100_000] {
            let plain = vec![0x5a; len];
            let sealed = seal_frame(&plain, false, &secret, &epoch).unwrap();
            assert_eq!(sealed.bytes.len(), sealed_len(len));
            assert_eq!(sealed.ids.blob, blob_id(&sealed.bytes));
            let mut buffer = vec![0xff; FRAME_HEADER_LEN];
            buffer.extend_from_slice(&plain);
            let ids = seal_frame_in_place(&mut buffer, &secret, &epoch).unwrap();
            assert_eq!((ids, &buffer), (sealed.ids, &sealed.bytes));
            assert_eq!(open(&buffer, &ids.expected()), Ok(plain));
        }
    }

    #[test]
    fn a_compressed_frame_opens_and_is_another_frame_of_the_same_chunk() {
        let (secret, epoch) = keys();
        let plain = b"the same line again and again\n".repeat(2000);
        let raw = seal_frame(&plain, false, &secret, &epoch).unwrap();
        let small = seal_frame(&plain, true, &secret, &epoch).unwrap();
        assert!(small.bytes.len() < raw.bytes.len() / 50);
        assert_eq!(small.ids.chunk, raw.ids.chunk);
        assert_ne!(small.ids.frame, raw.ids.frame);
        assert_eq!(open(&small.bytes, &small.ids.expected()), Ok(plain));
    }

    #[test]
    fn a_frame_opens_only_under_its_epoch_and_as_what_was_expected() {
        let (secret, epoch) = keys();
        let one = seal_frame(b"one", false, &secret, &epoch).unwrap();
        let two = seal_frame(b"two", false, &secret, &epoch).unwrap();
        let other = EpochKey::from_secret(&[3; 32]);
        let mut out = vec![1];
        assert_eq!(
            open_frame_into(&one.bytes, &one.ids.expected(), &secret, &other, &mut out),
            Err(FrameError::CannotOpen)
        );
        assert!(out.is_empty());
        assert_eq!(
            open(&one.bytes, &two.ids.expected()),
            Err(FrameError::CannotOpen)
        );
        let mixed = Expected {
            chunk: two.ids.chunk,
            frame: one.ids.frame,
        };
        assert_eq!(open(&one.bytes, &mixed), Err(FrameError::WrongChunk));
    }

    #[test]
    fn a_key_holder_cannot_pass_off_other_bytes_under_a_frames_id() {
        let (secret, epoch) = keys();
        let honest = seal_frame(b"honest", false, &secret, &epoch).unwrap();
        // Who has the keys can seal anything with the frame's key; the id gives it away.
        let mut forged = Vec::new();
        padded::pack(b"forged", false, &mut forged);
        let key = keys::one_time_key(epoch.frames(), &[&honest.ids.frame.0]);
        keys::seal_in_place(&key, &[], &mut forged, 0);
        assert_eq!(
            open(&forged, &honest.ids.expected()),
            Err(FrameError::WrongFrame)
        );
        let mut ragged = b"no frame at all".to_vec();
        keys::seal_in_place(&key, &[], &mut ragged, 0);
        assert_eq!(
            open(&ragged, &honest.ids.expected()),
            Err(FrameError::Malformed)
        );
    }

    #[test]
    fn too_much_is_refused() {
        let (secret, epoch) = keys();
        let long = vec![0; MAX_CHUNK + 1];
        assert_eq!(
            seal_frame(&long, true, &secret, &epoch),
            Err(FrameError::TooLong(MAX_CHUNK + 1))
        );
        let mut buffer = vec![0; FRAME_HEADER_LEN + MAX_CHUNK + 1];
        assert!(seal_frame_in_place(&mut buffer, &secret, &epoch).is_err());
        assert_eq!(
            seal_frame_in_place(&mut vec![0; 3], &secret, &epoch),
            Err(FrameError::NoRoomForHeader)
        );
        let expected = seal_frame(b"", false, &secret, &epoch)
            .unwrap()
            .ids
            .expected();
        assert_eq!(
            open(&vec![0; MAX_SEALED + 1], &expected),
            Err(FrameError::TooLong(MAX_SEALED + 1))
        );
    }

    #[test]
    fn the_longest_chunk_fits() {
        let (secret, epoch) = keys();
        let longest = seal_frame(&vec![7; MAX_CHUNK], false, &secret, &epoch).unwrap();
        assert_eq!(longest.bytes.len(), MAX_SEALED);
        assert_eq!(
            open(&longest.bytes, &longest.ids.expected()).map(|plain| plain.len()),
            Ok(MAX_CHUNK)
        );
    }

    proptest! {
        #[test]
        fn any_chunk_returns(plain in prop::collection::vec(any::<u8>(), 0..3000), compress: bool) {
            let (secret, epoch) = keys();
            let sealed = seal_frame(&plain, compress, &secret, &epoch).unwrap();
            prop_assert_eq!(open(&sealed.bytes, &sealed.ids.expected()), Ok(plain));
        }

        #[test]
        fn an_altered_frame_never_opens(
            plain in prop::collection::vec(any::<u8>(), 0..300),
            at: prop::sample::Index,
            flip in 1u8..,
        ) {
            let (secret, epoch) = keys();
            let mut sealed = seal_frame(&plain, true, &secret, &epoch).unwrap();
            let at = at.index(sealed.bytes.len());
            sealed.bytes[at] ^= flip;
            prop_assert_eq!(open(&sealed.bytes, &sealed.ids.expected()), Err(FrameError::CannotOpen));
            sealed.bytes.truncate(at);
            prop_assert_eq!(open(&sealed.bytes, &sealed.ids.expected()), Err(FrameError::CannotOpen));
        }
    }
}
