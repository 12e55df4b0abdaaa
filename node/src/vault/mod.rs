//! The vault: what a person keeps, durably, on this device.
//!
//! [`Core`] is the synchronous heart that the simulation runs too; [`VaultHandle`] is
//! how the node talks to it. `request.rs` says what can be asked, `work.rs`, `local.rs` and `remote.rs` do it inside one
//! transaction, `members.rs` keeps who is in
//! the vault, `named.rs` what counts of those who are out, `founding.rs` makes and opens vaults, `purging.rs` forgets documents for good, `ranges.rs` makes and compares ranges of logs, `dropping.rs` drops what they stand for, `continuity.rs` sees that it was not put back, `identity.rs` keeps the device's own keys, `locked.rs` under a passphrase.

mod batch;
pub mod collect;
pub mod continuity;
pub mod core;
mod dropping;
mod evicting;
pub mod founding;
pub mod handle;
pub mod hosts;
pub mod identity;
mod left;
mod local;
pub mod lock_rule;
pub mod locked;
mod members;
mod mend;
mod named;
mod news;
pub mod past;
pub mod purging;
mod queue;
pub mod ranges;
mod reading;
mod records;
mod remote;
pub mod request;
mod restoring;
mod room;
pub mod rule;
mod size;
pub mod state;
pub mod storage;
#[cfg(test)]
mod tests;
mod work;

pub use self::continuity::Continuity;
pub use self::core::{Admission, Changes, Core, Input, Output};
pub use self::news::{FileChange, FileNews};
pub use handle::{VaultHandle, VaultThread, wall_ms};
pub use members::{Act, Manage};
pub use named::Named;
pub use queue::SessionQueue;
pub use reading::{Wanted, file_state};
pub use request::{
    BrakedFile, CommitError, CommitRequest, Committed, ContentDraft, FolderRow, FolderSetting,
    Left, Operation,
};
pub use work::FILES;
