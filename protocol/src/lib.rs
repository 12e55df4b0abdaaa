//! What coffer's peers say to each other, and nothing of how it travels.
//!
//! No I/O here: no sockets, files, clocks or randomness of its own. Time and random numbers are
//! arguments, so that a simulator runs a whole fleet of devices from one seed, with the code that
//! the program runs.
//!
//! A vault begins with a genesis grant ([`grants`]): it names the first [`identity`] and a
//! [`recovery`] key, and its hash is the vault's id. Every further device is admitted by a grant
//! that an owner signs, and which seals the space's [`keys`] to it. Each device then writes one log
//! of signed, encrypted entries ([`log`]), in the place of which [`ranges`] can stand, and says what it durably has ([`held`]). Bytes of files
//! travel as sealed frames ([`frame`]). A host that keeps all of this and can read none of it speaks
//! [`relay`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod blobs;
pub mod codec;
pub mod domain;
pub mod eviction;
pub mod frame;
pub mod grants;
pub mod held;
pub mod identity;
pub mod keys;
pub mod log;
pub mod pairing;
pub mod ranges;
pub mod recovery;
pub mod relay;
pub mod replication;
pub mod signed;
pub mod version;

mod base32;
mod byte_strings;
#[cfg(test)]
mod frozen;
mod link_text;
mod padded;
