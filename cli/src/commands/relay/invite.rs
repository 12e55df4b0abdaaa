//! `coffer relay invite`.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use coffer_node::relay::control::{HostReply, HostRequest};
use serde_json::json;

use super::folder::{ask_host, unexpected};
use crate::args::Context;
use crate::error::Failure;
use crate::qr::Qr;
use crate::units;

/// Invite one vault to this host
///
/// Prints a link for `coffer relay add` on one of its devices. Whoever has the link can use it, once, until it expires:
/// send it by a way that only they read.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer relay invite\n  \
    coffer relay invite --quota 50GiB --valid 2days\n  \
    coffer relay invite --image invitation.png")]
pub struct Invite {
    /// What the vault may store here, such as 10GiB; by default as configured
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    pub quota: Option<u64>,
    /// How long the invitation can be used, such as 12h or 7days; by default as configured
    #[arg(long, value_name = "TIME", value_parser = units::parse_seconds)]
    pub valid: Option<u64>,
    /// Write the QR code as a PNG
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
}

impl Invite {
    /// Has the host make an invitation, and shows it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let request = HostRequest::Invite {
            quota: self.quota,
            valid_seconds: self.valid,
        };
        let HostReply::Invitation(row) = ask_host(context, &request).await? else {
            return Err(unexpected());
        };
        let qr = Qr::new(&row.link.to_uppercase())?;
        if let Some(path) = &self.image {
            qr.save_png(path)?;
        }
        if context.output.is_json() {
            return context.output.object(&json!({ "invitation": row }));
        }
        for note in &row.notes {
            context.output.remark(format_args!("note: {note}"));
        }
        if std::io::stdout().is_terminal() {
            context.output.text(&qr.draw(true))?;
        }
        context.output.line(&row.link)?;
        let until = units::date(i64::try_from(row.expires_ms).unwrap_or(i64::MAX));
        context.output.remark(format_args!(
            "For one vault, of up to {}, until {until}. On one of its devices: coffer relay add LINK",
            units::bytes(row.quota),
        ));
        Ok(())
    }
}
