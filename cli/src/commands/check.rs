//! `coffer check`.

use std::fmt::Write;

use clap::Args;
use coffer_node::control::{CheckReport, ControlError, ErrorKind, Reply, Request};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::output::shown;
use crate::units::{bytes, count, number};

/// Read everything that this device keeps, and repair what has gone bad
///
/// All contents, documents and records of changes are read and compared with what they must be. Damaged contents are
/// fetched again from another device that is connected, damaged documents are put together again. Files in folders that
/// have just been changed are left out. While coffer runs it does the same by itself, a little each hour, so that all is
/// seen once a month; `coffer status` tells what it found and could not repair.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  coffer check\n  coffer check --json | jq .damaged\n\n\
    Exit code 15 where something is damaged still."
)]
pub struct Check {}

impl Check {
    /// Checks, prints what was found, and fails where something is damaged still.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let reply = ask(context, &Request::Check).await?;
        let Reply::Checked(report) = &reply else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            context.output.reply(&reply)?;
        } else {
            context.output.text(&describe(report))?;
        }
        if report.damaged_count == 0 {
            return Ok(());
        }
        let what = count(report.damaged_count, "thing is", "things are");
        let error = ControlError::new(
            ErrorKind::Damaged,
            format!("{what} damaged and could not be repaired"),
        );
        Err(error.with_code("still-damaged").into())
    }
}

fn describe(report: &CheckReport) -> String {
    let mut text = format!(
        "read {} of contents ({}), {} and {}\n",
        count(report.pieces, "piece", "pieces"),
        bytes(report.bytes),
        count(report.documents, "document", "documents"),
        count(report.records, "record of changes", "records of changes"),
    );
    if report.in_use > 0 {
        let pieces = count(report.in_use, "piece is", "pieces are");
        let _ = writeln!(
            text,
            "left out: {pieces} in files that have just been changed"
        );
    }
    if report.repaired > 0 {
        let _ = writeln!(text, "damaged and repaired: {}", number(report.repaired));
    }
    for damage in &report.damaged {
        let _ = writeln!(
            text,
            "damaged: {}: {}",
            shown(&damage.name),
            shown(&damage.text)
        );
    }
    let unnamed = report
        .damaged_count
        .saturating_sub(report.damaged.len() as u64);
    if unnamed > 0 {
        let _ = writeln!(text, "and {} more", number(unnamed));
    }
    if report.damaged_count == 0 {
        text.push_str("nothing is damaged\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use coffer_node::control::{Damage, DamageKind};

    use super::*;

    #[test]
    fn a_report_reads_as_a_page() {
        let mut report = CheckReport {
            pieces: 1200,
            bytes: 3_000_000,
            in_use: 1,
            documents: 40,
            records: 1,
            repaired: 2,
            damaged: vec![Damage {
                kind: DamageKind::File,
                name: "Photos/a.jpg".into(),
                text: "bytes of it are damaged here".into(),
            }],
            damaged_count: 3,
        };
        assert_eq!(
            describe(&report),
            "read 1,200 pieces of contents (3.0 MB), 40 documents and 1 record of changes\n\
             left out: 1 piece is in files that have just been changed\n\
             damaged and repaired: 2\n\
             damaged: Photos/a.jpg: bytes of it are damaged here\n\
             and 2 more\n"
        );
        report = CheckReport::default();
        assert!(describe(&report).ends_with("nothing is damaged\n"));
    }
}
