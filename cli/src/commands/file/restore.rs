//! `coffer file restore`.

use clap::Args;
use coffer_node::control::{Reply, Request};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::output::shown;
use crate::places::in_vault;

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
        let path = in_vault(&self.path)?.trim_end_matches('/').to_owned();
        let reply = ask(context, &Request::FileRestore { path, at: self.at }).await?;
        let Reply::File(row) = &reply else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        context
            .output
            .line(format_args!("{} is back", shown(&row.path)))
    }
}
