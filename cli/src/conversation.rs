//! One request to the node from beginning to end: progress bars while it works, questions put to the person, items
//! handed to the command, the reply at the end.

use std::io::{self, BufRead, IsTerminal, Write};
use std::time::Duration;

use coffer_node::control::{
    Answer, Call, Client, ControlError, ErrorKind, FromNode, Item, Progress, Question, Reply,
    Request, Stage,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::args::Context;
use crate::background;
use crate::error::Failure;
use crate::output::{Output, is_interactive, shown};
use crate::units::{count, number};

/// What a command does with what comes before the reply.
pub trait Listener {
    /// An item arrived.
    fn item(&mut self, item: Item) -> Result<(), Failure> {
        let _ = item;
        Ok(())
    }

    /// The node asks. By default: the question in the terminal, or `--yes`.
    fn question(&mut self, context: &Context, question: Question) -> Result<Answer, Failure> {
        confirm(context, &question)
    }
}

/// For requests that send nothing before their reply but progress and yes-or-no questions.
pub struct Plain;

impl Listener for Plain {}

/// Sends a request to the node (which is started if need be) and gives its reply.
pub async fn ask(context: &Context, request: &Request) -> Result<Reply, Failure> {
    converse(context, request, &mut Plain).await
}

/// The same with a listener.
pub async fn converse(
    context: &Context,
    request: &Request,
    listener: &mut impl Listener,
) -> Result<Reply, Failure> {
    let client = background::connect(context).await?;
    converse_with(client, context, request, listener).await
}

/// The same over a connection made before.
pub async fn converse_with(
    client: Client,
    context: &Context,
    request: &Request,
    listener: &mut impl Listener,
) -> Result<Reply, Failure> {
    let mut call = client.send(request).await?;
    let mut bar = Bar::default();
    let result = carry(&mut call, context, listener, &mut bar).await;
    bar.clear();
    result
}

async fn carry(
    call: &mut Call,
    context: &Context,
    listener: &mut impl Listener,
    bar: &mut Bar,
) -> Result<Reply, Failure> {
    loop {
        match call.next().await? {
            FromNode::Progress(progress) => bar.show(&progress, context.output),
            FromNode::Item(item) => {
                bar.clear();
                listener.item(item)?;
            }
            FromNode::Ask(asked) => {
                bar.clear();
                let answer = listener.question(context, asked.question)?;
                call.answer(asked.id, answer).await?;
            }
            FromNode::Reply(reply) => return Ok(reply),
            FromNode::Error(error) => return Err(error.into()),
        }
    }
}

/// What a request for a list came to.
pub struct Listed {
    /// How many there are.
    pub count: u64,
    /// Whether there are more than were asked for.
    pub more: bool,
}

/// Sends a request for a list and prints its rows as they come: `rows` takes those it knows out of an item, `line` is
/// one of them for people.
pub async fn list<T: Serialize>(
    context: &Context,
    request: &Request,
    rows: fn(Item) -> Option<Vec<T>>,
    line: fn(&T) -> String,
) -> Result<Listed, Failure> {
    let mut printer = Printer {
        output: context.output,
        rows,
        line,
    };
    match converse(context, request, &mut printer).await? {
        Reply::Listed { count, more } => Ok(Listed { count, more }),
        _ => Err(unexpected()),
    }
}

struct Printer<T> {
    output: Output,
    rows: fn(Item) -> Option<Vec<T>>,
    line: fn(&T) -> String,
}

impl<T: Serialize> Listener for Printer<T> {
    fn item(&mut self, item: Item) -> Result<(), Failure> {
        match (self.rows)(item) {
            Some(rows) => self.output.rows(&rows, self.line),
            None => Ok(()),
        }
    }
}

/// A reply of another kind than the request asks for.
pub fn unexpected() -> Failure {
    ControlError::new(
        ErrorKind::NewerVersion,
        "the running coffer answered otherwise than this command expects",
    )
    .with_code("other-version-running")
    .into()
}

/// One bar on standard error, which stays empty when that is no terminal.
#[derive(Default)]
struct Bar {
    shown: Option<(Stage, bool, ProgressBar)>,
}

impl Bar {
    fn show(&mut self, progress: &Progress, output: Output) {
        let counted = progress.total.is_some();
        let is_new = self
            .shown
            .as_ref()
            .is_none_or(|(stage, ..)| *stage != progress.stage);
        if is_new && is_waiting(progress.stage) && !io::stderr().is_terminal() {
            output.remark(format_args!("{} ...", stage_name(progress.stage)));
        }
        if self.shown.as_ref().is_none_or(|(stage, was_counted, _)| {
            (*stage, *was_counted) != (progress.stage, counted)
        }) {
            self.clear();
            self.shown = Some((progress.stage, counted, new_bar(progress.stage, counted)));
        }
        if let Some((_, _, bar)) = &self.shown {
            if let Some(total) = progress.total {
                bar.set_length(total);
            }
            bar.set_position(progress.done);
            bar.set_message(shown(progress.about.as_deref().unwrap_or_default()).into_owned());
        }
    }

    fn clear(&mut self) {
        if let Some((_, _, bar)) = self.shown.take() {
            bar.finish_and_clear();
        }
    }
}

fn new_bar(stage: Stage, counted: bool) -> ProgressBar {
    let amounts = match (stage, counted) {
        (Stage::Reading | Stage::Fetching | Stage::Writing, true) => {
            "{bar:24} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} {wide_msg}"
        }
        (Stage::Reading | Stage::Fetching | Stage::Writing, false) => {
            "{spinner} {decimal_bytes} {decimal_bytes_per_sec} {wide_msg}"
        }
        (Stage::Scanning | Stage::Documents | Stage::Receiving | Stage::Checking, true) => {
            "{bar:24} {human_pos}/{human_len} {eta} {wide_msg}"
        }
        (Stage::Scanning | Stage::Documents | Stage::Receiving | Stage::Checking, false) => {
            "{spinner} {human_pos} {wide_msg}"
        }
        (Stage::Saving | Stage::Looking | Stage::Connecting | Stage::WaitingForPerson, _) => {
            "{spinner} {wide_msg}"
        }
    };
    // The templates are constants; one that does not parse would show the default bar.
    let style = ProgressStyle::with_template(&format!("{} {amounts}", stage_name(stage)));
    let bar =
        ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// Whether a stage may take long without anything to count: where no bar is shown, a line says that it has begun.
fn is_waiting(stage: Stage) -> bool {
    matches!(
        stage,
        Stage::Looking | Stage::Connecting | Stage::WaitingForPerson
    )
}

fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Scanning => "looking through",
        Stage::Reading => "reading",
        Stage::Fetching => "getting from other devices",
        Stage::Writing => "writing",
        Stage::Documents => "documents",
        Stage::Saving => "saving",
        Stage::Looking => "looking for the other device",
        Stage::Connecting => "connecting",
        Stage::WaitingForPerson => "waiting for the answer on the other device",
        Stage::Receiving => "receiving",
        Stage::Checking => "checking",
    }
}

/// Puts a yes-or-no question. `Refused` where nobody can answer and nothing was answered beforehand.
pub fn confirm(context: &Context, question: &Question) -> Result<Answer, Failure> {
    let (about, ask) = words(question);
    if !about.is_empty() && !context.output.is_json() {
        context.output.remark(&about);
    }
    if context.yes {
        return Ok(Answer::Yes);
    }
    if !is_interactive() {
        return Err(needs_answer(&ask));
    }
    loop {
        let typed = prompt(&format!("{ask} [y/N] "))?;
        match typed.trim().to_lowercase().as_str() {
            "y" | "yes" => return Ok(Answer::Yes),
            "" | "n" | "no" => return Ok(Answer::No),
            _ => {}
        }
    }
}

/// The failure of a question that nobody can answer.
pub fn needs_answer(question: &str) -> Failure {
    let message = format!("a question needs an answer: {question}");
    ControlError::new(ErrorKind::Refused, message)
        .with_code("needs-answer")
        .into()
}

/// Asks for a line on the terminal. `Cancelled` at the end of input.
pub fn prompt(question: &str) -> Result<String, Failure> {
    let mut err = io::stderr().lock();
    let _ = write!(err, "{question}").and_then(|()| err.flush());
    let mut line = String::new();
    match io::stdin().lock().read_line(&mut line) {
        Ok(0) => Err(ControlError::new(ErrorKind::Cancelled, "no answer was given").into()),
        Ok(_) => Ok(line),
        Err(error) => Err(ControlError::io("read the answer", &error).into()),
    }
}

/// What to tell first, and the question itself.
fn words(question: &Question) -> (String, String) {
    match question {
        Question::AdmitDevice { name, .. } => (
            String::new(),
            format!("Let the device \"{}\" into your vault?", shown(name)),
        ),
        Question::RemoveHost { name, files } => (
            format!(
                "{} {} not on this device, nor known to be kept anywhere but on the host \"{}\", which will erase them.",
                count(*files, "file", "files"),
                if *files == 1 { "is" } else { "are" },
                shown(name)
            ),
            "Remove the host all the same?".to_owned(),
        ),
        Question::LeaveDevices { name, devices } => (
            format!(
                "Not heard of since another host was added, and looking for your devices at \"{}\" only: {}. Let them come there once before it goes; else they have to meet one of your devices directly.",
                shown(name),
                shown(&devices.join(", "))
            ),
            "Remove the host all the same?".to_owned(),
        ),
        Question::RemoveFolder { dir, files } => (
            format!(
                "{} is not there, or much of it is gone: what only it had of {} cannot be copied into the vault now. Connect its disk, or say what happened with `coffer folder undo` or `coffer folder confirm`.",
                dir.display(),
                count(*files, "file", "files"),
            ),
            "Remove the folder all the same?".to_owned(),
        ),
        Question::ReplaceEmptyVault => (
            "This device has started a vault of its own, with nothing in it yet.".to_owned(),
            "Leave it, and join the other vault?".to_owned(),
        ),
        Question::MergeFolder(merge) => {
            let mut about = format!(
                "{} is not empty. Compared with \"{}\" in the vault:\n  {:>9} the same\n  {:>9} new here, will be added to the vault\n  {:>9} new in the vault, will be written here\n  {:>9} different on both sides: both are kept",
                merge.dir.display(),
                shown(if merge.to.is_empty() { "/" } else { &merge.to }),
                number(merge.same),
                number(merge.new_here),
                number(merge.new_there),
                number(merge.conflicting),
            );
            for example in &merge.examples {
                about.push_str(&format!("\n            {}", shown(example)));
            }
            about.push_str("\nNothing is deleted.");
            (about, "Keep this folder in sync?".to_owned())
        }
        Question::RevokeDevice { name, device } => (
            format!(
                "{} ({}) will be put out of the vault for good.",
                shown(name),
                crate::units::short(device)
            ),
            "Revoke it?".to_owned(),
        ),
        Question::EmptyTrash { files, bytes } => (
            format!(
                "{} ({}) will be deleted for good, on all devices.",
                count(*files, "file", "files"),
                crate::units::bytes(*bytes)
            ),
            "Delete?".to_owned(),
        ),
        Question::EraseCopy { name, .. } => (
            String::new(),
            format!("type the name of this device, {}", shown(name)),
        ),
        Question::PurgeDocument { doctype, document } => (
            String::new(),
            format!("Forget {}/{} for good?", shown(doctype), shown(document)),
        ),
        Question::Passphrase { .. } => (String::new(), "which passphrase?".to_owned()),
        Question::RecoveryWords { positions, .. } => (
            String::new(),
            format!(
                "type {} of the words",
                count(positions.len() as u64, "one", "")
            ),
        ),
    }
}
