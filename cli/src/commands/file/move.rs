//! `coffer file move`.

use clap::Args;
use coffer_node::control::Request;

use super::change;
use crate::args::Context;
use crate::error::Failure;
use crate::output::shown;
use crate::places::{in_vault, item_in_vault};

/// Move or rename a file or folder of the vault
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer file move letter.pdf Papers/2026/\n  \
    coffer file move Papers Archive")]
pub struct Move {
    /// Path in the vault
    pub from: String,
    /// New path; an existing folder means into it
    pub to: String,
}

impl Move {
    /// Moves it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let from = item_in_vault(&self.from)?;
        let request = Request::FileMove {
            from: from.clone(),
            to: in_vault(&self.to)?,
        };
        change(context, &request, |row| {
            format!("{} is now {}", shown(&from), shown(&row.path))
        })
        .await
    }
}
