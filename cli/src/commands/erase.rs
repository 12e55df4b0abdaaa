//! `coffer erase`.

use clap::Args;
use coffer_node::control::{Answer, ControlError, ErasedCopy, Question, Reply, Request};

use crate::args::Context;
use crate::background;
use crate::conversation::{Listener, converse, needs_answer, prompt, unexpected};
use crate::error::Failure;
use crate::output::{is_interactive, shown};

/// Erase what this device has of the vault, after it was put out
///
/// For a device that was lost, put out of the vault with `coffer device revoke`, and found again. Documents and
/// contents go from the data folder, and coffer ends. Nothing goes while anything here is not known to be on another
/// device. Files in synced folders are yours, and stay.
///
/// Asks for the name of the device; --yes does not answer that.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer erase\n  \
    coffer erase --name laptop --json     without a terminal")]
pub struct Erase {
    /// The name of this device, so that nothing is asked
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

/// Who types the name.
struct Person {
    name: Option<String>,
}

impl Listener for Person {
    fn question(&mut self, context: &Context, question: Question) -> Result<Answer, Failure> {
        let Question::EraseCopy { name, data_dir } = &question else {
            return Err(unexpected());
        };
        if let Some(given) = self.name.take() {
            return Ok(Answer::Name(given));
        }
        let ask = format!("Type the name of this device, {}: ", shown(name));
        if !is_interactive() {
            return Err(needs_answer(&ask));
        }
        context.output.remark(format_args!(
            "What coffer keeps in {} will be erased for good.",
            data_dir.display()
        ));
        Ok(Answer::Name(prompt(&ask)?))
    }
}

impl Erase {
    /// Has the copy erased, and returns when it is gone.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut person = Person { name: self.name };
        let reply = converse(context, &Request::Erase, &mut person).await?;
        let Reply::CopyErased(erased) = &reply else {
            return Err(unexpected());
        };
        background::ended(&context.data_dir).await?;
        if coffer_node::service::has_vault(&context.data_dir) {
            let message = format!(
                "not everything in {} could be erased; `coffer start` tries again, and says why",
                context.data_dir.display()
            );
            return Err(ControlError::conflict(message)
                .with_code("erased-in-part")
                .into());
        }
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        context.output.text(&text(erased))
    }
}

fn text(erased: &ErasedCopy) -> String {
    let mut text = format!("The copy of {} is erased.\n", shown(&erased.name));
    if !erased.folders.is_empty() {
        text.push_str("The files in these folders are still there:\n");
        for folder in &erased.folders {
            text.push_str(&format!("  {}\n", folder.display()));
        }
    }
    text
}
