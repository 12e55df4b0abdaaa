//! `coffer device list`.

use clap::Args;
use coffer_node::control::{DeviceRow, Reply, Request};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::output::shown;
use crate::units::{ago, date, now_ms, short};

/// List the devices of your vault
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  coffer device list\n  coffer device list --json")]
pub struct List {}

impl List {
    /// Prints a line a device.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let Reply::Devices { devices } = ask(context, &Request::DeviceList).await? else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.objects(&devices);
        }
        let now = now_ms();
        context.output.text(
            &devices
                .iter()
                .map(|device| line(device, now))
                .collect::<String>(),
        )
    }
}

fn line(device: &DeviceRow, now: u64) -> String {
    let state = match (device.this, device.connected, device.last_seen_ms) {
        (true, ..) => "this device".to_owned(),
        (false, true, _) => "connected".to_owned(),
        (false, false, Some(at)) => format!("last seen {}", ago(at, now)),
        (false, false, None) => "not seen yet".to_owned(),
    };
    let since = i64::try_from(device.admitted_ms)
        .map(date)
        .unwrap_or_default();
    format!(
        "{:<20} {:<12} {:<7} since {since}  {state}\n",
        shown(&device.name),
        short(&device.id),
        shown(&device.role)
    )
}
