//! `coffer doc put`.

use std::path::PathBuf;

use clap::Args;
use coffer_node::control::{LinesMode, Request};

use super::lines::Lines;
use super::{json_object, pointers, say_written};
use crate::args::Context;
use crate::conversation::ask;
use crate::error::Failure;

/// Write a document, whole
///
/// Creates it, or makes the one that is there equal to what is given: only what differs is written, so that changes of
/// other devices to other fields stay. Many at once: --lines takes one JSON object a line,
/// {"doctype":...,"id":...,"value":{...}}, with "base":"REVISION" where that is known; from a file it shows progress and a summary, from standard input (-) it
/// acknowledges each line with a line, in order, once it is safe on the disk.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer doc put io.cozy.contacts ana '{\"fullname\": \"Ana Lima\"}'\n  \
    coffer doc put io.cozy.notes today - < note.json\n  \
    coffer doc put io.cozy.notes today --base 3f9c2a - < edited.json     made from that revision\n  \
    coffer doc put --lines contacts.jsonl")]
pub struct Put {
    /// Type of the document, such as io.cozy.contacts
    #[arg(required_unless_present = "lines")]
    pub doctype: Option<String>,
    /// Its id
    #[arg(required_unless_present = "lines")]
    pub id: Option<String>,
    /// The document, a JSON object; - (or nothing) for standard input
    #[arg(value_name = "JSON", default_value = "-")]
    pub value: String,
    /// Many documents, from a file or - for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["doctype", "id"])]
    pub lines: Option<PathBuf>,
    /// The revision that you had read: what other devices wrote since then stays
    #[arg(long, value_name = "REVISION", conflicts_with = "lines")]
    pub base: Option<String>,
    /// A field that is text which several people may type into at once, may be given several times
    #[arg(long, value_name = "FIELD")]
    pub text: Vec<String>,
}

impl Put {
    /// Writes one document or many.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let texts = pointers(&self.text);
        match (self.lines, self.doctype, self.id) {
            (None, Some(doctype), Some(id)) => {
                let request = Request::DocPut {
                    doctype,
                    id,
                    value: json_object(&self.value)?,
                    texts,
                    base: self.base,
                };
                say_written(context, &ask(context, &request).await?, "written")
            }
            (from, _, _) => {
                let from = from.unwrap_or_else(|| PathBuf::from("-"));
                Lines {
                    from,
                    mode: LinesMode::Put,
                    texts,
                    create: true,
                }
                .run(context)
                .await
            }
        }
    }
}
