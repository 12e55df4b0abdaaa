//! How a content comes to its name: by one rename of the file that was written to the temporary place, never by writing
//! under the name, so that nobody ever sees a part of it. And that names do not go to the wrong file.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use coffer_crdt::files::{FileId, Kind};
use coffer_protocol::identity::VaultId;

use super::super::apply::Hands;
use super::super::compare::row_of;
use super::super::hidden::temporary_name;
use super::super::paths::Shared;
use super::super::place::{Marker, Place};
use super::super::plan::{Step, Want, WantContent};
use super::super::rows::Rows;

const FILE: FileId = FileId([1; 16]);

fn want(number: u8) -> Want {
    let content = WantContent {
        hash: [number; 32],
        size: 3,
        mtime_ms: i64::from(number) * 1_000,
        executable: false,
        target: None,
    };
    Want {
        parent: FileId::ROOT,
        name: "f".into(),
        kind: Kind::File,
        content: Some(content),
    }
}

/// A synced folder on disk.
fn synced(dir: &std::path::Path) -> Place {
    let marker = Marker {
        number: 1,
        vault: VaultId([1; 32]),
    };
    Place::prepare(dir, &marker).unwrap()
}

#[test]
fn a_content_takes_its_name_by_a_rename_whether_it_is_new_or_replaces_another() {
    let dir = tempfile::tempdir().unwrap();
    let place = synced(dir.path());
    let rows = Rows::new(FileId::ROOT, BTreeMap::new());
    let shared = Shared::new(dir.path().to_path_buf(), rows, Box::new(|id| id));
    let mut last = 0;
    let mut unique = || {
        last += 1;
        FileId([last; 16])
    };
    for number in 1..=2 {
        let want = want(number);
        let temporary = temporary_name(FILE, &[number; 32]);
        let bytes = format!("{number}{number}{number}");
        std::fs::write(place.tmp_path(&temporary), &bytes).unwrap();
        let written = std::fs::metadata(place.tmp_path(&temporary)).unwrap().ino();
        let mut hands = Hands::new(&place, &shared, &mut unique);
        hands.place_content(FILE, &want, &temporary);
        let outcome = hands.finish();
        assert_eq!(outcome.done, [FILE], "{outcome:?}");
        assert_eq!(outcome.kept.len(), usize::from(number) - 1);
        let path = dir.path().join("f");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), bytes);
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), written);
        assert!(!place.tmp_path(&temporary).exists());
    }
}

#[test]
fn of_two_that_change_places_one_that_is_gone_is_not_the_other_with_its_inode_number() {
    const OTHER: FileId = FileId([2; 16]);
    let dir = tempfile::tempdir().unwrap();
    let place = synced(dir.path());
    std::fs::write(dir.path().join("g"), "other").unwrap();
    let stat = place.root().stat_at("g").unwrap();
    let row = |name, hash| row_of(FileId::ROOT, name, Kind::File, &stat, [hash; 32]);
    let rows = BTreeMap::from([(FILE, row("f", 1)), (OTHER, row("g", 2))]);
    let rows = Rows::new(FileId::ROOT, rows);
    let shared = Shared::new(dir.path().to_path_buf(), rows, Box::new(|id| id));
    let mut unique = || FILE;
    let mut hands = Hands::new(&place, &shared, &mut unique);
    for step in [
        Step::Park(FILE),
        Step::Move(OTHER, FileId::ROOT, "f".into()),
        Step::Move(FILE, FileId::ROOT, "g".into()),
    ] {
        hands.step(&step);
    }
    let outcome = hands.finish();
    assert_eq!(outcome.done, [OTHER], "{outcome:?}");
    let surprised: Vec<FileId> = outcome.surprises.iter().map(|(_, id)| *id).collect();
    assert_eq!(surprised, [FILE, FILE]);
    let text = std::fs::read_to_string(dir.path().join("f"));
    assert_eq!(text.unwrap(), "other");
    assert!(!dir.path().join("g").exists());
}
