//! A coffer node: one device's part of a vault, on disk and on the network.
//!
//! ```text
//! control/   how a command line, a script or a page talks to the node
//! service/   what starts and stops, and what each request does
//! vault/     what a person keeps, durably: the synchronous core and its thread
//! store/     the tables of the one database
//! backup/    a folder with all of a vault as ciphertext, on any disk
//! blobs/     bytes of files: cutting, sealing, finding, serving, fetching
//! folder/    folders on disk kept equal to folders of the vault
//! hosts/     relay hosts, as a device sees them
//! index/     the derived index for queries
//! net/       one libp2p swarm behind a handle
//! relay/     the host: what it keeps for vaults that it cannot read
//! ```
//!
//! Only this crate names libp2p, iroh-blobs, redb and tokio; only the command line prints.

pub mod backup;
pub mod blobs;
pub mod collect;
pub mod control;
pub mod folder;
pub mod hosts;
pub mod index;
pub mod net;
mod private_file;
mod recovering;
pub mod relay;
pub mod service;
pub mod store;
mod undumpable;
pub mod vault;

pub use coffer_crdt::files::date;
pub use undumpable::keep_memory_private;
