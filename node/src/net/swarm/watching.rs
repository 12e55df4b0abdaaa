//! What is watched about connections, and which of them is to be looked at next. A host has thousands: nothing here goes
//! over all of them to find the one that is due.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use libp2p::swarm::ConnectionId;

use super::super::roster::Connection;

/// What the actor knows of one connection besides the roster.
pub(super) struct Watched {
    pub connection: Arc<Connection>,
    check_at: Instant,
    checking: bool,
    /// Payload received when it was last looked at: more since then proves it alive without a check.
    pub bytes_seen: u64,
    pub doubted: bool,
    /// The other side has answered over it.
    pub proven: bool,
    /// The other side has said what it offers.
    pub identified: bool,
}

impl Watched {
    /// One that is to be checked at a time.
    pub fn new(connection: Arc<Connection>, check_at: Instant, doubted: bool) -> Self {
        Self {
            connection,
            check_at,
            checking: false,
            bytes_seen: 0,
            doubted,
            proven: false,
            identified: false,
        }
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Watching {
    all: BTreeMap<ConnectionId, Watched>,
    /// Those that are not being checked, by when they will be.
    planned: BTreeSet<(Instant, ConnectionId)>,
    /// Those that go through a host.
    relayed: BTreeSet<ConnectionId>,
}

impl Watching {
    pub fn insert(&mut self, watched: Watched) {
        let id = watched.connection.id;
        self.planned.insert((watched.check_at, id));
        if watched.connection.relayed.is_some() {
            self.relayed.insert(id);
        }
        self.all.insert(id, watched);
    }

    pub fn remove(&mut self, id: ConnectionId) -> Option<Watched> {
        let watched = self.all.remove(&id)?;
        self.planned.remove(&(watched.check_at, id));
        self.relayed.remove(&id);
        Some(watched)
    }

    pub fn get(&self, id: ConnectionId) -> Option<&Watched> {
        self.all.get(&id)
    }

    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Watched> {
        self.all.get_mut(&id)
    }

    pub fn values(&self) -> impl Iterator<Item = &Watched> {
        self.all.values()
    }

    /// Those that go through a host.
    pub fn relayed(&self) -> impl Iterator<Item = &Watched> {
        self.relayed.iter().filter_map(|id| self.all.get(id))
    }

    /// Has it checked at another time, or again then, if it is being checked.
    pub fn plan(&mut self, id: ConnectionId, at: Instant) {
        let Some(watched) = self.all.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut watched.check_at, at);
        if !watched.checking {
            self.planned.remove(&(before, id));
            self.planned.insert((at, id));
        }
    }

    /// One that is to be checked by now.
    pub fn due(&self, now: Instant) -> Option<ConnectionId> {
        let (at, id) = self.planned.first()?;
        (*at <= now).then_some(*id)
    }

    /// When the next one is to be checked.
    pub fn next(&self) -> Option<Instant> {
        self.planned.first().map(|(at, _)| *at)
    }

    /// A check begins: until it ends, this one is not due.
    pub fn begins_check(&mut self, id: ConnectionId) {
        if let Some(watched) = self.all.get_mut(&id) {
            watched.checking = true;
            self.planned.remove(&(watched.check_at, id));
        }
    }

    /// A check has ended.
    pub fn ended_check(&mut self, id: ConnectionId) -> Option<&mut Watched> {
        let watched = self.all.get_mut(&id)?;
        watched.checking = false;
        self.planned.insert((watched.check_at, id));
        Some(watched)
    }
}
