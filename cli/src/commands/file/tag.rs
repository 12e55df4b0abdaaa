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
    #[arg(value_name = "LABEL", default_value = "")]
    pub label: String,
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
        let said = "is kept for ever";
        set(context, &self.path, self.revision, Some(self.label), said).await
    }
}

impl Untag {
    /// Takes the tag away.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        set(
            context,
            &self.path,
            self.revision,
            None,
            "is tagged no longer",
        )
        .await
    }
}

async fn set(
    context: &Context,
    path: &str,
    revision: String,
    label: Option<String>,
    said: &str,
) -> Result<(), Failure> {
    let path = item_in_vault(path)?;
    let request = Request::FileTag {
        path: path.clone(),
        revision,
        label,
    };
    let reply = ask(context, &request).await?;
    let Reply::FileTagged { revision } = &reply else {
        return Err(unexpected());
    };
    if context.output.is_json() {
        return context.output.reply(&reply);
    }
    context.output.line(format_args!(
        "{} of {} {said}",
        short(&revision.revision),
        shown(&path)
    ))
}
