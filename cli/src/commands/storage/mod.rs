//! `coffer storage`.

pub mod full;
pub mod limit;
pub mod on_demand;
pub mod pin;
pub mod show;
pub mod unpin;
mod words;

use clap::Subcommand;
use coffer_node::control::{KeepAs, Reply, Request};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::places::item_in_vault;

/// What can be done with what this device keeps.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
    coffer storage show\n  \
    coffer storage on-demand Media\n  \
    coffer storage pin Media/Albums\n  \
    coffer storage limit 20GB")]
pub enum Storage {
    Show(show::Show),
    Full(full::Full),
    OnDemand(on_demand::OnDemand),
    Pin(pin::Pin),
    Unpin(unpin::Unpin),
    Limit(limit::Limit),
}

impl Storage {
    /// Runs the command.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Storage::Show(args) => args.run(context).await,
            Storage::Full(args) => args.run(context).await,
            Storage::OnDemand(args) => args.run(context).await,
            Storage::Pin(args) => args.run(context).await,
            Storage::Unpin(args) => args.run(context).await,
            Storage::Limit(args) => args.run(context).await,
        }
    }
}

/// Has a folder or file kept so, and prints what that comes to.
async fn set(context: &Context, path: &str, keep: KeepAs) -> Result<(), Failure> {
    let path = item_in_vault(path)?;
    print(context, &Request::StorageSet { path, keep }).await
}

/// Asks, and prints what this device keeps.
async fn print(context: &Context, request: &Request) -> Result<(), Failure> {
    let reply = ask(context, request).await?;
    let Reply::Storage(status) = &reply else {
        return Err(unexpected());
    };
    if context.output.is_json() {
        return context.output.reply(&reply);
    }
    context.output.text(&words::describe(status))
}
