//! `coffer trash list`.

use clap::Args;
use coffer_node::control::{Item, Reply, Request, TrashRow};

use crate::args::Context;
use crate::conversation::{Listener, converse, unexpected};
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
        match converse(context, &Request::TrashList, &mut Printer(context)).await? {
            Reply::Listed { count: 0, .. } if !context.output.is_json() => {
                context.output.remark("The trash is empty.");
                Ok(())
            }
            Reply::Listed { .. } => Ok(()),
            _ => Err(unexpected()),
        }
    }
}

struct Printer<'a>(&'a Context);

impl Listener for Printer<'_> {
    fn item(&mut self, item: Item) -> Result<(), Failure> {
        let Item::Trash(rows) = item else {
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
