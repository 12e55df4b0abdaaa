//! The replicator: every decision about who gets what.

use std::collections::{BTreeMap, BTreeSet};

use super::message::{ByeReason, MAX_HEADS, Message, RangeName};
use super::peer::{ASKS, Peer, Phase};
use super::{Action, CloseReason, Rejection};
use crate::identity::{DeviceId, Hash, VaultId, WriterId};
use crate::log::{CLOCK_MAX_WRITERS, Clock};
use crate::version;

/// Most devices whose held statements are passed on; a vault has a handful.
pub const MAX_HELD: usize = 1024;

/// Decides what to send to whom. See the [module](super) for the rules.
///
/// The shell calls it with what happened and carries out the actions. It must tell of commits only
/// when they are durable: what is announced here is taken as an acknowledgement by others.
pub struct Replicator {
    vault: VaultId,
    grant_heads: Vec<Hash>,
    pub(super) clock: Clock,
    held: BTreeMap<DeviceId, Vec<u8>>,
    pub(super) peers: BTreeMap<DeviceId, Peer>,
    /// The ranges that are here, by id; `None` where they are not known.
    pub(super) ranges: Option<BTreeMap<Hash, RangeName>>,
    /// Stands for the clock of a peer that is not connected.
    nothing: Clock,
}

impl Replicator {
    /// A replicator with no peers. `grant_heads` and `clock` are what is durable in the store.
    pub fn new(vault: VaultId, grant_heads: Vec<Hash>, clock: Clock) -> Self {
        Self {
            vault,
            grant_heads: sorted(grant_heads),
            clock,
            held: BTreeMap::new(),
            peers: BTreeMap::new(),
            ranges: None,
            nothing: Clock::default(),
        }
    }

    /// What is durable here.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Peers with whom Hellos have been exchanged.
    pub fn live_peers(&self) -> impl Iterator<Item = DeviceId> + '_ {
        self.peers
            .iter()
            .filter(|(_, peer)| peer.is_live())
            .map(|(device, _)| *device)
    }

    /// What `peer` said, on this connection, that it durably has; nothing if it is not connected.
    pub fn acknowledged(&self, peer: &DeviceId) -> &Clock {
        self.peers
            .get(peer)
            .map_or(&self.nothing, |peer| &peer.announced)
    }

    /// Whether `peer` is connected and has said where it stands.
    pub fn has_greeted(&self, peer: &DeviceId) -> bool {
        self.peers.get(peer).is_some_and(Peer::is_live)
    }

    /// A stream to `peer`, an admitted device, is open. What was known from an earlier connection is
    /// forgotten: the peer may have been restored from an older state.
    pub fn connected(&mut self, peer: DeviceId) -> Vec<Action> {
        self.peers.insert(peer, Peer::new(self.clock.clone()));
        let message = Message::Hello {
            versions: self.versions(),
            vault: self.vault,
            grant_heads: self.grant_heads.clone(),
            clock: self.clock.clone(),
        };
        vec![Action::Send { peer, message }]
    }

    /// The versions that are spoken here.
    fn versions(&self) -> Vec<u16> {
        let ranges = self.ranges.as_ref().map(|_| version::REPLICATION_RANGES);
        [version::REPLICATION].into_iter().chain(ranges).collect()
    }

    /// The stream to `peer` is gone.
    pub fn disconnected(&mut self, peer: DeviceId) {
        self.peers.remove(&peer);
    }

    /// `peer` sent a message. Nothing comes out for a peer that is not connected.
    pub fn received(&mut self, peer: DeviceId, message: Message) -> Vec<Action> {
        let Some(state) = self.peers.get_mut(&peer) else {
            return Vec::new();
        };
        match (state.phase, message) {
            (Phase::Closed, _) => Vec::new(),
            (Phase::Parting, Message::Grants { grants, .. }) => {
                vec![Action::IngestGrants { peer, grants }]
            }
            (phase, Message::Bye { reason }) => {
                let mut actions = Vec::new();
                // It may take itself for out by what it knows, and not be: it hears all before the end.
                if reason == ByeReason::PUT_OUT && phase != Phase::Parting {
                    actions = self.part_with(peer);
                }
                actions.extend(self.close(peer, CloseReason::PeerLeft(reason), None));
                actions
            }
            (
                Phase::Greeting,
                Message::Hello {
                    versions,
                    vault,
                    grant_heads,
                    clock,
                },
            ) => self.greeted(peer, &versions, vault, grant_heads, &clock),
            (Phase::Parting, _) => Vec::new(),
            (Phase::Greeting, _) => self.violation(peer, CloseReason::HelloExpected),
            (Phase::Live, Message::Hello { .. }) => self.violation(peer, CloseReason::SecondHello),
            (Phase::Live, Message::Grants { heads, grants }) => {
                state.heads = sorted(heads);
                let asked = std::mem::take(&mut state.grants_asked);
                let mut actions = vec![Action::IngestGrants { peer, grants }];
                if asked && state.entries_wanted {
                    actions.extend(self.ask_entries(peer));
                }
                actions
            }
            (Phase::Live, Message::Entries(entries)) => {
                let round = state.answered;
                vec![Action::Ingest {
                    peer,
                    entries,
                    round,
                }]
            }
            (Phase::Live, Message::Held { device, statement }) => vec![Action::IngestHeld {
                peer,
                device,
                statement,
            }],
            (Phase::Live, Message::NeedGrants { heads }) => {
                if !state.take_answer() {
                    return self.violation(peer, CloseReason::TooManyAsks);
                }
                state.heads.clone_from(&self.grant_heads);
                vec![Action::SendGrants {
                    peer,
                    they_have: sorted(heads),
                }]
            }
            (Phase::Live, Message::NeedEntries { round, clock }) => {
                self.asked_again(peer, round, &clock)
            }
            (Phase::Live, Message::Again { round }) => {
                if round <= state.answered || round > state.round {
                    return self.violation(peer, CloseReason::Violation);
                }
                state.answered = round;
                Vec::new()
            }
            (Phase::Live, Message::Clock(clock)) => self.announced(peer, &clock),
            (
                Phase::Live,
                Message::Ranges(_)
                | Message::NeedRanges { .. }
                | Message::Range { .. }
                | Message::Attestations(_),
            ) if state.ranges.is_none() => self.violation(peer, CloseReason::Violation),
            (Phase::Live, Message::Ranges(names)) => self.named(peer, names),
            (Phase::Live, Message::NeedRanges { ranges, said }) => {
                let whole = ranges
                    .into_iter()
                    .map(|name| Action::SendRange { peer, name });
                let said = said
                    .into_iter()
                    .map(|name| Action::SendAttestations { peer, name });
                whole.chain(said).collect()
            }
            (
                Phase::Live,
                Message::Range {
                    range,
                    attestations,
                },
            ) => {
                let round = state.answered;
                vec![Action::IngestRange {
                    peer,
                    range,
                    attestations,
                    round,
                }]
            }
            (Phase::Live, Message::Attestations(attestations)) => {
                vec![Action::IngestAttestations { peer, attestations }]
            }
        }
    }

    /// Entries are durable: `committed` names each new one (or the last of each run of one writer),
    /// `from` the peer that sent them, `None` if they were written here.
    pub fn committed(
        &mut self,
        committed: &[(WriterId, u64, Hash)],
        from: Option<DeviceId>,
    ) -> Vec<Action> {
        let mut writers = BTreeSet::new();
        for (writer, seq, hash) in committed {
            self.clock.observe(*writer, *seq, *hash);
            writers.insert(*writer);
        }
        if let Some(sender) = from.and_then(|device| self.peers.get_mut(&device)) {
            for (writer, seq, hash) in committed {
                sender.given.observe(*writer, *seq, *hash);
            }
        }
        let mut actions = Vec::new();
        for (device, peer) in &mut self.peers {
            if peer.is_live() {
                for writer in &writers {
                    actions.extend(find_fork(&self.clock, *device, peer, *writer));
                    actions.extend(give(&self.clock, *device, peer, *writer));
                }
            }
        }
        actions.extend(self.ask_ranges_of_all());
        actions
    }

    /// The shell refused an entry that came with [`Action::Ingest`] of this `round`. It reports the
    /// first refused entry of each writer in a message; more does no harm.
    pub fn rejected(&mut self, peer: DeviceId, round: u32, why: Rejection) -> Vec<Action> {
        let Some(state) = self.peers.get_mut(&peer).filter(|peer| peer.is_live()) else {
            return Vec::new();
        };
        if let Rejection::Forked {
            writer,
            seq,
            ours,
            theirs,
        } = why
        {
            return fork(peer, state, writer, seq, ours, theirs)
                .into_iter()
                .collect();
        }
        // What was asked for since may already be on its way.
        if round < state.round {
            return Vec::new();
        }
        match why {
            Rejection::NotYet => {
                state.entries_wanted = true;
                Vec::new()
            }
            Rejection::UnknownWriter => {
                state.entries_wanted = true;
                self.ask_grants(peer)
            }
            Rejection::Invalid if state.asks_left == 0 => {
                self.violation(peer, CloseReason::InvalidEntries)
            }
            Rejection::Gap | Rejection::Invalid | Rejection::Forked { .. } => {
                self.ask_entries(peer)
            }
        }
    }

    /// The membership changed, by our own act or by grants that came in: `heads` are the new heads.
    pub fn grants_changed(&mut self, heads: Vec<Hash>) -> Vec<Action> {
        self.grant_heads = sorted(heads);
        let mut actions = Vec::new();
        for (device, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.is_live()) {
            if peer.heads != self.grant_heads {
                let they_have = std::mem::replace(&mut peer.heads, self.grant_heads.clone());
                actions.push(Action::SendGrants {
                    peer: *device,
                    they_have,
                });
            }
            peer.asks_left = ASKS;
        }
        let waiting: Vec<DeviceId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.is_live() && peer.entries_wanted && !peer.grants_asked)
            .map(|(device, _)| *device)
            .collect();
        for peer in waiting {
            actions.extend(self.ask_entries(peer));
        }
        actions
    }

    /// Entries came that make more of a closed log count: what was left out before is asked for.
    pub fn more_counts(&mut self) -> Vec<Action> {
        let waiting: Vec<DeviceId> = self
            .peers
            .iter_mut()
            .filter(|(_, peer)| peer.is_live() && peer.entries_wanted && !peer.grants_asked)
            .map(|(device, peer)| {
                // Each of these follows entries that count: it cannot go on for ever.
                peer.asks_left = ASKS;
                *device
            })
            .collect();
        waiting
            .into_iter()
            .flat_map(|peer| self.ask_entries(peer))
            .collect()
    }

    /// A parting word to a device that was put out, or from one: nothing more goes to it, and of what comes only grants are
    /// taken, for it may know some that nobody else does. It ends when the other side closes. On a connection that is new the
    /// word needs the Hello before.
    pub fn part_with(&mut self, peer: DeviceId) -> Vec<Action> {
        let mut actions = Vec::new();
        let known = match self.peers.get_mut(&peer) {
            Some(state) if matches!(state.phase, Phase::Parting | Phase::Closed) => {
                return actions;
            }
            Some(state) => std::mem::take(&mut state.heads),
            None => {
                let message = Message::Hello {
                    versions: self.versions(),
                    vault: self.vault,
                    grant_heads: self.grant_heads.clone(),
                    clock: Clock::default(),
                };
                actions.push(Action::Send { peer, message });
                Vec::new()
            }
        };
        // It is told all: what it was said to have been sent may not have left yet.
        let they_have = if known == self.grant_heads {
            Vec::new()
        } else {
            known
        };
        let mut parting = Peer::new(Clock::default());
        parting.phase = Phase::Parting;
        self.peers.insert(peer, parting);
        let reason = ByeReason::PUT_OUT;
        actions.extend([
            Action::SendGrants { peer, they_have },
            Action::Send {
                peer,
                message: Message::Bye { reason },
            },
        ]);
        actions
    }

    /// The same, and closes without waiting for what the other side has to say.
    pub fn send_off(&mut self, peer: DeviceId) -> Vec<Action> {
        let mut actions = self.part_with(peer);
        self.peers.remove(&peer);
        let reason = CloseReason::PutOut;
        actions.push(Action::Close { peer, reason });
        actions
    }

    /// The newest held statement of `device` is now this: our own (`from` is `None`), or one that a
    /// peer passed on. Also called for each stored statement after a start.
    pub fn held_changed(
        &mut self,
        device: DeviceId,
        statement: Vec<u8>,
        from: Option<DeviceId>,
    ) -> Vec<Action> {
        if self.held.len() >= MAX_HELD && !self.held.contains_key(&device) {
            return Vec::new();
        }
        let mut actions = Vec::new();
        for (to, peer) in &mut self.peers {
            // Its author has it, and so has who sent it.
            if Some(*to) == from || *to == device {
                peer.held.insert(device);
                continue;
            }
            peer.held.remove(&device);
            if peer.is_live() {
                peer.held.insert(device);
                actions.push(Action::Send {
                    peer: *to,
                    message: Message::Held {
                        device,
                        statement: statement.clone(),
                    },
                });
            }
        }
        self.held.insert(device, statement);
        actions
    }

    /// Tells `peer` what became durable here since it was last told; nothing if nothing did. The
    /// shell calls it a moment after commits, so that many share one announcement.
    pub fn announce_clock(&mut self, peer: DeviceId) -> Vec<Action> {
        let Some(state) = self.peers.get_mut(&peer).filter(|peer| peer.is_live()) else {
            return Vec::new();
        };
        let mut news = Clock::default();
        for (writer, seq, hash) in self.clock.iter() {
            if !state.told.covers(writer, seq) {
                news.observe(*writer, seq, hash);
            }
        }
        if news.is_empty() {
            return Vec::new();
        }
        state.told.clone_from(&self.clock);
        vec![Action::Send {
            peer,
            message: Message::Clock(news),
        }]
    }

    fn greeted(
        &mut self,
        peer: DeviceId,
        versions: &[u16],
        vault: VaultId,
        grant_heads: Vec<Hash>,
        clock: &Clock,
    ) -> Vec<Action> {
        let knows_ranges = versions.contains(&version::REPLICATION_RANGES);
        if !versions.contains(&version::REPLICATION) {
            let bye = Some(ByeReason::NO_COMMON_VERSION);
            return self.close(peer, CloseReason::NoCommonVersion, bye);
        }
        if vault != self.vault {
            let bye = Some(ByeReason::OTHER_VAULT);
            return self.close(peer, CloseReason::OtherVault, bye);
        }
        let Some(state) = self.peers.get_mut(&peer) else {
            return Vec::new();
        };
        state.phase = Phase::Live;
        state.heads = sorted(grant_heads);
        let mut actions = Vec::new();
        if state.heads != self.grant_heads {
            let they_have = std::mem::replace(&mut state.heads, self.grant_heads.clone());
            actions.push(Action::SendGrants { peer, they_have });
        }
        if knows_ranges {
            actions.extend(self.greet_with_ranges(peer));
        }
        actions.extend(self.announced(peer, clock));
        actions.extend(self.give_all(peer));
        let Some(state) = self.peers.get_mut(&peer) else {
            return actions;
        };
        for (device, statement) in &self.held {
            if *device != peer && state.held.insert(*device) {
                actions.push(Action::Send {
                    peer,
                    message: Message::Held {
                        device: *device,
                        statement: statement.clone(),
                    },
                });
            }
        }
        actions
    }

    /// Takes a clock that the peer announced, and finds the forks that it shows.
    fn announced(&mut self, peer: DeviceId, clock: &Clock) -> Vec<Action> {
        let Some(state) = self.peers.get_mut(&peer) else {
            return Vec::new();
        };
        state.announce(clock);
        if state.announced.len() > CLOCK_MAX_WRITERS {
            return self.violation(peer, CloseReason::Violation);
        }
        clock
            .iter()
            .filter_map(|(writer, _, _)| find_fork(&self.clock, peer, state, *writer))
            .collect()
    }

    fn asked_again(&mut self, peer: DeviceId, round: u32, clock: &Clock) -> Vec<Action> {
        let mut actions = self.announced(peer, clock);
        let Some(state) = self.peers.get_mut(&peer).filter(|peer| peer.is_live()) else {
            return actions;
        };
        if !state.take_answer() {
            return self.violation(peer, CloseReason::TooManyAsks);
        }
        state.given = clock.clone();
        actions.push(Action::Send {
            peer,
            message: Message::Again { round },
        });
        actions.extend(self.give_all(peer));
        actions
    }

    fn give_all(&mut self, peer: DeviceId) -> Vec<Action> {
        let Some(state) = self.peers.get_mut(&peer) else {
            return Vec::new();
        };
        let writers: Vec<WriterId> = self.clock.iter().map(|(writer, _, _)| *writer).collect();
        writers
            .into_iter()
            .filter_map(|writer| give(&self.clock, peer, state, writer))
            .collect()
    }

    fn ask_entries(&mut self, peer: DeviceId) -> Vec<Action> {
        let Some(state) = self.peers.get_mut(&peer) else {
            return Vec::new();
        };
        // An unanswered question covers everything that is missing now.
        if state.answered < state.round || !state.take_ask() {
            return Vec::new();
        }
        state.round += 1;
        state.entries_wanted = false;
        state.told.clone_from(&self.clock);
        vec![Action::Send {
            peer,
            message: Message::NeedEntries {
                round: state.round,
                clock: self.clock.clone(),
            },
        }]
    }

    fn ask_grants(&mut self, peer: DeviceId) -> Vec<Action> {
        let Some(state) = self.peers.get_mut(&peer) else {
            return Vec::new();
        };
        if state.grants_asked || !state.take_ask() {
            return Vec::new();
        }
        state.grants_asked = true;
        vec![Action::Send {
            peer,
            message: Message::NeedGrants {
                heads: self.grant_heads.clone(),
            },
        }]
    }

    fn violation(&mut self, peer: DeviceId, reason: CloseReason) -> Vec<Action> {
        self.close(peer, reason, Some(ByeReason::VIOLATION))
    }

    fn close(
        &mut self,
        peer: DeviceId,
        reason: CloseReason,
        bye: Option<ByeReason>,
    ) -> Vec<Action> {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.phase = Phase::Closed;
        }
        let bye = bye.map(|reason| Action::Send {
            peer,
            message: Message::Bye { reason },
        });
        bye.into_iter()
            .chain([Action::Close { peer, reason }])
            .collect()
    }
}

/// The entries of `writer` that the peer lacks, which it counts as having from now on.
fn give(ours: &Clock, device: DeviceId, peer: &mut Peer, writer: WriterId) -> Option<Action> {
    let (to, hash) = ours.get(&writer)?;
    let given = peer.given.seq(&writer);
    if given >= to || peer.forked.contains(&writer) {
        return None;
    }
    peer.given.observe(writer, to, hash);
    Some(Action::SendEntries {
        peer: device,
        writer,
        from: given + 1,
        to,
    })
}

/// Compares what the peer announced with what we have, where both have got equally far.
fn find_fork(ours: &Clock, device: DeviceId, peer: &mut Peer, writer: WriterId) -> Option<Action> {
    let (seq, ours) = ours.get(&writer)?;
    let (announced, theirs) = peer.announced.get(&writer)?;
    if announced != seq || theirs == ours {
        return None;
    }
    fork(device, peer, writer, seq, ours, theirs)
}

/// Notes a fork; reports it once for each log and connection.
fn fork(
    device: DeviceId,
    peer: &mut Peer,
    writer: WriterId,
    seq: u64,
    ours: Hash,
    theirs: Hash,
) -> Option<Action> {
    peer.forked.insert(writer).then_some(Action::Fork {
        peer: device,
        writer,
        seq,
        ours,
        theirs,
    })
}

fn sorted(mut heads: Vec<Hash>) -> Vec<Hash> {
    heads.sort_unstable();
    heads.dedup();
    // More heads than a message holds: the peer is sent a little more than it lacks.
    heads.truncate(MAX_HEADS);
    heads
}
