//! What goes on between replicas, and what a network does to it.

use std::collections::BTreeSet;

use coffer_node::vault::Input;
use coffer_protocol::identity::DeviceId;
use coffer_protocol::replication::{Message, Outbox, Work};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::Fleet;
use crate::network::{ConnectionId, Received};
use crate::oracle;
use crate::replica::Session;

impl Fleet {
    /// Opens a session, as the side with the smaller id does when a connection is there.
    pub(super) fn connect(&mut self, a: usize, b: usize) -> bool {
        let [one, other] = [a, b].map(|place| self.replicas[place].device);
        let (Some(first), Some(second)) = (&self.replicas[a].node, &self.replicas[b].node) else {
            return false;
        };
        if one == other {
            return false;
        }
        let heard_of = |core: &coffer_node::vault::Core, device: &DeviceId| {
            let membership = &core.state().membership;
            membership.is_member(device) || membership.former().contains_key(device)
        };
        let known = heard_of(&first.core, &other) && heard_of(&second.core, &one);
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

    pub(super) fn connect_some(&mut self, a: usize) {
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

    pub(super) fn cut_some(&mut self) {
        let all: Vec<_> = self.network.connections().collect();
        if let Some((id, _)) = self.pick(&all) {
            self.coverage.hit("fault", "connection cut");
            self.network.cut(id);
        }
    }

    /// Cuts everything between two halves of the fleet.
    pub(super) fn partition(&mut self) {
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

    pub(super) fn misbehave(&mut self) {
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
            self.event(format!("to {} on {id}: {done}", self.replicas[to].name));
        }
    }

    pub(super) fn send_some(&mut self, place: usize) {
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
    pub(super) fn send(&mut self, place: usize, device: DeviceId) -> bool {
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
            Work::Entries {
                writer,
                from,
                to,
                ranges,
            } => match node.core.run_of(writer, (from, to), ranges) {
                Ok(run) => {
                    let Some(run) = run else {
                        panic!(
                            "{} lacks entries that it was to send",
                            self.replicas[place].name
                        );
                    };
                    session.outbox.sent(writer, run.last);
                    match run.message {
                        Some(message) => message,
                        None => return true,
                    }
                }
                Err(error) => {
                    self.storage_failed(place, &error.to_string());
                    return true;
                }
            },
            Work::Range(_) | Work::Attestations(_) => match node.core.range_of(&work) {
                Ok(Some(message)) => message,
                Ok(None) => return true,
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
        self.event(format!(
            "{} sends {} on {connection}",
            self.replicas[place].name,
            message_name(&message)
        ));
        let delay_ms = if self.healing {
            0
        } else {
            self.rng.random_range(0..300)
        };
        self.network
            .send(connection, place, bytes, self.now_ms + delay_ms);
        true
    }

    pub(super) fn deliver_some(&mut self) {
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
    pub(super) fn deliver(&mut self, id: ConnectionId, to: usize, from: usize) -> bool {
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
                    Ok(message) if current => {
                        let name = message_name(&message);
                        node.inbox.push(Input::Message(device, message));
                        self.event(format!("{} gets {name} on {id}", self.replicas[to].name));
                    }
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
        Message::Ranges(_) => "ranges",
        Message::NeedRanges { .. } => "need ranges",
        Message::Range { .. } => "range",
        Message::Attestations(_) => "attestations",
    }
}
