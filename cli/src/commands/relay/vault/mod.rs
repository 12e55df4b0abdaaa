//! `coffer relay vault`.

pub mod list;
pub mod remove;

use clap::Subcommand;

use crate::args::Context;
use crate::error::Failure;

/// What can be done about the vaults of a host.
#[derive(Debug, Subcommand)]
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
