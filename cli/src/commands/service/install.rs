//! `coffer service install`.

use std::fs;

use clap::Args;
use coffer_node::control::{ControlError, DataLock};
use serde_json::json;

use super::unit;
use crate::args::Context;
use crate::error::Failure;

/// Start coffer whenever you log in (systemd user unit)
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer service install\n  \
    coffer service install --print         show the unit, install nothing\n  \
    loginctl enable-linger                 have it run also while you are not logged in")]
pub struct Install {
    /// Print the unit, and install nothing
    #[arg(long)]
    pub print: bool,
}

impl Install {
    /// Writes the unit and enables it where systemd is there to be told.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let program = std::env::current_exe()
            .map_err(|error| ControlError::io("find the coffer program", &error))?;
        let text = unit::text(&program, context);
        if self.print {
            return context.output.text(&text);
        }
        let path = unit::path()?;
        let failed = |error: std::io::Error| {
            ControlError::io(format_args!("write {}", path.display()), &error)
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        fs::write(&path, text).map_err(failed)?;
        let enabled =
            unit::systemctl(&["daemon-reload"]) && unit::systemctl(&["enable", unit::NAME]);
        // One that runs by hand keeps the data folder until it ends; the service would fail beside it.
        let running = DataLock::holder(&context.data_dir).is_some();
        let started = enabled && !running && unit::systemctl(&["start", unit::NAME]);
        if context.output.is_json() {
            return context
                .output
                .object(&json!({ "unit": path, "enabled": enabled, "started": started }));
        }
        context
            .output
            .line(format_args!("Wrote {}.", path.display()))?;
        context.output.line(match (enabled, running, started) {
            (true, _, true) => "coffer runs now, and starts whenever you log in.".to_owned(),
            (true, true, _) => format!(
                "coffer starts whenever you log in. The one that runs now is not the service; to change over: {} && systemctl --user start coffer",
                context.command("stop")
            ),
            (true, false, false) => "coffer starts whenever you log in; it could not be started now: see `systemctl --user status coffer`.".to_owned(),
            (false, ..) => "systemd could not be told; in a session of yours run: systemctl --user daemon-reload && systemctl --user enable --now coffer".to_owned(),
        })
    }
}
