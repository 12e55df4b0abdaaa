//! Asking other devices without getting bytes: whether they have blobs, and when a pause of theirs is over.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use coffer_protocol::blobs::{Ask, Given, MAX_IDS, Presence, RESUMED, Request, Version};
use coffer_protocol::identity::{DeviceId, Hash};
use futures::io::{AsyncReadExt, AsyncWriteExt, BufReader};

use super::sources::{Opened, Sources};
use super::{Blobs, Shared, wire};

/// How long a device may take to say which of a thousand blobs it has: a look at as many rows, behind what else it does.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Bytes of the reader: some hundred answers.
const READ_AHEAD: usize = 4 << 10;

/// Which blobs a device says that it has.
#[derive(Clone, Debug, Default)]
pub struct Had {
    /// These.
    pub blobs: HashSet<Hash>,
    /// Whether it gives none of them now: transfers are paused there.
    pub paused: bool,
}

impl Blobs {
    /// Which of `ids` are on this device, by looking where each should be.
    pub async fn have(&self, ids: Vec<Hash>) -> Result<HashSet<Hash>, super::BlobsError> {
        self.blocking(move |shared| {
            let mut seam = super::seam::Seam::new(shared)?;
            let mut had = HashSet::new();
            for id in ids {
                if seam.has(&id)? {
                    had.insert(id);
                }
            }
            Ok(had)
        })
        .await
    }

    /// Asks a device that is connected which of `ids` it has. `None` where it does not say: it cannot be reached after all,
    /// takes too long, or is of an earlier version, which answers no such question.
    pub async fn ask(&self, sources: &dyn Sources, device: DeviceId, ids: &[Hash]) -> Option<Had> {
        let asked = ask(&self.shared, sources, device, ids).await;
        if let Err(error) = &asked {
            tracing::debug!(%device, %error, "a device did not say which blobs it has");
        }
        let had = asked.ok()?;
        if !had.blobs.is_empty() {
            self.shared.pauses.said(device, had.paused);
        }
        Some(had)
    }

    /// Waits until a device says that contents are given there.
    ///
    /// # Errors
    /// When the stream does not open, or breaks.
    pub async fn wait_for_end_of_pause(
        &self,
        sources: &dyn Sources,
        device: DeviceId,
    ) -> io::Result<()> {
        let Opened { version, stream } = sources.open(device).await?;
        if version == Version::One {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let (mut reader, mut writer) = stream.split();
        let question = Ask::Resumes(self.shared.vault).encode();
        wire::write_request(&mut writer, &question).await?;
        let mut answer = [0];
        reader.read_exact(&mut answer).await?;
        match answer == [RESUMED] {
            true => Ok(()),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

async fn ask(
    shared: &Shared,
    sources: &dyn Sources,
    device: DeviceId,
    ids: &[Hash],
) -> io::Result<Had> {
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    let opened = tokio::time::timeout(ANSWER_WITHIN, sources.open(device)).await;
    let Opened { version, stream } = opened.map_err(|_| late())??;
    if version == Version::One {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::with_capacity(READ_AHEAD, reader);
    let mut had = Had::default();
    for some in ids.chunks(MAX_IDS) {
        let question = Ask::Has(Request {
            vault: shared.vault,
            ids: some.to_vec(),
        });
        let answered = async {
            wire::write_request(&mut writer, &question.encode()).await?;
            let mut presence = Presence::of(some.len());
            while !presence.is_over() {
                let header = wire::read_answer(&mut reader).await?;
                let accepted = presence.accept(header);
                accepted.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            }
            Ok::<_, io::Error>(presence)
        };
        let answered = tokio::time::timeout(ANSWER_WITHIN, answered).await;
        for (id, given) in some.iter().zip(answered.map_err(|_| late())??.said()) {
            had.paused |= given == Given::Paused;
            if given != Given::Missing {
                had.blobs.insert(*id);
            }
        }
    }
    writer.close().await?;
    Ok(had)
}
