//! What a grant must be to follow the grants that are its ancestors.

use super::change::{Cutoff, Revocation, RoleChange};
use super::grant::{EpochGrant, Grant, GrantBody, Recipient, Role, Seal};
use super::reading::{MAX_DEVICES, Reading};
use super::{GrantError, MAX_PARENTS};
use crate::identity::{DeviceId, Hash};
use crate::recovery::RecoveryPublic;

impl Reading {
    /// Whether `author` may sign for the recovery key here.
    pub(super) fn is_recovery(&self, author: &DeviceId) -> bool {
        self.recovery_signers.contains(author)
    }

    /// Whether `grant`, of this vault, may follow the grants that were taken in, which are exactly
    /// its ancestors. `signer` says who signed one of them, and that it is none.
    pub(super) fn check(
        &self,
        grant: &Grant,
        signer: &dyn Fn(&Hash) -> Option<DeviceId>,
    ) -> Result<(), GrantError> {
        let is_genesis = matches!(grant.body, GrantBody::Genesis { .. });
        let ordered = grant.parents.is_sorted_by(|a, b| a < b);
        if !ordered || grant.parents.len() > MAX_PARENTS || grant.parents.is_empty() != is_genesis {
            return Err(GrantError::BadParents);
        }
        let by_recovery = !is_genesis && self.is_recovery(&grant.author);
        if grant.version != grant.body.version(by_recovery) {
            return Err(GrantError::WrongVersion);
        }
        if !is_genesis && !by_recovery {
            let former = self.former.contains_key(&grant.author);
            match self.devices.get(&grant.author) {
                None if former => return Err(GrantError::Revoked(grant.author)),
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
            GrantBody::Revoke(revocation) => {
                self.check_revocation(&grant.author, revocation, signer)
            }
            GrantBody::Role(change) => self.check_role(&grant.author, change),
            GrantBody::Replace { recovery, .. } => self.check_replace(recovery),
        }
    }

    fn check_revocation(
        &self,
        author: &DeviceId,
        revocation: &Revocation,
        signer: &dyn Fn(&Hash) -> Option<DeviceId>,
    ) -> Result<(), GrantError> {
        let device = revocation.device;
        if *author == device {
            return Err(GrantError::Oneself(device));
        }
        match (self.devices.get(&device), self.former.get(&device)) {
            (None, None) => return Err(GrantError::UnknownAuthor(device)),
            (None, Some(former)) if !former.is_undecided() => {
                return Err(GrantError::Revoked(device));
            }
            _ => {}
        }
        check_cutoffs(&device, &revocation.cutoffs)?;
        let undone = &revocation.undone;
        if undone.is_sorted_by(|a, b| a < b)
            && undone.iter().all(|grant| signer(grant) == Some(device))
        {
            Ok(())
        } else {
            Err(GrantError::BadUndone)
        }
    }

    fn check_role(&self, author: &DeviceId, change: &RoleChange) -> Result<(), GrantError> {
        let id = change.device;
        if *author == id {
            return Err(GrantError::Oneself(id));
        }
        let device = self.devices.get(&id).ok_or(GrantError::UnknownAuthor(id))?;
        if device.role == change.role || device.role.holds_keys() != change.role.holds_keys() {
            return Err(GrantError::BadRole(id));
        }
        if change.role.writes() && !change.cutoffs.is_empty() {
            return Err(GrantError::BadCutoffs);
        }
        check_cutoffs(&id, &change.cutoffs)
    }

    fn check_replace(&self, recovery: &RecoveryPublic) -> Result<(), GrantError> {
        let key = &recovery.signing;
        let is_device = self.devices.contains_key(key) || self.former.contains_key(key);
        if !key.is_valid() || is_device || self.recovery_signers.contains(key) {
            return Err(GrantError::BadRecovery);
        }
        Ok(())
    }

    fn check_device(&self, device: &DeviceId, recovery: &RecoveryPublic) -> Result<(), GrantError> {
        if !device.is_valid() || *device == recovery.signing || self.is_recovery(device) {
            return Err(GrantError::BadDevice(*device));
        }
        Ok(())
    }

    fn check_admit(&self, device: &DeviceId, role: Role, seals: &[Seal]) -> Result<(), GrantError> {
        if self
            .former
            .get(device)
            .is_some_and(|former| !former.outs.is_empty())
        {
            return Err(GrantError::Revoked(*device));
        }
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
}

fn check_cutoffs(device: &DeviceId, cutoffs: &[Cutoff]) -> Result<(), GrantError> {
    let fitting = cutoffs.is_sorted_by(|a, b| a.writer < b.writer)
        && cutoffs
            .iter()
            .all(|cutoff| cutoff.writer.device == *device && cutoff.seq > 0);
    if fitting {
        Ok(())
    } else {
        Err(GrantError::BadCutoffs)
    }
}
