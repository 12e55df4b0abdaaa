//! What requests about documents say and answer.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ControlError;

/// What the lines of a [`super::Request::DocLines`] do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinesMode {
    /// `value` becomes the whole document, as [`super::Request::DocPut`].
    Put,
    /// `value` is a merge patch, as [`super::Request::DocEdit`].
    Edit,
}

/// One line of a [`super::Request::DocLines`]: one document.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct DocLine {
    /// Document type.
    pub doctype: String,
    /// Document id.
    pub id: String,
    /// The JSON object or the merge patch.
    pub value: Value,
    /// The revision that `value` was made from, as in [`super::Request::DocPut`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
}

/// A condition of [`super::Request::DocFind`]: the field equals the value.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Where {
    /// Name of a top-level field, or several joined by dots.
    pub field: String,
    /// A JSON scalar.
    pub value: Value,
}

/// One document in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DocumentRow {
    /// Document type.
    pub doctype: String,
    /// Document id.
    pub id: String,
    /// Its JSON, where the request asks for values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

/// One document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DocumentReply {
    /// Document type.
    pub doctype: String,
    /// Document id.
    pub id: String,
    /// The revision (several, joined by `+`, where devices changed it apart and both changes count).
    pub revision: String,
    /// Whether it is deleted at this revision (`value` is then its last state).
    pub deleted: bool,
    /// Its JSON object.
    pub value: Value,
    /// Fields (JSON pointers) where devices wrote different values apart; `value` shows the same winner everywhere.
    pub conflicts: Vec<String>,
}

/// One earlier state of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// What `doc get --at` takes.
    pub revision: String,
    /// When, by the clock of the device that wrote it.
    pub at_ms: i64,
    /// Name of the device that wrote it, its short id where the name is not known.
    pub device: String,
    /// Whether it deleted the document.
    pub deleted: bool,
    /// Top-level fields that it touched.
    pub fields: Vec<String>,
}

/// The acknowledgement of one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Document type, as in the line.
    pub doctype: String,
    /// Document id, as in the line.
    pub id: String,
    /// What became of it.
    #[serde(flatten)]
    pub result: AckResult,
}

/// What became of one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AckResult {
    /// Durable, and this is the new revision; `None` when nothing was different.
    Revision(Option<String>),
    /// Refused; the lines after it go on.
    Error(ControlError),
}
