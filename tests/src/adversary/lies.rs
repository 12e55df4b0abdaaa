//! What the lying host does, and what must be found out.
//!
//! Each lie is a small story: something is made ready (who is connected, what is written), the host lies, and then it is
//! asked whether those whom it concerns know. What proves nothing against a host (a message that comes twice, an old one
//! of somebody else's) must change nothing instead.

use coffer_node::hosts::TroubleKind;
use coffer_node::hosts::watch::MAY_LAG;
use coffer_protocol::identity::WriterId;
use coffer_protocol::log::Entry;
use coffer_protocol::replication::Message;
use rand::{Rng, RngExt};

use super::Household;
use super::bringing::blob_bytes;
use super::host::Host;
use super::household::{HONEST, Hush, LIAR};

/// What a host can do, and how often it does: none is zero.
pub const LIES: [(Lie, u32); 9] = [
    (Lie::WithholdEntries, 2),
    (Lie::WithholdAll, 1),
    (Lie::RollBack, 2),
    (Lie::BeginAnew, 1),
    (Lie::Splice, 4),
    (Lie::Replay, 3),
    (Lie::Duplicate, 2),
    (Lie::Fork, 2),
    (Lie::DropBlobs, 3),
];

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It says that it has entries, and does not send them to one device.
    WithholdEntries,
    /// It says nothing at all to one device any more.
    WithholdAll,
    /// It goes on from an earlier state.
    RollBack,
    /// It has lost everything.
    BeginAnew,
    /// It sends what it has altered, or put together of parts.
    Splice,
    /// It sends again what it had sent long ago.
    Replay,
    /// It sends a message twice.
    Duplicate,
    /// It goes on in two ways, one for one device and one for the others.
    Fork,
    /// It loses blobs, or some of their bytes.
    DropBlobs,
}

impl Lie {
    /// Its name in the coverage.
    pub fn name(self) -> &'static str {
        match self {
            Lie::WithholdEntries => "withhold entries",
            Lie::WithholdAll => "withhold everything",
            Lie::RollBack => "roll back",
            Lie::BeginAnew => "begin anew",
            Lie::Splice => "splice",
            Lie::Replay => "replay",
            Lie::Duplicate => "duplicate",
            Lie::Fork => "fork",
            Lie::DropBlobs => "drop blobs",
        }
    }

    /// A random one.
    pub fn draw(rng: &mut impl Rng) -> Lie {
        let total: u32 = LIES.iter().map(|(_, weight)| weight).sum();
        let mut at = rng.random_range(0..total);
        for (lie, weight) in LIES {
            if at < weight {
                return lie;
            }
            at -= weight;
        }
        Lie::Splice
    }
}

/// How a message is altered.
const SPLICES: [&str; 8] = [
    "a body altered",
    "a signature altered",
    "another entry's body",
    "another predecessor",
    "another number",
    "cut short",
    "any bit turned",
    "a statement altered",
];

impl Household {
    /// The host lies, and it is looked what comes of it.
    pub(super) fn tell(&mut self, lie: Lie) {
        // Some complaints are noted once in a while only: those of the last lie are over.
        self.now_ms += 120_000;
        let since_ms = self.now_ms;
        self.now_ms += 1_000;
        let victim = self.rng.random_range(0..self.devices.len());
        let other = (victim + 1) % self.devices.len();
        self.event(format!("the host lies to device {victim}: {}", lie.name()));
        self.coverage.hit("lie", lie.name());
        self.everyone_connects();
        match lie {
            Lie::WithholdEntries => self.withhold(victim, other, Hush::Entries),
            Lie::WithholdAll => self.withhold(victim, other, Hush::All),
            Lie::RollBack => self.roll_back(other),
            Lie::BeginAnew => self.begin_anew(),
            Lie::Splice => self.splice(victim, other),
            Lie::Replay => self.replay(victim, other),
            Lie::Duplicate => self.duplicate(victim, other),
            Lie::Fork => self.fork(victim, other),
            Lie::DropBlobs => self.drop_blobs(victim),
        }
        let found: &[TroubleKind] = match lie {
            Lie::WithholdEntries | Lie::WithholdAll => &[TroubleKind::Withholds],
            Lie::RollBack => &[TroubleKind::RolledBack],
            Lie::BeginAnew => &[TroubleKind::BeganAnew],
            Lie::Fork => &[TroubleKind::Contradicts, TroubleKind::RolledBack],
            Lie::DropBlobs => &[TroubleKind::LostContents],
            // They look themselves: not everything of that kind proves something.
            Lie::Splice | Lie::Replay | Lie::Duplicate => return,
        };
        let whom = match lie {
            // Whoever hears of both sides first.
            Lie::Fork => vec![victim, other],
            Lie::RollBack | Lie::BeginAnew => vec![other],
            _ => vec![victim],
        };
        self.tainted |= matches!(lie, Lie::RollBack | Lie::BeginAnew | Lie::Fork);
        self.found_out(&whom, found, since_ms);
    }

    fn everyone_connects(&mut self) {
        for place in 0..self.devices.len() {
            for slot in [LIAR, HONEST] {
                self.connect(place, slot);
            }
        }
        self.rest();
    }

    /// Somebody writes something, and it becomes part of their log.
    fn writes(&mut self, place: usize) {
        let mut tries = 0;
        while !self.operate(place) {
            tries += 1;
            assert!(tries < 100, "nothing can be done at device {place}");
        }
    }

    /// The writer of a device's log.
    fn writer(&self, place: usize) -> WriterId {
        self.core(place).state().writer
    }

    fn withhold(&mut self, victim: usize, other: usize, hush: Hush) {
        if hush == Hush::Entries {
            // Nobody else brings them either.
            self.disconnect(victim, HONEST);
            self.settle(victim);
        }
        self.hushed.insert(victim, hush);
        self.writes(other);
        for _ in 0..MAY_LAG + 2 {
            self.minute();
        }
    }

    fn roll_back(&mut self, other: usize) {
        let before = self.hosts[LIAR].copy();
        for _ in 0..self.rng.random_range(3..6) {
            self.writes(other);
            self.rest();
        }
        self.puts_in_its_place(before);
        self.rest();
    }

    fn begin_anew(&mut self) {
        let (secrets, grants) = (self.hosts[LIAR].secrets(), self.hosts[LIAR].grants());
        let (vault, store) = (self.core(0).state().vault, self.rng.random());
        let anew = Host::begins(secrets, vault, &grants, store, self.now_ms);
        self.puts_in_its_place(anew);
        self.rest();
    }

    /// The lying host goes on as another; everyone connects anew.
    fn puts_in_its_place(&mut self, host: Host) {
        for place in 0..self.devices.len() {
            self.disconnect(place, LIAR);
            self.settle(place);
        }
        self.hosts[LIAR] = host;
        for place in 0..self.devices.len() {
            self.connect(place, LIAR);
        }
    }

    /// The victim gets an altered message in the place of the right one.
    fn splice(&mut self, victim: usize, other: usize) {
        let since_ms = self.now_ms - 1_000;
        self.disconnect(victim, HONEST);
        self.settle(victim);
        self.hushed.insert(victim, Hush::Entries);
        for _ in 0..2 {
            self.writes(other);
        }
        self.rest();
        let writer = self.writer(other);
        let seq = self.core(victim).state().clock.seq(&writer) + 1;
        let kept = |seq| self.hosts[LIAR].entry(writer, seq);
        let (Some(bytes), Some(later)) = (kept(seq), kept(seq + 1)) else {
            panic!("the host lacks entries that it was sent");
        };
        let (entry, later) = (read(&bytes), read(&later));
        let splice = self.rng.random_range(0..SPLICES.len());
        let mut altered = entry.clone();
        let message = match splice {
            0 => {
                let at = self.rng.random_range(0..altered.body.len());
                altered.body[at] ^= 1 << self.rng.random_range(0..8);
                Message::Entries(vec![altered.encode()])
            }
            1 => {
                altered.signature.0[self.rng.random_range(0..64)] ^= 1;
                Message::Entries(vec![altered.encode()])
            }
            2 => {
                altered.body = later.body;
                altered.header.body_len = u32::try_from(altered.body.len()).unwrap_or(u32::MAX);
                Message::Entries(vec![altered.encode()])
            }
            3 => {
                // The next entry, said to follow where this one should stand.
                altered = later;
                altered.header.seq = seq;
                altered.header.prev = entry.header.prev;
                Message::Entries(vec![altered.encode()])
            }
            4 => {
                altered.header.seq += self.rng.random_range(1..9);
                altered.header.prev = later.header.prev;
                Message::Entries(vec![altered.encode()])
            }
            5 => {
                let len = self.rng.random_range(1..bytes.len());
                Message::Entries(vec![bytes[..len].to_vec()])
            }
            6 => {
                let mut bytes = bytes.clone();
                let at = self.rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << self.rng.random_range(0..8);
                Message::Entries(vec![bytes])
            }
            _ => {
                let device = self.devices[other].device;
                let Some(mut statement) = self.hosts[LIAR].held(device) else {
                    panic!("the host has no statement of a device");
                };
                if let Some(last) = statement.last_mut() {
                    *last ^= 1;
                }
                Message::Held { device, statement }
            }
        };
        let before = self.core(victim).state().clock.clone();
        self.coverage.hit("splice", SPLICES[splice]);
        self.event(format!("device {victim} gets {}", SPLICES[splice]));
        self.tell_device(victim, LIAR, message);
        self.settle(victim);
        let after = self.core(victim).state().clock.clone();
        assert_eq!(before, after, "an altered entry was taken");
        // A bit may make of it what an honest host may have: an entry of another writer, or of a newer version.
        if SPLICES[splice] != "any bit turned" {
            self.found_out(&[victim], &[TroubleKind::Forged], since_ms);
        }
    }

    /// The victim gets what it had, or what others had said, long ago.
    fn replay(&mut self, victim: usize, other: usize) {
        let since_ms = self.now_ms - 1_000;
        let id = self.hosts[LIAR].id();
        let device = self.devices[other].device;
        let old = (self.hosts[LIAR].statement(), self.hosts[LIAR].held(device));
        for _ in 0..self.rng.random_range(1..4) {
            self.now_ms += 1_000;
            self.writes(other);
            self.rest();
        }
        let (Some(own), Some(held)) = old else {
            panic!("the host has no statements");
        };
        let before = self.core(victim).state().clock.clone();
        let (name, message) = match self.rng.random_range(0..3) {
            0 => {
                let statement = own;
                (
                    "its own statement",
                    Message::Held {
                        device: id,
                        statement,
                    },
                )
            }
            1 => {
                let statement = held;
                ("a device's statement", Message::Held { device, statement })
            }
            _ => {
                let writer = self.writer(other);
                let last = self.core(victim).state().clock.seq(&writer).max(1);
                let from = self.rng.random_range(1..=last);
                let entries = (from..=last).filter_map(|seq| self.hosts[LIAR].entry(writer, seq));
                ("entries", Message::Entries(entries.collect()))
            }
        };
        self.coverage.hit("replay", name);
        self.event(format!("device {victim} gets again {name}"));
        self.tell_device(victim, LIAR, message);
        self.settle(victim);
        assert_eq!(
            before,
            self.core(victim).state().clock,
            "old entries are news"
        );
        match name {
            "its own statement" => {
                self.tainted = true;
                self.found_out(&[victim], &[TroubleKind::RolledBack], since_ms);
            }
            _ => self.says_nothing(since_ms),
        }
    }

    /// The victim gets the last message once more.
    fn duplicate(&mut self, victim: usize, other: usize) {
        let since_ms = self.now_ms - 1_000;
        self.writes(other);
        self.rest();
        let Some(message) = self.last_told.get(&victim).cloned() else {
            return;
        };
        // A second Hello ends the session, whoever says it.
        if matches!(message, Message::Hello { .. } | Message::Again { .. }) {
            return;
        }
        let before = self.core(victim).state().clock.clone();
        self.tell_device(victim, LIAR, message);
        self.settle(victim);
        assert_eq!(
            before,
            self.core(victim).state().clock,
            "a message twice is news"
        );
        self.coverage.hit("run", "messages twice");
        self.says_nothing(since_ms);
    }

    /// Nobody complains of what proves nothing.
    fn says_nothing(&self, since_ms: u64) {
        let complaints = self.complaints(LIAR, since_ms);
        assert!(complaints.is_empty(), "nothing is proven: {complaints:?}");
    }

    /// The host keeps the victim and the others apart, and says to each what it has of theirs. Then they meet elsewhere.
    fn fork(&mut self, victim: usize, other: usize) {
        let branch = self.hosts[LIAR].copy();
        let slot = self.hosts.len();
        self.hosts.push(branch);
        for place in 0..self.devices.len() {
            self.disconnect(place, HONEST);
            self.settle(place);
        }
        self.disconnect(victim, LIAR);
        self.settle(victim);
        self.connect(victim, slot);
        for place in [victim, other] {
            for _ in 0..self.rng.random_range(1..4) {
                self.writes(place);
                self.rest();
            }
        }
        for place in [victim, other] {
            self.connect(place, HONEST);
        }
        self.rest();
        self.disconnect(victim, slot);
        self.settle(victim);
        self.hosts.truncate(slot);
    }

    /// Blobs are gone, or others than they were, that the victim knows to be there.
    fn drop_blobs(&mut self, victim: usize) {
        let mut tries = 0;
        let blob = loop {
            self.bring(victim, LIAR, true);
            if let Some(blob) = self.challenge(victim, LIAR) {
                break blob;
            }
            self.writes(victim);
            self.rest();
            tries += 1;
            assert!(tries < 500, "no contents are made");
        };
        let (name, bytes) = match self.rng.random_range(0..3) {
            0 => ("lost, and asked about", None),
            1 => ("lost", None),
            _ => {
                let mut bytes = blob_bytes(blob);
                for byte in &mut bytes {
                    *byte ^= 0x55;
                }
                ("damaged", Some(bytes))
            }
        };
        self.coverage.hit("blobs", name);
        let is_damaged = bytes.is_some();
        self.hosts[LIAR].damage(blob, bytes);
        if name == "lost, and asked about" {
            self.bring(victim, LIAR, true);
            return;
        }
        for tries in 0.. {
            assert!(tries < 2000, "a blob is never asked for");
            if self.challenge(victim, LIAR) == Some(blob) {
                break;
            }
        }
        if is_damaged {
            // The host's person puts a good disk in: who asks whether the blob is there was told so all along.
            self.hosts[LIAR].damage(blob, Some(blob_bytes(blob)));
        }
    }
}

fn read(bytes: &[u8]) -> Entry {
    let entry = Entry::decode(bytes);
    entry.unwrap_or_else(|error| panic!("an entry that a host keeps: {error}"))
}
