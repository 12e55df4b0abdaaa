//! `coffer export`.

use std::path::PathBuf;

use clap::Args;
use coffer_node::control::{Reply, Request};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::places::absolute;
use crate::units::{bytes, count};

/// Write everything as plain files and JSON, to leave or to read without coffer
///
/// Files keep their folders and names; each document becomes one JSON file. Nothing is removed from the vault.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  coffer export ~/everything")]
pub struct Export {
    /// A folder to write to; created if it is not there, and must be empty
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

impl Export {
    /// Exports, telling what could not be.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let reply = ask(
            context,
            &Request::Export {
                dir: absolute(&self.dir)?,
            },
        )
        .await?;
        let Reply::Exported {
            documents,
            files,
            bytes: size,
            dir,
            skipped,
        } = &reply
        else {
            return Err(unexpected());
        };
        super::report_skipped(context, skipped);
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        context.output.line(format_args!(
            "{} and {} ({}) written to {}",
            count(*documents, "document", "documents"),
            count(*files, "file", "files"),
            bytes(*size),
            dir.display()
        ))
    }
}
