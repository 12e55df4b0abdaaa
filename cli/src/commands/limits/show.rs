//! `coffer limits show`.

use clap::Args;
use coffer_node::control::Request;

use super::ask_and_show;
use crate::args::Context;
use crate::error::Failure;

/// Show how fast files may go, and whether they are paused
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  coffer limits show\n  coffer limits show --json")]
pub struct Show {}

impl Show {
    /// Prints them.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        ask_and_show(context, &Request::LimitsShow).await
    }
}
