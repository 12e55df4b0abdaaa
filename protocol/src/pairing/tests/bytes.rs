//! Frozen bytes of pairing, and what its decoders do with foreign ones.

use super::*;
use crate::pairing::proof::{Keys, Spake, Transcript};
use proptest::prelude::*;

fn hex_of(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

#[test]
fn frozen_messages() {
    for (message, frozen) in [
        (ToInviter::LookFor { nameplate: 42 }.encode(), "002a"),
        (
            ToInviter::Start {
                versions: vec![1],
                nonce: [0xaa; 32],
                method: crate::pairing::wire::Method::Link,
            }
            .encode(),
            "010101aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa00",
        ),
        (
            ToJoiner::Challenge {
                version: 1,
                nonce: [0xbb; 32],
                spake: Vec::new(),
            }
            .encode(),
            "0101bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb00",
        ),
        (not_inviting(), "0401"),
    ] {
        assert_eq!(hex_of(&message), frozen);
    }
}

#[test]
fn frozen_proofs() {
    let keys = Keys::new(
        &[1; 32],
        &Transcript {
            version: 1,
            joiner: DeviceId([2; 32]),
            inviter: DeviceId([3; 32]),
            invitation: Some((VaultId([4; 32]), 5)),
            start: b"start",
            challenge: b"challenge",
        },
    );
    let proofs = [
        keys.joiner_proof(),
        keys.inviter_proof(),
        keys.welcome_mac(b"request", b"welcome"),
    ];
    assert_eq!(
        proofs.map(|mac| hex_of(&mac)),
        [
            "8d4b44708b17ada2c4a71f6d83ecdc6a0b6ee2808ad582b0244d8e15f8edcb0a",
            "d784f8c6fde19d587ed4738c557b20d0da0718ece426aa2550d489d456d59d8e",
            "6973ec3b2e0e7131abd94e683526f583260d1bc9e61f87a656fd62ae93422ea2",
        ]
        .map(String::from)
    );
}

/// The crate that does SPAKE2 is a pre-release: its messages and keys must not change below us.
#[test]
fn frozen_spake2_exchange() {
    let (joiner, a) = Spake::joiner(&code(), device(2), device(1), &mut rng(1));
    let (inviter, b) = Spake::inviter(&code(), device(2), device(1), &mut rng(2));
    let key = joiner.finish(&b).unwrap();
    assert_eq!(inviter.finish(&a).as_deref(), Some(&*key));
    assert_eq!(
        [&a[..], &b, &key[..]].map(hex_of),
        [
            "411946b93a58d8885dab334be70808188c1bd822130110c358f0ed373fecbd1aa0",
            "4205c4276379e44cb101369a4d66db2484f59c58e43696a7c653683b048a16feb4",
            "0688ecf68c3045180c6619ea43cd901f30b1c8819cc55bbf9320790dc78106fc",
        ]
        .map(String::from)
    );
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(message) = ToInviter::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes.clone());
        }
        if let Ok(message) = ToJoiner::decode(&bytes, MAX_TO_INVITER) {
            prop_assert_eq!(message.encode(), bytes.clone());
        }
        if let Ok(welcome) = Welcome::decode(&bytes) {
            prop_assert_eq!(welcome.encode(), Some(bytes.clone()));
        }
        inviter().on_message(device(3), &bytes, NOW, &mut rng(1));
        by_code(2, code()).0.on_message(&bytes, &mut rng(1));
    }
}
