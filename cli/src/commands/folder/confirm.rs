//! `coffer folder confirm`.

use std::path::PathBuf;

use clap::Args;
use coffer_node::control::{Reply, Request};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::output::shown;
use crate::places::absolute;
use crate::units::count;

/// Say that files which disappeared or were rewritten all at once were meant to
///
/// When more than a quarter of a folder's files (and over 20) disappear, or more than half (and over 20) are rewritten
/// within a minute, the folder rests: nothing of it is done on other devices, and nothing from them is done here. This
/// lets it go on: the files are deleted or rewritten everywhere. What was deleted is in the trash. To have the files
/// back instead, use `coffer folder undo`. `coffer folder list` says how many files it is about, and names some.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  coffer folder confirm ~/Documents")]
pub struct Confirm {
    /// Folder of this device
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

impl Confirm {
    /// Lets the folder go on.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let dir = absolute(&self.dir)?;
        report(
            context,
            &ask(context, &Request::FolderConfirm { dir }).await?,
        )
    }
}

/// Says what becomes of the files.
pub fn report(context: &Context, reply: &Reply) -> Result<(), Failure> {
    let Reply::FolderReleased {
        dir,
        undone,
        gone,
        rewritten,
    } = reply
    else {
        return Err(unexpected());
    };
    if context.output.is_json() {
        return context.output.reply(reply);
    }
    let dir = dir.display().to_string();
    let files = |n| count(n, "file", "files");
    let text = match (undone, gone, rewritten) {
        (_, 0, 0) => "Everything was back as it had been; the folder goes on.".to_owned(),
        (true, gone, 0) => format!("{} come back in {}.", files(*gone), shown(&dir)),
        (true, gone, rewritten) => format!(
            "{} come back in {} as they were; what had been written over them is in {}/.vault/kept.",
            files(gone + rewritten),
            shown(&dir),
            shown(&dir)
        ),
        (false, gone, 0) => format!("{} of {} go to the trash.", files(*gone), shown(&dir)),
        (false, 0, rewritten) => {
            format!(
                "{} of {} are recorded as they are now.",
                files(*rewritten),
                shown(&dir)
            )
        }
        (false, gone, rewritten) => format!(
            "{} of {} go to the trash, {} are recorded as they are now.",
            files(*gone),
            shown(&dir),
            files(*rewritten)
        ),
    };
    context.output.line(text)
}
