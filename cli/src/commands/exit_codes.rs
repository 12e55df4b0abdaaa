//! `coffer exit-codes`, and `coffer help exit-codes`.

use clap::Args;

use crate::args::Context;
use crate::error::{EXIT_CODES, Failure};

/// List the exit codes
#[derive(Debug, Args)]
#[command(after_help = format!("Examples:\n  coffer exit-codes\n  coffer exit-codes --json | jq -r .meaning\n\n{}", table()))]
pub struct ExitCodes {}

impl ExitCodes {
    /// Prints the list.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        if context.output.is_json() {
            let rows: Vec<_> = EXIT_CODES
                .iter()
                .map(|(code, meaning)| serde_json::json!({ "code": code, "meaning": meaning }))
                .collect();
            return context.output.objects(&rows);
        }
        context.output.line(table())
    }
}

fn table() -> String {
    let mut text = String::from("Exit codes:\n    0  it worked");
    for (code, meaning) in EXIT_CODES {
        text.push_str(&format!("\n  {code:>3}  {meaning}"));
    }
    text
}
