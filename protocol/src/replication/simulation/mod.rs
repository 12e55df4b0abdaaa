//! A small fleet in one thread: five replicators behind shells that do what a node does, with
//! partitions, crashes, repeated and lost messages, slow peers and late commits, from one seed.
//!
//! Entries and grants are stand-ins (the replicator never looks into them); what is under test is
//! who gets what, that nothing is claimed which is not durable, and that everyone ends up equal.

use std::collections::{BTreeMap, VecDeque};

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::codec;
use crate::identity::VaultId;

mod disk;

use disk::{Disk, Entry, Grant};

const VAULT: VaultId = VaultId([7; 32]);
const NODES: usize = 5;
const SEEDS: u64 = 32;

fn device(node: usize) -> DeviceId {
    DeviceId([node as u8 + 1; 32])
}

enum Job {
    Grants(Vec<Vec<u8>>),
    Entries(Vec<Vec<u8>>, u32),
    Held(DeviceId, Vec<u8>),
}

struct Node {
    disk: Disk,
    replicator: Replicator,
    jobs: VecDeque<(DeviceId, Job)>,
    outboxes: BTreeMap<DeviceId, Outbox>,
}

impl Node {
    fn start(disk: Disk) -> Self {
        let mut replicator = Replicator::new(VAULT, disk.heads(), disk.clock());
        for (device, statement) in &disk.held {
            assert!(
                replicator
                    .held_changed(*device, statement.clone(), None)
                    .is_empty()
            );
        }
        Self {
            disk,
            replicator,
            jobs: VecDeque::new(),
            outboxes: BTreeMap::new(),
        }
    }
}

/// How often what happened: a run in which nothing happened proves nothing.
#[derive(Debug, Default, PartialEq)]
struct Tally {
    written: u32,
    delivered: u32,
    repeated: u32,
    refused: u32,
    unknown: u32,
    asked_again: u32,
    admitted: u32,
    crashed: u32,
    parted: u32,
    closed: u32,
}

struct Fleet {
    nodes: Vec<Node>,
    /// Directed, in order: what is under way on each open stream.
    wires: BTreeMap<(usize, usize), VecDeque<Vec<u8>>>,
    rng: ChaCha8Rng,
    trace: blake3::Hasher,
    tally: Tally,
    calm: bool,
}

impl Fleet {
    fn new(seed: u64) -> Self {
        let genesis = Grant {
            parents: Vec::new(),
            admits: device(0),
        };
        let nodes = (0..NODES)
            .map(|node| {
                let mut disk = Disk::default();
                if node == 0 {
                    disk.grants.insert(genesis.hash(), genesis.clone());
                }
                Node::start(disk)
            })
            .collect();
        Self {
            nodes,
            wires: BTreeMap::new(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            trace: blake3::Hasher::new(),
            tally: Tally::default(),
            calm: false,
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        !self.calm && self.rng.random_range(0..100) < percent
    }

    fn act(&mut self, node: usize, actions: Vec<Action>) {
        for action in actions {
            self.trace.update(format!("{node} {action:?}\n").as_bytes());
            let peer = match &action {
                Action::Send { peer, .. }
                | Action::SendEntries { peer, .. }
                | Action::SendGrants { peer, .. }
                | Action::IngestGrants { peer, .. }
                | Action::Ingest { peer, .. }
                | Action::IngestHeld { peer, .. }
                | Action::KnowsRanges { peer }
                | Action::SendRange { peer, .. }
                | Action::SendAttestations { peer, .. }
                | Action::IngestRange { peer, .. }
                | Action::IngestAttestations { peer, .. }
                | Action::Fork { peer, .. }
                | Action::Close { peer, .. } => *peer,
            };
            let state = &mut self.nodes[node];
            let rest = state.outboxes.entry(peer).or_default().push(action);
            let job = match rest {
                None => continue,
                Some(Action::IngestGrants { grants, .. }) => Job::Grants(grants),
                Some(Action::Ingest { entries, round, .. }) => Job::Entries(entries, round),
                Some(Action::IngestHeld {
                    device, statement, ..
                }) => Job::Held(device, statement),
                Some(other) => panic!("no fork in an honest fleet: {other:?}"),
            };
            state.jobs.push_back((peer, job));
        }
    }

    fn connect(&mut self, a: usize, b: usize) {
        let knows = |x: usize, y: usize| self.nodes[x].disk.admits(device(y));
        if a == b || self.wires.contains_key(&(a, b)) || !knows(a, b) || !knows(b, a) {
            return;
        }
        for (x, y) in [(a, b), (b, a)] {
            self.wires.insert((x, y), VecDeque::new());
            self.nodes[x].outboxes.insert(device(y), Outbox::new());
            let actions = self.nodes[x].replicator.connected(device(y));
            self.act(x, actions);
        }
    }

    fn part(&mut self, a: usize, b: usize) {
        if self.wires.remove(&(a, b)).is_none() {
            return;
        }
        self.wires.remove(&(b, a));
        for (x, y) in [(a, b), (b, a)] {
            self.nodes[x].outboxes.remove(&device(y));
            self.nodes[x].replicator.disconnected(device(y));
        }
        self.tally.parted += 1;
    }

    fn crash(&mut self, node: usize) {
        for other in 0..NODES {
            self.part(node, other);
        }
        let disk = std::mem::take(&mut self.nodes[node].disk);
        self.nodes[node] = Node::start(disk);
        self.tally.crashed += 1;
    }

    fn write(&mut self, node: usize) {
        if !self.nodes[node].disk.admits(device(node)) {
            return;
        }
        let writer = WriterId {
            device: device(node),
            incarnation: 0,
        };
        let salt = self.rng.next_u64();
        let log = self.nodes[node].disk.logs.entry(writer).or_default();
        let entry = Entry {
            writer,
            seq: log.len() as u64 + 1,
            prev: log.last().map_or(Hash::ZERO, |(_, hash)| *hash),
            salt,
        };
        let hash = entry.hash();
        let committed = [(writer, entry.seq, hash)];
        log.push((entry, hash));
        let actions = self.nodes[node].replicator.committed(&committed, None);
        self.act(node, actions);
        self.tally.written += 1;
    }

    /// Pairing, in one stroke. `false` if it cannot be.
    fn admit(&mut self, by: usize, new: usize) -> bool {
        let disk = &self.nodes[by].disk;
        if !disk.admits(device(by)) || disk.admits(device(new)) {
            return false;
        }
        // Only one device admits another, as pairing has it: nobody may know it already.
        if self.nodes.iter().any(|n| n.disk.admits(device(new))) {
            return false;
        }
        let grant = Grant {
            parents: disk.heads(),
            admits: device(new),
        };
        let disk = &mut self.nodes[by].disk;
        disk.grants.insert(grant.hash(), grant);
        let (grants, heads) = (disk.grants.clone(), disk.heads());
        let actions = self.nodes[by].replicator.grants_changed(heads);
        self.act(by, actions);
        // The welcome.
        self.nodes[new].disk.grants = grants;
        let disk = std::mem::take(&mut self.nodes[new].disk);
        self.nodes[new] = Node::start(disk);
        self.tally.admitted += 1;
        true
    }

    fn state_held(&mut self, node: usize) {
        let mut statement = self.nodes[node]
            .disk
            .held
            .get(&device(node))
            .cloned()
            .unwrap_or_default();
        statement.push(0);
        self.nodes[node]
            .disk
            .held
            .insert(device(node), statement.clone());
        let actions = self.nodes[node]
            .replicator
            .held_changed(device(node), statement, None);
        self.act(node, actions);
    }

    fn announce(&mut self, node: usize) {
        for peer in self.nodes[node].replicator.live_peers().collect::<Vec<_>>() {
            let actions = self.nodes[node].replicator.announce_clock(peer);
            self.act(node, actions);
        }
    }

    /// Sends one thing from an outbox. `false` if there was nothing.
    fn send(&mut self, from: usize, to: usize) -> bool {
        let piece = self.rng.random_range(1..4);
        let node = &mut self.nodes[from];
        let Some(outbox) = node.outboxes.get_mut(&device(to)) else {
            return false;
        };
        let message = match outbox.take_next() {
            None => return false,
            Some(Work::Message(message)) => message,
            Some(Work::Grants { they_have }) => Message::Grants {
                heads: node.disk.heads(),
                grants: node.disk.missing(&they_have),
            },
            Some(Work::Entries {
                writer, from, to, ..
            }) => {
                let last = to.min(from + piece - 1);
                let log = &node.disk.logs[&writer];
                let entries = &log[from as usize - 1..last as usize];
                outbox.sent(writer, last);
                Message::Entries(
                    entries
                        .iter()
                        .map(|(entry, _)| codec::encode(entry))
                        .collect(),
                )
            }
            Some(Work::Range(_) | Work::Attestations(_)) => panic!("nobody knows ranges here"),
            Some(Work::Close(_)) => {
                self.tally.closed += 1;
                self.part(from, to);
                return true;
            }
        };
        let bytes = message.encode();
        self.trace.update(&bytes);
        // A repeated message, as from a confused relay; Hellos and answers are once only.
        let repeat = self.chance(5)
            && matches!(
                message,
                Message::Entries(_)
                    | Message::Grants { .. }
                    | Message::Held { .. }
                    | Message::Clock(_)
            );
        let wire = self.wires.get_mut(&(from, to)).unwrap();
        wire.push_back(bytes.clone());
        if repeat {
            wire.push_back(bytes);
            self.tally.repeated += 1;
        }
        true
    }

    fn deliver(&mut self, from: usize, to: usize) -> bool {
        let Some(bytes) = self
            .wires
            .get_mut(&(from, to))
            .and_then(VecDeque::pop_front)
        else {
            return false;
        };
        let message = Message::decode(&bytes).unwrap();
        if matches!(message, Message::NeedEntries { .. }) {
            self.tally.asked_again += 1;
        }
        let actions = self.nodes[to].replicator.received(device(from), message);
        self.act(to, actions);
        self.tally.delivered += 1;
        true
    }

    /// Does one job of a node's store. `false` if there was none.
    fn work(&mut self, node: usize) -> bool {
        let Some((peer, job)) = self.nodes[node].jobs.pop_front() else {
            return false;
        };
        // A store may fail: what it did not take is asked for again.
        let fails = self.chance(if matches!(job, Job::Grants(_)) {
            50
        } else {
            12
        });
        let state = &mut self.nodes[node];
        let actions = match job {
            Job::Grants(_) if fails => Vec::new(),
            Job::Grants(grants) => {
                for bytes in &grants {
                    let grant: Grant = codec::decode(bytes, 4096).unwrap();
                    if grant
                        .parents
                        .iter()
                        .all(|p| state.disk.grants.contains_key(p))
                    {
                        state.disk.grants.insert(grant.hash(), grant);
                    }
                }
                let heads = state.disk.heads();
                state.replicator.grants_changed(heads)
            }
            Job::Held(device, statement) => {
                let newer = state
                    .disk
                    .held
                    .get(&device)
                    .is_none_or(|have| have.len() < statement.len());
                if newer {
                    state.disk.held.insert(device, statement.clone());
                    state.replicator.held_changed(device, statement, Some(peer))
                } else {
                    Vec::new()
                }
            }
            Job::Entries(_, round) if fails => {
                self.tally.refused += 1;
                state.replicator.rejected(peer, round, Rejection::Gap)
            }
            Job::Entries(entries, round) => self.ingest(node, peer, &entries, round),
        };
        self.act(node, actions);
        true
    }

    fn ingest(
        &mut self,
        node: usize,
        peer: DeviceId,
        entries: &[Vec<u8>],
        round: u32,
    ) -> Vec<Action> {
        let state = &mut self.nodes[node];
        let (mut committed, mut refused) = (Vec::new(), None);
        for bytes in entries {
            let entry: Entry = codec::decode(bytes, 4096).unwrap();
            if !state.disk.admits(entry.writer.device) {
                refused.get_or_insert(Rejection::UnknownWriter);
                continue;
            }
            let log = state.disk.logs.entry(entry.writer).or_default();
            let last = log.len() as u64;
            if entry.seq <= last {
                assert_eq!(log[entry.seq as usize - 1].0, entry, "a log forked");
            } else if entry.seq == last + 1 {
                assert_eq!(entry.prev, log.last().map_or(Hash::ZERO, |(_, hash)| *hash));
                let hash = entry.hash();
                committed.push((entry.writer, entry.seq, hash));
                log.push((entry, hash));
            } else {
                refused.get_or_insert(Rejection::Gap);
            }
        }
        let mut actions = state.replicator.committed(&committed, Some(peer));
        if let Some(why) = refused {
            self.tally.refused += 1;
            self.tally.unknown += u32::from(why == Rejection::UnknownWriter);
            actions.extend(state.replicator.rejected(peer, round, why));
        }
        actions
    }

    fn check(&self) {
        for node in &self.nodes {
            assert!(node.disk.backs(node.replicator.clock()));
            for peer in 0..NODES {
                let acknowledged = node.replicator.acknowledged(&device(peer));
                assert!(
                    self.nodes[peer].disk.backs(acknowledged),
                    "{peer} is said to have what is not on its disk"
                );
            }
        }
    }

    fn some(&mut self, start: usize, of: usize, mut act: impl FnMut(&mut Self, usize) -> bool) {
        for offset in 0..of {
            if act(self, (start + offset) % of) {
                return;
            }
        }
    }

    fn step(&mut self) {
        let a = self.rng.random_range(0..NODES);
        let b = self.rng.random_range(0..NODES);
        match self.rng.random_range(0..1000) {
            0..60 => self.write(a),
            60..140 => self.connect(a, b),
            140..143 => self.part(a, b),
            143..145 => self.crash(a),
            145..160 => self.state_held(a),
            160..200 => self.announce(a),
            // The first that has something to do, from a random one on.
            200..480 => {
                self.some(a * NODES + b, NODES * NODES, |fleet, wire| {
                    fleet.send(wire / NODES, wire % NODES)
                });
            }
            480..760 => {
                self.some(a * NODES + b, NODES * NODES, |fleet, wire| {
                    fleet.deliver(wire / NODES, wire % NODES)
                });
            }
            _ => self.some(a, NODES, |fleet, node| fleet.work(node)),
        }
        self.check();
    }

    /// No more trouble: everyone is admitted and connected afresh, and all work is done.
    fn settle(&mut self) {
        self.calm = true;
        for new in 1..NODES {
            self.admit(0, new);
        }
        for a in 0..NODES {
            for b in 0..a {
                self.part(a, b);
            }
        }
        // Who learns of a member late connects to it late.
        for _ in 0..NODES {
            for a in 0..NODES {
                for b in 0..a {
                    self.connect(a, b);
                }
            }
            self.drain();
        }
    }

    fn drain(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "the fleet never comes to rest");
            let mut busy = false;
            for a in 0..NODES {
                self.announce(a);
                for b in 0..NODES {
                    busy |= self.send(a, b) | self.deliver(a, b);
                }
                busy |= self.work(a);
            }
            if !busy {
                return;
            }
        }
    }
}

fn run(seed: u64, steps: u32) -> Fleet {
    let mut fleet = Fleet::new(seed);
    for step in 0..steps {
        // A device joins now and then, when some of the others are in the middle of something.
        if step % 400 == 200 {
            let by = fleet.rng.random_range(0..NODES);
            for new in 1..NODES {
                if fleet.admit(by, new) {
                    break;
                }
            }
        }
        fleet.step();
    }
    fleet.settle();
    fleet.check();
    fleet
}

#[test]
fn a_fleet_in_trouble_ends_equal_and_never_claims_what_is_not_durable() {
    let mut total = Tally::default();
    for seed in 0..SEEDS {
        let fleet = run(seed, 2400);
        let first = &fleet.nodes[0];
        for node in &fleet.nodes {
            assert_eq!(node.disk.logs, first.disk.logs, "seed {seed}");
            assert_eq!(node.disk.grants, first.disk.grants, "seed {seed}");
            assert_eq!(node.disk.held, first.disk.held, "seed {seed}");
            for (peer, other) in fleet.nodes.iter().enumerate() {
                if !std::ptr::eq(node, other) {
                    let said = node.replicator.acknowledged(&device(peer));
                    assert_eq!(said, other.replicator.clock(), "seed {seed}");
                }
            }
        }
        let entries: usize = first.disk.logs.values().map(Vec::len).sum();
        assert_eq!(
            entries as u32, fleet.tally.written,
            "seed {seed}: an entry is lost"
        );
        let tally = &fleet.tally;
        total.written += tally.written;
        total.delivered += tally.delivered;
        total.repeated += tally.repeated;
        total.refused += tally.refused;
        total.unknown += tally.unknown;
        total.asked_again += tally.asked_again;
        total.admitted += tally.admitted;
        total.crashed += tally.crashed;
        total.parted += tally.parted;
        total.closed += tally.closed;
    }
    println!("{total:?}");
    assert!(total.written > 1000 && total.delivered > 3000, "{total:?}");
    assert!(total.repeated > 50 && total.crashed > 100, "{total:?}");
    assert!(
        total.refused > 60 && total.unknown > 5 && total.asked_again > 50,
        "{total:?}"
    );
    assert!(
        total.admitted == SEEDS as u32 * 4 && total.parted > 100,
        "{total:?}"
    );
    assert_eq!(total.closed, 0, "honest peers close on nobody: {total:?}");
}

#[test]
fn one_seed_gives_one_trace() {
    let [one, two, other] = [3, 3, 4].map(|seed| run(seed, 800).trace.finalize());
    assert_eq!(one, two);
    assert_ne!(one, other);
}

#[test]
fn devices_that_are_equal_exchange_no_entries_when_they_meet_again() {
    let mut fleet = run(1, 1000);
    fleet.part(0, 1);
    fleet.connect(0, 1);
    let before = fleet.tally.delivered;
    let mut entries = 0;
    for (from, to) in [(0, 1), (1, 0), (0, 1), (1, 0)] {
        while fleet.send(from, to) {
            let bytes = fleet.wires[&(from, to)].back().unwrap();
            entries += u32::from(matches!(Message::decode(bytes), Ok(Message::Entries(_))));
            fleet.deliver(from, to);
        }
    }
    assert_eq!(entries, 0);
    assert!(fleet.tally.delivered - before >= 2, "two Hellos at least");
}
