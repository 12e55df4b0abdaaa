//! Who is in the vault: grants as they come and as they are made here, what counts of the logs of those who are out, and
//! the key to write under.
//!
//! Whoever learns that a log is closed, and has more of it than the cutoff says, first says so in an entry of its own,
//! before the grant counts here: so what anybody has taken in stays everywhere, and nothing is ever taken back. The rules
//! are in docs/protocol/grants.md.

use std::collections::BTreeMap;
use std::sync::Arc;

use coffer_protocol::grants::{
    Cutoff, GrantError, Inserted, Membership, Opener, Role, SignedGrant, Writing,
};
use coffer_protocol::identity::{DeviceId, DeviceKey, EpochId, Hash, WriterId};
use coffer_protocol::log::{Body, CLOCK_MAX_WRITERS, Clock, Header};
use coffer_protocol::recovery::RecoveryKey;
use coffer_protocol::replication::Rejection;
use redb::{ReadTransaction, ReadableTable};

use super::core::{Core, Refusal, Ticket};
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

    /// Whether an entry counts, as far as is known here.
    pub(super) fn counts(
        &self,
        writer: &WriterId,
        seq: u64,
        header: Hash,
    ) -> Result<bool, Rejection> {
        let upto = match self.membership.writing(writer) {
            Writing::Open => return Ok(true),
            Writing::Unknown => return Ok(false),
            Writing::Closed { upto, .. } => upto,
        };
        let ends = [upto, self.named.get(writer).copied()];
        let named = ends.iter().flatten().find(|(end, _)| *end == seq);
        if let Some((_, ours)) = named
            && *ours != header
        {
            // Another history of this log than the one that counts.
            return Err(Rejection::Forked {
                writer: *writer,
                seq,
                ours: *ours,
                theirs: header,
            });
        }
        Ok(ends.iter().flatten().any(|(end, _)| seq <= *end))
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
    /// Whether it is this device's turn to begin an epoch, as there is none that exactly the members can read, or some of them cannot read
    /// another: that of the owner with the smallest id among those that are in touch.
    pub(super) fn owes_rotation(&self) -> bool {
        let membership = &self.state.membership;
        let me = self.device();
        membership.role(&me) == Some(Role::Owner)
            && self.state.rotation_due
            && !membership
                .devices()
                .iter()
                .any(|(id, device)| device.role == Role::Owner && *id < me && self.is_connected(id))
    }
}

impl Work<'_, '_> {
    /// Carries out what a person asked for.
    pub fn manage(&mut self, ticket: Ticket, manage: &Manage) -> Result<(), Refusal> {
        self.close_entry()?;
        let words = manage.words.as_ref().map(RecoveryKey::signing);
        let key: DeviceKey = words.unwrap_or_else(|| self.core.identity.key.clone());
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
        };
        let refused = |error: GrantError| CommitError::Invalid(error.to_string());
        self.take_grant(grant.map_err(refused)?)?.map_err(refused)?;
        let owner = self
            .core
            .state
            .membership
            .role(&self.core.identity.key.id())
            == Some(Role::Owner);
        if self.core.state.rotation_due && (owner || manage.words.is_some()) {
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
        let opener = Opener::Device(self.core.identity.key.id(), &self.core.identity.sealing);
        match after.keyring(state.keyring.space(), opener) {
            Ok(mut fresh) => {
                for key in state.keyring.epochs() {
                    fresh.add(key.clone());
                }
                self.meta
                    .insert(tables::meta::KEYRING, &fresh.to_bytes()[..])?;
                state.keyring = Arc::new(fresh);
            }
            Err(error) => tracing::debug!(%error, "the grants bring no new keys for this device"),
        }
        state.membership = Arc::new(after);
        state.rotation_due = state.membership.rotation_due(&state.keyring);
        // Who could not read the last statement did not take it: neither under another key, nor before they were given it.
        state.restate |=
            state.sealing_epoch() != sealed_under || before.devices() != state.membership.devices();
        self.done.members_changed = true;
        self.done.wrote = true;
        Ok(Ok(()))
    }

    /// Grants close a log of which more is here than their cutoff says: writes an entry that shows it, as of before.
    fn say_what_was_seen(
        &mut self,
        before: &Membership,
        after: &Membership,
    ) -> Result<(), StoreError> {
        let state = &self.core.state;
        let me = state.writer.device;
        if !before.role(&me).is_some_and(Role::holds_keys) {
            return Ok(());
        }
        let saw_more = state.clock.iter().any(|(writer, seq, _)| {
            let (had, has) = (before.writing(writer), after.writing(writer));
            let Writing::Closed { upto, .. } = has else {
                return false;
            };
            writer.device != me
                && freedom(&had) > freedom(&has)
                && upto.is_none_or(|(end, _)| end < seq)
        });
        if !saw_more {
            return Ok(());
        }
        let epoch = state.keyring.current().id();
        self.seal(Body::default(), state.sealing_epoch().unwrap_or(epoch))
    }

    /// An entry that counts names entries of others in its clock: those count, too, where their log is closed and its
    /// author had not heard.
    pub(super) fn note_named(&mut self, header: &Header, clock: &Clock) -> Result<(), StoreError> {
        for (writer, seq, hash) in clock.iter() {
            let state = &mut self.core.state;
            let known = state
                .named
                .get(writer)
                .is_some_and(|(known, _)| *known >= seq);
            if writer.device == header.writer.device || known || state.clock.covers(writer, seq) {
                continue;
            }
            let writing = state.membership.writing(writer);
            let closed = matches!(writing, Writing::Closed { .. });
            if writing == Writing::Unknown
                || closed
                    && state
                        .membership
                        .has_heard(&header.grant_heads, &writer.device)
                || state.named.len() >= CLOCK_MAX_WRITERS && !state.named.contains_key(writer)
            {
                continue;
            }
            state.named.insert(*writer, (seq, hash));
            let mut value = [0; 40];
            value[..8].copy_from_slice(&seq.to_be_bytes());
            value[8..].copy_from_slice(&hash.0);
            self.named.insert(&named_key(writer), &value)?;
            self.done.more_counts |= closed;
        }
        Ok(())
    }

    /// A log is here as far as others name it.
    pub(super) fn forget_named(&mut self, writer: WriterId, seq: u64) -> Result<(), StoreError> {
        let named = &mut self.core.state.named;
        if named.get(&writer).is_some_and(|(named, _)| *named <= seq) {
            named.remove(&writer);
            self.named.remove(&named_key(&writer))?;
        }
        Ok(())
    }
}

/// How much of a log may still come.
fn freedom(writing: &Writing) -> u8 {
    match writing {
        Writing::Open => 2,
        Writing::Closed {
            says_what_it_saw, ..
        } => u8::from(*says_what_it_saw),
        Writing::Unknown => 0,
    }
}

fn named_key(writer: &WriterId) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(&writer.device.0);
    key[32..].copy_from_slice(&writer.incarnation.to_be_bytes());
    key
}

/// Reads [`tables::NAMED`].
pub(super) fn read_named(
    read: &ReadTransaction,
) -> Result<BTreeMap<WriterId, (u64, Hash)>, StoreError> {
    let mut named = BTreeMap::new();
    let table = match read.open_table(tables::NAMED) {
        Ok(table) => table,
        // Made by a program that knew no closed logs: there are none.
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(named),
        Err(error) => return Err(error.into()),
    };
    for item in table.iter()? {
        let (key, value) = item?;
        let (mut device, mut hash) = ([0; 32], [0; 32]);
        let (mut incarnation, mut seq) = ([0; 4], [0; 8]);
        device.copy_from_slice(&key.value()[..32]);
        incarnation.copy_from_slice(&key.value()[32..]);
        seq.copy_from_slice(&value.value()[..8]);
        hash.copy_from_slice(&value.value()[8..]);
        let writer = WriterId {
            device: DeviceId(device),
            incarnation: u32::from_be_bytes(incarnation),
        };
        named.insert(writer, (u64::from_be_bytes(seq), Hash(hash)));
    }
    Ok(named)
}
