//! `coffer folder`.

pub mod add;
pub mod confirm;
pub mod conflicts;
pub mod ignored;
pub mod list;
pub mod remove;
pub mod rescan;
pub mod settle;
pub mod undo;

use clap::Subcommand;

use crate::args::Context;
use crate::error::Failure;

/// What can be done with folders of this device.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
    coffer folder add ~/Documents\n  \
    coffer folder list\n  \
    coffer folder conflicts")]
pub enum Folder {
    Add(add::Add),
    List(list::List),
    Remove(remove::Remove),
    Rescan(rescan::Rescan),
    Confirm(confirm::Confirm),
    Undo(undo::Undo),
    Conflicts(conflicts::Conflicts),
    Settle(settle::Settle),
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
            Folder::Confirm(args) => args.run(context).await,
            Folder::Undo(args) => args.run(context).await,
            Folder::Conflicts(args) => args.run(context).await,
            Folder::Settle(args) => args.run(context).await,
            Folder::Ignored(args) => args.run(context).await,
        }
    }
}
