//! What the core knows of this device and of others, taken at one moment, and what follows from it alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coffer_protocol::grants::Role;
use coffer_protocol::held::Held;
use coffer_protocol::identity::{DeviceId, VaultId, WriterId};
use coffer_protocol::log::Clock;

use crate::vault::Core;
use crate::vault::storage::Storage;

/// What the core knows, taken at one moment.
pub struct Known {
    /// Number of the last transaction.
    pub transaction: u64,
    pub(super) vault: VaultId,
    pub(super) created_ms: u64,
    /// Where every log ends here.
    pub clock: Clock,
    pub(super) wanted: u64,
    /// What this device keeps.
    pub storage: Arc<Storage>,
    pub(super) devices: Vec<(DeviceId, Role, Option<String>, u64)>,
    pub(super) held: BTreeMap<DeviceId, Held>,
    pub(super) announced: BTreeMap<DeviceId, Clock>,
    /// Devices that are connected and have said where they stand.
    pub(super) greeted: BTreeSet<DeviceId>,
    pub(super) has_recovery: bool,
    pub(super) stale: bool,
}

impl Known {
    /// Takes it.
    pub(super) fn read(core: &Core) -> Known {
        let state = core.state();
        let devices = state.membership.devices();
        Known {
            transaction: state.transaction,
            vault: state.vault,
            created_ms: state.membership.created_ms().unwrap_or(0),
            clock: state.clock.clone(),
            wanted: state.wanted,
            storage: state.storage.clone(),
            devices: devices
                .iter()
                .map(|(id, device)| {
                    (
                        *id,
                        device.role,
                        state.membership.device_name(id, &state.keyring),
                        device.admitted_ms,
                    )
                })
                .collect(),
            held: devices
                .keys()
                .filter_map(|device| core.held(*device).map(|held| (*device, held.clone())))
                .collect(),
            announced: devices
                .keys()
                .map(|device| (*device, core.acknowledged(*device).clone()))
                .collect(),
            greeted: devices
                .keys()
                .copied()
                .filter(|device| core.has_greeted(*device))
                .collect(),
            has_recovery: core.recovery().is_ok_and(|key| key.is_some()),
            stale: core.held_is_stale(),
        }
    }

    /// Other devices that keep a copy.
    pub fn others(&self, me: DeviceId) -> impl Iterator<Item = (DeviceId, Option<&Held>)> {
        self.devices
            .iter()
            .filter(move |(id, role, ..)| *id != me && role.holds_keys())
            .map(|(id, ..)| (*id, self.held.get(id)))
    }

    /// Whether a device, by its own statement, has all changes that this one has and all contents that it is to keep,
    /// and this one all changes that it has.
    pub(super) fn agrees(&self, held: &Held) -> bool {
        held.entries.covers_clock(&self.clock)
            && held.awaited == 0
            && self.clock.covers_clock(&held.entries)
    }
}

/// The device that began the vault: admitted first.
pub(super) fn first_device(known: &Known) -> Option<DeviceId> {
    known
        .devices
        .iter()
        .min_by_key(|(.., admitted)| *admitted)
        .map(|(id, ..)| *id)
}

/// Entries of `clock` beyond those that `of` names for the same writers.
pub(super) fn beyond<'a>(clock: &Clock, of: impl Fn(&WriterId) -> u64 + 'a) -> u64 {
    clock
        .iter()
        .map(|(writer, seq, _)| seq.saturating_sub(of(writer)))
        .sum()
}

/// Changes that no other device is known to hold.
pub(super) fn changes_only_here(
    known: &Known,
    me: DeviceId,
    taken: &BTreeMap<WriterId, u64>,
) -> u64 {
    let others: Vec<&Held> = known.others(me).filter_map(|(_, held)| held).collect();
    beyond(&known.clock, |writer| {
        let stated = others.iter().map(|held| held.entries.seq(writer));
        stated.chain(taken.get(writer).copied()).max().unwrap_or(0)
    })
}

/// Entries that other devices announced and this one lacks.
pub(super) fn missing_changes(known: &Known) -> u64 {
    let clocks = known
        .announced
        .values()
        .chain(known.held.values().map(|held| &held.entries));
    let mut best: BTreeMap<WriterId, u64> = BTreeMap::new();
    for (writer, seq, _) in clocks.flat_map(Clock::iter) {
        let known = best.entry(*writer).or_default();
        *known = seq.max(*known);
    }
    best.into_iter()
        .map(|(writer, seq)| seq.saturating_sub(known.clock.seq(&writer)))
        .sum()
}
