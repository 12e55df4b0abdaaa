//! Making grants that take something away, and the recovery key's successor.

use super::change::{Cutoff, MAX_UNDONE, Revocation, RoleChange};
use super::grant::{GrantBody, Role, SignedGrant};
use super::reading::Fate;
use super::{GrantError, Membership};
use crate::identity::{DeviceId, DeviceKey, Hash};
use crate::recovery::RecoveryPublic;

impl Membership {
    /// Signs the revocation of `device`, whose logs count up to `cutoffs` (ascending). Of its
    /// grants those in `undone` are undone, and those that do not count already: whoever revokes a device
    /// that is suspended decides against it. The author must be an owner or the recovery key.
    pub fn revoke(
        &self,
        author: &DeviceKey,
        device: DeviceId,
        cutoffs: Vec<Cutoff>,
        undone: &[Hash],
        now_ms: u64,
    ) -> Result<SignedGrant, GrantError> {
        let goes = |id: &Hash| self.fate(id) != Some(Fate::Counts) || undone.contains(id);
        let known = self.parents();
        let mut undone: Vec<Hash> = self
            .grants()
            .filter(|(id, grant)| {
                grant.value().author == device && goes(id) && self.builds_on(&known, id)
            })
            .map(|(id, _)| id)
            .take(MAX_UNDONE)
            .collect();
        undone.sort_unstable();
        let keeper = self.devices().contains_key(&author.id());
        self.sign_next(
            author,
            GrantBody::Revoke(Revocation {
                device,
                cutoffs,
                undone,
                keeper: keeper.then(|| author.id()),
                created_ms: now_ms,
            }),
        )
    }

    /// Signs a change of the role of `device`, whose logs count up to `cutoffs` where it may no longer
    /// write. The author must be an owner or the recovery key.
    pub fn change_role(
        &self,
        author: &DeviceKey,
        device: DeviceId,
        role: Role,
        cutoffs: Vec<Cutoff>,
        now_ms: u64,
    ) -> Result<SignedGrant, GrantError> {
        let cutoffs = if role.writes() { Vec::new() } else { cutoffs };
        self.sign_next(
            author,
            GrantBody::Role(RoleChange {
                device,
                role,
                cutoffs,
                created_ms: now_ms,
            }),
        )
    }

    /// Signs that `recovery` takes the place of the recovery key. The author must be that key, or an
    /// owner; then the old key can still contest it, by revoking the owner and undoing this. The next
    /// grant must be a new epoch: none that was sealed to the old key is written under.
    pub fn replace_recovery(
        &self,
        author: &DeviceKey,
        recovery: RecoveryPublic,
        now_ms: u64,
    ) -> Result<SignedGrant, GrantError> {
        self.sign_next(
            author,
            GrantBody::Replace {
                recovery,
                created_ms: now_ms,
            },
        )
    }
}
