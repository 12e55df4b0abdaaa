//! How `coffer relay invite`, `vault` and `status` talk to the running host: one JSON line each way over the control
//! socket in its data folder, for the user who runs it and root.
//!
//! `messages.rs`: what is asked and answered · `server.rs`: the host's side · `client.rs`: the command's

mod client;
mod messages;
mod server;

pub use client::ask;
pub use messages::{HostReply, HostRequest, HostStatus, InvitationRow, MAX_ROWS, VaultRow};
pub use server::Server;
