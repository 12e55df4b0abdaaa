//! Several nodes with one device's keys, in the table of connections: see [`turns`](super::turns) for the rules.

use std::{collections::BTreeSet, time::Instant};

use super::{
    Roster,
    turns::{self, Instance},
};
use crate::net::address::Device;

impl Roster {
    /// This run of this node.
    pub fn instance(&self) -> Instance {
        self.instance
    }

    /// Looks whose turn it is among the nodes of devices that seem to be several. Gives those of which another has its turn
    /// now, and when to look again.
    pub fn take_turns(&self, now: Instant) -> (Vec<Device>, Option<Instant>) {
        let mut guard = self.table();
        let table = &mut *guard;
        let known = table.several.iter().copied().chain(table.turns.devices());
        let known: BTreeSet<Device> = known.collect();
        let (mut changed, mut next) = (Vec::new(), None);
        for device in known {
            let entry = table.devices.get(&device);
            let present = turns::present(entry.map_or(&[], |entry| &entry.connections));
            if table.turns.look(device, &present, now) {
                changed.push(device);
            }
            next = [next, table.turns.due(&device)].into_iter().flatten().min();
        }
        drop(guard);
        if !changed.is_empty() {
            self.bump();
        }
        (changed, next)
    }

    /// Whether streams from this node of a device are due in this turn.
    pub fn is_in_turn(&self, device: &Device, instance: Option<Instance>) -> bool {
        let turn = self.table().turns.of(device);
        turn.is_none_or(|turn| instance == Some(turn))
    }

    /// Whether several nodes have the device's keys.
    pub fn is_several(&self, device: &Device) -> bool {
        self.table().turns.is_several(device)
    }
}
