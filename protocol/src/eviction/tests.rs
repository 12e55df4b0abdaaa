//! The rule by itself, and under every order of events that a seed can think of.

use super::*;
use crate::identity::{DeviceId, Hash};
use crate::log::Clock;
use proptest::prelude::*;

const DOCUMENT: &str = "c0";

fn device(n: usize) -> DeviceId {
    DeviceId([n as u8 + 1; 32])
}

fn author() -> WriterId {
    WriterId {
        device: device(0),
        incarnation: 0,
    }
}

fn enough(keepers: &Keepers<'_>, seq: u64) -> bool {
    let actor = author().actor();
    keepers.enough(Naming { actor, seq }, || DOCUMENT.into())
}

/// What device `n` says of a vault whose only content is named by the author's first entry.
fn held(n: usize, counter: u64, has: bool, unpinned_since: u64, seen: &[(DeviceId, u64)]) -> Held {
    let clock: Clock = [(author(), (1, Hash([9; 32])))].into_iter().collect();
    Held {
        device: device(n),
        counter,
        entries: clock.clone(),
        chunks: clock,
        exceptions: if has { vec![] } else { vec![DOCUMENT.into()] },
        more_missing: 0,
        pinned: unpinned_since == 0,
        unpinned_since,
        awaited: 0,
        seen: seen.to_vec(),
        at_ms: 0,
    }
}

fn may_drop(own: &Held, others: &[(Kind, &Held)]) -> bool {
    let others = others.iter().copied();
    enough(&Keepers::confirmed(own, others, Copies::default()), 1)
}

#[test]
fn only_a_pinned_copy_confirmed_after_the_announcement_counts() {
    let own = held(0, 5, true, 4, &[]);
    let seen = [(device(0), 4)];
    let good = held(1, 1, true, 0, &seen);
    assert!(may_drop(&own, &[(Kind::Device, &good)]));
    // It said so before it had seen the announcement.
    let early = held(1, 1, true, 0, &[(device(0), 3)]);
    assert!(!may_drop(&own, &[(Kind::Device, &early)]));
    // It may drop it, too.
    let loose = held(1, 1, true, 1, &seen);
    assert!(!may_drop(&own, &[(Kind::Device, &loose)]));
    // It lacks it.
    let lacking = held(1, 1, false, 0, &seen);
    assert!(!may_drop(&own, &[(Kind::Device, &lacking)]));
    // A later content of the same file, which it does not know of.
    let keepers = Keepers::confirmed(&own, [(Kind::Device, &good)], Copies::default());
    assert!(!enough(&keepers, 2));
}

#[test]
fn who_promises_to_keep_everything_drops_nothing() {
    let own = held(0, 5, true, 0, &[]);
    let good = held(1, 1, true, 0, &[(device(0), 5)]);
    assert!(!may_drop(&own, &[(Kind::Device, &good)]));
    // Nor does its own statement count for itself.
    let own = held(0, 5, true, 4, &[]);
    let itself = held(0, 5, true, 0, &[(device(0), 5)]);
    assert!(!may_drop(&own, &[(Kind::Device, &itself)]));
}

#[test]
fn it_takes_two_hosts_or_one_device() {
    let own = held(0, 5, true, 4, &[]);
    let seen = [(device(0), 4)];
    let (one, two) = (held(1, 1, true, 0, &seen), held(2, 1, true, 0, &seen));
    assert!(!may_drop(&own, &[(Kind::Host, &one)]));
    assert!(may_drop(&own, &[(Kind::Host, &one), (Kind::Host, &two)]));
    let copies = Copies {
        devices: 2,
        hosts: 3,
    };
    let both = [(Kind::Host, &one), (Kind::Device, &two)];
    assert!(!enough(&Keepers::confirmed(&own, both, copies), 1));
    assert!(enough(&Keepers::known(both, Copies::default()), 1));
}

const DEVICES: usize = 3;

/// One device of the simulation. What is in it is on its disk: a crash loses what is under way.
struct Node {
    has: bool,
    on_demand: bool,
    own: Held,
    known: BTreeMap<usize, Held>,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// A person changes what the device keeps.
    Keep { on_demand: bool },
    /// The device says anew what it holds; the statement is on its way to all others.
    State,
    /// One statement that is on its way from another arrives: statements travel by several ways.
    Arrives { from: usize, nth: usize },
    /// What is on its way to the device is lost, as when it crashes.
    Crash,
    /// It drops the content if the rule lets it.
    Drop,
    /// It fetches the content from another.
    Fetch { from: usize },
}

fn event() -> impl Strategy<Value = (usize, Event)> {
    let other = 0..DEVICES;
    let event = prop_oneof![
        2 => any::<bool>().prop_map(|on_demand| Event::Keep { on_demand }),
        6 => Just(Event::State),
        8 => (other.clone(), 0..4usize).prop_map(|(from, nth)| Event::Arrives { from, nth }),
        1 => Just(Event::Crash),
        6 => Just(Event::Drop),
        2 => other.prop_map(|from| Event::Fetch { from }),
    ];
    (0..DEVICES, event)
}

struct Fleet {
    nodes: Vec<Node>,
    /// Statements on their way: (from, to), in the order in which they were said.
    under_way: BTreeMap<(usize, usize), Vec<Held>>,
    drops: usize,
}

impl Fleet {
    fn new() -> Self {
        let node = |n| Node {
            has: true,
            on_demand: false,
            own: held(n, 1, true, 0, &[]),
            known: BTreeMap::new(),
        };
        Self {
            nodes: (0..DEVICES).map(node).collect(),
            under_way: BTreeMap::new(),
            drops: 0,
        }
    }

    fn happens(&mut self, at: usize, event: Event) {
        match event {
            Event::Keep { on_demand } => self.nodes[at].on_demand = on_demand,
            Event::State => self.state(at),
            Event::Arrives { from, nth } => {
                let news = self.under_way.entry((from, at)).or_default();
                if news.is_empty() {
                    return;
                }
                let held = news.remove(nth.min(news.len() - 1));
                let known = self.nodes[at].known.entry(from).or_insert(held.clone());
                // Of two the later holds.
                if known.counter < held.counter {
                    *known = held;
                }
            }
            Event::Crash => self.under_way.retain(|(_, to), _| *to != at),
            Event::Drop => {
                let node = &self.nodes[at];
                let others = node.known.values().map(|held| (Kind::Device, held));
                let keepers = Keepers::confirmed(&node.own, others, Copies::default());
                if node.has && node.on_demand && enough(&keepers, 1) {
                    self.nodes[at].has = false;
                    self.drops += 1;
                }
            }
            Event::Fetch { from } => self.nodes[at].has |= self.nodes[from].has,
        }
    }

    fn state(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let counter = node.own.counter + 1;
        let since = match (node.on_demand, node.own.pinned) {
            (false, _) => 0,
            (true, true) => counter,
            (true, false) => node.own.unpinned_since,
        };
        let seen: Vec<_> = node
            .known
            .iter()
            .map(|(from, held)| (device(*from), held.counter))
            .collect();
        node.own = held(at, counter, node.has, since, &seen);
        let own = node.own.clone();
        for to in (0..DEVICES).filter(|to| *to != at) {
            let queue = self.under_way.entry((at, to)).or_default();
            queue.push(own.clone());
        }
    }

    fn copies(&self) -> usize {
        self.nodes.iter().filter(|node| node.has).count()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn no_order_of_events_leaves_a_content_without_a_copy(events in prop::collection::vec(event(), 1..120)) {
        let mut fleet = Fleet::new();
        for (at, event) in events {
            fleet.happens(at, event);
            prop_assert!(fleet.copies() > 0, "the last copy was dropped");
        }
    }
}

#[test]
fn devices_that_go_on_demand_together_all_keep_what_they_have() {
    let mut fleet = Fleet::new();
    for at in 0..DEVICES {
        fleet.happens(at, Event::Keep { on_demand: true });
        fleet.happens(at, Event::State);
    }
    for _ in 0..3 {
        for at in 0..DEVICES {
            for from in 0..DEVICES {
                fleet.happens(at, Event::Arrives { from, nth: 9 });
            }
            fleet.happens(at, Event::Drop);
            fleet.happens(at, Event::State);
        }
    }
    assert_eq!(fleet.drops, 0);
    // One that promises to keep everything lets the others go.
    fleet.happens(1, Event::Keep { on_demand: false });
    fleet.happens(1, Event::State);
    for at in [0, 2] {
        fleet.happens(at, Event::Arrives { from: 1, nth: 9 });
        fleet.happens(at, Event::Drop);
    }
    assert_eq!((fleet.drops, fleet.copies()), (2, 1));
}
