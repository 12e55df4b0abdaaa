//! Who is in the vault, who can read, and that all agree on it.

use proptest::prelude::*;

use super::*;
use crate::recovery::RecoveryKey;

#[test]
fn a_vault_is_checked_from_its_id_alone_and_its_founder_reads_it() {
    let (own, founded) = founded();
    let vault = founded.membership.vault();
    let read = Membership::from_bytes(vault, all_bytes(&founded.membership)).unwrap();
    assert_eq!(read.role(&own.id()), Some(Role::Owner));
    assert_eq!(read.heads(), founded.membership.heads());
    assert_eq!(read.recovery(), Some(&founded.recovery.public()));
    assert_eq!(read.created_ms(), Some(1_000));
    let keyring = read.keyring(SpaceId::HOME, own.opener()).unwrap();
    assert_eq!(keyring.to_bytes(), founded.keyring.to_bytes());
    assert_eq!(
        read.device_name(&own.id(), &keyring).as_deref(),
        Some("laptop")
    );
    assert_eq!(
        read.writable_epoch(SpaceId::HOME),
        Some(keyring.current().id())
    );
}

#[test]
fn an_admitted_device_opens_its_seals_and_everyone_reads_its_name() {
    let (own, mut founded) = founded();
    let phone = Own::new(2);
    let (membership, keyring) = (&mut founded.membership, &founded.keyring);
    let grant = admission(membership, keyring, &own, &phone, Role::Member, "phone").unwrap();
    assert_eq!(
        membership.insert_bytes(grant.bytes()),
        Ok(Inserted::Accepted(vec![grant.id()]))
    );
    assert_eq!(membership.insert(grant), Ok(Inserted::Duplicate));

    let read = Membership::from_bytes(membership.vault(), all_bytes(membership)).unwrap();
    let keys = read.keyring(SpaceId::HOME, phone.opener()).unwrap();
    assert_eq!(keys.to_bytes(), keyring.to_bytes());
    assert_eq!(
        read.device_name(&phone.id(), &keys).as_deref(),
        Some("phone")
    );
    assert_eq!(
        read.writable_epoch(SpaceId::HOME),
        Some(keyring.current().id())
    );
    let device = &read.devices()[&phone.id()];
    assert_eq!((device.role, device.admitted_ms), (Role::Member, 2_000));
    assert_eq!(device.admitted_by, own.id());
}

#[test]
fn a_relay_and_a_stranger_get_no_key() {
    let (own, mut founded) = founded();
    let host = Own::new(2);
    let grant = admission(
        &founded.membership,
        &founded.keyring,
        &own,
        &host,
        Role::Relay,
        "host",
    );
    founded.membership.insert(grant.unwrap()).unwrap();
    for nobody in [host, Own::new(3)] {
        assert_eq!(
            founded
                .membership
                .keyring(SpaceId::HOME, nobody.opener())
                .unwrap_err(),
            GrantError::NoKey(SpaceId::HOME)
        );
    }
    // A relay is no reader, so its admission leaves the epoch as it was.
    assert!(founded.membership.writable_epoch(SpaceId::HOME).is_some());
}

#[test]
fn a_rotation_reaches_all_members_and_newcomers_read_older_epochs() {
    let (own, mut founded) = founded();
    let (phone, tablet) = (Own::new(2), Own::new(3));
    let membership = &mut founded.membership;
    let mut keyring = founded.keyring.clone();
    let grant = admission(membership, &keyring, &own, &phone, Role::Owner, "phone").unwrap();
    membership.insert(grant).unwrap();
    for seed in 10..13 {
        let (grant, key) = membership
            .rotate(&phone.key, &keyring, &mut rng(seed))
            .unwrap();
        membership.insert(grant).unwrap();
        keyring.add(key.clone());
        assert!(keyring.write_under(key.id()));
    }
    let grant = admission(
        membership,
        &keyring,
        &phone,
        &tablet,
        Role::Reader,
        "tablet",
    )
    .unwrap();
    membership.insert(grant).unwrap();

    let words = founded.recovery.words();
    let recovery = RecoveryKey::from_words(&words).unwrap();
    let openers = [
        own.opener(),
        phone.opener(),
        tablet.opener(),
        Opener::Recovery(&recovery),
    ];
    for opener in openers {
        let opened = membership.keyring(SpaceId::HOME, opener).unwrap();
        assert_eq!(opened.to_bytes(), keyring.to_bytes(), "{opener:?}");
    }
    assert_eq!(epoch_ids(&keyring).len(), 4);
}

#[test]
fn concurrent_admission_and_rotation_leave_an_epoch_that_not_all_can_read_until_an_owner_rotates() {
    let (own, mut founded) = founded();
    let phone = Own::new(2);
    let membership = &mut founded.membership;
    let mut keyring = founded.keyring.clone();
    let admit = admission(membership, &keyring, &own, &phone, Role::Member, "phone").unwrap();
    let (rotate, key) = membership.rotate(&own.key, &keyring, &mut rng(9)).unwrap();
    membership.insert(admit).unwrap();
    membership.insert(rotate).unwrap();
    keyring.add(key);
    assert_eq!(membership.heads().len(), 2);
    // The older epoch reaches both, so it is the one to go on under.
    assert_eq!(
        membership.writable_epoch(SpaceId::HOME),
        Some(founded.keyring.current().id())
    );
    let opened = membership.keyring(SpaceId::HOME, phone.opener()).unwrap();
    assert_eq!(epoch_ids(&opened), epoch_ids(&founded.keyring));

    let tablet = Own::new(3);
    let grant = admission(membership, &keyring, &own, &tablet, Role::Member, "tablet").unwrap();
    membership.insert(grant).unwrap();
    // Sealed under the newest epoch, the tablet reads both; the phone reads the first only. So one still goes on under
    // that, until an owner rotates.
    assert_eq!(
        membership.writable_epoch(SpaceId::HOME),
        Some(founded.keyring.current().id())
    );
    assert!(membership.rotation_due(&keyring));
    let (rotate, key) = membership.rotate(&own.key, &keyring, &mut rng(10)).unwrap();
    membership.insert(rotate).unwrap();
    assert_eq!(membership.writable_epoch(SpaceId::HOME), Some(key.id()));
    assert!(!membership.rotation_due(&keyring));
    let opened = membership.keyring(SpaceId::HOME, phone.opener()).unwrap();
    assert_eq!(opened.current().id(), key.id());
    assert_eq!(opened.epochs().count(), 3);
}

#[test]
fn a_seal_that_holds_another_key_is_found_out() {
    let (own, founded) = founded();
    let new = Own::new(2);
    let other = Keyring::new(
        SpaceId::HOME,
        founded.keyring.secret().clone(),
        crate::keys::EpochKey::from_secret(&[9; 32]),
    );
    let honest = admission(
        &founded.membership,
        &founded.keyring,
        &own,
        &new,
        Role::Member,
        "n",
    );
    let mut grant = honest.unwrap().value().clone();
    let GrantBody::Admit { seals, .. } = &mut grant.body else {
        unreachable!("it is an admission")
    };
    let promised = seals[0].epoch;
    seals[0] = Seal {
        epoch: promised,
        ..Seal::new(
            seals[0].recipient,
            &new.sealing.public(),
            SpaceId::HOME,
            other.current(),
            other.secret(),
            &mut rng(4),
        )
    };
    let mut membership = founded.membership;
    membership
        .insert(SignedGrant::sign(grant, &own.key).unwrap())
        .unwrap();
    assert_eq!(
        membership.keyring(SpaceId::HOME, new.opener()).unwrap_err(),
        GrantError::BadSeal(promised)
    );
}

#[test]
fn names_keep_their_bounds_and_hide_their_length() {
    let (own, founded) = founded();
    let key = founded.keyring.current();
    let sealed = |name: &str| SealedName::new(name, &own.id(), key, &mut rng(5));
    let longest = "n".repeat(DEVICE_NAME_MAX_LEN);
    for name in ["", "a", "Küche", longest.as_str()] {
        let sealed = sealed(name).unwrap();
        assert_eq!(
            sealed.open(&own.id(), &founded.keyring).as_deref(),
            Ok(name)
        );
        assert_eq!(
            sealed.open(&Own::new(2).id(), &founded.keyring),
            Err(GrantError::BadName)
        );
    }
    assert_eq!(
        sealed("").unwrap().sealed.len(),
        sealed("my old laptop").unwrap().sealed.len()
    );
    assert_eq!(
        sealed(&"n".repeat(DEVICE_NAME_MAX_LEN + 1)),
        Err(GrantError::NameTooLong(DEVICE_NAME_MAX_LEN + 1))
    );
    assert!(sealed(&"n".repeat(300)).is_err());
}

#[test]
fn a_peer_is_given_exactly_what_it_lacks_parents_first() {
    let (all, grants) = branched();
    for known in 0..=grants.len() {
        let mut peer = Membership::new(all.vault());
        for grant in &grants[..known] {
            peer.insert(grant.clone()).unwrap();
        }
        let lacking = all.missing(&peer.heads());
        assert_eq!(lacking.len(), grants.len() - known);
        for grant in lacking {
            assert!(matches!(
                peer.insert(grant.clone()),
                Ok(Inserted::Accepted(_))
            ));
        }
        assert_eq!(peer.heads(), all.heads());
        assert!(peer.knows(&all.heads()));
    }
    assert_eq!(all.missing(&[Hash([7; 32])]).len(), grants.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_order_of_arrival_reads_the_same(
        order in Just((0..branched().1.len()).collect::<Vec<_>>()).prop_shuffle(),
        twice: prop::sample::Index,
    ) {
        let (all, grants) = branched();
        let mut membership = Membership::new(all.vault());
        for n in &order {
            membership.insert(grants[*n].clone()).unwrap();
        }
        let again = grants[twice.index(grants.len())].clone();
        prop_assert_eq!(membership.insert(again), Ok(Inserted::Duplicate));
        prop_assert_eq!(membership.waiting(), 0);
        prop_assert_eq!(membership.ids(), all.ids());
        prop_assert_eq!(membership.heads(), all.heads());
        prop_assert_eq!(membership.devices(), all.devices());
        prop_assert_eq!(membership.newest_epochs(SpaceId::HOME), all.newest_epochs(SpaceId::HOME));
        prop_assert_eq!(membership.writable_epoch(SpaceId::HOME), all.writable_epoch(SpaceId::HOME));
        let shuffled = order.iter().map(|n| grants[*n].bytes());
        let read = Membership::from_bytes(all.vault(), shuffled).unwrap();
        prop_assert_eq!(read.ids(), all.ids());
    }
}
