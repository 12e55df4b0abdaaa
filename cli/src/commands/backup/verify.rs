//! `coffer backup verify`.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use coffer_node::control::{BackupRun, BackupVerified, ControlError, ErrorKind, Reply, Request};

use super::{WithKit, ask_anyone, describe};
use crate::args::Context;
use crate::conversation::unexpected;
use crate::error::Failure;
use crate::output::shown;
use crate::places::absolute;
use crate::units::{bytes, count, number};

/// Read all of a backup: is every byte as it was written, and is everything there?
///
/// On a device of the same vault, or with the recovery kit, it is also opened: whether all documents can be put together
/// and every file is there whole. Without, all that can be told from outside is checked. Nothing is changed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer backup verify /media/ann/stick/coffer\n  \
    coffer backup verify /media/ann/stick/coffer --kit kit.png\n\n\
    Exit code 15 where something is damaged or missing.")]
pub struct Verify {
    /// The folder
    #[arg(value_name = "FOLDER")]
    pub dir: PathBuf,
    /// With what to open it.
    #[command(flatten)]
    pub with: WithKit,
}

impl Verify {
    /// Reads it, and fails where something is wrong.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let request = Request::BackupVerify {
            dir: absolute(&self.dir)?,
            with: self.with.read()?,
        };
        let reply = ask_anyone(context, &request).await?;
        let Reply::BackupVerified(found) = &reply else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            context.output.reply(&reply)?;
        } else {
            context.output.text(&page(found))?;
        }
        let wrong = wrong(found);
        if wrong == 0 {
            return Ok(());
        }
        let message = format!(
            "{} wrong with the backup",
            count(wrong, "thing is", "things are")
        );
        let error = ControlError::new(ErrorKind::Damaged, message);
        Err(error.with_code("damaged-backup").into())
    }
}

/// How much is wrong. What the last run said to be missing is not.
fn wrong(found: &BackupVerified) -> u64 {
    let left_out = |run: &BackupRun| run.missing + run.missing_earlier;
    let expected = found.last.as_ref().map_or(0, left_out);
    let inside = found.inside.as_ref().map_or(0, |inside| {
        inside.unread_changes + inside.missing.saturating_sub(expected)
    });
    found.flaws.len() as u64 + inside
}

fn page(found: &BackupVerified) -> String {
    let mut text = format!(
        "read {}: {} and {} of contents\n",
        bytes(found.bytes),
        count(found.changes, "change", "changes"),
        count(found.pieces, "piece", "pieces"),
    );
    match &found.last {
        Some(run) => {
            let _ = writeln!(text, "last backup:{}", describe(run));
        }
        None => text.push_str("no backup in it came to its end: run `coffer backup` again\n"),
    }
    match &found.inside {
        Some(inside) => {
            let _ = writeln!(
                text,
                "opened: {} of files are there whole",
                count(inside.contents, "content", "contents"),
            );
            if inside.missing > 0 {
                let _ = writeln!(text, "not there: {}", number(inside.missing));
            }
            for file in &inside.missing_files {
                let _ = writeln!(text, "not there: {}", shown(file));
            }
            if inside.unread_changes > 0 {
                let changes = count(inside.unread_changes, "change", "changes");
                let _ = writeln!(text, "cannot be read: {changes}");
            }
        }
        None => text
            .push_str("not opened: this device is not of its vault; --kit or --words opens it\n"),
    }
    for flaw in &found.flaws {
        let at = flaw.at.map_or(String::new(), |at| format!(" at byte {at}"));
        let _ = writeln!(
            text,
            "wrong: {}{at}: {}",
            shown(&flaw.file),
            shown(&flaw.what)
        );
    }
    if wrong(found) == 0 {
        text.push_str("nothing is wrong with it\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_node::control::{BackupFlaw, BackupInside};

    #[test]
    fn what_the_run_left_out_is_not_wrong_and_what_else_is_missing_is() {
        let run = BackupRun {
            run: 3,
            at_ms: 0,
            device: "aa".into(),
            contents: 5,
            content_bytes: 2000,
            missing: 1,
            missing_bytes: 10,
            missing_earlier: 0,
        };
        let mut found = BackupVerified {
            dir: "/b".into(),
            vault: "cc".into(),
            last: Some(run),
            bytes: 3000,
            pieces: 7,
            changes: 2,
            flaws: Vec::new(),
            inside: Some(BackupInside {
                contents: 4,
                missing: 1,
                ..BackupInside::default()
            }),
        };
        assert_eq!(wrong(&found), 0);
        assert!(page(&found).ends_with("nothing is wrong with it\n"));
        found.flaws.push(BackupFlaw {
            file: "DATA/00000001.CBD".into(),
            at: Some(52),
            what: "what begins here is not as it was written".into(),
        });
        assert_eq!(wrong(&found), 1);
        let text = page(&found);
        assert!(
            text.contains("wrong: DATA/00000001.CBD at byte 52: "),
            "{text}"
        );
    }
}
