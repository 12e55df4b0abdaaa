//! `coffer device revoke`.

use clap::Args;
use coffer_node::control::{DeviceRevoked, Reply, Request};

use super::words;
use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::output::shown;
use crate::units::{ago, count, now_ms};

/// Put a lost or stolen device out of your vault
///
/// It cannot read what is written from now on, and nothing that it writes is taken any more, except what
/// other devices had before they learned. What it had, it keeps. It cannot be let in again as it
/// is; if you find it, erase its copy and pair it anew.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer device revoke phone\n  \
    coffer device revoke 3f9a1c --yes\n  \
    coffer device revoke phone --with-words     when two devices have revoked each other")]
pub struct Revoke {
    /// The device: its name, or the beginning of its id
    #[arg(value_name = "NAME")]
    pub device: String,
    /// Undo what it did to other devices: ids as `coffer device log --json` shows them
    #[arg(long, value_name = "ID")]
    pub undo: Vec<String>,
    /// Type the 24 words, where no owner can do it
    #[arg(long)]
    pub with_words: bool,
}

impl Revoke {
    /// Revokes it and prints the report.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let request = Request::DeviceRevoke {
            device: self.device,
            undo: self.undo,
            words: words(self.with_words)?,
        };
        let reply = ask(context, &request).await?;
        let Reply::DeviceRevoked(report) = &reply else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        context.output.text(&text(report, now_ms()))
    }
}

fn text(report: &DeviceRevoked, now: u64) -> String {
    let name = shown(&report.name);
    let mut text = format!("{name} is out of the vault.\n\n");
    if report.held_keys {
        let had = match (report.last_heard_ms, report.had_everything) {
            (Some(at), true) => {
                format!("It was heard of {}, and had everything then.", ago(at, now))
            }
            (Some(at), false) => format!(
                "It was heard of {}, and had a part of the vault then.",
                ago(at, now)
            ),
            (None, _) => "It never said what it has.".to_owned(),
        };
        text.push_str(&format!(
            "{had}\nWhoever has it can read that, and whatever else was written until now, if a host hands it out.\n\
             What is written from now on it cannot read.\n\n"
        ));
    } else {
        text.push_str("It could read nothing.\n\n");
    }
    text.push_str(&format!(
        "{} of it at once; others learn of it before they take anything from anybody.\n",
        match report.told {
            0 => "No other device is connected to hear".to_owned(),
            told => format!(
                "{} heard",
                count(told, "connected device", "connected devices")
            ),
        }
    ));
    if report.held_keys {
        text.push_str("\nWhat to do next:\n");
        if report.accounts.is_empty() {
            text.push_str("- Change the passwords that were in documents of the vault.\n");
        } else {
            text.push_str("- Change the passwords of these accounts, which it could read:\n");
            for account in &report.accounts {
                text.push_str(&format!("    {}\n", shown(account)));
            }
        }
        text.push_str("- If the 24 words lay beside it, whoever has them can open everything.\n");
    }
    text
}
