//! Rows of placements and chunks: frozen, bounded, and of a later program refused.

use super::*;
use proptest::prelude::*;

fn file(n: u8) -> Placement {
    Placement::File {
        root: 1,
        file: [n; 16],
        offset: 300,
        len: 5,
        frame: [3; 32],
        epoch: [4; 32],
    }
}

#[test]
fn rows_are_frozen() {
    let places = vec![
        Placement::Store,
        Placement::Pack {
            pack: [1; 32],
            offset: 300,
            len: 77,
        },
        file(2),
        Placement::Kept {
            root: 9,
            name: [5; 24],
            offset: 0,
            len: 1,
            frame: [6; 32],
            epoch: [7; 32],
        },
    ];
    let bytes = encode_places(places.clone());
    assert_eq!(hex(&bytes), FROZEN_PLACES);
    assert_eq!(decode_places(&bytes), Ok(places));
    let row = ChunkRow {
        frame: Hash([1; 32]),
        blob: Hash([2; 32]),
        len: 8192,
        sealed_len: 8400,
        epoch: EpochId([3; 32]),
    };
    let bytes = codec::encode(&(ROW_VERSION, &row));
    assert_eq!(hex(&bytes), FROZEN_CHUNK);
    assert_eq!(decode_chunk(&bytes), Ok(row));
}

const FROZEN_PLACES: &str = "010400010101010101010101010101010101010101010101010101010101010101010101ac024d02\
    0102020202020202020202020202020202ac02050303030303030303030303030303030303030303\
    03030303030303030303030304040404040404040404040404040404040404040404040404040404\
    04040404030905050505050505050505050505050505050505050505050500010606060606060606\
    06060606060606060606060606060606060606060606060607070707070707070707070707070707\
    07070707070707070707070707070707";
const FROZEN_CHUNK: &str = "01010101010101010101010101010101010101010101010101010101010101010102020202020202\
    020202020202020202020202020202020202020202020202028040d0410303030303030303030303\
    030303030303030303030303030303030303030303";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_row_of_a_later_program_is_refused_as_newer() {
    assert_eq!(
        decode_places(&[2, 0]),
        Err(CodecError::Newer {
            found: 2,
            supported: 1
        })
    );
}

#[test]
fn a_blob_has_a_bounded_list_of_places_newest_first() {
    let dir = tempfile::tempdir().unwrap();
    let db = redb::Database::create(dir.path().join("db")).unwrap();
    let blob = Hash([1; 32]);
    let transaction = db.begin_write().unwrap();
    for n in 0..20 {
        apply(&transaction, [(&blob, Some(&file(n)))], []).unwrap();
    }
    apply(&transaction, [(&blob, Some(&file(15)))], []).unwrap();
    let places = |transaction: &WriteTransaction| {
        stored_places(&transaction.open_table(PLACEMENT).unwrap(), &blob).unwrap()
    };
    let expected: Vec<_> = [15, 19, 18, 17, 16, 14, 13, 12].map(file).into();
    assert_eq!(places(&transaction), expected);
    forget(&transaction, [(&blob, &file(19))]).unwrap();
    left_file(&transaction, [&blob], (1, [18; 16])).unwrap();
    moved_aside(&transaction, [&blob], (1, [17; 16]), [9; 24]).unwrap();
    assert!(matches!(places(&transaction)[1], Placement::Kept { name, .. } if name == [9; 24]));
    assert_eq!(places(&transaction).len(), 6);
    apply(&transaction, [(&blob, None)], []).unwrap();
    assert_eq!(places(&transaction), []);
}

fn place() -> impl Strategy<Value = Placement> {
    prop_oneof![
        Just(Placement::Store),
        (any::<[u8; 32]>(), any::<u32>(), any::<u32>())
            .prop_map(|(pack, offset, len)| Placement::Pack { pack, offset, len }),
        (
            any::<u32>(),
            any::<[u8; 16]>(),
            any::<u64>(),
            any::<u32>(),
            any::<[u8; 32]>()
        )
            .prop_map(|(root, file, offset, len, frame)| Placement::File {
                root,
                file,
                offset,
                len,
                frame,
                epoch: [1; 32],
            }),
    ]
}

proptest! {
    #[test]
    fn places_return_from_their_row(places in prop::collection::vec(place(), 0..=MAX_PLACES)) {
        prop_assert_eq!(decode_places(&encode_places(places.clone())), Ok(places));
    }

    #[test]
    fn whatever_decodes_is_canonical(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(places) = decode_places(&bytes) {
            prop_assert_eq!(encode_places(places), bytes.clone());
        }
        if let Ok(row) = decode_chunk(&bytes) {
            prop_assert_eq!(codec::encode(&(ROW_VERSION, &row)), bytes);
        }
    }

    #[test]
    fn altered_rows_never_panic(
        places in prop::collection::vec(place(), 0..=MAX_PLACES),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = encode_places(places);
        let at = at.index(bytes.len());
        bytes[at] ^= byte;
        let _ = decode_places(&bytes);
        let _ = decode_places(&bytes[..at]);
    }
}
