//! `coffer relay`.

pub mod add;
pub mod list;
pub mod remove;

use clap::Subcommand;

use crate::args::Context;
use crate::error::Failure;

/// What can be done with hosts.
#[derive(Debug, Subcommand)]
pub enum Relay {
    Add(add::Add),
    List(list::List),
    Remove(remove::Remove),
}

impl Relay {
    /// Runs the command.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Relay::Add(args) => args.run(context).await,
            Relay::List(args) => args.run(context).await,
            Relay::Remove(args) => args.run(context).await,
        }
    }
}
