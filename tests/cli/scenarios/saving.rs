//! How programs save a file, and files that grow while they are read.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Side, device, folder, noticed};
use crate::device::{eventually, noise, write};
use crate::folders::Synced;

/// A way to save.
struct Habit {
    name: &'static str,
    /// Puts new bytes into `f` of a folder.
    save: fn(&Path, &[u8]),
}

fn rename(dir: &Path, from: &str, to: &str) {
    fs::rename(dir.join(from), dir.join(to)).unwrap();
}

const HABITS: &[Habit] = &[
    Habit {
        name: "in place (nano)",
        save: |dir, bytes| write(&dir.join("f"), bytes),
    },
    Habit {
        name: "piece by piece in place (cp, downloads)",
        save: |dir, bytes| {
            let mut file = fs::File::create(dir.join("f")).unwrap();
            for piece in bytes.chunks(bytes.len() / 5 + 1) {
                file.write_all(piece).unwrap();
                file.sync_all().unwrap();
            }
        },
    },
    Habit {
        name: "another file renamed over it",
        save: |dir, bytes| {
            write(&dir.join(".f.tmp"), bytes);
            rename(dir, ".f.tmp", "f");
        },
    },
    Habit {
        name: "backup, then a new file (vim)",
        save: |dir, bytes| {
            write(&dir.join("4913"), "");
            fs::remove_file(dir.join("4913")).unwrap();
            rename(dir, "f", "f~");
            write(&dir.join("f"), bytes);
            fs::remove_file(dir.join("f~")).unwrap();
        },
    },
    Habit {
        name: "backup that stays (emacs)",
        save: |dir, bytes| {
            write(&dir.join("#f#"), bytes);
            rename(dir, "f", "f~");
            write(&dir.join("f"), bytes);
            fs::remove_file(dir.join("#f#")).unwrap();
        },
    },
    Habit {
        name: "stream, backup, rename (gedit)",
        save: |dir, bytes| {
            write(&dir.join(".goutputstream-A1B2C3"), bytes);
            let _ = fs::remove_file(dir.join("f~"));
            fs::hard_link(dir.join("f"), dir.join("f~")).unwrap();
            rename(dir, ".goutputstream-A1B2C3", "f");
            fs::remove_file(dir.join("f~")).unwrap();
        },
    },
    Habit {
        name: "lock, temporary file, rename (LibreOffice)",
        save: |dir, bytes| {
            write(&dir.join(".~lock.f#"), ",somebody,somewhere;");
            write(&dir.join("lu17542w.tmp"), bytes);
            fs::remove_file(dir.join("f")).unwrap();
            rename(dir, "lu17542w.tmp", "f");
            fs::remove_file(dir.join(".~lock.f#")).unwrap();
        },
    },
    Habit {
        name: "two renames (Word)",
        save: |dir, bytes| {
            write(&dir.join("~WRD0001.tmp"), bytes);
            rename(dir, "f", "~WRL0002.tmp");
            rename(dir, "~WRD0001.tmp", "f");
            fs::remove_file(dir.join("~WRL0002.tmp")).unwrap();
        },
    },
    Habit {
        name: "deleted and written anew",
        save: |dir, bytes| {
            fs::remove_file(dir.join("f")).unwrap();
            write(&dir.join("f"), bytes);
        },
    },
];

/// Ids of the files that were saved.
fn ids(synced: &Synced, top: &str) -> Vec<String> {
    HABITS
        .iter()
        .map(|habit| {
            let path = format!("Documents/{top}/{}/f", habit.name);
            synced.first.row(&["file", "list", &path])["id"].to_string()
        })
        .collect()
}

#[test]
fn however_a_program_saves_it_is_the_same_file_with_the_new_bytes() {
    let mut synced = Synced::new(|_, _| {});
    for side in Side::BOTH {
        let top = format!("{side:?}");
        let (here, there) = (
            folder(&synced, side).join(&top),
            folder(&synced, side.other()).join(&top),
        );
        let bytes = |habit: usize, version: u64| noise(version * 100 + habit as u64, 6_000);
        for (n, habit) in HABITS.iter().enumerate() {
            write(&here.join(habit.name).join("f"), bytes(n, 0));
        }
        synced.settled();
        let before = ids(&synced, &top);
        for version in 1..=3 {
            for (n, habit) in HABITS.iter().enumerate() {
                (habit.save)(&here.join(habit.name), &bytes(n, version));
            }
            eventually("what was saved is on the other side", || {
                HABITS.iter().enumerate().all(|(n, habit)| {
                    fs::read(there.join(habit.name).join("f"))
                        .is_ok_and(|found| found == bytes(n, version))
                })
            });
        }
        // So quick that several fall into one look.
        for version in 4..=9 {
            for (n, habit) in HABITS.iter().enumerate() {
                (habit.save)(&here.join(habit.name), &bytes(n, version));
            }
        }
        noticed(device(&mut synced, side));
        synced.settled();
        for (n, habit) in HABITS.iter().enumerate() {
            for dir in [&here, &there] {
                let found = fs::read(dir.join(habit.name).join("f")).unwrap();
                assert!(found == bytes(n, 9), "{} by {side:?}", habit.name);
            }
        }
        assert_eq!(
            ids(&synced, &top),
            before,
            "{:?}",
            HABITS.iter().map(|habit| habit.name).collect::<Vec<_>>()
        );
        assert!(
            synced.conflict_copies().is_empty(),
            "{:?}",
            synced.conflict_copies()
        );
    }
}

#[test]
fn a_file_that_is_being_written_never_shows_half_on_the_other_side() {
    /// How long a file is left alone before it counts as at rest although nobody closed it; a little less, for a test
    /// that was held up itself.
    const ALONE: Duration = Duration::from_millis(900);
    let synced = Synced::new(|_, _| {});
    let whole = noise(1, 1_200_000);
    for (written, shown) in [
        (synced.here.join("log.bin"), synced.there.join("log.bin")),
        (synced.there.join("log2.bin"), synced.here.join("log2.bin")),
    ] {
        // Lengths at which it was closed, or left alone for so long.
        let rested = Arc::new(Mutex::new(vec![0]));
        let done = Arc::new(AtomicBool::new(false));
        let writer = std::thread::spawn({
            let (rested, done, whole) = (rested.clone(), done.clone(), whole.clone());
            move || {
                let mut length = 0;
                // Some are long, some are over at once; between them it is closed only for a moment.
                for (round, pieces) in [40, 3, 1, 25, 1, 2].into_iter().enumerate() {
                    let mut file = fs::File::options()
                        .create(true)
                        .append(true)
                        .open(&written)
                        .unwrap();
                    let mut last = Instant::now();
                    for piece in 0..pieces {
                        let upto = (length + 4_000 + piece * 333).min(whole.len());
                        if last.elapsed() >= ALONE {
                            rested.lock().unwrap().push(length);
                        }
                        last = Instant::now();
                        file.write_all(&whole[length..upto]).unwrap();
                        length = upto;
                        pace(Duration::from_millis(if round == 3 { 60 } else { 25 }));
                    }
                    // Noted before it is so: whoever sees it sees it later.
                    rested.lock().unwrap().push(length);
                    drop(file);
                }
                done.store(true, Ordering::Release);
                length
            }
        });
        let mut seen = Vec::new();
        let mut look = || {
            let Ok(found) = fs::read(&shown) else {
                return 0;
            };
            assert!(whole.starts_with(&found), "other bytes than were written");
            assert!(
                rested.lock().unwrap().contains(&found.len()),
                "{} bytes are shown; at rest it was with {:?}",
                found.len(),
                rested.lock().unwrap()
            );
            if seen.last() != Some(&found.len()) {
                seen.push(found.len());
            }
            found.len()
        };
        while !done.load(Ordering::Acquire) {
            look();
            std::thread::yield_now();
        }
        let length = writer.join().unwrap();
        eventually("all of it is there", || look() == length);
    }
    synced.settled();
    assert!(synced.conflict_copies().is_empty());
}

/// The writer's own pace: part of what is played, not of waiting for anything.
fn pace(time: Duration) {
    std::thread::sleep(time);
}

#[test]
fn a_large_file_appears_whole_or_not_at_all_and_is_replaced_in_one_step() {
    let synced = Synced::new(|_, _| {});
    let (here, there) = (
        synced.here.join("large.bin"),
        synced.there.join("large.bin"),
    );
    let versions = [noise(1, 24_000_000), noise(2, 16_000_000)];
    for (n, version) in versions.iter().enumerate() {
        write(&here, version);
        let is_whole = |path: &PathBuf| match fs::metadata(path) {
            Ok(found) => {
                let length = usize::try_from(found.len()).unwrap();
                assert!(
                    versions[..=n].iter().any(|version| version.len() == length),
                    "{length} bytes are visible"
                );
                length == version.len()
            }
            // It is not there before it comes the first time; afterwards it always is.
            Err(_) => {
                assert_eq!(n, 0, "there was a moment without the file");
                false
            }
        };
        let begun = Instant::now();
        while !is_whole(&there) {
            assert!(begun.elapsed() < crate::device::SOON);
            std::thread::yield_now();
        }
        assert!(fs::read(&there).unwrap() == *version);
    }
    synced.settled();
}
