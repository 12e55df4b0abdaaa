//! What a set of grants says: the rules by which one grant counts after others.

mod epochs;

use std::collections::{BTreeMap, BTreeSet};

use super::change::Cutoff;
use super::grant::{EpochGrant, GrantBody, Recipient, Role, Seal, SealedName};
use super::judgement::judge;
use super::membership::Accepted;
use super::places::Places;
use crate::identity::{DeviceId, EpochId, Hash, WriterId};
use crate::keys::{SealingKey, SealingPublic};
use crate::recovery::{RecoveryKey, RecoveryPublic};

/// Devices of one vault. Admissions that did not know of each other can exceed it by a few, for
/// which a grant has room.
pub const MAX_DEVICES: usize = 200;

/// A device that is in the vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// What it may do.
    pub role: Role,
    /// To what is sealed for it.
    pub sealing: SealingPublic,
    /// Its name, for key holders.
    pub name: SealedName,
    /// When it was admitted, in milliseconds since 1970, by its admitter's clock.
    pub admitted_ms: u64,
    /// Who admitted it; itself, for the first device.
    pub admitted_by: DeviceId,
}

/// A device that was in the vault and is not now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    /// What it was.
    pub device: Device,
    /// The revocations of it that have effect; none where it was admitted by somebody whose grants were
    /// undone.
    pub outs: Vec<Out>,
}

impl Former {
    /// Whether it may come back: all revocations of it are contested, or there is none.
    pub fn is_undecided(&self) -> bool {
        self.outs.iter().all(|out| out.contested)
    }
}

/// A revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Out {
    /// The grant.
    pub grant: Hash,
    /// Who signed it.
    pub by: DeviceId,
    /// When, in milliseconds since 1970, by its author's clock.
    pub at_ms: u64,
    /// Whether the device had its author revoked, too: both are out until somebody decides.
    pub contested: bool,
}

/// What became of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It counts.
    Counts,
    /// It takes something away, and is undone itself by whom it takes it from.
    Contested,
    /// A revocation undid it.
    Void,
}

/// What counts of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// All: its device may write.
    Open,
    /// What a cutoff names, and what is covered by the clock of an accepted entry whose author is
    /// another device and had not [heard](super::Membership::has_heard).
    Closed {
        /// The last entry within a cutoff, and its header's hash.
        upto: Option<(u64, Hash)>,
        /// Whether entries without changes count besides: a reader says what it had seen.
        says_what_it_saw: bool,
    },
    /// Nothing: no grant speaks of the device.
    Unknown,
}

/// Who wants to open the seals of a vault.
#[derive(Clone, Copy, Debug)]
pub enum Opener<'a> {
    /// A device, with its sealing key.
    Device(DeviceId, &'a SealingKey),
    /// Whoever has the 24 words.
    Recovery(&'a RecoveryKey),
}

/// An epoch that a counting grant began.
#[derive(Clone, Debug)]
pub(super) struct Epoch {
    pub(super) grant: EpochGrant,
    /// The grant that began it.
    pub(super) id: Hash,
    /// Whether that was undone: keys are read all the same.
    void: bool,
    /// The recovery key to which it was sealed.
    recovery: Option<DeviceId>,
    /// How many epochs lie between this and its space's first, by the longest way.
    depth: u64,
    /// Who was given the key, by this grant or when admitted later.
    recipients: BTreeSet<Recipient>,
    /// Whether another epoch follows this one.
    followed: bool,
    /// Seals that admissions added.
    later_seals: Vec<Seal>,
}

/// What the grants taken in so far say. Taking the same grants in the same order gives the same;
/// [`Membership`](super::Membership) sees to the order.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    pub(super) recovery: Option<RecoveryPublic>,
    /// Keys that may sign as the recovery key: one that an owner replaced may still contest that.
    pub(super) recovery_signers: BTreeSet<DeviceId>,
    /// Where the recovery key replaced itself last.
    replaced_by_key: Option<usize>,
    pub(super) devices: BTreeMap<DeviceId, Device>,
    pub(super) former: BTreeMap<DeviceId, Former>,
    admitted_as: BTreeMap<DeviceId, Role>,
    /// For each device the changes of its role on which no other builds.
    role_changes: BTreeMap<DeviceId, Vec<(usize, Role)>>,
    /// Logs of devices that may not write, or could not once.
    closed: BTreeMap<DeviceId, Closed>,
    pub(super) epochs: BTreeMap<EpochId, Epoch>,
    /// What does not count, and what is contested.
    pub(super) void: Places,
    pub(super) contested: Places,
    pub(super) void_count: usize,
}

#[derive(Clone, Debug, Default)]
struct Closed {
    /// The acts that closed them, and whether for good.
    by: Vec<(usize, bool)>,
    /// Of the cutoffs that those name for a log the furthest.
    cutoffs: BTreeMap<WriterId, (u64, Hash)>,
}

impl Reading {
    /// Reads the grants at the places of `order`: ancestors first, by depth and id, none left out on
    /// which another builds.
    pub(super) fn of(grants: &[Accepted], order: &[usize]) -> Self {
        let standing = judge(grants, order);
        let mut reading = Self::default();
        for act in &standing {
            reading.void.add(&act.undone);
            if act.contested {
                reading.contested.insert(act.place);
            }
        }
        for &place in order {
            let fate = reading.fate(place);
            reading.take(place, &grants[place], fate);
            if fate == Fate::Void {
                let acts = standing.iter().filter(|act| act.undone.contains(place));
                reading.take_undone(&grants[place], acts.map(|act| act.place));
                reading.void_count += 1;
            }
        }
        reading
    }

    /// What became of a grant.
    pub(super) fn fate(&self, place: usize) -> Fate {
        if self.contested.contains(place) {
            Fate::Contested
        } else if self.void.contains(place) {
            Fate::Void
        } else {
            Fate::Counts
        }
    }

    pub(super) fn former(&self) -> &BTreeMap<DeviceId, Former> {
        &self.former
    }

    /// The acts that closed the logs of `device`, whether or not they are open again. Where it was put out
    /// these alone: what a reader said of what it saw counted until then.
    pub(super) fn closers(&self, device: &DeviceId) -> impl Iterator<Item = usize> {
        let by = self.closed.get(device).map_or(&[][..], |closed| &closed.by);
        let any_for_good = by.iter().any(|(_, for_good)| *for_good);
        by.iter()
            .filter(move |(_, for_good)| *for_good || !any_for_good)
            .map(|(act, _)| *act)
    }

    pub(super) fn writing(&self, writer: &WriterId) -> Writing {
        let upto = self
            .closed
            .get(&writer.device)
            .and_then(|closed| closed.cutoffs.get(writer).copied());
        match self.devices.get(&writer.device) {
            Some(device) if device.role.writes() => Writing::Open,
            Some(device) => Writing::Closed {
                upto,
                says_what_it_saw: device.role == Role::Reader,
            },
            None if self.former.contains_key(&writer.device) => Writing::Closed {
                upto,
                says_what_it_saw: false,
            },
            None => Writing::Unknown,
        }
    }

    pub(super) fn devices(&self) -> &BTreeMap<DeviceId, Device> {
        &self.devices
    }

    pub(super) fn recovery(&self) -> Option<&RecoveryPublic> {
        self.recovery.as_ref()
    }

    /// Who must be able to read now: the recovery key and every device that holds keys, ascending.
    pub(super) fn recipients(&self) -> impl Iterator<Item = Recipient> {
        let devices = self.devices.iter();
        std::iter::once(Recipient::Recovery).chain(
            devices
                .filter(|(_, device)| device.role.holds_keys())
                .map(|(id, _)| Recipient::Device(*id)),
        )
    }

    /// The recipients with the keys to which one seals for them.
    pub(super) fn sealing_keys(&self) -> Vec<(Recipient, &SealingPublic)> {
        let recovery = self
            .recovery
            .iter()
            .map(|key| (Recipient::Recovery, &key.sealing));
        let devices = self.devices.iter();
        recovery
            .chain(
                devices
                    .filter(|(_, device)| device.role.holds_keys())
                    .map(|(id, device)| (Recipient::Device(*id), &device.sealing)),
            )
            .collect()
    }

    /// Takes in a grant that was checked against its own ancestors, with what became of it. Others may
    /// be here already that it did not know of: of two beginnings of one epoch the first taken in
    /// stands, of two admissions of one device the last.
    pub(super) fn take(&mut self, place: usize, accepted: &Accepted, fate: Fate) {
        let grant = accepted.grant.value();
        let author = grant.author;
        match (&grant.body, fate) {
            (
                GrantBody::Genesis {
                    recovery,
                    sealing,
                    name,
                    created_ms,
                    ..
                },
                _,
            ) => {
                self.recovery = Some(recovery.clone());
                self.recovery_signers.insert(recovery.signing);
                let device = Device {
                    role: Role::Owner,
                    sealing: sealing.clone(),
                    name: name.clone(),
                    admitted_ms: *created_ms,
                    admitted_by: author,
                };
                self.take_device(author, device);
            }
            // Keys that came into the world stay readable, whoever brought them.
            (GrantBody::Epoch(epoch), fate) => self.take_epoch(epoch, accepted, fate == Fate::Void),
            (
                GrantBody::Admit {
                    device,
                    sealing,
                    role,
                    name,
                    seals,
                    created_ms,
                },
                fate,
            ) => {
                let admitted = Device {
                    role: *role,
                    sealing: sealing.clone(),
                    name: name.clone(),
                    admitted_ms: *created_ms,
                    admitted_by: author,
                };
                match fate {
                    Fate::Void if self.devices.contains_key(device) => {}
                    Fate::Void => {
                        self.former.entry(*device).or_insert(Former {
                            device: admitted,
                            outs: Vec::new(),
                        });
                    }
                    _ => self.take_device(*device, admitted),
                }
                for seal in seals {
                    if let Some(epoch) = self.epochs.get_mut(&seal.epoch) {
                        epoch.recipients.insert(seal.recipient);
                        epoch.later_seals.push(seal.clone());
                    }
                }
            }
            (_, Fate::Void) => {}
            (GrantBody::Revoke(revocation), fate) => {
                let out = Out {
                    grant: accepted.id,
                    by: author,
                    at_ms: revocation.created_ms,
                    contested: fate == Fate::Contested,
                };
                self.close(revocation.device, (place, true), &revocation.cutoffs);
                if let Some(device) = self.devices.remove(&revocation.device) {
                    let outs = Vec::new();
                    self.former
                        .insert(revocation.device, Former { device, outs });
                }
                if let Some(former) = self.former.get_mut(&revocation.device) {
                    former.outs.push(out);
                }
            }
            (GrantBody::Role(change), _) => {
                let changes = self.role_changes.entry(change.device).or_default();
                changes.retain(|(before, _)| !accepted.ancestors.contains(*before));
                changes.push((place, change.role));
                if !change.role.writes() {
                    self.close(change.device, (place, false), &change.cutoffs);
                } else if let Some(closed) = self.closed.get_mut(&change.device) {
                    // Who knows of that may not have heard what closes the logs again.
                    closed
                        .by
                        .retain(|(act, _)| !accepted.ancestors.contains(*act));
                }
                self.apply_role(change.device);
            }
            // Two papers that replace each other: neither does, until an owner says which.
            (GrantBody::Replace { .. }, Fate::Contested) => {}
            (GrantBody::Replace { recovery, .. }, Fate::Counts) => {
                let by_key = self.replaced_by_key;
                let knew = by_key.is_none_or(|before| accepted.ancestors.contains(before));
                self.recovery_signers.insert(recovery.signing);
                if accepted.by_recovery {
                    self.recovery_signers.remove(&author);
                    self.replaced_by_key = Some(place);
                    self.recovery = Some(recovery.clone());
                } else if knew {
                    self.recovery = Some(recovery.clone());
                }
            }
        }
    }

    /// Notes acts that undo the admission of a device: its logs are closed by them.
    pub(super) fn take_undone(&mut self, accepted: &Accepted, acts: impl Iterator<Item = usize>) {
        if let GrantBody::Admit { device, .. } = &accepted.grant.value().body {
            let closed = self.closed.entry(*device).or_default();
            closed.by.extend(acts.map(|act| (act, true)));
        }
    }

    fn take_device(&mut self, id: DeviceId, device: Device) {
        self.admitted_as.insert(id, device.role);
        match self.former.get_mut(&id) {
            Some(former) if !former.outs.is_empty() => former.device = device,
            _ => {
                self.former.remove(&id);
                self.devices.insert(id, device);
            }
        }
        self.apply_role(id);
    }

    /// The role of a device: as it was admitted, or the least of those given later on which no other
    /// builds.
    fn apply_role(&mut self, id: DeviceId) {
        let changes = self.role_changes.get(&id).into_iter().flatten();
        let least = changes.map(|(_, role)| *role).max();
        let role = least.or_else(|| self.admitted_as.get(&id).copied());
        let former = self.former.get_mut(&id).map(|former| &mut former.device);
        if let (Some(role), Some(device)) = (role, self.devices.get_mut(&id).or(former)) {
            device.role = role;
        }
    }

    fn close(&mut self, device: DeviceId, by: (usize, bool), cutoffs: &[Cutoff]) {
        let closed = self.closed.entry(device).or_default();
        closed.by.push(by);
        for cutoff in cutoffs {
            let end = closed
                .cutoffs
                .entry(cutoff.writer)
                .or_insert((cutoff.seq, cutoff.header));
            if end.0 < cutoff.seq {
                *end = (cutoff.seq, cutoff.header);
            }
        }
    }

    /// Of two beginnings of one epoch the first stands; but a void one never instead of one that counts,
    /// or who was put out could spoil the seals of others.
    fn take_epoch(&mut self, new: &EpochGrant, accepted: &Accepted, void: bool) {
        let mut later_seals = Vec::new();
        if let Some(known) = self.epochs.get_mut(&new.epoch) {
            if void || !known.void {
                return;
            }
            later_seals = std::mem::take(&mut known.later_seals);
        }
        let mut depth = 0;
        for parent in &new.parents {
            if let Some(old) = self.epochs.get_mut(&parent.epoch) {
                old.followed = true;
                depth = depth.max(old.depth + 1);
            }
        }
        let seals = new.seals.iter().chain(&later_seals);
        let recipients = seals.map(|seal| seal.recipient).collect();
        let epoch = Epoch {
            grant: new.clone(),
            id: accepted.id,
            void,
            recovery: accepted.recovery,
            depth,
            recipients,
            followed: false,
            later_seals,
        };
        self.epochs.insert(new.epoch, epoch);
    }
}

/// The id of the genesis grant's vault as a grant's id.
pub(super) fn genesis_id(vault: &crate::identity::VaultId) -> Hash {
    Hash(vault.0)
}
