//! `kill -9` again and again, while files come and change on both sides: in the end both devices have the same, nothing
//! that was acknowledged is lost, and nothing is left lying about.
//!
//! `COFFER_KILLS=100 cargo test -p coffer --test program -- kills` kills a hundred times; usually it is a few.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Side, device, folder, setting};
use crate::device::{Device, noise, tree, write};
use crate::folders::Synced;

/// How often a node is killed if nobody says otherwise.
const USUAL_KILLS: u64 = 8;
/// Where the random numbers begin if nobody says otherwise.
const USUAL_SEED: u64 = 22;
/// Small files that exist at a time on each side, at most.
const FILES: u64 = 400;

/// Random numbers from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

type Files = BTreeMap<String, Vec<u8>>;

/// Somebody who works in a folder of their own, whatever happens to the node: bursts of new files, and one edited over
/// and over, saved in several ways. Gives what the folder must hold in the end.
fn work(dir: PathBuf, seed: u64, stop: Arc<AtomicBool>) -> JoinHandle<Files> {
    std::thread::spawn(move || {
        let mut dice = Dice(seed);
        let mut files = Files::new();
        let mut step = 0;
        while !stop.load(Ordering::Acquire) {
            step += 1;
            let name = format!("{}/{}.txt", dice.roll(8), dice.roll(FILES / 8));
            let length = 200 + usize::try_from(dice.roll(12_000)).expect("it is small");
            let bytes = noise(seed ^ step, length);
            match dice.roll(10) {
                0..6 => {
                    write(&dir.join(&name), &bytes);
                    files.insert(name, bytes);
                }
                6 => {
                    write(&dir.join(".saving"), &bytes);
                    fs::create_dir_all(dir.join(&name).parent().expect("a folder")).unwrap();
                    fs::rename(dir.join(".saving"), dir.join(&name)).unwrap();
                    files.insert(name, bytes);
                }
                7 => {
                    if let Some((old, bytes)) = files.pop_first() {
                        let new = format!("{}/moved {}.txt", dice.roll(8), dice.roll(FILES));
                        fs::create_dir_all(dir.join(&new).parent().expect("a folder")).unwrap();
                        fs::rename(dir.join(old), dir.join(&new)).unwrap();
                        files.insert(new, bytes);
                    }
                }
                8 => {
                    if files.remove(&name).is_some() {
                        fs::remove_file(dir.join(name)).unwrap();
                    }
                }
                _ => {
                    write(&dir.join("edited.txt"), &bytes);
                    files.insert("edited.txt".into(), bytes);
                }
            }
            // The pace of a busy program, with a pause now and then in which all may come to rest.
            let pause_ms = if step % 200 == 0 { 400 } else { 3 };
            std::thread::sleep(Duration::from_millis(pause_ms));
        }
        files
    })
}

/// Files below a folder, without folders.
fn files(dir: &Path) -> Files {
    tree(dir)
        .into_iter()
        .filter_map(|(path, bytes)| Some((path, bytes?)))
        .collect()
}

/// Writes a document and gives its id if it was acknowledged.
fn put(device: &Device, number: u64) -> Option<String> {
    let id = format!("d{number}");
    let value = format!("{{\"n\":{number}}}");
    let outcome = device.run(&["doc", "put", "kills", &id, &value]);
    (outcome.code == Some(0)).then_some(id)
}

/// Adds a file to the vault and gives its path there if it was acknowledged.
fn add(device: &Device, number: u64) -> Option<(String, Vec<u8>)> {
    let bytes = noise(1_000_000 + number, 60_000);
    let (file, path) = (device.path("added.bin"), format!("added/{number}"));
    write(&file, &bytes);
    let outcome = device.run(&["file", "add", file.to_str()?, "--to", &path]);
    (outcome.code == Some(0)).then_some((path, bytes))
}

/// Starts a node and kills it before it can say that it is ready, or shortly after.
fn start_in_vain(device: &Device, after: Duration) {
    let port = device.port().to_string();
    let mut node = device
        .command(&[
            "start",
            "--listen",
            "127.0.0.1",
            "--no-discovery",
            "--port",
            &port,
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("coffer starts");
    std::thread::sleep(after);
    node.kill().expect("it can be killed");
    node.wait().expect("it ends");
}

/// Nothing unfinished lies in the hidden folder, nothing is reported that a person would have to see to, and a check of
/// everything finds nothing.
fn is_clean(device: &Device, dir: &Path) {
    let report = device.row(&["check"]);
    assert_eq!(report["damaged_count"], 0, "{report}");
    let status = device.status();
    assert_eq!(status["folders"][0]["error_count"], 0, "{status}");
    assert_eq!(status["missing_here"]["files"], 0, "{status}");
    assert_eq!(status["missing_here"]["changes"], 0, "{status}");
    let names = |folder: &str| -> Vec<String> {
        let names = fs::read_dir(dir.join(".vault").join(folder)).unwrap();
        names
            .map(|name| name.unwrap().file_name().to_string_lossy().into_owned())
            .collect()
    };
    let parked: Vec<_> = names("tmp")
        .into_iter()
        .filter(|name| name.starts_with("park-"))
        .collect();
    assert!(parked.is_empty(), "{parked:?}");
    let pending: Vec<_> = names("kept")
        .into_iter()
        .filter(|name| name.ends_with(".pending"))
        .collect();
    assert!(pending.is_empty(), "{pending:?}");
}

#[test]
fn killed_again_and_again_both_devices_end_with_the_same_and_nothing_is_lost() {
    let kills = setting("COFFER_KILLS", USUAL_KILLS);
    let seed = setting("COFFER_KILLS_SEED", USUAL_SEED);
    println!("{kills} kills with COFFER_KILLS_SEED={seed}");
    let mut dice = Dice(seed);
    let mut synced = Synced::new(|here, _| {
        for dir in ["First", "Second"] {
            fs::create_dir(here.join(dir)).unwrap();
        }
    });
    let stop = Arc::new(AtomicBool::new(false));
    let workers = Side::BOTH.map(|side| {
        let dir = folder(&synced, side).join(format!("{side:?}"));
        work(dir, seed + side as u64 + 1, stop.clone())
    });
    let (mut acknowledged, mut added) = (Vec::new(), Vec::new());
    for round in 0..kills {
        let side = Side::BOTH[usize::try_from(round % 2).expect("one of two")];
        let node = device(&mut synced, side);
        acknowledged.extend(put(node, 2 * round));
        added.extend(add(node, 2 * round));
        std::thread::sleep(Duration::from_millis(dice.roll(1500)));
        node.kill();
        if dice.roll(3) == 0 {
            start_in_vain(node, Duration::from_millis(dice.roll(600)));
        }
        node.start();
        let other = device(&mut synced, side.other());
        acknowledged.extend(put(other, 2 * round + 1));
        added.extend(add(other, 2 * round + 1));
        if round % 8 == 7 {
            // Now and then all has time to come across, so that the next kills meet something new.
            synced
                .first
                .run(&["status", "--wait", "connected", "--timeout", "20"]);
        }
    }
    stop.store(true, Ordering::Release);
    let expected = workers.map(|worker| worker.join().expect("a worker"));
    synced.settled();
    for (side, expected) in Side::BOTH.into_iter().zip(&expected) {
        for dir in [&synced.here, &synced.there] {
            let found = files(&dir.join(format!("{side:?}")));
            let lost: Vec<_> = expected
                .iter()
                .filter(|(path, bytes)| found.get(*path) != Some(bytes))
                .map(|(path, _)| path)
                .collect();
            let strange: Vec<_> = found
                .keys()
                .filter(|path| !expected.contains_key(*path))
                .collect();
            assert!(
                lost.is_empty() && strange.is_empty(),
                "{}: lost or changed {lost:?}, and too many {strange:?}; seed {seed}",
                dir.display()
            );
        }
    }
    assert!(!acknowledged.is_empty() && !added.is_empty());
    for node in [&synced.first, &synced.second] {
        for id in &acknowledged {
            node.ok(&["doc", "get", "kills", id]);
        }
        for (path, bytes) in &added {
            let copy = node.path(path);
            fs::create_dir_all(node.path("added")).unwrap();
            node.ok(&["file", "get", path, copy.to_str().unwrap()]);
            assert!(
                fs::read(&copy).unwrap() == *bytes,
                "{path} on {}",
                node.name
            );
        }
    }
    is_clean(&synced.first, &synced.here);
    is_clean(&synced.second, &synced.there);
}
