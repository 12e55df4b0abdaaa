//! `coffer storage full`.

use clap::Args;
use coffer_node::control::KeepAs;

use crate::args::Context;
use crate::error::Failure;

/// Keep everything on this device, or all of one folder
///
/// Without a folder it forgets what was on demand and what was pinned, and fetches all that is not here. Other devices
/// may then rely on this one.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  coffer storage full\n  coffer storage full Papers")]
pub struct Full {
    /// Folder of the vault; by default all of it
    #[arg(value_name = "VAULT_FOLDER", default_value = "")]
    pub folder: String,
}

impl Full {
    /// Sets it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        super::set(context, &self.folder, KeepAs::Full).await
    }
}
