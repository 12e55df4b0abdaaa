//! `coffer file`.

pub mod add;
pub mod delete;
pub mod get;
pub mod history;
pub mod list;
#[path = "move.rs"]
pub mod move_;
pub mod restore;
pub mod tag;

use clap::Subcommand;
use coffer_node::control::{Content, FileRow, Reply, Request};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::output::shown;
use crate::units::{bytes, date};

/// What can be done with files.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
    coffer file add ~/Photos --to Media/\n  \
    coffer file list Media\n  \
    coffer file get Media/Photos/cat.jpg\n  \
    coffer file history Media/Photos/cat.jpg")]
pub enum File {
    Add(add::Add),
    List(list::List),
    Get(get::Get),
    Move(move_::Move),
    Delete(delete::Delete),
    Restore(restore::Restore),
    History(history::History),
    Tag(tag::Tag),
    Untag(tag::Untag),
}

impl File {
    /// Runs the command.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            File::Add(args) => args.run(context).await,
            File::List(args) => args.run(context).await,
            File::Get(args) => args.run(context).await,
            File::Move(args) => args.run(context).await,
            File::Delete(args) => args.run(context).await,
            File::Restore(args) => args.run(context).await,
            File::History(args) => args.run(context).await,
            File::Tag(args) => args.run(context).await,
            File::Untag(args) => args.run(context).await,
        }
    }
}

/// Sends a request that changes a file or folder, and says with `words` what became of it.
async fn change(
    context: &Context,
    request: &Request,
    words: impl FnOnce(&FileRow) -> String,
) -> Result<(), Failure> {
    let reply = ask(context, request).await?;
    let Reply::File(row) = &reply else {
        return Err(unexpected());
    };
    if context.output.is_json() {
        return context.output.reply(&reply);
    }
    context.output.line(words(row))
}

/// A file or folder on a line: size, time, path, and what is special about it.
fn line(row: &FileRow) -> String {
    match &row.content {
        None => format!("{:>9}  {:20}  {}/\n", "", "", shown(&row.path)),
        Some(content) => {
            let Content {
                size,
                modified_ms,
                link,
                here,
                ..
            } = content;
            let link = link
                .as_deref()
                .map(|to| format!(" -> {}", shown(to)))
                .unwrap_or_default();
            let elsewhere = if *here { "" } else { "  (not on this device)" };
            format!(
                "{:>9}  {:20}  {}{link}{elsewhere}\n",
                bytes(*size),
                date(*modified_ms),
                shown(&row.path)
            )
        }
    }
}
