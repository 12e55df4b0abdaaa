//! Changes in the vault itself, past any folder: what was written elsewhere at the same time is not forgotten, nor deleted
//! unseen.

use std::collections::{BTreeMap, BTreeSet};

use coffer_crdt::files::{FileId, Kind};

use super::super::FolderVault;
use super::super::compare::{View, merge_group};
use super::super::decide::revive;
use super::super::names::Profile;
use super::super::rows::Rows;
use super::super::sparing::{Spared, hidden, keep_outdone, spare};
use super::cloud::{ReadStamp, imported};
use super::double::TestVault;
use crate::blobs::Import;
use crate::vault::request::{CommitRequest, ContentDraft, FolderRow, Operation};

const NOW: i64 = 1_795_305_600_000;

fn draft(text: &str) -> ContentDraft {
    let stamp = ReadStamp {
        mtime_ns: 0,
        ctime_ns: 0,
        inode: 0,
        executable: false,
    };
    ContentDraft::from(&imported(text.as_bytes(), stamp, Import::Store))
}

fn id(number: u8) -> FileId {
    FileId([number; 16])
}

fn create(number: u8, parent: FileId, name: &str, text: Option<&str>) -> Operation {
    Operation::CreateFile {
        id: id(number),
        kind: text.map_or(Kind::Folder, |_| Kind::File),
        parent,
        name: name.into(),
        content: text.map(draft),
        created_ms: 0,
    }
}

fn content(number: u8, text: &str) -> Operation {
    Operation::SetContent {
        id: id(number),
        content: draft(text),
        replaces: None,
    }
}

fn trash(number: u8) -> Operation {
    Operation::TrashFile { id: id(number) }
}

fn commit(vault: &TestVault, operations: Vec<Operation>) {
    let request = CommitRequest {
        operations,
        ..CommitRequest::default()
    };
    vault.commit_now(request).unwrap();
}

/// As the commands do it.
fn command(vault: &TestVault, operation: Operation) -> Spared {
    let mut operations = Vec::new();
    if let Operation::TrashFile { id } | Operation::SetContent { id, .. } = &operation {
        merge_group(&vault.tree(), *id, &mut operations);
    }
    operations.push(operation);
    let spared = spare(vault, operations, &BTreeMap::new(), NOW).unwrap();
    commit(vault, spared.operations.clone());
    spared
}

/// Texts by path, as far as they are among these.
fn listing(vault: &TestVault, texts: &[&str]) -> BTreeMap<String, String> {
    let names: BTreeMap<[u8; 32], &str> =
        texts.iter().map(|text| (draft(text).hash, *text)).collect();
    let shown = vault.listing().into_iter();
    shown
        .map(|(path, hash)| (path, hash.map_or("", |hash| names[&hash]).to_owned()))
        .collect()
}

fn listed(expected: &[(&str, &str)]) -> BTreeMap<String, String> {
    let expected = expected.iter();
    expected
        .map(|(path, text)| (path.to_string(), text.to_string()))
        .collect()
}

const TEXTS: [&str; 5] = ["old", "by one", "by other", "beside", "newest"];

/// Two vaults that wrote `docs/in/f` apart: what the first wrote lost.
fn apart() -> (TestVault, TestVault) {
    let (one, other) = (TestVault::new(1), TestVault::new(2));
    for vault in [&one, &other] {
        vault.set_wall_ms(NOW);
    }
    commit(
        &one,
        vec![
            create(1, FileId::ROOT, "docs", None),
            create(2, id(1), "in", None),
            create(3, id(2), "f", Some("old")),
            create(4, id(2), "beside", Some("beside")),
            create(5, id(1), "beside", Some("beside")),
        ],
    );
    other.pull(&one);
    commit(&one, vec![content(3, "by one")]);
    other.set_wall_ms(NOW + 1000);
    commit(&other, vec![content(3, "by other")]);
    other.pull(&one);
    (one, other)
}

const COPY: &str = "f (conflict from device 1, 2026-11-22)";

#[test]
fn what_is_written_over_a_content_that_nobody_saw_makes_a_copy_of_it_first() {
    let (one, other) = apart();
    let spared = command(&other, content(3, "newest"));
    assert_eq!(spared.copies.len(), 1);
    one.pull(&other);
    for vault in [&one, &other] {
        let expected = [
            ("docs", ""),
            ("docs/beside", "beside"),
            ("docs/in", ""),
            ("docs/in/beside", "beside"),
            ("docs/in/f", "newest"),
            (&format!("docs/in/{COPY}"), "by one"),
        ];
        assert_eq!(listing(vault, &TEXTS), listed(&expected));
    }
    assert!(command(&one, content(3, "old")).copies.is_empty());
}

#[test]
fn a_deleted_file_leaves_a_copy_of_what_nobody_saw_in_it() {
    let (one, other) = apart();
    command(&other, trash(3));
    one.pull(&other);
    assert!(one.tree().path(id(3)).is_none());
    let there = listing(&one, &TEXTS);
    assert_eq!(there[&format!("docs/in/{COPY}")], "by one");
    // Nothing is left to be done on the device that wrote it.
    let kept = keep_outdone(&one, &one.take_outdone(), NOW).unwrap();
    assert!(kept.operations.is_empty());
}

#[test]
fn of_a_deleted_folder_nothing_stays_but_what_nobody_saw() {
    let (one, other) = apart();
    // A folder of the same name, which shows as one with it.
    commit(
        &one,
        vec![
            create(6, FileId::ROOT, "docs", None),
            create(7, id(6), "more", Some("old")),
        ],
    );
    other.pull(&one);
    command(&other, trash(1));
    one.pull(&other);
    for vault in [&one, &other] {
        let copy = format!("docs/in/{COPY}");
        let expected = [("docs", ""), ("docs/in", ""), (&copy, "by one")];
        assert_eq!(listing(vault, &TEXTS), listed(&expected));
    }
    // Now it is seen.
    command(&one, trash(1));
    assert!(one.listing().is_empty());
}

#[test]
fn what_was_seen_on_disk_goes_with_its_folder() {
    let (_, other) = apart();
    let seen = BTreeMap::from([(id(3), draft("by one").hash)]);
    let spared = spare(&other, vec![trash(1)], &seen, NOW).unwrap();
    assert!(spared.copies.is_empty());
    commit(&other, spared.operations);
    assert!(other.listing().is_empty());
}

#[test]
fn what_was_written_here_and_lost_gets_its_copy_unless_the_folder_has_it() {
    let (one, other) = apart();
    one.pull(&other);
    let outdone = one.take_outdone();
    assert_eq!(outdone, BTreeSet::from([(id(3), draft("by one").hash)]));
    commit(&one, keep_outdone(&one, &outdone, NOW).unwrap().operations);
    assert_eq!(listing(&one, &TEXTS)[&format!("docs/in/{COPY}")], "by one");
    assert!(
        keep_outdone(&one, &outdone, NOW)
            .unwrap()
            .operations
            .is_empty()
    );
    // Both at once make the same copy.
    command(&other, content(3, "newest"));
    one.pull(&other);
    other.pull(&one);
    assert_eq!(listing(&one, &TEXTS), listing(&other, &TEXTS));
    assert_eq!(one.listing().len(), 6);
}

#[test]
fn what_was_written_here_comes_back_where_somebody_deleted_the_file_without_having_seen_it() {
    let (one, other) = (TestVault::new(1), TestVault::new(2));
    for vault in [&one, &other] {
        vault.set_wall_ms(NOW);
    }
    commit(&one, vec![create(3, FileId::ROOT, "f", Some("old"))]);
    other.pull(&one);
    commit(&one, vec![content(3, "by one")]);
    other.set_wall_ms(NOW + 1000);
    commit(&other, vec![content(3, "by other")]);
    commit(&other, vec![trash(3)]);
    one.pull(&other);
    assert!(one.listing().is_empty());
    let kept = keep_outdone(&one, &one.take_outdone(), NOW).unwrap();
    commit(&one, kept.operations);
    assert_eq!(listing(&one, &TEXTS), listed(&[("f", "by one")]));
}

/// Three vaults that wrote `f` apart; the third deleted it, having seen its own content alone, which is the latest. The
/// first has heard of all that.
fn apart_in_three() -> [TestVault; 3] {
    let all = [1, 2, 3].map(TestVault::new);
    let [one, other, third] = &all;
    for vault in &all {
        vault.set_wall_ms(NOW);
    }
    commit(one, vec![create(3, FileId::ROOT, "f", Some("old"))]);
    other.pull(one);
    third.pull(one);
    commit(one, vec![content(3, "by one")]);
    other.set_wall_ms(NOW + 1000);
    commit(other, vec![content(3, "by other")]);
    third.set_wall_ms(NOW + 2000);
    commit(third, vec![content(3, "newest")]);
    commit(third, vec![trash(3)]);
    one.pull(other);
    one.pull(third);
    all
}

const COPY_OF_OTHER: &str = "f (conflict from device 2, 2026-11-22)";

#[test]
fn what_comes_back_does_not_make_the_vault_forget_what_lost_beside_it() {
    let [one, other, _] = apart_in_three();
    assert!(one.listing().is_empty());
    let kept = keep_outdone(&one, &one.take_outdone(), NOW).unwrap();
    commit(&one, kept.operations);
    other.pull(&one);
    for vault in [&one, &other] {
        let expected = [("f", "by one"), (COPY_OF_OTHER, "by other")];
        assert_eq!(listing(vault, &TEXTS), listed(&expected));
    }
    // Nothing is left to be done on the device that wrote that.
    let kept = keep_outdone(&other, &other.take_outdone(), NOW).unwrap();
    assert!(kept.operations.is_empty());
}

/// What the engine of a device does whose disk has `text` as `f`, which goes from there.
fn revived(vault: &TestVault, text: &str) -> Vec<Operation> {
    let mut all = hidden(vault, id(3)).unwrap();
    let at = all
        .iter()
        .position(|it| it.content.hash == draft(text).hash);
    let rival = all.remove(at.unwrap());
    let row = FolderRow {
        parent: FileId::ROOT.0,
        name: "f".into(),
        kind: 0,
        inode: 1,
        size: text.len() as u64,
        mtime_ns: 0,
        ctime_ns: 0,
        executable: false,
        hash: rival.content.hash,
    };
    let rows = Rows::new(FileId::ROOT, BTreeMap::from([(id(3), row)]));
    let tree = vault.tree();
    let view = View {
        rows: &rows,
        tree: &tree,
        vault_folder: FileId::ROOT,
        profile: Profile::EXT4,
        label: &rival.label,
        now_ms: NOW,
    };
    revive(&view, id(3), &rival, &all).map_or_else(Vec::new, |settled| settled.operations)
}

#[test]
fn what_a_disk_has_of_a_deleted_file_comes_back_with_what_lost_beside_it() {
    let [one, other, _] = apart_in_three();
    let operations = revived(&one, "by one");
    commit(&one, operations);
    other.pull(&one);
    let expected = [("f", "by one"), (COPY_OF_OTHER, "by other")];
    assert_eq!(listing(&other, &TEXTS), listed(&expected));
}

#[test]
fn what_a_disk_has_of_a_file_that_went_elsewhere_does_not_replace_what_that_shows() {
    let (one, other) = apart();
    commit(
        &other,
        vec![Operation::MoveFile {
            id: id(3),
            parent: FileId::ROOT,
            name: "elsewhere".into(),
        }],
    );
    one.pull(&other);
    let operations = revived(&one, "by one");
    commit(&one, operations);
    let there = listing(&one, &TEXTS);
    assert_eq!(there["elsewhere"], "by other");
    let copy = "elsewhere (conflict from device 1, 2026-11-22)";
    assert_eq!(there[copy], "by one");
    // It is there, and that is all.
    assert!(hidden(&one, id(3)).unwrap().is_empty());
}
