//! `coffer relay status`.

use clap::Args;
use coffer_node::relay::control::{HostReply, HostRequest, HostStatus};

use super::folder::{ask_host, unexpected};
use crate::args::Context;
use crate::error::Failure;
use crate::output::shown;
use crate::units;

/// How the host is: what it serves, what it keeps, whether it can serve now
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer relay status\n  \
    coffer relay status --json")]
pub struct Status {}

impl Status {
    /// Asks and shows.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let HostReply::Status(status) = ask_host(context, &HostRequest::Status).await? else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.object(&status);
        }
        context.output.text(&words(&status))
    }
}

fn words(status: &HostStatus) -> String {
    let used = status.entry_bytes.saturating_add(status.blob_bytes);
    let mut lines = vec![
        format!("Host {} ({})", shown(&status.name), status.host),
        match &status.not_ready {
            None => "It serves.".to_owned(),
            Some(why) => format!("It cannot serve now: {}", shown(why)),
        },
        format!(
            "{}, {} connected, {} in use",
            units::count(status.vaults, "vault", "vaults"),
            units::count(status.connections, "device", "devices"),
            status.sessions
        ),
        format!(
            "{} kept ({} of it contents), {} promised",
            units::bytes(used),
            units::bytes(status.blob_bytes),
            units::bytes(status.quota)
        ),
        format!(
            "{} that can still be used",
            units::count(status.invitations, "invitation", "invitations")
        ),
    ];
    if let Some(free) = status.disk_free {
        lines.push(format!("{} free on the disk", units::bytes(free)));
    }
    if status.quota > 0
        && status
            .disk_free
            .is_some_and(|free| free < status.quota - used.min(status.quota))
    {
        lines.push("warning: more is promised than the disk has room for".to_owned());
    }
    if let Some(memory) = status.memory {
        lines.push(format!("{} of memory in use", units::bytes(memory)));
    }
    lines.push(format!("listens on {}", status.listening.join(", ")));
    lines.push(format!("invitations name {}", status.announced.join(", ")));
    if let Some(http) = &status.http {
        lines.push(format!("metrics on http://{http}/metrics"));
    }
    lines.push(String::new());
    lines.join("\n")
}
