//! `coffer resume`.

use clap::Args;
use coffer_node::control::Request;

use super::limits::ask_and_show;
use crate::args::Context;
use crate::error::Failure;

/// Send and fetch contents of files again after `coffer pause`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  coffer resume\n  coffer resume --json")]
pub struct Resume {}

impl Resume {
    /// Ends the pause, and prints the limits that are left.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        ask_and_show(context, &Request::Resume).await
    }
}
