//! `coffer device`.

pub mod list;
pub mod log;
pub mod revoke;
pub mod role;

use std::io::{self, BufRead, Write};

use clap::Subcommand;
use coffer_node::control::ControlError;

use crate::args::Context;
use crate::error::Failure;

/// What can be done with devices.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
    coffer device list\n  \
    coffer device list --json | jq -r .name")]
pub enum Device {
    List(list::List),
    Revoke(revoke::Revoke),
    Role(role::Role),
    Log(log::Log),
}

impl Device {
    /// Runs the command.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Device::List(args) => args.run(context).await,
            Device::Revoke(args) => args.run(context).await,
            Device::Role(args) => args.run(context).await,
            Device::Log(args) => args.run(context).await,
        }
    }
}

/// The 24 words, read from the terminal or a pipe where they are asked for.
pub(in crate::commands) fn words(asked: bool) -> Result<Option<String>, Failure> {
    if !asked {
        return Ok(None);
    }
    let mut line = String::new();
    let read = io::stderr()
        .write_all(b"the 24 words: ")
        .and_then(|()| io::stdin().lock().read_line(&mut line));
    read.map_err(|error| ControlError::usage(format!("the words could not be read: {error}")))?;
    Ok(Some(line.trim().to_owned()))
}
