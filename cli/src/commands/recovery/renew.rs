//! `coffer recovery renew`: other words take the place of those on paper.

use std::path::PathBuf;

use clap::Args;
use coffer_node::control::{Reply, Request};

use super::show::{Person, needs_terminal};
use crate::args::Context;
use crate::commands::device::words;
use crate::conversation::{converse, unexpected};
use crate::error::Failure;

/// Replace the 24 words: the old paper opens nothing that is written from then on
///
/// Shows the new words like `coffer recovery show`. Without --with-words, whoever has the old paper can still contest
/// it; with them, nobody can. Either way the vault gets a new lock.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer recovery renew\n  \
    coffer recovery renew --with-words         the old paper can contest nothing any more\n  \
    coffer recovery renew --page kit.html      a page to print")]
pub struct Renew {
    /// Type the old 24 words
    #[arg(long)]
    pub with_words: bool,
    /// Write the kit to a new file, as a page to print
    #[arg(long, value_name = "FILE")]
    pub page: Option<PathBuf>,
}

impl Renew {
    /// Replaces them and shows the new ones.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        needs_terminal(context)?;
        let request = Request::RecoveryRenew {
            words: words(self.with_words)?,
        };
        let mut person = Person {
            page: self.page,
            ..Person::default()
        };
        match converse(context, &request, &mut person).await? {
            Reply::RecoveryConfirmed => context
                .output
                .line("Right. The old paper is of no use now: destroy it, and keep the new one."),
            _ => Err(unexpected()),
        }
    }
}
