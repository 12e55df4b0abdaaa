//! The epochs of a space as the grants that count leave them: which are open, who reads them, which keys one holds.

use std::collections::{BTreeMap, BTreeSet};

use super::{Epoch, Opener, Reading};
use crate::grants::GrantError;
use crate::grants::grant::Recipient;
use crate::identity::{EpochId, Hash, SpaceId};
use crate::keys::Keyring;

impl Reading {
    fn epochs_of(&self, space: SpaceId) -> impl Iterator<Item = (&EpochId, &Epoch)> {
        self.epochs
            .iter()
            .filter(move |(_, epoch)| epoch.grant.space == space)
    }

    /// The epochs of `space` that no other follows, ascending.
    pub(in crate::grants) fn newest_epochs(&self, space: SpaceId) -> Vec<EpochId> {
        self.epochs_of(space)
            .filter(|(_, epoch)| !epoch.followed)
            .map(|(id, _)| *id)
            .collect()
    }

    /// The epochs of `space` among `held` that none of `held` follows, the furthest on first, each
    /// with the grant that began it.
    pub(in crate::grants) fn newest_held(
        &self,
        space: SpaceId,
        held: &Keyring,
    ) -> Vec<(EpochId, Hash)> {
        let epochs: Vec<_> = self
            .epochs_of(space)
            .filter(|(id, _)| held.epoch(id).is_some())
            .collect();
        let mut newest: Vec<_> = epochs
            .iter()
            .filter(|(id, _)| {
                let follows = |epoch: &Epoch| epoch.grant.parents.iter().any(|p| p.epoch == **id);
                !epochs.iter().any(|(_, other)| follows(other))
            })
            .map(|(id, epoch)| (std::cmp::Reverse(epoch.depth), **id, epoch.id))
            .collect();
        newest.sort_unstable();
        newest.into_iter().map(|(_, id, by)| (id, by)).collect()
    }

    /// The epoch whose recipients are exactly those who are in the vault now. Of several the one
    /// furthest on, then the greatest id. None: an owner has to rotate.
    pub(in crate::grants) fn writable_epoch(&self, space: SpaceId) -> Option<EpochId> {
        let present: BTreeSet<Recipient> = self.recipients().collect();
        let readers = self.readers(space);
        self.best_epoch(space, |id| readers.get(id) == Some(&present))
    }

    /// The [writable](Self::writable_epoch) epoch, else one that nobody can read who is not in the
    /// vault, though not yet all who are.
    pub(in crate::grants) fn sealing_epoch(&self, space: SpaceId) -> Option<EpochId> {
        let present: BTreeSet<Recipient> = self.recipients().collect();
        let readers = self.readers(space);
        let by_nobody_else = |id: &EpochId| {
            let can = readers.get(id);
            can.is_some_and(|can| can.is_subset(&present))
        };
        self.writable_epoch(space)
            .or_else(|| self.best_epoch(space, by_nobody_else))
    }

    /// Who can read what is written under each epoch: for whom it was sealed, and who can read one that follows, since
    /// each passes on the keys of its parents. A device that was out, in again and out once more has those of the time
    /// between.
    fn readers(&self, space: SpaceId) -> BTreeMap<EpochId, BTreeSet<Recipient>> {
        let mut epochs: Vec<_> = self.epochs_of(space).collect();
        epochs.sort_by_key(|(id, epoch)| std::cmp::Reverse((epoch.depth, **id)));
        let mut readers: BTreeMap<EpochId, BTreeSet<Recipient>> = BTreeMap::new();
        for (id, epoch) in epochs {
            let own = readers.entry(*id).or_default();
            own.extend(epoch.recipients.iter().copied());
            let own = own.clone();
            for parent in &epoch.grant.parents {
                readers
                    .entry(parent.epoch)
                    .or_default()
                    .extend(own.iter().copied());
            }
        }
        readers
    }

    /// Whether everyone who is in can open every epoch of `held`, directly or from a newer one.
    pub(in crate::grants) fn reach_all(&self, space: SpaceId, held: &Keyring) -> bool {
        self.recipients()
            .all(|recipient| self.reaches(space, recipient, held))
    }

    /// Whether `recipient` can open every epoch of `held`, directly or from a newer one.
    pub(in crate::grants) fn reaches(
        &self,
        space: SpaceId,
        recipient: Recipient,
        held: &Keyring,
    ) -> bool {
        let recovery = self.recovery.as_ref().map(|recovery| recovery.signing);
        let is_given = |epoch: &Epoch| {
            let old_words = recipient == Recipient::Recovery && epoch.recovery != recovery;
            epoch.recipients.contains(&recipient) && !old_words
        };
        let given = self.epochs_of(space).filter(|(_, epoch)| is_given(epoch));
        let mut opened: BTreeSet<EpochId> = given.map(|(id, _)| *id).collect();
        let mut open: Vec<EpochId> = opened.iter().copied().collect();
        while let Some(epoch) = open.pop().and_then(|id| self.epochs.get(&id)) {
            let older = epoch.grant.parents.iter().map(|parent| parent.epoch);
            open.extend(older.filter(|id| opened.insert(*id)));
        }
        held.epochs().all(|key| opened.contains(&key.id()))
    }

    fn best_epoch(&self, space: SpaceId, is: impl Fn(&EpochId) -> bool) -> Option<EpochId> {
        let recovery = self.recovery.as_ref().map(|recovery| recovery.signing);
        self.epochs_of(space)
            .filter(|(id, epoch)| !epoch.void && epoch.recovery == recovery && is(id))
            .max_by_key(|(id, epoch)| (epoch.depth, **id))
            .map(|(id, _)| *id)
    }

    /// All keys of `space` that were sealed to `me`, and the older ones that those open.
    pub(in crate::grants) fn keyring(
        &self,
        space: SpaceId,
        me: Opener<'_>,
    ) -> Result<Keyring, GrantError> {
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
        if let Some(epoch) = self.sealing_epoch(space) {
            // Without its key one goes on under the newest that one has.
            let _held = keyring.write_under(epoch);
        }
        Ok(keyring)
    }
}
