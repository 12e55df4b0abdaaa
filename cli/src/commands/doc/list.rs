//! `coffer doc list`.

use clap::Args;
use coffer_node::control::{Item, Reply, Request};

use crate::args::Context;
use crate::conversation::{Listener, converse, unexpected};
use crate::error::Failure;
use crate::output::shown;

/// List documents: their types and ids
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  coffer doc list\n  coffer doc list io.cozy.contacts")]
pub struct List {
    /// Of this type only
    pub doctype: Option<String>,
    /// Print no more than so many
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<u64>,
}

impl List {
    /// Prints a line a document.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let request = Request::DocList {
            doctype: self.doctype,
            limit: self.limit,
        };
        match converse(context, &request, &mut Printer(context)).await? {
            Reply::Listed { more: true, .. } => {
                context.output.remark("There are more.");
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
        let Item::Documents(rows) = item else {
            return Ok(());
        };
        if self.0.output.is_json() {
            return self.0.output.objects(&rows);
        }
        let text: String = rows
            .iter()
            .map(|row| format!("{}  {}\n", shown(&row.doctype), shown(&row.id)))
            .collect();
        self.0.output.text(&text)
    }
}
