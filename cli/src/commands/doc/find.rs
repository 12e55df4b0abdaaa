//! `coffer doc find`.

use clap::Args;
use coffer_node::control::{ControlError, DocumentRow, Request, Where};
use serde_json::Value;

use super::documents;
use crate::args::Context;
use crate::conversation::list;
use crate::error::Failure;
use crate::output::shown;

/// Find documents by what is in them
///
/// All conditions must hold. VALUE is JSON where it reads as JSON, else text. Prints one document a line.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer doc find io.cozy.contacts --where address.city=Porto\n  \
    coffer doc find io.cozy.notes --text 'tax return'\n  \
    coffer doc find io.cozy.bills --where paid=false --json")]
pub struct Find {
    /// Type of the documents
    pub doctype: String,
    /// A field and the value that it must have, may be given several times
    #[arg(long = "where", value_name = "FIELD=VALUE")]
    pub filters: Vec<String>,
    /// Words that must all be in the document
    #[arg(long, value_name = "WORDS")]
    pub text: Option<String>,
    /// Print no more than so many
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    pub limit: u64,
}

impl Find {
    /// Prints what is found.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let filters = self
            .filters
            .iter()
            .map(|text| filter(text))
            .collect::<Result<_, _>>()?;
        let request = Request::DocFind {
            doctype: self.doctype,
            filters,
            text: self.text,
            limit: self.limit,
        };
        if list(context, &request, documents, line).await?.more {
            context.output.remark(format_args!(
                "There are more than {}; see --limit.",
                self.limit
            ));
        }
        Ok(())
    }
}

fn line(row: &DocumentRow) -> String {
    let value = row.value.as_ref().map(ToString::to_string);
    format!("{}  {}\n", shown(&row.id), value.unwrap_or_default())
}

fn filter(text: &str) -> Result<Where, Failure> {
    let (field, typed) = text
        .split_once('=')
        .filter(|(field, _)| !field.is_empty())
        .ok_or_else(|| {
            ControlError::usage(format!("`{text}` is no condition; give it as FIELD=VALUE"))
        })?;
    let value = serde_json::from_str(typed).unwrap_or_else(|_| Value::String(typed.to_owned()));
    if value.is_object() || value.is_array() {
        return Err(ControlError::usage(format!(
            "`{field}` can be compared with one value only, not a list or object"
        ))
        .into());
    }
    Ok(Where {
        field: field.to_owned(),
        value,
    })
}
