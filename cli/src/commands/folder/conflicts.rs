//! `coffer folder conflicts`.

use std::path::PathBuf;

use clap::Args;
use coffer_node::control::{Reply, Request};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::output::shown;
use crate::places::absolute;
use crate::units::bytes;

/// List files of which two contents are kept, because two devices changed them apart
///
/// Of each: the file, its copy, the device that wrote the copy, when, and both sizes. The list is the same on all
/// devices; settle one with `coffer folder settle`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer folder conflicts\n  \
    coffer folder conflicts ~/Documents --json")]
pub struct Conflicts {
    /// Folder of this device; by default the whole vault
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

impl Conflicts {
    /// Prints them.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let dir = self.dir.as_deref().map(absolute).transpose()?;
        let reply = ask(context, &Request::FolderConflicts { dir }).await?;
        let Reply::Conflicts { conflicts } = reply else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.objects(&conflicts);
        }
        if conflicts.is_empty() {
            context.output.remark("No conflicts.");
        }
        let size = |size: Option<u64>| size.map_or("a folder".to_owned(), bytes);
        let mut text = String::new();
        for row in &conflicts {
            text.push_str(&format!(
                "{} ({})\n  {} ({}), from {}, {}\n",
                shown(&row.path),
                size(row.size),
                shown(&row.copy),
                size(row.copy_size),
                shown(&row.device),
                row.date
            ));
        }
        context.output.text(&text)
    }
}
