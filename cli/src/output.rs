//! Results, to standard output; everything else goes to standard error. A reader that has gone is no panic.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use coffer_node::control::{ControlError, Reply};
use serde::Serialize;
use serde_json::Value;

use crate::error::{Failure, output_failure};

/// Where results go, and in which form.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    /// For people, or as JSON.
    pub fn new(json: bool) -> Self {
        Output { json }
    }

    /// Whether JSON was asked for.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// A line of text.
    pub fn line(self, text: impl Display) -> Result<(), Failure> {
        self.text(&format!("{text}\n"))
    }

    /// Text of several lines, in one piece.
    pub fn text(self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|error| output_failure(&error))
    }

    /// Any bytes: a file's content.
    pub fn bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        io::stdout()
            .lock()
            .write_all(bytes)
            .map_err(|error| output_failure(&error))
    }

    /// One JSON object on a line.
    pub fn object(self, value: &impl Serialize) -> Result<(), Failure> {
        self.objects([value])
    }

    /// JSON objects, one a line, written in one piece.
    pub fn objects<'a, T: Serialize + 'a>(
        self,
        values: impl IntoIterator<Item = &'a T>,
    ) -> Result<(), Failure> {
        let mut text = Vec::new();
        for value in values {
            serde_json::to_writer(&mut text, value).map_err(|error| {
                ControlError::internal(format!("cannot print this as JSON: {error}"))
            })?;
            text.push(b'\n');
        }
        let mut out = io::stdout().lock();
        out.write_all(&text)
            .and_then(|()| out.flush())
            .map_err(|error| output_failure(&error))
    }

    /// Rows of a list: each as the line that `line` makes of it (its end included), or as a JSON object.
    pub fn rows<T: Serialize>(
        self,
        rows: &[T],
        line: impl Fn(&T) -> String,
    ) -> Result<(), Failure> {
        if self.json {
            self.objects(rows)
        } else {
            self.text(&rows.iter().map(line).collect::<String>())
        }
    }

    /// A reply as one JSON object, without the name of the reply.
    pub fn reply(self, reply: &Reply) -> Result<(), Failure> {
        self.object(&without_name(reply, None)?)
    }

    /// The same, with a field of this program's own.
    pub fn reply_with(
        self,
        reply: &Reply,
        name: &str,
        field: impl Into<Value>,
    ) -> Result<(), Failure> {
        self.object(&without_name(reply, Some((name, field.into())))?)
    }

    /// A remark for people, to standard error; nothing with `--json`.
    pub fn remark(self, text: impl Display) {
        if !self.json {
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }
}

fn without_name(reply: &Reply, more: Option<(&str, Value)>) -> Result<Value, Failure> {
    let mut value = serde_json::to_value(reply)
        .map_err(|error| ControlError::internal(format!("cannot print this as JSON: {error}")))?;
    if let Value::Object(fields) = &mut value {
        fields.remove("reply");
        fields.extend(more.map(|(name, field)| (name.to_owned(), field)));
    }
    Ok(value)
}

/// Whether a person sits at both ends: can read what is printed and type an answer.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal() && (io::stdout().is_terminal() || io::stderr().is_terminal())
}

/// Names come from other devices and other people's files: no control character of theirs reaches the terminal.
pub fn shown(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let safe = text
        .chars()
        .flat_map(|c| -> Box<dyn Iterator<Item = char>> {
            if is_unsafe(c) {
                Box::new(c.escape_unicode())
            } else {
                Box::new(std::iter::once(c))
            }
        });
    Cow::Owned(safe.collect())
}

/// Control characters, and those that turn the direction of writing around.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_drive_the_terminal() {
        assert_eq!(shown("Notes für Ana 🦉"), "Notes für Ana 🦉");
        assert_eq!(shown("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb\\u{a}c");
        assert_eq!(shown("exe\u{202e}gpj"), "exe\\u{202e}gpj");
    }
}
