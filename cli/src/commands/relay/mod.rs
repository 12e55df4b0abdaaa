//! `coffer relay`: hosts, from the side of devices (`add`, `list`, `remove`), and from the side of who runs one (`init`,
//! `start`, `invite`, `vault`, `status`).

pub mod add;
mod folder;
pub mod init;
pub mod invite;
pub mod list;
pub mod remove;
pub mod start;
pub mod status;
mod unit;
pub mod vault;

use clap::Subcommand;

use super::one_thread;
use crate::args::Context;
use crate::error::Failure;

/// What can be done about hosts.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
    coffer relay add coffer:relay/...             on a device: use a host\n  \
    coffer relay list\n  \
    coffer relay init                             on the host: make it\n  \
    coffer relay start                            on the host: run it\n  \
    coffer relay invite                           on the host: let a vault in")]
pub enum Relay {
    Add(add::Add),
    List(list::List),
    Remove(remove::Remove),
    Init(init::Init),
    Start(start::Start),
    Invite(invite::Invite),
    /// The vaults that this host serves
    #[command(subcommand)]
    Vault(vault::Vault),
    Status(status::Status),
}

impl Relay {
    /// Runs the command.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Relay::Add(args) => one_thread(args.run(context)),
            Relay::List(args) => one_thread(args.run(context)),
            Relay::Remove(args) => one_thread(args.run(context)),
            Relay::Init(args) => args.run(context),
            Relay::Start(args) => args.run(context),
            Relay::Invite(args) => one_thread(args.run(context)),
            Relay::Vault(args) => one_thread(args.run(context)),
            Relay::Status(args) => one_thread(args.run(context)),
        }
    }
}
