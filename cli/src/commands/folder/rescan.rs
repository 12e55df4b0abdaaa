//! `coffer folder rescan`.

use std::path::PathBuf;

use clap::Args;
use coffer_node::control::{Reply, Request};

use super::list::print;
use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::places::absolute;

/// Look at folders now, rather than when the system reports a change
///
/// Returns when what was found is recorded. For disks that report no changes, and for scripts.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  coffer folder rescan\n  coffer folder rescan ~/Documents")]
pub struct Rescan {
    /// Folder of this device; by default all that are kept in sync
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

impl Rescan {
    /// Has the node look.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let dir = self.dir.as_deref().map(absolute).transpose()?;
        let Reply::Folders { folders } = ask(context, &Request::FolderRescan { dir }).await? else {
            return Err(unexpected());
        };
        print(context, &folders)
    }
}
