//! The host: an always-on process that keeps what devices send it, passes it on, and can read none of it.
//!
//! ```text
//! run.rs        what starts and stops, in which order
//! host.rs       what everything shares: keys, store, limits, what is counted
//! config/       what a person sets · folder.rs  the data folder · places.rs  where devices reach the host
//! control/      `relay invite`, `vault` and `status`, over a socket · asked.rs  what they are answered
//! serving.rs    streams come in, and go to the one who speaks their protocol · door.rs  who may connect at all
//! joining.rs    binding a vault, and hearing of its devices · recovering.rs  whoever has its words
//! session.rs    one device replicates · resident/  one vault in memory · verify.rs  what is believed
//! vaults.rs     which vaults are in memory
//! stating.rs    what the host says of what it has · following.rs  what other processes on the same store did
//! clients.rs    whose connections it carries
//! deposit.rs    blobs come in, are asked after, are released · giving.rs  blobs go out
//! erasing.rs    a vault leaves · freeing.rs  what no device names goes · scrubbing.rs  what the disk has damaged is found
//! store/        what it keeps, behind one trait with an embedded and a provider's implementation
//! http.rs, metrics.rs   for those who watch it · marks.rs  ids in the log · rates.rs  how often somebody may ask
//! ```
//!
//! What it may learn is in DESIGN.md, section 6: keys, roles, which devices share a vault, times, counts, padded sizes.
//! It holds no key of a vault. A device that is not in a vault gets nothing of it, not even that it is here.

mod asked;
mod clients;
pub mod config;
pub mod control;
mod deposit;
mod door;
mod erasing;
pub mod folder;
mod following;
mod freeing;
mod giving;
mod host;
mod http;
mod joining;
mod marks;
mod metrics;
pub(crate) mod places;
mod rates;
mod recovering;
mod resident;
mod resting;
mod run;
mod scrubbing;
mod serving;
mod session;
mod stating;
pub mod store;
#[cfg(test)]
mod tests;
mod vaults;
mod verify;

/// What a host decides, without its streams and threads: simulations of hosts that lie are made of it.
pub mod decisions {
    pub use super::deposit::look_after;
    pub use super::resident::{fresh_grants, spaces_of, statement_counter};
    pub use super::stating::next as next_statement;
    pub use super::verify::{Checked, Ground, check, writing};
}

pub use config::{ConfigError, LogFormat, LogLevel, RelayConfig};
pub use run::{HostOptions, HostReady, run, run_on};
pub(crate) use serving::take_leave;
