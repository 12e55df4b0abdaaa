//! Admitting a new device: by link or QR code, or by a code that a person types.
//!
//! The shell has an encrypted stream between two devices whose keys libp2p has authenticated. Over
//! it both prove that they know the same secret, without telling it: 32 random bytes from the link,
//! or a key that SPAKE2 makes of the typed code and both device ids. The joiner proves first. Until
//! it has, the inviter says nothing but a random number: neither the vault's id nor a name. Then the
//! inviter proves itself, the joiner introduces itself, the person at the inviter is asked, an owner's
//! grant is made, and the joiner is sent the vault's grants.
//!
//! ```text
//! joiner                                   inviter
//!   LookFor{nameplate}  ─────────────────►          typed code only
//!                       ◄─────────────────  Here{yes}
//!   Start{nonce, SPAKE2 A}  ─────────────►
//!                       ◄─────────────────  Challenge{nonce, SPAKE2 B}
//!   Proof{mac}          ─────────────────►          wrong: refused; a typed code is void
//!                       ◄─────────────────  Proof{mac}
//!   Request{name, sealing key, program, mac} ►      the person is asked, the grant is made
//!                       ◄─────────────────  Welcome{grants, clock, addresses, mac}
//! ```
//!
//! [`Inviter`] and [`Joiner`] do no I/O: bytes and the time go in, steps come out. One inviter admits
//! one device. Layouts and the reasons are in `docs/protocol/pairing.md`.

mod code;
mod inviter;
mod joiner;
mod link;
mod proof;
#[cfg(test)]
mod tests;
mod wire;

pub use code::{CODE_LIFETIME_MS, CodeError, ShortCode};
pub use inviter::{Inviter, InviterStep, MAX_LOOKS, MAX_SESSIONS, PERSON_TIMEOUT_MS};
pub use joiner::{Joiner, JoinerStep, MAX_CODE_CANDIDATES};
pub use link::{Invitation, LINK_LIFETIME_MS, LinkError, MAX_ADDRESS_LEN, MAX_ADDRESSES};
pub use wire::{MAX_TO_INVITER, MAX_WELCOME, NAME_MAX_LEN, NewDevice, Welcome, not_inviting};

/// Why a pairing did not come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PairingError {
    /// The other side sent what no pairing message is, or too much of it.
    #[error("the other device sent something that is not part of pairing")]
    Malformed,
    /// The other side sent a message where it does not belong, maybe one of an earlier attempt.
    #[error("the other device sent a pairing message out of turn")]
    OutOfTurn,
    /// The programs speak no version of pairing in common.
    #[error("the other device runs a version of coffer that pairs differently")]
    NoCommonVersion,
    /// The device that answered is not the one that the link names.
    #[error("the device at this address is not the one that made the link")]
    WrongDevice,
    /// This device shows no code with this nameplate, or its time is over.
    #[error("no device shows this code; it may have expired")]
    NotHere,
    /// The other device has no open invitation of this kind.
    #[error("the other device is not inviting, or its code is void")]
    NotInviting,
    /// The joiner does not know the secret. A typed code is void now.
    #[error("the code or link is not the right one")]
    WrongSecret,
    /// The inviter does not know the secret: something else answered in its place.
    #[error("the device that answered does not know the code or link")]
    WrongInviter,
    /// The invitation's time is over, or the answer took too long.
    #[error("the invitation has expired")]
    Expired,
    /// Another device has used the invitation.
    #[error("the invitation was already used")]
    Used,
    /// The person at the inviter said no.
    #[error("the person at the other device declined")]
    Declined,
    /// The inviter took the invitation back, or could not make the grant.
    #[error("the other device withdrew its invitation")]
    Withdrawn,
    /// The welcome is for another vault than the link.
    #[error("the other device belongs to another vault than the link")]
    OtherVault,
    /// The vault has more grants than one welcome holds.
    #[error("the vault has too many grants for pairing")]
    TooLarge,
    /// The connection ended in between.
    #[error("the connection to the other device ended")]
    Disconnected,
}
