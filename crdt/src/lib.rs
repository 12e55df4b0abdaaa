//! What data means in coffer: documents, the JSON they read as, the file tree, merge rules and history.
//!
//! A **document** is one Automerge document per (doctype, id). Every document starts from the same empty genesis, so
//! two devices that create the same one offline merge field by field. This crate does no I/O and owns no clock and
//! no source of randomness: times (milliseconds since 1970, UTC) and actors come in as arguments.
//!
//! ```text
//! document.rs   one document in memory: put, merge_fields, delete, apply, json
//! json.rs       JSON <-> Automerge, value by value; what JSON a document may hold
//! read.rs       the merged reading of concurrent values
//! write.rs      the smallest set of operations from old JSON to new; diff.rs finds it in lists and texts
//! rebase.rs     the difference to an earlier state, carried over to the present one
//! history.rs    what changed, when, by whom
//! fast.rs       a first change built and read without a document in memory
//! change.rs     one change as bytes: what it says of itself, and the guard around foreign bytes
//! retention.rs  which of a file's contents are kept, and what of the trash is overdue
//! files.rs, chunks.rs, tree/   files and folders as documents
//! ```
//!
//! Bytes that come from elsewhere (a change from a peer, a saved base from disk) are never trusted: sizes are
//! capped before anything is parsed, and Automerge runs behind a guard that turns a panic into an error.

pub mod change;
pub mod chunks;
mod diff;
pub mod document;
pub mod fast;
pub mod files;
pub mod history;
pub mod json;
mod read;
mod rebase;
pub mod retention;
pub mod tree;
mod write;

pub use automerge::ScalarValue;
pub use change::{Actor, ChangeError, ChangeHash, ChangeInfo, NewChange, inspect};
pub use document::{Applied, Document, DocumentError};
pub use fast::{first_change, first_change_scalars, read_first, read_first_scalars};
pub use history::Revision;
pub use json::Texts;
pub use read::Conflict;
