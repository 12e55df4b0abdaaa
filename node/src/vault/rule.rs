//! The rule by which earlier contents and the trash are kept: a document of the vault, so that it is the same on every
//! device.
//!
//! People may edit it as any document. What is absent counts as its default; a document that makes no sense counts as
//! none at all, and says so: too much is kept rather than too little where that is the question.

use coffer_crdt::retention::Rule;
use redb::ReadTransaction;
use serde_json::{Value, json};

use crate::index;
use crate::store::StoreError;
use crate::store::documents::{DocumentKey, read_row};

/// Type of the document.
pub const DOCTYPE: &str = "io.coffer.settings";
/// Its id.
pub const ID: &str = "versions";

/// The longest time that the document may name, in seconds: a hundred years.
pub const MAX_S: u64 = 100 * 366 * 24 * 60 * 60;

/// The rule in force, and what is wrong with the document where the defaults stand in for it.
pub fn read(read: &ReadTransaction) -> Result<(Rule, Option<String>), StoreError> {
    let key = DocumentKey::new(DOCTYPE, ID);
    let Some(row) = read_row(read, key)?.filter(|row| !row.deleted) else {
        return Ok((Rule::default(), None));
    };
    let value = index::json(read, key, &row)?.unwrap_or(Value::Null);
    Ok(match from_json(&value) {
        Ok(rule) => (rule, None),
        Err(why) => (Rule::default(), Some(why)),
    })
}

/// The document for a rule.
pub fn to_json(rule: &Rule) -> Value {
    let seconds = |ms: u64| ms / 1000;
    json!({
        "all_s": seconds(rule.all_ms),
        "hourly_s": seconds(rule.hourly_ms),
        "daily_s": seconds(rule.daily_ms),
        "weekly_s": seconds(rule.weekly_ms),
        "trash_s": rule.trash_ms.map(seconds),
        "trash_bytes": rule.trash_bytes,
    })
}

/// Reads a document.
///
/// # Errors
/// What is wrong with it, for a person.
pub fn from_json(value: &Value) -> Result<Rule, String> {
    let fields = value.as_object().ok_or("it is no JSON object")?;
    let number = |name: &str, max: u64| match fields.get(name) {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(value) => match value.as_u64().filter(|number| *number <= max) {
            Some(number) => Ok(Some(Some(number))),
            None => Err(format!("\"{name}\" is not a number from 0 to {max}")),
        },
    };
    let time = |name: &str, default: u64| match number(name, MAX_S)? {
        None => Ok(default),
        Some(Some(seconds)) => Ok(seconds * 1000),
        Some(None) => Err(format!("\"{name}\" is missing its number of seconds")),
    };
    let default = Rule::default();
    Ok(Rule {
        all_ms: time("all_s", default.all_ms)?,
        hourly_ms: time("hourly_s", default.hourly_ms)?,
        daily_ms: time("daily_s", default.daily_ms)?,
        weekly_ms: time("weekly_s", default.weekly_ms)?,
        trash_ms: number("trash_s", MAX_S)?.map_or(default.trash_ms, |seconds| {
            seconds.map(|seconds| seconds * 1000)
        }),
        trash_bytes: number("trash_bytes", u64::MAX)?.unwrap_or(default.trash_bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_rule_returns_from_its_document_and_absent_fields_are_defaults() {
        let rule = Rule {
            all_ms: 5000,
            trash_ms: None,
            trash_bytes: Some(7),
            ..Rule::default()
        };
        assert_eq!(from_json(&to_json(&rule)), Ok(rule));
        assert_eq!(from_json(&json!({})), Ok(Rule::default()));
        assert_eq!(
            from_json(&json!({"trash_s": null, "mine": [1]})).map(|rule| rule.trash_ms),
            Ok(None)
        );
    }

    #[test]
    fn a_document_that_makes_no_sense_is_refused_with_a_reason() {
        for wrong in [
            json!([]),
            json!({"all_s": "a day"}),
            json!({"all_s": -1}),
            json!({"all_s": null}),
            json!({"weekly_s": 1e30}),
            json!({"trash_s": u64::MAX}),
        ] {
            assert!(from_json(&wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn foreign_documents_never_panic(text in "\\{(\"(all_s|trash_s|trash_bytes)\":(null|-?[0-9]{1,25}|\"x\"|\\[\\]),?){0,3}\\}") {
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                let _ = from_json(&value);
            }
        }
    }
}
