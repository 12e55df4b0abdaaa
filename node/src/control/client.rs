//! The client's side: connect, send one request, read what comes.

use std::io;
use std::path::Path;

use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::lines::{FromClient, FromNode, LineError, LineReader, Opening, push_line, write_out};
use super::wiped::Wiped;
use super::{
    Answer, ControlError, DocLine, ErrorKind, MAX_LINE, Reply, Request, socket, socket_path,
};

/// A connection to a running node that has not asked yet.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

/// A request under way.
pub struct Call {
    reader: CallReader,
    writer: CallWriter,
}

/// The receiving half of a [`Call`].
pub struct CallReader {
    lines: LineReader<Wiped<OwnedReadHalf>>,
    ended: bool,
}

/// The sending half of a [`Call`]. Dropping it hangs up.
pub struct CallWriter {
    output: OwnedWriteHalf,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects to the node that works on `data_dir`. `NotRunning` where none does.
    pub async fn connect(data_dir: &Path) -> Result<Client, ControlError> {
        match socket::connect(data_dir).await {
            Ok(stream) => Ok(Client { stream }),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::ConnectionRefused
                        | io::ErrorKind::NotADirectory
                ) =>
            {
                Err(ControlError::new(
                    ErrorKind::NotRunning,
                    format!("coffer is not running on {}", data_dir.display()),
                ))
            }
            Err(error) => Err(ControlError::io(
                format_args!("reach {}", socket_path(data_dir).display()),
                &error,
            )),
        }
    }

    /// Sends the request.
    pub async fn send(self, request: &Request) -> Result<Call, ControlError> {
        let (input, output) = self.stream.into_split();
        let mut call = Call {
            reader: CallReader {
                lines: LineReader::new(Wiped::with_capacity(64 * 1024, input)),
                ended: false,
            },
            writer: CallWriter {
                output,
                buffer: Vec::new(),
            },
        };
        push_line(&mut call.writer.buffer, &Opening::of(request))?;
        // The node may have refused the connection (too many) and said why before it closed: read that rather than
        // report a broken pipe.
        if let Err(error) = call.writer.flush().await {
            match call.reader.next().await {
                Err(refused) if refused.kind != ErrorKind::Internal => return Err(refused),
                _ => return Err(error),
            }
        }
        Ok(call)
    }

    /// Sends a request that is answered by one reply and nothing before it.
    pub async fn ask(self, request: &Request) -> Result<Reply, ControlError> {
        let mut call = self.send(request).await?;
        loop {
            if let FromNode::Reply(reply) = call.next().await? {
                return Ok(reply);
            }
        }
    }
}

impl Call {
    /// What the node sends next; an `Error` line comes back as `Err`. After a reply or an error there is nothing more.
    pub async fn next(&mut self) -> Result<FromNode, ControlError> {
        self.reader.next().await
    }

    /// Answers question `id`.
    pub async fn answer(&mut self, id: u32, answer: Answer) -> Result<(), ControlError> {
        self.writer
            .message(&FromClient::Answer { id, answer })
            .await
    }

    /// Both halves, for sending lines and reading acknowledgements at once.
    pub fn split(self) -> (CallReader, CallWriter) {
        (self.reader, self.writer)
    }
}

impl CallReader {
    /// As [`Call::next`]. Safe to cancel.
    pub async fn next(&mut self) -> Result<FromNode, ControlError> {
        if self.ended {
            return Err(ControlError::internal("the answer has ended"));
        }
        let message = self
            .lines
            .next::<FromNode>()
            .await
            .map_err(|error| match error {
                LineError::Closed => {
                    ControlError::new(ErrorKind::Cancelled, "coffer ended before it answered")
                }
                LineError::TooLong => {
                    ControlError::internal(format!("an answer of more than {} MiB", MAX_LINE >> 20))
                }
                LineError::Malformed(what) => ControlError::new(
                    ErrorKind::NewerVersion,
                    format!("the running coffer is of another version than this command ({what})"),
                )
                .with_code("other-version-running"),
                LineError::Io(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                    ) =>
                {
                    ControlError::new(ErrorKind::Cancelled, "coffer ended before it answered")
                }
                LineError::Io(error) => ControlError::io("read coffer's answer", &error),
            });
        match message {
            Ok(FromNode::Error(error)) => {
                self.ended = true;
                Err(error)
            }
            Ok(FromNode::Reply(reply)) => {
                self.ended = true;
                Ok(FromNode::Reply(reply))
            }
            Ok(other) => Ok(other),
            Err(error) => {
                self.ended = true;
                Err(error)
            }
        }
    }
}

impl CallWriter {
    /// Sends lines of a [`Request::DocLines`]; `Usage` where one does not fit into a message.
    pub async fn lines(&mut self, lines: Vec<DocLine>) -> Result<(), ControlError> {
        self.message(&FromClient::Lines(lines)).await
    }

    /// Says that there are no more lines.
    pub async fn end(&mut self) -> Result<(), ControlError> {
        self.message(&FromClient::End).await
    }

    async fn message(&mut self, message: &FromClient) -> Result<(), ControlError> {
        push_line(&mut self.buffer, message)?;
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), ControlError> {
        write_out(&mut self.output, &mut self.buffer)
            .await
            .map_err(|error| ControlError::io("talk to coffer", &error))
    }
}
