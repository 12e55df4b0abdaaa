//! A session: one device is asked for blobs in batches, on one stream, and its answers are read.
//!
//! Asking and reading go on side by side, a few requests ahead. What was received goes to the workers in buffers; when
//! those are behind, reading stops, and with it, by the stream's own flow control, the other side.

use std::io;
use std::time::Duration;

use coffer_protocol::blobs::{Answers, MAX_BLOB, Wanted};
use coffer_protocol::frame::MAX_SEALED;
use coffer_protocol::identity::DeviceId;
use futures::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;

use super::board::{Item, Peer};
use super::sources::Sources;
use super::transfer::{Delivery, Sink, Transfer};
use super::{lock, wire};

/// Requests under way to one device: one being answered, one behind it, one on the way.
const REQUESTS: usize = 3;

/// A buffer goes to a worker when it holds this many bytes.
const FILL: usize = 1 << 20;

/// Bytes of a buffer: what it may hold without being full, and one longest blob.
const BUFFER: usize = FILL + MAX_SEALED;

/// How long a device may send nothing while it is asked, before others are asked instead.
const STALL: Duration = Duration::from_secs(30);

/// Bytes of the reader between stream and buffers: answers' headers would else be a read each.
const READ_AHEAD: usize = 64 << 10;

/// What a session has received and not yet given to a worker.
struct Inbox {
    peer: Peer,
    device: DeviceId,
    buffer: Vec<u8>,
    used: usize,
    parts: Vec<(Item, usize, usize)>,
    deliver: mpsc::Sender<Delivery>,
}

/// Waits no longer than [`STALL`].
async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(STALL, work)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

impl<S: Sink> Transfer<S> {
    /// Asks one device for all that it can give.
    pub(super) async fn session(
        &self,
        sources: &dyn Sources,
        peer: Peer,
        device: DeviceId,
        deliver: mpsc::Sender<Delivery>,
    ) -> io::Result<()> {
        let stream = in_time(sources.open(device)).await?;
        let (reader, mut writer) = stream.split();
        let mut reader = BufReader::with_capacity(READ_AHEAD, reader);
        let (asked, mut batches) = mpsc::channel::<Vec<Item>>(REQUESTS - 1);
        let ask = async {
            while let Some(batch) = self.board.next_batch(peer).await {
                let ids = self.board.blobs(&batch);
                in_time(wire::write_request(&mut writer, self.shared.vault, ids)).await?;
                if asked.send(batch).await.is_err() {
                    break;
                }
            }
            drop(asked);
            in_time(writer.close()).await
        };
        let take = async {
            let mut inbox = Inbox {
                peer,
                device,
                buffer: Vec::new(),
                used: 0,
                parts: Vec::new(),
                deliver,
            };
            while let Some(batch) = batches.recv().await {
                self.answers(&batch, &mut reader, &mut inbox).await?;
            }
            Ok::<(), io::Error>(())
        };
        futures::try_join!(ask, take).map(|_| ())
    }

    /// Reads the answers to one request.
    async fn answers(
        &self,
        batch: &[Item],
        reader: &mut (impl AsyncRead + Unpin),
        inbox: &mut Inbox,
    ) -> io::Result<()> {
        // Lists are foreign: a device is not to blame for a length that a list has wrong, so only the bound counts here.
        let wanted = |id| Wanted {
            id,
            max_len: MAX_BLOB as u32,
        };
        let mut answers = Answers::new(self.board.blobs(batch).into_iter().map(wanted).collect());
        while !answers.is_over() {
            let header = in_time(wire::read_answer(reader)).await?;
            if let Err(error) = answers.accept(header) {
                self.board.ban(inbox.peer, None, &error.to_string());
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            let item = batch[usize::from(header.index)];
            let Some(len) = header.len else {
                self.board.refused(item, inbox.peer);
                continue;
            };
            let len = len as usize;
            if inbox.used + len > inbox.buffer.len() {
                self.deliver(inbox).await?;
                inbox.buffer = self.buffer();
            }
            let end = inbox.used + len;
            let mut at = inbox.used;
            while at < end {
                match in_time(reader.read(&mut inbox.buffer[at..end])).await? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    n => at += n,
                }
            }
            inbox.parts.push((item, inbox.used, len));
            inbox.used = end;
            if inbox.used >= FILL {
                self.deliver(inbox).await?;
            }
        }
        self.deliver(inbox).await
    }

    /// Gives what was received to a worker.
    async fn deliver(&self, inbox: &mut Inbox) -> io::Result<()> {
        if inbox.parts.is_empty() {
            return Ok(());
        }
        // Items count as arrived in one step with being handed over: a session that is stopped in between would else
        // leave them with nobody.
        let Ok(permit) = inbox.deliver.reserve().await else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        for (item, ..) in &inbox.parts {
            self.board.arrived(*item);
        }
        self.shared.rates.received(inbox.device, inbox.used as u64);
        inbox.used = 0;
        permit.send(Delivery {
            peer: inbox.peer,
            buffer: std::mem::take(&mut inbox.buffer),
            parts: std::mem::take(&mut inbox.parts),
        });
        if self.board.is_live(inbox.peer) {
            Ok(())
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it sent wrong bytes",
            ))
        }
    }

    fn buffer(&self) -> Vec<u8> {
        let buffer = lock(&self.buffers).pop();
        // The pages of a fresh one are taken from the system only as they are used.
        buffer.unwrap_or_else(|| vec![0; BUFFER])
    }
}
