//! `coffer versions show`.

use clap::Args;
use coffer_node::control::Request;

use crate::args::Context;
use crate::conversation::ask;
use crate::error::Failure;

/// Show how long earlier contents and the trash are kept
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  coffer versions show\n  coffer versions show --json")]
pub struct Show {}

impl Show {
    /// Prints the rule.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        super::print(context, &ask(context, &Request::VersionsShow).await?)
    }
}
