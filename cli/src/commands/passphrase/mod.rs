//! `coffer passphrase`.

pub mod by_login;
pub mod remove;
pub mod set;

use clap::Subcommand;
use coffer_node::control::{Protection, Reply, Request};

use crate::args::Context;
use crate::conversation::{converse, unexpected};
use crate::error::Failure;
use crate::passphrase::Answers;

/// What can be done with the passphrase of a device.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
    coffer passphrase set\n  \
    coffer passphrase by-login\n  \
    coffer passphrase remove")]
pub enum PassphraseCommand {
    Set(set::Set),
    ByLogin(by_login::ByLogin),
    Remove(remove::Remove),
}

impl PassphraseCommand {
    /// Runs the command.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            PassphraseCommand::Set(args) => args.run(context).await,
            PassphraseCommand::ByLogin(args) => args.run(context).await,
            PassphraseCommand::Remove(args) => args.run(context).await,
        }
    }
}

/// Has this device protected otherwise, and says how it is.
async fn protect(context: &Context, by: Protection, mut answers: Answers) -> Result<(), Failure> {
    let reply = converse(context, &Request::Protect { by }, &mut answers).await?;
    let Reply::Protected { by, before } = &reply else {
        return Err(unexpected());
    };
    if context.output.is_json() {
        return context.output.reply(&reply);
    }
    context.output.line(match (by, before) {
        (Protection::Passphrase, Protection::Passphrase) => {
            "this device has another passphrase; the one before opens nothing"
        }
        (Protection::Passphrase, _) => {
            "this device has a passphrase; coffer asks for it when it starts"
        }
        (Protection::Login, _) => "this device unlocks when you log in",
        (Protection::Nothing, _) => "this device has no passphrase any more",
    })
}
