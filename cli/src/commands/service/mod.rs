//! `coffer service`.

pub mod install;
pub mod remove;
mod unit;

use clap::Subcommand;

use crate::args::Context;
use crate::error::Failure;

/// What can be done about the start at login.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
    coffer service install\n  \
    coffer service remove")]
pub enum Service {
    Install(install::Install),
    Remove(remove::Remove),
}

impl Service {
    /// Runs the command.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Service::Install(args) => args.run(context),
            Service::Remove(args) => args.run(context),
        }
    }
}
