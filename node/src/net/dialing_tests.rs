//! What the dialling rules promise, without a network.

use super::*;

const OWN: Device = [0; 32];
const OTHER: Device = [9; 32];

fn at(text: &str) -> Multiaddr {
    text.parse().expect("address")
}

fn wanted(addresses: &[&str]) -> BTreeMap<Device, Vec<Multiaddr>> {
    BTreeMap::from([(OTHER, addresses.iter().map(|text| at(text)).collect())])
}

fn texts(dials: &[Dial]) -> Vec<String> {
    dials
        .iter()
        .flat_map(|dial| dial.addresses.iter().map(ToString::to_string))
        .collect()
}

#[test]
fn a_wanted_device_is_dialled_at_once_then_with_growing_delays_up_to_a_minute() {
    let mut now = Instant::now();
    let mut dialing = Dialing::new(OWN);
    dialing.set_wanted(wanted(&["/ip4/10.0.0.2/tcp/1"]), |_| 0, now);
    let mut waits = Vec::new();
    for _ in 0..9 {
        let next = dialing.next().expect("planned");
        waits.push((next - now).as_millis());
        now = next;
        assert_eq!(dialing.due(now).len(), 1);
        assert!(dialing.due(now).is_empty());
        assert!(dialing.settled(OTHER, Transport::Tcp, now));
    }
    assert_eq!(
        waits,
        [0, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]
    );
}

#[test]
fn a_host_is_not_waited_for_as_long_as_a_device_that_dials() {
    let mut now = Instant::now();
    let mut dialing = Dialing::new(OWN);
    dialing.set_wanted(wanted(&["/ip4/10.0.0.2/tcp/1"]), |_| 0, now);
    dialing.set_hosts(&BTreeSet::from([OTHER]));
    let mut waits = Vec::new();
    for _ in 0..7 {
        let next = dialing.next().expect("planned");
        waits.push((next - now).as_millis());
        now = next;
        assert_eq!(dialing.due(now).len(), 1);
        assert!(dialing.settled(OTHER, Transport::Tcp, now));
    }
    assert_eq!(waits, [0, 1000, 2000, 4000, 8000, 15000, 15000]);
}

#[test]
fn preferred_addresses_get_a_head_start_and_the_others_follow_their_failure() {
    let now = Instant::now();
    let mut dialing = Dialing::new(OWN);
    dialing.set_wanted(
        wanted(&["/ip4/10.0.0.3/udp/1/quic-v1", "/ip4/10.0.0.2/tcp/1"]),
        |_| 0,
        now,
    );
    assert_eq!(texts(&dialing.due(now)), ["/ip4/10.0.0.2/tcp/1"]);
    assert_eq!(dialing.next(), Some(now + FALLBACK_DELAY));
    assert!(!dialing.settled(OTHER, Transport::Tcp, now));
    assert_eq!(texts(&dialing.due(now)), ["/ip4/10.0.0.3/udp/1/quic-v1"]);
    // A QUIC handshake with nobody takes long; TCP is tried again meanwhile, and QUIC is not.
    let again = now + FIRST_BACKOFF;
    assert_eq!(dialing.next(), Some(again));
    assert_eq!(texts(&dialing.due(again)), ["/ip4/10.0.0.2/tcp/1"]);
    assert!(!dialing.settled(OTHER, Transport::Tcp, again));
    assert!(dialing.due(again).is_empty());
    assert!(dialing.settled(OTHER, Transport::Quic, again));
    assert_eq!(dialing.next(), Some(again + 2 * FIRST_BACKOFF));
}

#[test]
fn quic_to_a_machine_near_by_waits_until_its_tcp_has_failed_a_whole_round() {
    let now = Instant::now();
    let mut dialing = Dialing::new(OWN);
    dialing.set_wanted(
        wanted(&["/ip4/10.0.0.2/tcp/1", "/ip4/10.0.0.2/udp/1/quic-v1"]),
        |_| 0,
        now,
    );
    assert_eq!(texts(&dialing.due(now)), ["/ip4/10.0.0.2/tcp/1"]);
    assert!(dialing.settled(OTHER, Transport::Tcp, now));
    assert!(dialing.due(now + FALLBACK_DELAY).is_empty());
    let again = now + FIRST_BACKOFF;
    assert_eq!(texts(&dialing.due(again)), ["/ip4/10.0.0.2/tcp/1"]);
    assert!(!dialing.settled(OTHER, Transport::Tcp, again));
    assert_eq!(texts(&dialing.due(again)), ["/ip4/10.0.0.2/udp/1/quic-v1"]);
}

#[test]
fn a_connection_cancels_what_was_planned_and_its_end_plans_a_quick_dial() {
    let now = Instant::now();
    let mut dialing = Dialing::new(OWN);
    dialing.set_wanted(
        wanted(&["/ip4/10.0.0.2/tcp/1", "/ip4/10.0.0.2/udp/1/quic-v1"]),
        |_| 0,
        now,
    );
    assert_eq!(dialing.due(now).len(), 1);
    dialing.connected(OTHER, None, now);
    dialing.settled(OTHER, Transport::Tcp, now);
    assert_eq!(
        (dialing.next(), dialing.due(now + SETTLED).len()),
        (None, 0)
    );
    let gone = now + SETTLED;
    dialing.disconnected(OTHER, 0, gone);
    assert_eq!(dialing.next(), Some(gone + REDIAL_DELAY));
    assert!(dialing.expected(gone).contains(&OTHER));
}

#[test]
fn connections_that_never_last_do_not_reset_the_backoff() {
    let mut now = Instant::now();
    let mut dialing = Dialing::new(OWN);
    dialing.set_wanted(wanted(&["/ip4/10.0.0.2/tcp/1"]), |_| 0, now);
    let mut waits = Vec::new();
    for _ in 0..4 {
        now = dialing.next().expect("planned");
        assert_eq!(dialing.due(now).len(), 1);
        dialing.connected(OTHER, None, now);
        dialing.settled(OTHER, Transport::Tcp, now);
        let gone = now + Duration::from_secs(5);
        dialing.disconnected(OTHER, 0, gone);
        waits.push((dialing.next().expect("planned") - gone).as_millis());
    }
    assert_eq!(waits, [250, 1000, 2000, 4000]);
}

#[test]
fn new_addresses_are_dialled_at_once_even_while_others_are_tried() {
    let now = Instant::now();
    let mut dialing = Dialing::new(OWN);
    dialing.set_wanted(wanted(&["/ip4/10.0.0.2/tcp/1"]), |_| 0, now);
    dialing.due(now);
    dialing.learned(
        OTHER,
        &[at("/ip4/10.0.0.3/tcp/1"), at("/ip4/10.0.0.2/tcp/1")],
        now,
    );
    assert_eq!(texts(&dialing.due(now)), ["/ip4/10.0.0.3/tcp/1"]);
    dialing.learned(OTHER, &[at("/ip4/10.0.0.3/tcp/1")], now);
    assert!(dialing.due(now).is_empty());
    assert!(!dialing.settled(OTHER, Transport::Tcp, now));
    assert!(dialing.settled(OTHER, Transport::Tcp, now));
}

#[test]
fn a_changed_network_starts_over() {
    let now = Instant::now();
    let mut dialing = Dialing::new(OWN);
    dialing.set_wanted(wanted(&["/ip4/10.0.0.2/tcp/1"]), |_| 0, now);
    for _ in 0..5 {
        let at = dialing.next().expect("planned");
        dialing.due(at);
        dialing.settled(OTHER, Transport::Tcp, at);
    }
    dialing.network_changed(now);
    assert_eq!(dialing.next(), Some(now));
}

#[test]
fn a_device_asked_for_once_is_forgotten_when_it_does_not_answer() {
    let now = Instant::now();
    let mut dialing = Dialing::new(OWN);
    dialing.request(OTHER, &[at("/ip4/10.0.0.2/tcp/1")], now);
    assert_eq!(dialing.due(now).len(), 1);
    assert!(dialing.settled(OTHER, Transport::Tcp, now));
    assert_eq!(dialing.next(), None);
    assert!(dialing.addresses(&OTHER).is_empty());
}

#[test]
fn the_address_that_worked_comes_first_and_the_list_stays_bounded() {
    let now = Instant::now();
    let mut dialing = Dialing::new(OWN);
    dialing.set_wanted(wanted(&["/ip4/10.0.0.2/tcp/1"]), |_| 0, now);
    let best = at("/ip4/10.0.0.9/tcp/7");
    assert_eq!(dialing.news(&OTHER), None);
    dialing.connected(OTHER, Some(&best), now);
    assert_eq!(
        dialing.news(&OTHER),
        Some(vec![best.clone(), at("/ip4/10.0.0.2/tcp/1")])
    );
    assert_eq!(dialing.news(&OTHER), None);
    for port in 1..200u16 {
        dialing.learned(OTHER, &[at(&format!("/ip4/10.0.0.5/tcp/{port}"))], now);
    }
    assert_eq!(dialing.addresses(&OTHER).len(), MAX_ADDRESSES);
    assert_eq!(dialing.addresses(&OTHER)[0], best);
}

#[test]
fn one_is_never_a_target_of_oneself() {
    let now = Instant::now();
    let mut dialing = Dialing::new(OWN);
    dialing.set_wanted(
        BTreeMap::from([(OWN, vec![at("/ip4/10.0.0.2/tcp/1")])]),
        |_| 0,
        now,
    );
    assert!(dialing.due(now).is_empty());
}

#[test]
fn a_device_that_is_connected_already_is_not_dialled_when_it_becomes_wanted() {
    let now = Instant::now();
    let mut dialing = Dialing::new(OWN);
    dialing.set_wanted(wanted(&["/ip4/10.0.0.2/tcp/1"]), |_| 1, now);
    assert!(dialing.due(now).is_empty());
    dialing.disconnected(OTHER, 0, now);
    assert_eq!(dialing.next(), Some(now + REDIAL_DELAY));
}
