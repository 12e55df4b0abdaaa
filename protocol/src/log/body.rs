//! What an entry says, once opened.

use serde::{Deserialize, Serialize};

use super::Clock;
use crate::codec::{Bytes, List, Text};

/// Bytes of the longest encoded body, decompressed.
pub const BODY_MAX_LEN: usize = 16 << 20;
/// Changes that one entry may carry; with their bookkeeping some 8 MiB of memory.
pub const BODY_MAX_CHANGES: usize = 65_536;
/// Bytes of one change.
pub const CHANGE_MAX_LEN: usize = 1 << 20;
/// Bytes of a document type such as `io.cozy.bank.operations`.
pub const DOCTYPE_MAX_LEN: usize = 128;
/// Bytes of a document's id.
pub const ID_MAX_LEN: usize = 256;

/// One change of one document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The document's type, at most [`DOCTYPE_MAX_LEN`] bytes.
    #[serde(with = "Text::<DOCTYPE_MAX_LEN>")]
    pub doctype: String,
    /// The document's id within its type, at most [`ID_MAX_LEN`] bytes.
    #[serde(with = "Text::<ID_MAX_LEN>")]
    pub id: String,
    /// The change itself, at most [`CHANGE_MAX_LEN`] bytes. Opaque here.
    #[serde(with = "Bytes::<CHANGE_MAX_LEN>")]
    pub bytes: Vec<u8>,
}

impl Change {
    /// Whether every part is within its bound.
    pub(super) fn is_bounded(&self) -> bool {
        self.doctype.len() <= DOCTYPE_MAX_LEN
            && self.id.len() <= ID_MAX_LEN
            && self.bytes.len() <= CHANGE_MAX_LEN
    }
}

/// A batch of changes by one writer, and how far it had got in every log when it wrote them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// The writer's clock. It gates nothing: what waits for what is decided change by change.
    pub clock: Clock,
    /// The changes, in the order in which they were made.
    #[serde(with = "List::<BODY_MAX_CHANGES>")]
    pub changes: Vec<Change>,
}
