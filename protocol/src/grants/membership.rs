//! The graph of a vault's grants, and what it says.

use std::collections::{BTreeMap, BTreeSet};

use super::GrantError;
use super::change::Cutoff;
use super::grant::{GrantBody, Role, SignedGrant};
use super::places::Places;
use super::reading::{Device, Fate, Former, Opener, Reading, Writing, genesis_id};
use crate::identity::{DeviceId, EpochId, Hash, SpaceId, VaultId, WriterId};
use crate::keys::{Keyring, SealingPublic};
use crate::log::MAX_GRANT_HEADS;
use crate::recovery::RecoveryPublic;

/// Grants that a vault may have: twenty a year for each of [`MAX_DEVICES`](super::MAX_DEVICES).
pub const MAX_GRANTS: usize = 4096;
/// Void grants beyond which no more of devices that are out are taken: who has a revoked owner's key can
/// go on signing for ever, and must leave room for those who are in.
pub const MAX_FROM_FORMER: usize = 1024;
/// Grants that may wait for their parents; together they hold at most 24 MiB.
pub const MAX_WAITING: usize = 64;

/// What became of a grant that was offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It counts, and so do those that had waited for it: all of them, in an order in which every
    /// grant comes after its parents. Such as had waited and do not count are dropped.
    Accepted(Vec<Hash>),
    /// It was here already.
    Duplicate,
    /// It waits for these parents.
    Waiting(Vec<Hash>),
}

/// The grants of one vault. Everything that is asked of it is answered alike by everyone who has the
/// same grants, whatever the order in which they came.
#[derive(Clone, Debug)]
pub struct Membership {
    vault: VaultId,
    /// The accepted grants, as they came.
    accepted: Vec<Accepted>,
    /// The place of each in that list.
    places: BTreeMap<Hash, usize>,
    /// The accepted grants in the one order in which they are read: by depth, then by id.
    order: BTreeMap<(u64, Hash), usize>,
    heads: BTreeSet<Hash>,
    waiting: BTreeMap<Hash, SignedGrant>,
    reading: Reading,
}

/// A grant that its ancestors allow.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    pub(super) id: Hash,
    pub(super) grant: SignedGrant,
    /// Grants between this and the genesis grant, by the longest way.
    pub(super) depth: u64,
    /// The grants on which it builds, directly or not.
    pub(super) ancestors: Places,
    /// The recovery key that its author knew.
    pub(super) recovery: Option<DeviceId>,
    /// Whether the recovery key signed it.
    pub(super) by_recovery: bool,
}

impl Membership {
    /// The membership of `vault`, of which nothing is known yet.
    pub fn new(vault: VaultId) -> Self {
        Self {
            vault,
            accepted: Vec::new(),
            places: BTreeMap::new(),
            order: BTreeMap::new(),
            heads: BTreeSet::new(),
            waiting: BTreeMap::new(),
            reading: Reading::default(),
        }
    }

    /// Reads a whole list of encoded grants, in any order, and checks all of it from the vault's id
    /// alone. One that does not count, or an ancestor that is missing, is an error.
    pub fn from_bytes<B: AsRef<[u8]>>(
        vault: VaultId,
        list: impl IntoIterator<Item = B>,
    ) -> Result<Self, GrantError> {
        let mut grants = BTreeMap::new();
        for bytes in list {
            if grants.len() == MAX_GRANTS {
                return Err(GrantError::TooManyGrants);
            }
            let grant = SignedGrant::decode(bytes.as_ref())?;
            if grant.vault() != vault {
                return Err(GrantError::WrongVault(grant.vault()));
            }
            grants.insert(grant.id(), grant);
        }
        let mut membership = Self::new(vault);
        // Parents first, so that however long the list, nothing has to wait.
        let mut ready: Vec<Hash> = Vec::new();
        let mut children: BTreeMap<Hash, Vec<Hash>> = BTreeMap::new();
        let mut lacking: BTreeMap<Hash, usize> = BTreeMap::new();
        for (id, grant) in &grants {
            let parents: BTreeSet<&Hash> = grant.value().parents.iter().collect();
            if let Some(absent) = parents.iter().find(|parent| !grants.contains_key(**parent)) {
                return Err(GrantError::Incomplete(**absent));
            }
            for parent in &parents {
                children.entry(**parent).or_default().push(*id);
            }
            lacking.insert(*id, parents.len());
            if parents.is_empty() {
                ready.push(*id);
            }
        }
        while let Some(id) = ready.pop() {
            if let Some(grant) = grants.remove(&id) {
                // Whatever was taken in once is taken in again, in any order.
                membership.accept(grant.id(), grant, true)?;
            }
            for child in children.remove(&id).unwrap_or_default() {
                if let Some(count) = lacking.get_mut(&child) {
                    *count -= 1;
                    if *count == 0 {
                        ready.push(child);
                    }
                }
            }
        }
        if membership.accepted.is_empty() {
            return Err(GrantError::Incomplete(genesis_id(&vault)));
        }
        Ok(membership)
    }

    /// Offers a grant. It is accepted once all its ancestors are; an error says why it never will
    /// be, and it is not kept.
    pub fn insert(&mut self, grant: SignedGrant) -> Result<Inserted, GrantError> {
        let id = grant.id();
        if grant.vault() != self.vault {
            return Err(GrantError::WrongVault(grant.vault()));
        }
        if self.places.contains_key(&id) || self.waiting.contains_key(&id) {
            return Ok(Inserted::Duplicate);
        }
        let missing = self.missing_parents(&grant);
        if !missing.is_empty() {
            if self.waiting.len() >= MAX_WAITING {
                return Err(GrantError::TooManyWaiting);
            }
            self.waiting.insert(id, grant);
            return Ok(Inserted::Waiting(missing));
        }
        self.accept(id, grant, false)?;
        let mut accepted = vec![id];
        while let Some(next) = self.next_released() {
            if let Some(grant) = self.waiting.remove(&next)
                && self.accept(next, grant, false).is_ok()
            {
                accepted.push(next);
            }
        }
        Ok(Inserted::Accepted(accepted))
    }

    /// Reads an encoded grant and offers it.
    pub fn insert_bytes(&mut self, bytes: &[u8]) -> Result<Inserted, GrantError> {
        self.insert(SignedGrant::decode(bytes)?)
    }

    fn missing_parents(&self, grant: &SignedGrant) -> Vec<Hash> {
        let parents = grant.value().parents.iter();
        parents
            .filter(|parent| !self.places.contains_key(*parent))
            .copied()
            .collect()
    }

    fn next_released(&self) -> Option<Hash> {
        self.waiting
            .iter()
            .find(|(_, grant)| self.missing_parents(grant).is_empty())
            .map(|(id, _)| *id)
    }

    fn accept(&mut self, id: Hash, grant: SignedGrant, known: bool) -> Result<(), GrantError> {
        if self.accepted.len() >= MAX_GRANTS {
            return Err(GrantError::TooManyGrants);
        }
        let author = grant.value().author;
        if !known
            && self.reading.void_count >= MAX_FROM_FORMER
            && self.reading.former().contains_key(&author)
        {
            return Err(GrantError::TooManyVoid);
        }
        let parents = &grant.value().parents;
        let ancestors = self.ancestors(parents);
        let is_next =
            parents.len() == self.heads.len() && parents.iter().all(|p| self.heads.contains(p));
        let before;
        // Its ancestors are all there is, as they are when one device acts after another.
        let reading = if is_next {
            &self.reading
        } else {
            before = self.reading_of(&ancestors);
            &before
        };
        reading.check(grant.value(), &self.signer(&ancestors))?;
        let recovery = reading.recovery().map(|recovery| recovery.signing);
        let by_recovery = reading.is_recovery(&author);
        let depth = parents
            .iter()
            .filter_map(|parent| self.places.get(parent))
            .map(|place| self.accepted[*place].depth + 1)
            .max()
            .unwrap_or(0);
        for parent in parents {
            self.heads.remove(parent);
        }
        self.heads.insert(id);
        let place = self.accepted.len();
        self.places.insert(id, place);
        self.order.insert((depth, id), place);
        let judged = match &grant.value().body {
            GrantBody::Revoke(revocation) => !revocation.undone.is_empty(),
            _ => false,
        };
        self.accepted.push(Accepted {
            id,
            grant,
            depth,
            ancestors,
            recovery,
            by_recovery,
        });
        if is_next && !judged {
            self.reading
                .take(place, &self.accepted[place], Fate::Counts);
        } else {
            self.reading = self.reading_of(&Places::below(self.accepted.len()));
        }
        Ok(())
    }

    /// Who signed a grant, if it is one of `among`.
    fn signer<'a>(&'a self, among: &'a Places) -> impl Fn(&Hash) -> Option<DeviceId> + 'a {
        move |id| {
            let place = *self.places.get(id)?;
            let accepted = among.contains(place).then(|| &self.accepted[place])?;
            (accepted.depth > 0).then(|| accepted.grant.value().author)
        }
    }

    /// Whether a grant of our own that names [`parents`](Self::parents) would count.
    pub(super) fn check_next(&self, grant: &super::Grant) -> Result<(), GrantError> {
        let ancestors = self.ancestors(&grant.parents);
        self.reading_of(&ancestors)
            .check(grant, &self.signer(&ancestors))
    }

    fn reading_of(&self, places: &Places) -> Reading {
        let order = self.order.values().copied();
        let order: Vec<usize> = order.filter(|place| places.contains(*place)).collect();
        Reading::of(&self.accepted, &order)
    }

    /// `heads` that are known, and all that they build on.
    fn ancestors(&self, heads: &[Hash]) -> Places {
        let mut found = Places::default();
        for place in heads.iter().filter_map(|id| self.places.get(id)) {
            found.insert(*place);
            found.add(&self.accepted[*place].ancestors);
        }
        found
    }

    /// The vault.
    pub fn vault(&self) -> VaultId {
        self.vault
    }

    /// The accepted grants on which no other builds, ascending: what one compares with others. Of more
    /// than [`MAX_GRANT_HEADS`] the furthest on.
    pub fn heads(&self) -> Vec<Hash> {
        let by_depth = self.order.keys().rev().map(|(_, id)| id);
        let mut heads: Vec<Hash> = by_depth
            .filter(|id| self.heads.contains(*id))
            .take(MAX_GRANT_HEADS)
            .copied()
            .collect();
        heads.sort_unstable();
        heads
    }

    /// The grants that count, or are contested, and on which no other of those builds, ascending: what
    /// a new grant names as parents and an entry as what its author knew. Void ones are left out, so
    /// that who was put out cannot crowd the list. Of more than [`MAX_GRANT_HEADS`] the furthest on.
    pub fn parents(&self) -> Vec<Hash> {
        let mut covered = Places::default();
        let mut parents = Vec::new();
        for place in self.order.values().rev() {
            if self.reading.fate(*place) == Fate::Void || covered.contains(*place) {
                continue;
            }
            covered.add(&self.accepted[*place].ancestors);
            parents.push(self.accepted[*place].id);
            if parents.len() == MAX_GRANT_HEADS {
                break;
            }
        }
        parents.sort_unstable();
        parents
    }

    /// Whether all of `heads` are accepted here.
    pub fn knows(&self, heads: &[Hash]) -> bool {
        heads.iter().all(|head| self.places.contains_key(head))
    }

    /// The accepted grants that somebody with `heads` lacks, each after its parents. Heads that are
    /// not known here are passed over.
    pub fn missing(&self, heads: &[Hash]) -> Vec<&SignedGrant> {
        let theirs = self.ancestors(heads);
        self.order
            .values()
            .filter(|place| !theirs.contains(**place))
            .map(|place| &self.accepted[*place].grant)
            .collect()
    }

    /// Every accepted grant with its id, each after its parents.
    pub fn grants(&self) -> impl Iterator<Item = (Hash, &SignedGrant)> {
        let accepted = self.order.values().map(|place| &self.accepted[*place]);
        accepted.map(|accepted| (accepted.id, &accepted.grant))
    }

    /// The ids of the accepted grants, each after its parents.
    pub fn ids(&self) -> Vec<Hash> {
        self.order.keys().map(|(_, id)| *id).collect()
    }

    /// An accepted grant.
    pub fn get(&self, id: &Hash) -> Option<&SignedGrant> {
        self.places
            .get(id)
            .map(|place| &self.accepted[*place].grant)
    }

    /// What became of an accepted grant. It changes when more grants come.
    pub fn fate(&self, id: &Hash) -> Option<Fate> {
        self.places.get(id).map(|place| self.reading.fate(*place))
    }

    /// What counts of a log.
    pub fn writing(&self, writer: &WriterId) -> Writing {
        self.reading.writing(writer)
    }

    /// Whether `grant` is among `heads` or what they build on.
    pub fn builds_on(&self, heads: &[Hash], grant: &Hash) -> bool {
        let place = self.places.get(grant);
        place.is_some_and(|place| self.ancestors(heads).contains(*place))
    }

    /// Whether somebody who knew the grants at `heads` knew of one that closed the logs of `device`, and did so by what
    /// they knew: one that others had undone then was not heeded.
    pub fn has_heard(&self, heads: &[Hash], device: &DeviceId) -> bool {
        let known = self.ancestors(heads);
        let closers: Vec<usize> = self
            .reading
            .closers(device)
            .filter(|act| known.contains(*act))
            .collect();
        if closers.is_empty() {
            return false;
        }
        let then = self.reading_of(&known);
        then.closers(device).any(|act| closers.contains(&act))
    }

    /// The grants that closed the logs of `device`, each with the cutoffs that it names for them. One that undid the
    /// device's admission names none.
    pub fn closers(&self, device: &DeviceId) -> BTreeMap<Hash, Vec<Cutoff>> {
        let closers = self.reading.closers(device);
        let named = closers.map(|place| {
            let accepted = &self.accepted[place];
            let cutoffs = match &accepted.grant.value().body {
                GrantBody::Revoke(revocation) => &revocation.cutoffs[..],
                GrantBody::Role(change) => &change.cutoffs,
                _ => &[],
            };
            let of_it = cutoffs
                .iter()
                .filter(|cutoff| cutoff.writer.device == *device);
            (accepted.id, of_it.copied().collect())
        });
        named.collect()
    }

    /// The devices that were in the vault and are not now.
    pub fn former(&self) -> &BTreeMap<DeviceId, Former> {
        self.reading.former()
    }

    pub(super) fn reading(&self) -> &Reading {
        &self.reading
    }

    /// How many grants wait for parents.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The devices that are in the vault.
    pub fn devices(&self) -> &BTreeMap<DeviceId, Device> {
        self.reading.devices()
    }

    /// Whether `device` is in the vault, in whatever role.
    pub fn is_member(&self, device: &DeviceId) -> bool {
        self.devices().contains_key(device)
    }

    /// What `device` may do, if it is in the vault.
    pub fn role(&self, device: &DeviceId) -> Option<Role> {
        self.devices().get(device).map(|device| device.role)
    }

    /// The name of `device`, if it is or was in the vault and `keyring` has the key of the epoch under
    /// which the name is sealed.
    pub fn device_name(&self, device: &DeviceId, keyring: &Keyring) -> Option<String> {
        let present = self.devices().get(device);
        let former = || self.former().get(device).map(|former| &former.device);
        present.or_else(former)?.name.open(device, keyring).ok()
    }

    /// The recovery key's public halves; none before the genesis grant is here.
    pub fn recovery(&self) -> Option<&RecoveryPublic> {
        self.reading.recovery()
    }

    /// Those who must be able to read, with the keys to which one seals for them: the recovery key
    /// first, then the key-holding devices ascending.
    pub(super) fn sealing_keys(&self) -> Vec<(super::Recipient, &SealingPublic)> {
        self.reading.sealing_keys()
    }

    /// The epochs of `space` that no other follows, ascending; more than one after two owners
    /// rotated without knowing of each other.
    pub fn newest_epochs(&self, space: SpaceId) -> Vec<EpochId> {
        self.reading.newest_epochs(space)
    }

    /// The epoch of `space` under which one may write: its recipients are exactly the present
    /// members. None until an owner rotates, which concurrent grants can make necessary.
    pub fn writable_epoch(&self, space: SpaceId) -> Option<EpochId> {
        self.reading.writable_epoch(space)
    }

    /// The epoch of `space` to seal under: the [writable](Self::writable_epoch) one, else one that not
    /// all members can read yet, but nobody else. None: nothing may be written before an owner rotates.
    pub fn sealing_epoch(&self, space: SpaceId) -> Option<EpochId> {
        self.reading.sealing_epoch(space)
    }

    /// Whether an owner with these keys has to rotate: no epoch of their space is there for exactly the
    /// present members, or some member cannot open one under which others may have written.
    pub fn rotation_due(&self, keys: &Keyring) -> bool {
        self.writable_epoch(keys.space()).is_none() || !self.reading.reach_all(keys.space(), keys)
    }

    /// Whether `device` can open every epoch of `keys`, directly or from a newer one.
    pub fn can_open(&self, device: DeviceId, keys: &Keyring) -> bool {
        self.reading
            .reaches(keys.space(), super::Recipient::Device(device), keys)
    }

    /// All keys of `space` that the grants give to `me`: those sealed to it, and the older ones that
    /// newer ones open. Written under is the [writable](Self::writable_epoch) epoch if its key is
    /// among them, else the newest.
    pub fn keyring(&self, space: SpaceId, me: Opener<'_>) -> Result<Keyring, GrantError> {
        self.reading.keyring(space, me)
    }

    /// When the vault was begun, in milliseconds since 1970, by its first device's clock; none
    /// before the genesis grant is here.
    pub fn created_ms(&self) -> Option<u64> {
        let genesis = self.get(&genesis_id(&self.vault))?;
        match genesis.value().body {
            GrantBody::Genesis { created_ms, .. } => Some(created_ms),
            _ => None,
        }
    }
}
