//! `coffer relay vault list`.

use clap::Args;
use coffer_node::relay::control::{HostReply, HostRequest, MAX_ROWS, VaultRow};

use crate::args::Context;
use crate::commands::relay::folder::{ask_host, unexpected};
use crate::error::Failure;
use crate::units;

/// List the vaults that this host serves, and what they use
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer relay vault list\n  \
    coffer relay vault list --json | jq .vault")]
pub struct List {}

impl List {
    /// Asks page by page.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut after = None;
        let mut any = false;
        loop {
            let request = HostRequest::Vaults { after };
            let HostReply::Vaults { rows } = ask_host(context, &request).await? else {
                return Err(unexpected());
            };
            if context.output.is_json() {
                context.output.objects(&rows)?;
            } else {
                let lines: Vec<String> = rows.iter().map(words).collect();
                context.output.text(&lines.concat())?;
            }
            any |= !rows.is_empty();
            match rows.last() {
                Some(last) if rows.len() == MAX_ROWS => after = Some(last.vault.clone()),
                _ => break,
            }
        }
        if !any {
            context
                .output
                .remark("This host serves no vault yet; invite one with `coffer relay invite`.");
        }
        Ok(())
    }
}

/// One vault, in a line.
pub fn words(row: &VaultRow) -> String {
    let used = row.entry_bytes.saturating_add(row.blob_bytes);
    let here = match (row.bound, row.connected, row.last_seen_ms) {
        (false, ..) => "not bound yet".to_owned(),
        (true, 0, None) => "nobody was here".to_owned(),
        (true, 0, Some(at)) => {
            format!(
                "last here {}",
                units::date(i64::try_from(at).unwrap_or(i64::MAX))
            )
        }
        (true, n, _) => format!("{} connected", units::count(n, "device", "devices")),
    };
    format!(
        "{}  {} of {}  {here}\n",
        row.vault,
        units::bytes(used),
        units::bytes(row.quota),
    )
}
