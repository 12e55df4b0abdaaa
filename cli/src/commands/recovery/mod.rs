//! `coffer recovery`.

pub mod show;

use clap::Subcommand;

use crate::args::Context;
use crate::error::Failure;

/// What can be done with the 24 words.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
    coffer recovery show")]
pub enum Recovery {
    Show(show::Show),
}

impl Recovery {
    /// Runs the command.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Recovery::Show(args) => args.run(context).await,
        }
    }
}
