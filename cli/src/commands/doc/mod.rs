//! `coffer doc`.

pub mod delete;
pub mod edit;
pub mod find;
pub mod get;
pub mod history;
mod lines;
pub mod list;
pub mod purge;
pub mod put;

use std::io::Read;

use clap::Subcommand;
use coffer_node::control::{ControlError, DocumentRow, Item, MAX_DOCUMENT_TEXT, Reply};
use serde_json::Value;

use crate::args::Context;
use crate::conversation::unexpected;
use crate::error::Failure;
use crate::output::shown;
use crate::units::short;

/// What can be done with documents.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
    coffer doc put io.cozy.notes home '{\"title\":\"Home\"}'\n  \
    coffer doc get io.cozy.notes home\n  \
    coffer doc find io.cozy.notes --text 'tax return'")]
pub enum Doc {
    Put(put::Put),
    Get(get::Get),
    Edit(edit::Edit),
    Find(find::Find),
    List(list::List),
    Delete(delete::Delete),
    Purge(purge::Purge),
    History(history::History),
}

impl Doc {
    /// Runs the command.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Doc::Put(args) => args.run(context).await,
            Doc::Get(args) => args.run(context).await,
            Doc::Edit(args) => args.run(context).await,
            Doc::Find(args) => args.run(context).await,
            Doc::List(args) => args.run(context).await,
            Doc::Delete(args) => args.run(context).await,
            Doc::Purge(args) => args.run(context).await,
            Doc::History(args) => args.run(context).await,
        }
    }
}

/// A JSON object as typed, or from standard input for `-`.
fn json_object(typed: &str) -> Result<Value, Failure> {
    let parsed = if typed == "-" {
        let mut text = Vec::new();
        std::io::stdin()
            .lock()
            .take(MAX_DOCUMENT_TEXT as u64 + 1)
            .read_to_end(&mut text)
            .map_err(|error| ControlError::io("read standard input", &error))?;
        if text.len() > MAX_DOCUMENT_TEXT {
            return Err(ControlError::usage("the document is too large")
                .with_code("too-large")
                .into());
        }
        serde_json::from_slice(&text)
    } else {
        serde_json::from_str(typed)
    };
    match parsed {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(ControlError::usage("a document is a JSON object, {...}").into()),
        Err(error) => Err(ControlError::usage(format!("this is not JSON: {error}")).into()),
    }
}

/// JSON pointers of texts: `--text body` is `/body`.
fn pointers(texts: &[String]) -> Vec<String> {
    texts
        .iter()
        .map(|text| {
            if text.starts_with('/') {
                text.clone()
            } else {
                format!("/{text}")
            }
        })
        .collect()
}

/// Says what became of one document.
fn say_written(context: &Context, reply: &Reply, done: &str) -> Result<(), Failure> {
    let Reply::Written {
        doctype,
        id,
        revision,
    } = reply
    else {
        return Err(unexpected());
    };
    if context.output.is_json() {
        return context.output.reply(reply);
    }
    match revision {
        Some(revision) => context.output.line(format_args!(
            "{}/{} {done}, revision {}",
            shown(doctype),
            shown(id),
            short(revision)
        )),
        None => context
            .output
            .line(format_args!("{}/{} unchanged", shown(doctype), shown(id))),
    }
}

/// The rows of a list of documents.
fn documents(item: Item) -> Option<Vec<DocumentRow>> {
    match item {
        Item::Documents(rows) => Some(rows),
        _ => None,
    }
}
