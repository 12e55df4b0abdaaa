//! The host's side of its control socket. One task per connection, all owned by [`Server::run`]; bounded in number, in
//! the length of a request, and in time.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::Value;
use tokio::io::BufReader;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client::{Closing, Opening};
use super::messages::{HostReply, HostRequest, VERSION};
use crate::control::lines::{LineError, LineReader, push_line, write_out};
use crate::control::server::allowed;
use crate::control::{ControlError, ErrorKind, socket};
use crate::relay::host::stopped;

/// Commands at once; people run one, scripts a few.
const MAX_CONNECTIONS: usize = 32;
/// How long a command may take to send its request, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause after an accept that failed (no more file descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers one request.
pub type Answer =
    dyn Fn(HostRequest) -> BoxFuture<'static, Result<HostReply, ControlError>> + Send + Sync;

/// A bound socket.
pub struct Server {
    listener: UnixListener,
    data_dir: PathBuf,
}

impl Server {
    /// Binds the socket in a data folder whose lock the caller holds.
    pub fn bind(data_dir: &Path) -> io::Result<Server> {
        Ok(Server {
            listener: socket::bind(data_dir)?,
            data_dir: data_dir.to_owned(),
        })
    }

    /// Serves until `stop`; what is under way then is dropped.
    pub async fn run(self, answer: Arc<Answer>, mut stop: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stopped(&mut stop) => break,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                    Ok((stream, _)) => {
                        let answer = answer.clone();
                        connections.spawn(async move { connection(stream, &*answer).await });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a command could not connect");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        socket::remove(&self.data_dir);
        connections.shutdown().await;
    }
}

async fn connection(stream: UnixStream, answer: &Answer) {
    let permitted = allowed(&stream);
    let (input, mut output) = stream.into_split();
    let mut lines = LineReader::new(BufReader::new(input));
    let result = match permitted {
        Err(error) => Err(error),
        Ok(()) => match tokio::time::timeout(PATIENCE, lines.next::<Opening<Value>>()).await {
            Err(_) | Ok(Err(LineError::Closed | LineError::Io(_))) => return,
            Ok(Err(LineError::TooLong)) => Err(ControlError::usage("the request is too large")),
            Ok(Err(LineError::Malformed(what))) => Err(ControlError::usage(format!(
                "the request is not what it should be: {what}"
            ))),
            Ok(Ok(opening)) => match request(opening) {
                Ok(request) => answer(request).await,
                Err(error) => Err(error),
            },
        },
    };
    let closing = result.map_or_else(Closing::Error, Closing::Reply);
    let mut line = Vec::new();
    if let Err(error) = push_line(&mut line, &closing) {
        let _ = push_line(&mut line, &Closing::Error(error));
    }
    // A command that is gone, or does not read, need not be told.
    let _ = tokio::time::timeout(PATIENCE, write_out(&mut output, &mut line)).await;
}

/// In two steps, so that another version is told apart from nonsense.
fn request(opening: Opening<Value>) -> Result<HostRequest, ControlError> {
    if opening.coffer_relay != VERSION {
        return Err(ControlError::new(
            ErrorKind::NewerVersion,
            "the running host is of another version than this command",
        )
        .with_code("other-host-version"));
    }
    serde_json::from_value(opening.request).map_err(|error| {
        ControlError::usage(format!(
            "the running host does not know this request: {error}"
        ))
    })
}
