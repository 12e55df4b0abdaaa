//! `coffer file delete`.

use clap::Args;
use coffer_node::control::Request;

use super::change;
use crate::args::Context;
use crate::error::Failure;
use crate::output::shown;
use crate::places::item_in_vault;

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
        let path = item_in_vault(&self.path)?;
        change(context, &Request::FileDelete { path }, |row| {
            format!("{} is in the trash", shown(&row.path))
        })
        .await
    }
}
