//! `coffer versions`.

pub mod set;
pub mod show;

use clap::Subcommand;
use coffer_node::control::{Reply, Versions as Rule};

use crate::args::Context;
use crate::conversation::unexpected;
use crate::error::Failure;
use crate::output::shown;
use crate::units::{ago, bytes, count, duration, now_ms};

/// How long earlier contents of files are kept.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
    coffer versions show\n  \
    coffer versions set --all 2d --weekly 3y")]
pub enum Versions {
    Show(show::Show),
    Set(set::Set),
}

impl Versions {
    /// Runs the command.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Versions::Show(args) => args.run(context).await,
            Versions::Set(args) => args.run(context).await,
        }
    }
}

fn print(context: &Context, reply: &Reply) -> Result<(), Failure> {
    let Reply::Versions(rule) = reply else {
        return Err(unexpected());
    };
    if let Some(problem) = &rule.problem {
        context.output.remark(format_args!(
            "The rule in the vault cannot be used, these are the defaults: {}. `coffer versions set` makes a new one.",
            shown(problem)
        ));
    }
    if context.output.is_json() {
        return context.output.reply(reply);
    }
    context.output.text(&text(rule))
}

fn text(rule: &Rule) -> String {
    let trash = rule.trash_s.map_or("for ever".to_owned(), duration);
    let limit = rule
        .trash_bytes
        .map_or(String::new(), |max| format!(", at most {}", bytes(max)));
    let mut text = format!(
        "Earlier contents of files, counted from when they were replaced:\n\
        \x20 every one      {}\n\
        \x20 one an hour    {}\n\
        \x20 one a day      {}\n\
        \x20 one a week     {}\n\
        \x20 tagged ones    for ever\n\
        Trash            {trash}{limit}; {} in it now\n",
        duration(rule.all_s),
        duration(rule.hourly_s),
        duration(rule.daily_s),
        duration(rule.weekly_s),
        bytes(rule.in_trash_bytes),
    );
    if rule.purged.files > 0 {
        text.push_str(&format!(
            "Deleted for good {} ({}) from the trash, on every device; their room is free after a day, once all devices know\n",
            count(rule.purged.files, "file", "files"),
            bytes(rule.purged.bytes)
        ));
    }
    if let Some(looked) = rule.looked_ms {
        text.push_str(&format!(
            "This device      {} freed since it was started, {} waiting until a day has passed and all devices know\n\
            \x20                (looked {})\n",
            bytes(rule.freed_bytes),
            bytes(rule.waiting_bytes),
            ago(looked, now_ms())
        ));
    }
    if let Some(failed) = &rule.look_failed {
        text.push_str(&format!(
            "Disk room could not be freed: {}\n",
            shown(failed)
        ));
    }
    text
}
