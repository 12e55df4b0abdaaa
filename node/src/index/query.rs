//! Reading from the index.

use rusqlite::types::Value as Sql;
use serde_json::Value;

use super::{Index, IndexError, text};

/// Conditions in one query, at most.
const MAX_CONDITIONS: usize = 32;
/// Levels of a field's name, at most.
const MAX_DEPTH: usize = 16;

/// Holds for documents that are not coffer's own (its hosts, its settings): those are not listed nor counted.
const NOT_OWN: &str = "doctype NOT GLOB 'coffer.*' AND doctype NOT GLOB 'io.coffer.*'";

/// A field that must have a value.
#[derive(Clone, Debug)]
pub struct Condition {
    /// Name of a top-level field, or several joined by dots.
    pub field: String,
    /// A JSON scalar.
    pub value: Value,
}

/// A document that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its type.
    pub doctype: String,
    /// Its id.
    pub id: String,
    /// Its JSON.
    pub value: Value,
}

impl Index {
    /// Documents of a type that meet all conditions and hold all words, ordered by id; at most `limit`.
    ///
    /// # Errors
    /// [`IndexError::Query`] for a condition on something that is no scalar, or too many of them.
    pub fn find(
        &self,
        doctype: &str,
        conditions: &[Condition],
        words: Option<&str>,
        limit: u64,
    ) -> Result<Vec<Found>, IndexError> {
        if conditions.len() > MAX_CONDITIONS {
            return Err(IndexError::Query(format!(
                "a search has at most {MAX_CONDITIONS} conditions"
            )));
        }
        let mut sql = String::from("SELECT doctype, id, json FROM documents WHERE doctype = ?");
        let mut bound: Vec<Sql> = vec![doctype.to_string().into()];
        for condition in conditions {
            let path = json_path(&condition.field)?;
            match &condition.value {
                Value::Null => sql.push_str(" AND json_type(json, ?) = 'null'"),
                Value::Bool(wanted) => {
                    sql.push_str(if *wanted {
                        " AND json_type(json, ?) = 'true'"
                    } else {
                        " AND json_type(json, ?) = 'false'"
                    });
                }
                Value::Number(_) | Value::String(_) => {
                    sql.push_str(" AND json_extract(json, ?) = ?")
                }
                _ => {
                    return Err(IndexError::Query(format!(
                        "the field \"{}\" can be compared with text, a number, true, false or null",
                        condition.field
                    )));
                }
            }
            bound.push(path.into());
            match &condition.value {
                Value::Number(number) => bound.push(match (number.as_i64(), number.as_f64()) {
                    (Some(integer), _) => integer.into(),
                    (None, float) => float.unwrap_or(f64::NAN).into(),
                }),
                Value::String(string) => bound.push(string.clone().into()),
                _ => {}
            }
        }
        if let Some(query) = words.and_then(text::query) {
            sql.push_str(" AND number IN (SELECT rowid FROM words WHERE words MATCH ?)");
            bound.push(query.into());
        }
        sql.push_str(" ORDER BY id LIMIT ?");
        bound.push(i64::try_from(limit).unwrap_or(i64::MAX).into());
        let connection = self.reader()?;
        let mut statement = connection.prepare(&sql)?;
        let rows = statement.query_map(rusqlite::params_from_iter(bound), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?))
        })?;
        rows.map(|row| {
            let (doctype, id, json) = row?;
            let value = serde_json::from_str(&json)
                .map_err(|error| IndexError::Query(error.to_string()))?;
            Ok(Found { doctype, id, value })
        })
        .collect()
    }

    /// Type and id of documents after (`doctype`, `id`), in that order: at most `limit`. Of one type only where `only`
    /// says so; else of all that people know of.
    pub fn list(
        &self,
        only: Option<&str>,
        after: (&str, &str),
        limit: u64,
    ) -> Result<Vec<(String, String)>, IndexError> {
        let connection = self.reader()?;
        let mut statement = connection.prepare(
            &format!("SELECT doctype, id FROM documents WHERE (doctype, id) > (?1, ?2) AND (doctype = ?3 OR ?3 IS NULL AND doctype <> 'io.cozy.files' AND {NOT_OWN}) ORDER BY doctype, id LIMIT ?4"),
        )?;
        let rows = statement.query_map(
            rusqlite::params![
                after.0,
                after.1,
                only,
                i64::try_from(limit).unwrap_or(i64::MAX)
            ],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        rows.map(|row| Ok(row?)).collect()
    }

    /// The JSON of one document as the index has it; `None` where it is deleted or not there.
    pub fn value(&self, doctype: &str, id: &str) -> Result<Option<String>, IndexError> {
        let connection = self.reader()?;
        let mut statement = connection
            .prepare_cached("SELECT json FROM documents WHERE doctype = ?1 AND id = ?2")?;
        let mut rows = statement.query_map([doctype, id], |row| row.get(0))?;
        Ok(rows.next().transpose()?)
    }

    /// How many documents there are that are neither files nor the program's own.
    pub fn count(&self) -> Result<u64, IndexError> {
        let count: i64 = self.reader()?.query_row(
            // In two halves, each a range of the index: there may be very many files between them.
            &format!(
                "SELECT (SELECT count(*) FROM documents WHERE doctype < ?1 AND {NOT_OWN})
                      + (SELECT count(*) FROM documents WHERE doctype > ?1 AND {NOT_OWN})"
            ),
            [crate::vault::FILES],
            |row| row.get(0),
        )?;
        Ok(count as u64)
    }
}

/// SQLite's path for a field name: each part quoted, so that any name is just a name.
fn json_path(field: &str) -> Result<String, IndexError> {
    let parts: Vec<&str> = field.split('.').collect();
    if parts.len() > MAX_DEPTH
        || parts
            .iter()
            .any(|part| part.is_empty() || part.contains('"'))
    {
        return Err(IndexError::Query(format!(
            "\"{field}\" cannot be the name of a field"
        )));
    }
    Ok(parts
        .iter()
        .fold(String::from("$"), |path, part| format!("{path}.\"{part}\"")))
}
