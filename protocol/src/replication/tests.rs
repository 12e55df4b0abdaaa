//! The replicator's rules, one by one.

use proptest::prelude::*;

use super::peer::ASKS;
use super::*;
use crate::identity::VaultId;
use crate::log::Clock;

const VAULT: VaultId = VaultId([7; 32]);
pub(super) const A: DeviceId = DeviceId([0xaa; 32]);
pub(super) const B: DeviceId = DeviceId([0xbb; 32]);
pub(super) const C: DeviceId = DeviceId([0xcc; 32]);

pub(super) fn writer(device: DeviceId) -> WriterId {
    WriterId {
        device,
        incarnation: 0,
    }
}

pub(super) fn hash(seq: u64) -> Hash {
    Hash([seq as u8; 32])
}

pub(super) fn clock(entries: &[(DeviceId, u64)]) -> Clock {
    entries
        .iter()
        .map(|(device, seq)| (writer(*device), (*seq, hash(*seq))))
        .collect()
}

fn hello(clock: Clock) -> Message {
    Message::Hello {
        versions: vec![1],
        vault: VAULT,
        grant_heads: vec![Hash([1; 32])],
        clock,
    }
}

/// A's replicator, with this clock, live with each peer and the clock it said Hello with.
fn live(ours: &[(DeviceId, u64)], peers: &[(DeviceId, &[(DeviceId, u64)])]) -> Replicator {
    let mut replicator = Replicator::new(VAULT, vec![Hash([1; 32])], clock(ours));
    for (peer, theirs) in peers {
        replicator.connected(*peer);
        replicator.received(*peer, hello(clock(theirs)));
    }
    replicator
}

fn entries(peer: DeviceId, device: DeviceId, from: u64, to: u64) -> Action {
    Action::SendEntries {
        peer,
        writer: writer(device),
        from,
        to,
    }
}

fn reasons(actions: &[Action]) -> Vec<CloseReason> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Close { reason, .. } => Some(*reason),
            _ => None,
        })
        .collect()
}

#[test]
fn hello_goes_out_first_and_what_the_peer_lacks_follows_its_own_hello_grants_first() {
    let mut replicator = Replicator::new(VAULT, vec![Hash([2; 32])], clock(&[(A, 5), (B, 3)]));
    let first = replicator.connected(B);
    assert!(matches!(
        &first[..],
        [Action::Send {
            peer: B,
            message: Message::Hello { .. }
        }]
    ));
    let actions = replicator.received(B, hello(clock(&[(A, 2), (B, 9)])));
    assert_eq!(
        actions,
        [
            Action::SendGrants {
                peer: B,
                they_have: vec![Hash([1; 32])]
            },
            entries(B, A, 3, 5)
        ]
    );
}

#[test]
fn a_live_edit_goes_to_everyone_who_lacks_it_and_not_back() {
    let mut replicator = live(&[], &[(B, &[]), (C, &[])]);
    assert_eq!(
        replicator.committed(&[(writer(A), 1, hash(1))], None),
        [entries(B, A, 1, 1), entries(C, A, 1, 1)]
    );
    assert_eq!(
        replicator.committed(&[(writer(B), 1, hash(1))], Some(B)),
        [entries(C, B, 1, 1)]
    );
    // C has told that it has B's second entry: nobody needs to send it.
    replicator.received(C, Message::Clock(clock(&[(B, 2)])));
    assert_eq!(
        replicator.committed(&[(writer(B), 2, hash(2))], Some(B)),
        []
    );
}

#[test]
fn only_an_announced_clock_acknowledges() {
    let mut replicator = live(&[(A, 1)], &[(B, &[])]);
    assert!(replicator.acknowledged(&B).is_empty());
    replicator.committed(&[(writer(A), 2, hash(2))], None);
    assert!(replicator.acknowledged(&B).is_empty());
    replicator.received(B, Message::Clock(clock(&[(A, 2)])));
    assert_eq!(replicator.acknowledged(&B), &clock(&[(A, 2)]));
    replicator.disconnected(B);
    assert!(replicator.acknowledged(&B).is_empty());
}

#[test]
fn after_a_reconnect_the_hello_alone_counts() {
    let mut replicator = live(&[(A, 3)], &[(B, &[])]);
    replicator.received(B, Message::Clock(clock(&[(A, 3)])));
    // B was restored from a backup.
    replicator.connected(B);
    assert_eq!(
        replicator.received(B, hello(clock(&[(A, 1)]))),
        [entries(B, A, 2, 3)]
    );
    assert_eq!(replicator.acknowledged(&B), &clock(&[(A, 1)]));
}

#[test]
fn announcements_share_what_is_new_and_are_silent_otherwise() {
    let mut replicator = live(&[(A, 1)], &[(B, &[])]);
    assert_eq!(replicator.announce_clock(B), []);
    replicator.committed(&[(writer(C), 1, hash(1))], Some(B));
    replicator.committed(&[(writer(C), 2, hash(2))], Some(B));
    assert_eq!(
        replicator.announce_clock(B),
        [Action::Send {
            peer: B,
            message: Message::Clock(clock(&[(C, 2)]))
        }]
    );
    assert_eq!(replicator.announce_clock(B), []);
    assert_eq!(replicator.announce_clock(C), []);
}

#[test]
fn strangers_to_the_protocol_are_closed_on() {
    for (message, reason) in [
        (Message::Clock(Clock::new()), CloseReason::HelloExpected),
        (
            Message::Hello {
                versions: vec![1],
                vault: VaultId([8; 32]),
                grant_heads: Vec::new(),
                clock: Clock::new(),
            },
            CloseReason::OtherVault,
        ),
        (
            Message::Hello {
                versions: vec![2, 3],
                vault: VAULT,
                grant_heads: Vec::new(),
                clock: Clock::new(),
            },
            CloseReason::NoCommonVersion,
        ),
        (
            Message::Bye {
                reason: ByeReason::LEAVING,
            },
            CloseReason::PeerLeft(ByeReason::LEAVING),
        ),
    ] {
        let mut replicator = live(&[(A, 1)], &[]);
        replicator.connected(B);
        let actions = replicator.received(B, message);
        assert_eq!(reasons(&actions), [reason]);
        assert!(
            !actions
                .iter()
                .any(|action| matches!(action, Action::SendEntries { .. }))
        );
        // Whatever else comes is ignored.
        assert_eq!(replicator.received(B, hello(Clock::new())), []);
        assert_eq!(replicator.committed(&[(writer(A), 2, hash(2))], None), []);
    }
    let mut replicator = live(&[], &[(B, &[])]);
    let actions = replicator.received(B, hello(Clock::new()));
    assert_eq!(reasons(&actions), [CloseReason::SecondHello]);
    assert_eq!(replicator.received(C, hello(Clock::new())), []);
}

#[test]
fn a_gap_is_asked_about_once_until_the_answer_comes_and_not_forever() {
    let mut replicator = live(&[(B, 1)], &[(B, &[(B, 1)])]);
    let mut asked = 0;
    for round in 0..20 {
        for _ in 0..3 {
            for action in replicator.rejected(B, round, Rejection::Gap) {
                assert!(matches!(
                    action,
                    Action::Send {
                        message: Message::NeedEntries { .. },
                        ..
                    }
                ));
                asked += 1;
            }
        }
        if asked == round + 1 {
            assert_eq!(
                replicator.received(B, Message::Again { round: round + 1 }),
                []
            );
        }
    }
    assert_eq!(asked, ASKS);
}

#[test]
fn refusals_of_what_came_before_the_answer_are_stale() {
    let mut replicator = live(&[], &[(B, &[])]);
    assert_eq!(replicator.rejected(B, 0, Rejection::Gap).len(), 1);
    replicator.received(B, Message::Again { round: 1 });
    assert_eq!(replicator.rejected(B, 0, Rejection::Gap), []);
    assert_eq!(
        replicator.received(B, Message::Entries(Vec::new())),
        [Action::Ingest {
            peer: B,
            entries: Vec::new(),
            round: 1
        }]
    );
    assert_eq!(replicator.rejected(B, 1, Rejection::Gap).len(), 1);
}

#[test]
fn a_question_is_answered_from_the_clock_that_it_names() {
    let mut replicator = live(&[(A, 5)], &[(B, &[(A, 2)])]);
    let question = Message::NeedEntries {
        round: 1,
        clock: clock(&[(A, 3)]),
    };
    assert_eq!(
        replicator.received(B, question),
        [
            Action::Send {
                peer: B,
                message: Message::Again { round: 1 }
            },
            entries(B, A, 4, 5)
        ]
    );
    assert_eq!(replicator.acknowledged(&B), &clock(&[(A, 3)]));
}

#[test]
fn a_peer_that_asks_without_end_is_closed_on() {
    let mut replicator = live(&[(A, 5)], &[(B, &[])]);
    let mut closed = Vec::new();
    for round in 1..100 {
        let question = Message::NeedEntries {
            round,
            clock: Clock::new(),
        };
        closed.extend(reasons(&replicator.received(B, question)));
    }
    assert_eq!(closed, [CloseReason::TooManyAsks]);
}

#[test]
fn an_unknown_writer_leads_to_its_grants_and_then_to_its_entries() {
    let mut replicator = live(&[], &[(B, &[])]);
    let ask = replicator.rejected(B, 0, Rejection::UnknownWriter);
    assert!(matches!(
        &ask[..],
        [Action::Send {
            message: Message::NeedGrants { .. },
            ..
        }]
    ));
    assert_eq!(replicator.rejected(B, 0, Rejection::UnknownWriter), []);
    let answer = replicator.received(
        B,
        Message::Grants {
            heads: vec![Hash([2; 32])],
            grants: vec![vec![1]],
        },
    );
    assert!(matches!(
        &answer[..],
        [
            Action::IngestGrants { .. },
            Action::Send {
                message: Message::NeedEntries { .. },
                ..
            }
        ]
    ));
}

#[test]
fn new_grants_go_to_whoever_has_other_heads_and_not_back() {
    let mut replicator = live(&[], &[(B, &[]), (C, &[])]);
    replicator.received(
        B,
        Message::Grants {
            heads: vec![Hash([2; 32])],
            grants: Vec::new(),
        },
    );
    assert_eq!(
        replicator.grants_changed(vec![Hash([2; 32])]),
        [Action::SendGrants {
            peer: C,
            they_have: vec![Hash([1; 32])]
        }]
    );
    assert_eq!(replicator.grants_changed(vec![Hash([2; 32])]), []);
}

#[test]
fn a_peer_that_sends_rubbish_again_and_again_is_closed_on() {
    let mut replicator = live(&[], &[(B, &[])]);
    let mut closed = Vec::new();
    for round in 0..20 {
        closed.extend(reasons(&replicator.rejected(B, round, Rejection::Invalid)));
        replicator.received(B, Message::Again { round: round + 1 });
    }
    assert_eq!(closed, [CloseReason::InvalidEntries]);
}

#[test]
fn a_fork_is_reported_once_and_its_log_sent_no_more() {
    let mut replicator = live(&[(C, 2)], &[]);
    replicator.connected(B);
    let mut theirs = Clock::new();
    theirs.observe(writer(C), 2, Hash([9; 32]));
    let fork = Action::Fork {
        peer: B,
        writer: writer(C),
        seq: 2,
        ours: hash(2),
        theirs: Hash([9; 32]),
    };
    assert_eq!(replicator.received(B, hello(theirs.clone())), [fork]);
    assert_eq!(replicator.received(B, Message::Clock(theirs)), []);
    assert_eq!(replicator.committed(&[(writer(C), 3, hash(3))], None), []);
    assert_eq!(
        replicator.committed(&[(writer(A), 1, hash(1))], None),
        [entries(B, A, 1, 1)]
    );
}

#[test]
fn held_statements_reach_everyone_once_and_never_their_author() {
    let mut replicator = live(&[], &[(B, &[]), (C, &[])]);
    let sent = replicator.held_changed(B, vec![1], Some(B));
    assert_eq!(
        sent,
        [Action::Send {
            peer: C,
            message: Message::Held {
                device: B,
                statement: vec![1]
            }
        }]
    );
    replicator.connected(C);
    let actions = replicator.received(C, hello(Clock::new()));
    assert_eq!(actions, sent);
}

#[test]
fn clocks_without_end_do_not_make_a_node_grow() {
    let mut replicator = live(&[], &[(B, &[])]);
    let mut closed = Vec::new();
    for part in 0..3u32 {
        let clock: Clock = (0..600)
            .map(|n| {
                let writer = WriterId {
                    device: B,
                    incarnation: part * 600 + n,
                };
                (writer, (1, hash(1)))
            })
            .collect();
        closed.extend(reasons(&replicator.received(B, Message::Clock(clock))));
    }
    assert_eq!(closed, [CloseReason::Violation]);
}

#[test]
fn the_largest_number_is_no_trouble() {
    let mut replicator = live(
        &[(A, u64::MAX)],
        &[(B, &[(A, u64::MAX - 1)]), (C, &[(B, u64::MAX)])],
    );
    assert_eq!(
        replicator.committed(&[(writer(B), 1, hash(1))], None).len(),
        1
    );
}

proptest! {
    #[test]
    fn no_sequence_of_messages_panics(
        messages in prop::collection::vec((0u8..9, any::<u32>(), 0u64..5), 0..40),
    ) {
        let mut replicator = live(&[(A, 3)], &[]);
        replicator.connected(B);
        for (kind, number, seq) in messages {
            let clock = if seq == 0 { Clock::new() } else { clock(&[(A, seq), (C, seq)]) };
            let message = match kind {
                0 => hello(clock),
                1 => Message::Grants { heads: vec![hash(seq)], grants: Vec::new() },
                2 => Message::Entries(Vec::new()),
                3 => Message::Held { device: C, statement: Vec::new() },
                4 => Message::NeedGrants { heads: Vec::new() },
                5 => Message::NeedEntries { round: number, clock },
                6 => Message::Again { round: number % 4 },
                7 => Message::Clock(clock),
                _ => { replicator.rejected(B, number % 4, Rejection::Gap); continue; }
            };
            replicator.received(B, message);
        }
    }
}
