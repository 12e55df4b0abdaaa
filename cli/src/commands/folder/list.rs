//! `coffer folder list`.

use clap::Args;
use coffer_node::control::{FolderStatus, Reply, Request};

use crate::args::Context;
use crate::commands::status::describe_folder;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;

/// List the folders of this device that are kept in sync, with what needs attention
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  coffer folder list\n  coffer folder list --json")]
pub struct List {}

impl List {
    /// Prints them.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let Reply::Folders { folders } = ask(context, &Request::FolderList).await? else {
            return Err(unexpected());
        };
        print(context, &folders)
    }
}

/// Prints folders.
pub fn print(context: &Context, folders: &[FolderStatus]) -> Result<(), Failure> {
    if context.output.is_json() {
        return context.output.objects(folders);
    }
    if folders.is_empty() {
        context.output.remark(format_args!(
            "No folder is kept in sync; add one with `{}`.",
            context.command("folder add DIR")
        ));
    }
    let mut text = String::new();
    for folder in folders {
        describe_folder(&mut text, folder);
    }
    context.output.text(&text)
}
