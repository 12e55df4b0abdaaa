//! `coffer storage show`.

use clap::Args;
use coffer_node::control::Request;

use crate::args::Context;
use crate::error::Failure;

/// Show what this device keeps, what that takes, and which files are at risk
///
/// At risk is what too few other devices and hosts are known to keep: it would be lost with this one.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  coffer storage show\n  coffer storage show --json | jq .at_risk"
)]
pub struct Show {}

impl Show {
    /// Prints it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        super::print(context, &Request::StorageShow).await
    }
}
