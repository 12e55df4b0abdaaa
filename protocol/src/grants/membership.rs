//! The graph of a vault's grants, and what it says.

use std::collections::{BTreeMap, BTreeSet};

use super::GrantError;
use super::grant::{GrantBody, Role, SignedGrant};
use super::reading::{Device, Opener, Reading, genesis_id};
use crate::identity::{DeviceId, EpochId, Hash, SpaceId, VaultId};
use crate::keys::{Keyring, SealingPublic};
use crate::log::MAX_GRANT_HEADS;
use crate::recovery::RecoveryPublic;

/// Grants that a vault may have: twenty a year for each of [`MAX_DEVICES`](super::MAX_DEVICES).
pub const MAX_GRANTS: usize = 4096;
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
    accepted: BTreeMap<Hash, Accepted>,
    /// The accepted grants in the one order in which they are read: by depth, then by id.
    order: BTreeSet<(u64, Hash)>,
    heads: BTreeSet<Hash>,
    waiting: BTreeMap<Hash, SignedGrant>,
    reading: Reading,
}

#[derive(Clone, Debug)]
struct Accepted {
    grant: SignedGrant,
    /// Grants between this and the genesis grant, by the longest way.
    depth: u64,
}

impl Membership {
    /// The membership of `vault`, of which nothing is known yet.
    pub fn new(vault: VaultId) -> Self {
        Self {
            vault,
            accepted: BTreeMap::new(),
            order: BTreeSet::new(),
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
                membership.insert(grant)?;
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
        if self.accepted.contains_key(&id) || self.waiting.contains_key(&id) {
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
        self.accept(id, grant)?;
        let mut accepted = vec![id];
        while let Some(next) = self.next_released() {
            if let Some(grant) = self.waiting.remove(&next)
                && self.accept(next, grant).is_ok()
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
            .filter(|parent| !self.accepted.contains_key(*parent))
            .copied()
            .collect()
    }

    fn next_released(&self) -> Option<Hash> {
        self.waiting
            .iter()
            .find(|(_, grant)| self.missing_parents(grant).is_empty())
            .map(|(id, _)| *id)
    }

    fn accept(&mut self, id: Hash, grant: SignedGrant) -> Result<(), GrantError> {
        if self.accepted.len() >= MAX_GRANTS {
            return Err(GrantError::TooManyGrants);
        }
        let parents = &grant.value().parents;
        if parents.len() == self.heads.len() && parents.iter().all(|p| self.heads.contains(p)) {
            // Its ancestors are all there is, as they are when one device acts after another.
            self.reading.check(grant.value())?;
        } else {
            self.reading_of(&self.ancestors(parents))
                .check(grant.value())?;
        }
        let depth = parents
            .iter()
            .filter_map(|parent| self.accepted.get(parent))
            .map(|parent| parent.depth + 1)
            .max()
            .unwrap_or(0);
        for parent in parents {
            self.heads.remove(parent);
        }
        self.heads.insert(id);
        let comes_last = self.order.last().is_none_or(|last| *last < (depth, id));
        self.order.insert((depth, id));
        self.accepted.insert(id, Accepted { grant, depth });
        if comes_last {
            self.reading.take(&self.accepted[&id].grant);
        } else {
            self.reading = self.reading_of(&self.accepted.keys().copied().collect());
        }
        Ok(())
    }

    /// Whether a grant of our own that names [`heads`](Self::heads) as its parents would count.
    pub(super) fn check_next(&self, grant: &super::Grant) -> Result<(), GrantError> {
        self.reading_of(&self.ancestors(&grant.parents))
            .check(grant)
    }

    fn reading_of(&self, ids: &BTreeSet<Hash>) -> Reading {
        let mut reading = Reading::default();
        for (_, id) in self.order.iter().filter(|(_, id)| ids.contains(id)) {
            reading.take(&self.accepted[id].grant);
        }
        reading
    }

    /// `heads` that are known, and all that they build on.
    fn ancestors(&self, heads: &[Hash]) -> BTreeSet<Hash> {
        let mut found = BTreeSet::new();
        let mut open = heads.to_vec();
        while let Some(id) = open.pop() {
            if let Some(accepted) = self.accepted.get(&id)
                && found.insert(id)
            {
                open.extend_from_slice(&accepted.grant.value().parents);
            }
        }
        found
    }

    /// The vault.
    pub fn vault(&self) -> VaultId {
        self.vault
    }

    /// The accepted grants on which no other builds, ascending: what a new grant names as parents
    /// and an entry as its author's heads. Of more than [`MAX_GRANT_HEADS`] the furthest on.
    pub fn heads(&self) -> Vec<Hash> {
        let by_depth = self.order.iter().rev().map(|(_, id)| id);
        let mut heads: Vec<Hash> = by_depth
            .filter(|id| self.heads.contains(*id))
            .take(MAX_GRANT_HEADS)
            .copied()
            .collect();
        heads.sort_unstable();
        heads
    }

    /// Whether all of `heads` are accepted here.
    pub fn knows(&self, heads: &[Hash]) -> bool {
        heads.iter().all(|head| self.accepted.contains_key(head))
    }

    /// The accepted grants that somebody with `heads` lacks, each after its parents. Heads that are
    /// not known here are passed over.
    pub fn missing(&self, heads: &[Hash]) -> Vec<&SignedGrant> {
        let theirs = self.ancestors(heads);
        self.grants()
            .filter(|(id, _)| !theirs.contains(id))
            .map(|(_, grant)| grant)
            .collect()
    }

    /// Every accepted grant with its id, each after its parents.
    pub fn grants(&self) -> impl Iterator<Item = (Hash, &SignedGrant)> {
        self.order
            .iter()
            .map(|(_, id)| (*id, &self.accepted[id].grant))
    }

    /// The ids of the accepted grants, each after its parents.
    pub fn ids(&self) -> Vec<Hash> {
        self.order.iter().map(|(_, id)| *id).collect()
    }

    /// An accepted grant.
    pub fn get(&self, id: &Hash) -> Option<&SignedGrant> {
        self.accepted.get(id).map(|accepted| &accepted.grant)
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

    /// The name of `device`, if it is in the vault and `keyring` has the key of the epoch under
    /// which the name is sealed.
    pub fn device_name(&self, device: &DeviceId, keyring: &Keyring) -> Option<String> {
        let sealed = &self.devices().get(device)?.name;
        sealed.open(device, keyring).ok()
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
