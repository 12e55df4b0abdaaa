//! `coffer relay vault remove`.

use std::io::{self, Write};

use clap::Args;
use coffer_node::control::{ControlError, ErrorKind};
use coffer_node::relay::control::{HostReply, HostRequest};
use serde_json::json;

use super::list::words;
use crate::args::Context;
use crate::commands::relay::folder::{ask_host, unexpected};
use crate::error::Failure;
use crate::output::is_interactive;

/// Erase a vault from this host: all that it keeps of it
///
/// Its devices keep what they have; they need another invitation to come back. Asks before it erases.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer relay vault remove 3f9a\n  \
    coffer relay vault remove 3f9a27c0 --yes")]
pub struct Remove {
    /// The vault's id, or the first digits of it
    #[arg(value_name = "VAULT")]
    pub vault: String,
}

impl Remove {
    /// Finds, asks, erases.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let find = HostRequest::FindVault {
            beginning: self.vault,
        };
        let HostReply::Vault(row) = ask_host(context, &find).await? else {
            return Err(unexpected());
        };
        if !context.yes {
            confirm(&words(&row))?;
        }
        let request = HostRequest::RemoveVault { vault: row.vault };
        let HostReply::Vault(row) = ask_host(context, &request).await? else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.object(&json!({ "removed": row }));
        }
        context
            .output
            .line(format_args!("Erased {}", words(&row).trim_end()))
    }
}

/// Asks the person, who must be there.
fn confirm(what: &str) -> Result<(), Failure> {
    if !is_interactive() {
        return Err(ControlError::new(
            ErrorKind::Refused,
            "a vault is erased only after a yes, and nobody is here to give it",
        )
        .with_code("needs-answer")
        .into());
    }
    let mut err = io::stderr().lock();
    let _ = write!(err, "{what}Erase all that this host keeps of it? [y/N] ")
        .and_then(|()| err.flush());
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    if read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(ControlError::new(ErrorKind::Refused, "nothing was erased").into())
}
