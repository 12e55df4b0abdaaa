//! `coffer recovery`.

pub mod page;
pub mod rehearse;
pub mod renew;
pub mod show;

use std::io::{self, BufRead, IsTerminal, Read};
use std::path::Path;

use clap::Subcommand;
use coffer_node::control::{ControlError, RecoverWith};

use crate::args::Context;
use crate::conversation::prompt;
use crate::error::Failure;
use crate::qr;

/// What the text of a kit begins with.
const KIT: &str = "coffer:kit/";
/// Longest text of a kit, in bytes, and of a file that is looked at for one.
const MAX_TEXT: u64 = 64 * 1024;

/// What can be done with the 24 words.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
    coffer recovery show")]
pub enum Recovery {
    Show(show::Show),
    Renew(renew::Renew),
    Rehearse(rehearse::Rehearse),
}

impl Recovery {
    /// Runs the command.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Recovery::Show(args) => args.run(context).await,
            Recovery::Renew(args) => args.run(context).await,
            Recovery::Rehearse(args) => args.run(context).await,
        }
    }
}

/// The kit: from a picture, from a file or a pipe with its text, or typed. It is never taken from the command line, which
/// other users of the machine can see.
pub fn read_kit(file: Option<&Path>) -> Result<RecoverWith, Failure> {
    match file {
        None => typed(),
        Some(path) if path == Path::new("-") => text(&mut io::stdin().lock()),
        Some(path) => {
            let mut start = [0; KIT.len()];
            let mut file = std::fs::File::open(path).map_err(|error| {
                ControlError::io(format_args!("open {}", path.display()), &error)
            })?;
            let got = file.read(&mut start).unwrap_or(0);
            if start[..got].eq_ignore_ascii_case(KIT.as_bytes()) {
                return text(&mut start.chain(file));
            }
            Ok(RecoverWith::Kit(qr::read(path, is_kit)?))
        }
    }
}

fn is_kit(text: &str) -> bool {
    text.trim()
        .get(..KIT.len())
        .is_some_and(|begin| begin.eq_ignore_ascii_case(KIT))
}

fn text(from: &mut dyn Read) -> Result<RecoverWith, Failure> {
    let mut text = String::new();
    from.take(MAX_TEXT)
        .read_to_string(&mut text)
        .map_err(|error| ControlError::io("read the recovery kit", &error))?;
    let text = text.trim();
    if is_kit(text) {
        return Ok(RecoverWith::Kit(text.to_owned()));
    }
    Err(
        ControlError::usage("this is not the text of a recovery kit")
            .with_code("bad-kit")
            .into(),
    )
}

/// The words, and the vault's id: asked for in a terminal; from a pipe, two lines.
fn typed() -> Result<RecoverWith, Failure> {
    if io::stdin().is_terminal() {
        return Ok(RecoverWith::Words {
            words: prompt("The 24 words: ")?.trim().to_owned(),
            vault: prompt("The vault's id: ")?.trim().to_owned(),
        });
    }
    let mut lines = io::stdin().lock().take(MAX_TEXT).lines();
    let mut line = || -> Result<String, Failure> {
        match lines.next() {
            Some(Ok(line)) => Ok(line.trim().to_owned()),
            _ => Err(ControlError::usage(
                "standard input must have the 24 words on one line and the vault's id on the next",
            )
            .into()),
        }
    };
    Ok(RecoverWith::Words {
        words: line()?,
        vault: line()?,
    })
}
