//! The command's side of the host's control socket.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tokio::io::BufReader;

use super::messages::{HostReply, HostRequest, VERSION};
use crate::control::lines::{LineError, LineReader, push_line, write_out};
use crate::control::{ControlError, ErrorKind, socket};

/// What is sent.
#[derive(Serialize, Deserialize)]
pub(super) struct Opening<R> {
    /// [`VERSION`] of the command.
    pub coffer_relay: u32,
    /// The request.
    pub request: R,
}

/// What comes back.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Closing {
    /// It went well.
    Reply(HostReply),
    /// It did not.
    Error(ControlError),
}

/// Asks the host that works on `data_dir`. `NotRunning` where none does.
pub async fn ask(data_dir: &Path, request: &HostRequest) -> Result<HostReply, ControlError> {
    let stream = socket::connect(data_dir)
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::NotADirectory => ControlError::new(
                ErrorKind::NotRunning,
                format!("no host runs on {}", data_dir.display()),
            )
            .with_code("host-not-running"),
            _ => ControlError::io(
                format_args!("reach the host on {}", data_dir.display()),
                &error,
            ),
        })?;
    let (input, mut output) = stream.into_split();
    let mut line = Vec::new();
    let opening = Opening {
        coffer_relay: VERSION,
        request,
    };
    push_line(&mut line, &opening)?;
    let written = write_out(&mut output, &mut line).await;
    // A host that refuses closes early, and says why before it does.
    match LineReader::new(BufReader::new(input))
        .next::<Closing>()
        .await
    {
        Ok(Closing::Reply(reply)) => Ok(reply),
        Ok(Closing::Error(error)) => Err(error),
        Err(LineError::Malformed(what)) => Err(ControlError::new(
            ErrorKind::NewerVersion,
            format!("the running host is of another version than this command ({what})"),
        )
        .with_code("other-host-version")),
        Err(LineError::Io(error)) if error.kind() != io::ErrorKind::UnexpectedEof => {
            Err(ControlError::io("read the host's answer", &error))
        }
        Err(_) => Err(match written {
            Err(error) => ControlError::io("talk to the host", &error),
            Ok(()) => ControlError::new(ErrorKind::Cancelled, "the host ended before it answered"),
        }),
    }
}
