//! All is mended, the fleet comes to rest, and is looked at: it must agree, and nothing be lost.

use std::collections::{BTreeMap, BTreeSet};

use coffer_node::vault::Input;
use coffer_protocol::identity::DeviceId;

use super::Fleet;
use crate::operations::{Person, all_arrived};
use crate::oracle;
use crate::replica::Replica;

/// Rounds in which a healed fleet must come to rest. A round lets everyone send and process all that they have; the
/// longest chain of cause and effect (an edit through all replicas, statements, bytes, statements again) is far shorter.
pub(super) const ROUNDS: usize = 400;
/// Times that copies of data folders take turns, each with each of the others, until all must agree.
const TURNS: usize = 4;

impl Fleet {
    /// Mends everything and lets the fleet come to rest; then all must agree, and nothing be lost.
    pub fn heal(&mut self) {
        self.healing = true;
        for place in 0..self.replicas.len() {
            self.replicas[place].disk.remove_fuse();
            if self.replicas[place].died_in().is_some() {
                self.die(place);
            }
            if self.replicas[place].node.is_none() {
                self.start(place);
            }
        }
        let all: Vec<_> = self.network.connections().collect();
        for (id, ends) in all {
            for to in ends {
                self.network.withhold(id, to, false);
            }
            if self.network.is_damaged(id) {
                self.network.cut(id);
            }
        }
        self.decide();
        for turn in 0..TURNS * self.turns() {
            let active = self.active(turn);
            self.rest(&active);
            if turn + 1 >= self.turns() && self.unrest().is_none() {
                break;
            }
        }
        if let Some(difference) = self.unrest().or_else(|| self.disagreement()) {
            panic!("the healed fleet does not agree: {difference}");
        }
        self.check_end();
    }

    /// In how many turns every copy of a data folder meets every copy of each other one.
    pub(super) fn turns(&self) -> usize {
        let everybody = self.replicas.iter().map(|replica| replica.device);
        let copies = self.places(&everybody.collect());
        copies.values().map(Vec::len).product()
    }

    /// Who is connected in this turn: of copies of one data folder, one.
    pub(super) fn active(&self, turn: usize) -> Vec<usize> {
        self.one_of_each(&self.members(), turn)
    }

    /// One replica of each of these devices. In [`turns`](Self::turns) turns each of one device is together with each of
    /// another.
    pub(super) fn one_of_each(&self, devices: &BTreeSet<DeviceId>, turn: usize) -> Vec<usize> {
        let mut rest = turn;
        let mut active = Vec::new();
        for places in self.places(devices).values() {
            active.push(places[rest % places.len()]);
            rest /= places.len();
        }
        active.sort_unstable();
        active
    }

    /// Where the replicas of each of these devices are.
    fn places(&self, devices: &BTreeSet<DeviceId>) -> BTreeMap<DeviceId, Vec<usize>> {
        let mut places: BTreeMap<DeviceId, Vec<usize>> = BTreeMap::new();
        for (place, replica) in self.replicas.iter().enumerate() {
            if devices.contains(&replica.device) {
                places.entry(replica.device).or_default().push(place);
            }
        }
        places
    }

    pub(super) fn cut_others(&mut self, active: &[usize]) {
        for (id, ends) in self.network.connections().collect::<Vec<_>>() {
            if ends.iter().any(|end| !active.contains(end)) {
                self.network.cut(id);
            }
        }
    }

    pub(super) fn rest(&mut self, active: &[usize]) {
        self.cut_others(active);
        for _ in 0..ROUNDS {
            self.now_ms += 50;
            if !self.round(active) {
                return;
            }
        }
        panic!("the healed fleet does not come to rest");
    }

    /// Everyone does all that they can. False if nobody had anything to do.
    pub(super) fn round(&mut self, active: &[usize]) -> bool {
        let mut busy = false;
        let ends: Vec<_> = self
            .network
            .connections()
            .flat_map(|(id, [a, b])| [(id, a, b), (id, b, a)])
            .collect();
        for (id, to, from) in ends {
            while self.deliver(id, to, from) {
                busy = true;
            }
        }
        for place in 0..self.replicas.len() {
            let Some(node) = &self.replicas[place].node else {
                // It had met a full disk before.
                self.start(place);
                busy = true;
                continue;
            };
            busy |= !node.inbox.is_empty() || !node.outputs.is_empty();
            self.settle(place);
            let Some(node) = &self.replicas[place].node else {
                continue;
            };
            let devices: Vec<DeviceId> = node.sessions.keys().copied().collect();
            for device in devices {
                while self.send(place, device) {
                    busy = true;
                }
            }
        }
        if !busy {
            busy = self.reconnect(active) || self.finish_bytes(active);
        }
        busy
    }

    pub(super) fn reconnect(&mut self, active: &[usize]) -> bool {
        let mut any = false;
        for &a in active {
            for &b in active {
                let device = self.replicas[b].device;
                let there = self.replicas[a]
                    .node
                    .as_ref()
                    .is_some_and(|node| node.sessions.contains_key(&device));
                if a < b && !there {
                    any |= self.connect(a, b);
                }
            }
        }
        any
    }

    /// All bytes arrive, and everyone says what they hold.
    pub(super) fn finish_bytes(&mut self, active: &[usize]) -> bool {
        let mut any = false;
        for &place in active {
            let replica = &mut self.replicas[place];
            let wall_ms = replica.wall_ms(self.now_ms);
            let Some(node) = &mut replica.node else {
                continue;
            };
            let person = Person::new(&node.core, &mut self.ledger, &mut self.rng, wall_ms);
            match all_arrived(person) {
                Ok(Some((request, issued, bytes))) => {
                    self.next_ticket += 1;
                    replica.bytes.extend(bytes);
                    node.tickets.insert(self.next_ticket, issued);
                    node.inbox
                        .push(Input::Commit(self.next_ticket, Box::new(request)));
                    any = true;
                }
                Ok(None) => {}
                Err(error) => panic!("{}: {error}", replica.name),
            }
            if node.core.held_is_stale() || node.core.owes_range() {
                node.inbox.push(Input::StateHeld);
                any = true;
            }
        }
        any
    }

    /// The first difference between two replicas.
    pub(super) fn disagreement(&self) -> Option<String> {
        let members = self.members();
        let pictures: Vec<_> = self
            .replicas
            .iter()
            .filter(|replica| members.contains(&replica.device))
            .filter_map(|replica| {
                replica
                    .node
                    .as_ref()
                    .map(|node| (&replica.name, oracle::picture(&replica.name, &node.core)))
            })
            .collect();
        let (first, rest) = pictures.split_first()?;
        rest.iter().find_map(|(name, picture)| {
            let difference = first.1.difference(picture)?;
            Some(format!("{} and {name}: {difference}", first.0))
        })
    }

    /// What is still on its way: entries, or news of what somebody holds.
    pub(super) fn unrest(&self) -> Option<String> {
        let devices: BTreeSet<DeviceId> = self.members();
        let cores = || {
            self.replicas
                .iter()
                .filter(|replica| devices.contains(&replica.device))
                .filter_map(|replica| Some((replica, &replica.node.as_ref()?.core)))
        };
        let (_, first) = cores().next()?;
        cores().find_map(|(replica, core)| {
            if core.state().clock != first.state().clock {
                return Some(format!("{} has another clock", replica.name));
            }
            let lack = oracle::statements_lack(core, &devices)?;
            let sealing = core.state().sealing_epoch();
            Some(format!(
                "{}: {lack}, sealing under {sealing:?}",
                replica.name
            ))
        })
    }

    pub(super) fn check_end(&mut self) {
        self.forget_what_left();
        self.check_thieves();
        self.check_ranges();
        let members = self.members();
        let is_member = |replica: &&Replica| members.contains(&replica.device);
        for replica in self.replicas.iter().filter(is_member) {
            let Some(node) = &replica.node else { continue };
            for other in self.replicas.iter().filter(is_member) {
                oracle::check_acknowledged(
                    &replica.name,
                    node.core.database(),
                    &other.acknowledged,
                );
            }
        }
        let Some(first) = self.replicas.iter().find(is_member) else {
            return;
        };
        let Some(node) = first.node.as_ref() else {
            return;
        };
        oracle::check_complete(&node.core, &self.ledger);
        oracle::count_conflicts(&node.core, &mut self.coverage);
        let picture = oracle::picture(&first.name, &node.core);
        let entries: u64 = picture.clock().iter().map(|(_, seq, _)| seq).sum();
        self.coverage.add("run", "entries", entries);
        self.coverage
            .add("run", "replicas", self.replicas.len() as u64);
        self.coverage.hit("run", "runs");
        self.trace
            .bytes("clock", format!("{:?}", picture.clock()).as_bytes());
    }
}
