//! The devices of a household and their hosts: who is connected, what goes over, and what is brought.

use std::collections::BTreeMap;

use coffer_node::hosts::watch::Lagging;
use coffer_node::hosts::{HostChange, TroubleKind};
use coffer_node::vault::core::Ticket;
use coffer_node::vault::{Admission, CommitError, CommitRequest, Core, Input, Output};
use coffer_protocol::grants::Role;
use coffer_protocol::identity::{DeviceId, DeviceKey};
use coffer_protocol::replication::{Message, Outbox, Work};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::host::Host;
use super::{ACTS, name_of};
use crate::Report;
use crate::coverage::Coverage;
use crate::ledger::Ledger;
use crate::operations::{Issued, Person};
use crate::oracle;
use crate::replica::{Node, Origin, Replica, Session};
use crate::trace::Trace;

/// Devices of a household.
const DEVICES: usize = 3;
/// Rounds in which a household at rest must have nothing more to say.
const ROUNDS: usize = 500;
/// The host that lies.
pub const LIAR: usize = 0;
/// The one that does not.
pub const HONEST: usize = 1;

/// What the lying host does not pass on to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hush {
    /// Entries.
    Entries,
    /// Anything at all.
    All,
}

/// Everything of a run.
pub struct Household {
    pub(super) rng: ChaCha8Rng,
    pub(super) now_ms: u64,
    pub(super) devices: Vec<Replica>,
    pub(super) hosts: Vec<Host>,
    pub(super) coverage: Coverage,
    pub(super) hushed: BTreeMap<usize, Hush>,
    /// The last message of the lying host to each device.
    pub(super) last_told: BTreeMap<usize, Message>,
    /// What the lying host has said cannot be unsaid: it is to be left.
    pub(super) tainted: bool,
    ledger: Ledger,
    trace: Trace,
    next_ticket: Ticket,
    lagging: BTreeMap<(usize, usize), Lagging>,
}

impl Drop for Household {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("The last events:\n{}", self.trace.story());
        }
    }
}

impl Household {
    /// Three devices that have both hosts in use.
    pub fn new(seed: u64) -> Household {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let founder = Replica::new("device 0".into(), Origin::Founds, &mut rng);
        let mut household = Household {
            rng,
            now_ms: 1_790_000_000_000,
            devices: vec![founder],
            hosts: Vec::new(),
            coverage: Coverage::default(),
            hushed: BTreeMap::new(),
            last_told: BTreeMap::new(),
            tainted: false,
            ledger: Ledger::default(),
            trace: Trace::default(),
            next_ticket: 0,
            lagging: BTreeMap::new(),
        };
        household.start(0);
        for number in 1..DEVICES {
            let name = format!("device {number}");
            let device = Replica::new(name.clone(), Origin::Founds, &mut household.rng);
            let sealing = device.identity().sealing.public();
            household.admit(Admission {
                device: device.device,
                sealing,
                name,
                role: Role::Owner,
            });
            household.devices.push(device);
        }
        for name in ["liar", "honest"] {
            let host = household.new_host(name);
            household.hosts.push(host);
        }
        for place in 1..DEVICES {
            let welcome = household.core(0).welcome();
            household.devices[place].joins(welcome);
            household.start(place);
        }
        household.calm();
        household
    }

    /// What the run leaves.
    pub fn report(&self) -> Report {
        Report {
            hash: self.trace.hash(),
            coverage: self.coverage.clone(),
        }
    }

    pub(super) fn event(&mut self, event: String) {
        let at = self.now_ms % 100_000_000;
        self.trace.event(format!("{at:>8} {event}"));
    }

    fn node(&mut self, place: usize) -> &mut Node {
        let device = &mut self.devices[place];
        match &mut device.node {
            Some(node) => node,
            None => panic!("{} does not run", device.name),
        }
    }

    pub(super) fn core(&self, place: usize) -> &Core {
        let device = &self.devices[place];
        match &device.node {
            Some(node) => &node.core,
            None => panic!("{} does not run", device.name),
        }
    }

    fn start(&mut self, place: usize) {
        let started = self.devices[place].start(self.now_ms, &mut self.rng);
        started.unwrap_or_else(|error| panic!("a device does not start: {error}"));
    }

    /// A device ends and starts again: what it remembers of its hosts must be on its disk.
    pub(super) fn restart(&mut self, place: usize) {
        for slot in 0..self.hosts.len() {
            self.disconnect(place, slot);
        }
        self.settle(place);
        self.devices[place].stop();
        self.start(place);
        self.coverage.hit("run", "restarts");
    }

    fn admit(&mut self, admission: Admission) {
        let device = admission.device;
        self.node(0).inbox.push(Input::Admit(0, admission));
        self.settle(0);
        let is_member = self.core(0).state().membership.is_member(&device);
        assert!(is_member, "nobody was admitted");
    }

    /// A host that the first device takes into use.
    fn new_host(&mut self, name: &str) -> Host {
        let secrets = [self.rng.random(), self.rng.random()];
        self.admit(Admission {
            device: DeviceKey::from_secret(secrets[0]).id(),
            sealing: Host::sealing(secrets).public(),
            name: name.into(),
            role: Role::Relay,
        });
        let welcome = self.core(0).welcome();
        let store = self.rng.random();
        Host::begins(secrets, welcome.vault, &welcome.grants, store, self.now_ms)
    }

    /// Opens a session with a host.
    pub(super) fn connect(&mut self, place: usize, slot: usize) {
        let (device, host) = (self.devices[place].device, self.hosts[slot].id());
        let node = self.node(place);
        if node.sessions.contains_key(&host) {
            return;
        }
        let session = Session {
            connection: slot as u64,
            outbox: Outbox::new(),
            sending: None,
        };
        node.sessions.insert(host, session);
        node.inbox.push(Input::Connected(host));
        self.hosts[slot].connect(device);
        self.event(format!("device {place} connects to host {slot}"));
    }

    /// Ends it.
    pub(super) fn disconnect(&mut self, place: usize, slot: usize) {
        let (device, host) = (self.devices[place].device, self.hosts[slot].id());
        self.hosts[slot].disconnect(device);
        let node = self.node(place);
        let session = node.sessions.get(&host);
        if session.is_some_and(|session| session.connection == slot as u64) {
            node.sessions.remove(&host);
            node.inbox.push(Input::Disconnected(host));
            self.event(format!("device {place} loses host {slot}"));
        }
    }

    pub(super) fn is_connected(&self, place: usize, slot: usize) -> bool {
        let node = self.devices[place].node.as_ref();
        let session = node.and_then(|node| node.sessions.get(&self.hosts[slot].id()));
        session.is_some_and(|session| session.connection == slot as u64)
    }

    /// A person does something at a device. False where it was not possible.
    pub(super) fn operate(&mut self, place: usize) -> bool {
        self.settle(place);
        let act = ACTS[self.rng.random_range(0..ACTS.len())];
        let device = &mut self.devices[place];
        let wall_ms = device.wall_ms(self.now_ms);
        let Some(node) = &device.node else {
            return false;
        };
        let person = Person::new(&node.core, &mut self.ledger, &mut self.rng, wall_ms);
        let drawn = person.act(act);
        let Some((request, issued, bytes)) = drawn.unwrap_or_else(|error| panic!("{error}")) else {
            return false;
        };
        device.bytes.extend(bytes);
        self.coverage.hit("operation", act.name());
        self.event(format!("device {place} asks {:?}", request.operations));
        self.request(place, request, issued);
        true
    }

    fn request(&mut self, place: usize, request: CommitRequest, issued: Issued) {
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        let node = self.node(place);
        node.tickets.insert(ticket, issued);
        node.inbox.push(Input::Commit(ticket, Box::new(request)));
        self.settle(place);
    }

    /// Notes what was learnt of a host.
    pub(super) fn note(&mut self, place: usize, hosts: Vec<HostChange>) {
        if hosts.is_empty() {
            return;
        }
        self.event(format!("device {place} notes {hosts:?}"));
        let request = CommitRequest {
            hosts,
            ..CommitRequest::default()
        };
        self.request(place, request, Issued::default());
    }

    /// All that is in a device's inbox is done.
    pub(super) fn settle(&mut self, place: usize) {
        let wall_ms = self.devices[place].wall_ms(self.now_ms);
        loop {
            let node = self.node(place);
            let inputs = std::mem::take(&mut node.inbox);
            if inputs.is_empty() {
                return;
            }
            for output in node.core.process(inputs, wall_ms) {
                self.publish(place, output);
            }
        }
    }

    fn publish(&mut self, place: usize, output: Output) {
        match output {
            Output::Committed(ticket, result) => {
                let Some(issued) = self.node(place).tickets.remove(&ticket) else {
                    panic!("an answer to nothing that was asked");
                };
                match result {
                    Ok(committed) => self.acknowledged(place, issued, &committed.changed),
                    Err(CommitError::NotFound(_)) => {}
                    Err(error) => panic!("device {place} refuses: {error}"),
                }
            }
            Output::To(host, action) => {
                if let Some(session) = self.node(place).sessions.get_mut(&host) {
                    let rest = session.outbox.push(action);
                    assert!(rest.is_none(), "an action that is none of a session's");
                }
            }
            Output::Close(host, reason) => self.closed(place, host, &reason),
            Output::Forked(writer, seq) => panic!("the log of {writer} forks at {seq}"),
            Output::StoreClosed(error) => panic!("a device's database closes: {error}"),
            other => self.trace.bytes("output", format!("{other:?}").as_bytes()),
        }
    }

    fn closed(&mut self, place: usize, host: DeviceId, reason: &str) {
        self.event(format!("device {place} ends a session: {reason}"));
        let session = self.node(place).sessions.get(&host);
        if let Some(slot) = session.map(|session| session.connection) {
            self.disconnect(place, usize::try_from(slot).unwrap_or(usize::MAX));
        }
    }

    fn acknowledged(&mut self, place: usize, issued: Issued, changed: &[(String, String)]) {
        for (id, typed) in issued.typed {
            let known = self.ledger.typed.get_mut(&id);
            if let Some(typed) = known.and_then(|all| all.get_mut(&typed)) {
                typed.acknowledged = true;
            }
        }
        self.ledger.files.extend(issued.created);
        let actor = self.core(place).state().writer.actor();
        for (doctype, id) in changed {
            let changes = oracle::changes_of(self.core(place).database(), doctype, id, actor);
            let changes = changes.unwrap_or_else(|error| panic!("{error}"));
            let document = (doctype.clone(), id.clone());
            let known = &mut self.devices[place].acknowledged;
            known.entry(document).or_default().extend(changes);
        }
    }

    /// One message each way between some pairs. False if nobody had anything to say.
    pub(super) fn exchange(&mut self) -> bool {
        let mut any = false;
        for place in 0..self.devices.len() {
            self.settle(place);
            for slot in 0..self.hosts.len() {
                if self.is_connected(place, slot) {
                    any |= self.say(place, slot);
                    any |= self.hear(place, slot);
                    self.settle(place);
                }
            }
        }
        any
    }

    /// A device sends one thing to a host.
    fn say(&mut self, place: usize, slot: usize) -> bool {
        let (device, host) = (self.devices[place].device, self.hosts[slot].id());
        let node = self.node(place);
        let Some(session) = node.sessions.get_mut(&host) else {
            return false;
        };
        let Some(work) = session.outbox.take_next() else {
            return false;
        };
        let message = match work {
            Work::Message(message) => message,
            Work::Grants { they_have } => node.core.grants_after(&they_have),
            Work::Entries {
                writer,
                from,
                to,
                ranges,
            } => {
                let run = node.core.run_of(writer, (from, to), ranges);
                let run = run.unwrap_or_else(|error| panic!("{error}"));
                let run = run.expect("entries that were to be sent are there");
                session.outbox.sent(writer, run.last);
                match run.message {
                    Some(message) => message,
                    None => return true,
                }
            }
            Work::Range(_) | Work::Attestations(_) => {
                let message = node.core.range_of(&work);
                match message.unwrap_or_else(|error| panic!("{error}")) {
                    Some(message) => message,
                    None => return true,
                }
            }
            Work::Close(reason) => {
                self.closed(place, host, &format!("{reason:?}"));
                return true;
            }
        };
        let bytes = message.encode();
        self.trace.bytes("to host", &bytes);
        let message = Message::decode(&bytes);
        let message = message.unwrap_or_else(|error| panic!("a message: {error}"));
        self.hosts[slot].receive(device, message);
        true
    }

    /// A host sends one thing to a device, unless it keeps it to itself.
    fn hear(&mut self, place: usize, slot: usize) -> bool {
        let hush = self.hushed.get(&place).filter(|_| slot == LIAR).copied();
        if hush == Some(Hush::All) {
            return false;
        }
        let device = self.devices[place].device;
        let Some(messages) = self.hosts[slot].next(device) else {
            return false;
        };
        for message in messages {
            if hush == Some(Hush::Entries) && matches!(message, Message::Entries(_)) {
                self.event(format!("entries are withheld from device {place}"));
                continue;
            }
            if slot == LIAR {
                self.last_told.insert(place, message.clone());
            }
            self.tell_device(place, slot, message);
        }
        true
    }

    /// A device gets a message of a host.
    pub(super) fn tell_device(&mut self, place: usize, slot: usize, message: Message) {
        let host = self.hosts[slot].id();
        let bytes = message.encode();
        self.trace.bytes("to device", &bytes);
        let message = Message::decode(&bytes);
        let message = message.unwrap_or_else(|error| panic!("a message: {error}"));
        self.node(place).inbox.push(Input::Message(host, message));
    }

    /// Everything is said that there is to say, statements included.
    pub(super) fn rest(&mut self) {
        for _ in 0..ROUNDS {
            if self.exchange() {
                continue;
            }
            let mut any = false;
            for host in &mut self.hosts {
                any |= host.state_if_new(self.now_ms);
            }
            for place in 0..self.devices.len() {
                if self.core(place).held_is_stale() {
                    self.node(place).inbox.push(Input::StateHeld);
                    any = true;
                }
            }
            if !any {
                return;
            }
        }
        panic!("the household does not come to rest");
    }

    /// A minute passes, and each device looks at the hosts that it is connected to.
    pub(super) fn minute(&mut self) {
        self.now_ms += 60_000;
        self.rest();
        for place in 0..self.devices.len() {
            for slot in 0..self.hosts.len() {
                if !self.is_connected(place, slot) {
                    continue;
                }
                let host = self.hosts[slot].id();
                let mut lagging = self.lagging.remove(&(place, slot)).unwrap_or_default();
                if lagging.look_at(self.core(place), host) {
                    let trouble = HostChange::Trouble(host, TroubleKind::Withholds);
                    self.note(place, vec![trouble]);
                }
                self.lagging.insert((place, slot), lagging);
            }
        }
    }

    /// What devices have against a host since a moment: whose, and what.
    pub(super) fn complaints(&self, slot: usize, since_ms: u64) -> Vec<(String, TroubleKind)> {
        let (mut found, host) = (Vec::new(), self.hosts[slot].id());
        for (place, device) in self.devices.iter().enumerate() {
            let since_ms = device.wall_ms(since_ms);
            let memory = self.core(place).state().hosts.get(&host);
            let troubles = memory.into_iter().flat_map(|memory| &memory.troubles);
            let troubles = troubles.filter(|trouble| trouble.last_ms > since_ms);
            found.extend(troubles.map(|trouble| (device.name.clone(), trouble.kind)));
        }
        found
    }

    /// Both hosts are honest, everyone is connected to both, and all that there is to say and to bring is said and brought.
    pub(super) fn calm(&mut self) {
        self.hushed.clear();
        if std::mem::take(&mut self.tainted) {
            self.change_hosts();
        }
        for place in 0..self.devices.len() {
            for slot in 0..self.hosts.len() {
                self.disconnect(place, slot);
                self.settle(place);
                self.connect(place, slot);
            }
        }
        self.rest();
        for place in 0..self.devices.len() {
            for slot in 0..self.hosts.len() {
                self.bring(place, slot, true);
            }
        }
        self.rest();
        self.now_ms += 1_000;
    }

    /// The devices leave the lying host for another one. What it has said in two ways would be found out again and again.
    fn change_hosts(&mut self) {
        for place in 0..self.devices.len() {
            self.disconnect(place, LIAR);
            self.settle(place);
            self.connect(place, HONEST);
        }
        let host = self.new_host("another");
        self.rest();
        self.hosts[LIAR] = host;
        self.lagging.retain(|(_, slot), _| *slot != LIAR);
        self.coverage.hit("run", "changes of hosts");
    }

    /// All agree, nothing that was acknowledged is lost, and nothing is there that its author did not write.
    pub(super) fn check_end(&mut self) {
        let picture = |place: usize| oracle::picture(&self.devices[place].name, self.core(place));
        let first = picture(0);
        for place in 1..self.devices.len() {
            if let Some(difference) = first.difference(&picture(place)) {
                panic!("device 0 and device {place}: {difference}");
            }
        }
        for host in &self.hosts {
            assert_eq!(&host.clock(), first.clock(), "a host has another clock");
        }
        for device in &self.devices {
            let database = self.core(0).database();
            oracle::check_acknowledged(&device.name, database, &device.acknowledged);
        }
        oracle::check_complete(self.core(0), &self.ledger);
        let entries: u64 = first.clock().iter().map(|(_, seq, _)| seq).sum();
        self.coverage.add("run", "entries", entries);
        self.trace
            .bytes("clock", format!("{:?}", first.clock()).as_bytes());
    }

    /// What must have been found out: by one of these devices at least, one of these troubles, since then.
    pub(super) fn found_out(&mut self, places: &[usize], kinds: &[TroubleKind], since_ms: u64) {
        let complaints = self.complaints(LIAR, since_ms);
        let names: Vec<&String> = places
            .iter()
            .map(|place| &self.devices[*place].name)
            .collect();
        let mut found = complaints
            .iter()
            .filter(|(device, kind)| names.contains(&device) && kinds.contains(kind));
        let Some((_, kind)) = found.next() else {
            panic!("none of {names:?} found out {kinds:?}, but {complaints:?}");
        };
        let kind = *kind;
        self.coverage.hit("found out", name_of(kind));
        self.event(format!("it is found out: {kind:?}"));
    }
}
