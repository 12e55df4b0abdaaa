//! `coffer file add`.

use std::path::PathBuf;

use clap::Args;
use coffer_node::control::{Reply, Request};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::places::{absolute, in_vault};
use crate::units::{bytes, count, number};

/// Copy files and whole folders of this device into the vault
///
/// Later changes to them are not followed; `coffer folder add` does that.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer file add letter.pdf\n  \
    coffer file add letter.pdf --to Papers/2026/landlord.pdf\n  \
    coffer file add ~/Photos ~/Music --to Media/")]
pub struct Add {
    /// Files and folders of this device
    #[arg(value_name = "LOCAL", required = true)]
    pub locals: Vec<PathBuf>,
    /// Folder of the vault to put them in, made if it is not there; for one file also its new path
    #[arg(long, value_name = "PATH", default_value = "")]
    pub to: String,
}

impl Add {
    /// Adds them, telling what could not be.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let locals = self
            .locals
            .iter()
            .map(|local| absolute(local))
            .collect::<Result<_, _>>()?;
        let reply = ask(
            context,
            &Request::FileAdd {
                locals,
                to: in_vault(&self.to)?,
            },
        )
        .await?;
        let Reply::FilesAdded {
            files,
            folders,
            bytes: size,
            unchanged,
            skipped,
        } = &reply
        else {
            return Err(unexpected());
        };
        super::super::report_skipped(context, skipped);
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        let mut text = format!(
            "{} ({}) and {} added",
            count(*files, "file", "files"),
            bytes(*size),
            count(*folders, "folder", "folders")
        );
        if *unchanged > 0 {
            text.push_str(&format!(", {} there already", number(*unchanged)));
        }
        if !skipped.is_empty() {
            text.push_str(&format!(", {} left out", number(skipped.len() as u64)));
        }
        context.output.line(text)
    }
}
