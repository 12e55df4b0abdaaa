//! The fleet and its days: random steps, then healing.

use std::collections::{BTreeMap, BTreeSet};

use coffer_node::vault::core::Ticket;
use coffer_node::vault::{Admission, CommitError, Input, Output};
use coffer_protocol::grants::Role;
use coffer_protocol::identity::DeviceId;
use coffer_protocol::replication::{Action, Message, Outbox, Work};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::Report;
use crate::coverage::Coverage;
use crate::disk::{Call, Crash};
use crate::ledger::Ledger;
use crate::network::{ConnectionId, Network, Received};
use crate::operations::{Act, Issued, Person, all_arrived};
use crate::oracle;
use crate::replica::{Origin, Replica, Session};
use crate::trace::Trace;

/// Devices that a fleet begins with.
const FIRST: usize = 3;
/// Devices and copies that it may grow to.
const MOST: usize = 5;
/// Random steps of a run.
const STEPS: usize = 500;
/// Rounds in which a healed fleet must come to rest. A round lets everyone send and process all that they have; the
/// longest chain of cause and effect (an edit through all replicas, statements, bytes, statements again) is far shorter.
const ROUNDS: usize = 400;
/// Times that copies of one data folder take turns until all must agree.
const TURNS: usize = 8;

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
    /// While it heals, nothing breaks.
    healing: bool,
    /// Replicas that cannot reach the others.
    apart: Option<BTreeSet<usize>>,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("The last events:\n{}", self.trace.story());
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
            healing: true,
            apart: None,
        };
        fleet.start(0);
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
            0..280 => self.operate(place),
            280..460 => self.each(Fleet::tick),
            460..630 => self.each(Fleet::send_some),
            630..770 => self.deliver_some(),
            770..840 => self.connect_some(place),
            840..846 => self.cut_some(),
            846..930 => self.misbehave(),
            930..950 => self.input(place, Input::StateHeld),
            950..960 => self.light_fuse(place),
            960..966 => self.pull_the_plug(place),
            966..971 => self.restart(place),
            971..975 => self.fill_up(place),
            975..979 => self.copy(place),
            979..983 => self.admit(place),
            983..988 => self.partition(),
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

    // Starting and dying.

    fn start(&mut self, place: usize) {
        if !self.healing && self.rng.random_bool(0.1) {
            let calls = self.rng.random_range(0..40);
            self.replicas[place].disk.light_fuse(calls);
        }
        let (now_ms, rng) = (self.now_ms, &mut self.rng);
        if rng.random_bool(0.3) {
            self.replicas[place].skew_ms = rng.random_range(-120_000..120_000);
        }
        match self.replicas[place].start(now_ms, rng) {
            Ok(()) => {
                self.replicas[place].disk.remove_fuse();
                if !self.healing && self.rng.random_bool(0.1) {
                    // Nothing is in the cache yet: it will die while it reads.
                    let calls = self.rng.random_range(0..5);
                    self.replicas[place].disk.light_fuse(calls);
                }
                self.event(format!("{} starts", self.replicas[place].name));
                let replica = &self.replicas[place];
                if let Some(node) = &replica.node {
                    oracle::check_acknowledged(
                        &replica.name,
                        node.core.database(),
                        &replica.acknowledged,
                    );
                }
            }
            Err(error) => {
                if self.replicas[place].died_in().is_none() {
                    assert!(
                        self.replicas[place].disk.was_full(),
                        "{} does not start: {error}",
                        self.replicas[place].name
                    );
                    self.coverage.hit("fault", "disk full at the start");
                    self.replicas[place].disk.remove_fuse();
                    return;
                }
                self.coverage.hit("crash point", "while opening");
                self.die(place);
            }
        }
    }

    /// The machine dies; what is on its disk decides how it goes on.
    fn die(&mut self, place: usize) {
        let how = Crash::ALL[self.rng.random_range(0..Crash::ALL.len())];
        self.coverage.hit("crash", crash_name(how));
        let connections = self.replicas[place].die(how, &mut self.rng);
        self.replicas[place].off_until_ms = self.now_ms + self.rng.random_range(0..1500);
        self.event(format!(
            "{} dies: {}",
            self.replicas[place].name,
            crash_name(how)
        ));
        for connection in connections {
            match self.rng.random_bool(0.5) {
                true => self.network.close(connection, place),
                false => self.network.cut(connection),
            }
        }
    }

    fn light_fuse(&mut self, place: usize) {
        let calls = self.rng.random_range(0..60);
        self.event(format!(
            "the machine of {} will die after {calls} calls",
            self.replicas[place].name
        ));
        self.replicas[place].disk.light_fuse(calls);
    }

    fn pull_the_plug(&mut self, place: usize) {
        let Some(node) = &self.replicas[place].node else {
            return;
        };
        let point = match (node.outputs.is_empty(), node.inbox.is_empty()) {
            (false, _) => "after the commit, before the answers",
            (true, false) => "before the batch",
            (true, true) => "at rest",
        };
        self.coverage.hit("crash point", point);
        self.die(place);
    }

    fn restart(&mut self, place: usize) {
        if self.replicas[place].node.is_none() || self.replicas[place].died_in().is_some() {
            return;
        }
        self.coverage.hit("fault", "clean restart");
        self.settle(place);
        self.end(place);
    }

    /// Ends a replica cleanly, if its machine still can.
    fn end(&mut self, place: usize) {
        let Some(node) = &self.replicas[place].node else {
            return;
        };
        let connections: Vec<ConnectionId> = node
            .sessions
            .values()
            .map(|session| session.connection)
            .collect();
        for connection in connections {
            self.network.close(connection, place);
        }
        self.replicas[place].disk.remove_fuse();
        self.replicas[place].stop();
        self.event(format!("{} stops", self.replicas[place].name));
        if self.replicas[place].died_in().is_some() {
            self.die(place);
        }
    }

    fn fill_up(&mut self, place: usize) {
        let writes = self.rng.random_range(0..6);
        self.event(format!(
            "the disk of {} will be full",
            self.replicas[place].name
        ));
        self.replicas[place].disk.fill_up(writes);
    }

    fn copy(&mut self, place: usize) {
        let copied = self
            .replicas
            .iter()
            .filter(|replica| replica.device == self.replicas[place].device)
            .count()
            > 1;
        let began = self.replicas[place].node.is_some();
        if self.replicas.len() >= MOST || copied || !began {
            return;
        }
        // Somebody stops the node and copies the folder, or restores last night's snapshot of a running one.
        if self.rng.random_bool(0.5) {
            self.restart(place);
        }
        let name = format!("copy of {}", self.replicas[place].name);
        self.event(format!("{name} appears"));
        self.coverage.hit("fault", "copied data folder");
        let copy = self.replicas[place].copy(name, &mut self.rng);
        self.replicas.push(copy);
    }

    fn admit(&mut self, place: usize) {
        if self.replicas.len() + self.newcomers.len() >= MOST {
            return;
        }
        let number = self.replicas.len() + self.newcomers.len();
        let newcomer = Replica::new(format!("device {number}"), Origin::Founds, &mut self.rng);
        let sealing = newcomer.identity().sealing.public();
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        let admission = Admission {
            device: newcomer.device,
            sealing,
            name: newcomer.name.clone(),
            role: Role::Owner,
        };
        if self.replicas[place].node.is_some() {
            self.event(format!(
                "{} is asked to admit {}",
                self.replicas[place].name, newcomer.name
            ));
            self.newcomers.insert(ticket, newcomer);
            self.input(place, Input::Admit(ticket, admission));
        }
    }

    // What goes on in one replica.

    fn input(&mut self, place: usize, input: Input) {
        if let Some(node) = &mut self.replicas[place].node {
            node.inbox.push(input);
        }
    }

    fn operate(&mut self, place: usize) {
        // What is not possible as things are is left, and something else done.
        (0..3).any(|_| {
            let act = Act::draw(&mut self.rng);
            self.act(place, act)
        });
    }

    /// Does something in one replica. False if there is nothing there to do it with.
    fn act(&mut self, place: usize, act: Act) -> bool {
        if matches!(act, Act::Type | Act::Erase | Act::Batch) {
            // Who types sees what has arrived: a text is written against what was shown.
            self.settle(place);
        }
        let replica = &mut self.replicas[place];
        let wall_ms = replica.wall_ms(self.now_ms);
        let Some(node) = &mut replica.node else {
            return true;
        };
        let person = Person::new(&node.core, &mut self.ledger, &mut self.rng, wall_ms);
        match person.act(act) {
            Ok(Some((request, issued, bytes))) => {
                self.next_ticket += 1;
                let ticket = self.next_ticket;
                replica.bytes.extend(bytes);
                node.tickets.insert(ticket, issued);
                node.inbox.push(Input::Commit(ticket, request.clone()));
                let event = format!("{} asks {ticket}: {:?}", replica.name, request.operations);
                self.event(event);
            }
            Ok(None) => return false,
            Err(error) => self.storage_failed(place, &error.to_string()),
        }
        true
    }

    /// Reading failed: the machine died, or its disk was full before and the database has given up.
    fn storage_failed(&mut self, place: usize, error: &str) {
        if let Some(call) = self.replicas[place].died_in() {
            self.coverage.hit("crash point", call_name(call));
            return self.die(place);
        }
        assert!(
            self.replicas[place].disk.was_full(),
            "{}: the store failed: {error}",
            self.replicas[place].name
        );
        self.end(place);
    }

    /// One batch, or the publishing of the last one's outputs.
    fn tick(&mut self, place: usize) {
        let now_ms = self.now_ms;
        let replica = &mut self.replicas[place];
        let wall_ms = replica.wall_ms(now_ms);
        let Some(node) = &mut replica.node else {
            return;
        };
        if !node.outputs.is_empty() {
            return self.publish(place);
        }
        if node.inbox.is_empty() {
            return;
        }
        let inputs = std::mem::take(&mut node.inbox);
        let outputs = node.core.process(inputs, wall_ms);
        node.outputs.extend(outputs);
        if let Some(call) = replica.died_in() {
            self.coverage.hit("crash point", call_name(call));
            return self.die(place);
        }
        oracle::check_statement(&mut self.replicas[place]);
        if self.rng.random_bool(0.7) {
            self.publish(place);
        }
    }

    /// All that is in its inbox is done and answered.
    fn settle(&mut self, place: usize) {
        for _ in 0..2 {
            self.tick(place);
            self.publish(place);
        }
    }

    fn publish(&mut self, place: usize) {
        while let Some(output) = self.replicas[place]
            .node
            .as_mut()
            .and_then(|node| node.outputs.pop_front())
        {
            self.publish_one(place, output);
        }
        if self.replicas[place].disk.was_full() {
            // A redb that met an error of the disk wants to be opened anew.
            self.coverage.hit("fault", "disk full");
            self.end(place);
        }
    }

    fn publish_one(&mut self, place: usize, output: Output) {
        match output {
            Output::Committed(ticket, result) => {
                let Some(issued) = self.replicas[place]
                    .node
                    .as_mut()
                    .and_then(|node| node.tickets.remove(&ticket))
                else {
                    panic!("an answer to nothing that was asked");
                };
                match result {
                    Ok(committed) => {
                        self.event(format!(
                            "{} answers {ticket}: {}",
                            self.replicas[place].name, committed.transaction
                        ));
                        self.acknowledged(place, issued, &committed.changed);
                    }
                    Err(error) => self.refused(place, ticket, &issued, &error),
                }
            }
            Output::Admitted(ticket, result) => {
                let Some(mut newcomer) = self.newcomers.remove(&ticket) else {
                    panic!("an admission that nobody asked for")
                };
                match result {
                    Ok(welcome) => {
                        self.event(format!(
                            "{} admits {}",
                            self.replicas[place].name, newcomer.name
                        ));
                        self.coverage.hit("fault", "device admitted");
                        newcomer.joins(welcome);
                        self.replicas.push(newcomer);
                    }
                    Err(error) => assert!(
                        is_storage(&error),
                        "{}: a device was not admitted: {error}",
                        self.replicas[place].name
                    ),
                }
            }
            Output::To(device, action) => {
                match &action {
                    Action::Send { message, .. } => self.trace.bytes("send", &message.encode()),
                    other => self.trace.bytes("to", format!("{other:?}").as_bytes()),
                }
                let session = self.replicas[place]
                    .node
                    .as_mut()
                    .and_then(|node| node.sessions.get_mut(&device));
                if let Some(session) = session {
                    let rest = session.outbox.push(action);
                    assert!(
                        rest.is_none(),
                        "an action for the shell was sent to a session: {rest:?}"
                    );
                }
            }
            Output::Close(device, reason) => {
                self.event(format!(
                    "{} ends the session with {device:?}: {reason}",
                    self.replicas[place].name
                ));
                if let Some(session) = self.replicas[place]
                    .node
                    .as_mut()
                    .and_then(|node| node.sessions.remove(&device))
                {
                    self.network.close(session.connection, place);
                }
            }
            Output::Changed(changes) => self
                .trace
                .bytes("changed", format!("{changes:?}").as_bytes()),
            Output::MembersChanged => self.trace.bytes("members", &[]),
            Output::HeldChanged => self.trace.bytes("held", &[]),
            Output::Forked(writer, seq) => panic!("the log of {writer} forks at {seq}"),
        }
    }

    fn acknowledged(&mut self, place: usize, issued: Issued, changed: &[(String, String)]) {
        assert!(
            !issued.must_fail,
            "a request was carried out that cannot be"
        );
        for act in issued.acts {
            self.coverage.hit("operation", act);
        }
        for (id, typed) in issued.typed {
            if let Some(typed) = self
                .ledger
                .typed
                .get_mut(&id)
                .and_then(|all| all.get_mut(&typed))
            {
                typed.acknowledged = true;
            }
        }
        for (id, erased) in issued.erased {
            if let Some(typed) = self
                .ledger
                .typed
                .get_mut(&id)
                .and_then(|all| all.get_mut(&erased))
            {
                typed.erased = true;
            }
        }
        self.ledger.files.extend(issued.created);
        let replica = &mut self.replicas[place];
        let Some(node) = &replica.node else { return };
        let actor = node.core.state().writer.actor();
        for (doctype, id) in changed {
            match oracle::changes_of(node.core.database(), doctype, id, actor) {
                Ok(changes) => {
                    assert!(
                        !changes.is_empty(),
                        "{}: an acknowledged change of {doctype}/{id} is not there",
                        replica.name
                    );
                    replica
                        .acknowledged
                        .entry((doctype.clone(), id.clone()))
                        .or_default()
                        .extend(changes);
                }
                // The machine dies while the oracle looks: the next start will show.
                Err(error) => assert!(replica.died_in().is_some(), "{error}"),
            }
        }
    }

    fn refused(&mut self, place: usize, ticket: Ticket, issued: &Issued, error: &CommitError) {
        self.event(format!(
            "{} refuses {ticket}: {error}",
            self.replicas[place].name
        ));
        match error {
            CommitError::NotFound(_) if issued.must_fail => {
                self.coverage.hit("operation", "refused")
            }
            // Two people at one device delete one document.
            CommitError::NotFound(_)
                if issued
                    .acts
                    .iter()
                    .any(|act| matches!(*act, "delete" | "batch")) => {}
            CommitError::DiskFull => self.coverage.hit("fault", "told that the disk is full"),
            error => assert!(
                is_storage(error),
                "{} refuses {:?}: {error}",
                self.replicas[place].name,
                issued.acts
            ),
        }
    }

    // What goes on between replicas.

    /// Opens a session, as the side with the smaller id does when a connection is there.
    fn connect(&mut self, a: usize, b: usize) -> bool {
        let [one, other] = [a, b].map(|place| self.replicas[place].device);
        let (Some(first), Some(second)) = (&self.replicas[a].node, &self.replicas[b].node) else {
            return false;
        };
        if one == other {
            return false;
        }
        let known = first.core.state().membership.is_member(&other)
            && second.core.state().membership.is_member(&one);
        if !known {
            self.coverage.hit("fault", "stranger turned away");
            self.event(format!(
                "{} and {} are strangers",
                self.replicas[a].name, self.replicas[b].name
            ));
            return false;
        }
        let connection = self.network.connect(a, b);
        self.event(format!(
            "{} and {} connect",
            self.replicas[a].name, self.replicas[b].name
        ));
        for (place, device) in [(a, other), (b, one)] {
            let Some(node) = &mut self.replicas[place].node else {
                continue;
            };
            let session = Session {
                connection,
                outbox: Outbox::new(),
                sending: None,
            };
            if let Some(replaced) = node.sessions.insert(device, session) {
                self.network.close(replaced.connection, place);
                node.inbox.push(Input::Disconnected(device));
            }
            node.inbox.push(Input::Connected(device));
        }
        true
    }

    fn connect_some(&mut self, a: usize) {
        let b = self.rng.random_range(0..self.replicas.len());
        let device = self.replicas[b].device;
        let connected = self.replicas[a]
            .node
            .as_ref()
            .is_some_and(|node| node.sessions.contains_key(&device));
        let reachable = self
            .apart
            .as_ref()
            .is_none_or(|apart| apart.contains(&a) == apart.contains(&b));
        if reachable && (!connected || self.rng.random_bool(0.1)) {
            self.connect(a, b);
        }
    }

    fn cut_some(&mut self) {
        let all: Vec<_> = self.network.connections().collect();
        if let Some((id, _)) = self.pick(&all) {
            self.coverage.hit("fault", "connection cut");
            self.network.cut(id);
        }
    }

    /// Cuts everything between two halves of the fleet.
    fn partition(&mut self) {
        let half: BTreeSet<usize> = (0..self.replicas.len())
            .filter(|_| self.rng.random_bool(0.5))
            .collect();
        self.coverage.hit("fault", "partition");
        let across: Vec<ConnectionId> = self
            .network
            .connections()
            .filter(|(_, [a, b])| half.contains(a) != half.contains(b))
            .map(|(id, _)| id)
            .collect();
        for id in across {
            self.network.cut(id);
        }
        self.apart = Some(half);
    }

    fn misbehave(&mut self) {
        let busy = self.network.busy();
        let Some((id, to)) = self.pick(&busy) else {
            return;
        };
        let (network, rng) = (&mut self.network, &mut self.rng);
        let done = match rng.random_range(0..6) {
            0 => network.duplicate(id, to).then_some("message duplicated"),
            1 => network.reorder(id, to).then_some("messages reordered"),
            2 if rng.random_bool(0.5) => network.lose(id, to).then_some("message lost"),
            2 | 3 => network
                .alter(id, to, |bytes| forge(bytes, rng))
                .then_some("entry forged"),
            4 => {
                network.withhold(id, to, true);
                Some("messages withheld")
            }
            _ if network.is_withheld(id, to) => {
                network.withhold(id, to, false);
                Some("messages released")
            }
            _ => None,
        };
        if let Some(done) = done {
            self.coverage.hit("fault", done);
            self.event(format!("to {}: {done}", self.replicas[to].name));
        }
    }

    fn send_some(&mut self, place: usize) {
        let Some(node) = &self.replicas[place].node else {
            return;
        };
        let devices: Vec<DeviceId> = node.sessions.keys().copied().collect();
        for device in devices {
            for _ in 0..self.rng.random_range(0..4) {
                self.send(place, device);
            }
        }
    }

    /// Takes one thing out of a session's outbox and on the wire. True if there was one.
    fn send(&mut self, place: usize, device: DeviceId) -> bool {
        let hesitates = !self.healing && self.rng.random_bool(0.2);
        let Some(node) = &mut self.replicas[place].node else {
            return false;
        };
        let Some(session) = node.sessions.get_mut(&device) else {
            return false;
        };
        if !self.network.has_room(session.connection, place) {
            return false;
        }
        let Some(work) = session
            .sending
            .take()
            .or_else(|| session.outbox.take_next())
        else {
            return false;
        };
        if hesitates {
            // The task that sends is not scheduled for a while: meanwhile the outbox may get more.
            session.sending = Some(work);
            return true;
        }
        let connection = session.connection;
        let message = match work {
            Work::Message(message) => message,
            Work::Grants { they_have } => node.core.grants_after(&they_have),
            Work::Entries { writer, from, to } => match node.core.entries(writer, from, to) {
                Ok(entries) => {
                    assert!(
                        !entries.is_empty(),
                        "{} lacks entries that it was to send",
                        self.replicas[place].name
                    );
                    session.outbox.sent(writer, from + entries.len() as u64 - 1);
                    Message::Entries(entries)
                }
                Err(error) => {
                    self.storage_failed(place, &error.to_string());
                    return true;
                }
            },
            Work::Close(reason) => {
                node.sessions.remove(&device);
                node.inbox.push(Input::Disconnected(device));
                self.network.close(connection, place);
                self.coverage.hit("fault", "replicator closed");
                self.event(format!("{} closes: {reason}", self.replicas[place].name));
                return true;
            }
        };
        oracle::check_honesty(&mut self.replicas, place, &message);
        let bytes = message.encode();
        self.trace.bytes("wire", &bytes);
        self.coverage.hit("message", message_name(&message));
        let delay_ms = if self.healing {
            0
        } else {
            self.rng.random_range(0..300)
        };
        self.network
            .send(connection, place, bytes, self.now_ms + delay_ms);
        true
    }

    fn deliver_some(&mut self) {
        let ends: Vec<_> = self
            .network
            .connections()
            .flat_map(|(id, [a, b])| [(id, a, b), (id, b, a)])
            .collect();
        for (id, to, from) in ends {
            for _ in 0..self.rng.random_range(0..4) {
                self.deliver(id, to, from);
            }
        }
    }

    /// Hands one message to whom it is for. True if anything arrived.
    fn deliver(&mut self, id: ConnectionId, to: usize, from: usize) -> bool {
        let device = self.replicas[from].device;
        let damaged = self.network.is_damaged(id);
        let Some(node) = &mut self.replicas[to].node else {
            self.network.close(id, to);
            return false;
        };
        let current = node
            .sessions
            .get(&device)
            .is_some_and(|session| session.connection == id);
        match self.network.receive(id, to, self.now_ms) {
            None => false,
            Some(Received::Frame(bytes)) => {
                match Message::decode(&bytes) {
                    Ok(message) if current => node.inbox.push(Input::Message(device, message)),
                    Ok(_) => {}
                    Err(error) => {
                        assert!(damaged, "a message cannot be read: {error}");
                        self.network.cut(id);
                    }
                }
                true
            }
            Some(Received::End) => {
                self.network.close(id, to);
                if current {
                    node.sessions.remove(&device);
                    node.inbox.push(Input::Disconnected(device));
                }
                true
            }
        }
    }

    // Healing.

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
        for turn in 0..TURNS {
            let active = self.active(turn);
            self.rest(&active);
            if turn + 1 >= self.copies() && self.disagreement().is_none() {
                break;
            }
        }
        if let Some(difference) = self.disagreement() {
            panic!("the healed fleet does not agree: {difference}");
        }
        self.check_end();
    }

    /// How many copies the most copied data folder has.
    fn copies(&self) -> usize {
        let count = |device: DeviceId| {
            self.replicas
                .iter()
                .filter(|replica| replica.device == device)
                .count()
        };
        self.replicas
            .iter()
            .map(|replica| count(replica.device))
            .max()
            .unwrap_or(1)
    }

    /// Who is connected in this turn: of copies of one data folder, one.
    fn active(&self, turn: usize) -> Vec<usize> {
        let mut by_device: BTreeMap<DeviceId, Vec<usize>> = BTreeMap::new();
        for (place, replica) in self.replicas.iter().enumerate() {
            by_device.entry(replica.device).or_default().push(place);
        }
        let mut active: Vec<usize> = by_device
            .into_values()
            .map(|places| places[turn % places.len()])
            .collect();
        active.sort_unstable();
        active
    }

    fn rest(&mut self, active: &[usize]) {
        for (id, ends) in self.network.connections().collect::<Vec<_>>() {
            if ends.iter().any(|end| !active.contains(end)) {
                self.network.cut(id);
            }
        }
        for _ in 0..ROUNDS {
            self.now_ms += 50;
            if !self.round(active) {
                return;
            }
        }
        panic!("the healed fleet does not come to rest");
    }

    /// Everyone does all that they can. False if nobody had anything to do.
    fn round(&mut self, active: &[usize]) -> bool {
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

    fn reconnect(&mut self, active: &[usize]) -> bool {
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
    fn finish_bytes(&mut self, active: &[usize]) -> bool {
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
                    node.inbox.push(Input::Commit(self.next_ticket, request));
                    any = true;
                }
                Ok(None) => {}
                Err(error) => panic!("{}: {error}", replica.name),
            }
            if node.core.held_is_stale() {
                node.inbox.push(Input::StateHeld);
                any = true;
            }
        }
        any
    }

    /// The first difference between two replicas.
    fn disagreement(&self) -> Option<String> {
        let pictures: Vec<_> = self
            .replicas
            .iter()
            .filter_map(|replica| {
                replica
                    .node
                    .as_ref()
                    .map(|node| (&replica.name, oracle::picture(&replica.name, &node.core)))
            })
            .collect();
        let (first, rest) = pictures.split_first()?;
        rest.iter()
            .find_map(|(name, picture)| {
                first
                    .1
                    .difference(picture)
                    .map(|difference| format!("{} and {name}: {difference}", first.0))
            })
            .or_else(|| self.statements_lack())
    }

    /// What somebody's statement lacks, as somebody knows it.
    fn statements_lack(&self) -> Option<String> {
        let devices: BTreeSet<DeviceId> =
            self.replicas.iter().map(|replica| replica.device).collect();
        self.replicas.iter().find_map(|replica| {
            let lack = replica
                .node
                .as_ref()
                .and_then(|node| oracle::statements_lack(&node.core, &devices));
            lack.map(|lack| format!("{}: {lack}", replica.name))
        })
    }

    fn check_end(&mut self) {
        for replica in &self.replicas {
            let Some(node) = &replica.node else { continue };
            for other in &self.replicas {
                oracle::check_acknowledged(
                    &replica.name,
                    node.core.database(),
                    &other.acknowledged,
                );
            }
        }
        let Some(node) = self.replicas[0].node.as_ref() else {
            return;
        };
        oracle::check_complete(&node.core, &self.ledger);
        oracle::count_conflicts(&node.core, &mut self.coverage);
        let picture = oracle::picture(&self.replicas[0].name, &node.core);
        let entries: u64 = picture.clock().iter().map(|(_, seq, _)| seq).sum();
        self.coverage.add("run", "entries", entries);
        self.coverage
            .add("run", "replicas", self.replicas.len() as u64);
        self.coverage.hit("run", "runs");
        self.trace
            .bytes("clock", format!("{:?}", picture.clock()).as_bytes());
    }
}

/// Alters one entry within a message: a host between two devices could.
fn forge(bytes: &mut Vec<u8>, rng: &mut ChaCha8Rng) -> bool {
    let Ok(Message::Entries(mut entries)) = Message::decode(bytes) else {
        return false;
    };
    let Some(entry) = entries.last_mut().filter(|entry| !entry.is_empty()) else {
        return false;
    };
    let at = rng.random_range(0..entry.len());
    entry[at] ^= 1 << rng.random_range(0..8);
    *bytes = Message::Entries(entries).encode();
    true
}

fn is_storage(error: &CommitError) -> bool {
    matches!(error, CommitError::DiskFull | CommitError::Storage(_))
}

fn call_name(call: Call) -> &'static str {
    match call {
        Call::Read => "in a read, between begin and commit",
        Call::Write => "in a write of a commit",
        Call::Resize => "while the file grows",
        Call::Sync => "in the sync of a commit",
    }
}

fn crash_name(crash: Crash) -> &'static str {
    match crash {
        Crash::Killed => "killed",
        Crash::PowerLost => "power lost, nothing unsynced kept",
        Crash::Reordered => "power lost, some writes kept",
        Crash::Torn => "power lost, some sectors kept",
    }
}

fn message_name(message: &Message) -> &'static str {
    match message {
        Message::Hello { .. } => "hello",
        Message::Grants { .. } => "grants",
        Message::Entries(_) => "entries",
        Message::Held { .. } => "held",
        Message::NeedGrants { .. } => "need grants",
        Message::NeedEntries { .. } => "need entries",
        Message::Again { .. } => "again",
        Message::Clock(_) => "clock",
        Message::Bye { .. } => "bye",
    }
}
