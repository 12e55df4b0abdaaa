//! `coffer limits set`.

use clap::Args;
use coffer_node::control::{ControlError, RateChange, Request};

use super::ask_and_show;
use crate::args::Context;
use crate::error::Failure;
use crate::units::parse_rate;

/// Limit how fast files go to and from other devices
///
/// A limit is for all other devices together, on this device only, and stays over a restart. It is kept on average: one
/// piece of a file may go at once. Documents and the names of files are not limited; they are small.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer limits set --up 2MB --down none\n  \
    coffer limits set --up 500kB\n  \
    coffer limits set --up none --down none")]
pub struct Set {
    /// Most that is sent in a second, or `none`
    #[arg(long, value_name = "RATE", value_parser = parse)]
    pub up: Option<RateChange>,
    /// Most that is fetched in a second, or `none`
    #[arg(long, value_name = "RATE", value_parser = parse)]
    pub down: Option<RateChange>,
}

fn parse(text: &str) -> Result<RateChange, String> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(RateChange::None);
    }
    parse_rate(text).map(RateChange::PerSecond)
}

impl Set {
    /// Sets them, and prints what they are now.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        if self.up.is_none() && self.down.is_none() {
            let message = "say what is to change, such as --up 2MB or --down none";
            return Err(ControlError::usage(message).into());
        }
        let request = Request::LimitsSet {
            up: self.up,
            down: self.down,
        };
        ask_and_show(context, &request).await
    }
}
