//! Who is out, and what of theirs still counts: every case of DESIGN's concurrent decisions by name.

use super::*;
use crate::identity::WriterId;
use crate::recovery::RecoveryKey;

/// A vault whose devices 1, 2, 3 are owners and 4 is a member; each of them knows all of it.
struct Vault {
    all: Membership,
    keyring: Keyring,
    recovery: RecoveryKey,
    devices: Vec<Own>,
}

fn vault() -> Vault {
    let (own, founded) = founded();
    let mut vault = Vault {
        all: founded.membership,
        keyring: founded.keyring,
        recovery: founded.recovery,
        devices: vec![own],
    };
    for (n, role) in [(2, Role::Owner), (3, Role::Owner), (4, Role::Member)] {
        let new = Own::new(n);
        let grant = admission(
            &vault.all,
            &vault.keyring,
            &vault.devices[0],
            &new,
            role,
            "n",
        );
        vault.all.insert(grant.unwrap()).unwrap();
        vault.devices.push(new);
    }
    vault
}

impl Vault {
    fn id(&self, n: usize) -> DeviceId {
        self.devices[n - 1].id()
    }

    fn key(&self, n: usize) -> &DeviceKey {
        &self.devices[n - 1].key
    }

    /// `by` revokes `device`, knowing what `knows` does.
    fn revocation(&self, knows: &Membership, by: usize, device: usize) -> SignedGrant {
        let (key, device) = (self.key(by), self.id(device));
        knows.revoke(key, device, vec![], &[], 5_000).unwrap()
    }

    fn admit(&self, knows: &Membership, by: usize, new: &Own, role: Role) -> SignedGrant {
        admission(
            knows,
            &self.keyring,
            &self.devices[by - 1],
            new,
            role,
            "new",
        )
        .unwrap()
    }

    fn standing(&self, membership: &Membership, n: usize) -> &'static str {
        standing(membership, &self.id(n))
    }
}

fn standing(membership: &Membership, id: &DeviceId) -> &'static str {
    match (membership.role(id), membership.former().get(id)) {
        (Some(_), None) => "in",
        (None, Some(former)) if former.outs.is_empty() => "void",
        (None, Some(former)) if former.is_undecided() => "undecided",
        (None, Some(_)) => "out",
        (None, None) => "unknown",
        (Some(_), Some(_)) => panic!("nobody is in and out"),
    }
}

fn with(membership: &Membership, grants: &[&SignedGrant]) -> Membership {
    let mut membership = membership.clone();
    for grant in grants {
        membership.insert((*grant).clone()).unwrap();
    }
    membership
}

fn cutoff(device: DeviceId, seq: u64) -> Cutoff {
    Cutoff {
        writer: WriterId {
            device,
            incarnation: 1,
        },
        seq,
        header: Hash([7; 32]),
    }
}

#[test]
fn a_revoked_device_is_out_and_only_what_the_cutoff_names_of_its_log_counts() {
    let vault = vault();
    let phone = vault.id(4);
    let cutoffs = vec![cutoff(phone, 12)];
    let grant = vault
        .all
        .revoke(vault.key(1), phone, cutoffs, &[], 5_000)
        .unwrap();
    let after = with(&vault.all, &[&grant]);
    assert_eq!(vault.standing(&after, 4), "out");
    let former = &after.former()[&phone];
    assert_eq!(former.outs[0].by, vault.id(1));
    assert_eq!(
        (former.outs[0].at_ms, former.outs[0].contested),
        (5_000, false)
    );
    let writer = cutoff(phone, 1).writer;
    let closed = |upto| Writing::Closed {
        upto,
        says_what_it_saw: false,
    };
    assert_eq!(after.writing(&writer), closed(Some((12, Hash([7; 32])))));
    let copy = WriterId {
        incarnation: 2,
        ..writer
    };
    assert_eq!(after.writing(&copy), closed(None));
    assert!(after.has_heard(&after.parents(), &phone));
    assert!(!after.has_heard(&vault.all.parents(), &phone));
    // Its name is still known, for whoever asks what became of it.
    assert_eq!(
        after.device_name(&phone, &vault.keyring).as_deref(),
        Some("n")
    );
}

#[test]
fn nothing_is_sealed_for_a_revoked_device_and_nothing_written_before_an_owner_rotates() {
    let vault = vault();
    let grant = vault.revocation(&vault.all, 1, 4);
    let mut after = with(&vault.all, &[&grant]);
    assert_eq!(after.writable_epoch(SpaceId::HOME), None);
    assert_eq!(after.sealing_epoch(SpaceId::HOME), None);
    let (rotation, key) = after
        .rotate(vault.key(2), &vault.keyring, &mut rng(40))
        .unwrap();
    after.insert(rotation).unwrap();
    assert_eq!(after.writable_epoch(SpaceId::HOME), Some(key.id()));
    let ex = after
        .keyring(SpaceId::HOME, vault.devices[3].opener())
        .unwrap();
    assert!(ex.epoch(&key.id()).is_none(), "the key reaches who is out");
    let present = after
        .keyring(SpaceId::HOME, vault.devices[2].opener())
        .unwrap();
    assert_eq!(present.current().id(), key.id());
}

#[test]
fn a_newcomer_whom_an_epoch_does_not_reach_yet_keeps_nobody_from_writing() {
    let vault = vault();
    let revoke = vault.revocation(&vault.all, 1, 4);
    let mut side = with(&vault.all, &[&revoke]);
    let (rotate, key) = side
        .rotate(vault.key(1), &vault.keyring, &mut rng(41))
        .unwrap();
    side.insert(rotate).unwrap();
    let new = Own::new(9);
    let admit = vault.admit(&vault.all, 2, &new, Role::Member);
    let merged = with(&side, &[&admit]);
    assert_eq!(merged.writable_epoch(SpaceId::HOME), None);
    assert_eq!(merged.sealing_epoch(SpaceId::HOME), Some(key.id()));
}

#[test]
fn two_owners_who_revoke_each_other_are_both_out_until_a_third_decides() {
    let vault = vault();
    let (one, two) = (
        vault.revocation(&vault.all, 1, 2),
        vault.revocation(&vault.all, 2, 1),
    );
    let both = with(&vault.all, &[&one, &two]);
    assert_eq!(vault.standing(&both, 1), "undecided");
    assert_eq!(vault.standing(&both, 2), "undecided");
    assert_eq!(both.fate(&one.id()), Some(Fate::Contested));
    for by in [1, 2] {
        let refused = both.revoke(vault.key(by), vault.id(4), vec![], &[], 0);
        assert_eq!(refused.unwrap_err(), GrantError::Revoked(vault.id(by)));
    }
    let decided = with(&both, &[&vault.revocation(&both, 3, 2)]);
    assert_eq!(vault.standing(&decided, 1), "in");
    assert_eq!(vault.standing(&decided, 2), "out");
    assert_eq!(decided.fate(&two.id()), Some(Fate::Void));
}

#[test]
fn where_no_owner_is_left_the_recovery_key_decides() {
    let vault = vault();
    let mut all = with(&vault.all, &[&vault.revocation(&vault.all, 1, 3)]);
    let (one, two) = (vault.revocation(&all, 1, 2), vault.revocation(&all, 2, 1));
    all = with(&all, &[&one, &two]);
    let words = vault.recovery.signing();
    let decision = all.revoke(&words, vault.id(1), vec![], &[], 0).unwrap();
    assert_eq!(decision.value().version, 2);
    all.insert(decision).unwrap();
    assert_eq!(vault.standing(&all, 1), "out");
    assert_eq!(vault.standing(&all, 2), "in");
    // What the first had done while nobody doubted it still holds.
    assert_eq!(vault.standing(&all, 3), "out");
}

#[test]
fn what_a_thief_signs_on_old_heads_is_void_with_all_that_follows() {
    let vault = vault();
    let revoked = with(&vault.all, &[&vault.revocation(&vault.all, 1, 2)]);
    // The thief has device 2 and knows nothing of that, or says so.
    let puppet = Own::new(9);
    let mut thiefs = vault.all.clone();
    let admit = vault.admit(&thiefs, 2, &puppet, Role::Owner);
    thiefs.insert(admit.clone()).unwrap();
    let second = Own::new(10);
    let follow = admission(&thiefs, &vault.keyring, &puppet, &second, Role::Owner, "x").unwrap();
    thiefs.insert(follow.clone()).unwrap();
    let third = vault.revocation(&thiefs, 2, 3);
    let all = with(&revoked, &[&admit, &follow, &third]);
    for void in [&admit, &follow, &third] {
        assert_eq!(all.fate(&void.id()), Some(Fate::Void));
    }
    assert_eq!(standing(&all, &puppet.id()), "void");
    assert_eq!(standing(&all, &second.id()), "void");
    assert_eq!(vault.standing(&all, 3), "in");
    // What honest devices sign next does not build on it.
    assert_eq!(all.parents(), revoked.parents());
    // A device that was honest all the same can be admitted by somebody else.
    let again = vault.admit(&all, 3, &puppet, Role::Member);
    assert_eq!(standing(&with(&all, &[&again]), &puppet.id()), "in");
}

#[test]
fn a_thief_cannot_have_its_revoker_put_out_by_a_puppet_alone() {
    let vault = vault();
    let revocation = vault.revocation(&vault.all, 1, 2);
    let puppet = Own::new(9);
    let mut thiefs = vault.all.clone();
    let admit = vault.admit(&thiefs, 2, &puppet, Role::Owner);
    thiefs.insert(admit.clone()).unwrap();
    let counter = thiefs
        .revoke(&puppet.key, vault.id(1), vec![], &[], 0)
        .unwrap();
    let all = with(&vault.all, &[&revocation, &admit, &counter]);
    // They undo each other: the thief is out in any case, and the third owner stays to decide.
    assert_eq!(vault.standing(&all, 2), "undecided");
    assert_eq!(vault.standing(&all, 1), "undecided");
    assert_eq!(vault.standing(&all, 3), "in");
    let decided = with(&all, &[&vault.revocation(&all, 3, 2)]);
    assert_eq!(vault.standing(&decided, 2), "out");
    assert_eq!(standing(&decided, &puppet.id()), "void");
    assert_eq!(vault.standing(&decided, 1), "in");
}

#[test]
fn who_admits_while_its_right_is_taken_admits_nobody() {
    let vault = vault();
    let new = Own::new(9);
    let admit = vault.admit(&vault.all, 2, &new, Role::Member);
    for act in [
        vault.revocation(&vault.all, 1, 2),
        vault
            .all
            .change_role(vault.key(1), vault.id(2), Role::Member, vec![], 0)
            .unwrap(),
    ] {
        let all = with(&vault.all, &[&act, &admit]);
        assert_eq!(standing(&all, &new.id()), "void");
        // Had the revoker seen it, it would count.
        let seen = with(&vault.all, &[&admit]);
        let later = with(&seen, &[&vault.revocation(&seen, 1, 2)]);
        assert_eq!(standing(&later, &new.id()), "in");
    }
}

#[test]
fn roles_change_and_the_lesser_of_two_concurrent_changes_holds() {
    let vault = vault();
    let four = vault.id(4);
    let change = |by: usize, role: Role| {
        vault
            .all
            .change_role(vault.key(by), four, role, vec![cutoff(four, 3)], 0)
            .unwrap()
    };
    let (up, down) = (change(1, Role::Owner), change(2, Role::Reader));
    assert_eq!(with(&vault.all, &[&up]).role(&four), Some(Role::Owner));
    let all = with(&vault.all, &[&up, &down]);
    assert_eq!(all.role(&four), Some(Role::Reader));
    assert_eq!(
        all.writing(&cutoff(four, 3).writer),
        Writing::Closed {
            upto: Some((3, Hash([7; 32]))),
            says_what_it_saw: true
        }
    );
    // A later change that knew both holds, and opens the log again.
    let again = all
        .change_role(vault.key(3), four, Role::Owner, vec![], 0)
        .unwrap();
    let mut all = with(&all, &[&again]);
    assert_eq!(all.role(&four), Some(Role::Owner));
    assert_eq!(all.writing(&cutoff(four, 3).writer), Writing::Open);
    // And what it signs as an owner counts, although it was none for a while.
    let new = Own::new(9);
    all.insert(vault.admit(&all, 4, &new, Role::Member))
        .unwrap();
    assert_eq!(standing(&all, &new.id()), "in");
    // A renewed seal does not need a rotation: roles that hold keys differ in what they may do only.
    assert!(all.writable_epoch(SpaceId::HOME).is_some());
}

#[test]
fn keys_that_a_void_grant_began_are_still_read() {
    let vault = vault();
    let (rotation, key) = vault
        .all
        .rotate(vault.key(2), &vault.keyring, &mut rng(50))
        .unwrap();
    let revocation = vault.revocation(&vault.all, 1, 2);
    let all = with(&vault.all, &[&rotation, &revocation]);
    assert_eq!(all.fate(&rotation.id()), Some(Fate::Void));
    // Others wrote under it before they learned.
    let keyring = all
        .keyring(SpaceId::HOME, vault.devices[0].opener())
        .unwrap();
    assert!(keyring.epoch(&key.id()).is_some());
    // So who comes later must be able to read it, too.
    let new = Own::new(9);
    let (next, fresh) = all.rotate(vault.key(1), &keyring, &mut rng(51)).unwrap();
    let mut all = with(&all, &[&next]);
    let keyring = all
        .keyring(SpaceId::HOME, vault.devices[0].opener())
        .unwrap();
    let admit = admission(&all, &keyring, &vault.devices[0], &new, Role::Reader, "n").unwrap();
    all.insert(admit).unwrap();
    let keyring = all.keyring(SpaceId::HOME, new.opener()).unwrap();
    assert!(keyring.epoch(&key.id()).is_some());
    assert_eq!(keyring.current().id(), fresh.id());
}

#[test]
fn who_is_out_cannot_spoil_an_epoch_by_beginning_it_as_well() {
    let vault = vault();
    let mut all = with(&vault.all, &[&vault.revocation(&vault.all, 1, 2)]);
    let (rotation, key) = all
        .rotate(vault.key(1), &vault.keyring, &mut rng(52))
        .unwrap();
    all.insert(rotation).unwrap();
    let (theirs, _) = vault
        .all
        .rotate(vault.key(2), &vault.keyring, &mut rng(53))
        .unwrap();
    let mut theirs = theirs.value().clone();
    let GrantBody::Epoch(epoch) = &mut theirs.body else {
        unreachable!("it is an epoch")
    };
    epoch.epoch = key.id();
    for seal in &mut epoch.seals {
        seal.epoch = key.id();
    }
    all.insert(SignedGrant::sign(theirs, vault.key(2)).unwrap())
        .unwrap();
    assert_eq!(all.writable_epoch(SpaceId::HOME), Some(key.id()));
    let keyring = all
        .keyring(SpaceId::HOME, vault.devices[2].opener())
        .unwrap();
    assert_eq!(keyring.current().id(), key.id());
}

#[test]
fn the_recovery_key_is_replaced_by_itself_at_once_and_by_an_owner_unless_it_contests() {
    let vault = vault();
    let mut all = vault.all.clone();
    let old = &vault.recovery;
    let fresh = RecoveryKey::generate(&mut rng(60));
    let by_owner = all
        .replace_recovery(vault.key(2), fresh.public(), 0)
        .unwrap();
    all.insert(by_owner.clone()).unwrap();
    assert_eq!(all.recovery(), Some(&fresh.public()));
    // No epoch was sealed to the new key yet.
    assert_eq!(all.sealing_epoch(SpaceId::HOME), None);
    let (rotation, _) = all
        .rotate(vault.key(1), &vault.keyring, &mut rng(61))
        .unwrap();
    all.insert(rotation).unwrap();
    assert!(all.writable_epoch(SpaceId::HOME).is_some());
    assert!(all.keyring(SpaceId::HOME, Opener::Recovery(&fresh)).is_ok());

    // It was a thief: the old words say so.
    let contest = all
        .revoke(&old.signing(), vault.id(2), vec![], &[by_owner.id()], 0)
        .unwrap();
    let mut contested = with(&all, &[&contest]);
    assert_eq!(contested.recovery(), Some(&old.public()));
    assert_eq!(contested.sealing_epoch(SpaceId::HOME), None);

    // The old key replaced itself: it signs nothing more, on old heads neither.
    let newest = RecoveryKey::generate(&mut rng(62));
    let stale = contested
        .revoke(&old.signing(), vault.id(3), vec![], &[], 0)
        .unwrap();
    let by_key = contested
        .replace_recovery(&old.signing(), newest.public(), 0)
        .unwrap();
    contested.insert(by_key).unwrap();
    contested.insert(stale.clone()).unwrap();
    assert_eq!(contested.recovery(), Some(&newest.public()));
    assert_eq!(contested.fate(&stale.id()), Some(Fate::Void));
    assert_eq!(
        contested
            .revoke(&old.signing(), vault.id(3), vec![], &[], 0)
            .unwrap_err(),
        GrantError::UnknownAuthor(old.signing().id())
    );
}

#[test]
fn what_takes_away_is_refused_where_it_does_not_fit() {
    let vault = vault();
    let (all, four) = (&vault.all, vault.id(4));
    let body = |device, cutoffs, undone| {
        GrantBody::Revoke(Revocation {
            device,
            cutoffs,
            undone,
            keeper: None,
            created_ms: 0,
        })
    };
    let change = |device, role, cutoffs| {
        GrantBody::Role(RoleChange {
            device,
            role,
            cutoffs,
            created_ms: 0,
        })
    };
    let theirs = cutoff(vault.id(2), 1);
    let ours = cutoff(four, 1);
    let zero = cutoff(four, 0);
    let cases = [
        (
            1,
            body(vault.id(1), vec![], vec![]),
            GrantError::Oneself(vault.id(1)),
        ),
        (
            4,
            body(vault.id(1), vec![], vec![]),
            GrantError::NotOwner(four),
        ),
        (1, body(four, vec![theirs], vec![]), GrantError::BadCutoffs),
        (
            1,
            body(four, vec![ours, ours], vec![]),
            GrantError::BadCutoffs,
        ),
        (1, body(four, vec![zero], vec![]), GrantError::BadCutoffs),
        (
            1,
            body(four, vec![], vec![all.heads()[0]]),
            GrantError::BadUndone,
        ),
        (
            1,
            body(vault.id(1), vec![], vec![Hash(all.vault().0)]),
            GrantError::Oneself(vault.id(1)),
        ),
        (
            2,
            body(vault.id(1), vec![], vec![Hash(all.vault().0)]),
            GrantError::BadUndone,
        ),
        (
            1,
            change(four, Role::Member, vec![]),
            GrantError::BadRole(four),
        ),
        (
            1,
            change(four, Role::Relay, vec![]),
            GrantError::BadRole(four),
        ),
        (
            1,
            change(four, Role::Owner, vec![ours]),
            GrantError::BadCutoffs,
        ),
        (
            1,
            change(vault.id(1), Role::Reader, vec![]),
            GrantError::Oneself(vault.id(1)),
        ),
        (
            1,
            GrantBody::Replace {
                recovery: vault.recovery.public(),
                created_ms: 0,
            },
            GrantError::BadRecovery,
        ),
    ];
    for (n, (by, body, refusal)) in cases.into_iter().enumerate() {
        let grant = forged(all, &vault.devices[by - 1], body);
        assert_eq!(all.clone().insert(grant), Err(refusal), "case {n}");
    }
    // A version that it is not.
    let honest = vault.revocation(all, 1, 4);
    let older = Grant {
        version: 1,
        ..honest.value().clone()
    };
    let older = SignedGrant::sign(older, vault.key(1)).unwrap();
    assert_eq!(all.clone().insert(older), Err(GrantError::WrongVersion));
    // Who is out for good does not come back, and is not put out again.
    let after = with(all, &[&honest]);
    assert_eq!(
        admission(
            &after,
            &vault.keyring,
            &vault.devices[0],
            &vault.devices[3],
            Role::Member,
            "n"
        )
        .unwrap_err(),
        GrantError::Revoked(four)
    );
    assert_eq!(
        after
            .revoke(vault.key(1), four, vec![], &[], 0)
            .unwrap_err(),
        GrantError::Revoked(four)
    );
}

#[test]
fn devices_that_are_out_leave_room_for_those_who_are_in() {
    let vault = vault();
    let mut all = with(&vault.all, &[&vault.revocation(&vault.all, 1, 2)]);
    let on_old_heads = |n: usize| {
        let role = Role::Owner;
        let four = vault.id(4);
        let change = vault
            .all
            .change_role(vault.key(2), four, role, vec![], n as u64);
        change.unwrap()
    };
    for n in 0..MAX_FROM_FORMER {
        all.insert(on_old_heads(n)).unwrap();
    }
    let refused = all.insert(on_old_heads(MAX_FROM_FORMER));
    assert_eq!(refused, Err(GrantError::TooManyVoid));
    assert_eq!(all.role(&vault.id(4)), Some(Role::Member));
    // The others go on, and name none of that.
    let next = vault.revocation(&all, 3, 4);
    assert_eq!(next.value().parents.len(), 1);
    all.insert(next).unwrap();
    assert_eq!(vault.standing(&all, 4), "out");
    let stored = all_bytes(&all);
    let read = Membership::from_bytes(all.vault(), &stored).unwrap();
    assert_eq!(read.devices(), all.devices());
}
