//! Registers as bytes: frozen, with one spelling each, and bounded.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// These bytes are in people's documents: a change here is a new version of the register, never another reading of it.
#[test]
fn the_bytes_of_registers_are_frozen() {
    let frozen = |bytes: Vec<u8>, expected: &str| {
        assert_eq!(hex::encode(bytes), expected.replace([' ', '\n'], ""))
    };
    frozen(Kind::Folder.encode().unwrap(), "01 01");
    frozen(CreatedAt(DAY).encode().unwrap(), "0180d0eb88c068");
    frozen(
        place().encode().unwrap(),
        "01aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa0b4772c3bcc39f652e747874808080a0d79180d10111111111111111111111
            11111111111107066c6170746f7000000000000000000000000000000000",
    );
    frozen(
        content().encode().unwrap(),
        "01e807f6cfeb88c068010404040404040404040404040404040404040404040404040404040404040404000001090909
            090909090909090909090909090909090909090909090909090909090901010101010101010101010101010101010101
            010101010101010101010101010102020202020202020202020202020202020202020202020202020202020202020303
            030303030303030303030303030303030303030303030303030303030303e807a00800818080a0d79180d10111111111
            11111111111111111111111108",
    );
    frozen(
        trash().encode().unwrap(),
        "0102111111111111111111111111111111110822222222222222222222222222222222ac02808084a0d79180d1012222
            2222222222222222222222222222ad02",
    );
    let merged = MergedInto::of(
        &state(),
        FileId([5; 16]),
        Stamp::from_ms(DAY),
        dot(PHONE, 2),
    );
    frozen(
        merged.encode().unwrap(),
        "010505050505050505050505050505050511111111111111111111111111111111070111111111111111111111111111
            11111108808080a0d79180d1012222222222222222222222222222222202",
    );
}

#[test]
fn the_bytes_of_a_changed_time_are_frozen() {
    let times = touched(&content(), DAY - 86_400_000, 9);
    let expected = format!(
        "01 80e0b8b6bf68 818080a0d79180d101 {} 8980a4a0d79180d101 {} 09",
        "11".repeat(16),
        "22".repeat(16)
    );
    let bytes = times.encode().unwrap();
    assert_eq!(hex::encode(&bytes), expected.replace(' ', ""));
    assert_eq!(Times::decode(&bytes), Ok(times));
}

/// Table `files_1`. A record without deletions beside the latest ends where the state does.
#[test]
fn the_bytes_of_records_are_frozen() {
    let folder = FileState {
        kind: Kind::Folder,
        content: None,
        trash: Some(trash()),
        ..state()
    };
    let expected = "0180d0eb88c068aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa0b4772c3bcc39f652e747874808080a0d79180d101
        1111111111111111111111111111111107066c6170746f70000000000000000000000000000000000001021111111111
        11111111111111111111110822222222222222222222222222222222ac02808084a0d79180d101222222222222222222
        22222222222222ad0200"
        .replace([' ', '\n'], "");
    assert_eq!(hex::encode(folder.to_record().unwrap()), expected);
    let mut twice = folder.clone();
    twice.also_deleted = vec![Trash {
        clock: [(LAPTOP, 9)].into(),
        stamp: Stamp(5),
        dot: dot(LAPTOP, 9),
    }];
    let also = format!("{expected}01 01{0}09 05{0}09", "11".repeat(16)).replace(' ', "");
    assert_eq!(hex::encode(twice.to_record().unwrap()), also);
    for state in [folder, twice] {
        let bytes = state.to_record().unwrap();
        assert_eq!(FileState::from_record(&bytes), Ok(state));
        let longer = [&bytes[..], &[0]].concat();
        for wrong in [&bytes[..bytes.len() - 1], &longer, &[]] {
            assert!(FileState::from_record(wrong).is_err());
        }
    }
}

#[test]
fn an_id_has_one_spelling() {
    let id = FileId([0xab; 16]);
    assert_eq!(id.to_string().parse(), Ok(id));
    assert_eq!("AB".repeat(16).parse::<FileId>(), Err(FileIdError));
    assert_eq!("ab".parse::<FileId>(), Err(FileIdError));
    assert_eq!("zz".repeat(16).parse::<FileId>(), Err(FileIdError));
}

#[test]
fn a_register_of_a_later_version_is_refused_by_name() {
    let mut bytes = place().encode().unwrap();
    bytes[0] = 2;
    assert_eq!(
        Place::decode(&bytes),
        Err(RegisterError::Newer {
            field: "place",
            version: 2
        })
    );
}

#[test]
fn a_register_has_one_spelling() {
    let bytes = place().encode().unwrap();
    let mut longer = bytes.clone();
    longer.push(0);
    for wrong in [&bytes[..bytes.len() - 1], &longer, &[], &[0], &[1]] {
        assert_eq!(Place::decode(wrong), Err(RegisterError::Damaged("place")));
    }
    // A number written longer than need be; a clock out of order.
    assert_eq!(
        Kind::decode(&[1, 0x81, 0x00]),
        Err(RegisterError::Damaged("type"))
    );
    let mut clock = vec![1, 2];
    clock.extend(
        [PHONE, LAPTOP]
            .iter()
            .flat_map(|writer| writer.iter().copied().chain([1])),
    );
    clock.extend([0; 18]);
    assert_eq!(Trash::decode(&clock), Err(RegisterError::Damaged("trash")));
}

#[test]
fn what_does_not_fit_together_is_no_content() {
    let wrong = [
        Content {
            size: 999,
            ..content()
        },
        Content {
            target: Some("a".into()),
            size: 1,
            ..content()
        },
        Content {
            target: Some("x".repeat(5000)),
            size: 5000,
            root: ChunkRoot::empty(),
            ..content()
        },
        Content {
            root: ChunkRoot::Indirect {
                depth: 0,
                list: content().root.list().clone(),
            },
            ..content()
        },
        Content {
            root: ChunkRoot::Indirect {
                depth: 1,
                list: ChunkList::default(),
            },
            ..content()
        },
        Content {
            root: ChunkRoot::Indirect {
                depth: 4,
                list: content().root.list().clone(),
            },
            ..content()
        },
    ];
    for content in wrong {
        assert!(
            matches!(
                content.encode(),
                Err(RegisterError::OutOfBounds {
                    field: "content",
                    ..
                })
            ),
            "{content:?}"
        );
    }
    let link = Content {
        target: Some("../a".into()),
        size: 4,
        root: ChunkRoot::empty(),
        ..content()
    };
    assert_eq!(Content::decode(&link.encode().unwrap()), Ok(link));
    let large = Content {
        size: 1 << 40,
        root: ChunkRoot::Indirect {
            depth: 2,
            list: content().root.list().clone(),
        },
        ..content()
    };
    assert_eq!(Content::decode(&large.encode().unwrap()), Ok(large));
}

#[test]
fn moving_remembers_the_folder_that_was_left_and_renaming_keeps_it() {
    let first = Place::new(FileId([1; 16]), "a", Stamp(1), dot(LAPTOP, 1), "laptop");
    assert_eq!(first.previous, FileId([1; 16]));
    let moved = first.moved(FileId([2; 16]), "a", Stamp(2), dot(LAPTOP, 2), "laptop");
    assert_eq!(moved.previous, FileId([1; 16]));
    let renamed = moved.moved(
        FileId([2; 16]),
        "b",
        Stamp(3),
        dot(LAPTOP, 3),
        &"é".repeat(200),
    );
    assert_eq!(renamed.previous, FileId([1; 16]));
    assert_eq!(renamed.label.len(), 256);
}

#[test]
fn deletions_cover_what_was_seen_and_restorations_nothing() {
    assert!(trash().covers(dot(PHONE, 300)) && trash().covers(dot(LAPTOP, 1)));
    assert!(!trash().covers(dot(PHONE, 301)) && !trash().covers(dot([3; 16], 1)));
    let deleted = FileState {
        trash: Some(trash()),
        ..state()
    };
    assert!(deleted.is_in_trash());
    let edited = FileState {
        content: Some(Content {
            dot: dot(LAPTOP, 9),
            ..content()
        }),
        ..deleted
    };
    assert!(!edited.is_in_trash());
    let restored = Trash::restored(Stamp(1), dot(PHONE, 2));
    assert!(
        restored.is_restored()
            && !FileState {
                trash: Some(restored),
                ..state()
            }
            .is_in_trash()
    );
}

fn any_dot() -> impl Strategy<Value = Dot> {
    (any::<[u8; 16]>(), any::<u64>()).prop_map(|(writer, seq)| Dot { writer, seq })
}

fn round_trip<R: Register + PartialEq + std::fmt::Debug>(value: &R) -> Result<(), TestCaseError> {
    let bytes = value.encode().unwrap();
    prop_assert!(bytes.len() <= R::MAX_BYTES);
    prop_assert_eq!(&R::decode(&bytes).unwrap(), value);
    Ok(())
}

/// Whatever decodes is written back to the same bytes.
fn only_own_bytes<R: Register>(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(value) = R::decode(bytes) {
        prop_assert_eq!(value.encode().unwrap(), bytes);
    }
    Ok(())
}

proptest! {
    #[test]
    fn registers_are_read_back(name in ".{0,80}", label in ".{0,60}", ids in any::<([u8; 16], [u8; 16])>(), stamp in any::<u64>(), dot in any_dot(),
                               clock in proptest::collection::btree_map(any::<[u8; 16]>(), any::<u64>(), 0..20), other in any_dot(),
                               content in proptest::option::of(any_dot()), created in any::<i64>()) {
        let stamp = Stamp(stamp);
        round_trip(&Place { parent: FileId(ids.0), name, stamp, dot, label, previous: FileId(ids.1) })?;
        round_trip(&Trash { clock, stamp, dot })?;
        round_trip(&MergedInto { into: FileId(ids.0), place: other, content, stamp, dot })?;
        round_trip(&CreatedAt(created))?;
    }

    #[test]
    fn foreign_bytes_are_read_one_way_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), versioned in any::<bool>()) {
        if let (true, Some(first)) = (versioned, bytes.first_mut()) {
            *first = 1;
        }
        only_own_bytes::<Kind>(&bytes)?;
        only_own_bytes::<CreatedAt>(&bytes)?;
        only_own_bytes::<Place>(&bytes)?;
        only_own_bytes::<Content>(&bytes)?;
        only_own_bytes::<Trash>(&bytes)?;
        only_own_bytes::<MergedInto>(&bytes)?;
        let _ = FileState::from_record(&bytes);
    }

    #[test]
    fn damaged_registers_are_read_one_way_or_refused(at in any::<prop::sample::Index>(), flip in 1u8..) {
        for bytes in [place().encode(), content().encode(), trash().encode()] {
            let mut bytes = bytes.unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            only_own_bytes::<Place>(&bytes)?;
            only_own_bytes::<Content>(&bytes)?;
            only_own_bytes::<Trash>(&bytes)?;
        }
    }
}

#[test]
fn the_largest_values_fit_their_bounds() {
    let clock: BTreeMap<Actor, u64> = (0..4096u32)
        .map(|n| (std::array::from_fn(|i| n.to_be_bytes()[i % 4]), u64::MAX))
        .collect();
    assert_eq!(clock.len(), 4096);
    let trash = Trash {
        clock,
        stamp: Stamp(u64::MAX),
        dot: dot(PHONE, u64::MAX),
    };
    assert!(Trash::decode(&trash.encode().unwrap()).is_ok());
    let place = Place {
        name: "x".repeat(4096),
        label: "y".repeat(256),
        stamp: Stamp(u64::MAX),
        dot: dot(PHONE, u64::MAX),
        ..place()
    };
    assert!(Place::decode(&place.encode().unwrap()).is_ok());
    assert!(
        Place {
            name: "x".repeat(4097),
            ..place
        }
        .encode()
        .is_err()
    );
}
