//! What grants promise; here the vaults on which it is tried.

mod graph;
mod reading;
mod refusals;
mod revoking;

use std::sync::OnceLock;

use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

use super::*;
use crate::identity::DeviceKey;
use crate::keys::{Keyring, SealingKey};

/// A device with its keys.
struct Own {
    key: DeviceKey,
    sealing: SealingKey,
}

impl Own {
    fn new(n: u8) -> Self {
        let key = DeviceKey::from_secret([n; 32]);
        let sealing = SealingKey::of_device(&key);
        Self { key, sealing }
    }

    fn id(&self) -> DeviceId {
        self.key.id()
    }

    fn opener(&self) -> Opener<'_> {
        Opener::Device(self.id(), &self.sealing)
    }
}

fn rng(seed: u64) -> ChaCha12Rng {
    ChaCha12Rng::seed_from_u64(seed)
}

fn founded() -> (Own, Founded) {
    let own = Own::new(1);
    let founded = found(&own.key, &own.sealing, "laptop", 1_000, &mut rng(1)).unwrap();
    (own, founded)
}

fn admission(
    membership: &Membership,
    keyring: &Keyring,
    by: &Own,
    new: &Own,
    role: Role,
    name: &str,
) -> Result<SignedGrant, GrantError> {
    let sealing = new.sealing.public();
    let new = NewDevice {
        device: new.id(),
        sealing: &sealing,
        role,
        name,
    };
    membership.admit(&by.key, keyring, &new, 2_000, &mut rng(2))
}

/// Signs `body` after the present heads, without the checks that issuing makes.
fn forged(membership: &Membership, by: &Own, body: GrantBody) -> SignedGrant {
    let grant = Grant {
        version: body.version(false),
        vault: membership.vault(),
        parents: membership.heads(),
        author: by.id(),
        body,
    };
    SignedGrant::sign(grant, &by.key).unwrap()
}

fn all_bytes(membership: &Membership) -> Vec<Vec<u8>> {
    let grants = membership.grants();
    grants.map(|(_, grant)| grant.bytes().to_vec()).collect()
}

fn epoch_ids(keyring: &Keyring) -> Vec<EpochId> {
    keyring.epochs().map(|key| key.id()).collect()
}

/// A vault with work done apart: two owners, concurrent admissions (of one device by both as well)
/// and concurrent rotations, joined again.
fn branched() -> &'static (Membership, Vec<SignedGrant>) {
    static BRANCHED: OnceLock<(Membership, Vec<SignedGrant>)> = OnceLock::new();
    BRANCHED.get_or_init(|| {
        let (own, founded) = founded();
        let owners = [own, Own::new(2)];
        let mut all = founded.membership;
        let keyring = founded.keyring;
        let grant = admission(&all, &keyring, &owners[0], &owners[1], Role::Owner, "2").unwrap();
        all.insert(grant).unwrap();

        let mut sides = [all.clone(), all.clone()];
        for (n, owner) in owners.iter().enumerate() {
            let side = &mut sides[n];
            let mut keys = keyring.clone();
            let only_here = Own::new(10 + u8::try_from(n).unwrap());
            let on_both = Own::new(20);
            let role = [Role::Member, Role::Reader][n];
            for (new, role) in [(&only_here, Role::Member), (&on_both, role)] {
                let grant = admission(side, &keys, owner, new, role, "new").unwrap();
                side.insert(grant).unwrap();
            }
            let (grant, key) = side
                .rotate(&owner.key, &keys, &mut rng(30 + n as u64))
                .unwrap();
            side.insert(grant).unwrap();
            keys.add(key);
        }
        let [a, b] = sides;
        all = a;
        for grant in b.missing(&all.heads()) {
            all.insert(grant.clone()).unwrap();
        }
        let keys = all.keyring(SpaceId::HOME, owners[0].opener()).unwrap();
        let grant = admission(&all, &keys, &owners[0], &Own::new(30), Role::Relay, "host");
        all.insert(grant.unwrap()).unwrap();
        let grants = all.grants().map(|(_, grant)| grant.clone()).collect();
        (all, grants)
    })
}
