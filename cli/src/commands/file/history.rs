//! `coffer file history`.

use clap::Args;
use coffer_node::control::{FileRevision, KeptAs, Reply, Request};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::output::shown;
use crate::places::item_in_vault;
use crate::units::{bytes, date, short};

/// List the contents that a file had, latest first
///
/// With each: when it was recorded, on which device, its size, until when it is kept (see `coffer versions show`), and
/// where it is if not here.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer file history Papers/letter.pdf\n  \
    coffer file get Papers/letter.pdf --at REVISION old.pdf\n  \
    coffer file tag Papers/letter.pdf REVISION as-sent")]
pub struct History {
    /// Path in the vault
    pub path: String,
}

impl History {
    /// Prints a line a content.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let path = item_in_vault(&self.path)?;
        let Reply::FileRevisions { revisions } =
            ask(context, &Request::FileHistory { path }).await?
        else {
            return Err(unexpected());
        };
        context.output.rows(&revisions, line)
    }
}

/// Where a content is that is not here.
fn elsewhere(revision: &FileRevision) -> String {
    let quoted = |name: &str| format!("\"{}\"", shown(name));
    let on = revision.on.iter().map(|holder| {
        let state = match (holder.connected, holder.paused) {
            (false, _) => ", not connected",
            (true, true) => ", paused there",
            (true, false) => "",
        };
        format!("{}{state}", quoted(&holder.name))
    });
    let on: Vec<String> = on.collect();
    let perhaps: Vec<String> = revision
        .perhaps_on
        .iter()
        .map(|name| quoted(name))
        .collect();
    match (revision.content.here, &on[..], &perhaps[..]) {
        (true, ..) => String::new(),
        (_, [], []) => "  (on no device)".into(),
        (_, [], perhaps) => format!(
            "  (perhaps on {}, which cannot be asked now)",
            perhaps.join(", ")
        ),
        (_, on, _) => format!("  (on {})", on.join("; ")),
    }
}

fn line(revision: &FileRevision) -> String {
    let elsewhere = elsewhere(revision);
    let kept = match (revision.kept, revision.kept_until_ms) {
        (KeptAs::Present, _) => "present".to_owned(),
        (KeptAs::Tagged, _) => "tagged".to_owned(),
        (KeptAs::Until, Some(until)) => {
            format!("until {}", date(i64::try_from(until).unwrap_or(i64::MAX)))
        }
        _ => "not kept".to_owned(),
    };
    let tag = match &revision.tag {
        Some(tag) if !tag.is_empty() => format!("  \"{}\"", shown(tag)),
        _ => String::new(),
    };
    format!(
        "{}  {}  {:<16} {:>9}  {kept}{tag}{elsewhere}\n",
        short(&revision.revision),
        date(revision.at_ms),
        shown(&revision.device),
        bytes(revision.content.size)
    )
}
