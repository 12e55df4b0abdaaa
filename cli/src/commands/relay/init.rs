//! `coffer relay init`.

use std::fs;
use std::process::{Command, Stdio};

use clap::Args;
use coffer_node::control::ControlError;
use coffer_node::relay::config::documented;
use coffer_node::relay::folder;
use serde_json::json;

use super::folder::data_dir;
use super::unit;
use crate::args::Context;
use crate::error::Failure;
use crate::places::quoted;

/// Make a host: its data folder, with its identity, and its documented configuration
///
/// Changes nothing that is there already. As root the data folder is /var/lib/coffer-relay. With --systemd it installs a
/// hardened service and starts it, and that is all that a fresh machine needs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer relay init                      then edit relay.toml, then `coffer relay start`\n  \
    coffer relay init --systemd            as root: install the service and start it\n  \
    coffer relay init --print-systemd      show the unit, change nothing\n  \
    coffer relay init --print-config       show the documented configuration, change nothing")]
pub struct Init {
    /// Install and start the hardened systemd service (needs root)
    #[arg(long, conflicts_with_all = ["print_systemd", "print_config"])]
    pub systemd: bool,
    /// Print the systemd unit, and change nothing
    #[arg(long)]
    pub print_systemd: bool,
    /// Print the documented configuration, and change nothing
    #[arg(long, conflicts_with = "print_systemd")]
    pub print_config: bool,
}

impl Init {
    /// Makes the host, or prints.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        if self.print_config {
            return context.output.text(&documented());
        }
        let program = std::env::current_exe()
            .map_err(|error| ControlError::io("find the coffer program", &error))?;
        let data_dir = data_dir(context)?;
        if self.print_systemd {
            return context.output.text(&unit::text(&program, &data_dir)?);
        }
        if self.systemd {
            unit::system_folder(&data_dir)?;
        }
        let made = folder::init(&data_dir)?;
        let running = self
            .systemd
            .then(|| install(&unit::text(&program, &data_dir)?))
            .transpose()?;
        if context.output.is_json() {
            let mut said = json!({
                "host": made.host, "data_dir": made.data_dir, "config": made.config, "created": made.created,
            });
            if let Some(running) = running {
                said["unit"] = json!(unit::PATH);
                said["started"] = json!(running);
            }
            return context.output.object(&said);
        }
        let what = if made.created {
            "made"
        } else {
            "is there already"
        };
        context
            .output
            .line(format_args!("The host {what}: {}.", quoted(&made.data_dir)))?;
        context
            .output
            .line(format_args!("Its configuration: {}.", quoted(&made.config)))?;
        context.output.line(match running {
            Some(true) => "It runs now, and starts with the machine. Invite a vault with `coffer relay invite`.".to_owned(),
            Some(false) => format!(
                "{} is written; systemd could not be told. Run: systemctl daemon-reload && systemctl enable --now {}",
                unit::PATH,
                unit::NAME
            ),
            None => format!("Start it with `{}`.", context.command("relay start")),
        })
    }
}

/// Writes the unit and starts it; `false` where systemd could not be told.
fn install(text: &str) -> Result<bool, Failure> {
    fs::write(unit::PATH, text)
        .map_err(|error| ControlError::io(format_args!("write {}", unit::PATH), &error))?;
    Ok(systemctl(&["daemon-reload"]) && systemctl(&["enable", "--now", unit::NAME]))
}

fn systemctl(words: &[&str]) -> bool {
    let quiet = Command::new("systemctl")
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    quiet.is_ok_and(|status| status.success())
}
