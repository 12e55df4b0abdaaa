//! `coffer backup`.

pub mod list;
pub mod restore;
pub mod verify;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use coffer_node::control::{
    BackupRun, Client, ControlError, ErrorKind, NewVault, RecoverWith, Reply, Request,
};

use super::recovery::read_kit;
use crate::args::Context;
use crate::background;
use crate::conversation::{Plain, ask, converse_with, unexpected};
use crate::error::Failure;
use crate::places::absolute;
use crate::units::{bytes, count, date};

/// Write all of the vault, encrypted, to a folder on any disk
///
/// The folder may lie on any disk, a USB stick too. The first time takes everything, later ones only what is new; one
/// that was torn goes on where it was. Earlier backups in it can still be read. Nobody reads it without the vault's
/// devices or the recovery kit, and with the kit it is enough: `coffer recover --backup FOLDER`. What was deleted for
/// good is taken out of it as well.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true,
    after_help = "Examples:\n  \
    coffer backup /media/ann/stick/coffer\n  \
    coffer backup list /media/ann/stick/coffer\n  \
    coffer backup verify /media/ann/stick/coffer\n  \
    coffer backup restore /media/ann/stick/coffer --to ~/old --path Photos --at 2026-11-01\n\n\
    With --json: run, at_ms, added_bytes, total_bytes, missing, ...; exit code 13 where the disk is full, 4 where the \
    folder holds something else."
)]
pub struct Backup {
    /// What to do with a backup that is there.
    #[command(subcommand)]
    pub command: Option<Inner>,
    /// The folder; made if it is not there, and must be empty or a backup of this vault
    #[arg(value_name = "FOLDER", required = true)]
    pub dir: Option<PathBuf>,
}

/// What can be done with one.
#[derive(Debug, Subcommand)]
pub enum Inner {
    List(list::List),
    Verify(verify::Verify),
    Restore(restore::Restore),
}

impl Backup {
    /// Runs the command.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        match (self.command, self.dir) {
            (Some(Inner::List(args)), _) => args.run(context).await,
            (Some(Inner::Verify(args)), _) => args.run(context).await,
            (Some(Inner::Restore(args)), _) => args.run(context).await,
            (None, Some(dir)) => make(&dir, context).await,
            (None, None) => Err(ControlError::usage("name a folder").into()),
        }
    }
}

async fn make(dir: &Path, context: &Context) -> Result<(), Failure> {
    let request = Request::Backup {
        dir: absolute(dir)?,
    };
    let reply = ask(context, &request).await?;
    let Reply::BackedUp(done) = &reply else {
        return Err(unexpected());
    };
    if context.output.is_json() {
        return context.output.reply(&reply);
    }
    let mut text = format!(
        "Everything up to {} is in {}: {} added, {} in all.\n",
        date(done.run.at_ms as i64),
        done.dir.display(),
        bytes(done.added_bytes),
        bytes(done.total_bytes),
    );
    if done.freed_bytes > 0 {
        text.push_str(&format!(
            "{} of what is not needed any more were taken out.\n",
            bytes(done.freed_bytes)
        ));
    }
    if done.run.missing > 0 {
        text.push_str(&format!(
            "Not in it: the contents of {} ({}), which are not on this device. Get them with `coffer storage pin`, or make the backup on a device that has everything.\n",
            count(done.run.missing, "file", "files"),
            bytes(done.run.missing_bytes),
        ));
    }
    if done.run.missing_earlier > 0 {
        text.push_str(&format!(
            "Of earlier contents {} not on this device, and not in it.\n",
            count(done.run.missing_earlier, "is", "are")
        ));
    }
    if let Some(why) = &done.kept_all {
        text.push_str(&format!("Nothing was taken out of it: {why}.\n"));
    }
    context.output.text(&text)
}

/// Where the kit comes from, for backups of other vaults than that of this device.
#[derive(Debug, Args)]
pub struct WithKit {
    /// Read it with the recovery kit: a picture of its QR code, or a file with its text; `-` reads the text from
    /// standard input. Needed where this device has another vault, or none
    #[arg(long, value_name = "FILE")]
    pub kit: Option<PathBuf>,
    /// Read it with the 24 words, which are asked for
    #[arg(long, conflicts_with = "kit")]
    pub words: bool,
}

impl WithKit {
    fn read(&self) -> Result<Option<RecoverWith>, Failure> {
        match (&self.kit, self.words) {
            (Some(kit), _) => read_kit(Some(kit)).map(Some),
            (None, true) => read_kit(None).map(Some),
            (None, false) => Ok(None),
        }
    }
}

/// Asks, also where this device has no vault: what is started for it alone is ended again.
async fn ask_anyone(context: &Context, request: &Request) -> Result<Reply, Failure> {
    let (client, started) = match Client::connect(&context.data_dir).await {
        Ok(client) => (client, false),
        Err(error) if error.kind == ErrorKind::NotRunning => {
            let ready =
                background::start(context, &Default::default(), NewVault::Wait, None).await?;
            let waits = ready.is_some_and(|ready| ready.vault.is_none());
            (Client::connect(&context.data_dir).await?, waits)
        }
        Err(error) => return Err(error.into()),
    };
    let reply = converse_with(client, context, request, &mut Plain).await;
    if started {
        let _ = background::stop(&context.data_dir).await;
    }
    reply
}

/// One run, for people.
fn describe(run: &BackupRun) -> String {
    let mut text = format!(
        "{:>4}  {}  {} ({})",
        run.run,
        date(run.at_ms as i64),
        count(run.contents, "content", "contents"),
        bytes(run.content_bytes),
    );
    if run.missing > 0 {
        text.push_str(&format!(", {} of them not in it", run.missing));
    }
    text
}
