//! `coffer lock`.

use clap::Args;
use coffer_node::control::{Client, Reply, Request};

use crate::args::Context;
use crate::conversation::{Plain, converse_with, unexpected};
use crate::error::Failure;

/// Lock this device
///
/// Ends syncing and all connections, and forgets what opens the vault until `coffer unlock`. Needs a passphrase, or a login
/// that unlocks: see `coffer passphrase`. Your other devices go on. Documents, and files in synced folders, stay as they are
/// on the disk: whoever can read the disk can read them, unless the disk is encrypted.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  coffer lock\n  coffer lock --json")]
pub struct Lock {}

impl Lock {
    /// Locks a coffer that runs. One that does not is locked, or was never to be.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = Client::connect(&context.data_dir).await?;
        let reply = converse_with(client, context, &Request::Lock, &mut Plain).await?;
        let Reply::Locked { already } = &reply else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        context.output.line(if *already {
            "this device was locked already"
        } else {
            "this device is locked"
        })
    }
}
