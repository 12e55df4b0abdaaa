//! `coffer relock`.

use clap::Args;
use coffer_node::control::{Reply, Request};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::units::count;

/// Change the lock of the vault
///
/// Putting a device out does this by itself. What was written before stays readable to your devices, and nothing is
/// encrypted anew.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  coffer relock\n  coffer relock --json")]
pub struct Relock {}

impl Relock {
    /// Has the vault's key changed.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let reply = ask(context, &Request::KeyRotate).await?;
        let Reply::KeyRotated { devices } = &reply else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        context.output.line(format_args!(
            "the vault has a new lock, which {} can open",
            count(*devices, "device", "devices")
        ))
    }
}
