//! `coffer trash list`.

use clap::Args;
use coffer_node::control::{Item, Request, TrashRow};

use crate::args::Context;
use crate::conversation::list;
use crate::error::Failure;
use crate::output::shown;
use crate::units::{bytes, count, date};

/// List what is in the trash, deleted last first
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  coffer trash list\n  coffer trash list --json")]
pub struct List {}

impl List {
    /// Prints a line a file or folder.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let rows = |item| match item {
            Item::Trash(rows) => Some(rows),
            _ => None,
        };
        let listed = list(context, &Request::TrashList, rows, line).await?;
        if listed.count == 0 {
            context.output.remark("The trash is empty.");
        }
        Ok(())
    }
}

fn line(row: &TrashRow) -> String {
    let end = match row.folder {
        true => format!("/  ({})", count(row.files, "file", "files")),
        false => String::new(),
    };
    format!(
        "{}  {:<16} {:>9}  {}{end}\n",
        date(i64::try_from(row.deleted_ms).unwrap_or(i64::MAX)),
        shown(&row.device),
        bytes(row.bytes),
        shown(&row.path)
    )
}
