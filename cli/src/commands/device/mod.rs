//! `coffer device`.

pub mod list;

use clap::Subcommand;

use crate::args::Context;
use crate::error::Failure;

/// What can be done with devices.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
    coffer device list\n  \
    coffer device list --json | jq -r .name")]
pub enum Device {
    List(list::List),
}

impl Device {
    /// Runs the command.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Device::List(args) => args.run(context).await,
        }
    }
}
