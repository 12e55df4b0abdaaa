//! Two devices did something to the same files while they were apart. When they meet, nothing is lost, both show the
//! same, and copies are made only where two contents want one name.

use std::fs;
use std::path::Path;

use super::{Side, folder, meet, noticed, part};
use crate::device::{noise, tree, write};
use crate::folders::{Synced, Tree};

/// What one and what the other did, and what is to come of it.
struct Meeting {
    name: &'static str,
    /// Files before; their content is their name.
    before: &'static [&'static str],
    one: fn(&Path),
    other: fn(&Path),
    /// What both show in the end; names of conflict copies have `(conflict)` for the device and date.
    after: &'static [(&'static str, &'static str)],
    /// What may come of it as well, where the two are alike and their clocks decide.
    or: &'static [(&'static str, &'static str)],
}

const MEETINGS: &[Meeting] = &[
    Meeting {
        name: "deleted here, edited there",
        before: &["a", "b"],
        one: |dir| fs::remove_file(dir.join("a")).unwrap(),
        other: |dir| write(&dir.join("a"), "edited"),
        after: &[("a", "edited"), ("b", "b")],
        or: &[],
    },
    Meeting {
        name: "folder deleted here, one added inside there",
        before: &["d/a", "d/sub/b", "keep"],
        one: |dir| fs::remove_dir_all(dir.join("d")).unwrap(),
        other: |dir| write(&dir.join("d/sub/new"), "new"),
        after: &[("d/sub/new", "new"), ("keep", "keep")],
        or: &[],
    },
    Meeting {
        name: "folder deleted here, one edited inside there",
        before: &["d/a", "d/sub/b"],
        one: |dir| fs::remove_dir_all(dir.join("d")).unwrap(),
        other: |dir| write(&dir.join("d/sub/b"), "edited"),
        after: &[("d/sub/b", "edited")],
        or: &[],
    },
    Meeting {
        name: "moved here, edited there",
        before: &["a", "to/x"],
        one: |dir| fs::rename(dir.join("a"), dir.join("to/b")).unwrap(),
        other: |dir| write(&dir.join("a"), "edited"),
        after: &[("to/b", "edited"), ("to/x", "to/x")],
        or: &[],
    },
    Meeting {
        name: "swapped here, one edited there",
        before: &["a", "b"],
        one: |dir| {
            fs::rename(dir.join("a"), dir.join("x")).unwrap();
            fs::rename(dir.join("b"), dir.join("a")).unwrap();
            fs::rename(dir.join("x"), dir.join("b")).unwrap();
        },
        other: |dir| write(&dir.join("a"), "edited"),
        after: &[("a", "b"), ("b", "edited")],
        or: &[],
    },
    Meeting {
        name: "renamed here and there",
        before: &["a"],
        one: |dir| fs::rename(dir.join("a"), dir.join("b")).unwrap(),
        other: |dir| fs::rename(dir.join("a"), dir.join("c")).unwrap(),
        after: &[("b", "a")],
        or: &[("c", "a")],
    },
    Meeting {
        name: "each folder into the other",
        before: &["a/1", "b/2"],
        one: |dir| fs::rename(dir.join("a"), dir.join("b/a")).unwrap(),
        other: |dir| fs::rename(dir.join("b"), dir.join("a/b")).unwrap(),
        after: &[("b/2", "b/2"), ("b/a/1", "a/1")],
        or: &[("a/1", "a/1"), ("a/b/2", "b/2")],
    },
    Meeting {
        name: "replaced by a folder here, edited there",
        before: &["a"],
        one: |dir| {
            fs::remove_file(dir.join("a")).unwrap();
            write(&dir.join("a/inside"), "inside");
        },
        other: |dir| write(&dir.join("a"), "edited"),
        after: &[("a (conflict)", "edited"), ("a/inside", "inside")],
        or: &[("a", "edited"), ("a (conflict)/inside", "inside")],
    },
    Meeting {
        name: "deleted here and there",
        before: &["a", "d/b"],
        one: |dir| {
            fs::remove_file(dir.join("a")).unwrap();
            fs::remove_dir_all(dir.join("d")).unwrap();
        },
        other: |dir| {
            fs::remove_file(dir.join("a")).unwrap();
            fs::remove_dir_all(dir.join("d")).unwrap();
        },
        after: &[],
        or: &[],
    },
    Meeting {
        name: "the same written here and there",
        before: &["old"],
        one: |dir| {
            write(&dir.join("new"), "same");
            write(&dir.join("old"), "same as well");
        },
        other: |dir| {
            write(&dir.join("new"), "same");
            write(&dir.join("old"), "same as well");
        },
        after: &[("new", "same"), ("old", "same as well")],
        or: &[],
    },
    Meeting {
        name: "twins by case",
        before: &[],
        one: |dir| write(&dir.join("Letter"), "large"),
        other: |dir| write(&dir.join("letter"), "small"),
        after: &[("Letter", "large"), ("letter", "small")],
        or: &[],
    },
    Meeting {
        name: "twins by spelling",
        before: &[],
        one: |dir| write(&dir.join("caf\u{e9}"), "one letter"),
        other: |dir| write(&dir.join("cafe\u{301}"), "letter and accent"),
        after: &[
            ("cafe\u{301}", "letter and accent"),
            ("caf\u{e9}", "one letter"),
        ],
        or: &[],
    },
    Meeting {
        name: "renamed by case here, edited there",
        before: &["letter"],
        one: |dir| fs::rename(dir.join("letter"), dir.join("Letter")).unwrap(),
        other: |dir| write(&dir.join("letter"), "edited"),
        after: &[("Letter", "edited")],
        or: &[],
    },
    Meeting {
        name: "two new files of one name",
        before: &[],
        one: |dir| write(&dir.join("n.txt"), "from one"),
        other: |dir| write(&dir.join("n.txt"), "from the other"),
        after: &[
            ("n (conflict).txt", "from one"),
            ("n.txt", "from the other"),
        ],
        or: &[
            ("n (conflict).txt", "from the other"),
            ("n.txt", "from one"),
        ],
    },
];

/// Files and their texts, with the device and date of conflict copies left out; folders only where they are empty.
fn shown(dir: &Path) -> Vec<(String, String)> {
    let found: Tree = tree(dir);
    let mut shown: Vec<_> = found
        .iter()
        .filter(|(path, bytes)| {
            let inside = format!("{path}/");
            bytes.is_some() || !found.keys().any(|other| other.starts_with(&inside))
        })
        .map(|(path, bytes)| {
            let path = match (path.find("(conflict from"), path.find(')')) {
                (Some(from), Some(to)) => format!("{}(conflict{}", &path[..from], &path[to..]),
                _ => path.clone(),
            };
            let text = bytes.as_ref().map_or("a folder".into(), |bytes| {
                String::from_utf8_lossy(bytes).into_owned()
            });
            (path, text)
        })
        .collect();
    shown.sort();
    shown
}

#[test]
fn what_two_devices_did_apart_meets_without_loss_from_either_side() {
    let mut synced = Synced::new(|_, _| {});
    let dir = |synced: &Synced, side: Side, one: Side, meeting: &Meeting| {
        folder(synced, side).join(format!("{one:?} {}", meeting.name))
    };
    for one in Side::BOTH {
        for meeting in MEETINGS {
            let dir = dir(&synced, Side::First, one, meeting);
            fs::create_dir(&dir).unwrap();
            for name in meeting.before {
                write(&dir.join(name), name);
            }
        }
    }
    synced.settled();
    let ports = part(&mut synced);
    for one in Side::BOTH {
        for meeting in MEETINGS {
            (meeting.one)(&dir(&synced, one, one, meeting));
            (meeting.other)(&dir(&synced, one.other(), one, meeting));
        }
    }
    noticed(&synced.first);
    noticed(&synced.second);
    meet(&mut synced, ports);
    synced.settled();
    let mut wrong = Vec::new();
    for one in Side::BOTH {
        for meeting in MEETINGS {
            let found = shown(&dir(&synced, Side::First, one, meeting));
            let is = |expected: &[(&str, &str)]| {
                expected.len() == found.len()
                    && expected
                        .iter()
                        .zip(&found)
                        .all(|(expected, found)| *expected == (&*found.0, &*found.1))
            };
            if !is(meeting.after) && (meeting.or.is_empty() || !is(meeting.or)) {
                wrong.push((one, meeting.name, found));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_was_deleted_is_restored_from_either_side_with_its_tree_and_identity() {
    let synced = Synced::new(|here, _| {
        for n in 0..4 {
            write(&here.join(format!("d/{}/{n}", n % 2)), noise(n, 9_000));
        }
        write(&here.join("taken.txt"), noise(9, 9_000));
    });
    let before = tree(&synced.here);
    let ids = || {
        let rows = synced.first.rows(&["file", "list", "Documents", "-r"]);
        rows.iter()
            .map(|row| (row["path"].to_string(), row["id"].to_string()))
            .collect::<Vec<_>>()
    };
    let ids_before = ids();
    for (deletes, restores, dir) in [
        (&synced.first, &synced.second, &synced.here),
        (&synced.second, &synced.first, &synced.there),
    ] {
        // In one step: of a folder that is emptied file by file, the files may go to the trash each for itself.
        fs::rename(dir.join("d"), deletes.path("thrown away")).unwrap();
        fs::remove_dir_all(deletes.path("thrown away")).unwrap();
        fs::remove_file(dir.join("taken.txt")).unwrap();
        noticed(deletes);
        assert!(synced.settled().is_empty());
        restores.ok(&["file", "restore", "Documents/d"]);
        restores.ok(&["file", "restore", "Documents/taken.txt"]);
        assert_eq!(
            synced.settled().keys().collect::<Vec<_>>(),
            before.keys().collect::<Vec<_>>()
        );
        assert_eq!(tree(&synced.here), before);
        assert_eq!(ids(), ids_before);
    }
    // Its name is taken by now: both stay.
    fs::remove_file(synced.here.join("taken.txt")).unwrap();
    synced.settled();
    write(&synced.here.join("taken.txt"), "another");
    synced.settled();
    synced
        .second
        .ok(&["file", "restore", "Documents/taken.txt"]);
    let after = synced.settled();
    let old = noise(9, 9_000);
    let names = |bytes: &[u8]| {
        after
            .iter()
            .filter(|(_, found)| found.as_deref() == Some(bytes))
            .count()
    };
    assert_eq!(
        (names(&old), names(b"another")),
        (1, 1),
        "{:?}",
        after.keys()
    );
}
