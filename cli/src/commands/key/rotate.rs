//! `coffer key rotate`.

use clap::Args;
use coffer_node::control::{Reply, Request};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::units::count;

/// Change the key under which the vault is written
///
/// Revoking a device does this by itself. What was written before stays readable to your devices, and nothing is
/// encrypted anew.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  coffer key rotate\n  coffer key rotate --json")]
pub struct Rotate {}

impl Rotate {
    /// Has the key changed.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let reply = ask(context, &Request::KeyRotate).await?;
        let Reply::KeyRotated { devices } = &reply else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        context.output.line(format_args!(
            "the key was changed, for {}",
            count(*devices, "device", "devices")
        ))
    }
}
