//! `coffer file list`.

use clap::Args;
use coffer_node::control::{Item, Reply, Request};

use super::line;
use crate::args::Context;
use crate::conversation::{Listener, converse, unexpected};
use crate::error::Failure;
use crate::places::in_vault;

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
        let path = in_vault(&self.path)?.trim_end_matches('/').to_owned();
        let request = Request::FileList {
            path,
            recursive: self.recursive,
            trash: self.trash,
        };
        match converse(context, &request, &mut Printer(context)).await? {
            Reply::Listed { .. } => Ok(()),
            _ => Err(unexpected()),
        }
    }
}

struct Printer<'a>(&'a Context);

impl Listener for Printer<'_> {
    fn item(&mut self, item: Item) -> Result<(), Failure> {
        let Item::Files(rows) = item else {
            return Ok(());
        };
        if self.0.output.is_json() {
            return self.0.output.objects(&rows);
        }
        self.0
            .output
            .text(&rows.iter().map(line).collect::<String>())
    }
}
