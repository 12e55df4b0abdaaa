//! Who is in the vault: grants as they come and as they are made here, and the key to write under. What counts of the logs
//! of those who are out is in `named.rs`. The rules are in docs/protocol/grants.md.

use std::sync::Arc;

use coffer_protocol::grants::{Cutoff, GrantError, Inserted, NewDevice, Opener, Role, SignedGrant};
use coffer_protocol::identity::{DeviceId, DeviceKey, EpochId, Hash};
use coffer_protocol::recovery::RecoveryKey;

use super::batch::Refusal;
use super::core::{Admission, Core, Ticket};
use super::founding;
use super::request::CommitError;
use super::state::State;
use super::work::Work;
use crate::store::{StoreError, tables};

/// What an owner does to the vault's membership.
#[derive(Clone, Debug)]
pub struct Manage {
    /// What.
    pub act: Act,
    /// Signs in the place of this device: somebody typed the 24 words.
    pub words: Option<RecoveryKey>,
}

/// One act.
#[derive(Clone, Debug)]
pub enum Act {
    /// Puts a device out, and changes the keys.
    Revoke {
        /// The device.
        device: DeviceId,
        /// Grants of it that shall not count either.
        undone: Vec<Hash>,
    },
    /// Gives a device another role.
    Role {
        /// The device.
        device: DeviceId,
        /// What it may do from now on.
        role: Role,
    },
    /// Changes the keys.
    Rotate,
    /// Puts another recovery key in the place of the present one, keeps it until a person has confirmed its words, and
    /// changes the keys.
    Replace {
        /// The new one.
        recovery: RecoveryKey,
    },
    /// Takes in grants that somebody with the recovery key made.
    Take {
        /// Encoded, each after its parents.
        grants: Vec<Vec<u8>>,
    },
}

impl State {
    /// Whether this device was put out of the vault, as far as it knows.
    pub fn is_out(&self) -> bool {
        !self.membership.is_member(&self.writer.device)
    }

    /// Whether nothing can bring it back.
    pub fn is_out_for_good(&self) -> bool {
        let former = self.membership.former().get(&self.writer.device);
        former.is_some_and(|former| !former.is_undecided())
    }

    /// The epoch under which this device may write, if there is one and it has the key.
    pub fn sealing_epoch(&self) -> Option<EpochId> {
        let epoch = self.membership.sealing_epoch(self.keyring.space())?;
        self.keyring.epoch(&epoch).is_some().then_some(epoch)
    }

    /// Up to where the logs of a device are here.
    fn cutoffs(&self, device: DeviceId) -> Vec<Cutoff> {
        let logs = self.clock.iter();
        logs.filter(|(writer, ..)| writer.device == device)
            .map(|(writer, seq, header)| Cutoff {
                writer: *writer,
                seq,
                header,
            })
            .collect()
    }
}

impl Core {
    /// Whether it is this device's turn to begin an epoch, as there is none that exactly the members can read, or some of
    /// them cannot read another: that of the owner with the smallest id among those that are in touch and have all the keys
    /// that this one has. One that lacks a key cannot pass it on, and may not even know that others wrote under it.
    pub(super) fn owes_rotation(&self) -> bool {
        let (membership, keys) = (&self.state.membership, &self.state.keyring);
        let me = self.device();
        let mut before_me = membership.devices().iter().filter(|(id, device)| {
            device.role == Role::Owner && **id < me && self.is_connected(id)
        });
        membership.role(&me) == Some(Role::Owner)
            && self.state.rotation_due
            && !before_me.any(|(id, _)| membership.can_open(*id, keys))
    }
}

impl Work<'_, '_> {
    /// Carries out what a person asked for.
    pub fn manage(&mut self, ticket: Ticket, manage: &Manage) -> Result<(), Refusal> {
        self.close_entry()?;
        if let Act::Take { grants } = &manage.act {
            return self.take_all(ticket, grants);
        }
        let words = manage.words.as_ref().map(RecoveryKey::signing);
        let key: DeviceKey = words.unwrap_or_else(|| self.core.identity.key.clone());
        if let Some(words) = &manage.words {
            self.take_keys(Opener::Recovery(words))?;
        }
        let (state, now_ms) = (&self.core.state, self.now_ms);
        let membership = &state.membership;
        let grant = match &manage.act {
            Act::Revoke { device, undone } => {
                membership.revoke(&key, *device, state.cutoffs(*device), undone, now_ms)
            }
            Act::Role { device, role } => {
                membership.change_role(&key, *device, *role, state.cutoffs(*device), now_ms)
            }
            Act::Rotate => membership
                .rotate(&key, &state.keyring, &mut *self.core.rng)
                .map(|(grant, _)| grant),
            Act::Replace { recovery } => {
                membership.replace_recovery(&key, recovery.public(), now_ms)
            }
            Act::Take { .. } => return Ok(()),
        };
        let refused = |error: GrantError| CommitError::Invalid(error.to_string());
        self.take_grant(grant.map_err(refused)?)?.map_err(refused)?;
        if let Act::Replace { recovery } = &manage.act {
            let (device, vault) = (&self.core.identity.key, &self.core.state.vault);
            let sealed = recovery.seal_at_rest(device, vault, &mut *self.core.rng);
            self.meta
                .insert(tables::meta::RECOVERY, &sealed[..])
                .map_err(StoreError::from)?;
        }
        let owner = self
            .core
            .state
            .membership
            .role(&self.core.identity.key.id())
            == Some(Role::Owner);
        if self.core.state.rotation_due && (owner || manage.words.is_some()) {
            // A recovery key that has put another in its place signs nothing more.
            let key = match &manage.act {
                _ if owner => self.core.identity.key.clone(),
                Act::Replace { recovery } => recovery.signing(),
                _ => key,
            };
            let state = &self.core.state;
            let (rotation, _) = state
                .membership
                .rotate(&key, &state.keyring, &mut *self.core.rng)
                .map_err(refused)?;
            self.take_grant(rotation)?.map_err(refused)?;
        }
        self.done.managed.push(ticket);
        Ok(())
    }

    /// Admits a device: signs the grant and gathers what the newcomer needs to begin.
    pub fn admit(&mut self, ticket: Ticket, admission: &Admission) -> Result<(), Refusal> {
        let state = &self.core.state;
        let new = NewDevice {
            device: admission.device,
            sealing: &admission.sealing,
            role: admission.role,
            name: &admission.name,
        };
        let grant = state
            .membership
            .admit(
                &self.core.identity.key,
                &state.keyring,
                &new,
                self.now_ms,
                &mut *self.core.rng,
            )
            .map_err(|error| CommitError::Invalid(error.to_string()))?;
        self.take_grant(grant)?
            .map_err(|error| CommitError::Invalid(error.to_string()))?;
        self.settle_epochs()?;
        let welcome = self.core.welcome();
        self.done.admitted.push((ticket, welcome));
        Ok(())
    }

    fn take_all(&mut self, ticket: Ticket, grants: &[Vec<u8>]) -> Result<(), Refusal> {
        let refused = |error: GrantError| CommitError::Invalid(error.to_string());
        for bytes in grants {
            let grant = SignedGrant::decode(bytes).map_err(|error| refused(error.into()))?;
            self.take_grant(grant)?.map_err(refused)?;
        }
        self.done.managed.push(ticket);
        Ok(())
    }

    /// Whether this device may write now. An owner without a key to write under begins an epoch.
    pub(super) fn may_write(&mut self) -> Result<(), Refusal> {
        match self.core.state.membership.role(&self.core.device()) {
            None => return Err(CommitError::PutOut.into()),
            Some(Role::Reader | Role::Relay) => return Err(CommitError::ReadOnly.into()),
            Some(Role::Owner) if self.core.state.sealing_epoch().is_none() => self.rotate()?,
            Some(_) => {}
        }
        if self.core.state.sealing_epoch().is_none() {
            return Err(CommitError::NoKey.into());
        }
        Ok(())
    }

    /// Begins an epoch where that is this device's turn.
    pub(super) fn settle_epochs(&mut self) -> Result<(), StoreError> {
        if self.core.owes_rotation() {
            self.rotate()?;
        }
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), StoreError> {
        self.close_entry()?;
        let state = &self.core.state;
        let rotation =
            state
                .membership
                .rotate(&self.core.identity.key, &state.keyring, &mut *self.core.rng);
        let taken = match rotation {
            Ok((grant, _)) => self.take_grant(grant)?,
            Err(error) => Err(error),
        };
        if let Err(error) = taken {
            tracing::warn!(%error, "the vault's key could not be changed");
        }
        Ok(())
    }

    /// Checks one grant, stores what it makes count, and takes the keys that it brings for this device.
    pub(super) fn take_grant(
        &mut self,
        grant: SignedGrant,
    ) -> Result<Result<(), GrantError>, StoreError> {
        // What was made here before was made without knowing of it.
        self.close_entry()?;
        let before = self.core.state.membership.clone();
        let mut after = (*before).clone();
        let accepted = match after.insert(grant) {
            Ok(Inserted::Accepted(accepted)) => accepted,
            Ok(Inserted::Duplicate) => return Ok(Ok(())),
            Ok(Inserted::Waiting(_)) => {
                self.core.state.membership = Arc::new(after);
                return Ok(Ok(()));
            }
            Err(error) => return Ok(Err(error)),
        };
        self.say_what_was_seen(&before, &after)?;
        for grant in accepted
            .iter()
            .filter_map(|id| after.get(id).map(|grant| (*id, grant)))
        {
            founding::store_grant(&mut self.grants, grant.0, grant.1)?;
        }
        let state = &mut self.core.state;
        let sealed_under = state.sealing_epoch();
        state.membership = Arc::new(after);
        let identity = self.core.identity.clone();
        self.take_keys(Opener::Device(identity.key.id(), &identity.sealing))?;
        let state = &mut self.core.state;
        state.judge_named();
        state.rotation_due = state.membership.rotation_due(&state.keyring);
        // Who could not read the last statement did not take it: neither under another key, nor before they were given it.
        state.restate |=
            state.sealing_epoch() != sealed_under || before.devices() != state.membership.devices();
        self.done.members_changed = true;
        self.done.wrote = true;
        Ok(Ok(()))
    }

    /// Takes the keys of the space that the grants give to `opener`, beside those that are here.
    fn take_keys(&mut self, opener: Opener<'_>) -> Result<(), StoreError> {
        let state = &mut self.core.state;
        match state.membership.keyring(state.keyring.space(), opener) {
            Ok(mut fresh) => {
                for key in state.keyring.epochs() {
                    fresh.add(key.clone());
                }
                let sealed = fresh.seal_at_rest(&self.core.identity.key, &state.vault);
                self.meta.insert(tables::meta::KEYRING, &sealed[..])?;
                state.keyring = Arc::new(fresh);
            }
            Err(error) => tracing::debug!(%error, "the grants bring no new keys"),
        }
        Ok(())
    }
}
