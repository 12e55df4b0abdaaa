//! Where a passphrase comes from: typed in a terminal that does not show it, a file, or standard input. Never an argument
//! or a variable of the environment, which other programs can see.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};

use coffer_node::control::{Answer, ControlError, ErrorKind, MAX_PASSPHRASE, Passphrase, Question};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};
use zeroize::Zeroizing;

use crate::args::Context;
use crate::conversation::{Listener, confirm, needs_answer};
use crate::error::Failure;
use crate::output::is_interactive;

/// Answers a node's questions for passphrases.
#[derive(Debug, Default)]
pub struct Answers {
    /// Where the present one is; the terminal if absent.
    pub present: Option<PathBuf>,
    /// Where the new one is.
    pub new: Option<PathBuf>,
}

impl Listener for Answers {
    fn question(&mut self, context: &Context, question: Question) -> Result<Answer, Failure> {
        let Question::Passphrase { new } = question else {
            return confirm(context, &question);
        };
        let source = if new { &self.new } else { &self.present };
        let typed = match source {
            Some(path) => read(path)?,
            None if new => choose()?,
            None => ask("Passphrase: ")?,
        };
        Ok(Answer::Passphrase(typed))
    }
}

/// Reads the first line of a file, or of standard input for `-`.
pub fn read(path: &Path) -> Result<Passphrase, Failure> {
    let line = if path == Path::new("-") {
        read_line(&mut io::stdin().lock())
    } else {
        File::open(path).and_then(|file| {
            if shown_to_others(&file) {
                let _ = writeln!(
                    io::stderr(),
                    "other users of this computer can read {}",
                    path.display()
                );
            }
            read_line(&mut io::BufReader::new(file))
        })
    };
    let failed = |error| {
        ControlError::io(
            format_args!("read the passphrase in {}", path.display()),
            &error,
        )
    };
    checked(line.map_err(failed)?)
}

/// Asks for it in the terminal.
///
/// # Errors
/// [`ErrorKind::Refused`] without a terminal, [`ErrorKind::Cancelled`] when the person gives up.
pub fn ask(question: &str) -> Result<Passphrase, Failure> {
    if !is_interactive() {
        return Err(needs_answer("which passphrase?"));
    }
    checked(type_hidden(question)?)
}

/// Asks for it in the terminal; none where nothing is typed.
pub fn ask_or_none(question: &str) -> Result<Option<Passphrase>, Failure> {
    let typed = type_hidden(question)?;
    if typed.is_empty() {
        return Ok(None);
    }
    checked(typed).map(Some)
}

/// Asks for a new one, twice.
fn choose() -> Result<Passphrase, Failure> {
    let first = ask("New passphrase: ")?;
    let second = ask("Again: ")?;
    if first != second {
        let message = "the two passphrases are not the same";
        return Err(ControlError::new(ErrorKind::Refused, message)
            .with_code("not-the-same")
            .into());
    }
    Ok(first)
}

/// The bytes up to the line's end, as text.
fn checked(mut bytes: Zeroizing<Vec<u8>>) -> Result<Passphrase, Failure> {
    while matches!(bytes.last(), Some(b'\n' | b'\r')) {
        bytes.pop();
    }
    let usage =
        |message: &str| Failure::from(ControlError::usage(message).with_code("bad-passphrase"));
    if bytes.len() > MAX_PASSPHRASE {
        return Err(usage("the passphrase is too long"));
    }
    if bytes.is_empty() {
        return Err(usage("the passphrase is empty"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| usage("the passphrase is no text"))?;
    let mut own = Zeroizing::new(String::with_capacity(text.len()));
    own.push_str(text);
    Ok(Passphrase::new(own))
}

/// One line, in a buffer that never grows: growing would leave a copy behind.
fn read_line(input: &mut impl BufRead) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_PASSPHRASE + 2));
    input
        .take(MAX_PASSPHRASE as u64 + 2)
        .read_until(b'\n', &mut line)?;
    Ok(line)
}

fn shown_to_others(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    file.metadata()
        .is_ok_and(|about| about.is_file() && about.mode() & 0o004 != 0)
}

/// A terminal that shows nothing of what is typed, until dropped.
struct Hidden {
    terminal: File,
    before: Termios,
}

impl Hidden {
    fn open() -> io::Result<Hidden> {
        let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
        let before = tcgetattr(&terminal)?;
        let mut hidden = before.clone();
        // Ctrl-C comes as a character: ended by a signal, the terminal would go on showing nothing.
        hidden.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        hidden.special_codes[SpecialCodeIndex::VMIN] = 1;
        hidden.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&terminal, OptionalActions::Flush, &hidden)?;
        Ok(Hidden { terminal, before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
    }
}

fn type_hidden(question: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let typed = Hidden::open().and_then(|mut hidden| {
        hidden.terminal.write_all(question.as_bytes())?;
        let typed = take_keys(&mut hidden.terminal);
        hidden.terminal.write_all(b"\n")?;
        typed
    });
    match typed {
        Ok(Some(line)) => Ok(line),
        Ok(None) => Err(ControlError::new(ErrorKind::Cancelled, "no answer was given").into()),
        Err(error) => Err(ControlError::io("read the passphrase", &error).into()),
    }
}

/// What is typed up to Enter; none where it is given up by Ctrl-C, or Ctrl-D on an empty line.
fn take_keys(input: &mut impl Read) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    const CTRL_C: u8 = 0x03;
    const CTRL_D: u8 = 0x04;
    const BACKSPACE: u8 = 0x08;
    const CTRL_U: u8 = 0x15;
    const DELETE: u8 = 0x7f;
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_PASSPHRASE + 1));
    let mut byte = Zeroizing::new([0; 1]);
    loop {
        if input.read(&mut byte[..])? == 0 {
            return Ok(None);
        }
        match byte[0] {
            b'\n' | b'\r' => return Ok(Some(line)),
            CTRL_C => return Ok(None),
            CTRL_D if line.is_empty() => return Ok(None),
            CTRL_U => line.clear(),
            BACKSPACE | DELETE => {
                // A character of several bytes goes whole.
                while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            byte if line.len() <= MAX_PASSPHRASE => line.push(byte),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &str) -> Option<String> {
        let line = take_keys(&mut keys.as_bytes()).unwrap()?;
        Some(String::from_utf8(line.to_vec()).unwrap())
    }

    #[test]
    fn what_is_typed_can_be_corrected_and_given_up() {
        assert_eq!(typed("open sesame\n").as_deref(), Some("open sesame"));
        assert_eq!(typed("opem\u{7f}n\r").as_deref(), Some("open"));
        assert_eq!(typed("né\u{8}o\n").as_deref(), Some("no"));
        assert_eq!(typed("wrong\u{15}right\n").as_deref(), Some("right"));
        assert_eq!(typed("\u{7f}\u{7f}a\n").as_deref(), Some("a"));
        assert_eq!(typed("ope\u{3}n\n"), None);
        assert_eq!(typed("\u{4}"), None);
        assert_eq!(typed("no end"), None);
    }

    #[test]
    fn the_first_line_counts_and_must_be_text() {
        let read = |bytes: &[u8]| {
            let mut input = bytes;
            checked(read_line(&mut input).unwrap()).map(|passphrase| passphrase.text().to_owned())
        };
        assert_eq!(
            read(b"open sesame\r\nmore").ok().as_deref(),
            Some("open sesame")
        );
        assert_eq!(
            read(b" with blanks ").ok().as_deref(),
            Some(" with blanks ")
        );
        assert!(read(b"\n").is_err());
        assert!(read(b"").is_err());
        assert!(read(&[0xff, 0xfe]).is_err());
        assert!(read(&[b'a'; MAX_PASSPHRASE + 10]).is_err());
        assert!(read(&[b'a'; MAX_PASSPHRASE]).is_ok());
    }
}
