//! `coffer folder`.

pub mod add;
pub mod ignored;
pub mod list;
pub mod remove;
pub mod rescan;

use clap::Subcommand;

use crate::args::Context;
use crate::error::Failure;

/// What can be done with folders of this device.
#[derive(Debug, Subcommand)]
pub enum Folder {
    Add(add::Add),
    List(list::List),
    Remove(remove::Remove),
    Rescan(rescan::Rescan),
    Ignored(ignored::Ignored),
}

impl Folder {
    /// Runs the command.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Folder::Add(args) => args.run(context).await,
            Folder::List(args) => args.run(context).await,
            Folder::Remove(args) => args.run(context).await,
            Folder::Rescan(args) => args.run(context).await,
            Folder::Ignored(args) => args.run(context).await,
        }
    }
}
