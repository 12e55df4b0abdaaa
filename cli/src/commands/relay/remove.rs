//! `coffer relay remove`.

use clap::Args;
use coffer_node::control::{Reply, Request};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::output::shown;
use crate::units::{bytes, date};

/// Use a host no longer, and have it erase what it keeps of your vault
///
/// The host signs that it did; `coffer relay list` shows the receipt. To change hosts, add the new one first, wait until
/// `coffer status` says that it holds everything, then remove the old one.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer relay remove attic\n  \
    coffer relay remove attic --without-erasing    it is gone for good, or cannot be reached")]
pub struct Remove {
    /// The host's name, or the beginning of its id
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Do not ask it to erase anything
    #[arg(long)]
    pub without_erasing: bool,
}

impl Remove {
    /// Removes the host.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let request = Request::HostRemove {
            host: self.name,
            without_erasing: self.without_erasing,
        };
        let reply = ask(context, &request).await?;
        let Reply::HostRemoved { host } = &reply else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        let erased = match &host.receipt {
            Some(receipt) => format!(
                "It has signed that it erased {} on {}.",
                bytes(receipt.bytes),
                date(i64::try_from(receipt.at_ms).unwrap_or(i64::MAX)),
            ),
            None => {
                "It was not asked to erase what it keeps, which nobody but your devices can read."
                    .to_owned()
            }
        };
        context.output.text(&format!(
            "The host \"{}\" is not used any more. {erased}\n",
            shown(&host.name)
        ))
    }
}
