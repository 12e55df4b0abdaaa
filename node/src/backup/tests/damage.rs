//! Disks that changed, lost or made up bytes: what is wrong is named, what is right is read, nothing panics.

use std::fs;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::super::folder::{self, HEADER};
use super::*;

/// A small backup of two runs.
fn small(made: &Made, dir: &Path) {
    made.back_up(dir, 1, &[blob(1, 300)], false);
    made.back_up(dir, 2, &[blob(1, 300), blob(2, 200)], false);
}

#[test]
fn every_flipped_byte_is_named_with_its_file() {
    let (made, dir) = (Made::with(2), tempfile::tempdir().unwrap());
    small(&made, dir.path());
    let all: Vec<PathBuf> = files(dir.path())
        .into_iter()
        // The text for people says nothing to coffer; the older lists are only there in case.
        .filter(|path| !path.ends_with("README.TXT"))
        .collect();
    let position = (
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        0..8u8,
    );
    let mut runner = TestRunner::new(ProptestConfig::with_cases(400));
    let outcome = runner.run(&position, |(file, at, bit)| {
        let path = file.get(&all);
        let whole = fs::read(path).unwrap();
        let mut bytes = whole.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        fs::write(path, &bytes).unwrap();
        let found = Archive::open(dir.path()).and_then(|archive| archive.verify(|_| true));
        fs::write(path, whole).unwrap();
        let name = path.strip_prefix(dir.path()).unwrap().display().to_string();
        match found {
            Ok(found) => {
                let named = found.flaws.iter().any(|flaw| flaw.file == name);
                prop_assert!(named, "byte {at} of {name}: {:?}", found.flaws);
            }
            // A version that was made higher is that of a later program.
            Err(error) => prop_assert!(matches!(error, ArchiveError::Newer(_)), "{error}"),
        }
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn arbitrary_files_are_told_and_never_panic() {
    let (made, dir) = (Made::with(2), tempfile::tempdir().unwrap());
    small(&made, dir.path());
    let piece = folder::piece_path(dir.path(), 2);
    let lists = dir.path().join(folder::lists_name(2));
    let header = dir.path().join(HEADER);
    let whole = fs::read(&piece).unwrap();
    let some = || (any::<Vec<u8>>(), any::<prop::sample::Index>(), 0..4u8);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(200));
    let outcome = runner.run(&some(), |(foreign, cut, what)| {
        let target = [&piece, &piece, &lists, &header][usize::from(what)];
        let before = fs::read(target).unwrap();
        // Cut short with something else behind, or something else altogether.
        let mut bytes = match what {
            0 => whole[..cut.index(whole.len())].to_vec(),
            _ => Vec::new(),
        };
        bytes.extend_from_slice(&foreign);
        fs::write(target, bytes).unwrap();
        let found = Archive::open(dir.path());
        if let Ok(archive) = &found {
            let told = archive.verify(|_| true).unwrap();
            prop_assert!(!told.flaws.is_empty());
            archive.runs().unwrap();
            archive.grants().unwrap();
            prop_assert!(has(archive, &blob(1, 300)), "what is whole is not read");
        }
        fs::write(target, before).unwrap();
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn a_data_file_that_is_missing_is_named() {
    let (made, dir) = (Made::with(2), tempfile::tempdir().unwrap());
    small(&made, dir.path());
    fs::remove_file(folder::piece_path(dir.path(), 1)).unwrap();
    let found = Archive::open(dir.path()).unwrap().verify(|_| true).unwrap();
    let flaw = found
        .flaws
        .iter()
        .find(|flaw| flaw.file == "DATA/00000001.CBD");
    assert_eq!(flaw.unwrap().what, "it is missing");
}

#[test]
fn records_are_found_where_the_list_of_a_file_is_damaged() {
    let (made, dir) = (Made::with(2), tempfile::tempdir().unwrap());
    small(&made, dir.path());
    let path = folder::piece_path(dir.path(), 1);
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len() - 20;
    bytes[end] ^= 1;
    fs::write(&path, bytes).unwrap();
    let archive = Archive::open(dir.path()).unwrap();
    assert!(has(&archive, &blob(1, 300)));
    assert_eq!(archive.clock(), made.run(2, 2).clock);
    assert_eq!(archive.runs().unwrap().len(), 2);
    // Nothing of it is thrown away by a run that would.
    made.back_up(dir.path(), 2, &[blob(2, 200)], true);
    assert!(path.exists());
}

#[test]
fn a_backup_without_its_header_is_read_and_the_next_run_writes_it_anew() {
    let (made, dir) = (Made::with(2), tempfile::tempdir().unwrap());
    small(&made, dir.path());
    for damage in [None, Some("something else")] {
        match damage {
            None => fs::remove_file(dir.path().join(HEADER)).unwrap(),
            Some(text) => fs::write(dir.path().join(HEADER), text).unwrap(),
        }
        let archive = Archive::open(dir.path()).unwrap();
        assert_eq!(archive.vault(), made.vault);
        let found = archive.verify(|_| true).unwrap();
        assert_eq!(found.flaws.len(), 1, "{found:?}");
        made.back_up(dir.path(), 2, &[blob(1, 300), blob(2, 200)], false);
        let found = Archive::open(dir.path()).unwrap().verify(|_| true).unwrap();
        assert_eq!(found.flaws, []);
    }
}

#[test]
fn one_of_a_later_program_is_refused_as_newer() {
    let (made, dir) = (Made::with(1), tempfile::tempdir().unwrap());
    made.back_up(dir.path(), 1, &[], false);
    fs::write(dir.path().join(HEADER), "coffer backup 2\r\n").unwrap();
    assert!(matches!(refusal(dir.path()), ArchiveError::Newer(_)));
}
