//! Relay hosts, as a device sees them: which there are, what each is known to keep, and how far each can be trusted.
//!
//! ```text
//! setting.rs   a host as a document of the vault, so that all devices know it
//! memory.rs    what this device remembers of a host's statements, and what troubles it found
//! content.rs   contents by what they are made of: what `at_host_1` notes
//! lot.rs       contents that are brought to a host together, and which of their blobs it has
//! forgery.rs   what no honest host passes on
//! watch.rs     whether a host withholds, and whether it still has what it confirmed
//! ```
//!
//! Nothing here talks: `service/hosts` does, and `vault/hosts.rs` keeps. A host is a device of the vault with the role
//! *relay*; it is *in use* while its document says so.

pub mod content;
pub mod forgery;
pub mod lot;
pub mod memory;
pub mod setting;
pub mod watch;

pub use content::ContentKey;
pub use memory::{Added, Memory, Trouble, TroubleKind};
pub use setting::Setting;

use coffer_protocol::identity::DeviceId;

/// What this device notes of hosts, in a [`CommitRequest`](crate::vault::CommitRequest).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostChange {
    /// The host has confirmed that it keeps these contents.
    Confirmed(DeviceId, Vec<ContentKey>),
    /// What it had confirmed of these counts no more: nothing names them, or it has lost some of their bytes.
    Unconfirmed(DeviceId, Vec<ContentKey>),
    /// This is wrong with the host.
    Trouble(DeviceId, TroubleKind),
    /// It is over with what was wrong with the host.
    Over(DeviceId, TroubleKind),
    /// A person added the host, for the first time or anew: nothing that was known of it counts any more.
    Begins(DeviceId, Added),
    /// All that is known of the host is to be forgotten: it is not used any more.
    Forget(DeviceId),
}
