//! `coffer device log`.

use clap::Args;
use coffer_node::control::{LogRow, Reply, Request};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::output::shown;
use crate::units::{date, short};

/// Who was let in, put out or given another role, by whom and when
///
/// Oldest first. Dates are those of the device that did it. What a revocation undid is marked as not counting.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  coffer device log\n  coffer device log --json")]
pub struct Log {}

impl Log {
    /// Prints a line an act.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let Reply::DeviceLog { rows } = ask(context, &Request::DeviceLog).await? else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.objects(&rows);
        }
        context
            .output
            .text(&rows.iter().map(line).collect::<String>())
    }
}

/// One act in a line, also for events.
pub fn line(row: &LogRow) -> String {
    let at = row
        .at_ms
        .and_then(|at| i64::try_from(at).ok())
        .map(date)
        .unwrap_or_default();
    let device = row.device.as_deref().unwrap_or_default();
    let role = match &row.role {
        Some(role) => format!(" as {}", shown(role)),
        None => String::new(),
    };
    let counts = match row.counts.as_str() {
        "yes" => "",
        "contested" => "  (contested: `coffer device revoke` decides)",
        _ => "  (does not count)",
    };
    let what = format!("{} {} {}{role}", shown(&row.by), row.what, shown(device));
    format!("{at:<10} {} {}{counts}\n", short(&row.id), what.trim_end())
}
