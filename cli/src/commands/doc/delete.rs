//! `coffer doc delete`.

use clap::Args;
use coffer_node::control::Request;

use super::say_written;
use crate::args::Context;
use crate::conversation::ask;
use crate::error::Failure;

/// Delete a document
///
/// A change that another device makes at the same time keeps it. Its earlier states stay readable with
/// `coffer doc get --at`, and `coffer doc put` brings it back.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  coffer doc delete io.cozy.contacts ana")]
pub struct Delete {
    /// Type of the document
    pub doctype: String,
    /// Its id
    pub id: String,
}

impl Delete {
    /// Deletes it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let request = Request::DocDelete {
            doctype: self.doctype,
            id: self.id,
        };
        say_written(context, &ask(context, &request).await?, "deleted")
    }
}
