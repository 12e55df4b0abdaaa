//! Strangers, impostors, replays and damage: none of them is admitted or learns anything.

use super::*;
use proptest::prelude::*;

#[test]
fn one_wrong_guess_makes_a_typed_code_void() {
    let mut inviter = inviter();
    let guess = meet(&mut inviter, 3, by_code(3, wrong_code()));
    assert_eq!(guess.joiner_failed(), Some(PairingError::WrongSecret));
    assert_eq!(
        guess.inviter_failed(),
        Some((PairingError::WrongSecret, true))
    );
    let right = meet(&mut inviter, 2, by_code(2, code()));
    assert_eq!(right.joiner_failed(), Some(PairingError::NotHere));
    // The link is not concerned.
    let link = meet(&mut inviter, 2, by_link(2, link()));
    assert!(link.joined().is_some());
}

#[test]
fn two_guesses_at_once_are_one_guess() {
    let mut inviter = inviter();
    let mut rng = rng(3);
    let mut proofs = Vec::new();
    for (me, code) in [(3, wrong_code()), (2, code())] {
        let (mut joiner, mut steps) = by_code(me, code);
        for _ in 0..2 {
            let Some(JoinerStep::Send(bytes)) = steps.first() else {
                panic!("{steps:?}");
            };
            let answer = inviter.on_message(device(me), bytes, NOW, &mut rng);
            let InviterStep::Send { bytes, .. } = &answer[0] else {
                panic!("{answer:?}");
            };
            steps = joiner.on_message(bytes, &mut rng);
        }
        let Some(JoinerStep::Send(proof)) = steps.pop() else {
            panic!("{steps:?}");
        };
        proofs.push((device(me), proof));
    }
    for (me, proof) in proofs {
        let steps = inviter.on_message(me, &proof, NOW, &mut rng);
        assert!(
            matches!(steps[1], InviterStep::Failed { .. }),
            "{me:?}: {steps:?}"
        );
    }
}

#[test]
fn a_code_that_is_not_shown_here_is_not_a_guess() {
    let mut inviter = inviter();
    let other = (100..)
        .map(|seed| ShortCode::generate(&mut rng(seed)))
        .find(|other| other.nameplate() != code().nameplate())
        .unwrap();
    let attempt = meet(&mut inviter, 3, by_code(3, other));
    assert_eq!(attempt.joiner_failed(), Some(PairingError::NotHere));
    assert!(inviter.code_is_open(NOW));
}

#[test]
fn only_a_device_that_says_here_counts_as_tried() {
    for (answer, here) in [(true, true), (false, false)] {
        let (mut joiner, _) = by_code(2, code());
        joiner.on_message(&ToJoiner::Here { yes: answer }.encode(), &mut rng(1));
        joiner.disconnected();
        assert_eq!(joiner.was_here(), here);
    }
}

#[test]
fn nameplates_cannot_be_tried_one_after_the_other() {
    let mut inviter = inviter();
    let mut rng = rng(4);
    let mut yes = 0;
    for nameplate in (0..100).filter(|n| *n != code().nameplate()) {
        inviter.on_message(
            device(3),
            &ToInviter::LookFor { nameplate }.encode(),
            NOW,
            &mut rng,
        );
    }
    let look = ToInviter::LookFor {
        nameplate: code().nameplate(),
    };
    for step in inviter.on_message(device(3), &look.encode(), NOW, &mut rng) {
        if let InviterStep::Send { bytes, .. } = step {
            yes += u8::from(bytes == ToJoiner::Here { yes: true }.encode());
        }
    }
    assert_eq!(yes, 0);
}

#[test]
fn a_stranger_learns_nothing() {
    let mut stranger_link = link();
    stranger_link.secret = [0; 32];
    for (attempt, start) in [
        (by_link(3, stranger_link), true),
        (by_code(3, wrong_code()), true),
    ] {
        let attempt = run(&mut inviter(), device(3), attempt, NOW, start, honest);
        assert!(attempt.joiner_failed().is_some());
        assert!(!attempt.person_was_asked());
        for heard in &attempt.heard {
            assert!(heard.len() < 80, "only nonces and refusals: {heard:?}");
            assert!(!heard.windows(8).any(|w| w == &VAULT.0[..8]));
            assert!(
                !matches!(
                    ToJoiner::decode(heard, MAX_WELCOME),
                    Ok(ToJoiner::Proof { .. })
                ),
                "the inviter proves itself to nobody who has not"
            );
        }
    }
}

#[test]
fn someone_in_the_inviters_place_learns_neither_name_nor_secret() {
    // The impostor answers under its own device id, with a code of its own.
    let mut impostor = Inviter::new(device(1), None);
    impostor.offer_code(wrong_code(), NOW + CODE_LIFETIME_MS);
    let attempt = meet(&mut impostor, 2, by_code(2, code()));
    assert_eq!(attempt.joiner_failed(), Some(PairingError::WrongSecret));
    for said in &attempt.said {
        assert!(!said.windows(6).any(|w| w == b"laptop"));
    }
}

#[test]
fn an_inviter_that_cannot_prove_the_secret_is_found_out() {
    let attempt = run(
        &mut inviter(),
        device(2),
        by_link(2, link()),
        NOW,
        true,
        |to_inviter, bytes| match ToJoiner::decode(&bytes, MAX_WELCOME) {
            Ok(ToJoiner::Proof { .. }) if !to_inviter => ToJoiner::Proof { mac: [0; 32] }.encode(),
            _ => bytes,
        },
    );
    assert_eq!(attempt.joiner_failed(), Some(PairingError::WrongInviter));
}

#[test]
fn the_joiners_own_proof_sent_back_is_no_proof() {
    let mut proof = None;
    let attempt = run(
        &mut inviter(),
        device(2),
        by_link(2, link()),
        NOW,
        true,
        |to_inviter, bytes| {
            if to_inviter {
                if let Ok(ToInviter::Proof { mac }) = ToInviter::decode(&bytes) {
                    proof = Some(mac);
                }
                bytes
            } else {
                proof.map_or(bytes, |mac| ToJoiner::Proof { mac }.encode())
            }
        },
    );
    assert_eq!(attempt.joiner_failed(), Some(PairingError::WrongInviter));
}

#[test]
fn a_proof_is_bound_to_both_device_ids() {
    // What device 2 said, passed on by device 3 under its own key.
    for first in [by_link(2, link()), by_code(2, code())] {
        let attempt = meet(&mut inviter(), 3, first);
        assert_eq!(attempt.joiner_failed(), Some(PairingError::WrongSecret));
        assert!(!attempt.person_was_asked());
    }
}

#[test]
fn replayed_messages_fail() {
    let mut inviter = inviter();
    let attempt = meet(&mut inviter, 2, by_link(2, link()));
    let mut rng = rng(77);
    let mut steps = Vec::new();
    for said in &attempt.said {
        steps.extend(inviter.on_message(device(2), said, NOW, &mut rng));
    }
    assert!(
        steps
            .iter()
            .all(|step| matches!(step, InviterStep::Send { .. } | InviterStep::Failed { .. }))
    );
    assert!(
        steps
            .iter()
            .any(|step| matches!(step, InviterStep::Failed { .. }))
    );

    let (mut joiner, _) = by_link(2, link());
    let steps = joiner.on_message(&attempt.heard[1], &mut rng);
    assert_eq!(steps, [JoinerStep::Failed(PairingError::OutOfTurn)]);
}

#[test]
fn a_link_of_another_device_or_vault_is_refused() {
    let (_, steps) = Joiner::by_link(device(2), device(9), link(), &new_device("x"), &mut rng(1));
    assert_eq!(steps, [JoinerStep::Failed(PairingError::WrongDevice)]);

    let mut other = link();
    other.vault = VaultId([1; 32]);
    let attempt = meet(
        &mut Inviter::new(device(1), Some(other.clone())),
        2,
        by_link(2, other),
    );
    assert_eq!(attempt.joiner_failed(), Some(PairingError::OtherVault));
}

#[test]
fn a_later_version_is_named_as_such() {
    let steps = inviter().on_message(
        device(2),
        &ToInviter::Start {
            versions: vec![2, 3],
            nonce: [0; 32],
            method: crate::pairing::wire::Method::Link,
        }
        .encode(),
        NOW,
        &mut rng(1),
    );
    assert!(matches!(
        steps[1],
        InviterStep::Failed {
            why: PairingError::NoCommonVersion,
            ..
        }
    ));
}

#[test]
fn a_withdrawn_invitation_tells_whoever_is_waiting() {
    let mut inviter = inviter();
    let (_, steps) = by_link(2, link());
    let JoinerStep::Send(start) = &steps[0] else {
        panic!("{steps:?}");
    };
    inviter.on_message(device(2), start, NOW, &mut rng(1));
    assert_eq!(inviter.withdraw().len(), 2);
    assert!(!inviter.is_open(NOW));
}

#[test]
fn strangers_cannot_make_the_inviter_grow() {
    let mut inviter = inviter();
    let mut rng = rng(1);
    for number in 0..=255u8 {
        let start = ToInviter::Start {
            versions: vec![1],
            nonce: [number; 32],
            method: crate::pairing::wire::Method::Link,
        };
        inviter.on_message(DeviceId([number; 32]), &start.encode(), NOW, &mut rng);
    }
    let forgotten = inviter.withdraw().len() / 2;
    assert_eq!(forgotten, MAX_SESSIONS);
}

#[test]
fn names_that_would_fool_the_person_are_cleaned_or_refused() {
    let sealing = SealingKey::generate(&mut rng(5)).public();
    let cleaned = NewDevice::new("  a\u{202e}b\n\u{1b}[2Jc ", sealing.clone(), "");
    assert_eq!(cleaned.name, "ab[2Jc");
    assert_eq!(
        NewDevice::new("\u{200b}", sealing.clone(), "").name,
        "device"
    );
    assert!(NewDevice::new(&"é".repeat(200), sealing.clone(), "").is_showable());

    let raw = NewDevice {
        name: "a\nb".into(),
        sealing,
        program: String::new(),
    };
    let joiner = Joiner::by_link(device(2), device(1), link(), &raw, &mut rng(1));
    let attempt = meet(&mut inviter(), 2, joiner);
    assert!(!attempt.person_was_asked());
    assert_eq!(
        attempt.inviter_failed(),
        Some((PairingError::Malformed, false))
    );
}

#[test]
fn a_changed_request_or_welcome_is_refused() {
    for tampered in [3usize, 4] {
        let mut count = 0;
        let attempt = run(
            &mut inviter(),
            device(2),
            by_link(2, link()),
            NOW,
            true,
            |to_inviter, mut bytes| {
                count += 1;
                // Start, Challenge, Proof, Proof, Request, Welcome.
                if (tampered == 3 && to_inviter && count == 5)
                    || (tampered == 4 && !to_inviter && count == 6)
                {
                    bytes[10] ^= 1;
                }
                bytes
            },
        );
        assert!(attempt.joined().is_none());
        assert!(attempt.joiner_failed().is_some());
        assert_eq!(attempt.person_was_asked(), tampered == 4);
    }
}

proptest! {
    #[test]
    fn one_changed_bit_anywhere_never_admits_and_never_panics(
        message in 0usize..8, byte in 0usize..4096, bit in 0u8..8, with_code: bool,
    ) {
        let first = if with_code { by_code(2, code()) } else { by_link(2, link()) };
        let mut count = 0;
        let mut changed = false;
        let attempt = run(&mut inviter(), device(2), first, NOW, true, |_, mut bytes| {
            if count == message {
                let at = byte % bytes.len();
                bytes[at] ^= 1 << bit;
                changed = true;
            }
            count += 1;
            bytes
        });
        // A changed nameplate finds nobody; a changed welcome is not accepted; all else fails before.
        prop_assert!(!changed || attempt.joined().is_none());
    }
}
