//! `coffer passphrase by-login`.

use std::path::PathBuf;

use clap::Args;
use coffer_node::control::Protection;

use crate::args::Context;
use crate::error::Failure;
use crate::passphrase::Answers;

/// Have this device unlock when you log in, without a passphrase of its own
///
/// What opens the vault on this device is encrypted with a secret that the system's password store keeps (GNOME Keyring,
/// KWallet, KeePassXC), which your login opens. It takes the place of the passphrase, if there is one. Where that store is
/// lost or emptied, this device can be opened no more.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer passphrase by-login\n  \
    coffer passphrase by-login --passphrase-file present.txt --json")]
pub struct ByLogin {
    /// Read the present passphrase from the first line of a file, or of standard input (-)
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

impl ByLogin {
    /// Moves to the password store.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let answers = Answers {
            present: self.passphrase_file,
            new: None,
        };
        super::protect(context, Protection::Login, answers).await
    }
}
