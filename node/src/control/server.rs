//! The node's side of the socket: accept, check who it is, read one request, carry the conversation.
//!
//! Inputs: connections. One task per connection, all owned by [`Server::run`], which ends when told to: it takes no new
//! connection, gives those under way a moment, drops the rest and removes the socket. Bounded: connections, the length
//! of a line, the time until a request has come, what is queued in either direction.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::lines::{FromClient, FromNode, LineError, LineReader, Opening, push_line, write_out};
use super::wiped::Wiped;
use super::{ControlError, ErrorKind, Gone, PROTOCOL, Reply, Request, Session, socket};

/// Connections at once. Each costs a task and two small queues; scripts that follow events keep theirs.
const MAX_CONNECTIONS: usize = 128;
/// How long a client may take to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests under way may go on once the node ends.
const GRACE: Duration = Duration::from_millis(1500);
/// Messages queued to a client. Progress beyond it is dropped, all else waits.
const TO_CLIENT: usize = 64;
/// Messages queued from a client, beyond which it is not read.
const FROM_CLIENT: usize = 16;
/// Queued messages are written in one piece up to this many bytes.
const WRITE_AT_ONCE: usize = 256 * 1024;
/// Pause after an accept that failed (no more file descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What requests mean; the node's service implements it.
pub trait Service: Send + Sync + 'static {
    /// Answers one request. The future is dropped when the client hangs up and [`Request::ends_with_client`] says so, and
    /// when the node ends; a panic in it ends that connection only.
    fn handle(
        &self,
        request: Request,
        session: Session,
    ) -> Pin<Box<dyn Future<Output = Result<Reply, ControlError>> + Send + '_>>;
}

/// A bound socket.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    data_dir: PathBuf,
}

impl Server {
    /// Binds `<data>/control.sock`, replacing a stale one. The caller holds the [`super::DataLock`].
    pub fn bind(data_dir: &Path) -> io::Result<Server> {
        Ok(Server {
            listener: socket::bind(data_dir)?,
            data_dir: data_dir.to_owned(),
        })
    }

    /// Serves until `shutdown` resolves. Then drops what [`Request::ends_with_client`], and gives the rest [`GRACE`].
    pub async fn run(self, service: Arc<dyn Service>, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        let (end, ending) = watch::channel(false);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let place = places.clone().try_acquire_owned().ok();
                        let service = service.clone();
                        let ending = ending.clone();
                        connections.spawn(async move {
                            if place.is_some() {
                                connection(stream, service, ending).await;
                            } else {
                                refuse(stream, ControlError::unavailable("too many commands at once")).await;
                            }
                            drop(place);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a command could not connect");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        end.send_replace(true);
        socket::remove(&self.data_dir);
        drop(self.listener);
        let _ = tokio::time::timeout(GRACE, async {
            while connections.join_next().await.is_some() {}
        })
        .await;
        connections.shutdown().await;
    }
}

async fn connection(stream: UnixStream, service: Arc<dyn Service>, ending: watch::Receiver<bool>) {
    if let Err(error) = allowed(&stream) {
        return refuse(stream, error).await;
    }
    let (input, output) = stream.into_split();
    let mut lines = LineReader::new(Wiped::with_capacity(16 * 1024, input));
    let mut output = output;
    match tokio::time::timeout(REQUEST_TIMEOUT, lines.next::<Opening<Value>>()).await {
        Err(_) | Ok(Err(LineError::Closed | LineError::Io(_))) => {}
        Ok(opening) => match opening.map_err(unreadable).and_then(request) {
            Ok(request) => converse(request, lines, output, service, ending).await,
            Err(error) => say(&mut output, &FromNode::Error(error)).await,
        },
    }
}

/// Only the user who runs the node, and root: the mode of the socket says so too, but not on every file system.
pub(crate) fn allowed(stream: &UnixStream) -> Result<(), ControlError> {
    let cred = stream
        .peer_cred()
        .map_err(|error| ControlError::io("see who is asking", &error))?;
    if cred.uid() == 0 || cred.uid() == rustix::process::geteuid().as_raw() {
        Ok(())
    } else {
        Err(ControlError::new(
            ErrorKind::Permission,
            "this data folder belongs to another user",
        ))
    }
}

/// The request in two steps, so that another version is told apart from nonsense.
fn request(opening: Opening<Value>) -> Result<Request, ControlError> {
    if opening.coffer != PROTOCOL {
        return Err(ControlError::new(
            ErrorKind::NewerVersion,
            format!("the running coffer is of another version than this command (it speaks {PROTOCOL}, asked in {})", opening.coffer),
        )
        .with_code("other-version-running"));
    }
    serde_json::from_value(opening.request).map_err(|error| {
        ControlError::usage(format!(
            "the running coffer does not know this request: {error}"
        ))
    })
}

fn unreadable(error: LineError) -> ControlError {
    match error {
        LineError::TooLong => {
            ControlError::usage("the request is too large").with_code("too-large")
        }
        LineError::Malformed(what) => {
            ControlError::usage(format!("the request is not what it should be: {what}"))
        }
        LineError::Closed | LineError::Io(_) => Gone.into(),
    }
}

/// Carries one conversation to its end: the service's future, what it sends, and what the client sends, side by side.
async fn converse(
    request: Request,
    lines: LineReader<Wiped<OwnedReadHalf>>,
    mut output: OwnedWriteHalf,
    service: Arc<dyn Service>,
    ending: watch::Receiver<bool>,
) {
    let name = request.name();
    let ends_with_client = request.ends_with_client();
    let (to_client, sent) = mpsc::channel(TO_CLIENT);
    let (received, from_client) = mpsc::channel(FROM_CLIENT);
    let (closing, closed) = watch::channel(false);
    let session = Session::new(to_client.clone(), from_client, closed.clone());

    let work = async {
        let result = tokio::select! {
            result = service.handle(request, session) => result,
            () = becomes_true(closed), if ends_with_client => Err(Gone.into()),
            () = becomes_true(ending), if ends_with_client => {
                Err(ControlError::new(ErrorKind::Cancelled, "coffer was ended meanwhile"))
            }
        };
        if let Err(error) = &result {
            tracing::debug!(request = name, kind = ?error.kind, "a request failed");
        }
        let last = result.map_or_else(FromNode::Error, FromNode::Reply);
        let _ = to_client.send(last).await;
        drop(to_client);
    };
    let write = async {
        if write_messages(sent, &mut output).await.is_err() {
            closing.send_replace(true);
        }
    };
    let read = async {
        read_messages(lines, received).await;
        closing.send_replace(true);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = async { tokio::join!(work, write) } => {}
        () = read => {}
    }
}

async fn becomes_true(mut flag: watch::Receiver<bool>) {
    if flag.wait_for(|is_true| *is_true).await.is_err() {
        std::future::pending::<()>().await; // its owner is gone without having said so
    }
}

/// Writes what is queued up to the reply or error. Returns an error when the client is gone.
async fn write_messages(
    mut sent: mpsc::Receiver<FromNode>,
    output: &mut OwnedWriteHalf,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(message) = sent.recv().await {
        let mut ended = is_last(&message);
        put(&mut buffer, &message);
        while !ended && buffer.len() < WRITE_AT_ONCE {
            let Ok(message) = sent.try_recv() else { break };
            ended = is_last(&message);
            put(&mut buffer, &message);
        }
        write_out(output, &mut buffer).await?;
        if ended {
            break; // even where the service keeps its session somewhere
        }
    }
    Ok(())
}

/// Appends a message; one that is too long becomes the error that says so.
fn put(buffer: &mut Vec<u8>, message: &FromNode) {
    if let Err(error) = push_line(buffer, message) {
        let _ = push_line(buffer, &FromNode::Error(error));
    }
}

fn is_last(message: &FromNode) -> bool {
    matches!(message, FromNode::Reply(_) | FromNode::Error(_))
}

/// Passes on what the client sends, until it hangs up or talks nonsense.
async fn read_messages(
    mut lines: LineReader<Wiped<OwnedReadHalf>>,
    received: mpsc::Sender<FromClient>,
) {
    while let Ok(message) = lines.next::<FromClient>().await {
        // The request has been answered, or no longer listens: keep reading, to notice the client's end.
        let _ = received.send(message).await;
    }
}

async fn refuse(stream: UnixStream, error: ControlError) {
    let (_input, mut output) = stream.into_split();
    say(&mut output, &FromNode::Error(error)).await;
}

async fn say(output: &mut OwnedWriteHalf, message: &FromNode) {
    let mut buffer = Vec::new();
    put(&mut buffer, message);
    // A client that is gone, or does not read, need not be told.
    let _ = tokio::time::timeout(REQUEST_TIMEOUT, write_out(output, &mut buffer)).await;
}
