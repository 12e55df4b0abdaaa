//! Batch GET on a byte stream. The formats are [`coffer_protocol::blobs`]'; this moves them.
//!
//! A request is a message behind its length (big-endian `u32`, as on all streams of coffer); an answer is headers and
//! bytes until each id was answered.

use std::io;

use coffer_protocol::blobs::{AnswerHeader, Ask, Given, MAX_REQUEST, Version};
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::error::ServeError;

/// Sends an encoded request.
pub(super) async fn write_request(
    writer: &mut (impl AsyncWrite + Unpin),
    request: &[u8],
) -> io::Result<()> {
    let mut message = Vec::with_capacity(4 + request.len());
    message.extend_from_slice(&(request.len() as u32).to_be_bytes());
    message.extend_from_slice(request);
    writer.write_all(&message).await?;
    writer.flush().await
}

/// Reads the next request; `None` where the stream ends before one.
pub(super) async fn read_request(
    reader: &mut (impl AsyncRead + Unpin),
    version: Version,
) -> Result<Option<Ask>, ServeError> {
    let mut prefix = [0; 4];
    // A stream may end before a message, not inside it.
    if reader.read(&mut prefix[..1]).await? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut prefix[1..]).await?;
    let len = u32::from_be_bytes(prefix) as usize;
    if len > MAX_REQUEST {
        return Err(ServeError::BadRequest(format!("{len} bytes long")));
    }
    let mut bytes = vec![0; len];
    reader.read_exact(&mut bytes).await?;
    let ask = version.decode(&bytes);
    ask.map(Some)
        .map_err(|error| ServeError::BadRequest(error.to_string()))
}

/// Appends the header of an answer to `buffer`, as missing; gives where it is.
pub(super) fn begin_answer(index: u16, buffer: &mut Vec<u8>) -> usize {
    let at = buffer.len();
    answer(index, Given::Missing, buffer);
    at
}

/// Appends an answer without bytes.
pub(super) fn answer(index: u16, given: Given, buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(&AnswerHeader { index, given }.encode());
}

/// The blob of the header at `at` was appended: says so in the header.
pub(super) fn end_answer(at: usize, index: u16, buffer: &mut [u8]) {
    let given = Given::Bytes((buffer.len() - at - AnswerHeader::LEN) as u32);
    buffer[at..at + AnswerHeader::LEN].copy_from_slice(&AnswerHeader { index, given }.encode());
}

/// Reads the next header of an answer.
pub(super) async fn read_answer(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<AnswerHeader> {
    let mut header = [0; AnswerHeader::LEN];
    reader.read_exact(&mut header).await?;
    Ok(AnswerHeader::decode(&header))
}
