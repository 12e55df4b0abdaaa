//! Bytes of rows and packs as they lie on disks since the first release: they never change meaning.

use bytes::Bytes;
use coffer_protocol::identity::{DeviceId, Hash, VaultId};
use tempfile::TempDir;

use super::super::packs::Packs;
use super::super::rows::{
    InvitationRow, PackRow, Place, VaultRow, decode, decode_released, encode, encode_released,
};
use crate::relay::store::{Invitation, StoreError, Usage};

#[test]
fn rows_of_layout_1() {
    let vault = VaultRow {
        number: 300,
        epoch: [7; 16],
        quota: 1000,
        added_ms: 5,
        usage: Usage {
            entries: 1,
            entry_bytes: 256,
            blobs: 2,
            blob_bytes: 512,
        },
        grants: 3,
        grant_bytes: 900,
        next_pack: 4,
    };
    let bytes = encode(&vault).unwrap();
    let epoch = "07".repeat(16);
    let expected = format!("01ac02{epoch}e8070501800202800403840704");
    assert_eq!(hex::encode(&bytes), expected);
    let read: VaultRow = decode("vaults", &bytes).unwrap();
    assert_eq!(
        read.record(VaultId([1; 32])),
        vault.record(VaultId([1; 32]))
    );

    let invitation = Invitation {
        id: Hash::ZERO,
        check: Bytes::from_static(&[1, 2, 3]),
        quota: 1000,
        made_ms: 5,
        expires_ms: 6,
        used: Some((VaultId([9; 32]), 7)),
    };
    let bytes = encode(&InvitationRow::new(invitation.clone())).unwrap();
    let vault = "09".repeat(32);
    let expected = format!("0103010203e807050601{vault}07");
    assert_eq!(hex::encode(&bytes), expected);
    let read: InvitationRow = decode("invitations", &bytes).unwrap();
    assert_eq!(read.invitation(Hash::ZERO), invitation);
}

#[test]
fn places_and_releases() {
    let place = Place {
        pack: 1,
        offset: 36,
        len: 8192,
    };
    assert_eq!(hex::encode(place.encode()), "000000010000002400002000");
    assert_eq!(Place::decode(&place.encode()), place);
    let pack = PackRow { len: 258, live: 3 };
    assert_eq!(hex::encode(pack.encode()), "0000010200000003");
    assert_eq!(PackRow::decode(&pack.encode()), pack);
    let by = vec![(DeviceId([1; 32]), 5), (DeviceId([2; 32]), 6)];
    let bytes = encode_released(&by);
    let (one, two) = ("01".repeat(32), "02".repeat(32));
    let expected = format!("{one}0000000000000005{two}0000000000000006");
    assert_eq!(hex::encode(&bytes), expected);
    assert_eq!(decode_released(&bytes), Ok(by));
    assert!(decode_released(&bytes[1..]).is_err());
}

#[test]
fn a_pack_is_a_run_of_blobs() {
    let folder = TempDir::new().unwrap();
    let packs = Packs(folder.path().to_owned());
    let blobs = [
        (Hash([1; 32]), Bytes::from_static(b"abc")),
        (Hash([2; 32]), Bytes::new()),
    ];
    let written = packs.append(7, 3, PackRow::default(), &blobs).unwrap();
    written.sync().unwrap();
    let bytes = std::fs::read(folder.path().join("7/3.pack")).unwrap();
    let (one, two) = ("01".repeat(32), "02".repeat(32));
    let expected = format!("{one}00000003616263{two}00000000");
    assert_eq!(hex::encode(&bytes), expected);
}

#[test]
fn a_row_of_a_newer_program_is_refused() {
    let newer = decode::<VaultRow>("vaults", &[2, 0]).map(|_| ());
    assert_eq!(newer, Err(StoreError::Newer { found: 2, known: 1 }));
    let empty = decode::<VaultRow>("vaults", &[]).map(|_| ());
    assert!(matches!(empty, Err(StoreError::Damaged(_))));
}
