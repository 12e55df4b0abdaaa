//! Two nodes with one device's keys: who copied a data folder and runs both has them. They cannot meet each other, as each
//! takes the other for itself; others talk to them by turns, and so what one writes reaches the other.
//!
//! Each run of a node has a random [`Instance`] and tells it to wanted devices (see [`super::presence`]). Connections of one
//! device that tell different ones are those of several nodes. All stay connected; streams are opened to the one whose turn
//! it is. Who comes last is first: usually it is a node that was started again, and the connections of the former run are
//! about to be found dead. Only those that outlive a turn are several indeed.
//!
//! Pure: told who is there and when, it says whose turn it is and when to look again.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{address::Device, roster::Connection};

/// One run of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Instance(pub u64);

/// How long one node is talked to while another waits. Over the time in which a dead connection is found out when there is
/// a reason for doubt, and over a session's beginning; short enough for people to see what they wrote arrive.
pub(super) const TURN: Duration = Duration::from_secs(6);

#[derive(Clone, Copy, Debug)]
struct Turn {
    of: Instance,
    since: Instant,
    /// More than one outlived a turn.
    several: bool,
}

/// Whose turn it is, for each device of which there seem to be several nodes.
#[derive(Debug, Default)]
pub(super) struct Turns(BTreeMap<Device, Turn>);

impl Turns {
    /// Devices that are or seemed to be several.
    pub fn devices(&self) -> impl Iterator<Item = Device> + '_ {
        self.0.keys().copied()
    }

    /// Whether a device has been several nodes for longer than a restart explains.
    pub fn is_several(&self, device: &Device) -> bool {
        self.0.get(device).is_some_and(|turn| turn.several)
    }

    /// Whose turn it is; `None` while a device is one node.
    pub fn of(&self, device: &Device) -> Option<Instance> {
        self.0.get(device).map(|turn| turn.of)
    }

    /// When to look at a device again.
    pub fn due(&self, device: &Device) -> Option<Instant> {
        self.0.get(device).map(|turn| turn.since + TURN)
    }

    /// Looks at the nodes of a device that are connected, each with when it came. Says whether another has its turn now, or
    /// nobody has to take turns any more.
    pub fn look(
        &mut self,
        device: Device,
        present: &BTreeMap<Instance, Instant>,
        now: Instant,
    ) -> bool {
        if present.len() < 2 {
            let before = self.0.remove(&device);
            return before.is_some_and(|turn| !present.contains_key(&turn.of));
        }
        let turn = self.0.get(&device).copied();
        let (of, several) = match turn {
            Some(turn) if present.contains_key(&turn.of) => {
                if now < turn.since + TURN {
                    return false;
                }
                let later = present.keys().find(|one| **one > turn.of);
                (later.or(present.keys().next()), true)
            }
            _ => {
                let newest = present.iter().max_by_key(|(_, came)| **came);
                let several = turn.is_some_and(|turn| turn.several);
                (newest.map(|(one, _)| one), several)
            }
        };
        let Some(of) = of.copied() else {
            return false;
        };
        let since = now;
        self.0.insert(device, Turn { of, since, several });
        turn.is_none_or(|before| before.of != of)
    }
}

/// The nodes at the other ends of a device's connections, as far as they have said which they are, and when each came.
pub(super) fn present(connections: &[Arc<Connection>]) -> BTreeMap<Instance, Instant> {
    let mut present = BTreeMap::new();
    for connection in connections {
        if let Some(instance) = connection.instance.get() {
            let came = present.entry(*instance).or_insert(connection.since);
            *came = connection.since.min(*came);
        }
    }
    present
}

/// The connections of a device that streams may go over: of several nodes, those of the one whose turn it is.
pub(super) fn in_turn(
    turn: Option<Instance>,
    connections: &[Arc<Connection>],
) -> Vec<&Arc<Connection>> {
    let of_it = |one: &&Arc<Connection>| turn.is_some() && one.instance.get() == turn.as_ref();
    let chosen: Vec<_> = connections.iter().filter(of_it).collect();
    if chosen.is_empty() {
        return connections.iter().collect();
    }
    chosen
}

/// The connections of a device, apart for each node: only among those of one are any too many.
pub(super) fn nodes(
    turn: Option<Instance>,
    connections: &[Arc<Connection>],
) -> Vec<Vec<&Arc<Connection>>> {
    if turn.is_none() {
        return vec![connections.iter().collect()];
    }
    let nodes = present(connections).into_keys();
    nodes.map(|node| in_turn(Some(node), connections)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: Device = [7; 32];

    fn present(nodes: &[(u64, Instant)]) -> BTreeMap<Instance, Instant> {
        let nodes = nodes.iter();
        nodes.map(|(one, came)| (Instance(*one), *came)).collect()
    }

    #[test]
    fn a_node_that_was_started_again_takes_over_at_once_and_is_not_two() {
        let (mut turns, start) = (Turns::default(), Instant::now());
        assert!(!turns.look(DEVICE, &present(&[(9, start)]), start));
        assert_eq!(turns.of(&DEVICE), None);
        let again = start + TURN * 10;
        assert!(turns.look(DEVICE, &present(&[(9, start), (3, again)]), again));
        assert_eq!(turns.of(&DEVICE), Some(Instance(3)));
        // The former run's connection is found dead.
        let later = again + TURN / 2;
        assert!(!turns.look(DEVICE, &present(&[(3, again)]), later));
        assert_eq!(turns.of(&DEVICE), None);
        assert!(!turns.is_several(&DEVICE));
    }

    #[test]
    fn nodes_with_one_key_are_talked_to_by_turns() {
        let (mut turns, start) = (Turns::default(), Instant::now());
        let all = present(&[(1, start), (2, start), (3, start + TURN)]);
        let mut seen = Vec::new();
        for turn in 0..6 {
            let now = start + TURN * (turn + 1);
            assert!(turns.look(DEVICE, &all, now));
            seen.extend(turns.of(&DEVICE).map(|one| one.0));
            assert!(!turns.look(DEVICE, &all, now + TURN / 2));
            assert_eq!(turns.due(&DEVICE), Some(now + TURN));
            assert_eq!(turns.is_several(&DEVICE), turn > 0);
        }
        assert_eq!(seen, [3, 1, 2, 3, 1, 2]);
    }

    #[test]
    fn who_is_gone_gives_its_turn_to_those_that_are_left() {
        let (mut turns, start) = (Turns::default(), Instant::now());
        let came = start + TURN;
        assert!(turns.look(DEVICE, &present(&[(1, start), (2, came)]), came));
        // The one whose turn it was goes, and the other is alone.
        assert!(turns.look(DEVICE, &present(&[(1, start)]), came));
        assert_eq!(turns.of(&DEVICE), None);
        // Nobody is there at all.
        assert!(turns.look(DEVICE, &present(&[(1, start), (2, came)]), came));
        assert!(turns.look(DEVICE, &present(&[]), came));
    }
}
