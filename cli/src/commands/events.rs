//! `coffer events`.

use clap::Args;
use coffer_node::control::{Item, Request};

use crate::args::Context;
use crate::conversation::{Listener, converse};
use crate::error::Failure;
use crate::output::Output;

/// Print what changes, as it changes: one JSON object a line, until Ctrl-C
///
/// The first line is {"event":"listening"}: everything after it is told. Kinds: document, file, conflict (arose,
/// or settled), brake (a folder rests, or goes on), device, membership (a device
/// was let in, put out or given another role), sync, missed (so many were not told because the reader was too slow). Pass over kinds that you do not know.
///
/// Of a file, "here" tells whether its content is on this device then, and "made_here" whether the change was made on this device.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer events\n  \
    coffer events --doctype io.cozy.notes --values\n  \
    coffer events | jq 'select(.event == \"file\")'")]
pub struct Events {
    /// Documents of this type only
    #[arg(long, value_name = "DOCTYPE")]
    pub doctype: Option<String>,
    /// Tell the new content of a changed document as well
    #[arg(long)]
    pub values: bool,
}

struct Printer(Output);

impl Listener for Printer {
    fn item(&mut self, item: Item) -> Result<(), Failure> {
        match item {
            Item::Event(event) => self.0.object(&event),
            _ => Ok(()),
        }
    }
}

impl Events {
    /// Prints events until the node or the reader ends.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let request = Request::Events {
            doctype: self.doctype,
            values: self.values,
        };
        converse(context, &request, &mut Printer(context.output)).await?;
        Ok(())
    }
}
