//! `coffer limits`.

pub mod set;
pub mod show;

use clap::Subcommand;
use coffer_node::control::{LimitsRow, Reply, Request};

use crate::args::Context;
use crate::commands::status::{describe_limits, describe_pause};
use crate::conversation::{ask, unexpected};
use crate::error::Failure;

/// What can be done with limits.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
    coffer limits show\n  \
    coffer limits set --up 2MB")]
pub enum Limits {
    Show(show::Show),
    Set(set::Set),
}

impl Limits {
    /// Runs the command.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Limits::Show(args) => args.run(context).await,
            Limits::Set(args) => args.run(context).await,
        }
    }
}

/// Sends a request about limits and shows what they are then.
pub async fn ask_and_show(context: &Context, request: &Request) -> Result<(), Failure> {
    let reply = ask(context, request).await?;
    let Reply::Limits(limits) = &reply else {
        return Err(unexpected());
    };
    if context.output.is_json() {
        return context.output.reply(&reply);
    }
    context.output.line(describe(limits))
}

fn describe(limits: &LimitsRow) -> String {
    let rates = describe_limits(limits).unwrap_or_else(|| "no limits".to_owned());
    match describe_pause(limits) {
        Some(paused) => format!("paused {paused}; {rates}"),
        None => rates,
    }
}
