//! Logs: what each writer has written, as signed and encrypted entries.
//!
//! Every writer has one append-only log in a space, and is its only author. An entry is a header
//! (public: who, which number, after what, under which epoch), a signature of that header, and a
//! sealed body (changes of documents, and the writer's clock when it wrote them). Whoever has the
//! vault's id can check an entry, with keys or without; only who has the epoch's key can read it.
//!
//! What a change means is not known here: it is opaque bytes for one document.

mod body;
mod clock;
mod entry;
#[cfg(test)]
mod tests;

pub use body::{
    BODY_MAX_CHANGES, BODY_MAX_LEN, Body, CHANGE_MAX_LEN, Change, DOCTYPE_MAX_LEN, ID_MAX_LEN,
};
pub use clock::{CLOCK_MAX_LEN, CLOCK_MAX_WRITERS, Clock, Range, Relation};
pub use entry::{
    ENTRY_MAX_BODY_LEN, ENTRY_MAX_LEN, Entry, EntryError, EntryParams, HEADER_MAX_LEN, Header,
    MAX_GRANT_HEADS, open_entry, seal_entry,
};
