//! `coffer unlock`.

use std::path::PathBuf;

use clap::Args;
use coffer_node::control::{Reply, Request};

use crate::args::Context;
use crate::conversation::{converse, unexpected};
use crate::error::Failure;
use crate::passphrase::Answers;

/// Unlock this device
///
/// Asks for its passphrase, or takes what the system keeps for who is logged in. Everything goes on where it was. A wrong
/// passphrase ends with exit code 5; after several of them each further try has to wait.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer unlock\n  \
    coffer unlock --passphrase-file /run/secrets/coffer\n  \
    secret-tool lookup for coffer | coffer unlock --passphrase-file -")]
pub struct Unlock {
    /// Read the passphrase from the first line of a file, or of standard input (-)
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

impl Unlock {
    /// Unlocks; starts coffer if need be.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut answers = Answers {
            present: self.passphrase_file,
            new: None,
        };
        let reply = converse(context, &Request::Unlock, &mut answers).await?;
        let Reply::Unlocked { already } = &reply else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        context.output.line(if *already {
            "this device is not locked"
        } else {
            "this device is unlocked"
        })
    }
}
