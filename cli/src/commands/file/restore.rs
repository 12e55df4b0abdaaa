//! `coffer file restore`.

use clap::Args;
use coffer_node::control::Request;

use super::change;
use crate::args::Context;
use crate::error::Failure;
use crate::output::shown;
use crate::places::item_in_vault;

/// Take a file or folder out of the trash, or bring an earlier content back
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer file restore Papers/letter.pdf\n  \
    coffer file restore Papers/letter.pdf --at 3f9c2a")]
pub struct Restore {
    /// Path in the vault, as `coffer file list --trash` shows it
    pub path: String,
    /// The content to bring back, by the beginning of its revision
    #[arg(long, value_name = "REVISION")]
    pub at: Option<String>,
}

impl Restore {
    /// Restores it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let path = item_in_vault(&self.path)?;
        change(
            context,
            &Request::FileRestore { path, at: self.at },
            |row| format!("{} is back", shown(&row.path)),
        )
        .await
    }
}
