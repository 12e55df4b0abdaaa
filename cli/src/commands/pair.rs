//! `coffer pair`: invite a device, by QR code, link, picture or typed code.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use coffer_node::control::{Answer, ControlError, Item, Question, Reply, Request};
use serde_json::json;

use crate::args::Context;
use crate::conversation::{Listener, confirm, converse, unexpected};
use crate::error::Failure;
use crate::output::shown;
use crate::places::absolute;
use crate::qr::Qr;
use crate::units::{duration, now_ms};

/// Name of the picture in the data folder.
const PICTURE: &str = "pairing.png";

/// Add a device to your vault
///
/// Shows a QR code, the same as a link and as a picture, and a short code to type; run `coffer join` with one of them
/// on the other computer. Then it shows the name of the device that wants in, and asks. Each invitation lets in one
/// device. There is no program for phones yet: both devices are computers that run coffer.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer pair\n  \
    coffer pair --png code.png             keep the picture, to send it over\n  \
    coffer pair --accept                   for scripts: let in whoever has the link\n  \
    coffer pair --accept desktop --json    let in only a device that calls itself \"desktop\"\n\n\
    On the other computer:\n  \
    coffer join LINK\n  \
    coffer join code.png\n  \
    coffer join CODE --at 192.168.1.20:4100")]
pub struct Pair {
    /// Let the device in without asking; with a name, only a device of that name
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = false, default_missing_value = "")]
    pub accept: Option<String>,
    /// How long the invitation is valid, an hour at most; seconds as 90s
    #[arg(long, value_name = "MINUTES", value_parser = valid_for)]
    pub valid_for: Option<u64>,
    /// Where to save the picture; by default in the data folder, and removed afterwards
    #[arg(long, value_name = "FILE")]
    pub png: Option<PathBuf>,
    /// Do not draw the QR code
    #[arg(long)]
    pub no_qr: bool,
}

/// Minutes, or seconds with an `s`, as seconds.
fn valid_for(typed: &str) -> Result<u64, String> {
    let (number, unit) = match typed.strip_suffix('s') {
        Some(seconds) => (seconds, 1),
        None => (typed.strip_suffix('m').unwrap_or(typed), 60),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .filter(|seconds| (1..=3600).contains(seconds))
        .ok_or_else(|| "give minutes from 1 to 60, or seconds as 90s".to_owned())
}

struct Inviter<'a> {
    context: &'a Context,
    accept: Option<String>,
    draw: bool,
    picture: PathBuf,
}

impl Pair {
    /// Invites one device and waits for it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        check_answerable(context, self.accept.as_deref())?;
        let keep = self.png.is_some();
        let picture = match &self.png {
            Some(path) => absolute(path)?,
            None => context.data_dir.join(PICTURE),
        };
        let request = Request::Pair {
            valid_for_s: self.valid_for,
        };
        let mut inviter = Inviter {
            context,
            accept: self.accept,
            draw: !self.no_qr,
            picture,
        };
        let result = converse(context, &request, &mut inviter).await;
        if !keep {
            let _ = std::fs::remove_file(&inviter.picture);
        }
        let Reply::Paired { device } = result? else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.object(&json!({ "paired": device }));
        }
        context.output.line(format_args!(
            "\"{}\" is now a device of your vault.",
            shown(&device.name)
        ))
    }
}

impl Listener for Inviter<'_> {
    fn item(&mut self, item: Item) -> Result<(), Failure> {
        let Item::Invitation {
            link,
            code,
            expires_ms,
            code_expires_ms,
            addresses,
        } = item
        else {
            return Ok(());
        };
        let qr = Qr::new(&link)?;
        qr.save_png(&self.picture)?;
        let output = self.context.output;
        if output.is_json() {
            return output.object(&json!({ "invitation": {
                "link": link, "code": code, "expires_ms": expires_ms, "code_expires_ms": code_expires_ms,
                "addresses": addresses, "png": self.picture,
            }}));
        }
        let mut text = String::new();
        if self.draw {
            text.push_str(&drawn(&qr));
        }
        let valid = |until_ms: u64| duration(until_ms.saturating_sub(now_ms()).div_ceil(1000));
        text.push_str(&format!(
            "\nOn the other computer, within {}, run one of:\n\n  coffer join {link}\n\n  coffer join {}      (this picture, copied over)\n",
            valid(expires_ms),
            crate::places::quoted(&self.picture),
        ));
        if let Some(code) = code {
            text.push_str(&format!(
                "\n  coffer join {code}      (within {}",
                valid(code_expires_ms)
            ));
            match addresses.first() {
                Some(address) => text.push_str(&format!(
                    "; in another network add --at {})\n",
                    shown(address.split('/').next().unwrap_or(address))
                )),
                None => text.push_str(")\n"),
            }
        }
        text.push_str("\nThere is no program for phones yet. Waiting for the other computer; Ctrl-C takes the invitation back.\n");
        output.text(&text)
    }

    fn question(&mut self, context: &Context, question: Question) -> Result<Answer, Failure> {
        let (Question::AdmitDevice { name, .. }, Some(accept)) = (&question, &self.accept) else {
            return confirm(context, &question);
        };
        context
            .output
            .remark(format_args!("\"{}\" wants in.", shown(name)));
        if accept.is_empty() || accept == name {
            Ok(Answer::Yes)
        } else {
            context.output.remark(format_args!(
                "Not let in: only a device called \"{accept}\" is."
            ));
            Ok(Answer::No)
        }
    }
}

/// The drawing, or why there is none.
fn drawn(qr: &Qr) -> String {
    let terminal = io::stdout().is_terminal();
    let columns = if terminal { columns() } else { None };
    match columns {
        Some(columns) if columns < qr.columns() => {
            format!(
                "(The QR code needs a window of {} columns; this one has {columns}.)\n",
                qr.columns()
            )
        }
        _ => qr.draw(terminal),
    }
}

/// Width of the terminal, where it is known.
fn columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// The failure of an invitation that nobody can answer for: told before it is made, not when the device stands waiting.
fn check_answerable(context: &Context, accept: Option<&str>) -> Result<(), Failure> {
    if accept.is_none() && !context.yes && !crate::output::is_interactive() {
        return Err(ControlError::usage("nobody is here to let the device in")
            .with_code("needs-answer")
            .into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::valid_for;

    #[test]
    fn validity_is_minutes_or_seconds_up_to_an_hour() {
        for (typed, seconds) in [
            ("1", 60),
            ("60", 3600),
            ("5m", 300),
            ("1s", 1),
            ("3600s", 3600),
        ] {
            assert_eq!(valid_for(typed), Ok(seconds), "{typed}");
        }
        for bad in [
            "0",
            "61",
            "0s",
            "3601s",
            "",
            "s",
            "m",
            "1h",
            "-1",
            "99999999999999999999",
        ] {
            assert!(valid_for(bad).is_err(), "{bad}");
        }
    }
}
