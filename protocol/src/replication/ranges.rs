//! Ranges among peers that know them: each names those that it has, and asks for what it lacks.
//!
//! A range is asked for once the entries that it stands for are here, so that it can be compared with them; who has them not
//! gets it unasked, in their place, if at all. What was said of a range is asked for whenever two peers have not heard the
//! same. All of that happens again only with a new connection, or when the other side has heard more.

use std::collections::BTreeMap;

use super::Action;
use super::message::{MAX_RANGES, Message, RangeName};
use super::peer::Peer;
use super::replicator::Replicator;
use crate::identity::{DeviceId, Hash};

impl Replicator {
    /// One that knows ranges, and has these.
    pub fn with_ranges(mut self, ranges: impl IntoIterator<Item = RangeName>) -> Self {
        self.ranges = Some(ranges.into_iter().map(|name| (name.id, name)).collect());
        self
    }

    /// Ranges are durable that were not here, more was said of them, or others (`gone`) have left: this is what is there
    /// now.
    pub fn ranges_changed(&mut self, changed: &[RangeName], gone: &[Hash]) -> Vec<Action> {
        let Some(ranges) = &mut self.ranges else {
            return Vec::new();
        };
        for id in gone {
            ranges.remove(id);
        }
        let mut news = Vec::new();
        for name in changed {
            if ranges.insert(name.id, *name) != Some(*name) {
                news.push(*name);
            }
        }
        if news.is_empty() {
            return Vec::new();
        }
        let knowing = self.peers.iter().filter(|(_, peer)| peer.takes_ranges());
        knowing
            .map(|(peer, _)| Action::Send {
                peer: *peer,
                message: Message::Ranges(news.clone()),
            })
            .collect()
    }

    /// The Hello of a peer said that it knows them, too.
    pub(super) fn greet_with_ranges(&mut self, peer: DeviceId) -> Vec<Action> {
        let (Some(ranges), Some(state)) = (&self.ranges, self.peers.get_mut(&peer)) else {
            return Vec::new();
        };
        state.ranges = Some(BTreeMap::new());
        let mut actions = vec![Action::KnowsRanges { peer }];
        if !ranges.is_empty() {
            let names = ranges.values().take(MAX_RANGES).copied().collect();
            let message = Message::Ranges(names);
            actions.push(Action::Send { peer, message });
        }
        actions
    }

    /// A peer named ranges.
    pub(super) fn named(&mut self, peer: DeviceId, names: Vec<RangeName>) -> Vec<Action> {
        if let Some(named) = self
            .peers
            .get_mut(&peer)
            .and_then(|peer| peer.ranges.as_mut())
        {
            for name in names {
                if named.len() < MAX_RANGES || named.contains_key(&name.id) {
                    named.insert(name.id, name);
                }
            }
        }
        self.ask_ranges(peer)
    }

    /// Asks a peer for what it has named and is lacking here, as far as the entries are here.
    fn ask_ranges(&mut self, peer: DeviceId) -> Vec<Action> {
        let (Some(ours), Some(state)) = (&self.ranges, self.peers.get_mut(&peer)) else {
            return Vec::new();
        };
        let message = asks(state, ours, |name| self.clock.covers(&name.writer, name.to));
        let send = |message| Action::Send { peer, message };
        message.map(send).into_iter().collect()
    }

    /// More entries are here than before.
    pub(super) fn ask_ranges_of_all(&mut self) -> Vec<Action> {
        let naming = |(_, peer): &(&DeviceId, &Peer)| {
            peer.takes_ranges() && peer.ranges.as_ref().is_some_and(|named| !named.is_empty())
        };
        let naming: Vec<DeviceId> = self
            .peers
            .iter()
            .filter(naming)
            .map(|(id, _)| *id)
            .collect();
        naming
            .into_iter()
            .flat_map(|peer| self.ask_ranges(peer))
            .collect()
    }
}

fn asks(
    peer: &mut Peer,
    ours: &BTreeMap<Hash, RangeName>,
    is_here: impl Fn(&RangeName) -> bool,
) -> Option<Message> {
    let (mut ranges, mut said) = (Vec::new(), Vec::new());
    peer.ranges.as_mut()?.retain(|id, name| {
        match ours.get(id) {
            Some(ours) if ours.said != name.said => said.push(*name),
            Some(_) => {}
            None if is_here(name) => ranges.push(*name),
            None => return true,
        }
        false
    });
    (!ranges.is_empty() || !said.is_empty()).then_some(Message::NeedRanges { ranges, said })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{A, B, C, clock, hash, writer};
    use super::*;
    use crate::identity::VaultId;

    const VAULT: VaultId = VaultId([7; 32]);

    fn hello(versions: &[u16], seq: u64) -> Message {
        Message::Hello {
            versions: versions.to_vec(),
            vault: VAULT,
            grant_heads: vec![hash(1)],
            clock: clock(&[(A, seq)]),
        }
    }

    fn name(to: u64, said: u64) -> RangeName {
        RangeName {
            writer: writer(A),
            to,
            id: hash(to),
            said: hash(said),
        }
    }

    /// One with nine entries of A, and these ranges.
    fn one(ranges: &[RangeName]) -> Replicator {
        Replicator::new(VAULT, vec![hash(1)], clock(&[(A, 9)])).with_ranges(ranges.iter().copied())
    }

    fn sent(peer: DeviceId, message: Message) -> Action {
        Action::Send { peer, message }
    }

    #[test]
    fn a_peer_that_knows_no_ranges_hears_of_none() {
        let mut replicator = one(&[name(5, 1)]);
        replicator.connected(B);
        assert_eq!(replicator.received(B, hello(&[1], 9)), []);
        assert_eq!(replicator.ranges_changed(&[name(7, 1)], &[]), []);
        let actions = replicator.received(B, Message::Ranges(Vec::new()));
        assert!(matches!(actions[1], Action::Close { peer: B, .. }));
    }

    #[test]
    fn a_peer_that_knows_them_is_told_of_all_and_of_what_is_new() {
        let mut replicator = one(&[name(5, 1)]);
        replicator.connected(B);
        assert_eq!(
            replicator.received(B, hello(&[1, 2], 9)),
            [
                Action::KnowsRanges { peer: B },
                sent(B, Message::Ranges(vec![name(5, 1)]))
            ]
        );
        assert_eq!(
            replicator.ranges_changed(&[name(5, 2), name(7, 1)], &[]),
            [sent(B, Message::Ranges(vec![name(5, 2), name(7, 1)]))]
        );
        assert_eq!(replicator.ranges_changed(&[name(7, 1)], &[]), []);
        let need = Message::NeedRanges {
            ranges: vec![name(7, 1)],
            said: vec![name(5, 2)],
        };
        assert_eq!(
            replicator.received(B, need),
            [
                Action::SendRange {
                    peer: B,
                    name: name(7, 1)
                },
                Action::SendAttestations {
                    peer: B,
                    name: name(5, 2)
                }
            ]
        );
    }

    #[test]
    fn a_range_is_asked_for_when_its_entries_are_here_and_what_was_said_where_it_differs() {
        let mut replicator = one(&[name(5, 1)]);
        replicator.connected(C);
        replicator.received(C, hello(&[1, 2], 9));
        let ask = |ranges: &[RangeName], said: &[RangeName]| {
            let (ranges, said) = (ranges.to_vec(), said.to_vec());
            [sent(C, Message::NeedRanges { ranges, said })]
        };
        let names = vec![name(5, 1), name(8, 1), name(12, 1)];
        let named = replicator.received(C, Message::Ranges(names));
        assert_eq!(named, ask(&[name(8, 1)], &[]));
        let named = replicator.received(C, Message::Ranges(vec![name(5, 2)]));
        assert_eq!(named, ask(&[], &[name(5, 2)]));
        let asked = replicator.committed(&[(writer(A), 12, hash(12))], Some(C));
        assert_eq!(asked, ask(&[name(12, 1)], &[]));
    }
}
