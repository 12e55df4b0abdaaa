//! `coffer storage pin`.

use clap::Args;
use coffer_node::control::KeepAs;

use crate::args::Context;
use crate::error::Failure;

/// Keep a file or folder on this device, though what it stands in is on demand
///
/// Its contents are fetched, and stay. It remains pinned when it is moved or renamed.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  coffer storage pin Papers\n  coffer storage pin Media/map.pdf"
)]
pub struct Pin {
    /// File or folder of the vault
    pub path: String,
}

impl Pin {
    /// Pins it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        super::set(context, &self.path, KeepAs::Pin).await
    }
}
