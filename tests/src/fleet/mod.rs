//! The fleet and its days: random steps, then healing.
//!
//! ```text
//! life.rs      devices start, stop, die, are copied and admitted
//! work.rs      what goes on in one of them: requests, batches, answers
//! sessions.rs  what goes on between two of them, and what a network does to it
//! members.rs   who is put out, or given another role
//! thieves.rs   what somebody with the keys of a device that is out tries
//! healing.rs   all is mended, the fleet comes to rest, and is looked at
//! ```

mod healing;
mod life;
mod members;
mod sessions;
mod thieves;
mod work;

use std::collections::{BTreeMap, BTreeSet};

use coffer_node::vault::core::Ticket;
use coffer_node::vault::{Act, Input};
use coffer_protocol::identity::Hash;
use coffer_protocol::recovery::RecoveryKey;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::Report;
use crate::coverage::Coverage;
use crate::ledger::Ledger;
use crate::network::Network;
use crate::replica::{Origin, Replica};
use crate::trace::Trace;

/// Devices that a fleet begins with.
const FIRST: usize = 3;
/// Random steps of a run.
const STEPS: usize = 900;

/// The fleet.
pub struct Fleet {
    rng: ChaCha8Rng,
    now_ms: u64,
    replicas: Vec<Replica>,
    network: Network,
    ledger: Ledger,
    trace: Trace,
    coverage: Coverage,
    next_ticket: Ticket,
    /// Who was admitted and not yet heard of: by the ticket of the admission.
    newcomers: BTreeMap<Ticket, Replica>,
    /// Acts upon the membership that were not answered yet.
    managing: BTreeMap<Ticket, &'static str>,
    /// What thieves signed, and nobody may ever hold.
    stolen: Vec<thieves::Stolen>,
    /// Ranges that thieves made, and nobody may ever keep.
    false_ranges: BTreeSet<Hash>,
    /// The words on paper.
    words: Option<RecoveryKey>,
    /// While it heals, nothing breaks.
    healing: bool,
    /// Replicas that cannot reach the others.
    apart: Option<BTreeSet<usize>>,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("The last events:\n{}", self.trace.story());
            for replica in &self.replicas {
                eprintln!("{}", members::told_of(replica));
            }
        }
    }
}

impl Fleet {
    /// A fleet of three devices that know each other.
    pub fn new(seed: u64) -> Fleet {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let founder = Replica::new("device 0".into(), Origin::Founds, &mut rng);
        let mut fleet = Fleet {
            rng,
            now_ms: 1_790_000_000_000,
            replicas: vec![founder],
            network: Network::default(),
            ledger: Ledger::default(),
            trace: Trace::default(),
            coverage: Coverage::default(),
            next_ticket: 0,
            newcomers: BTreeMap::new(),
            managing: BTreeMap::new(),
            stolen: Vec::new(),
            false_ranges: BTreeSet::new(),
            words: None,
            healing: true,
            apart: None,
        };
        fleet.start(0);
        fleet.words = fleet.replicas[0]
            .node
            .as_ref()
            .and_then(|node| node.core.recovery().ok().flatten());
        for _ in 1..FIRST {
            fleet.admit(0);
            fleet.settle(0);
        }
        for place in 1..fleet.replicas.len() {
            fleet.start(place);
        }
        fleet.rest(&[0, 1, 2]);
        fleet.healing = false;
        fleet
    }

    /// The last events, for a person to read.
    pub fn story(&self) -> String {
        self.trace.story()
    }

    /// What the run leaves.
    pub fn report(&self) -> Report {
        Report {
            hash: self.trace.hash(),
            coverage: self.coverage.clone(),
        }
    }

    /// The random part.
    pub fn live(&mut self) {
        for _ in 0..STEPS {
            self.now_ms += self.rng.random_range(1..60);
            self.step();
        }
    }

    fn step(&mut self) {
        let place = self.rng.random_range(0..self.replicas.len());
        match self.rng.random_range(0..1000) {
            0..170 => self.operate(place),
            170..400 => self.each(Fleet::tick),
            400..640 => self.each(Fleet::send_some),
            640..850 => self.deliver_some(),
            850..890 => self.connect_some(place),
            890..893 => self.cut_some(),
            893..939 => self.misbehave(),
            939..943 => self.thieve(place),
            943..963 => self.input(place, Input::StateHeld),
            963..970 => self.light_fuse(place),
            970..974 => self.pull_the_plug(place),
            974..977 => self.restart(place),
            977..980 => self.fill_up(place),
            980..983 => self.copy(place),
            983..986 => self.admit(place),
            986..989 => self.partition(),
            989 => self.revoke_some(place),
            990 => self.change_role(place),
            991 => self.manage(place, Act::Rotate, None),
            992..995 => self.thieve(place),
            995 => self.quarrel(place),
            996 => self.admit_and_go(place),
            _ => self.apart = None,
        }
        for place in 0..self.replicas.len() {
            if self.replicas[place].node.is_none()
                && self.now_ms >= self.replicas[place].off_until_ms
            {
                self.start(place);
            }
        }
    }

    /// Does something in every second replica or so.
    fn each(&mut self, act: fn(&mut Fleet, usize)) {
        for place in 0..self.replicas.len() {
            if self.rng.random_bool(0.6) {
                act(self, place);
            }
        }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.rng.random_range(0..from.len())])
    }

    fn event(&mut self, event: String) {
        let at = self.now_ms % 1_000_000;
        self.trace.event(format!("{at:>6} {event}"));
    }
}
