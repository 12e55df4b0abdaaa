//! What still has to be sent to one peer, however slow it is.
//!
//! A queue of actions would grow with every edit while a peer reads slowly. Here each kind of news
//! takes the place of the older: ranges of one writer's log join, clocks merge, of questions and
//! held statements only the newest stays. So the outbox is bounded by the number of writers and
//! devices of the vault, and a slow peer gets fewer, larger messages instead of a longer queue.
//!
//! What comes out first: the Hello, then questions, answers and clocks (small, and others wait for
//! them), then grants (entries may need them), held statements, entries, and goodbye.

use std::collections::BTreeMap;

use super::message::{ByeReason, MAX_RANGES, Message, RangeName};
use super::{Action, CloseReason};
use crate::identity::{DeviceId, Hash, WriterId};
use crate::log::Clock;

/// The next thing to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// This message.
    Message(Message),
    /// All grants that a peer with these heads lacks, with our heads.
    Grants {
        /// Heads that the peer named.
        they_have: Vec<Hash>,
    },
    /// The entries `from..=to` of this writer. Send about
    /// [`ENTRIES_TARGET`](super::ENTRIES_TARGET) bytes of them, then say [`Outbox::sent`] and look again.
    Entries {
        /// Whose entries.
        writer: WriterId,
        /// The first.
        from: u64,
        /// The last.
        to: u64,
        /// Whether the peer knows ranges: one may be sent in the place of the entries that it stands for.
        ranges: bool,
    },
    /// This range, and what was said of it, if it is still there.
    Range(RangeName),
    /// What was said of this range, if it is still there.
    Attestations(RangeName),
    /// Close the stream: nothing comes after this.
    Close(CloseReason),
}

/// Bounded, ordered work for one peer.
#[derive(Debug, Default)]
pub struct Outbox {
    hello: Option<Message>,
    bye: Option<Message>,
    close: Option<CloseReason>,
    /// Whether one of the two was put out.
    parts: bool,
    need_grants: Option<Message>,
    need_entries: Option<Message>,
    again: Option<Message>,
    clock: Option<Clock>,
    grants: Option<Vec<Hash>>,
    held: BTreeMap<DeviceId, Vec<u8>>,
    entries: BTreeMap<WriterId, (u64, u64)>,
    /// The log of which entries were handed out last, and up to which; until they are sent, or asked
    /// for again.
    handed_out: Option<(WriterId, u64)>,
    /// Where the next look for entries starts, so that every log gets its turn.
    turn: Option<WriterId>,
    /// Whether the peer knows ranges.
    knows_ranges: bool,
    /// Ranges to be named, to be asked for, and to be sent.
    ranges: Ranges,
}

/// What is to be said of ranges, of each only the newest; as many as a vault has at most.
#[derive(Debug, Default)]
struct Ranges {
    named: BTreeMap<Hash, RangeName>,
    need: BTreeMap<Hash, RangeName>,
    need_said: BTreeMap<Hash, RangeName>,
    whole: BTreeMap<Hash, RangeName>,
    said: BTreeMap<Hash, RangeName>,
}

impl Ranges {
    fn is_empty(&self) -> bool {
        self.named.is_empty()
            && self.need.is_empty()
            && self.need_said.is_empty()
            && self.whole.is_empty()
            && self.said.is_empty()
    }

    /// The next message that names ranges or asks for them.
    fn take_message(&mut self) -> Option<Message> {
        if !self.named.is_empty() {
            return Some(Message::Ranges(take(&mut self.named)));
        }
        if self.need.is_empty() && self.need_said.is_empty() {
            return None;
        }
        let (ranges, said) = (take(&mut self.need), take(&mut self.need_said));
        Some(Message::NeedRanges { ranges, said })
    }

    /// The next range that is to be sent, or what was said of it.
    fn take_work(&mut self) -> Option<Work> {
        if let Some((id, name)) = self.whole.pop_first() {
            // What was said of it goes with it.
            self.said.remove(&id);
            return Some(Work::Range(name));
        }
        let (_, name) = self.said.pop_first()?;
        Some(Work::Attestations(name))
    }
}

fn take(names: &mut BTreeMap<Hash, RangeName>) -> Vec<RangeName> {
    let taken = std::mem::take(names).into_values();
    taken.take(MAX_RANGES).collect()
}

fn put(names: &mut BTreeMap<Hash, RangeName>, new: impl IntoIterator<Item = RangeName>) {
    for name in new {
        if names.len() < MAX_RANGES || names.contains_key(&name.id) {
            names.insert(name.id, name);
        }
    }
}

impl Outbox {
    /// An outbox with nothing to send.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes an action of the replicator that means sending or closing; gives back any other.
    pub fn push(&mut self, action: Action) -> Option<Action> {
        match action {
            Action::Send { message, .. } => self.push_message(message),
            Action::SendEntries {
                writer, from, to, ..
            } => {
                // What is being sent now went out before the answer: it counts for nothing.
                self.handed_out
                    .take_if(|(handed, last)| *handed == writer && from <= *last);
                let range = self.entries.entry(writer).or_insert((from, to));
                range.0 = range.0.min(from);
                range.1 = range.1.max(to);
            }
            // The older heads: the walk from them covers the newer.
            Action::SendGrants { they_have, .. } => {
                self.grants.get_or_insert(they_have);
            }
            Action::KnowsRanges { .. } => self.knows_ranges = true,
            Action::SendRange { name, .. } => put(&mut self.ranges.whole, [name]),
            Action::SendAttestations { name, .. } => put(&mut self.ranges.said, [name]),
            Action::Close { reason, .. } => {
                self.close.get_or_insert(reason);
            }
            other => return Some(other),
        }
        None
    }

    fn push_message(&mut self, message: Message) {
        match message {
            Message::Hello { .. } => self.hello = Some(message),
            Message::Bye { reason } => {
                self.bye = Some(message);
                if reason == ByeReason::PUT_OUT {
                    self.part();
                }
            }
            Message::NeedGrants { .. } => self.need_grants = Some(message),
            Message::NeedEntries { .. } => self.need_entries = Some(message),
            Message::Again { .. } => self.again = Some(message),
            Message::Clock(news) => self.clock.get_or_insert_default().merge(&news),
            Message::Held { device, statement } => {
                self.held.insert(device, statement);
            }
            Message::Ranges(names) => put(&mut self.ranges.named, names),
            Message::NeedRanges { ranges, said } => {
                put(&mut self.ranges.need, ranges);
                put(&mut self.ranges.need_said, said);
            }
            // Made by the shell from `Work`, never queued.
            Message::Grants { .. }
            | Message::Entries(_)
            | Message::Range { .. }
            | Message::Attestations(_) => {}
        }
    }

    /// Nothing is left to be said but who is in the vault.
    fn part(&mut self) {
        self.parts = true;
        self.need_grants = None;
        self.need_entries = None;
        self.again = None;
        self.clock = None;
        self.held.clear();
        self.entries.clear();
        self.ranges = Ranges::default();
    }

    /// Whether nothing is to be sent.
    pub fn is_empty(&self) -> bool {
        self.hello.is_none()
            && self.bye.is_none()
            && self.close.is_none()
            && self.need_grants.is_none()
            && self.need_entries.is_none()
            && self.again.is_none()
            && self.clock.is_none()
            && self.grants.is_none()
            && self.held.is_empty()
            && self.entries.is_empty()
            && self.ranges.is_empty()
    }

    /// Takes out the next thing to send; `None` if there is nothing. Entries stay until
    /// [`sent`](Self::sent) says how far they were. After a goodbye nothing else is worth sending.
    pub fn take_next(&mut self) -> Option<Work> {
        if let Some(hello) = self.hello.take() {
            return Some(Work::Message(hello));
        }
        // Who is put out is sent the grants that say so.
        if self.parts
            && let Some(they_have) = self.grants.take()
        {
            return Some(Work::Grants { they_have });
        }
        if let Some(bye) = self.bye.take() {
            return Some(Work::Message(bye));
        }
        if let Some(reason) = self.close {
            return Some(Work::Close(reason));
        }
        if let Some(question) = self
            .need_grants
            .take()
            .or_else(|| self.need_entries.take())
            .or_else(|| self.again.take())
        {
            return Some(Work::Message(question));
        }
        if let Some(clock) = self.clock.take() {
            return Some(Work::Message(Message::Clock(clock)));
        }
        if let Some(they_have) = self.grants.take() {
            return Some(Work::Grants { they_have });
        }
        if let Some((device, statement)) = self.held.pop_first() {
            return Some(Work::Message(Message::Held { device, statement }));
        }
        if let Some(message) = self.ranges.take_message() {
            return Some(Work::Message(message));
        }
        let next = self
            .turn
            .and_then(|turn| self.entries.range(turn..).next())
            .or_else(|| self.entries.first_key_value());
        let Some((writer, (from, to))) = next else {
            return self.ranges.take_work();
        };
        self.handed_out = Some((*writer, *to));
        Some(Work::Entries {
            writer: *writer,
            from: *from,
            to: *to,
            ranges: self.knows_ranges,
        })
    }

    /// The entries of `writer` that [`take_next`](Self::take_next) named were sent up to and including `seq`.
    pub fn sent(&mut self, writer: WriterId, seq: u64) {
        let as_handed_out = self
            .handed_out
            .take_if(|(handed, _)| *handed == writer)
            .is_some();
        if let Some((from, to)) = self.entries.get_mut(&writer)
            && as_handed_out
        {
            *from = (*from).max(seq.saturating_add(1));
            if *from > *to {
                self.entries.remove(&writer);
            }
        }
        // The next log after this one, cyclically.
        self.turn = self
            .entries
            .range((
                std::ops::Bound::Excluded(writer),
                std::ops::Bound::Unbounded,
            ))
            .next()
            .map(|(writer, _)| *writer);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{A, B, C, clock, hash, writer};
    use super::*;

    fn entries(peer: DeviceId, device: DeviceId, from: u64, to: u64) -> Action {
        Action::SendEntries {
            peer,
            writer: writer(device),
            from,
            to,
        }
    }

    #[test]
    fn who_is_put_out_is_sent_the_grants_before_the_goodbye_and_nothing_else() {
        let mut outbox = Outbox::new();
        outbox.push(entries(B, A, 1, 9));
        outbox.push(Action::SendGrants {
            peer: B,
            they_have: vec![hash(1)],
        });
        let bye = Message::Bye {
            reason: ByeReason::PUT_OUT,
        };
        outbox.push(Action::Send {
            peer: B,
            message: bye.clone(),
        });
        let they_have = vec![hash(1)];
        assert_eq!(outbox.take_next(), Some(Work::Grants { they_have }));
        assert_eq!(outbox.take_next(), Some(Work::Message(bye)));
        assert_eq!(outbox.take_next(), None);
    }

    #[test]
    fn a_slow_peer_gets_joined_ranges_and_the_newest_of_everything() {
        let mut outbox = Outbox::new();
        for seq in 1..=50 {
            assert_eq!(outbox.push(entries(B, A, seq, seq)), None);
            let news = Message::Clock(clock(&[(A, seq)]));
            outbox.push(Action::Send {
                peer: B,
                message: news,
            });
            outbox.push(Action::Send {
                peer: B,
                message: Message::Held {
                    device: C,
                    statement: vec![seq as u8],
                },
            });
            outbox.push(Action::SendGrants {
                peer: B,
                they_have: vec![hash(seq)],
            });
        }
        assert_eq!(
            outbox.take_next(),
            Some(Work::Message(Message::Clock(clock(&[(A, 50)]))))
        );
        assert_eq!(
            outbox.take_next(),
            Some(Work::Grants {
                they_have: vec![hash(1)]
            })
        );
        assert_eq!(
            outbox.take_next(),
            Some(Work::Message(Message::Held {
                device: C,
                statement: vec![50]
            }))
        );
        let work = |from| {
            Some(Work::Entries {
                writer: writer(A),
                from,
                to: 50,
                ranges: false,
            })
        };
        assert_eq!(outbox.take_next(), work(1));
        outbox.sent(writer(A), 20);
        assert_eq!(outbox.take_next(), work(21));
        // Asked for again while entries 21 to 30 were being sent: they count for nothing.
        outbox.push(entries(B, A, 1, 50));
        outbox.sent(writer(A), 30);
        assert_eq!(outbox.take_next(), work(1));
        outbox.sent(writer(A), 50);
        assert!(outbox.is_empty());
    }

    #[test]
    fn every_log_gets_its_turn_and_goodbye_comes_before_the_rest() {
        let mut outbox = Outbox::new();
        outbox.push(entries(C, A, 1, 100));
        outbox.push(entries(C, B, 1, 100));
        let mut turns = Vec::new();
        for seq in 1..=4 {
            let Some(Work::Entries { writer, .. }) = outbox.take_next() else {
                panic!("entries are left");
            };
            turns.push(writer.device);
            outbox.sent(writer, seq);
        }
        assert_eq!(turns, [A, B, A, B]);
        outbox.push(Action::Send {
            peer: C,
            message: Message::Bye {
                reason: ByeReason::LEAVING,
            },
        });
        outbox.push(Action::Close {
            peer: C,
            reason: CloseReason::Violation,
        });
        assert!(matches!(
            outbox.take_next(),
            Some(Work::Message(Message::Bye { .. }))
        ));
        assert_eq!(
            outbox.take_next(),
            Some(Work::Close(CloseReason::Violation))
        );
    }
}
