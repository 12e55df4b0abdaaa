//! Sealed blobs of one device on their way to another, by way of this one and without being kept here.
//!
//! What only one relay host has is given to another like this. This device needs no room for it, and no key: every blob is
//! compared with its name, and goes on as it came.

use std::io;
use std::time::Duration;

use coffer_protocol::blobs::{Answers, Given, MAX_BLOB, MAX_IDS, Version, Wanted, is_blob};
use coffer_protocol::identity::{DeviceId, Hash};
use coffer_protocol::relay::{MAX_PUT, PutHeader};
use futures::io::{AsyncReadExt, BufReader};
use tokio::sync::mpsc;

use super::bring::Filled;
use super::gate::Way;
use super::sources::ByteStream;
use super::{Blobs, wire};

/// How long a device may send nothing while it is asked.
const STALL: Duration = Duration::from_secs(30);

/// Waits no longer than [`STALL`].
async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(STALL, work)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

impl Blobs {
    /// Asks a device for `ids` on a `stream` of the protocol of blobs, version 1, and gives what comes to `ready`, each time about
    /// `target` bytes. Gives those that the device does not have, or not as they are named. Ends early where nobody takes
    /// them any more.
    pub async fn pass_on(
        &self,
        device: DeviceId,
        stream: impl ByteStream,
        ids: &[Hash],
        target: usize,
        ready: &mpsc::Sender<Filled>,
    ) -> io::Result<Vec<Hash>> {
        let (reader, mut writer) = stream.split();
        let mut reader = BufReader::new(reader);
        let (mut missing, mut filled) = (Vec::new(), Filled::default());
        for ids in ids.chunks(MAX_IDS) {
            let _under_way = self.shared.rates.receiving(device);
            let request = Version::One.encode_get(self.shared.vault, ids.to_vec());
            in_time(wire::write_request(&mut writer, &request)).await?;
            let wanted = |id: &Hash| Wanted {
                id: *id,
                max_len: MAX_BLOB as u32,
            };
            let mut answers = Answers::new(ids.iter().map(wanted).collect());
            while !answers.is_over() {
                let header = in_time(wire::read_answer(&mut reader)).await?;
                answers
                    .accept(header)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                let id = ids[usize::from(header.index)];
                let Given::Bytes(len) = header.given else {
                    missing.push(id);
                    continue;
                };
                let limit = self.shared.gate.ready(Way::Down).await;
                let before = filled.buffer.len();
                let header = PutHeader { id, len };
                filled.buffer.extend_from_slice(&header.encode());
                let from = filled.buffer.len();
                filled.buffer.resize(from + len as usize, 0);
                let mut at = from;
                while at < filled.buffer.len() {
                    match in_time(reader.read(&mut filled.buffer[at..])).await? {
                        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                        read => at += read,
                    }
                }
                self.shared.rates.received(device, u64::from(len));
                if let Some(limit) = limit {
                    self.shared.gate.take(Way::Down, u64::from(len), limit);
                }
                if !is_blob(&id, &filled.buffer[from..]) {
                    filled.buffer.truncate(before);
                    missing.push(id);
                    continue;
                }
                filled.blobs.push(id);
                let is_enough = filled.buffer.len() >= target || filled.blobs.len() == MAX_PUT;
                if is_enough && ready.send(std::mem::take(&mut filled)).await.is_err() {
                    return Ok(missing);
                }
            }
        }
        if !filled.blobs.is_empty() {
            let _ = ready.send(filled).await;
        }
        Ok(missing)
    }
}
