//! What a set of grants says: the rules by which one grant counts after others.

use std::collections::{BTreeMap, BTreeSet};

use super::grant::{EpochGrant, Grant, GrantBody, Recipient, Role, Seal, SealedName, SignedGrant};
use super::{GrantError, MAX_PARENTS};
use crate::identity::{DeviceId, EpochId, Hash, SpaceId};
use crate::keys::{Keyring, SealingKey, SealingPublic};
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
struct Epoch {
    grant: EpochGrant,
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
    recovery: Option<RecoveryPublic>,
    devices: BTreeMap<DeviceId, Device>,
    epochs: BTreeMap<EpochId, Epoch>,
}

impl Reading {
    pub(super) fn devices(&self) -> &BTreeMap<DeviceId, Device> {
        &self.devices
    }

    pub(super) fn recovery(&self) -> Option<&RecoveryPublic> {
        self.recovery.as_ref()
    }

    /// Whether `grant`, of this vault, may follow the grants that were taken in, which are exactly
    /// its ancestors.
    pub(super) fn check(&self, grant: &Grant) -> Result<(), GrantError> {
        let is_genesis = matches!(grant.body, GrantBody::Genesis { .. });
        let ordered = grant.parents.is_sorted_by(|a, b| a < b);
        if !ordered || grant.parents.len() > MAX_PARENTS || grant.parents.is_empty() != is_genesis {
            return Err(GrantError::BadParents);
        }
        if !is_genesis {
            match self.devices.get(&grant.author) {
                None => return Err(GrantError::UnknownAuthor(grant.author)),
                Some(device) if device.role != Role::Owner => {
                    return Err(GrantError::NotOwner(grant.author));
                }
                Some(_) => {}
            }
        }
        match &grant.body {
            // That it is this vault's genesis is known from its hash.
            GrantBody::Genesis { recovery, .. } => self.check_device(&grant.author, recovery),
            GrantBody::Epoch(epoch) => self.check_epoch(epoch),
            GrantBody::Admit {
                device,
                role,
                seals,
                ..
            } => {
                let recovery = self.recovery.as_ref().ok_or(GrantError::BadParents)?;
                self.check_device(device, recovery)?;
                self.check_admit(device, *role, seals)
            }
        }
    }

    fn check_device(&self, device: &DeviceId, recovery: &RecoveryPublic) -> Result<(), GrantError> {
        if !device.is_valid() || *device == recovery.signing {
            return Err(GrantError::BadDevice(*device));
        }
        Ok(())
    }

    fn check_admit(&self, device: &DeviceId, role: Role, seals: &[Seal]) -> Result<(), GrantError> {
        match self.devices.get(device) {
            Some(present) if present.role != role => return Err(GrantError::RoleChange(*device)),
            None if self.devices.len() >= MAX_DEVICES => return Err(GrantError::TooManyDevices),
            _ => {}
        }
        let fitting = seals.is_sorted_by(|a, b| a.epoch < b.epoch)
            && seals.iter().all(|seal| {
                seal.recipient == Recipient::Device(*device)
                    && self.epochs.contains_key(&seal.epoch)
            });
        if !fitting || role.holds_keys() == seals.is_empty() {
            return Err(GrantError::BadSeals);
        }
        Ok(())
    }

    fn check_epoch(&self, new: &EpochGrant) -> Result<(), GrantError> {
        let begins_space = !self.epochs.values().any(|old| old.grant.space == new.space);
        let follows = new.parents.is_sorted_by(|a, b| a.epoch < b.epoch)
            && new.parents.iter().all(|parent| {
                self.epochs.get(&parent.epoch).is_some_and(|old| {
                    old.grant.space == new.space && old.grant.secret == new.secret
                })
            });
        if self.epochs.contains_key(&new.epoch)
            || !follows
            || begins_space != new.parents.is_empty()
        {
            return Err(GrantError::BadEpoch(new.epoch));
        }
        let complete = new.seals.is_sorted_by(|a, b| a.recipient < b.recipient)
            && new.seals.iter().all(|seal| seal.epoch == new.epoch)
            && new
                .seals
                .iter()
                .map(|seal| seal.recipient)
                .eq(self.recipients());
        if !complete {
            return Err(GrantError::BadSeals);
        }
        Ok(())
    }

    /// Who must be able to read now: the recovery key and every device that holds keys, ascending.
    fn recipients(&self) -> impl Iterator<Item = Recipient> {
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

    /// Takes in a grant that was checked against its own ancestors. Others may be here already that
    /// it did not know of: of two beginnings of one epoch the first taken in stands, of two
    /// admissions of one device the last.
    pub(super) fn take(&mut self, grant: &SignedGrant) {
        let author = grant.value().author;
        match &grant.value().body {
            GrantBody::Genesis {
                recovery,
                sealing,
                name,
                created_ms,
                ..
            } => {
                self.recovery = Some(recovery.clone());
                self.devices.insert(
                    author,
                    Device {
                        role: Role::Owner,
                        sealing: sealing.clone(),
                        name: name.clone(),
                        admitted_ms: *created_ms,
                        admitted_by: author,
                    },
                );
            }
            GrantBody::Epoch(epoch) => self.take_epoch(epoch),
            GrantBody::Admit {
                device,
                sealing,
                role,
                name,
                seals,
                created_ms,
            } => {
                self.devices.insert(
                    *device,
                    Device {
                        role: *role,
                        sealing: sealing.clone(),
                        name: name.clone(),
                        admitted_ms: *created_ms,
                        admitted_by: author,
                    },
                );
                for seal in seals {
                    if let Some(epoch) = self.epochs.get_mut(&seal.epoch) {
                        epoch.recipients.insert(seal.recipient);
                        epoch.later_seals.push(seal.clone());
                    }
                }
            }
        }
    }

    fn take_epoch(&mut self, new: &EpochGrant) {
        if self.epochs.contains_key(&new.epoch) {
            return;
        }
        let mut depth = 0;
        for parent in &new.parents {
            if let Some(old) = self.epochs.get_mut(&parent.epoch) {
                old.followed = true;
                depth = depth.max(old.depth + 1);
            }
        }
        let recipients = new.seals.iter().map(|seal| seal.recipient).collect();
        self.epochs.insert(
            new.epoch,
            Epoch {
                grant: new.clone(),
                depth,
                recipients,
                followed: false,
                later_seals: Vec::new(),
            },
        );
    }

    fn epochs_of(&self, space: SpaceId) -> impl Iterator<Item = (&EpochId, &Epoch)> {
        self.epochs
            .iter()
            .filter(move |(_, epoch)| epoch.grant.space == space)
    }

    /// The epochs of `space` that no other follows, ascending.
    pub(super) fn newest_epochs(&self, space: SpaceId) -> Vec<EpochId> {
        self.epochs_of(space)
            .filter(|(_, epoch)| !epoch.followed)
            .map(|(id, _)| *id)
            .collect()
    }

    /// The epoch under which one may write: its recipients are exactly those who are in the vault
    /// now. Of several the one furthest on, then the greatest id. None: an owner has to rotate.
    pub(super) fn writable_epoch(&self, space: SpaceId) -> Option<EpochId> {
        let present: BTreeSet<Recipient> = self.recipients().collect();
        self.epochs_of(space)
            .filter(|(_, epoch)| epoch.recipients == present)
            .max_by_key(|(id, epoch)| (epoch.depth, **id))
            .map(|(id, _)| *id)
    }

    /// All keys of `space` that were sealed to `me`, and the older ones that those open.
    pub(super) fn keyring(&self, space: SpaceId, me: Opener<'_>) -> Result<Keyring, GrantError> {
        let (recipient, key) = match me {
            Opener::Device(device, key) => (Recipient::Device(device), key.clone()),
            Opener::Recovery(key) => (Recipient::Recovery, key.sealing()),
        };
        let mut epochs: Vec<_> = self.epochs_of(space).collect();
        epochs.sort_by_key(|(id, epoch)| std::cmp::Reverse((epoch.depth, **id)));

        let mut keyring: Option<Keyring> = None;
        let mut damaged = None;
        // From the newest to the oldest: what a newer key opens needs no seal of its own.
        for (id, epoch) in epochs {
            if keyring.as_ref().is_none_or(|keys| keys.epoch(id).is_none()) {
                let seals = epoch.grant.seals.iter().chain(&epoch.later_seals);
                for seal in seals.filter(|seal| seal.recipient == recipient) {
                    match seal.open(&key, space, &epoch.grant.secret) {
                        Ok((key, secret)) => {
                            let keys = keyring
                                .get_or_insert_with(|| Keyring::new(space, secret, key.clone()));
                            keys.add(key);
                            break;
                        }
                        Err(error) => damaged = Some(error),
                    }
                }
            }
            let Some(keys) = keyring.as_mut() else {
                continue;
            };
            if let Some(newer) = keys.epoch(id).cloned() {
                for older in &epoch.grant.parents {
                    match older.open(&newer) {
                        Ok(older) => keys.add(older),
                        Err(error) => damaged = Some(error),
                    }
                }
            }
        }
        let mut keyring = keyring.ok_or(damaged.unwrap_or(GrantError::NoKey(space)))?;
        if let Some(epoch) = self.writable_epoch(space) {
            // Without its key one goes on under the newest that one has.
            let _held = keyring.write_under(epoch);
        }
        Ok(keyring)
    }
}

/// The id of the genesis grant's vault as a grant's id.
pub(super) fn genesis_id(vault: &crate::identity::VaultId) -> Hash {
    Hash(vault.0)
}
