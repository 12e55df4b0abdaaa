//! `coffer file tag` and `coffer file untag`.

use clap::Args;
use coffer_node::control::{Reply, Request};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::output::shown;
use crate::places::item_in_vault;
use crate::units::short;

/// Keep one of the contents that a file had for ever
///
/// One that is tagged already keeps its label, unless you give another one or --no-label.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer file tag Papers/thesis.odt 3f9c2a handed-in\n  \
    coffer file history Papers/thesis.odt")]
pub struct Tag {
    /// Path in the vault
    pub path: String,
    /// The content, by the beginning of its revision; see `coffer file history`
    #[arg(value_name = "REVISION")]
    pub revision: String,
    /// What to call it
    #[arg(value_name = "LABEL")]
    pub label: Option<String>,
    /// Take its label away, not the tag
    #[arg(long, conflicts_with = "label")]
    pub no_label: bool,
}

/// Take the tag of a content away: it is kept as the rule says
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  coffer file untag Papers/thesis.odt 3f9c2a")]
pub struct Untag {
    /// Path in the vault
    pub path: String,
    /// The content, by the beginning of its revision; see `coffer file history`
    #[arg(value_name = "REVISION")]
    pub revision: String,
}

impl Tag {
    /// Tags it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let path = item_in_vault(&self.path)?;
        let request = Request::FileTag {
            path: path.clone(),
            revision: self.revision,
            label: match self.no_label {
                true => Some(String::new()),
                false => self.label,
            },
        };
        set(context, &path, &request, "is kept for ever").await
    }
}

impl Untag {
    /// Takes the tag away.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let path = item_in_vault(&self.path)?;
        let request = Request::FileUntag {
            path: path.clone(),
            revision: self.revision,
        };
        set(context, &path, &request, "is tagged no longer").await
    }
}

async fn set(context: &Context, path: &str, request: &Request, said: &str) -> Result<(), Failure> {
    let reply = ask(context, request).await?;
    let Reply::FileTagged { revision } = &reply else {
        return Err(unexpected());
    };
    if context.output.is_json() {
        return context.output.reply(&reply);
    }
    context.output.line(format_args!(
        "{} of {} {said}",
        short(&revision.revision),
        shown(path)
    ))
}
