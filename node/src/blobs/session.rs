//! A session: one device is asked for blobs in batches, on one stream, and its answers are read.
//!
//! Asking and reading go on side by side, a few requests ahead. What was received goes to the workers in buffers; when
//! those are behind, reading stops, and with it, by the stream's own flow control, the other side.
//!
//! How much is asked for at a time follows the device's own pace: a quick one is kept busy, and a slow one holds little
//! that others could bring. A limit holds by asking later and for less, so that no answer has to wait in the network.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use coffer_protocol::blobs::{Answers, Given, MAX_BLOB, Wanted};
use coffer_protocol::frame::MAX_SEALED;
use coffer_protocol::identity::DeviceId;
use futures::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;

use super::board::{BATCH_BYTES, Item, Peer};
use super::gate::{Busy, Priority, Way};
use super::sources::{Opened, Sources};
use super::transfer::{Delivery, Sink, Transfer};
use super::{lock, wire};

/// Bytes asked for at a time before a device's pace is known.
const FIRST_BATCH: u64 = 2 << 20;

/// Least bytes asked for at a time, whatever its pace: some chunks.
const MIN_BATCH: u64 = 512 << 10;

/// What is asked for at a time is what the device gave in this part of a second.
const BATCHES_A_SECOND: u64 = 2;

/// How long a device that has nothing to do waits before it is asked for what others were asked for. What those have is
/// about a second and a half of their own pace.
const SECOND_AFTER: Duration = Duration::from_secs(2);

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

/// A request that was sent: what it asks for, and its place among all that are under way.
struct Asked {
    batch: Vec<Item>,
    _busy: Busy,
}

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
        priority: Priority,
    ) -> io::Result<()> {
        let Opened { version, stream } = in_time(sources.open(device)).await?;
        let (reader, mut writer) = stream.split();
        let mut reader = BufReader::with_capacity(READ_AHEAD, reader);
        let (asked, mut batches) = mpsc::channel::<Asked>(REQUESTS - 1);
        let pace = AtomicU64::new(FIRST_BATCH);
        let gate = &self.shared.gate;
        let ask = async {
            loop {
                gate.turn(device, priority).await;
                let limit = gate.ready(Way::Down).await;
                let mut bytes = pace.load(Ordering::Relaxed);
                if let Some(limit) = limit {
                    bytes = bytes.min(limit.get() / BATCHES_A_SECOND);
                }
                let Some(batch) = self.next_or_second(peer, bytes).await else {
                    break;
                };
                if let Some(limit) = limit {
                    gate.take(Way::Down, self.board.bytes(&batch), limit);
                }
                let busy = gate.enter(device, priority);
                let request = version.encode_get(self.shared.vault, self.board.blobs(&batch));
                in_time(wire::write_request(&mut writer, &request)).await?;
                let request = Asked { batch, _busy: busy };
                if asked.send(request).await.is_err() {
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
            while let Some(asked) = batches.recv().await {
                let begun = Instant::now();
                let bytes = self.answers(&asked.batch, &mut reader, &mut inbox).await?;
                let millis = begun.elapsed().as_millis().max(1) as u64;
                let per_second = bytes.saturating_mul(1000) / millis;
                pace.store(
                    (per_second / BATCHES_A_SECOND).clamp(MIN_BATCH, BATCH_BYTES),
                    Ordering::Relaxed,
                );
            }
            Ok::<(), io::Error>(())
        };
        futures::try_join!(ask, take).map(|_| ())
    }

    /// What `peer` is to be asked for next: what nobody was asked for, and after a while what others are slow to bring.
    async fn next_or_second(&self, peer: Peer, bytes: u64) -> Option<Vec<Item>> {
        loop {
            match tokio::time::timeout(SECOND_AFTER, self.board.next_batch(peer, bytes)).await {
                Ok(batch) => return batch,
                Err(_) => {
                    let batch = self.board.second_batch(peer, bytes);
                    if !batch.is_empty() {
                        return Some(batch);
                    }
                }
            }
        }
    }

    /// Reads the answers to one request, and gives how many bytes they had.
    async fn answers(
        &self,
        batch: &[Item],
        reader: &mut (impl AsyncRead + Unpin),
        inbox: &mut Inbox,
    ) -> io::Result<u64> {
        let _under_way = self.shared.rates.receiving(inbox.device);
        let mut bytes = 0;
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
            let len = match header.given {
                Given::Bytes(len) => len as usize,
                given => {
                    if given == Given::Paused {
                        self.shared.pauses.said(inbox.device, true);
                    }
                    self.board.refused(item, inbox.peer);
                    continue;
                }
            };
            self.shared.pauses.said(inbox.device, false);
            if inbox.used + len > inbox.buffer.len() {
                self.deliver(inbox).await?;
                inbox.buffer = self.buffer();
            }
            let end = inbox.used + len;
            let mut at = inbox.used;
            while at < end {
                match in_time(reader.read(&mut inbox.buffer[at..end])).await? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    n => {
                        at += n;
                        self.shared.rates.received(inbox.device, n as u64);
                    }
                }
            }
            bytes += len as u64;
            inbox.parts.push((item, inbox.used, len));
            inbox.used = end;
            if inbox.used >= FILL {
                self.deliver(inbox).await?;
            }
        }
        self.deliver(inbox).await?;
        Ok(bytes)
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
        inbox.parts.retain(|(item, ..)| self.board.arrived(*item));
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
