//! Conversations with a host: joining it, and its protocol of blobs.

use std::time::Duration;

use coffer_protocol::identity::{DeviceId, Hash, VaultId};
use coffer_protocol::relay::{
    Answer, DeviceSide, DeviceStep, Host, JOIN_TIMEOUT_MS, JoinError, MAX_ANSWER, MAX_BIND,
    MAX_HAVE, MAX_JOIN_MESSAGE, Refusal, Request,
};
use coffer_protocol::version;
use futures::AsyncReadExt;
use futures::io::{BufReader, ReadHalf, WriteHalf};

use crate::net::{Multiaddr, Net, Stream, StreamProtocol, read_frame, resolve, write_frame};

/// How long a host may take for an answer: it may have to make 16 MiB durable on a slow disk, behind those of others.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);

/// Connects to a host at one of these addresses, which may have names in them.
///
/// # Errors
/// What a person can be told.
pub async fn reach(net: &Net, host: DeviceId, addresses: &[Multiaddr]) -> Result<(), String> {
    let resolved = resolve(addresses).await;
    let complaint = resolved.complaint();
    match net.dial(host.0, resolved.addresses).await {
        Ok(()) => Ok(()),
        Err(error) => Err(format!("{error}{complaint}")),
    }
}

/// Carries a conversation about joining to its end. `admit` makes the grant that admits the host and gives all grants.
pub async fn join<F>(
    net: &Net,
    host: DeviceId,
    (mut side, steps): (DeviceSide, Vec<DeviceStep>),
    admit: impl Fn(Host) -> F,
) -> Result<Host, JoinError>
where
    F: Future<Output = Option<Vec<Vec<u8>>>>,
{
    let protocol = StreamProtocol::new(version::RELAY_JOIN);
    let stream = net.open(host.0, protocol).await;
    let (mut read, mut write) = stream.map_err(|_| JoinError::Disconnected)?.split();
    let mut steps = std::collections::VecDeque::from(steps);
    let mut frame = Vec::new();
    // The host waits this long for us; we give it a little longer, as its disk may be slow.
    let patience = Duration::from_millis(2 * JOIN_TIMEOUT_MS);
    loop {
        while let Some(step) = steps.pop_front() {
            match step {
                DeviceStep::Send(bytes) => {
                    if write_frame(&mut write, &bytes, MAX_BIND).await.is_err() {
                        steps.extend(side.disconnected());
                    }
                }
                DeviceStep::Admit(host) => steps.extend(side.admitted(admit(*host).await)),
                DeviceStep::Bound(host) => return Ok(*host),
                DeviceStep::Failed(why) => return Err(why),
            }
        }
        let read = read_frame(&mut read, &mut frame, MAX_JOIN_MESSAGE);
        match tokio::time::timeout(patience, read).await {
            Ok(Ok(true)) => steps.extend(side.on_message(&frame)),
            _ => steps.extend(side.disconnected()),
        }
        if steps.is_empty() {
            return Err(JoinError::Disconnected);
        }
    }
}

/// Why a host did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum TalkError {
    /// The stream did not open, broke, or nothing came in time.
    #[error("the host does not answer: {0}")]
    Broken(String),
    /// It answered what was not asked.
    #[error("the host's answer makes no sense")]
    Nonsense,
    /// The blobs do not fit into the quota.
    #[error("the host is full")]
    Full,
    /// It does not keep this vault, or not for this device.
    #[error("the host does not keep this vault for this device")]
    NotOurs,
    /// It cannot now.
    #[error("the host cannot do this now (reason {0})")]
    Refused(u16),
}

impl From<Refusal> for TalkError {
    fn from(why: Refusal) -> Self {
        match why {
            Refusal::FULL => Self::Full,
            Refusal::NOT_YOURS => Self::NotOurs,
            Refusal(reason) => Self::Refused(reason),
        }
    }
}

fn broken(error: impl std::fmt::Display) -> TalkError {
    TalkError::Broken(error.to_string())
}

/// A stream of the protocol of blobs.
pub struct Talk {
    /// The vault that is talked about.
    pub vault: VaultId,
    /// Answers.
    pub read: Reader,
    /// Requests.
    pub write: WriteHalf<Stream>,
}

/// The half on which answers come.
pub struct Reader {
    read: BufReader<ReadHalf<Stream>>,
    frame: Vec<u8>,
}

impl Reader {
    /// The next answer; a refusal is an error.
    pub async fn answer(&mut self) -> Result<Answer, TalkError> {
        let read = read_frame(&mut self.read, &mut self.frame, MAX_ANSWER);
        let read = tokio::time::timeout(ANSWER_WITHIN, read).await;
        if !read.map_err(broken)?.map_err(broken)? {
            return Err(broken("it closed the stream"));
        }
        match Answer::decode(&self.frame).map_err(|_| TalkError::Nonsense)? {
            Answer::Refused { why, .. } => Err(why.into()),
            answer => Ok(answer),
        }
    }
}

impl Talk {
    /// Opens a stream to a connected host.
    pub async fn open(net: &Net, host: DeviceId, vault: VaultId) -> Result<Talk, TalkError> {
        let protocol = StreamProtocol::new(version::RELAY_BLOBS);
        let stream = net.open(host.0, protocol).await.map_err(broken)?;
        let (read, write) = stream.split();
        Ok(Talk {
            vault,
            read: Reader {
                read: BufReader::new(read),
                frame: Vec::new(),
            },
            write,
        })
    }

    /// Sends a request.
    pub async fn send(write: &mut WriteHalf<Stream>, request: &Request) -> Result<(), TalkError> {
        write_frame(
            write,
            &request.encode(),
            coffer_protocol::relay::MAX_REQUEST,
        )
        .await
        .map_err(broken)
    }

    /// Sends a request and waits for its answer.
    pub async fn ask(&mut self, request: &Request) -> Result<Answer, TalkError> {
        Self::send(&mut self.write, request).await?;
        self.read.answer().await
    }

    /// Those of `ids` that the host has, and those that it has not. Claims the former where `claim`.
    pub async fn have(
        &mut self,
        ids: &[Hash],
        claim: bool,
    ) -> Result<(Vec<Hash>, Vec<Hash>), TalkError> {
        let (mut there, mut lacking) = (Vec::new(), Vec::new());
        for ids in ids.chunks(MAX_HAVE) {
            let request = Request::Have {
                vault: self.vault,
                ids: ids.to_vec(),
                claim,
            };
            let Answer::Have(bits) = self.ask(&request).await? else {
                return Err(TalkError::Nonsense);
            };
            if !bits.fits(ids.len()) {
                return Err(TalkError::Nonsense);
            }
            for (at, id) in ids.iter().enumerate() {
                match bits.get(at) {
                    true => there.push(*id),
                    false => lacking.push(*id),
                }
            }
        }
        Ok((there, lacking))
    }
}
