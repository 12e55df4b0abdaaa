//! `coffer status`: the honest sync state in words.

mod folders;
mod hosts;
mod kept;
mod locked;
mod words;

pub use folders::describe_folder;
pub use hosts::describe_host;
pub use words::{describe_limits, describe_pause};

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use coffer_node::control::{
    Client, ControlError, DataLock, ErrorKind, Reply, Request, Status as State,
};
use coffer_node::service::look;
use serde_json::json;

use crate::args::Context;
use crate::conversation::unexpected;
use crate::error::Failure;

/// How often `--wait` looks.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// Show what is in sync and what is not yet
///
/// Tells the devices and how they are reached, what each is known to hold, what only this device holds, and transfers
/// under way. It starts nothing: of a coffer that is not running it shows what can be known without it. Two words are
/// exact: `idle` says that nothing is left to do here, `in sync` that every device is known to hold everything.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer status\n  \
    coffer status --wait in-sync --timeout 60\n  \
    coffer status --json | jq .only_here")]
pub struct Status {
    /// Wait until it is so
    #[arg(long, value_name = "STATE")]
    pub wait: Option<Wait>,
    /// Wait no longer than so many seconds (exit code 8)
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    pub timeout: Option<u64>,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Wait {
    /// Nothing is left to do on this device
    Idle,
    /// Another device is connected
    Connected,
    /// Every device is known to hold everything
    InSync,
}

impl Status {
    /// Prints the state, after waiting where asked to.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let begun = Instant::now();
        let state = loop {
            match state(context).await {
                Ok(state) if self.wait.is_none_or(|wait| wait.is_so(&state)) => break state,
                // It comes about once somebody unlocks it, which may be never.
                Ok(state) if state.locked => {
                    let message = "coffer is locked on this device";
                    return Err(ControlError::new(ErrorKind::Locked, message).into());
                }
                Ok(_) => {}
                Err(Failure::Control(error)) if error.kind == ErrorKind::NotRunning => {
                    if self.wait.is_none() {
                        return not_running(context);
                    }
                    if DataLock::holder(&context.data_dir).is_none() {
                        return Err(error.into());
                    }
                    // It is starting: wait for that as well.
                }
                Err(error) => return Err(error),
            }
            if self
                .timeout
                .is_some_and(|seconds| begun.elapsed() >= Duration::from_secs(seconds))
            {
                let message = format!(
                    "it did not come about within {} seconds",
                    self.timeout.unwrap_or_default()
                );
                return Err(ControlError::new(ErrorKind::TimedOut, message)
                    .with_code("wait")
                    .into());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        };
        if context.output.is_json() {
            let mut value = serde_json::to_value(&state)
                .map_err(|error| ControlError::internal(error.to_string()))?;
            value["running"] = json!(true);
            return context.output.object(&value);
        }
        if state.locked {
            return context.output.text(&locked::describe(&state, context));
        }
        context
            .output
            .text(&words::describe(&state, crate::units::now_ms()))
    }
}

impl Wait {
    fn is_so(self, state: &State) -> bool {
        match self {
            Wait::Idle => state.idle && !state.locked,
            Wait::InSync => state.in_sync,
            Wait::Connected => state
                .devices
                .iter()
                .any(|device| !device.device.this && device.device.connected),
        }
    }
}

async fn state(context: &Context) -> Result<State, Failure> {
    match Client::connect(&context.data_dir)
        .await?
        .ask(&Request::Status)
        .await?
    {
        Reply::Status(state) => Ok(*state),
        _ => Err(unexpected()),
    }
}

/// What can be known without the node: whether there is a vault, when it was last written, and whether it could start.
fn not_running(context: &Context) -> Result<(), Failure> {
    let dir = &context.data_dir;
    let starting = DataLock::holder(dir).is_some();
    let used = look(dir)?;
    let written = std::fs::metadata(dir.join("vault.redb"))
        .and_then(|about| about.modified())
        .ok();
    let written_ms = written
        .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok())
        .and_then(|since| u64::try_from(since.as_millis()).ok());
    if context.output.is_json() {
        return context.output.object(&json!({
            "running": false, "starting": starting, "data_dir": dir, "has_vault": used, "last_written_ms": written_ms,
        }));
    }
    let mut text = match (starting, used) {
        (true, _) => format!("coffer is starting or ending on {}.\n", dir.display()),
        (false, true) => format!(
            "coffer is not running; the vault in {} is not kept in sync.\n",
            dir.display()
        ),
        (false, false) => format!("There is no vault in {} yet.\n", dir.display()),
    };
    if let Some(ms) = written_ms {
        text.push_str(&format!(
            "It was last written {}.\n",
            crate::units::ago(ms, crate::units::now_ms())
        ));
    }
    let next = if used {
        "start"
    } else {
        "start          create one here, or `join LINK` to use another device's"
    };
    if !starting {
        text.push_str(&format!("\nNext:\n  {}\n", context.command(next)));
    }
    context.output.text(&text)
}
