//! What devices and relay hosts say to each other beside replication, and the rules of hosts.
//!
//! A relay host keeps what the devices of a vault send it and passes it on; it holds no key. It is
//! admitted by a grant like any device, with the role [`Relay`](crate::grants::Role::Relay).
//!
//! - [`HostInvitation`] is what `coffer relay invite` prints on the host, and a person carries to a device.
//! - [`DeviceSide`] and [`HostSide`] bind the vault to the host with it, and later tell the host of devices
//!   that it has not heard of. No I/O: messages and the time go in, steps come out.
//! - Entries travel by [`replication`](crate::replication), which devices open to hosts and never hosts to
//!   devices; there the host says what it durably has in a [`HostStatement`].
//! - Blobs are left with a host by [`Request`]s and got by the batch GET of [`blobs`](crate::blobs).
//! - [`EraseOrder`] and [`EraseReceipt`] end it.
//! - [`freeing`] decides when a host may forget a blob, [`quota`] what it still takes, [`freshness`] what its
//!   statements give away about it.
//!
//! Layouts and the reasons are in `docs/protocol/relay.md`.

mod erase;
pub mod freeing;
pub mod freshness;
mod invitation;
mod joining;
mod message;
pub mod quota;
mod statement;
#[cfg(test)]
mod tests;

pub use erase::{EraseError, EraseOrder, EraseReceipt, SignedOrder, SignedReceipt};
pub use invitation::{
    HOST_LINK_LIFETIME_MS, HOST_NAME_MAX_LEN, HostInvitation, HostLinkError, MAX_HOST_ADDRESSES,
};
pub use joining::{
    BindError, DeviceSide, DeviceStep, Host, HostSide, HostStep, JOIN_TIMEOUT_MS, JoinError,
    MAX_BIND, MAX_JOIN_MESSAGE, Standing, check_binding,
};
pub use message::{
    Answer, Bitmap, MAX_ANSWER, MAX_HAVE, MAX_LIST, MAX_PUT, MAX_PUT_BYTES, MAX_RANGE, MAX_RELEASE,
    MAX_REQUEST, PutHeader, RangeBytes, Refusal, Request,
};
pub use statement::{HOST_STATEMENT_MAX_LEN, HostState, HostStatement, HostStatementError};
