//! Each kind of move: whichever device makes it and whatever the other does meanwhile, both trees are as expected in the
//! end, every file that was only moved is still itself, and no content was carried again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Side, carried, device, folder, meet, noticed, part};
use crate::device::{eventually, noise, tree, write};
use crate::folders::Synced;

/// Where a scenario happens: a folder of its own, on the side that moves.
struct Stage<'a> {
    dir: PathBuf,
    /// In the same file system, and not synced.
    outside: PathBuf,
    seed: u64,
    /// Waits until everybody who runs knows what was done so far.
    everybody_knows: &'a dyn Fn(),
}

impl Stage<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A new file whose content is like no other.
    fn file(&self, name: &str) {
        let seed = name.bytes().fold(self.seed, |seed, byte| {
            seed.wrapping_mul(31) + u64::from(byte)
        });
        write(&self.path(name), noise(seed, 9_000));
    }

    fn folder(&self, name: &str) {
        fs::create_dir_all(self.path(name)).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// Moves out of the synced folder, long enough for everybody to notice, and back in.
    fn out_and_back(&self, from: &str, to: &str, noticed: bool) {
        fs::rename(self.path(from), &self.outside).unwrap();
        if noticed {
            (self.everybody_knows)();
        }
        fs::rename(&self.outside, self.path(to)).unwrap();
    }
}

/// A kind of move.
struct Move {
    name: &'static str,
    /// What is there before.
    before: fn(&Stage<'_>),
    /// What is done.
    act: fn(&Stage<'_>),
    /// Paths before and after of what must go on being the same file or folder.
    same: &'static [(&'static str, &'static str)],
}

const MOVES: &[Move] = &[
    Move {
        name: "rename of a file",
        before: |stage| stage.file("a"),
        act: |stage| stage.rename("a", "b"),
        same: &[("a", "b")],
    },
    Move {
        name: "rename of a tree",
        before: |stage| (0..12).for_each(|n| stage.file(&format!("trip/day {}/{n}", n % 3))),
        act: |stage| stage.rename("trip", "journey"),
        same: &[
            ("trip", "journey"),
            ("trip/day 1", "journey/day 1"),
            ("trip/day 2/5", "journey/day 2/5"),
        ],
    },
    Move {
        name: "into another folder",
        before: |stage| {
            stage.file("a");
            stage.file("tree/deep/b");
            stage.folder("to");
        },
        act: |stage| {
            stage.rename("a", "to/a");
            stage.rename("tree", "to/new name");
            stage.folder("new");
            stage.rename("to/new name/deep/b", "new/b");
        },
        same: &[
            ("a", "to/a"),
            ("tree", "to/new name"),
            ("tree/deep", "to/new name/deep"),
            ("tree/deep/b", "new/b"),
        ],
    },
    Move {
        name: "swap of two files",
        before: |stage| {
            stage.file("a");
            stage.file("b");
        },
        act: |stage| {
            stage.rename("a", "x");
            stage.rename("b", "a");
            stage.rename("x", "b");
        },
        same: &[("a", "b"), ("b", "a")],
    },
    Move {
        name: "swap of two trees",
        before: |stage| {
            stage.file("a/1");
            stage.file("a/sub/2");
            stage.file("b/1");
        },
        act: |stage| {
            stage.rename("a", "x");
            stage.rename("b", "a");
            stage.rename("x", "b");
        },
        same: &[
            ("a", "b"),
            ("b", "a"),
            ("a/1", "b/1"),
            ("a/sub/2", "b/sub/2"),
            ("b/1", "a/1"),
        ],
    },
    Move {
        name: "swap across folders",
        before: |stage| {
            stage.file("p/a");
            stage.file("q/a");
        },
        act: |stage| {
            stage.rename("p/a", "p/x");
            stage.rename("q/a", "p/a");
            stage.rename("p/x", "q/a");
        },
        same: &[("p/a", "q/a"), ("q/a", "p/a")],
    },
    Move {
        name: "chain",
        before: |stage| ["a", "b", "c"].iter().for_each(|name| stage.file(name)),
        act: |stage| {
            stage.rename("c", "d");
            stage.rename("b", "c");
            stage.rename("a", "b");
        },
        same: &[("a", "b"), ("b", "c"), ("c", "d")],
    },
    Move {
        name: "ring",
        before: |stage| ["a", "b", "c"].iter().for_each(|name| stage.file(name)),
        act: |stage| {
            stage.rename("c", "x");
            stage.rename("b", "c");
            stage.rename("a", "b");
            stage.rename("x", "a");
        },
        same: &[("a", "b"), ("b", "c"), ("c", "a")],
    },
    Move {
        name: "cycle of folders",
        before: |stage| {
            stage.file("a/1");
            stage.file("a/b/2");
            stage.file("a/b/c/3");
        },
        act: |stage| {
            stage.rename("a/b/c", "c");
            stage.rename("a/b", "c/b");
            stage.rename("a", "c/b/a");
        },
        same: &[
            ("a", "c/b/a"),
            ("a/b", "c/b"),
            ("a/b/c", "c"),
            ("a/1", "c/b/a/1"),
            ("a/b/2", "c/b/2"),
            ("a/b/c/3", "c/3"),
        ],
    },
    Move {
        name: "names exchanged with a folder inside",
        before: |stage| {
            stage.file("a/a/1");
            stage.file("a/2");
        },
        act: |stage| {
            stage.rename("a/a", "x");
            stage.rename("a", "x/a");
            stage.rename("x", "a");
        },
        same: &[
            ("a/a", "a"),
            ("a", "a/a"),
            ("a/a/1", "a/1"),
            ("a/2", "a/a/2"),
        ],
    },
    Move {
        name: "file becomes a folder with it inside",
        before: |stage| stage.file("a"),
        act: |stage| {
            stage.rename("a", "x");
            stage.folder("a");
            stage.rename("x", "a/a");
        },
        same: &[("a", "a/a")],
    },
    Move {
        name: "file in a folder takes the folder's name",
        before: |stage| stage.file("a/a"),
        act: |stage| {
            stage.rename("a/a", "x");
            fs::remove_dir(stage.path("a")).unwrap();
            stage.rename("x", "a");
        },
        same: &[("a/a", "a")],
    },
    Move {
        name: "folder takes a file's name",
        before: |stage| {
            stage.file("a");
            stage.file("b/1");
        },
        act: |stage| {
            fs::remove_file(stage.path("a")).unwrap();
            stage.rename("b", "a");
        },
        same: &[("b", "a"), ("b/1", "a/1")],
    },
    Move {
        name: "file takes a folder's name",
        before: |stage| {
            stage.file("a");
            stage.file("b/1");
            stage.file("b/sub/2");
        },
        act: |stage| {
            fs::remove_dir_all(stage.path("b")).unwrap();
            stage.rename("a", "b");
        },
        same: &[("a", "b")],
    },
    Move {
        name: "over another file",
        before: |stage| {
            stage.file("a");
            stage.file("b");
            stage.file("sub/c");
            stage.file("d");
        },
        act: |stage| {
            stage.rename("a", "b");
            stage.rename("sub/c", "d");
        },
        same: &[("sub", "sub")],
    },
    Move {
        name: "out of the folder and back",
        before: |stage| {
            stage.file("a");
            stage.file("tree/1");
            stage.file("tree/sub/2");
        },
        act: |stage| {
            stage.out_and_back("a", "a", true);
            stage.out_and_back("tree", "tree", true);
        },
        same: &[],
    },
    Move {
        name: "out of the folder and back under another name",
        before: |stage| {
            stage.file("a");
            stage.file("tree/1");
            stage.file("tree/sub/2");
        },
        act: |stage| {
            stage.out_and_back("a", "b", true);
            stage.out_and_back("tree", "b tree", true);
        },
        same: &[],
    },
    Move {
        name: "out of the folder and back at once",
        before: |stage| {
            stage.file("a");
            stage.file("tree/1");
            stage.file("tree/sub/2");
        },
        act: |stage| {
            stage.out_and_back("a", "b", false);
            stage.out_and_back("tree", "to", false);
        },
        same: &[],
    },
    Move {
        name: "only the case of the name",
        before: |stage| {
            stage.file("letter.txt");
            stage.file("papers/1");
        },
        act: |stage| {
            stage.rename("letter.txt", "Letter.TXT");
            stage.rename("papers", "Papers");
        },
        same: &[
            ("letter.txt", "Letter.TXT"),
            ("papers", "Papers"),
            ("papers/1", "Papers/1"),
        ],
    },
    Move {
        name: "a copy is another file",
        before: |stage| stage.file("a"),
        act: |stage| {
            fs::copy(stage.path("a"), stage.path("b")).unwrap();
        },
        same: &[("a", "a")],
    },
];

/// What the other side does while one side moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    BothRun,
    OtherIsStopped,
    MoverIsStopped,
    /// Both run, without a connection.
    Apart,
}

/// Ids by path in the vault, below a folder.
fn ids(synced: &mut Synced, side: Side, base: &str) -> BTreeMap<String, String> {
    let below = format!("Documents/{base}");
    device(synced, side)
        .rows(&["file", "list", &below, "-r"])
        .iter()
        .map(|row| {
            let path = row["path"].as_str().unwrap();
            let path = path.strip_prefix(&below).unwrap_or(path);
            let id = row["id"].as_str().unwrap().to_owned();
            (path.trim_start_matches('/').to_owned(), id)
        })
        .collect()
}

/// Has `side` make these moves, each in a folder of its own below `base`.
fn play(synced: &mut Synced, side: Side, meanwhile: Meanwhile, base: &str, moves: &[Move]) {
    let top = folder(synced, side).join(base);
    let outside = device(synced, side).path("outside");
    each(&top, &outside, base, moves, &|| {}, |stage, played| {
        (played.before)(stage)
    });
    synced.settled();
    let before = ids(synced, side, base);
    let filled = carried(&synced.first) + carried(&synced.second);
    assert!(filled > 0, "the counter counts");
    let carried_before: u64 = match meanwhile {
        // Whoever is started anew counts from nothing.
        Meanwhile::Apart => 0,
        Meanwhile::BothRun => filled,
        Meanwhile::OtherIsStopped => carried(device(synced, side)),
        Meanwhile::MoverIsStopped => carried(device(synced, side.other())),
    };
    let mut ports = [0; 2];
    match meanwhile {
        Meanwhile::BothRun => {}
        Meanwhile::OtherIsStopped => device(synced, side.other()).stop(),
        Meanwhile::MoverIsStopped => device(synced, side).stop(),
        Meanwhile::Apart => ports = part(synced),
    }
    let everybody_knows = || match (meanwhile, side) {
        (Meanwhile::BothRun, _) => {
            synced.settled();
        }
        (Meanwhile::MoverIsStopped, _) => {}
        (_, Side::First) => noticed(&synced.first),
        (_, Side::Second) => noticed(&synced.second),
    };
    each(
        &top,
        &outside,
        base,
        moves,
        &everybody_knows,
        |stage, played| (played.act)(stage),
    );
    let expected = tree(&top);
    match meanwhile {
        Meanwhile::BothRun => {
            // Without a command: watching must be enough.
            let there = folder(synced, side.other()).join(base);
            eventually("the other side follows", || tree(&there) == expected);
        }
        Meanwhile::OtherIsStopped => {
            noticed(device(synced, side));
            device(synced, side.other()).start();
        }
        Meanwhile::MoverIsStopped => device(synced, side).start(),
        Meanwhile::Apart => {
            noticed(device(synced, side));
            meet(synced, ports);
        }
    }
    synced.settled();
    let context = format!("{side:?} moved, {meanwhile:?}");
    for side in Side::BOTH {
        same_tree(&folder(synced, side).join(base), &expected, &context);
    }
    assert!(synced.conflict_copies().is_empty(), "{context}");
    let carried_after = carried(&synced.first) + carried(&synced.second);
    assert_eq!(
        carried_after, carried_before,
        "contents were carried again: {context}"
    );
    let after = ids(synced, side, base);
    for played in moves {
        for (from, to) in played.same {
            let (from, to) = (
                format!("{}/{from}", played.name),
                format!("{}/{to}", played.name),
            );
            assert!(before.contains_key(&from), "{from} in {before:?}");
            assert_eq!(
                before.get(&from),
                after.get(&to),
                "{from} -> {to}: {context}"
            );
        }
    }
}

/// Does something in the folder of each of the moves.
fn each(
    top: &Path,
    outside: &Path,
    base: &str,
    moves: &[Move],
    everybody_knows: &dyn Fn(),
    mut what: impl FnMut(&Stage<'_>, &Move),
) {
    for played in moves {
        let dir = top.join(played.name);
        fs::create_dir_all(&dir).unwrap();
        let seed = format!("{base}/{}", played.name)
            .bytes()
            .fold(7, |seed: u64, byte| {
                seed.wrapping_mul(131) + u64::from(byte)
            });
        let stage = Stage {
            dir,
            outside: outside.to_path_buf(),
            seed,
            everybody_knows,
        };
        what(&stage, played);
    }
}

#[track_caller]
fn same_tree(dir: &Path, expected: &crate::folders::Tree, context: &str) {
    let found = tree(dir);
    if found != *expected {
        let differ: Vec<_> = found
            .iter()
            .filter(|(path, bytes)| expected.get(*path) != Some(bytes))
            .map(|(path, _)| format!("+{path}"))
            .chain(
                expected
                    .keys()
                    .filter(|path| !found.contains_key(*path))
                    .map(|path| format!("-{path}")),
            )
            .collect();
        panic!(
            "{} is not as it was left: {differ:?}; {context}",
            dir.display()
        );
    }
}

fn all_at_once(meanwhile: Meanwhile) {
    let mut synced = Synced::new(|_, _| {});
    for side in Side::BOTH {
        let base = format!("{side:?}");
        play(&mut synced, side, meanwhile, &base, MOVES);
    }
}

#[test]
fn each_kind_of_move_follows_by_itself_while_both_run() {
    let mut synced = Synced::new(|_, _| {});
    for (played, side) in MOVES.iter().zip(Side::BOTH.into_iter().cycle()) {
        play(
            &mut synced,
            side,
            Meanwhile::BothRun,
            "",
            std::slice::from_ref(played),
        );
    }
}

#[test]
fn all_kinds_of_moves_at_once_follow_from_either_side_while_both_run() {
    all_at_once(Meanwhile::BothRun);
}

#[test]
fn each_kind_of_move_follows_from_either_side_once_the_other_is_started() {
    all_at_once(Meanwhile::OtherIsStopped);
}

#[test]
fn each_kind_of_move_is_recognised_that_was_made_while_coffer_was_off() {
    all_at_once(Meanwhile::MoverIsStopped);
}

#[test]
fn each_kind_of_move_follows_from_either_side_once_the_two_meet_again() {
    all_at_once(Meanwhile::Apart);
}
