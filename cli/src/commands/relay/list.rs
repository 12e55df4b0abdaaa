//! `coffer relay list`.

use clap::Args;
use coffer_node::control::{Reply, Request};

use crate::args::Context;
use crate::commands::status::describe_host;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::units::now_ms;

/// List the hosts of your vault, and what each holds
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  coffer relay list\n  coffer relay list --json")]
pub struct List {}

impl List {
    /// Prints some lines a host.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let Reply::Hosts { hosts } = ask(context, &Request::HostList).await? else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.objects(&hosts);
        }
        if hosts.is_empty() {
            return context.output.text(&format!(
                "No host keeps your vault. Add one with its invitation: {}\n",
                context.command("relay add INVITATION")
            ));
        }
        let mut text = String::new();
        for host in &hosts {
            describe_host(&mut text, host, now_ms());
        }
        context.output.text(&text)
    }
}
