//! `coffer doc get`.

use clap::Args;
use coffer_node::control::{ControlError, Reply, Request};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;

/// Print a document
///
/// Prints its JSON; with --json an object that also tells the revision, whether it is deleted, and fields where devices
/// wrote different values apart.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer doc get io.cozy.contacts ana\n  \
    coffer doc get io.cozy.contacts ana --at 3f9c2a     as it was; see `coffer doc history`")]
pub struct Get {
    /// Type of the document
    pub doctype: String,
    /// Its id
    pub id: String,
    /// An earlier state, by the beginning of its revision
    #[arg(long, value_name = "REVISION")]
    pub at: Option<String>,
}

impl Get {
    /// Prints it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let request = Request::DocGet {
            doctype: self.doctype,
            id: self.id,
            at: self.at,
        };
        let reply = ask(context, &request).await?;
        let Reply::Document(document) = &reply else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        if document.deleted {
            context.output.remark("(deleted; this is its last state)");
        }
        for field in &document.conflicts {
            context.output.remark(format_args!(
                "(devices wrote different values to {})",
                crate::output::shown(field)
            ));
        }
        let text = serde_json::to_string_pretty(&document.value)
            .map_err(|error| ControlError::internal(error.to_string()))?;
        context.output.line(text)
    }
}
