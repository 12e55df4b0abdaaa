//! `coffer doc history`.

use clap::Args;
use coffer_node::control::{Reply, Request, Revision};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::output::shown;
use crate::units::{date, short};

/// List the states that a document had, latest first
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer doc history io.cozy.contacts ana\n  \
    coffer doc get io.cozy.contacts ana --at REVISION")]
pub struct History {
    /// Type of the document
    pub doctype: String,
    /// Its id
    pub id: String,
}

impl History {
    /// Prints a line a state.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let request = Request::DocHistory {
            doctype: self.doctype,
            id: self.id,
        };
        let Reply::Revisions { revisions } = ask(context, &request).await? else {
            return Err(unexpected());
        };
        context.output.rows(&revisions, line)
    }
}

fn line(revision: &Revision) -> String {
    let what = if revision.deleted {
        "deleted".to_owned()
    } else {
        revision.fields.join(", ")
    };
    format!(
        "{}  {}  {:<16} {}\n",
        short(&revision.revision),
        date(revision.at_ms),
        shown(&revision.device),
        shown(&what)
    )
}
