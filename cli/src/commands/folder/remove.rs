//! `coffer folder remove`.

use std::path::PathBuf;

use clap::Args;
use coffer_node::control::{Reply, Request};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::output::shown;
use crate::places::absolute;

/// Stop keeping a folder of this device in sync
///
/// Deletes nothing: the files stay on this device and in the vault, each as they are.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  coffer folder remove ~/Documents")]
pub struct Remove {
    /// Folder of this device
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

impl Remove {
    /// Removes it from the list.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let reply = ask(
            context,
            &Request::FolderRemove {
                dir: absolute(&self.dir)?,
            },
        )
        .await?;
        let Reply::FolderRemoved { folder } = &reply else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        context.output.line(format_args!(
            "{} is kept in sync no longer; its files stay as they are.",
            shown(&folder.dir.display().to_string())
        ))
    }
}
