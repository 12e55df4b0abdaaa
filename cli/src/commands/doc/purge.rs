//! `coffer doc purge`.

use clap::Args;
use coffer_node::control::{Answer, Question, Reply, Request};

use crate::args::Context;
use crate::conversation::{Listener, confirm, converse, needs_answer, prompt, unexpected};
use crate::error::Failure;
use crate::output::{is_interactive, shown};
use crate::units::count;

/// Forget a document for good, on every device
///
/// Unlike `coffer doc delete` it leaves nothing: neither what the document says nor what it ever said. There is no way
/// back, so it asks for the document's id. Each device forgets it as soon as it hears of this, and takes nothing under
/// its type and id any more: a change that is made on another device until then is lost.
///
/// What it cannot do: reach a device that is off until it meets another one again, reach copies outside of the vault
/// (exports, other programs, snapshots of a disk), or take back what was sent before. That stays on devices and hosts
/// and in backups, encrypted as ever, and no command shows it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer doc purge io.cozy.notes diary\n  \
    coffer doc purge io.cozy.notes diary --yes")]
pub struct Purge {
    /// Type of the document
    pub doctype: String,
    /// Its id
    pub id: String,
}

impl Purge {
    /// Purges it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let request = Request::DocPurge {
            doctype: self.doctype,
            id: self.id,
        };
        let reply = converse(context, &request, &mut Typing).await?;
        let Reply::Purged {
            doctype,
            id,
            devices,
            told,
        } = &reply
        else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        context.output.line(format_args!(
            "{}/{} is forgotten on this device, for good",
            shown(doctype),
            shown(id)
        ))?;
        let later = devices.saturating_sub(*told);
        if later > 0 {
            context.output.remark(format!(
                "{} not connected now, and will forget it when one of your devices or hosts is met again.",
                count(later, "other device is", "other devices are")
            ));
        }
        Ok(())
    }
}

/// Has the id typed: a key that was hit too fast forgets nothing.
struct Typing;

impl Listener for Typing {
    fn question(&mut self, context: &Context, question: Question) -> Result<Answer, Failure> {
        let Question::PurgeDocument { doctype, document } = &question else {
            return confirm(context, &question);
        };
        if context.yes {
            return Ok(Answer::Yes);
        }
        let what = format!("{}/{}", shown(doctype), shown(document));
        if !is_interactive() {
            return Err(needs_answer(&format!("Forget {what} for good?")));
        }
        context.output.remark(format!(
            "{what} will be forgotten on all devices, with all that it ever was. Nothing brings it back."
        ));
        let typed = prompt("Type its id to go on: ")?;
        match typed.trim_end_matches(['\r', '\n']) == document {
            true => Ok(Answer::Yes),
            false => Ok(Answer::No),
        }
    }
}
