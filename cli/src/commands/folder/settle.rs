//! `coffer folder settle`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use coffer_node::control::{self, Reply, Request};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::output::shown;
use crate::places::absolute;

/// Settle a conflict: say which of two contents stays
///
/// `mine` is what the file holds under its plain name, on every device: it stays, and the copy goes to the trash.
/// `theirs` is what the copy holds: it is put under the plain name, the copy goes to the trash, and what the file held
/// stays in its history. `both` makes the copy an ordinary file with a name of its own. It is settled on all devices.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer folder settle ~/Documents/report.ods --keep mine\n  \
    coffer folder settle 'Notes/a (conflict from laptop, 2026-11-22).txt' --keep theirs")]
pub struct Settle {
    /// The file or its copy: a path of this device, or one in the vault
    #[arg(value_name = "PATH")]
    pub path: String,
    /// Which content stays under the plain name
    #[arg(long, value_name = "WHICH")]
    pub keep: Keep,
}

/// Which content stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Keep {
    /// What the file holds under its plain name
    Mine,
    /// What the copy holds
    Theirs,
    /// Both, as files of their own
    Both,
}

impl Settle {
    /// Settles it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let request = Request::FolderSettle {
            local: absolute(&PathBuf::from(&self.path))?,
            path: self.path,
            keep: match self.keep {
                Keep::Mine => control::Keep::Mine,
                Keep::Theirs => control::Keep::Theirs,
                Keep::Both => control::Keep::Both,
            },
        };
        let reply = ask(context, &request).await?;
        let Reply::ConflictsSettled { conflicts, now } = &reply else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        let mut text = String::new();
        for (row, now) in conflicts.iter().zip(now) {
            text.push_str(&match (self.keep, &now.copy) {
                (Keep::Mine, _) => format!(
                    "{} stays as it is; the copy is in the trash.\n",
                    shown(&row.path)
                ),
                (Keep::Theirs, _) => format!(
                    "{} is now as {} wrote it.\n",
                    shown(&row.path),
                    shown(&row.device)
                ),
                (Keep::Both, copy) => format!(
                    "{} stays, and the copy is called {} now.\n",
                    shown(&row.path),
                    shown(copy.as_deref().unwrap_or(&row.copy))
                ),
            });
        }
        context.output.text(&text)
    }
}
