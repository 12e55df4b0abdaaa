//! `coffer doc edit`.

use std::path::PathBuf;

use clap::Args;
use coffer_node::control::{ControlError, LinesMode, Request};
use serde_json::{Map, Value};

use super::lines::Lines;
use super::{json_object, pointers, say_written};
use crate::args::Context;
use crate::conversation::ask;
use crate::error::Failure;

/// Change single fields of a document
///
/// FIELD=VALUE sets a field; VALUE is JSON where it reads as JSON, else text. Dots lead into objects: address.city=Porto.
/// With --merge a JSON merge patch (RFC 7396) is applied, where null removes a field. Many at once: --lines takes one
/// JSON object a line, {"doctype":...,"id":...,"value":{patch}}, with "base":"REVISION" where that is known; from standard input (-) each line is acknowledged with a
/// line, in order, once it is safe on the disk.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer doc edit io.cozy.contacts ana phone=555-0100 favourite=true\n  \
    coffer doc edit io.cozy.contacts ana --unset phone\n  \
    coffer doc edit io.cozy.contacts ana --merge '{\"address\": {\"city\": \"Porto\"}}'\n  \
    coffer doc edit io.cozy.notes today --base 3f9c2a content='Typed into that revision'\n  \
    my-script | coffer doc edit --lines -")]
pub struct Edit {
    /// Type of the document
    #[arg(required_unless_present = "lines")]
    pub doctype: Option<String>,
    /// Its id
    #[arg(required_unless_present = "lines")]
    pub id: Option<String>,
    /// Fields to set
    #[arg(value_name = "FIELD=VALUE")]
    pub fields: Vec<String>,
    /// Remove a field, may be given several times
    #[arg(long, value_name = "FIELD")]
    pub unset: Vec<String>,
    /// A JSON merge patch; - for standard input
    #[arg(long, value_name = "JSON", conflicts_with_all = ["fields", "unset"])]
    pub merge: Option<String>,
    /// Many edits, from a file or - for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["doctype", "id", "fields", "unset", "merge"])]
    pub lines: Option<PathBuf>,
    /// Create the document if there is none
    #[arg(long)]
    pub create: bool,
    /// The revision that you had read: what other devices wrote since then stays
    #[arg(long, value_name = "REVISION", conflicts_with = "lines")]
    pub base: Option<String>,
    /// A field that is text which several people may type into at once, may be given several times
    #[arg(long, value_name = "FIELD")]
    pub text: Vec<String>,
}

impl Edit {
    /// Edits one document or many.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let texts = pointers(&self.text);
        if let Some(from) = self.lines {
            return Lines {
                from,
                mode: LinesMode::Edit,
                texts,
                create: self.create,
            }
            .run(context)
            .await;
        }
        let (Some(doctype), Some(id)) = (self.doctype, self.id) else {
            return Err(ControlError::usage("name a document").into());
        };
        let patch = match self.merge {
            Some(merge) => json_object(&merge)?,
            None if self.fields.is_empty() && self.unset.is_empty() => {
                return Err(ControlError::usage(
                    "name a field to change: FIELD=VALUE, --unset or --merge",
                )
                .into());
            }
            None => patch(&self.fields, &self.unset)?,
        };
        let request = Request::DocEdit {
            doctype,
            id,
            patch,
            texts,
            base: self.base,
            create: self.create,
        };
        say_written(context, &ask(context, &request).await?, "changed")
    }
}

/// The merge patch that sets and removes these fields.
fn patch(fields: &[String], unset: &[String]) -> Result<Value, Failure> {
    let mut patch = Map::new();
    for field in fields {
        let (name, typed) = field.split_once('=').ok_or_else(|| {
            ControlError::usage(format!("`{field}` has no `=`; give it as FIELD=VALUE"))
        })?;
        let value = serde_json::from_str(typed).unwrap_or_else(|_| Value::String(typed.to_owned()));
        set(&mut patch, name, value)?;
    }
    for name in unset {
        set(&mut patch, name, Value::Null)?;
    }
    Ok(Value::Object(patch))
}

/// Puts a value at a dotted name.
fn set(patch: &mut Map<String, Value>, name: &str, value: Value) -> Result<(), Failure> {
    let bad = || {
        Failure::from(ControlError::usage(format!(
            "`{name}` is no name of a field, or is given twice"
        )))
    };
    let mut at = patch;
    let mut parts = name.split('.').peekable();
    while let Some(part) = parts.next() {
        if part.is_empty() {
            return Err(bad());
        }
        if parts.peek().is_none() {
            return if at.insert(part.to_owned(), value).is_none() {
                Ok(())
            } else {
                Err(bad())
            };
        }
        let inner = at.entry(part).or_insert_with(|| Value::Object(Map::new()));
        at = inner.as_object_mut().ok_or_else(bad)?;
    }
    Err(bad())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(fields: &[&str], unset: &[&str]) -> Result<Value, ()> {
        let owned = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>()
        };
        patch(&owned(fields), &owned(unset)).map_err(|_| ())
    }

    #[test]
    fn fields_become_a_merge_patch() {
        let expected = json!({ "n": 1, "s": "one", "t": "a=b", "e": "", "q": "1", "o": { "x": true, "y": [1] }, "gone": null });
        let fields = [
            "n=1", "s=one", "t=a=b", "e=", "q=\"1\"", "o.x=true", "o.y=[1]",
        ];
        assert_eq!(patched(&fields, &["gone"]), Ok(expected));
        for bad in [
            &["a"][..],
            &["=1"],
            &["a.=1"],
            &["a=1", "a=2"],
            &["a=1", "a.b=2"],
            &[".=1"],
        ] {
            assert_eq!(patched(bad, &[]), Err(()), "{bad:?}");
        }
    }
}
