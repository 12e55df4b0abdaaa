//! `coffer backup list`.

use std::path::PathBuf;

use clap::Args;
use coffer_node::control::{Reply, Request};

use super::{ask_anyone, describe};
use crate::args::Context;
use crate::conversation::unexpected;
use crate::error::Failure;
use crate::places::absolute;

/// When a backup was made
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer backup list /media/ann/stick/coffer\n\n\
    With --json: run, at_ms, contents, content_bytes, missing of each, one a line.")]
pub struct List {
    /// The folder
    #[arg(value_name = "FOLDER")]
    pub dir: PathBuf,
}

impl List {
    /// Lists the runs, oldest first.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let request = Request::BackupList {
            dir: absolute(&self.dir)?,
        };
        let Reply::Backups { runs } = ask_anyone(context, &request).await? else {
            return Err(unexpected());
        };
        if runs.is_empty() && !context.output.is_json() {
            return context.output.line("no backup in it came to its end");
        }
        context.output.rows(&runs, describe)
    }
}
