//! Random graphs of grants, made by owners who work apart, thieves among them: whatever the order in
//! which they arrive, and whatever part of them is there, they are read alike.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::RngExt;

use super::*;
use crate::identity::WriterId;
use crate::recovery::RecoveryKey;

/// Devices that sign, the first of which founds the vault.
const DEVICES: u8 = 5;

struct World {
    rng: ChaCha12Rng,
    owns: Vec<Own>,
    recovery: RecoveryKey,
    /// What each device knows.
    knows: Vec<Membership>,
}

impl World {
    fn new(seed: u64) -> World {
        let owns: Vec<Own> = (1..=DEVICES).map(Own::new).collect();
        let founded = found(&owns[0].key, &owns[0].sealing, "1", 1_000, &mut rng(seed)).unwrap();
        let mut all = founded.membership;
        for new in &owns[1..4] {
            let grant = admission(&all, &founded.keyring, &owns[0], new, Role::Owner, "n");
            all.insert(grant.unwrap()).unwrap();
        }
        World {
            rng: rng(seed),
            knows: vec![all; usize::from(DEVICES)],
            recovery: founded.recovery,
            owns,
        }
    }

    fn step(&mut self) {
        let by = self.rng.random_range(0..self.owns.len());
        let other = self.rng.random_range(0..self.owns.len());
        let device = self.owns[other].id();
        let words = self.recovery.signing();
        let own = &self.owns[by];
        let key = match self.rng.random_range(0..12) {
            0 => &words,
            _ => &own.key,
        };
        let knows = &self.knows[by];
        let made = match self.rng.random_range(0..10) {
            0..3 => {
                // A thief goes on signing on what it knew; others learn.
                let theirs = self.knows[other].clone();
                for (_, grant) in theirs.grants() {
                    self.knows[by].insert(grant.clone()).unwrap();
                }
                return;
            }
            3..6 => knows.revoke(key, device, vec![], &[], 0),
            6 => {
                let role = [Role::Owner, Role::Member, Role::Reader][self.rng.random_range(0..3)];
                knows.change_role(key, device, role, vec![], 0)
            }
            7 => match knows.keyring(SpaceId::HOME, own.opener()) {
                Ok(keyring) => knows
                    .rotate(key, &keyring, &mut self.rng)
                    .map(|(grant, _)| grant),
                Err(error) => Err(error),
            },
            8 => match knows.keyring(SpaceId::HOME, own.opener()) {
                Ok(keyring) => admission(knows, &keyring, own, &self.owns[other], Role::Owner, "n"),
                Err(error) => Err(error),
            },
            _ => {
                let fresh = RecoveryKey::generate(&mut self.rng);
                knows.replace_recovery(key, fresh.public(), 0)
            }
        };
        // What the author itself sees to be impossible is not signed.
        if let Ok(grant) = made {
            self.knows[by].insert(grant).unwrap();
        }
    }

    fn all(&self) -> Vec<SignedGrant> {
        let mut all = BTreeMap::new();
        for knows in &self.knows {
            for (id, grant) in knows.grants() {
                all.insert(id, grant.clone());
            }
        }
        all.into_values().collect()
    }
}

/// All that can be asked of a membership.
fn reading(membership: &Membership) -> impl PartialEq + std::fmt::Debug + use<> {
    let fates: Vec<_> = membership
        .ids()
        .into_iter()
        .map(|id| (id, membership.fate(&id)))
        .collect();
    let logs: Vec<_> = (1..=DEVICES)
        .map(|n| {
            let writer = WriterId {
                device: Own::new(n).id(),
                incarnation: 1,
            };
            membership.writing(&writer)
        })
        .collect();
    (
        (fates, membership.heads(), membership.parents()),
        (
            membership.devices().clone(),
            membership.former().clone(),
            logs,
        ),
        (
            membership.newest_epochs(SpaceId::HOME),
            membership.writable_epoch(SpaceId::HOME),
            membership.sealing_epoch(SpaceId::HOME),
            membership.recovery().cloned(),
        ),
    )
}

fn shuffled(grants: &[SignedGrant], rng: &mut ChaCha12Rng) -> Vec<SignedGrant> {
    let mut order = grants.to_vec();
    for n in (1..order.len()).rev() {
        order.swap(n, rng.random_range(0..=n));
    }
    order
}

fn read(vault: VaultId, grants: &[SignedGrant]) -> Membership {
    let mut membership = Membership::new(vault);
    for grant in grants {
        membership.insert(grant.clone()).unwrap();
    }
    assert_eq!(membership.waiting(), 0);
    membership
}

/// `heads` and all that they build on.
fn closed(grants: &[SignedGrant], mut heads: Vec<Hash>) -> Vec<SignedGrant> {
    let by_id: BTreeMap<Hash, &SignedGrant> = grants.iter().map(|g| (g.id(), g)).collect();
    let mut found = BTreeMap::new();
    while let Some(id) = heads.pop() {
        if found.insert(id, by_id[&id].clone()).is_none() {
            heads.extend_from_slice(&by_id[&id].value().parents);
        }
    }
    found.into_values().collect()
}

/// What must be so in every reading.
fn check(membership: &Membership) {
    for (id, former) in membership.former() {
        assert!(!membership.is_member(id), "somebody is in and out");
        for out in &former.outs {
            let fate = membership.fate(&out.grant).unwrap();
            assert_eq!(fate == Fate::Contested, out.contested);
            assert_ne!(fate, Fate::Void, "a void revocation puts somebody out");
            // Whatever they signed that the revoker had not seen is nothing.
            let seen = membership.get(&out.grant).unwrap().value().parents.clone();
            for (grant, signed) in membership.grants() {
                if signed.value().author == *id && !membership.builds_on(&seen, &grant) {
                    assert_ne!(membership.fate(&grant), Some(Fate::Counts));
                }
            }
        }
    }
    for device in membership.devices().values() {
        let by = device.admitted_by;
        let known = membership.is_member(&by)
            || membership.former().contains_key(&by)
            || membership
                .grants()
                .any(|(_, grant)| matches!(&grant.value().body, GrantBody::Genesis { recovery, .. } if recovery.signing == by))
            || membership
                .grants()
                .any(|(_, grant)| matches!(&grant.value().body, GrantBody::Replace { recovery, .. } if recovery.signing == by));
        assert!(known, "a stranger admitted somebody");
    }
    if let Some(epoch) = membership.sealing_epoch(SpaceId::HOME) {
        let held = |own: &Own| {
            membership
                .keyring(SpaceId::HOME, own.opener())
                .is_ok_and(|keyring| keyring.epoch(&epoch).is_some())
        };
        for own in (1..=DEVICES).map(Own::new) {
            assert!(
                membership.is_member(&own.id()) || !held(&own),
                "one would write for somebody who is out"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_order_and_any_closed_part_is_read_alike(seed: u64, steps in 5..40usize) {
        let mut world = World::new(seed);
        for _ in 0..steps {
            world.step();
        }
        let (vault, all) = (world.knows[0].vault(), world.all());
        let mut rng = rng(seed ^ 1);
        let mut parts = vec![all.clone()];
        for _ in 0..3 {
            let heads = (0..rng.random_range(1..4)).map(|_| all[rng.random_range(0..all.len())].id());
            let heads = heads.collect();
            parts.push(closed(&all, heads));
        }
        for part in parts {
            let first = read(vault, &shuffled(&part, &mut rng));
            check(&first);
            let second = read(vault, &shuffled(&part, &mut rng));
            prop_assert_eq!(reading(&first), reading(&second));
            let bytes = shuffled(&part, &mut rng);
            let third = Membership::from_bytes(vault, bytes.iter().map(|g| g.bytes())).unwrap();
            prop_assert_eq!(reading(&first), reading(&third));
            // One after another, as an honest device learns them.
            let mut fourth = Membership::new(vault);
            for (_, grant) in first.grants() {
                fourth.insert(grant.clone()).unwrap();
                check(&fourth);
            }
            prop_assert_eq!(reading(&first), reading(&fourth));
        }
    }
}
