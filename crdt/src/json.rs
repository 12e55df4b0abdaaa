//! JSON and Automerge values: how one reads as the other, and what JSON a document may hold.
//!
//! | JSON | Automerge |
//! |---|---|
//! | null, true, false | `Null`, `Boolean` |
//! | integer | `Int`, or `Uint` above `i64::MAX` |
//! | other number | `F64` |
//! | string | `Str`; `Text` where [`Texts`] declares it |
//! | object, array | `Map`, `List` |
//!
//! A document read by JSON that holds other Automerge values (written by other programs) shows counters and
//! timestamps as integers, bytes as lower-case hexadecimal, a table as an object, anything else as null.

use automerge::{ScalarValue, ScalarValueRef};
use serde_json::{Map, Number, Value};

use crate::document::DocumentError;

/// Deepest nesting of objects and arrays in a document. Deeper JSON is refused; deeper places of a foreign document
/// read as null, so that no reader's stack depends on what a peer wrote.
pub const MAX_DEPTH: usize = 64;

/// Longest text that is kept character by character; a longer one is one value, the later writer wins.
pub const MAX_TEXT_CHARS: usize = 250_000;

/// The fields of a document that are text into which several people may type at once.
///
/// What is declared here is decided by the type of the document or by the caller, never by the length of a string.
/// Once a field has become text it stays text, declared or not, until something else than a string is put there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts(Vec<Vec<String>>);

impl Texts {
    /// No field is text.
    pub fn none() -> Texts {
        Texts::default()
    }

    /// The fields that a document type declares as text.
    pub fn for_doctype(doctype: &str) -> Texts {
        match doctype {
            "io.cozy.notes" => Texts::none().with("/content"),
            "io.cozy.contacts" => Texts::none().with("/note"),
            _ => Texts::none(),
        }
    }

    /// Adds the field at a JSON pointer (RFC 6901); the segment `*` stands for every key or index.
    #[must_use]
    pub fn with(mut self, pointer: &str) -> Texts {
        let segments = pointer
            .split('/')
            .skip(1)
            .map(|segment| segment.replace("~1", "/").replace("~0", "~"));
        self.0.push(segments.collect());
        self
    }

    /// Whether nothing is declared.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn has(&self, path: &[String]) -> bool {
        let matches = |declared: &Vec<String>| {
            declared.len() == path.len()
                && declared
                    .iter()
                    .zip(path)
                    .all(|(want, at)| want == "*" || want == at)
        };
        self.0.iter().any(matches)
    }

    /// Whether this string, at this place, is kept character by character.
    pub(crate) fn takes(&self, path: &[String], text: &str) -> bool {
        self.has(path) && fits_text(text)
    }
}

pub(crate) fn fits_text(text: &str) -> bool {
    text.len() <= MAX_TEXT_CHARS || text.chars().count() <= MAX_TEXT_CHARS
}

/// What a document may hold: an object, with no reserved key at the top, nested to at most [`MAX_DEPTH`].
pub(crate) fn checked(value: &Value) -> Result<&Map<String, Value>, DocumentError> {
    let fields = value.as_object().ok_or(DocumentError::NotAnObject)?;
    if let Some(key) = fields.keys().find(|key| is_reserved(key)) {
        return Err(DocumentError::ReservedKey(key.clone()));
    }
    if too_deep(value, MAX_DEPTH) {
        return Err(DocumentError::TooDeep);
    }
    Ok(fields)
}

/// Keys that start with `_` at the top belong to the interface above (`_id`, `_rev`, `_type`, `_deleted`).
pub(crate) fn is_reserved(key: &str) -> bool {
    key.starts_with('_')
}

fn too_deep(value: &Value, left: usize) -> bool {
    match value {
        Value::Object(fields) => {
            left == 0 || fields.values().any(|inner| too_deep(inner, left - 1))
        }
        Value::Array(items) => left == 0 || items.iter().any(|inner| too_deep(inner, left - 1)),
        _ => false,
    }
}

/// The keys of an object in order: Automerge's bytes must not depend on how serde_json was built.
pub(crate) fn sorted(fields: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = fields.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    entries
}

/// The scalar for a JSON value; `None` for objects and arrays.
pub(crate) fn to_scalar(value: &Value) -> Option<ScalarValue> {
    Some(match value {
        Value::Null => ScalarValue::Null,
        Value::Bool(flag) => ScalarValue::Boolean(*flag),
        Value::Number(number) => number_to_scalar(number),
        Value::String(text) => ScalarValue::Str(text.as_str().into()),
        Value::Array(_) | Value::Object(_) => return None,
    })
}

fn number_to_scalar(number: &Number) -> ScalarValue {
    if let Some(int) = number.as_i64() {
        ScalarValue::Int(int)
    } else if let Some(uint) = number.as_u64() {
        ScalarValue::Uint(uint)
    } else {
        number.as_f64().map_or(ScalarValue::Null, ScalarValue::F64)
    }
}

/// How a scalar reads as JSON.
pub(crate) fn from_scalar(scalar: ScalarValueRef<'_>) -> Value {
    match scalar {
        ScalarValueRef::Str(text) => Value::String(text.into_owned()),
        ScalarValueRef::Int(int)
        | ScalarValueRef::Counter(int)
        | ScalarValueRef::Timestamp(int) => int.into(),
        ScalarValueRef::Uint(uint) => uint.into(),
        ScalarValueRef::F64(float) => Number::from_f64(float).map_or(Value::Null, Value::Number),
        ScalarValueRef::Boolean(flag) => flag.into(),
        ScalarValueRef::Bytes(bytes) => hex::encode(bytes).into(),
        ScalarValueRef::Null | ScalarValueRef::Unknown { .. } => Value::Null,
    }
}

/// How an owned scalar reads as JSON.
pub(crate) fn from_owned_scalar(scalar: ScalarValue) -> Value {
    match scalar {
        ScalarValue::Str(text) => Value::String(text.as_str().to_owned()),
        ScalarValue::Bytes(bytes) => hex::encode(bytes).into(),
        ScalarValue::Int(int) | ScalarValue::Timestamp(int) => int.into(),
        ScalarValue::Counter(counter) => i64::from(&counter).into(),
        ScalarValue::Uint(uint) => uint.into(),
        ScalarValue::F64(float) => Number::from_f64(float).map_or(Value::Null, Value::Number),
        ScalarValue::Boolean(flag) => flag.into(),
        ScalarValue::Null | ScalarValue::Unknown { .. } => Value::Null,
    }
}

/// JSON merge patch (RFC 7396), with `target` an object to start with.
pub(crate) fn merge_patch(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, change) in patch {
        match change {
            Value::Null => {
                target.remove(key);
            }
            Value::Object(inner) => {
                let slot = target
                    .entry(key.clone())
                    .or_insert_with(|| Value::Object(Map::new()));
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                if let Value::Object(fields) = slot {
                    merge_patch(fields, inner);
                }
            }
            other => {
                target.insert(key.clone(), other.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merge_patch_follows_the_examples_of_rfc_7396() {
        let cases = [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (
                json!({"a":"b","b":"c"}),
                json!({"a":null}),
                json!({"b":"c"}),
            ),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (
                json!({"a":{"b":"c"}}),
                json!({"a":{"b":"d","c":null}}),
                json!({"a":{"b":"d"}}),
            ),
            (
                json!({}),
                json!({"a":{"bb":{"ccc":null}}}),
                json!({"a":{"bb":{}}}),
            ),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
        ];
        for (mut target, patch, expected) in cases {
            if let (Value::Object(target), Value::Object(patch)) = (&mut target, &patch) {
                merge_patch(target, patch);
            }
            assert_eq!(target, expected);
        }
    }

    #[test]
    fn text_pointers_match_whole_paths_and_stars() {
        let texts = Texts::none().with("/content").with("/lines/*/a~1b");
        let path = |parts: &[&str]| {
            parts
                .iter()
                .map(|part| part.to_string())
                .collect::<Vec<_>>()
        };
        assert!(texts.has(&path(&["content"])));
        assert!(texts.has(&path(&["lines", "3", "a/b"])));
        assert!(!texts.has(&path(&["content", "x"])));
        assert!(!texts.has(&path(&[])));
    }

    #[test]
    fn what_a_document_may_not_hold_is_refused() {
        assert!(matches!(
            checked(&json!([1])),
            Err(DocumentError::NotAnObject)
        ));
        assert!(matches!(
            checked(&json!({"_rev": 1})),
            Err(DocumentError::ReservedKey(_))
        ));
        assert!(checked(&json!({"a": {"_rev": 1}})).is_ok());
        let nested = (0..MAX_DEPTH).fold(json!(1), |inner, _| json!([inner]));
        assert!(matches!(
            checked(&json!({"a": nested})),
            Err(DocumentError::TooDeep)
        ));
    }
}
