//! What the rules of reservations and circuits promise, without a network.

use super::*;

const OWN: Device = [0; 32];
const NEAR: Device = [3; 32];
const FAR: Device = [4; 32];
const OTHER: Device = [9; 32];

/// Two hosts in use, one device wanted; nothing is connected.
fn circuits(now: Instant) -> Circuits<u32> {
    let mut circuits = Circuits::new(OWN);
    let hosts = BTreeSet::from([NEAR, FAR]);
    assert!(circuits.set_hosts(&hosts, |_| (0, false), now).is_empty());
    circuits.set_targets(&BTreeSet::from([OTHER]), |_| 0, now);
    circuits
}

/// The same with both hosts connected and asked, and both have agreed.
fn ready(now: Instant) -> Circuits<u32> {
    let mut circuits = circuits(now);
    for (host, listener, away) in [(NEAR, 1, 5), (FAR, 2, 80)] {
        circuits.connected(&host, now);
        circuits.identified(&host, now);
        circuits.measured(&host, Duration::from_millis(away));
        assert!(circuits.due(now).contains(&Act::Reserve(host)));
        circuits.asked(&host, listener, now);
        circuits.reserved(&host, now);
    }
    circuits
}

const fn dial(host: Device) -> Act {
    Act::Dial {
        device: OTHER,
        host,
    }
}

#[test]
fn a_host_is_asked_once_it_is_known_to_be_one_and_one_connection_is_left() {
    let now = Instant::now();
    let mut circuits = circuits(now);
    assert_eq!((circuits.next(), circuits.due(now)), (None, vec![]));
    circuits.connected(&NEAR, now);
    circuits.connected(&NEAR, now);
    assert_eq!(circuits.next(), None);
    circuits.identified(&NEAR, now);
    assert!(circuits.due(now).is_empty());
    let later = now + ONE_IS_LEFT;
    assert!(circuits.due(later).contains(&Act::Reserve(NEAR)));
    let mut circuits = self::circuits(now);
    circuits.connected(&NEAR, now);
    circuits.identified(&NEAR, now);
    assert_eq!(circuits.due(now), [Act::Reserve(NEAR)]);
    assert!(circuits.due(now).is_empty());
}

#[test]
fn a_lost_reservation_is_made_anew_at_once_and_a_refused_one_ever_later() {
    let mut now = Instant::now();
    let mut circuits = ready(now);
    circuits.set_targets(&BTreeSet::new(), |_| 0, now);
    assert_eq!(circuits.unreserved(1, now), Some(NEAR));
    assert_eq!(circuits.unreserved(1, now), None);
    let mut waits = Vec::new();
    for listener in 10..21 {
        let next = circuits.next().expect("planned");
        waits.push((next - now).as_secs());
        now = next;
        assert_eq!(circuits.due(now), [Act::Reserve(NEAR)]);
        circuits.asked(&NEAR, listener, now);
        assert_eq!(circuits.unreserved(listener, now), Some(NEAR));
    }
    assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
    // Without a connection there is nobody to ask.
    circuits.disconnected(&NEAR, 0, now);
    assert_eq!(circuits.next(), None);
}

#[test]
fn a_host_that_cannot_be_asked_is_tried_again_and_one_that_does_not_answer_connected_anew() {
    let now = Instant::now();
    let mut circuits = circuits(now);
    circuits.set_targets(&BTreeSet::new(), |_| 0, now);
    circuits.connected(&NEAR, now);
    circuits.identified(&NEAR, now);
    assert_eq!(circuits.due(now), [Act::Reserve(NEAR)]);
    circuits.not_asked(&NEAR, now);
    let now = circuits.next().expect("planned");
    assert_eq!(circuits.due(now), [Act::Reserve(NEAR)]);
    circuits.asked(&NEAR, 1, now);
    let now = circuits.next().expect("an answer is awaited");
    assert_eq!(circuits.due(now), [Act::Reconnect(NEAR)]);
    assert!(circuits.due(now).is_empty());
    circuits.disconnected(&NEAR, 0, now);
    assert_eq!(circuits.unreserved(1, now), Some(NEAR));
    circuits.connected(&NEAR, now);
    circuits.identified(&NEAR, now);
    assert_eq!(circuits.due(now), [Act::Reserve(NEAR)]);
    circuits.asked(&NEAR, 2, now);
    circuits.reserved(&NEAR, now);
    assert_eq!(circuits.next(), None);
}

#[test]
fn a_host_that_leaves_is_named_if_it_was_asked() {
    let now = Instant::now();
    let mut circuits = ready(now);
    let left = circuits.set_hosts(&BTreeSet::from([FAR]), |_| (1, true), now);
    assert_eq!(left, [NEAR]);
    assert_eq!(circuits.unreserved(1, now), None);
}

#[test]
fn a_device_is_dialled_through_the_nearest_host_first_then_the_others_then_later() {
    let mut now = Instant::now();
    let mut circuits = ready(now);
    assert!(circuits.due(now).is_empty());
    // The direct dials have a head start.
    now += HEAD_START;
    assert_eq!(circuits.due(now), [dial(NEAR)]);
    assert!(circuits.due(now).is_empty());
    assert_eq!(circuits.expected(now), BTreeSet::from([OTHER]));
    circuits.settled(&OTHER, now);
    assert_eq!(circuits.due(now), [dial(FAR)]);
    let mut waits = Vec::new();
    for _ in 0..8 {
        circuits.settled(&OTHER, now);
        let next = circuits.next().expect("planned");
        waits.push((next - now).as_secs());
        now = next;
        assert_eq!(circuits.due(now), [dial(NEAR)]);
        circuits.settled(&OTHER, now);
        assert_eq!(circuits.due(now), [dial(FAR)]);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
}

#[test]
fn what_promises_success_starts_over() {
    let failed = || {
        let mut now = Instant::now();
        let mut circuits = ready(now);
        for _ in 0..20 {
            now = circuits.next().expect("planned");
            for _ in circuits.due(now) {
                circuits.settled(&OTHER, now);
            }
        }
        let next = circuits.next().expect("planned");
        assert_eq!(next, now + MAX_BACKOFF);
        (circuits, now)
    };
    // Somebody has heard of it.
    let (mut circuits, now) = failed();
    circuits.heard_of(&OTHER, now);
    assert!(circuits.next().expect("planned") <= now + HEAD_START);
    // A host agrees to take connections for us, as it does again after it was restarted.
    let (mut circuits, now) = failed();
    assert_eq!(circuits.unreserved(1, now), Some(NEAR));
    assert!(circuits.due(now).contains(&Act::Reserve(NEAR)));
    circuits.asked(&NEAR, 3, now);
    circuits.reserved(&NEAR, now);
    assert!(circuits.next().expect("planned") <= now + HEAD_START);
    // It was connected for a moment: the next failures count from one.
    let (mut circuits, now) = failed();
    circuits.connected(&OTHER, now);
    circuits.disconnected(&OTHER, 0, now);
    let mut now = now + HEAD_START;
    for _ in 0..2 {
        assert_eq!(circuits.due(now).len(), 1);
        circuits.settled(&OTHER, now);
        now = circuits.next().expect("planned");
    }
    assert_eq!(now, circuits.next().expect("planned"));
    assert!(circuits.due(now).len() == 1);
    // One that is being dialled is not dialled twice, and its next failure is the first.
    circuits.heard_of(&OTHER, now);
    assert!(circuits.due(now + HEAD_START).is_empty());
}

#[test]
fn while_the_only_host_left_has_been_tried_nothing_is_due_at_once() {
    let now = Instant::now() + HEAD_START;
    let mut circuits = ready(now - HEAD_START);
    assert_eq!(circuits.due(now), [dial(NEAR)]);
    circuits.settled(&OTHER, now);
    circuits.disconnected(&FAR, 0, now);
    assert!(circuits.due(now).is_empty());
    assert_eq!(circuits.next(), Some(now + FIRST_BACKOFF));
}

#[test]
fn a_connected_device_is_left_alone_until_it_is_lost() {
    let now = Instant::now();
    let mut circuits = ready(now);
    circuits.connected(&OTHER, now);
    assert_eq!(circuits.next(), None);
    assert!(circuits.due(now + MAX_BACKOFF).is_empty());
    circuits.disconnected(&OTHER, 0, now);
    assert_eq!(circuits.next(), Some(now + HEAD_START));
    // A host that comes does not make it earlier than its direct dials allow, nor later.
    circuits.hurry(now);
    assert_eq!(circuits.next(), Some(now + HEAD_START));
}

#[test]
fn the_larger_key_waits_for_the_other() {
    let now = Instant::now();
    let mut circuits = Circuits::<u32>::new([8; 32]);
    circuits.set_hosts(&BTreeSet::from([NEAR]), |_| (1, true), now);
    circuits.set_targets(&BTreeSet::from([OTHER, [7; 32]]), |_| 0, now);
    assert_eq!(circuits.due(now), [Act::Reserve(NEAR)]);
    assert_eq!(circuits.due(now + HEAD_START), [dial(NEAR)]);
    assert_eq!(
        circuits
            .due(now + HEAD_START + super::super::dialing::YIELD_DELAY)
            .len(),
        1
    );
}
