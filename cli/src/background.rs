//! Reaching the running node, and starting one in the background where a person would expect it.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coffer_node::control::{
    Client, ControlError, DataLock, ErrorKind, NewVault, Passphrase, Ready, Request,
};
use coffer_node::service::{has_vault, look};
use serde::{Deserialize, Serialize};

use crate::args::Context;
use crate::commands::start::Start;
use crate::error::Failure;
use crate::log;

/// How long a start may take; repairs after a power cut of a large vault take a while.
const START_TIMEOUT: Duration = Duration::from_secs(180);
/// How often a node that someone else is starting is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(30);
/// How long a node may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest line that a starting process says.
const MAX_OUTCOME: u64 = 1 << 20;

/// What a process that starts in the background says on its standard output, one line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It takes requests.
    Ready(Ready),
    /// It does not.
    Error(ControlError),
}

/// A connection to the node, which is started if need be. `NoVault` where the data folder was never used: commands
/// other than `start`, `init` and `join` make no vault by the way.
pub async fn connect(context: &Context) -> Result<Client, Failure> {
    match Client::connect(&context.data_dir).await {
        Ok(client) => Ok(client),
        Err(error) if error.kind == ErrorKind::NotRunning => {
            // One that starts just now may be making its vault: that is waited for.
            if !has_vault(&context.data_dir) && DataLock::holder(&context.data_dir).is_none() {
                look(&context.data_dir)?;
                let message = format!("there is no vault in {} yet", context.data_dir.display());
                return Err(ControlError::new(ErrorKind::NoVault, message).into());
            }
            start(context, &Start::default(), NewVault::Wait, None).await?;
            Ok(Client::connect(&context.data_dir).await?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Starts a node in the background and waits until it takes requests. Gives `None` where another command was quicker
/// and its node is taking requests by now.
pub async fn start(
    context: &Context,
    options: &Start,
    new_vault: NewVault,
    passphrase: Option<Passphrase>,
) -> Result<Option<Ready>, Failure> {
    let data_dir = &context.data_dir;
    create_data_dir(data_dir)?;
    let mut child = spawn(context, options, new_vault, passphrase)?;
    match outcome(&mut child) {
        Ok(Outcome::Ready(ready)) => Ok(Some(ready)),
        Ok(Outcome::Error(error)) if error.kind == ErrorKind::AlreadyRunning => {
            wait_until_reachable(data_dir, error).await?;
            Ok(None)
        }
        Ok(Outcome::Error(error)) => Err(error.into()),
        Err(error) => Err(error),
    }
}

/// Asks the node to end, and waits until it has.
pub async fn stop(data_dir: &Path) -> Result<(), Failure> {
    match Client::connect(data_dir).await?.ask(&Request::Stop).await {
        // A node that ends quickly may be gone before its answer is read.
        Ok(_) => {}
        Err(error) if error.kind == ErrorKind::Cancelled => {}
        Err(error) => return Err(error.into()),
    }
    ended(data_dir).await
}

/// Waits until the node has ended.
pub async fn ended(data_dir: &Path) -> Result<(), Failure> {
    let begun = Instant::now();
    while DataLock::holder(data_dir).is_some() {
        if begun.elapsed() > STOP_TIMEOUT {
            let message = format!(
                "coffer has not ended within {} seconds",
                STOP_TIMEOUT.as_secs()
            );
            return Err(ControlError::new(ErrorKind::TimedOut, message).into());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// Creates the data folder, for its owner only, if it is not there.
pub fn create_data_dir(data_dir: &Path) -> Result<(), Failure> {
    if data_dir.exists() && !data_dir.is_dir() {
        let message = format!("{} is not a folder", data_dir.display());
        return Err(ControlError::usage(message)
            .with_code("no-data-folder")
            .into());
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(|error| {
            ControlError::io(format_args!("create {}", data_dir.display()), &error).into()
        })
}

fn spawn(
    context: &Context,
    options: &Start,
    new_vault: NewVault,
    passphrase: Option<Passphrase>,
) -> Result<Child, Failure> {
    let data_dir = &context.data_dir;
    let failed = |what: &str, error: &io::Error| Failure::from(ControlError::io(what, error));
    let program =
        std::env::current_exe().map_err(|error| failed("find the coffer program", &error))?;
    let log = log::open_for_append(data_dir).map_err(|error| {
        failed(
            &format!("write {}", log::log_path(data_dir).display()),
            &error,
        )
    })?;
    let mut command = Command::new(program);
    command
        .arg("start")
        .arg("--data-dir")
        .arg(data_dir)
        .arg("--detached")
        .args(options.to_arguments());
    if new_vault == NewVault::Wait && !options.without_vault {
        command.arg("--without-vault");
    }
    // Standard input and output of the command must not stay open in the node: whoever reads them waits for their end.
    command
        .current_dir("/")
        .stdin(if passphrase.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(log);
    if passphrase.is_some() {
        command.arg("--passphrase-file=-");
    }
    let mut child = command
        .spawn()
        .map_err(|error| failed("start coffer in the background", &error))?;
    if let (Some(passphrase), Some(mut input)) = (passphrase, child.stdin.take()) {
        // A process that ended at once says why by itself.
        let _ = input
            .write_all(passphrase.text().as_bytes())
            .and_then(|()| input.write_all(b"\n"));
    }
    Ok(child)
}

/// Waits for the one line. The process goes on by itself after it.
fn outcome(child: &mut Child) -> Result<Outcome, Failure> {
    let Some(output) = child.stdout.take() else {
        return Err(ControlError::internal("the process in the background has no output").into());
    };
    let (said, heard) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(output.take(MAX_OUTCOME)).read_line(&mut line);
        let _ = said.send(read.map(|_| line));
    });
    let line = match heard.recv_timeout(START_TIMEOUT) {
        Ok(line) => {
            line.map_err(|error| ControlError::io("hear from coffer in the background", &error))?
        }
        Err(_) => {
            let message = format!(
                "coffer was not ready within {} seconds",
                START_TIMEOUT.as_secs()
            );
            return Err(ControlError::new(ErrorKind::TimedOut, message)
                .with_code("start-failed")
                .into());
        }
    };
    serde_json::from_str(&line).map_err(|_| {
        let ended = child
            .wait()
            .map_or_else(|error| error.to_string(), |status| status.to_string());
        let message = format!("coffer ended while it started ({ended})");
        ControlError::new(ErrorKind::Internal, message)
            .with_code("start-failed")
            .into()
    })
}

/// Another command is starting the node: wait for that one.
async fn wait_until_reachable(data_dir: &Path, taken: ControlError) -> Result<(), Failure> {
    let begun = Instant::now();
    while begun.elapsed() < START_TIMEOUT {
        // Only whether someone listens: the connection is closed again at once, before any request.
        if Client::connect(data_dir).await.is_ok() {
            return Ok(());
        }
        if DataLock::holder(data_dir).is_none() {
            break;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Err(taken.into())
}
