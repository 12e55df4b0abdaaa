//! Admitting a device, and being admitted.
//!
//! The machines in [`coffer_protocol::pairing`] decide; this carries their bytes, asks the person, and makes what they
//! ask for durable before it is promised: the grant on the inviting side, the vault on the joining one. One invitation
//! is open at a time, and only while the command that opened it is there.

mod inviting;
mod joining;

use coffer_protocol::pairing::PairingError;

use super::Node;
use crate::control::{ControlError, ErrorKind};
use crate::net::Net;

pub use inviting::{Open, answer, invite};
pub use joining::join;
pub(super) use joining::{make_room, read_places};

fn pairing_error(error: PairingError) -> ControlError {
    let (kind, code) = match error {
        PairingError::Expired => (ErrorKind::Expired, "invitation-expired"),
        PairingError::Used => (ErrorKind::Expired, "invitation-used"),
        PairingError::NotHere => (ErrorKind::NotFound, "code-not-found"),
        PairingError::NotInviting => (ErrorKind::Expired, "not-inviting"),
        PairingError::WrongSecret => (ErrorKind::Refused, "wrong-code"),
        PairingError::WrongDevice | PairingError::WrongInviter | PairingError::OtherVault => {
            (ErrorKind::Refused, "wrong-device")
        }
        PairingError::Declined => (ErrorKind::Refused, "declined"),
        PairingError::Withdrawn => (ErrorKind::Cancelled, "withdrawn"),
        PairingError::NoCommonVersion => (ErrorKind::NewerVersion, "other-version"),
        PairingError::Malformed | PairingError::OutOfTurn | PairingError::TooLarge => {
            (ErrorKind::Damaged, "pairing-broken")
        }
        PairingError::Disconnected => (ErrorKind::Unavailable, "connection-lost"),
    };
    ControlError::new(kind, error.to_string()).with_code(code)
}

pub(super) fn network(node: &Node) -> Result<Net, ControlError> {
    node.net()
        .ok_or_else(|| ControlError::unavailable("this node was started without a network"))
}
