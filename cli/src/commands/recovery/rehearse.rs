//! `coffer recovery rehearse`: would the kit work today?

use std::path::PathBuf;

use clap::Args;
use coffer_node::control::{Reply, Request};

use super::read_kit;
use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::units::count;

/// Try whether the recovery kit would bring your vault back today; nothing is changed
///
/// Takes the kit as `coffer recover` does. Checks that the words are those of this vault and open every lock that
/// it ever had, and asks each of its hosts to show what it would hand out. `coffer status` says
/// when this was done last.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer recovery rehearse\n  \
    coffer recovery rehearse kit.png\n  \
    coffer recovery rehearse --json < words.txt")]
pub struct Rehearse {
    /// A picture of the kit's QR code, or a file with its text; `-` reads the text from standard input
    #[arg(value_name = "FILE")]
    pub kit: Option<PathBuf>,
}

impl Rehearse {
    /// Tries, and says what it found.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let request = Request::RecoveryRehearse {
            with: read_kit(self.kit.as_deref())?,
        };
        let reply = ask(context, &request).await?;
        let Reply::RecoveryRehearsed { keys, hosts } = &reply else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        let mut text = format!(
            "The kit would work today: its words open {}.\n",
            match keys {
                1 => "the vault's lock".to_owned(),
                keys => format!("all {keys} locks that the vault has had"),
            }
        );
        if *hosts > 0 {
            text.push_str(&format!(
                "{} would hand out the vault for them.\n",
                count(*hosts, "host", "hosts")
            ));
        } else {
            text.push_str("No host was asked: a device of the vault has to be left, too.\n");
        }
        context.output.text(&text)
    }
}
