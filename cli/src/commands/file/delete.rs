//! `coffer file delete`.

use clap::Args;
use coffer_node::control::{Reply, Request};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::output::shown;
use crate::places::in_vault;

/// Move a file or folder of the vault to the trash
///
/// What another device adds to the folder or changes in it at the same time stays. `coffer file restore` takes things
/// out of the trash again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  coffer file delete Papers/letter.pdf")]
pub struct Delete {
    /// Path in the vault
    pub path: String,
}

impl Delete {
    /// Moves it to the trash.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let path = in_vault(&self.path)?.trim_end_matches('/').to_owned();
        let reply = ask(context, &Request::FileDelete { path }).await?;
        let Reply::File(row) = &reply else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        context
            .output
            .line(format_args!("{} is in the trash", shown(&row.path)))
    }
}
