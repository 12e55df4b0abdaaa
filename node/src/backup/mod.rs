//! A backup: a folder with all that a vault's hosts hold of it, as ciphertext, in files that lie still.
//!
//! ```text
//! folder.rs    names of its files, the header and the text for people
//! piece.rs     one data file: records one after the other, and what is in it at its end
//! run.rs       what a run of `coffer backup` says and signs: when, how far, which data files there are
//! archive.rs   the folder, opened: where each record lies
//! writing.rs   a run: adds what is new, makes room, says that it is over
//! verify.rs    what can be said of it without a key of the vault
//! ```
//!
//! The folder may lie on a disk that is pulled out at any time and whose file system knows neither links nor modes. So a
//! file is written under another name, made durable, and gets its own; then it is never changed again. What a run had
//! made durable before it was torn stays, and the next one goes on from there. Nothing but the data files is needed to
//! read it: their lists are rebuilt from the records where they are damaged.
//!
//! This room knows records and files. What goes in, what is named and what comes out decides `service/backup`.
//! docs/storage/backup.md has the format.

mod archive;
mod error;
mod folder;
mod piece;
mod run;
#[cfg(test)]
mod tests;
mod verify;
mod writing;

pub use archive::{Archive, Kept};
pub use error::ArchiveError;
pub use run::{Lists, Run};
pub use verify::{Flaw, Outside};
pub use writing::{Added, Writer};
