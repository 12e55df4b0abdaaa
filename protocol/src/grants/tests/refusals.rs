//! What does not count, and that it is refused for what it is.

use proptest::prelude::*;

use super::*;
use crate::codec::CodecError;

#[test]
fn grants_of_others_do_not_count() {
    let (own, mut founded) = founded();
    let (stranger, member) = (Own::new(8), Own::new(2));
    let membership = &mut founded.membership;
    let keyring = &founded.keyring;
    let by_owner = admission(membership, keyring, &own, &member, Role::Member, "m").unwrap();
    membership.insert(by_owner.clone()).unwrap();

    let body = |new: &Own| match by_owner.value().body.clone() {
        GrantBody::Admit {
            sealing,
            role,
            name,
            mut seals,
            created_ms,
            ..
        } => {
            seals[0].recipient = Recipient::Device(new.id());
            GrantBody::Admit {
                device: new.id(),
                sealing,
                role,
                name,
                seals,
                created_ms,
            }
        }
        _ => unreachable!("it is an admission"),
    };
    let grant = forged(membership, &stranger, body(&stranger));
    assert_eq!(
        membership.insert(grant),
        Err(GrantError::UnknownAuthor(stranger.id()))
    );
    let grant = forged(membership, &member, body(&stranger));
    assert_eq!(
        membership.insert(grant),
        Err(GrantError::NotOwner(member.id()))
    );
    assert_eq!(
        admission(membership, keyring, &member, &stranger, Role::Owner, "s").unwrap_err(),
        GrantError::NotOwner(member.id())
    );
    assert!(!membership.is_member(&stranger.id()));
    // Signed in the owner's name by somebody else.
    let mut grant = by_owner.value().clone();
    grant.body = body(&stranger);
    assert_eq!(
        SignedGrant::sign(grant, &stranger.key).unwrap_err(),
        SignedError::NotTheSigner
    );
}

#[test]
fn an_owner_cannot_grant_what_does_not_fit() {
    let (own, founded) = founded();
    let new = Own::new(2);
    let membership = &founded.membership;
    let honest = admission(membership, &founded.keyring, &own, &new, Role::Member, "n").unwrap();
    let GrantBody::Admit {
        device,
        sealing,
        role,
        name,
        seals,
        created_ms,
    } = honest.value().body.clone()
    else {
        unreachable!("it is an admission")
    };
    let with = |device: DeviceId, role: Role, seals: Vec<Seal>| GrantBody::Admit {
        device,
        sealing: sealing.clone(),
        role,
        name: name.clone(),
        seals,
        created_ms,
    };
    let elsewhere = Seal {
        epoch: EpochId([9; 32]),
        ..seals[0].clone()
    };
    let doubled = vec![seals[0].clone(), seals[0].clone()];
    let recovery = founded.recovery.signing().id();
    let (rotation, _) = membership
        .rotate(&own.key, &founded.keyring, &mut rng(3))
        .unwrap();
    let GrantBody::Epoch(rotation) = rotation.value().body.clone() else {
        unreachable!("it is an epoch")
    };
    let mut without_recovery = rotation.clone();
    without_recovery.seals.remove(0);
    let mut for_stranger = rotation.clone();
    for_stranger.seals[1].recipient = Recipient::Device(new.id());
    let mut second_beginning = rotation.clone();
    second_beginning.parents.clear();
    let mut other_secret = rotation.clone();
    other_secret.secret = Hash::ZERO;
    let mut known_epoch = rotation.clone();
    known_epoch.epoch = founded.keyring.current().id();
    let bad_epoch = |grant: &EpochGrant| GrantError::BadEpoch(grant.epoch);
    let cases = [
        (with(device, role, vec![]), GrantError::BadSeals),
        (with(device, role, doubled), GrantError::BadSeals),
        (with(device, role, vec![elsewhere]), GrantError::BadSeals),
        (
            with(device, Role::Relay, seals.clone()),
            GrantError::BadSeals,
        ),
        (
            with(own.id(), role, seals.clone()),
            GrantError::RoleChange(own.id()),
        ),
        (
            with(recovery, role, seals.clone()),
            GrantError::BadDevice(recovery),
        ),
        (
            with(DeviceId([0; 32]), role, seals),
            GrantError::BadDevice(DeviceId([0; 32])),
        ),
        (GrantBody::Epoch(without_recovery), GrantError::BadSeals),
        (GrantBody::Epoch(for_stranger), GrantError::BadSeals),
        (
            GrantBody::Epoch(second_beginning.clone()),
            bad_epoch(&second_beginning),
        ),
        (
            GrantBody::Epoch(other_secret.clone()),
            bad_epoch(&other_secret),
        ),
        (
            GrantBody::Epoch(known_epoch.clone()),
            bad_epoch(&known_epoch),
        ),
    ];
    for (n, (body, refusal)) in cases.into_iter().enumerate() {
        let grant = forged(membership, &own, body);
        let mut membership = membership.clone();
        assert_eq!(membership.insert(grant), Err(refusal), "case {n}");
        assert_eq!(membership.ids(), founded.membership.ids(), "case {n}");
    }
}

#[test]
fn a_grant_of_another_vault_is_refused() {
    let (own, founded) = founded();
    let other = found(&own.key, &own.sealing, "laptop", 1_000, &mut rng(7)).unwrap();
    assert_ne!(other.membership.vault(), founded.membership.vault());
    let mut membership = founded.membership;
    for (_, grant) in other.membership.grants() {
        assert_eq!(
            membership.insert(grant.clone()),
            Err(GrantError::WrongVault(other.membership.vault()))
        );
    }
    assert_eq!(
        Membership::from_bytes(membership.vault(), all_bytes(&other.membership)).unwrap_err(),
        GrantError::WrongVault(other.membership.vault())
    );
}

#[test]
fn grants_without_their_ancestors_are_incomplete() {
    let (_, founded) = founded();
    let vault = founded.membership.vault();
    let bytes = all_bytes(&founded.membership);
    assert_eq!(
        Membership::from_bytes(vault, &bytes[1..]).unwrap_err(),
        GrantError::Incomplete(Hash(vault.0))
    );
    assert_eq!(
        Membership::from_bytes(vault, Vec::<Vec<u8>>::new()).unwrap_err(),
        GrantError::Incomplete(Hash(vault.0))
    );
}

#[test]
fn parents_out_of_order_or_absent_are_refused() {
    let (own, founded) = founded();
    let vault = founded.membership.vault();
    let head = founded.membership.heads()[0];
    let genesis = Hash(vault.0);
    let (rotation, _) = founded
        .membership
        .rotate(&own.key, &founded.keyring, &mut rng(3))
        .unwrap();
    let mut parents = [head, genesis];
    parents.sort_unstable();
    parents.reverse();
    for wrong in [parents.to_vec(), vec![head, head], vec![]] {
        let grant = Grant {
            parents: wrong,
            ..rotation.value().clone()
        };
        let grant = SignedGrant::sign(grant, &own.key).unwrap();
        let mut membership = founded.membership.clone();
        assert_eq!(membership.insert(grant), Err(GrantError::BadParents));
    }
}

#[test]
fn an_oversized_or_newer_grant_is_refused_as_such() {
    let (_, founded) = founded();
    let (_, genesis) = founded.membership.grants().next().unwrap();
    let mut long = genesis.bytes().to_vec();
    long.resize(GRANT_MAX_LEN + 1, 0);
    assert_eq!(
        SignedGrant::decode(&long).unwrap_err(),
        SignedError::Codec(CodecError::TooLong {
            len: GRANT_MAX_LEN + 1,
            max: GRANT_MAX_LEN
        })
    );
    let mut newer = genesis.bytes().to_vec();
    newer[0] = 3;
    assert_eq!(
        SignedGrant::decode(&newer).unwrap_err(),
        SignedError::Codec(CodecError::Newer {
            found: 3,
            supported: 2
        })
    );
    let mut trailing = genesis.bytes().to_vec();
    trailing.push(0);
    assert_eq!(
        SignedGrant::decode(&trailing).unwrap_err(),
        SignedError::Codec(CodecError::NotCanonical)
    );
}

#[test]
fn only_so_many_grants_wait() {
    let (own, founded) = founded();
    let mut absent = Membership::new(founded.membership.vault());
    let (rotation, _) = founded
        .membership
        .rotate(&own.key, &founded.keyring, &mut rng(3))
        .unwrap();
    let numbered = |n: usize| {
        let grant = Grant {
            parents: vec![Hash::of("test", &[&n.to_le_bytes()])],
            ..rotation.value().clone()
        };
        SignedGrant::sign(grant, &own.key).unwrap()
    };
    for n in 0..MAX_WAITING {
        assert!(matches!(
            absent.insert(numbered(n)),
            Ok(Inserted::Waiting(_))
        ));
    }
    assert_eq!(
        absent.insert(numbered(MAX_WAITING)),
        Err(GrantError::TooManyWaiting)
    );
    assert_eq!(absent.waiting(), MAX_WAITING);
    assert!(absent.heads().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn an_altered_grant_is_refused(which: prop::sample::Index, at: prop::sample::Index, flip in 1u8..) {
        let grants = &branched().1;
        let mut bytes = grants[which.index(grants.len())].bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(SignedGrant::decode(&bytes).is_err());
        prop_assert!(SignedGrant::decode(&bytes[..at]).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_no_grant(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(SignedGrant::decode(&bytes).is_err());
        if let Some(version) = bytes.first_mut() {
            *version = 1;
        }
        prop_assert!(SignedGrant::decode(&bytes).is_err());
    }
}
