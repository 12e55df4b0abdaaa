//! The lines themselves: one JSON object each, ended by a line feed, at most [`MAX_LINE`] bytes.
//!
//! ```text
//! client: {"coffer":1,"request":{"command":"status"}}
//! node:   {"reply":{"reply":"status", …}}            or {"error":{"kind":"not-found","message":"…"}}
//! ```
//! Between the two the node may send `progress`, `item` and `ask` lines, the client `answer`, `lines` and `end`. A client
//! that closes its end has hung up; there is no half-closed state.

use std::io;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroize;

use super::question::Ask;
use super::{Answer, ControlError, DocLine, Item, Progress, Reply, Request};
use crate::vault::request::MAX_DOCUMENT;

/// Version of this conversation; both sides are of one installation, so another one only means that a node of before an
/// update is still running.
pub const PROTOCOL: u32 = 1;

/// Longest text that is read as the JSON of one document, in bytes: indented and escaped it is longer than what the
/// vault counts.
pub const MAX_DOCUMENT_TEXT: usize = 4 * MAX_DOCUMENT;

/// Longest line in bytes: such a text, which doubles in the worst case of escaping, and what is around it.
pub const MAX_LINE: usize = 2 * MAX_DOCUMENT_TEXT + (4 << 20);

/// A buffer that grew beyond this for one line is given back afterwards.
const KEEP_BUFFER: usize = 1024 * 1024;

/// The first line of a connection.
#[derive(Serialize, Deserialize)]
pub(crate) struct Opening<R> {
    /// [`PROTOCOL`] of the client.
    pub coffer: u32,
    /// The request.
    pub request: R,
}

/// What a client sends after its request.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "snake_case")]
pub enum FromClient {
    /// The answer to a question.
    Answer {
        /// Number of the question.
        id: u32,
        /// The answer.
        answer: Answer,
    },
    /// Lines of a [`Request::DocLines`].
    Lines(Vec<DocLine>),
    /// There are no more lines.
    End,
}

/// What the node sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromNode {
    /// How far it is.
    Progress(Progress),
    /// Part of the answer.
    Item(Item),
    /// A question to a person.
    Ask(Ask),
    /// The end: it went well.
    Reply(Reply),
    /// The end: it did not.
    Error(ControlError),
}

/// Why a line could not be read.
#[derive(Debug)]
pub(crate) enum LineError {
    /// The other side closed between two lines.
    Closed,
    /// The line is longer than [`MAX_LINE`].
    TooLong,
    /// Not the JSON expected.
    Malformed(String),
    /// The socket failed, or was closed within a line.
    Io(io::Error),
}

/// Reads lines into one reused buffer.
pub(crate) struct LineReader<R> {
    input: R,
    buffer: Vec<u8>,
}

impl<R: AsyncBufRead + Unpin> LineReader<R> {
    pub(crate) fn new(input: R) -> Self {
        LineReader {
            input,
            buffer: Vec::new(),
        }
    }

    /// The next line as `T`. Safe to cancel: what was read of the line so far is kept.
    pub(crate) async fn next<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T, LineError> {
        loop {
            let available = self.input.fill_buf().await.map_err(LineError::Io)?;
            if available.is_empty() {
                return Err(if self.buffer.is_empty() {
                    LineError::Closed
                } else {
                    LineError::Io(io::ErrorKind::UnexpectedEof.into())
                });
            }
            let (taken, complete) = match available.iter().position(|byte| *byte == b'\n') {
                Some(at) => (at + 1, true),
                None => (available.len(), false),
            };
            if self.buffer.len() + taken > MAX_LINE {
                return Err(LineError::TooLong);
            }
            self.buffer.extend_from_slice(&available[..taken]);
            self.input.consume(taken);
            if complete {
                let parsed = serde_json::from_slice(&self.buffer)
                    .map_err(|error| LineError::Malformed(error.to_string()));
                forget(&mut self.buffer);
                return parsed;
            }
        }
    }
}

/// Appends `message` as one line to `buffer`; leaves it as it was and fails when the line would be too long.
pub(crate) fn push_line<T: Serialize>(
    buffer: &mut Vec<u8>,
    message: &T,
) -> Result<(), ControlError> {
    let before = buffer.len();
    let written = serde_json::to_writer(&mut *buffer, message);
    if let Err(error) = written {
        buffer.truncate(before);
        return Err(if error.is_io() {
            ControlError::internal("out of memory")
        } else {
            ControlError::usage(format!("this cannot be sent: {error}"))
        });
    }
    buffer.push(b'\n');
    if buffer.len() - before > MAX_LINE {
        buffer.truncate(before);
        return Err(
            ControlError::usage("this is too large for one request or answer")
                .with_code("too-large"),
        );
    }
    Ok(())
}

/// Writes and flushes what `buffer` holds, and empties it.
pub(crate) async fn write_out<W: AsyncWrite + Unpin>(
    output: &mut W,
    buffer: &mut Vec<u8>,
) -> io::Result<()> {
    output.write_all(buffer).await?;
    output.flush().await?;
    forget(buffer);
    Ok(())
}

/// Empties a buffer, and wipes what was in it: it may have been a passphrase or the recovery words.
fn forget(buffer: &mut Vec<u8>) {
    buffer.as_mut_slice().zeroize();
    buffer.clear();
    if buffer.capacity() > KEEP_BUFFER {
        *buffer = Vec::new();
    }
}

impl Opening<&Request> {
    pub(crate) fn of(request: &Request) -> Opening<&Request> {
        Opening {
            coffer: PROTOCOL,
            request,
        }
    }
}
