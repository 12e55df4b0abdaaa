//! `coffer trash restore`.

use clap::Args;
use coffer_node::control::{Reply, Request, TrashRestored};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::output::shown;
use crate::places::item_in_vault;
use crate::units::number;

/// Take something out of the trash, to where it was
///
/// Where its name is taken by something else meanwhile, it comes back beside that as "name (restored)".
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer trash restore Papers/letter.pdf\n  \
    coffer trash restore Papers/old/one.txt     out of a folder that was deleted\n  \
    coffer trash restore all")]
pub struct Restore {
    /// Path in the vault as `coffer trash list` shows it, or of something in a folder there; `all` for everything
    #[arg(value_name = "PATH")]
    pub path: String,
}

impl Restore {
    /// Restores it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let path = match &*self.path {
            "all" => None,
            path => Some(item_in_vault(path)?),
        };
        let reply = ask(context, &Request::TrashRestore { path }).await?;
        let Reply::TrashRestored { count, items } = &reply else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        let mut text: String = items.iter().map(line).collect();
        let more = count.saturating_sub(items.len() as u64);
        if more > 0 {
            text.push_str(&format!("and {} more\n", number(more)));
        }
        if *count == 0 {
            context.output.remark("The trash is empty.");
        }
        context.output.text(&text)
    }
}

fn line(item: &TrashRestored) -> String {
    match item.from == item.path {
        true => format!("{} is back\n", shown(&item.path)),
        false => format!("{} is back as {}\n", shown(&item.from), shown(&item.path)),
    }
}
