//! Making grants: founding a vault, admitting a device, beginning a new epoch.

use rand::CryptoRng;

use super::grant::{
    EpochGrant, Grant, GrantBody, MAX_EPOCH_PARENTS, MAX_PARENTS, MAX_SEALS, OlderEpoch, Recipient,
    Role, Seal, SealedName, SignedGrant,
};
use super::{GrantError, Membership};
use crate::identity::{DeviceId, DeviceKey, EpochId, Hash, SpaceId, VaultId};
use crate::keys::{EpochKey, Keyring, SealingKey, SealingPublic, SpaceSecret};
use crate::recovery::RecoveryKey;

/// A new vault, as its first device has it.
#[derive(Clone, Debug)]
pub struct Founded {
    /// With the genesis grant and the first epoch of [`SpaceId::HOME`] accepted.
    pub membership: Membership,
    /// The keys of [`SpaceId::HOME`].
    pub keyring: Keyring,
    /// To be shown to a person once, and then forgotten.
    pub recovery: RecoveryKey,
}

/// A device that asks to be admitted.
#[derive(Clone, Debug)]
pub struct NewDevice<'a> {
    /// The device.
    pub device: DeviceId,
    /// To what is sealed for it.
    pub sealing: &'a SealingPublic,
    /// What it shall be allowed to do.
    pub role: Role,
    /// What it is called, at most [`DEVICE_NAME_MAX_LEN`](super::DEVICE_NAME_MAX_LEN) bytes.
    pub name: &'a str,
}

/// Founds a vault with one space, [`SpaceId::HOME`], and its first device, called `name`. `now_ms`
/// is in milliseconds since 1970.
pub fn found(
    key: &DeviceKey,
    sealing: &SealingKey,
    name: &str,
    now_ms: u64,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Founded, GrantError> {
    let recovery = RecoveryKey::generate(rng);
    let epoch = EpochKey::generate(rng);
    let secret = SpaceSecret::generate(rng);
    let mut salt = [0; 32];
    rng.fill_bytes(&mut salt);
    let genesis = SignedGrant::sign(
        Grant {
            version: 1,
            vault: VaultId::NONE,
            parents: Vec::new(),
            author: key.id(),
            body: GrantBody::Genesis {
                recovery: recovery.public(),
                sealing: sealing.public(),
                name: SealedName::new(name, &key.id(), &epoch, rng)?,
                created_ms: now_ms,
                salt,
            },
        },
        key,
    )?;
    let mut membership = Membership::new(genesis.vault());
    membership.insert(genesis)?;
    let keyring = Keyring::new(SpaceId::HOME, secret, epoch);
    let first = membership.epoch_grant(
        key,
        keyring.current(),
        &keyring,
        &[],
        membership.parents(),
        rng,
    )?;
    membership.insert(first)?;
    Ok(Founded {
        membership,
        keyring,
        recovery,
    })
}

impl Membership {
    /// Signs the admission of `new`, sealing the present keys of the keyring's space to it (unless
    /// it is to hold none). The author must be an owner or the recovery key. The grant is returned, not inserted: it
    /// counts once it is stored.
    pub fn admit(
        &self,
        author: &DeviceKey,
        keyring: &Keyring,
        new: &NewDevice<'_>,
        now_ms: u64,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<SignedGrant, GrantError> {
        let recipient = Recipient::Device(new.device);
        let space = keyring.space();
        let mut seals = Vec::new();
        let mut parents = self.parents();
        if new.role.holds_keys() {
            let newest;
            (newest, parents) = self.newest_held(keyring, MAX_SEALS);
            for key in newest.iter().filter_map(|epoch| keyring.epoch(epoch)) {
                let secret = keyring.secret();
                seals.push(Seal::new(recipient, new.sealing, space, key, secret, rng));
            }
            if seals.is_empty() {
                return Err(GrantError::NoKey(space));
            }
        }
        let name = SealedName::new(new.name, &new.device, keyring.current(), rng)?;
        self.sign_after(
            author,
            parents,
            GrantBody::Admit {
                device: new.device,
                sealing: new.sealing.clone(),
                role: new.role,
                name,
                seals,
                created_ms: now_ms,
            },
        )
    }

    /// Signs the beginning of a new epoch of the keyring's space for exactly the present members and
    /// the recovery key. It follows the newest epochs of which the keyring holds the keys: one that was
    /// sealed wrongly, or by somebody who is out, must not stand in the way.
    /// Gives the grant, to be inserted, and the new key, to be added to the keyring.
    pub fn rotate(
        &self,
        author: &DeviceKey,
        keyring: &Keyring,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(SignedGrant, EpochKey), GrantError> {
        let key = EpochKey::generate(rng);
        let (older, parents) = self.newest_held(keyring, MAX_EPOCH_PARENTS);
        let grant = self.epoch_grant(author, &key, keyring, &older, parents, rng)?;
        Ok((grant, key))
    }

    fn epoch_grant(
        &self,
        author: &DeviceKey,
        key: &EpochKey,
        keyring: &Keyring,
        follows: &[EpochId],
        parents: Vec<Hash>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<SignedGrant, GrantError> {
        let (space, secret) = (keyring.space(), keyring.secret());
        let mut older = Vec::new();
        for parent in follows {
            let parent = keyring.epoch(parent).ok_or(GrantError::NoKey(space))?;
            older.push(OlderEpoch::new(parent, key, rng));
        }
        let mut seals = Vec::new();
        for (recipient, to) in self.sealing_keys() {
            seals.push(Seal::new(recipient, to, space, key, secret, rng));
        }
        self.sign_after(
            author,
            parents,
            GrantBody::Epoch(EpochGrant {
                space,
                epoch: key.id(),
                secret: secret.id(),
                parents: older,
                seals,
            }),
        )
    }

    /// The newest epochs of which the keyring has the keys, at most `most`, ascending; and what a grant
    /// that speaks of them names as its parents. That is all that counts, and the beginnings of such
    /// epochs as do not: entries were written under them by who did not know yet, and who is admitted
    /// later must read those.
    fn newest_held(&self, keyring: &Keyring, most: usize) -> (Vec<EpochId>, Vec<Hash>) {
        let counting = self.parents();
        let mut parents = counting.clone();
        let mut newest = Vec::new();
        for (epoch, begun_by) in self.reading().newest_held(keyring.space(), keyring) {
            if newest.len() == most {
                break; // What is left out is followed next time.
            }
            if !self.builds_on(&counting, &begun_by) {
                if parents.len() == MAX_PARENTS {
                    continue;
                }
                parents.push(begun_by);
            }
            newest.push(epoch);
        }
        parents.sort_unstable();
        newest.sort_unstable();
        (newest, parents)
    }

    /// Signs `body` as following all that counts here, and checks that it would count.
    pub(super) fn sign_next(
        &self,
        author: &DeviceKey,
        body: GrantBody,
    ) -> Result<SignedGrant, GrantError> {
        self.sign_after(author, self.parents(), body)
    }

    fn sign_after(
        &self,
        author: &DeviceKey,
        parents: Vec<Hash>,
        body: GrantBody,
    ) -> Result<SignedGrant, GrantError> {
        let grant = Grant {
            version: body.version(self.reading().is_recovery(&author.id())),
            vault: self.vault(),
            parents,
            author: author.id(),
            body,
        };
        self.check_next(&grant)?;
        Ok(SignedGrant::sign(grant, author)?)
    }
}
