//! `coffer trash restore`.

use clap::Args;
use coffer_node::control::{ControlError, Reply, Request, TrashRestored};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::output::shown;
use crate::places::item_in_vault;
use crate::units::number;

/// Take something out of the trash, to where it was
///
/// Where its name is taken by something else meanwhile, it comes back beside that as "name (restored)". A file whose
/// content no device within reach has gets its place back all the same: that is said, and the exit code is 6.
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
        let Reply::TrashRestored {
            count,
            items,
            lacking_count,
            lacking,
        } = &reply
        else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            context.output.reply(&reply)?;
            return complete(*lacking_count);
        }
        let is_back = |item: &&TrashRestored| !lacking.iter().any(|file| file.path == item.path);
        let mut text: String = items.iter().filter(is_back).map(line).collect();
        for file in lacking {
            text.push_str(&format!(
                "{} has its place again, but {}\n",
                shown(&file.path),
                shown(&file.reason)
            ));
        }
        let more = count.saturating_sub(items.len() as u64);
        if more > 0 {
            text.push_str(&format!("and {} more\n", number(more)));
        }
        if *count == 0 {
            context.output.remark("The trash is empty.");
        }
        context.output.text(&text)?;
        complete(*lacking_count)
    }
}

/// Whether all contents came back, too.
fn complete(lacking: u64) -> Result<(), Failure> {
    if lacking == 0 {
        return Ok(());
    }
    let what = match lacking {
        1 => "the content of 1 file".to_owned(),
        many => format!("the contents of {} files", number(many)),
    };
    let error = ControlError::unavailable(format!("{what} did not come back"));
    Err(error.with_code("content-lacking").into())
}

fn line(item: &TrashRestored) -> String {
    match item.from == item.path {
        true => format!("{} is back\n", shown(&item.path)),
        false => format!("{} is back as {}\n", shown(&item.from), shown(&item.path)),
    }
}
