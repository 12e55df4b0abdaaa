//! The words of a document, for search.

use serde_json::Value;

/// Characters of one document that are searched, at most: a document is not a book.
const MAX_TEXT: usize = 256 * 1024;

/// All strings of a document, joined by spaces.
pub fn words(value: &Value) -> String {
    let mut text = String::new();
    gather(value, &mut text);
    text
}

fn gather(value: &Value, text: &mut String) {
    match value {
        Value::String(string) if text.len() + string.len() < MAX_TEXT => {
            text.push_str(string);
            text.push(' ');
        }
        Value::Array(items) => items.iter().for_each(|item| gather(item, text)),
        Value::Object(fields) => fields.values().for_each(|field| gather(field, text)),
        _ => {}
    }
}

/// A search as a person types it, as an FTS5 query: every word must occur, the last may be a beginning.
///
/// Each word is quoted, so that nothing a person types is taken as FTS5's own language.
pub fn query(typed: &str) -> Option<String> {
    let words: Vec<String> = typed
        .split_whitespace()
        .map(|word| format!("\"{}\"", word.replace('"', "\"\"")))
        .collect();
    (!words.is_empty()).then(|| format!("{}*", words.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_string_of_a_document_is_searched() {
        let value = serde_json::json!({"name": "Ada", "tags": ["x", {"deep": "Lovelace"}], "n": 3});
        assert_eq!(
            words(&value).split_whitespace().collect::<Vec<_>>(),
            ["Ada", "x", "Lovelace"]
        );
    }

    #[test]
    fn what_a_person_types_is_never_query_language() {
        assert_eq!(query("a OR \"b").unwrap(), r#""a" "OR" """b"*"#);
        assert_eq!(query("  "), None);
    }
}
