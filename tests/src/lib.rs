//! A whole fleet of coffer's nodes in one thread, from one seed.
//!
//! Each replica is the very core that a node runs ([`coffer_node::vault::Core`]) over a disk that crashes; sessions
//! between them drive its inputs and outputs as the node's own do, and every message crosses the network as bytes.
//! A run does a random day of a household (typing, moving folders, trains without signal, dead batteries, full disks,
//! a copied data folder, a new device), then heals everything and asks whether all agree and nothing is lost.
//!
//! ```text
//! disk.rs        what a crash leaves of a file
//! network.rs     connections: delay, duplication, reordering, alteration, loss
//! replica.rs     one node: its disk, its core, its sessions; starting and dying
//! fleet.rs       all of them, and the steps of a run
//! acts.rs        what people do, and how often; operations.rs: as requests
//! contents.rs    made-up files
//! ledger.rs      what was acknowledged, and so must be there in the end
//! oracle.rs      the checks: honesty at any time, agreement and completeness in the end
//! seeds.rs       which seeds a suite runs, and the running of them
//! adversary/     a household of its own, whose host lies
//! coverage.rs    what was hit how often; trace.rs: the hash that two runs of one seed share
//! ```

pub mod acts;
pub mod adversary;
pub mod contents;
pub mod coverage;
pub mod disk;
pub mod fleet;
pub mod ledger;
pub mod network;
pub mod operations;
pub mod oracle;
pub mod replica;
pub mod seeds;
pub mod trace;

use coverage::Coverage;

/// What a run leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The hash of its trace.
    pub hash: String,
    /// What it hit.
    pub coverage: Coverage,
}

/// Runs one seed to its end.
///
/// # Panics
/// When a check fails; the message has the last events of the run.
pub fn run(seed: u64) -> Report {
    let mut fleet = fleet::Fleet::new(seed);
    fleet.live();
    fleet.heal();
    if std::env::var_os("COFFER_SIM_STORY").is_some() {
        println!("The story of seed {seed}:\n{}", fleet.story());
    }
    fleet.report()
}
