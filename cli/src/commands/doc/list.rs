//! `coffer doc list`.

use clap::Args;
use coffer_node::control::{DocumentRow, Request};

use super::documents;
use crate::args::Context;
use crate::conversation::list;
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
        let line = |row: &DocumentRow| format!("{}  {}\n", shown(&row.doctype), shown(&row.id));
        let listed = list(context, &request, documents, line).await?;
        if listed.more {
            context.output.remark("There are more.");
        }
        Ok(())
    }
}
