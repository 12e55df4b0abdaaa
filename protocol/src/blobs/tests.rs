use super::*;
use proptest::prelude::*;

fn id(bytes: &[u8]) -> Hash {
    Hash(*blake3::hash(bytes).as_bytes())
}

fn wanted(blobs: &[Vec<u8>]) -> Vec<Wanted> {
    blobs
        .iter()
        .map(|bytes| Wanted {
            id: id(bytes),
            max_len: bytes.len() as u32,
        })
        .collect()
}

fn answer(index: u16, bytes: Option<&[u8]>) -> Vec<u8> {
    let header = AnswerHeader {
        index,
        given: Given::bytes(bytes.map(|bytes| bytes.len() as u32)),
    };
    [&header.encode()[..], bytes.unwrap_or_default()].concat()
}

/// Decodes `stream` in pieces of `step` bytes: what was whole, by index, and what was missing.
#[allow(clippy::type_complexity)]
fn decode(
    answers: &mut Answers,
    stream: &[u8],
    step: usize,
) -> Result<(Vec<(u16, Vec<u8>)>, Vec<u16>), AnswerError> {
    let (mut whole, mut missing, mut current) = (Vec::new(), Vec::new(), Vec::new());
    for mut input in stream.chunks(step) {
        while let Some(piece) = answers.next_piece(&mut input)? {
            match piece {
                Piece::Begins { .. } => current.clear(),
                Piece::Bytes { bytes, .. } => current.extend_from_slice(bytes),
                Piece::Whole { index } => whole.push((index, current.clone())),
                Piece::Missing { index } | Piece::Paused { index } => missing.push(index),
            }
        }
    }
    answers.end()?;
    Ok((whole, missing))
}

#[test]
fn frozen_request_and_answer() {
    let request = Request {
        vault: VaultId([0x11; 32]),
        ids: vec![Hash([0x22; 32]), Hash([0x33; 32])],
    };
    let frozen = [
        "11".repeat(32),
        "02".into(),
        "22".repeat(32),
        "33".repeat(32),
    ]
    .concat();
    assert_eq!(hex::encode(request.encode()), frozen);
    assert_eq!(Request::decode(&request.encode()), Ok(request));

    let stream = [answer(1, Some(b"abc")), answer(0, None)].concat();
    assert_eq!(hex::encode(stream), "0100030000006162630000ffffffff");
}

#[test]
fn frozen_questions_and_answers_of_the_second_version() {
    let request = |ids: &[u8]| Request {
        vault: VaultId([0x11; 32]),
        ids: ids.iter().map(|id| Hash([*id; 32])).collect(),
    };
    let (vault, id) = ("11".repeat(32), "22".repeat(32));
    for (ask, frozen) in [
        (Ask::Get(request(&[0x22])), format!("00{vault}01{id}")),
        (Ask::Has(request(&[0x22])), format!("01{vault}01{id}")),
        (Ask::Resumes(VaultId([0x11; 32])), format!("02{vault}")),
    ] {
        assert_eq!(hex::encode(ask.encode()), frozen);
        assert_eq!(Version::Two.decode(&ask.encode()), Ok(ask));
    }
    let get = Version::One.encode_get(VaultId([0x11; 32]), request(&[0x22]).ids);
    assert_eq!(get, request(&[0x22]).encode(), "as it ever was");
    assert_eq!(Version::One.decode(&get), Ok(Ask::Get(request(&[0x22]))));
    assert!(Ask::Has(request(&[0; MAX_IDS])).encode().len() <= MAX_REQUEST);
    for (given, frozen) in [
        (Given::Bytes(3), "050003000000"),
        (Given::Missing, "0500ffffffff"),
        (Given::Paused, "0500feffffff"),
        (Given::Here, "0500fdffffff"),
    ] {
        let header = AnswerHeader { index: 5, given };
        assert_eq!(hex::encode(header.encode()), frozen);
        assert_eq!(AnswerHeader::decode(&header.encode()), header);
    }
}

#[test]
fn whether_blobs_are_there_is_answered_once_for_each_and_without_bytes() {
    let say = |index, given| AnswerHeader { index, given };
    let mut presence = Presence::of(3);
    assert_eq!(presence.accept(say(2, Given::Here)), Ok(()));
    assert_eq!(presence.accept(say(0, Given::Paused)), Ok(()));
    for (header, error) in [
        (say(2, Given::Here), AnswerError::Repeated(2)),
        (say(3, Given::Here), AnswerError::NotAsked(3)),
        (say(1, Given::Bytes(1)), AnswerError::OtherAnswer(1)),
    ] {
        assert_eq!(presence.accept(header), Err(error));
    }
    assert!(!presence.is_over());
    assert_eq!(presence.accept(say(1, Given::Missing)), Ok(()));
    assert!(presence.is_over());
    let said: Vec<Given> = presence.said().collect();
    assert_eq!(said, [Given::Paused, Given::Missing, Given::Here]);
    // Who asks for bytes is not content with being told that they are there.
    let mut answers = Answers::new(wanted(&[b"first".to_vec()]));
    let here = answers.accept(say(0, Given::Here));
    assert_eq!(here, Err(AnswerError::OtherAnswer(0)));
}

#[test]
fn more_ids_than_allowed_are_refused() {
    let request = |count| Request {
        vault: VaultId([0; 32]),
        ids: vec![Hash::ZERO; count],
    };
    assert!(Request::decode(&request(MAX_IDS).encode()).is_ok());
    assert!(Request::decode(&request(MAX_IDS + 1).encode()).is_err());
    assert!(request(MAX_IDS).encode().len() <= MAX_REQUEST);
}

#[test]
fn each_kind_of_bad_answer_is_named() {
    let blobs = [b"first".to_vec(), b"second".to_vec()];
    for (stream, error) in [
        (answer(2, None), AnswerError::NotAsked(2)),
        (
            [answer(0, None), answer(0, Some(b"first"))].concat(),
            AnswerError::Repeated(0),
        ),
        (
            answer(0, Some(b"longer")),
            AnswerError::TooLong {
                index: 0,
                len: 6,
                max: 5,
            },
        ),
        (answer(0, Some(b"First")), AnswerError::WrongHash(0)),
        (answer(0, Some(b"first")), AnswerError::Truncated(1)),
        (
            answer(0, Some(b"first"))[..8].to_vec(),
            AnswerError::Truncated(2),
        ),
        (Vec::new(), AnswerError::Truncated(2)),
    ] {
        assert_eq!(
            decode(&mut Answers::new(wanted(&blobs)), &stream, 3),
            Err(error)
        );
    }
}

#[test]
fn what_follows_an_answer_is_left_for_the_next() {
    let blobs = [b"only".to_vec()];
    let stream = [answer(0, Some(b"only")), vec![7; 3]].concat();
    let mut answers = Answers::new(wanted(&blobs));
    let mut input = &stream[..];
    while answers.next_piece(&mut input).unwrap().is_some() {}
    assert!(answers.is_over());
    assert_eq!(input, [7; 3]);
}

#[test]
fn a_shell_that_reads_itself_uses_the_same_checks() {
    let blobs = [b"first".to_vec()];
    let mut answers = Answers::new(wanted(&blobs));
    let header = AnswerHeader {
        index: 0,
        given: Given::Bytes(5),
    };
    assert_eq!(answers.accept(header), Ok(()));
    assert_eq!(answers.check(0, b"first"), Ok(()));
    assert_eq!(answers.check(0, b"fiRst"), Err(AnswerError::WrongHash(0)));
    assert_eq!(answers.check(9, b""), Err(AnswerError::NotAsked(9)));
}

proptest! {
    #[test]
    fn every_answer_reads_back_in_any_order_and_pieces(
        blobs in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..20),
        missing in prop::collection::vec(any::<bool>(), 20),
        shuffle: u64,
        step in 1usize..80,
    ) {
        let mut order: Vec<usize> = (0..blobs.len()).collect();
        order.sort_by_key(|index| blake3::hash(&[&shuffle.to_le_bytes()[..], &[*index as u8]].concat()).to_hex());
        let stream: Vec<u8> = order
            .iter()
            .flat_map(|i| answer(*i as u16, (!missing[*i]).then_some(&blobs[*i])))
            .collect();
        let (whole, gone) = decode(&mut Answers::new(wanted(&blobs)), &stream, step).unwrap();
        prop_assert_eq!(whole.len() + gone.len(), blobs.len());
        for (index, bytes) in whole {
            prop_assert_eq!(&bytes, &blobs[usize::from(index)]);
        }
        for index in gone {
            prop_assert!(missing[usize::from(index)]);
        }
    }

    #[test]
    fn foreign_bytes_never_panic_and_never_pass_as_a_blob(
        stream in prop::collection::vec(any::<u8>(), 0..200), step in 1usize..20,
    ) {
        let blobs = [b"first".to_vec(), b"second".to_vec()];
        let result = decode(&mut Answers::new(wanted(&blobs)), &stream, step);
        prop_assert!(result.map_or(true, |(whole, _)| whole.is_empty()));
    }

    #[test]
    fn whatever_decodes_as_a_request_is_canonical(
        bytes in prop::collection::vec(any::<u8>(), 0..150),
    ) {
        if let Ok(request) = Request::decode(&bytes) {
            prop_assert_eq!(request.encode(), bytes);
        }
    }
}
