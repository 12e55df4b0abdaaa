//! Devices start, stop, die, are copied and admitted.

use coffer_node::vault::{Admission, Input};
use coffer_protocol::grants::Role;
use rand::RngExt;

use super::Fleet;
use crate::disk::{Call, Crash};
use crate::network::ConnectionId;
use crate::oracle;
use crate::replica::{Origin, Replica};

/// Devices and copies that it may grow to.
const MOST: usize = 8;

impl Fleet {
    pub(super) fn start(&mut self, place: usize) {
        if !self.healing && self.rng.random_bool(0.1) {
            let calls = self.rng.random_range(0..40);
            self.replicas[place].disk.light_fuse(None, calls);
        }
        let (now_ms, rng) = (self.now_ms, &mut self.rng);
        if rng.random_bool(0.3) {
            self.replicas[place].skew_ms = rng.random_range(-120_000..120_000);
        }
        match self.replicas[place].start(now_ms, rng) {
            Ok(()) => {
                self.replicas[place].disk.remove_fuse();
                self.event(format!("{} starts", self.replicas[place].name));
                oracle::check_start(&self.replicas[place]);
                if !self.healing && self.rng.random_bool(0.15) {
                    // Little is in the cache yet: it will die while it reads.
                    let calls = self.rng.random_range(0..3);
                    self.replicas[place]
                        .disk
                        .light_fuse(Some(Call::Read), calls);
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
    pub(super) fn die(&mut self, place: usize) {
        let how = Crash::ALL[self.rng.random_range(0..Crash::ALL.len())];
        self.coverage.hit("crash", how.name());
        let connections = self.replicas[place].die(how, &mut self.rng);
        self.replicas[place].off_until_ms = self.now_ms + self.rng.random_range(0..1500);
        self.event(format!(
            "{} dies: {}",
            self.replicas[place].name,
            how.name()
        ));
        for connection in connections {
            match self.rng.random_bool(0.5) {
                true => self.network.close(connection, place),
                false => self.network.cut(connection),
            }
        }
    }

    pub(super) fn light_fuse(&mut self, place: usize) {
        let (kind, most) = match self.rng.random_range(0..5) {
            0 => (Some(Call::Resize), 1),
            1 => (Some(Call::Sync), 4),
            2 => (Some(Call::Read), 3),
            _ => (None, 60),
        };
        let calls = self.rng.random_range(0..most);
        self.event(format!(
            "the machine of {} will die after {calls} calls ({kind:?})",
            self.replicas[place].name
        ));
        self.replicas[place].disk.light_fuse(kind, calls);
    }

    pub(super) fn pull_the_plug(&mut self, place: usize) {
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

    pub(super) fn restart(&mut self, place: usize) {
        if self.replicas[place].node.is_none() || self.replicas[place].died_in().is_some() {
            return;
        }
        self.coverage.hit("fault", "clean restart");
        self.settle(place);
        self.end(place);
    }

    /// Ends a replica cleanly, if its machine still can.
    pub(super) fn end(&mut self, place: usize) {
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

    pub(super) fn fill_up(&mut self, place: usize) {
        let writes = self.rng.random_range(0..6);
        self.event(format!(
            "the disk of {} will be full",
            self.replicas[place].name
        ));
        self.replicas[place].disk.fill_up(writes);
    }

    pub(super) fn copy(&mut self, place: usize) {
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

    pub(super) fn admit(&mut self, place: usize) {
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
}
