//! `coffer service remove`.

use std::fs;
use std::io::ErrorKind;

use clap::Args;
use coffer_node::control::ControlError;
use serde_json::json;

use super::unit;
use crate::args::Context;
use crate::error::Failure;

/// Start coffer no longer when you log in; ends the service if it runs
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  coffer service remove")]
pub struct Remove {}

impl Remove {
    /// Disables and removes the unit.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let path = unit::path()?;
        let disabled = unit::systemctl(&["disable", "--now", unit::NAME]);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(ControlError::not_found("the service is not installed").into());
            }
            Err(error) => {
                return Err(
                    ControlError::io(format_args!("remove {}", path.display()), &error).into(),
                );
            }
        }
        unit::systemctl(&["daemon-reload"]);
        if context.output.is_json() {
            return context
                .output
                .object(&json!({ "removed": path, "disabled": disabled }));
        }
        context
            .output
            .line(format_args!("Removed {}.", path.display()))
    }
}
