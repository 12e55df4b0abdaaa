//! Messages on a stream: a big-endian `u32` length, then that many bytes.
//!
//! The reader states the largest message it will take. A longer one is refused before a byte of it is read, and memory
//! is only taken as bytes arrive, so a peer that announces much and sends nothing costs nothing.

use std::io;

use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How much the reader's buffer may grow ahead of what has arrived, in bytes: large enough that a 1 MiB message takes
/// few reads, small enough that a lying length is harmless.
const GROWTH: usize = 64 * 1024;

/// How much of a message is copied behind its length, so that both are sent at once, in bytes: a yamux frame's payload less
/// the length.
const TOGETHER: usize = 16 * 1024 - 4;

/// Why a message could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length prefix (or the message to be sent) is over the limit, both in bytes.
    #[error("a message of {len} bytes is over the limit of {limit}")]
    TooLong {
        /// Announced length.
        len: u64,
        /// The limit of this stream.
        limit: usize,
    },
    /// The stream ended inside a length or a message.
    #[error("the stream ended inside a message")]
    Truncated,
    /// The stream broke.
    #[error("the stream broke: {0}")]
    Io(#[from] io::Error),
}

/// Writes one message; the caller flushes. A message over `limit` bytes (or over `u32::MAX`) is refused and nothing is
/// written.
pub async fn write_frame<W>(writer: &mut W, message: &[u8], limit: usize) -> Result<(), FrameError>
where
    W: AsyncWrite + Unpin + ?Sized,
{
    let len = match u32::try_from(message.len()) {
        Ok(len) if message.len() <= limit => len,
        _ => {
            return Err(FrameError::TooLong {
                len: message.len() as u64,
                limit,
            });
        }
    };
    // Length and beginning go together, in one record of the multiplexer: small messages are most messages.
    let (beginning, rest) = message.split_at(message.len().min(TOGETHER));
    let mut first = Vec::with_capacity(4 + beginning.len());
    first.extend_from_slice(&len.to_be_bytes());
    first.extend_from_slice(beginning);
    writer.write_all(&first).await?;
    writer.write_all(rest).await?;
    Ok(())
}

/// Reads the next message into `buffer`, whose former contents are dropped and whose capacity is reused.
///
/// Returns `false` when the stream has ended cleanly before a length.
///
/// Not cancel safe: a future dropped halfway loses the place in the stream.
pub async fn read_frame<R>(
    reader: &mut R,
    buffer: &mut Vec<u8>,
    limit: usize,
) -> Result<bool, FrameError>
where
    R: AsyncRead + Unpin + ?Sized,
{
    buffer.clear();
    let mut prefix = [0u8; 4];
    let mut have = 0;
    while have < prefix.len() {
        match reader.read(&mut prefix[have..]).await? {
            0 if have == 0 => return Ok(false),
            0 => return Err(FrameError::Truncated),
            n => have += n,
        }
    }
    let len = u32::from_be_bytes(prefix);
    let Some(len) = usize::try_from(len).ok().filter(|len| *len <= limit) else {
        return Err(FrameError::TooLong {
            len: u64::from(len),
            limit,
        });
    };
    let mut filled = 0;
    while filled < len {
        if filled == buffer.len() {
            let room = buffer.capacity().max(filled + GROWTH).min(len);
            buffer.resize(room, 0);
        }
        match reader.read(&mut buffer[filled..]).await? {
            0 => return Err(FrameError::Truncated),
            n => filled += n,
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use futures::{executor::block_on, io::Cursor};
    use proptest::prelude::*;

    use super::*;

    fn written(message: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        block_on(write_frame(&mut bytes, message, message.len())).expect("within the limit");
        bytes
    }

    fn read(bytes: &[u8], limit: usize) -> (Result<bool, FrameError>, Vec<u8>) {
        let mut buffer = b"old".to_vec();
        let result = block_on(read_frame(&mut Cursor::new(bytes), &mut buffer, limit));
        (result, buffer)
    }

    #[test]
    fn frozen_frame() {
        assert_eq!(hex::encode(written(b"coffer")), "00000006636f66666572");
        assert_eq!(hex::encode(written(b"")), "00000000");
    }

    #[test]
    fn an_oversized_message_is_refused_by_the_writer_before_a_byte_and_by_the_reader_before_memory()
    {
        let mut bytes = Vec::new();
        let refused = block_on(write_frame(&mut bytes, &[0; 11], 10));
        assert!(matches!(
            refused,
            Err(FrameError::TooLong { len: 11, limit: 10 })
        ));
        assert!(bytes.is_empty());
        let (result, buffer) = read(&u32::MAX.to_be_bytes(), 10);
        assert!(matches!(result, Err(FrameError::TooLong { limit: 10, .. })));
        assert!(buffer.capacity() < 64);
    }

    #[test]
    fn an_announced_length_takes_no_memory_before_its_bytes_arrive() {
        let (result, buffer) = read(&(1u32 << 30).to_be_bytes(), 1 << 30);
        assert!(matches!(result, Err(FrameError::Truncated)));
        assert!(buffer.capacity() <= GROWTH);
    }

    #[test]
    fn the_end_between_messages_is_clean() {
        assert!(matches!(read(&[], 10).0, Ok(false)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..70_000), 0..4)) {
            let bytes: Vec<u8> = messages.iter().flat_map(|message| written(message)).collect();
            let mut reader = Cursor::new(bytes);
            let mut buffer = Vec::new();
            for message in &messages {
                prop_assert!(block_on(read_frame(&mut reader, &mut buffer, 70_000)).expect("a frame"));
                prop_assert_eq!(&buffer, message);
            }
            prop_assert!(!block_on(read_frame(&mut reader, &mut buffer, 70_000)).expect("the end"));
        }

        #[test]
        fn a_cut_message_is_refused(message in proptest::collection::vec(any::<u8>(), 0..300), cut in 1usize..300) {
            let bytes = written(&message);
            let kept = bytes.len() - cut.min(bytes.len());
            let (result, _) = read(&bytes[..kept], 300);
            if kept == 0 {
                prop_assert!(matches!(result, Ok(false)));
            } else {
                prop_assert!(matches!(result, Err(FrameError::Truncated)));
            }
        }

        #[test]
        fn any_bytes_are_read_within_the_limit(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (result, buffer) = read(&bytes, 200);
            if let Ok(true) = result {
                prop_assert!(buffer.len() <= 200);
            }
        }
    }
}
