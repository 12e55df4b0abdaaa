//! `coffer key`.

pub mod rotate;

use clap::Subcommand;

use crate::args::Context;
use crate::error::Failure;

/// What can be done with the vault's key.
#[derive(Debug, Subcommand)]
pub enum Key {
    Rotate(rotate::Rotate),
}

impl Key {
    /// Runs the command.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Key::Rotate(args) => args.run(context).await,
        }
    }
}
