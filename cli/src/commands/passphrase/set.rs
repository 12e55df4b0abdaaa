//! `coffer passphrase set`.

use std::path::PathBuf;

use clap::Args;
use coffer_node::control::Protection;

use crate::args::Context;
use crate::error::Failure;
use crate::passphrase::Answers;

/// Give this device a passphrase, or another one
///
/// What opens the vault on this device is encrypted with it, at once. coffer asks for it when it starts, and after `coffer
/// lock`. Write it down, or have your 24 words at hand: nobody can open this device without it. It is for this device alone.
/// Several words that have nothing to do with each other make a good one.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer passphrase set\n  \
    coffer passphrase set --passphrase-file old.txt --new-file new.txt\n  \
    coffer passphrase set --new-file -")]
pub struct Set {
    /// Read the present passphrase from the first line of a file, or of standard input (-)
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Read the new passphrase so
    #[arg(long, value_name = "FILE")]
    pub new_file: Option<PathBuf>,
}

impl Set {
    /// Sets or changes it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let answers = Answers {
            present: self.passphrase_file,
            new: self.new_file,
        };
        super::protect(context, Protection::Passphrase, answers).await
    }
}
