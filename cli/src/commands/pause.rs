//! `coffer pause`.

use clap::Args;
use coffer_node::control::Request;

use super::limits::ask_and_show;
use crate::args::Context;
use crate::error::Failure;
use crate::units::parse_seconds;

/// Send and fetch no contents of files for a while
///
/// Documents and the names of files still go both ways, so the devices know what they lack. Nothing that was fetched is
/// lost: files go on where they stopped. A pause stays over a restart.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  coffer pause             until `coffer resume`\n  coffer pause --for 1h"
)]
pub struct Pause {
    /// End it by itself after this time
    #[arg(long = "for", value_name = "TIME", value_parser = parse_seconds)]
    pub duration: Option<u64>,
}

impl Pause {
    /// Pauses, and prints until when.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let request = Request::Pause {
            for_s: self.duration,
        };
        ask_and_show(context, &request).await
    }
}
