//! What the replicator remembers of one connected peer, for as long as the connection lasts.

use std::collections::{BTreeMap, BTreeSet};

use crate::identity::{DeviceId, Hash, WriterId};
use crate::log::Clock;

use super::message::RangeName;

/// Questions that we ask one peer between two changes of the membership. Each may cost a resend of
/// whole logs; a ninth would bring what the first eight did. Reconnecting starts afresh.
pub(super) const ASKS: u32 = 8;
/// Questions that we answer one peer without its getting on in between: several times [`ASKS`], as
/// the membership may change for it more often than for us.
pub(super) const ANSWERS: u32 = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Our Hello is under way, theirs has not come.
    Greeting,
    /// Both know where the other stands.
    Live,
    /// It was put out, or we were, and it was told: only grants are still taken, until it closes.
    Parting,
    /// We decided to close; what still comes is ignored.
    Closed,
}

pub(super) struct Peer {
    pub(super) phase: Phase,
    /// What it said it durably has: the only thing that counts as acknowledged.
    pub(super) announced: Clock,
    /// What it has or was sent on this connection: decides what still has to be sent.
    pub(super) given: Clock,
    /// What we announced to it.
    pub(super) told: Clock,
    /// Heads of the grants that it has or was sent.
    pub(super) heads: Vec<Hash>,
    /// Devices whose newest held statement it has or was sent.
    pub(super) held: BTreeSet<DeviceId>,
    /// Logs in which its entries and ours differ.
    pub(super) forked: BTreeSet<WriterId>,
    /// Questions about entries that we asked.
    pub(super) round: u32,
    /// The question that incoming entries answer.
    pub(super) answered: u32,
    /// Whether a question about grants is open.
    pub(super) grants_asked: bool,
    /// Whether entries have to be asked for again once the membership is known better.
    pub(super) entries_wanted: bool,
    pub(super) asks_left: u32,
    pub(super) answers_left: u32,
    /// Of a peer that knows ranges: those that it named, and of which nothing was asked yet.
    pub(super) ranges: Option<BTreeMap<Hash, RangeName>>,
}

impl Peer {
    pub(super) fn new(told: Clock) -> Self {
        Self {
            phase: Phase::Greeting,
            announced: Clock::default(),
            given: Clock::default(),
            told,
            heads: Vec::new(),
            held: BTreeSet::new(),
            forked: BTreeSet::new(),
            round: 0,
            answered: 0,
            grants_asked: false,
            entries_wanted: false,
            asks_left: ASKS,
            answers_left: ANSWERS,
            ranges: None,
        }
    }

    /// Whether ranges may be sent to it now.
    pub(super) fn takes_ranges(&self) -> bool {
        self.is_live() && self.ranges.is_some()
    }

    pub(super) fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// Takes what the peer announced as durable. `true` if it got on.
    pub(super) fn announce(&mut self, clock: &Clock) -> bool {
        let mut got_on = false;
        for (writer, seq, hash) in clock.iter() {
            got_on |= !self.announced.covers(writer, seq);
            self.announced.observe(*writer, seq, hash);
            self.given.observe(*writer, seq, hash);
        }
        if got_on {
            self.answers_left = ANSWERS;
        }
        got_on
    }

    /// Takes one of the questions that are left.
    pub(super) fn take_ask(&mut self) -> bool {
        let left = self.asks_left > 0;
        self.asks_left = self.asks_left.saturating_sub(1);
        left
    }

    /// Takes one of the answers that are left.
    pub(super) fn take_answer(&mut self) -> bool {
        let left = self.answers_left > 0;
        self.answers_left = self.answers_left.saturating_sub(1);
        left
    }
}
