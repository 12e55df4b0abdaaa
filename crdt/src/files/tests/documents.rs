//! Files as documents: what is written is read, and of concurrent values the latest.

use super::*;
use crate::{Document, ScalarValue};

#[test]
fn a_first_change_is_read_back_with_and_without_a_document() {
    let folder = FileState {
        kind: Kind::Folder,
        content: None,
        ..state()
    };
    let all = FileState {
        trash: Some(trash()),
        merged_into: Some(MergedInto::of(
            &state(),
            FileId([5; 16]),
            Stamp(1),
            dot(PHONE, 2),
        )),
        ..state()
    };
    for state in [state(), folder, all] {
        let change = first_change(&state, LAPTOP, DAY).unwrap();
        assert_eq!(read_first(&change.bytes).unwrap(), Some(state.clone()));
        let document = Document::load(None, [change.bytes.as_slice()]).unwrap();
        assert_eq!(read(&document).unwrap(), state);
    }
}

#[test]
fn names_and_contents_that_cannot_be_are_refused_before_anything_is_written() {
    let named = |name: &str| FileState {
        place: Place {
            name: name.into(),
            ..place()
        },
        ..state()
    };
    assert!(matches!(
        first_change(&named("a/b"), LAPTOP, DAY),
        Err(FileError::Name(NameError::Slash))
    ));
    let folder = FileState {
        kind: Kind::Folder,
        ..state()
    };
    assert!(matches!(
        first_change(&folder, LAPTOP, DAY),
        Err(FileError::WrongContent(Kind::Folder))
    ));
    let link = FileState {
        kind: Kind::Symlink,
        ..state()
    };
    assert!(matches!(
        first_change(&link, LAPTOP, DAY),
        Err(FileError::WrongContent(Kind::Symlink))
    ));
    let mut document = Document::load(
        None,
        [first_change(&state(), LAPTOP, DAY)
            .unwrap()
            .bytes
            .as_slice()],
    )
    .unwrap();
    let place = Some(Place {
        name: String::new(),
        ..place()
    });
    assert!(matches!(
        edit(
            &mut document,
            &FilePatch {
                place,
                ..FilePatch::default()
            },
            LAPTOP,
            DAY
        ),
        Err(FileError::Name(NameError::Empty))
    ));
    assert!(matches!(
        edit(&mut document, &FilePatch::default(), LAPTOP, DAY),
        Err(FileError::EmptyPatch)
    ));
    let content = Some(Content {
        target: Some("a".into()),
        size: 1,
        root: ChunkRoot::empty(),
        ..content()
    });
    let patch = FilePatch {
        content,
        ..FilePatch::default()
    };
    assert!(matches!(
        edit(&mut document, &patch, LAPTOP, DAY),
        Err(FileError::WrongContent(Kind::File))
    ));
    assert_eq!(read(&document).unwrap(), state());
}

#[test]
fn a_name_from_elsewhere_that_no_file_system_takes_is_read_as_it_is() {
    let place = Place {
        name: "a/b".into(),
        ..place()
    };
    let fields = [
        ("created_at", CreatedAt(DAY).encode()),
        ("place", place.encode()),
        ("type", Kind::Folder.encode()),
    ];
    let fields: Vec<_> = fields
        .into_iter()
        .map(|(key, bytes)| (key, ScalarValue::Bytes(bytes.unwrap())))
        .collect();
    let change = crate::first_change_scalars(&fields, PHONE, DAY).unwrap();
    assert_eq!(
        read_first(&change.bytes).unwrap().unwrap().place.name,
        "a/b"
    );
}

/// Of two edits made apart the one stamped later counts on both sides, whichever way they meet, even if it has fewer
/// operations behind it (which is what Automerge would go by).
#[test]
fn the_later_stamp_wins_among_concurrent_values() {
    let first = first_change(&state(), LAPTOP, DAY).unwrap();
    let load = || Document::load(None, [first.bytes.as_slice()]).unwrap();
    let (mut laptop, mut phone) = (load(), load());
    let moved = |name: &str, ms: i64, writer| {
        let place = place().moved(FileId::ROOT, name, Stamp::from_ms(ms), dot(writer, 9), "x");
        FilePatch {
            place: Some(place),
            ..FilePatch::default()
        }
    };
    let mut changes = vec![edit(&mut phone, &moved("late", DAY + 100, PHONE), PHONE, DAY).unwrap()];
    for n in 1..5 {
        changes.push(edit(&mut laptop, &moved("early", DAY + n, LAPTOP), LAPTOP, DAY).unwrap());
    }
    for change in &changes {
        laptop.apply(&change.bytes).unwrap();
        phone.apply(&change.bytes).unwrap();
    }
    assert_eq!(read(&laptop).unwrap().place.name, "late");
    assert_eq!(read(&phone).unwrap(), read(&laptop).unwrap());
    assert_eq!(read(&phone).unwrap().content, Some(content()));
}

#[test]
fn deletions_at_the_same_time_stay_apart_and_a_later_restoration_undoes_them() {
    let first = first_change(&state(), LAPTOP, DAY).unwrap();
    let load = || Document::load(None, [first.bytes.as_slice()]).unwrap();
    let set = |document: &mut Document, trash: &Trash| {
        let patch = FilePatch {
            trash: Some(trash.clone()),
            ..FilePatch::default()
        };
        edit(document, &patch, trash.dot.writer, DAY).unwrap()
    };
    let deletion = |writer: Actor, ms: i64| Trash {
        clock: [(writer, 9)].into(),
        stamp: Stamp::from_ms(DAY + ms),
        dot: dot(writer, 9),
    };
    let mut all = load();
    let mut written = Vec::new();
    for n in 0..20u8 {
        let trash = deletion([100 + n; 16], i64::from(n));
        let change = set(&mut load(), &trash);
        all.apply(&change.bytes).unwrap();
        written.insert(0, trash);
    }
    let state = read(&all).unwrap();
    let counting: Vec<Trash> = state.deletions().cloned().collect();
    assert_eq!(counting, written[..document::MAX_DELETIONS]);
    assert_eq!(state.trash.as_ref(), Some(&written[0]));
    assert!(!state.is_in_trash());
    let restored = Trash::restored(Stamp::from_ms(DAY + 30), dot(LAPTOP, 10));
    set(&mut all, &restored);
    let state = read(&all).unwrap();
    assert_eq!((state.trash, state.also_deleted), (Some(restored), vec![]));
}

#[test]
fn a_damaged_value_is_passed_over_only_for_a_sound_one() {
    let first = first_change(&state(), LAPTOP, DAY).unwrap();
    let load = || Document::load(None, [first.bytes.as_slice()]).unwrap();
    let (mut one, mut other) = (load(), load());
    let junk = one
        .set_scalars(&[("place", ScalarValue::Bytes(vec![1, 2, 3]))], LAPTOP, DAY)
        .unwrap();
    assert!(matches!(
        read(&one),
        Err(FileError::Register(RegisterError::Damaged("place")))
    ));
    let sound = FilePatch {
        place: Some(Place {
            name: "b".into(),
            ..place()
        }),
        ..FilePatch::default()
    };
    edit(&mut other, &sound, PHONE, DAY).unwrap();
    other.apply(&junk.bytes).unwrap();
    assert_eq!(read(&other).unwrap().place.name, "b");
    let newer = one
        .set_scalars(&[("place", ScalarValue::Bytes(vec![9]))], LAPTOP, DAY)
        .unwrap();
    other.apply(&newer.bytes).unwrap();
    assert!(matches!(
        read(&other),
        Err(FileError::Register(RegisterError::Newer { version: 9, .. }))
    ));
    assert!(matches!(
        read(&Document::empty()),
        Err(FileError::Missing("type"))
    ));
}

#[test]
fn every_content_that_a_file_had_is_found_with_its_change() {
    let mut document = Document::load(
        None,
        [first_change(&state(), LAPTOP, DAY)
            .unwrap()
            .bytes
            .as_slice()],
    )
    .unwrap();
    let second = Content {
        hash: [5; 32],
        stamp: Stamp::from_ms(DAY + 50),
        dot: dot(PHONE, 1),
        ..content()
    };
    let patch = FilePatch {
        content: Some(second.clone()),
        ..FilePatch::default()
    };
    let change = edit(&mut document, &patch, PHONE, DAY + 50).unwrap();
    edit(
        &mut document,
        &FilePatch {
            trash: Some(trash()),
            ..FilePatch::default()
        },
        PHONE,
        DAY + 60,
    )
    .unwrap();
    let found = contents(&document).unwrap();
    assert_eq!(
        found
            .iter()
            .map(|(_, content)| content.clone())
            .collect::<Vec<_>>(),
        [content(), second]
    );
    assert_eq!((found[1].0.hash, found[1].0.actor), (change.hash, PHONE));
}

#[test]
fn json_speaks_the_published_vocabulary() {
    let expected = serde_json::json!({
        "type": "file", "name": "Grüße.txt", "dir_id": "aa".repeat(16), "size": 1000, "executable": true, "trashed": false,
        "created_at": "2026-11-22T00:00:00.000Z", "updated_at": "2026-11-21T23:59:59.995Z",
    });
    assert_eq!(to_json(&state()), expected);
    let folder = FileState {
        kind: Kind::Folder,
        content: None,
        place: Place {
            parent: FileId::ROOT,
            ..place()
        },
        ..state()
    };
    let json = to_json(&folder);
    assert_eq!(
        (json["type"].as_str(), json["dir_id"].as_str()),
        (Some("directory"), Some("io.cozy.files.root-dir"))
    );
    let link = Content {
        target: Some("a".into()),
        size: 1,
        root: ChunkRoot::empty(),
        ..content()
    };
    assert_eq!(
        to_json(&FileState {
            kind: Kind::Symlink,
            content: Some(link),
            ..state()
        })["target"],
        "a"
    );
}

fn set_time(document: &mut Document, times: Times) -> crate::NewChange {
    let patch = FilePatch {
        times: Some(times),
        ..FilePatch::default()
    };
    edit(document, &patch, times.dot.writer, DAY).unwrap()
}

fn mtime(document: &Document) -> i64 {
    read(document).unwrap().content.unwrap().mtime_ms
}

#[test]
fn a_time_that_was_changed_counts_for_the_content_that_it_was_set_to() {
    let first = first_change(&state(), LAPTOP, DAY).unwrap();
    let load = || Document::load(None, [first.bytes.as_slice()]).unwrap();
    let mut phone = load();
    let change = set_time(&mut phone, touched(&content(), 5, 9));
    assert_eq!(mtime(&phone), 5);
    assert_eq!(read(&phone).unwrap().content.unwrap().dot, content().dot);
    // Written elsewhere at the same time: those bytes are shown with their own time, and nothing lost against them.
    let mut laptop = load();
    let newer = Content {
        hash: [5; 32],
        stamp: content().stamp.next(),
        dot: dot(LAPTOP, 10),
        ..content()
    };
    let patch = FilePatch {
        content: Some(newer.clone()),
        ..FilePatch::default()
    };
    let edited = edit(&mut laptop, &patch, LAPTOP, DAY).unwrap();
    for (document, change) in [(&mut laptop, &change), (&mut phone, &edited)] {
        document.apply(&change.bytes).unwrap();
        assert_eq!(read(document).unwrap().content, Some(newer.clone()));
        assert!(rivals(document).unwrap().is_empty());
    }
    // The time of the newer content, though set before by the stamp than that of the older.
    let early = Times {
        stamp: Stamp(1),
        dot: dot([0x33; 16], 1),
        ..touched(&newer, 7, 11)
    };
    let mut apart = load();
    apart.apply(&edited.bytes).unwrap();
    let early = set_time(&mut apart, early);
    apart.apply(&change.bytes).unwrap();
    phone.apply(&early.bytes).unwrap();
    assert_eq!((mtime(&apart), mtime(&phone)), (7, 7));
}

#[test]
fn of_times_that_were_set_apart_the_later_counts_everywhere_and_damaged_ones_for_nothing() {
    let first = first_change(&state(), LAPTOP, DAY).unwrap();
    let load = || Document::load(None, [first.bytes.as_slice()]).unwrap();
    let (mut one, mut other) = (load(), load());
    let early = set_time(&mut one, touched(&content(), 5, 1));
    let late = Times {
        dot: dot(LAPTOP, 9),
        ..touched(&content(), 6, 2)
    };
    let late = set_time(&mut other, late);
    one.apply(&late.bytes).unwrap();
    other.apply(&early.bytes).unwrap();
    assert_eq!((mtime(&one), mtime(&other)), (6, 6));
    assert_eq!(times::times(&one).len(), 2);
    for bytes in [vec![2, 1], vec![1], Vec::new()] {
        let mut document = load();
        let value = ScalarValue::Bytes(bytes);
        document
            .set_scalars(&[("times", value)], PHONE, DAY)
            .unwrap();
        assert_eq!(read(&document).unwrap(), state());
    }
}
