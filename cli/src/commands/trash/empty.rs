//! `coffer trash empty`.

use clap::Args;
use coffer_node::control::{Reply, Request};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::places::item_in_vault;
use crate::units::{bytes, count};

/// Delete what is in the trash for good, on every device
///
/// It cannot be undone, so it asks. What another device took out of the trash meanwhile stays. The disk has
/// room again after a day, and once all devices know.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer trash empty\n  \
    coffer trash empty Papers/letter.pdf\n  \
    coffer trash empty --yes")]
pub struct Empty {
    /// Only these, as `coffer trash list` shows them; by default everything
    #[arg(value_name = "PATH")]
    pub paths: Vec<String>,
}

impl Empty {
    /// Purges them.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let paths = self
            .paths
            .iter()
            .map(|path| item_in_vault(path))
            .collect::<Result<_, _>>()?;
        let reply = ask(context, &Request::TrashEmpty { paths }).await?;
        let Reply::TrashEmptied {
            files, bytes: size, ..
        } = &reply
        else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        context.output.line(format_args!(
            "{} ({}) deleted for good",
            count(*files, "file", "files"),
            bytes(*size)
        ))
    }
}
