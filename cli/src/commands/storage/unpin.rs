//! `coffer storage unpin`.

use clap::Args;
use coffer_node::control::KeepAs;

use crate::args::Context;
use crate::error::Failure;

/// Pin a file or folder no longer
///
/// From then on what is said of the folder around it counts. Nothing goes at once.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  coffer storage unpin Papers")]
pub struct Unpin {
    /// File or folder of the vault, as it was pinned
    pub path: String,
}

impl Unpin {
    /// Unpins it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        super::set(context, &self.path, KeepAs::Unpin).await
    }
}
