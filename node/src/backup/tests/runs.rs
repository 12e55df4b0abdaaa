//! What runs add, keep and take away, torn ones too.

use super::super::folder;
use super::*;

#[test]
fn what_was_backed_up_is_there_again_and_a_later_run_adds_only_what_is_new() {
    let (made, dir) = (Made::with(5), tempfile::tempdir().unwrap());
    let dir = dir.path().join("backup");
    let (one, two) = (blob(1, 3000), blob(2, 500));
    let first = made.back_up(&dir, 3, std::slice::from_ref(&one), false);
    assert_eq!((first.entries, first.blobs), (3, 1));

    let second = made.back_up(&dir, 5, &[one.clone(), two.clone()], false);
    assert_eq!((second.entries, second.blobs), (2, 1));
    assert!(second.bytes < 3000, "{second:?}");

    let archive = Archive::open(&dir).unwrap();
    assert_eq!(archive.vault(), made.vault);
    assert!(has(&archive, &one) && has(&archive, &two));
    assert_eq!(archive.clock(), made.run(2, 5).clock);
    assert_eq!(archive.runs().unwrap(), [made.run(1, 3), made.run(2, 5)]);
    let mut grants = made.grants.clone();
    grants.sort_unstable();
    let mut found = archive.grants().unwrap();
    found.sort_unstable();
    assert_eq!(found, grants);
    let read = archive.entries(made.writer, (2, 4), usize::MAX).unwrap();
    let entries: Vec<Vec<u8>> = made.entries[1..4]
        .iter()
        .map(|(_, bytes)| bytes.clone())
        .collect();
    assert_eq!(read, entries);
    let found = archive.verify(|_| true).unwrap();
    assert_eq!(found.flaws, []);
    assert_eq!(found.last, Some(made.run(2, 5)));
}

#[test]
fn a_torn_run_leaves_what_it_had_made_durable_and_the_next_goes_on_from_there() {
    let (made, dir) = (Made::with(2), tempfile::tempdir().unwrap());
    let blobs: Vec<Vec<u8>> = (0..10).map(|n| blob(n, 20_000)).collect();
    made.back_up(dir.path(), 1, &[], false);
    let mut writer = Writer::begin(dir.path(), made.vault).unwrap();
    writer.end_pieces_at(64 << 10);
    made.add(&mut writer, 2, &blobs);
    drop(writer);
    assert!(folder::unfinished(dir.path()).exists());

    let archive = Archive::open(dir.path()).unwrap();
    let there = blobs.iter().filter(|blob| has(&archive, blob)).count();
    assert!((6..10).contains(&there), "{there}");
    assert_eq!(archive.runs().unwrap().len(), 1);
    assert_eq!(archive.verify(|_| true).unwrap().flaws, []);

    let added = made.back_up(dir.path(), 2, &blobs, true);
    assert_eq!(added.blobs as usize, 10 - there);
    assert_eq!(added.entries, 0);
    assert!(!folder::unfinished(dir.path()).exists());
    let archive = Archive::open(dir.path()).unwrap();
    assert!(blobs.iter().all(|blob| has(&archive, blob)));
    assert_eq!(archive.verify(|_| true).unwrap().flaws, []);
}

#[test]
fn what_is_given_up_goes_at_once_after_a_purge_and_else_when_it_is_half_of_a_file() {
    let (made, dir) = (Made::with(1), tempfile::tempdir().unwrap());
    let blobs: Vec<Vec<u8>> = (0..10).map(|n| blob(n, 20_000)).collect();
    made.back_up(dir.path(), 1, &blobs, false);

    let kept = made.back_up(dir.path(), 1, &blobs[1..], false);
    assert_eq!(kept.freed_bytes, 0);
    assert!(has(&Archive::open(dir.path()).unwrap(), &blobs[0]));

    let purged = made.back_up(dir.path(), 1, &blobs[1..], true);
    assert!(purged.freed_bytes > 20_000, "{purged:?}");
    let archive = Archive::open(dir.path()).unwrap();
    assert!(!has(&archive, &blobs[0]));
    assert!(blobs[1..].iter().all(|blob| has(&archive, blob)));
    let lies_somewhere = files(dir.path()).iter().any(|path| {
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(64).any(|part| part == &blobs[0][100..164])
    });
    assert!(!lies_somewhere);

    let freed = made.back_up(dir.path(), 1, &blobs[8..], false);
    assert!(freed.freed_bytes > 100_000, "{freed:?}");
    let archive = Archive::open(dir.path()).unwrap();
    assert!(has(&archive, &blobs[8]) && has(&archive, &blobs[9]));
    assert_eq!(archive.clock(), made.run(1, 1).clock);
    assert_eq!(archive.runs().unwrap().len(), 4);
    assert_eq!(archive.verify(|_| true).unwrap().flaws, []);
}

#[test]
fn many_small_runs_become_few_files_and_each_of_them_can_still_be_read() {
    let (made, dir) = (Made::with(40), tempfile::tempdir().unwrap());
    for upto in 1..=40 {
        made.back_up(dir.path(), upto, &[], false);
    }
    assert!(folder::pieces(dir.path()).unwrap().len() < 34);
    assert_eq!(folder::lists(dir.path()).unwrap().len(), 2);
    let archive = Archive::open(dir.path()).unwrap();
    let runs = archive.runs().unwrap();
    let expected: Vec<Run> = (1..=40).map(|number| made.run(number, number)).collect();
    assert_eq!(runs, expected);
    assert_eq!(archive.verify(|_| true).unwrap().flaws, []);
}

#[test]
fn a_run_torn_after_its_last_word_leaves_files_that_the_next_one_removes() {
    let (made, dir) = (Made::with(1), tempfile::tempdir().unwrap());
    let (old, new) = (blob(1, 9000), blob(2, 9000));
    made.back_up(dir.path(), 1, std::slice::from_ref(&old), false);
    let first = folder::piece_path(dir.path(), 1);
    let bytes = std::fs::read(&first).unwrap();
    made.back_up(dir.path(), 1, std::slice::from_ref(&new), true);
    assert!(!first.exists());
    // As if the disk had been pulled out before it was removed.
    std::fs::write(&first, bytes).unwrap();
    let archive = Archive::open(dir.path()).unwrap();
    assert!(!has(&archive, &old) && has(&archive, &new));
    made.back_up(dir.path(), 1, &[new], false);
    assert!(!first.exists());
}

#[test]
fn a_folder_of_somebody_else_is_refused_and_left_alone() {
    let (made, dir) = (Made::with(1), tempfile::tempdir().unwrap());
    let begin = |dir: &Path, vault| Writer::begin(dir, vault).map(drop);
    std::fs::write(dir.path().join("letter.txt"), "dear").unwrap();
    let refused = begin(dir.path(), made.vault).unwrap_err();
    assert!(matches!(refused, ArchiveError::NotABackup(_)), "{refused}");
    assert_eq!(files(dir.path()).len(), 1);

    let away = dir.path().join("not/there");
    assert!(matches!(
        begin(&away, made.vault),
        Err(ArchiveError::Io { .. })
    ));
    assert!(matches!(refusal(&away), ArchiveError::NotThere(_)));

    let mine = dir.path().join("mine");
    made.back_up(&mine, 1, &[], false);
    let before = files(&mine);
    let refused = begin(&mine, VaultId([1; 32])).unwrap_err();
    assert!(matches!(refused, ArchiveError::OtherVault(_)), "{refused}");
    assert_eq!(files(&mine), before);

    let one = Writer::begin(&mine, made.vault).unwrap();
    let refused = begin(&mine, made.vault).unwrap_err();
    assert!(matches!(refused, ArchiveError::InUse(_)), "{refused}");
    drop(one);
    begin(&mine, made.vault).unwrap();
}
