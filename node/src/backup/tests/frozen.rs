//! Bytes as they lie on disks since the first release: they never change meaning.

use std::fs;

use coffer_protocol::identity::DeviceId;

use super::super::folder::{self, HEADER};
use super::*;

const COFFER_TXT: &str = concat!(
    "coffer backup 1\r\n",
    "vault c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0\r\n",
    "check 742bb36f\r\n"
);
const DATA_FILE: &str = include_str!("frozen/data.hex");
const LISTS_FILE: &str = include_str!("frozen/lists.hex");

/// One run with one blob, by a device of a vault that says nothing of who is in it.
fn run(key: &DeviceKey) -> Run {
    let mut clock = Clock::new();
    let writer = WriterId {
        device: DeviceId([2; 32]),
        incarnation: 300,
    };
    clock.observe(writer, 1000, Hash([4; 32]));
    Run {
        version: 1,
        vault: VaultId([0xc0; 32]),
        device: key.id(),
        number: 1,
        at_ms: 1_795_000_000_000,
        clock,
        grants: 3,
        contents: 4,
        content_bytes: 500,
        missing: 6,
        missing_bytes: 700,
        missing_earlier: 8,
    }
}

/// Hexadecimal digits that were broken into lines.
fn of_lines(text: &str) -> String {
    text.split_whitespace().collect()
}

#[test]
fn a_backup_of_version_1() {
    let key = DeviceKey::from_secret([5; 32]);
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::begin(dir.path(), VaultId([0xc0; 32])).unwrap();
    writer.blob(piece::hash(b"a blob"), b"a blob").unwrap();
    writer.end(run(&key), 8, &key, None, false).unwrap();
    let read = |path: PathBuf| hex::encode(fs::read(path).unwrap());
    let header = fs::read_to_string(dir.path().join(HEADER)).unwrap();
    let written = (
        header,
        read(folder::piece_path(dir.path(), 1)),
        read(dir.path().join(folder::lists_name(1))),
    );
    let (data, lists) = (of_lines(DATA_FILE), of_lines(LISTS_FILE));
    assert_eq!(
        written,
        (COFFER_TXT.to_owned(), data.clone(), lists.clone())
    );

    let old = tempfile::tempdir().unwrap();
    fs::create_dir(old.path().join("DATA")).unwrap();
    let write = |path: PathBuf, text: &str| fs::write(path, hex::decode(text).unwrap()).unwrap();
    fs::write(old.path().join(HEADER), COFFER_TXT).unwrap();
    write(folder::piece_path(old.path(), 1), &data);
    write(old.path().join(folder::lists_name(1)), &lists);
    let archive = Archive::open(old.path()).unwrap();
    assert_eq!(archive.runs().unwrap(), [run(&key)]);
    assert!(has(&archive, b"a blob"));
    assert_eq!(archive.lists.as_ref().unwrap().value().purged, 8);
}
