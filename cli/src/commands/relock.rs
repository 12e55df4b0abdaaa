//! `coffer relock`.

use clap::Args;
use coffer_node::control::{Limit, LockStatus, Reply, Request};

use crate::amounts::seconds_or_never;
use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::units::{count, duration};

/// Change the lock of the vault, or how often it is changed by itself
///
/// Putting a device out does this by itself, and so does the time: once a year, unless you say otherwise. What was written
/// before stays readable to your devices, and nothing is encrypted anew.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer relock                   now\n  \
    coffer relock --every 90d       by itself, from now on\n  \
    coffer relock --every never")]
pub struct Relock {
    /// Change it by itself so often, from a day to a hundred years, in the whole vault; not now
    #[arg(long, value_name = "TIME|never", value_parser = seconds_or_never)]
    pub every: Option<Limit>,
}

impl Relock {
    /// Has the vault's key changed, or its schedule.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let request = match self.every {
            None => Request::KeyRotate,
            Some(every) => Request::KeySchedule { every },
        };
        let reply = ask(context, &request).await?;
        let text = match &reply {
            Reply::KeyRotated { devices } => format!(
                "the vault has a new lock, which {} can open",
                count(*devices, "device", "devices")
            ),
            Reply::LockSchedule(lock) => format!("the lock is changed {}", schedule(lock)),
            _ => return Err(unexpected()),
        };
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        context.output.line(text)
    }
}

/// How often the lock is changed by itself.
pub fn schedule(lock: &LockStatus) -> String {
    match lock.every_s {
        Some(every_s) => format!("by an owner device every {}", duration(every_s)),
        None => "only when you say so, or put a device out".to_owned(),
    }
}
