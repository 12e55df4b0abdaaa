//! `coffer stop`.

use clap::Args;

use crate::args::Context;
use crate::background;
use crate::error::Failure;

/// End the coffer that is running on this data folder
///
/// Returns once it has ended. Nothing is lost: the other devices catch up with it after the next start.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  coffer stop\n  coffer stop --data-dir /tmp/second")]
pub struct Stop {}

impl Stop {
    /// Asks the node to end; `NotRunning` where there is none.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        background::stop(&context.data_dir).await?;
        if context.output.is_json() {
            return context
                .output
                .object(&serde_json::json!({ "stopped": true }));
        }
        context.output.line("stopped")
    }
}
