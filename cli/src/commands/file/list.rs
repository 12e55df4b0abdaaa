//! `coffer file list`.

use clap::Args;
use coffer_node::control::{Item, Request};

use super::line;
use crate::args::Context;
use crate::conversation::list;
use crate::error::Failure;
use crate::places::item_in_vault;

/// List files of the vault
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer file list\n  \
    coffer file list Papers -r\n  \
    coffer file list --trash")]
pub struct List {
    /// A folder or file of the vault; by default the top
    #[arg(value_name = "PATH", default_value = "")]
    pub path: String,
    /// Everything beneath as well
    #[arg(long, short)]
    pub recursive: bool,
    /// What is in the trash
    #[arg(long)]
    pub trash: bool,
}

impl List {
    /// Prints a line a file or folder.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let path = item_in_vault(&self.path)?;
        let request = Request::FileList {
            path,
            recursive: self.recursive,
            trash: self.trash,
        };
        let rows = |item| match item {
            Item::Files(rows) => Some(rows),
            _ => None,
        };
        list(context, &request, rows, line).await?;
        Ok(())
    }
}
