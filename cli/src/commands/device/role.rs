//! `coffer device role`.

use clap::Args;
use coffer_node::control::{Reply, Request};

use super::words;
use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::output::shown;

/// Say what a device may do
///
/// An owner reads, writes, lets devices in and puts them out. A member reads and writes. A reader reads. The
/// other devices hold it to that. What a device wrote before it learned that it may only read, and nobody had
/// seen, counts once it may write again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer device role tablet reader\n  \
    coffer device role tablet owner")]
pub struct Role {
    /// The device: its name, or the beginning of its id
    #[arg(value_name = "NAME")]
    pub device: String,
    /// owner, member or reader
    #[arg(value_parser = ["owner", "member", "reader"])]
    pub role: String,
    /// Type the 24 words, where no owner can do it
    #[arg(long)]
    pub with_words: bool,
}

impl Role {
    /// Has the role changed.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let request = Request::DeviceRole {
            device: self.device,
            role: self.role,
            words: words(self.with_words)?,
        };
        let reply = ask(context, &request).await?;
        let Reply::DeviceRole { name, role, .. } = &reply else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        context
            .output
            .line(format_args!("{} is {} now", shown(name), shown(role)))
    }
}
