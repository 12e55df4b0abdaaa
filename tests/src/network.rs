//! The network between replicas: connections with a lane each way.
//!
//! A lane is a stream: in order, and whole. Each has a delay of its own, so that what two replicas say to a third
//! arrives in any order. On top of that it can do what no stream does but a hostile or broken host may: deliver a
//! message twice, out of order, altered, late, or never. A connection that did what a stream cannot counts as
//! *damaged*; it must do no lasting harm, but only a fresh connection is expected to bring everything across.

use std::collections::{BTreeMap, VecDeque};

/// Number of a replica in its fleet.
pub type Place = usize;

/// Number of a connection.
pub type ConnectionId = u64;

/// Messages in one lane before its sender has to wait.
pub const LANE_FRAMES: usize = 16;

struct Frame {
    bytes: Vec<u8>,
    ready_ms: u64,
}

#[derive(Default)]
struct Lane {
    frames: VecDeque<Frame>,
    /// The sender has closed: nothing comes after these frames.
    closed: bool,
    /// The receiver has read to the end, or is gone.
    ended: bool,
    /// Nothing gets through until it is mended.
    withheld: bool,
}

/// A connection between two replicas.
pub struct Connection {
    /// Who; lane 0 leads from the first to the second.
    pub ends: [Place; 2],
    lanes: [Lane; 2],
    damaged: bool,
}

/// What the other end gives.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// A message.
    Frame(Vec<u8>),
    /// The end of the stream.
    End,
}

/// All connections of a fleet.
#[derive(Default)]
pub struct Network {
    connections: BTreeMap<ConnectionId, Connection>,
    next: ConnectionId,
}

impl Network {
    /// A new connection.
    pub fn connect(&mut self, a: Place, b: Place) -> ConnectionId {
        self.next += 1;
        self.connections.insert(
            self.next,
            Connection {
                ends: [a, b],
                lanes: Default::default(),
                damaged: false,
            },
        );
        self.next
    }

    /// All connections, by number.
    pub fn connections(&self) -> impl Iterator<Item = (ConnectionId, [Place; 2])> + '_ {
        self.connections
            .iter()
            .map(|(id, connection)| (*id, connection.ends))
    }

    /// Whether `from` can send on it now.
    pub fn has_room(&self, id: ConnectionId, from: Place) -> bool {
        self.connections.get(&id).is_some_and(|connection| {
            let lane = &connection.lanes[connection.side(from)];
            !lane.closed && lane.frames.len() < LANE_FRAMES
        })
    }

    /// Sends a message, to be delivered not before `ready_ms`.
    pub fn send(&mut self, id: ConnectionId, from: Place, bytes: Vec<u8>, ready_ms: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let lane = connection.lane(from);
        if !lane.closed {
            let ready_ms = lane
                .frames
                .back()
                .map_or(ready_ms, |last| last.ready_ms.max(ready_ms));
            lane.frames.push_back(Frame { bytes, ready_ms });
        }
    }

    /// What has arrived at `to`, if anything has.
    pub fn receive(&mut self, id: ConnectionId, to: Place, now_ms: u64) -> Option<Received> {
        let lane = self.connections.get_mut(&id)?.lane_to(to);
        if lane.withheld {
            return None;
        }
        match lane.frames.front() {
            Some(frame) if frame.ready_ms > now_ms => None,
            Some(_) => lane
                .frames
                .pop_front()
                .map(|frame| Received::Frame(frame.bytes)),
            None if lane.closed && !lane.ended => {
                lane.ended = true;
                Some(Received::End)
            }
            None => None,
        }
    }

    /// `by` closes: the other end gets what is under way and then the end of the stream.
    pub fn close(&mut self, id: ConnectionId, by: Place) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.lane(by).closed = true;
            let back = connection.lane_to(by);
            back.frames.clear();
            (back.closed, back.ended) = (true, true);
            self.tidy(id);
        }
    }

    /// Forgets a connection of which nobody wants anything more.
    fn tidy(&mut self, id: ConnectionId) {
        if self
            .connections
            .get(&id)
            .is_some_and(|connection| connection.lanes.iter().all(|lane| lane.ended))
        {
            self.connections.remove(&id);
        }
    }

    /// The line is cut: what is under way is lost.
    pub fn cut(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            for lane in &mut connection.lanes {
                lane.frames.clear();
                (lane.closed, lane.withheld) = (true, false);
            }
        }
    }

    /// Lets nothing through to `to`, or lets it through again.
    pub fn withhold(&mut self, id: ConnectionId, to: Place, withheld: bool) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.lane_to(to).withheld = withheld;
        }
    }

    /// Whether anything is withheld from `to`.
    pub fn is_withheld(&self, id: ConnectionId, to: Place) -> bool {
        self.connections
            .get(&id)
            .is_some_and(|connection| connection.lanes[1 - connection.side(to)].withheld)
    }

    /// The next message to `to` will be delivered twice. Whether there was one.
    pub fn duplicate(&mut self, id: ConnectionId, to: Place) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else {
            return false;
        };
        let lane = connection.lane_to(to);
        let Some(first) = lane.frames.front() else {
            return false;
        };
        let copy = Frame {
            bytes: first.bytes.clone(),
            ready_ms: first.ready_ms,
        };
        lane.frames.push_front(copy);
        connection.damaged = true;
        true
    }

    /// The last two messages to `to` will be delivered in the other order. Whether there were two.
    pub fn reorder(&mut self, id: ConnectionId, to: Place) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else {
            return false;
        };
        let lane = connection.lane_to(to);
        let count = lane.frames.len();
        if count < 2 {
            return false;
        }
        lane.frames.swap(count - 1, count - 2);
        connection.damaged = true;
        true
    }

    /// The next message to `to` is lost. Whether there was one.
    pub fn lose(&mut self, id: ConnectionId, to: Place) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else {
            return false;
        };
        let lost = connection.lane_to(to).frames.pop_front().is_some();
        connection.damaged |= lost;
        lost
    }

    /// `alter` may change the next message to `to`; it says whether it did.
    pub fn alter(
        &mut self,
        id: ConnectionId,
        to: Place,
        alter: impl FnOnce(&mut Vec<u8>) -> bool,
    ) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else {
            return false;
        };
        let altered = connection
            .lane_to(to)
            .frames
            .front_mut()
            .is_some_and(|frame| alter(&mut frame.bytes));
        connection.damaged |= altered;
        altered
    }

    /// Whether it did what no stream does.
    pub fn is_damaged(&self, id: ConnectionId) -> bool {
        self.connections
            .get(&id)
            .is_some_and(|connection| connection.damaged)
    }

    /// The lanes on which something is under way: connection, and to whom.
    pub fn busy(&self) -> Vec<(ConnectionId, Place)> {
        let mut busy = Vec::new();
        for (id, connection) in &self.connections {
            for (side, lane) in connection.lanes.iter().enumerate() {
                if !lane.frames.is_empty() {
                    busy.push((*id, connection.ends[1 - side]));
                }
            }
        }
        busy
    }
}

impl Connection {
    fn side(&self, from: Place) -> usize {
        usize::from(self.ends[1] == from)
    }

    fn lane(&mut self, from: Place) -> &mut Lane {
        &mut self.lanes[self.side(from)]
    }

    fn lane_to(&mut self, to: Place) -> &mut Lane {
        &mut self.lanes[1 - self.side(to)]
    }
}
