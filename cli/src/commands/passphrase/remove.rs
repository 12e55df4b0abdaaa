//! `coffer passphrase remove`.

use std::path::PathBuf;

use clap::Args;
use coffer_node::control::Protection;

use crate::args::Context;
use crate::error::Failure;
use crate::passphrase::Answers;

/// Ask for no passphrase on this device any more
///
/// From then on whoever can read the files of your user account on this computer can open your vault. Also ends
/// `passphrase by-login`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer passphrase remove\n  \
    coffer passphrase remove --passphrase-file present.txt --json")]
pub struct Remove {
    /// Read the present passphrase from the first line of a file, or of standard input (-)
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

impl Remove {
    /// Removes it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let answers = Answers {
            present: self.passphrase_file,
            new: None,
        };
        super::protect(context, Protection::Nothing, answers).await
    }
}
