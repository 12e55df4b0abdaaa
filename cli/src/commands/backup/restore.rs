//! `coffer backup restore`.

use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use clap::Args;
use coffer_node::control::{BackupAt, Reply, Request};

use super::{WithKit, ask_anyone};
use crate::args::Context;
use crate::conversation::unexpected;
use crate::error::Failure;
use crate::places::{absolute, in_vault};
use crate::units::{bytes, count, date};

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;
/// And of a minute.
const MINUTE_MS: u64 = 60 * 1000;

/// Write files out of a backup, as they were then
///
/// Without --path everything is written, as `coffer export` does: `files` and `documents`. The vault stays as it is; to get
/// the vault itself back on a new device, see `coffer recover --backup`. Earlier contents of a file are in a backup as
/// long as the vault keeps them (`coffer versions`), often longer.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer backup restore /media/ann/stick/coffer --to ~/all\n  \
    coffer backup restore /media/ann/stick/coffer --to ~/old --path Photos/2019 --at 2026-11-01\n  \
    coffer backup restore /media/ann/stick/coffer --to ~/old --at 3      as of backup 3 of `backup list`")]
pub struct Restore {
    /// The folder
    #[arg(value_name = "FOLDER")]
    pub dir: PathBuf,
    /// Where to write; made if it is not there. Nothing in it is replaced
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// A file or folder of the vault, may be given several times; by default everything
    #[arg(long = "path", value_name = "PATH")]
    pub paths: Vec<String>,
    /// As of which backup: its number, or a date as 2026-11-23 or "2026-11-23 14:30" (UTC), for the last one until then
    #[arg(long, value_name = "DATE", value_parser = parse_at)]
    pub at: Option<BackupAt>,
    /// With what to open it.
    #[command(flatten)]
    pub with: WithKit,
}

impl Restore {
    /// Writes, telling what could not be.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let paths = self.paths.iter().map(|path| in_vault(path));
        let request = Request::BackupRestore {
            dir: absolute(&self.dir)?,
            to: absolute(&self.to)?,
            paths: paths.collect::<Result<_, _>>()?,
            at: self.at,
            with: self.with.read()?,
        };
        let reply = ask_anyone(context, &request).await?;
        let Reply::BackupRestored {
            run,
            documents,
            files,
            bytes: size,
            dir,
            skipped,
        } = &reply
        else {
            return Err(unexpected());
        };
        crate::commands::report_skipped(context, skipped);
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        context.output.line(format_args!(
            "{} and {} ({}) as of {} written to {}",
            count(*documents, "document", "documents"),
            count(*files, "file", "files"),
            bytes(*size),
            date(run.at_ms as i64),
            dir.display()
        ))
    }
}

/// A number, a day (to its end) or a time.
fn parse_at(text: &str) -> Result<BackupAt, String> {
    let text = text.trim();
    if let Ok(number) = text.parse() {
        return Ok(BackupAt::Run(number));
    }
    let wrong = || format!("\"{text}\" is no date such as 2026-11-23, and no number of a backup");
    let read = |text: &str| {
        let time = humantime::parse_rfc3339_weak(text).ok()?;
        let since = time.duration_since(UNIX_EPOCH).ok()?;
        u64::try_from(since.as_millis()).ok()
    };
    // Days and minutes, as dates are shown, to their ends. What is longer is a time by itself.
    let (shown, span) = match text.len() {
        10 => (format!("{text} 00:00:00"), DAY_MS),
        16 => (format!("{text}:00"), MINUTE_MS),
        _ => (text.to_owned(), 1),
    };
    read(&shown)
        .map(|begin| BackupAt::Time(begin + span - 1))
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_reach_to_their_ends_and_numbers_are_backups() {
        assert_eq!(parse_at("3"), Ok(BackupAt::Run(3)));
        assert_eq!(parse_at("1970-01-01"), Ok(BackupAt::Time(DAY_MS - 1)));
        assert_eq!(parse_at("1970-01-01 00:01"), Ok(BackupAt::Time(119_999)));
        assert_eq!(parse_at("1970-01-01 00:00:02"), Ok(BackupAt::Time(2000)));
        assert_eq!(parse_at("1970-01-01T00:00:02Z"), Ok(BackupAt::Time(2000)));
        assert!(parse_at("yesterday").is_err());
    }
}
