//! Bringing blobs to a relay host: sealed bytes in the form in which a host takes them, sent within the limits.

use std::io;
use std::time::Duration;

use coffer_protocol::identity::{DeviceId, Hash};
use coffer_protocol::relay::{MAX_PUT, PutHeader};
use futures::io::{AsyncWrite, AsyncWriteExt};

use super::seam::Seam;
use super::{Blobs, BlobsError};

/// How long the other side may take nothing at all.
const STALL: Duration = Duration::from_secs(60);

/// Blobs that are ready to be put: the bytes that follow the request.
#[derive(Debug, Default)]
pub struct Filled {
    /// Header and bytes of each.
    pub buffer: Vec<u8>,
    /// Which they are.
    pub blobs: Vec<Hash>,
    /// How many of those asked for were looked at: these, and such as are not here.
    pub looked_at: usize,
}

impl Filled {
    /// Bytes of the blobs alone.
    pub fn blob_bytes(&self) -> u64 {
        (self.buffer.len() - self.blobs.len() * PutHeader::LEN) as u64
    }
}

impl Blobs {
    /// Makes the first of `ids` ready, until they have about `target` bytes; `used` is a buffer to fill. What is not here
    /// is passed over.
    pub async fn fill_put(
        &self,
        ids: Vec<Hash>,
        target: usize,
        mut used: Vec<u8>,
    ) -> Result<Filled, BlobsError> {
        used.clear();
        self.blocking(move |shared| {
            let mut filled = Filled {
                buffer: used,
                ..Filled::default()
            };
            let mut seam = Seam::new(shared)?;
            for id in &ids {
                if filled.buffer.len() >= target || filled.blobs.len() == MAX_PUT {
                    break;
                }
                filled.looked_at += 1;
                let before = filled.buffer.len();
                filled.buffer.resize(before + PutHeader::LEN, 0);
                if !seam.sealed(id, &mut filled.buffer)? {
                    filled.buffer.truncate(before);
                    continue;
                }
                let len = filled.buffer.len() - before - PutHeader::LEN;
                let header = PutHeader {
                    id: *id,
                    len: len as u32,
                };
                filled.buffer[before..before + PutHeader::LEN].copy_from_slice(&header.encode());
                filled.blobs.push(*id);
            }
            Ok(filled)
        })
        .await
    }

    /// The sealed bytes of one blob, if it is here.
    pub async fn sealed(&self, id: Hash) -> Result<Option<Vec<u8>>, BlobsError> {
        self.blocking(move |shared| {
            let mut bytes = Vec::new();
            Ok(Seam::new(shared)?.sealed(&id, &mut bytes)?.then_some(bytes))
        })
        .await
    }

    /// Writes bytes of contents to a device, as fast as the limits allow.
    pub async fn send_up(
        &self,
        device: DeviceId,
        writer: &mut (impl AsyncWrite + Unpin),
        bytes: &[u8],
    ) -> io::Result<()> {
        let _under_way = self.shared.rates.sending(device);
        let mut rest = bytes;
        while !rest.is_empty() {
            let (slice, limited) = self.shared.gate.up(rest.len()).await;
            let (now, later) = rest.split_at(slice);
            let mut now = now;
            while !now.is_empty() {
                let written = tokio::time::timeout(STALL, writer.write(now))
                    .await
                    .map_err(|_| io::ErrorKind::TimedOut)??;
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                self.shared.rates.sent(device, written as u64);
                now = &now[written..];
            }
            if limited {
                writer.flush().await?;
            }
            rest = later;
        }
        writer.flush().await
    }
}
