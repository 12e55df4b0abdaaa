//! `coffer doc get`.

use clap::Args;
use coffer_node::control::{ControlError, DocumentReply, ErrorKind, Reply, Request};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::output::shown;

/// Print documents
///
/// Prints a document's JSON, of several one a line; with --json objects that also tell the revision, whether it is
/// deleted, and fields where devices wrote different values apart. Of several, those that exist are printed before
/// the error about one that does not.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer doc get io.cozy.contacts ana\n  \
    coffer doc get io.cozy.contacts ana bo --json\n  \
    coffer doc get io.cozy.contacts ana --at 3f9c2a     as it was; see `coffer doc history`")]
pub struct Get {
    /// Type of the documents
    pub doctype: String,
    /// Their ids
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
    /// An earlier state of one document, by the beginning of its revision
    #[arg(long, value_name = "REVISION")]
    pub at: Option<String>,
}

impl Get {
    /// Prints them.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let several = self.ids.len() > 1;
        if several && self.at.is_some() {
            return Err(ControlError::usage(
                "a revision belongs to one document: give --at with one id",
            )
            .into());
        }
        let mut absent = None;
        for id in self.ids {
            let request = Request::DocGet {
                doctype: self.doctype.clone(),
                id,
                at: self.at.clone(),
            };
            match ask(context, &request).await {
                Ok(Reply::Document(document)) => print(context, document, several)?,
                Ok(_) => return Err(unexpected()),
                Err(Failure::Control(error)) if error.kind == ErrorKind::NotFound => {
                    absent = absent.or(Some(error));
                }
                Err(failure) => return Err(failure),
            }
        }
        absent.map_or(Ok(()), |error| Err(error.into()))
    }
}

fn print(context: &Context, document: DocumentReply, several: bool) -> Result<(), Failure> {
    if context.output.is_json() {
        return context.output.reply(&Reply::Document(document));
    }
    let of = if several {
        format!("{}: ", shown(&document.id))
    } else {
        String::new()
    };
    if document.deleted {
        context
            .output
            .remark(format_args!("{of}(deleted; this is its last state)"));
    }
    for field in &document.conflicts {
        context.output.remark(format_args!(
            "{of}(devices wrote different values to {})",
            shown(field)
        ));
    }
    if several {
        let id = shown(&document.id);
        return context
            .output
            .line(format_args!("{id}  {}", document.value));
    }
    let text = serde_json::to_string_pretty(&document.value)
        .map_err(|error| ControlError::internal(error.to_string()))?;
    context.output.line(text)
}
