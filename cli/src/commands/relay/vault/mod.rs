//! `coffer relay vault`.

pub mod list;
pub mod remove;

use clap::Subcommand;

use crate::args::Context;
use crate::error::Failure;

/// What can be done about the vaults of a host.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
    coffer relay vault list\n  \
    coffer relay vault remove 3f9a27c0")]
pub enum Vault {
    List(list::List),
    Remove(remove::Remove),
}

impl Vault {
    /// Runs the command.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Vault::List(args) => args.run(context).await,
            Vault::Remove(args) => args.run(context).await,
        }
    }
}
