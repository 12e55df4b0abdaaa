//! `coffer trash`.

pub mod empty;
pub mod list;
pub mod restore;

use clap::Subcommand;

use crate::args::Context;
use crate::error::Failure;

/// What can be done with the trash.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
    coffer trash list\n  \
    coffer trash restore Papers/letter.pdf\n  \
    coffer trash empty")]
pub enum Trash {
    List(list::List),
    Restore(restore::Restore),
    Empty(empty::Empty),
}

impl Trash {
    /// Runs the command.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Trash::List(args) => args.run(context).await,
            Trash::Restore(args) => args.run(context).await,
            Trash::Empty(args) => args.run(context).await,
        }
    }
}
