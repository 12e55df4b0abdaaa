//! The seeded simulation of whole fleets: see `coffer_tests` for what a run does and checks.
//!
//! Hunting longer, and reading what happened in one run:
//! ```text
//! COFFER_SIM_MINUTES=60 cargo test -p coffer-tests --test simulation fleets -- --nocapture
//! COFFER_SIM_SEEDS=7..8 COFFER_SIM_STORY=100000 cargo test -p coffer-tests --test simulation fleets -- --nocapture
//! ```

use coffer_tests::acts::WEIGHTS;
use coffer_tests::coverage::Coverage;
use coffer_tests::run;
use coffer_tests::seeds::{self, Seeds};

/// Seeds that every run of the suite does.
const SEEDS: std::ops::Range<u64> = 0..40;

/// Seeds that found a bug, with what it was. They are run with the others.
const FOUND: [(u64, &str); 5] = [
    (
        4,
        "a deletion that had not seen a file's newest bytes made the device not want them",
    ),
    (
        39,
        "typing into one of two texts that were begun apart was lost when somebody else united them",
    ),
    (
        53,
        "a statement of what is held was made before bytes were lost in the same commit",
    ),
    (
        2188,
        "one file's bytes came as another's were lost: the number was the same, and the statement stayed",
    ),
    (
        1149,
        "(of the oracle) a trashed file that shows as another needs no bytes of its own",
    ),
];

/// What the seeds of the suite must hit at least: about a quarter of what they do hit, so that an innocent change which
/// shifts the dice does not fail, and one that makes a case unreachable does.
const MINIMA: [(&str, &str, u64); 75] = [
    ("operation", "put", 100),
    ("operation", "merge fields", 100),
    ("operation", "type", 200),
    ("operation", "erase", 30),
    ("operation", "delete", 25),
    ("operation", "purge", 9),
    ("operation", "refused as purged", 1),
    ("operation", "large put", 30),
    ("operation", "create folder", 60),
    ("operation", "create file", 100),
    ("operation", "create link", 30),
    ("operation", "move", 80),
    ("operation", "rename", 60),
    ("operation", "content", 80),
    ("operation", "trash", 50),
    ("operation", "restore", 25),
    ("operation", "merge", 8),
    ("operation", "batch", 60),
    ("operation", "bytes arrived", 40),
    ("operation", "bytes displaced", 12),
    ("operation", "refused", 40),
    ("operation", "prune feed", 10),
    ("conflict", "same field", 300),
    ("conflict", "same text", 900),
    ("conflict", "created twice", 200),
    ("conflict", "delete vs edit", 80),
    ("conflict", "same name", 60),
    ("conflict", "shown as one", 25),
    ("conflict", "cycle", 3),
    ("conflict", "trash vs edit", 60),
    ("conflict", "survives its trash", 12),
    ("conflict", "concurrent content", 25),
    ("conflict", "concurrent moves", 40),
    ("conflict", "concurrent trash and restore", 15),
    ("crash", "killed", 20),
    ("crash", "power lost, nothing unsynced kept", 20),
    ("crash", "power lost, some writes kept", 20),
    ("crash", "power lost, some sectors kept", 20),
    ("crash point", "while opening", 15),
    ("crash point", "at rest", 20),
    ("crash point", "before the batch", 10),
    ("crash point", "in a read, between begin and commit", 5),
    ("crash point", "in a write of a commit", 15),
    ("crash point", "in the sync of a commit", 8),
    ("crash point", "while the file grows", 4),
    ("crash point", "after the commit, before the answers", 3),
    ("fault", "partition", 20),
    ("fault", "connection cut", 20),
    ("fault", "message duplicated", 30),
    ("fault", "messages reordered", 20),
    ("fault", "message lost", 20),
    ("fault", "entry forged", 10),
    ("fault", "messages withheld", 30),
    ("fault", "messages released", 8),
    ("fault", "clean restart", 25),
    ("fault", "copied data folder", 8),
    ("fault", "device admitted", 8),
    ("fault", "told that the disk is full", 20),
    ("membership", "revoke", 30),
    ("membership", "mutual revocation", 2),
    ("membership", "role", 8),
    ("membership", "rotate", 16),
    ("membership", "admitted by who was put out", 15),
    ("membership", "written before it was learned", 20),
    ("membership", "thief writes", 1),
    ("membership", "thief admits", 1),
    ("membership", "write refused", 150),
    ("membership", "decided with the words", 3),
    ("membership", "role given with the words", 2),
    ("membership", "out in the end", 45),
    ("membership", "thief compacts", 1),
    ("compaction", "range kept", 100),
    ("compaction", "range alone", 20),
    ("message", "need entries", 4),
    ("store", "folded document", 1),
];

/// Runs seeds; all failures are gathered.
fn run_all(seeds: Seeds) -> Coverage {
    let (coverage, failed) = seeds::run_all(seeds, |seed| run(seed).coverage);
    assert!(failed.is_empty(), "seeds that fail: {failed:?}");
    coverage
}

#[test]
fn fleets_agree_and_lose_nothing() {
    if let Some(seeds) = seeds::asked_for(SEEDS.end) {
        run_all(seeds);
        return;
    }
    let found = FOUND.map(|(seed, _)| seed).into_iter();
    let coverage = run_all(Box::new(
        SEEDS.chain(found.filter(|seed| !SEEDS.contains(seed))),
    ));
    let under = coverage.under(&MINIMA);
    assert!(under.is_empty(), "hit too seldom: {under:#?}");
}

#[test]
fn every_operation_can_happen_and_is_counted() {
    for (act, weight) in WEIGHTS {
        assert!(weight > 0, "{act:?} never happens");
        let counted = MINIMA
            .iter()
            .any(|(group, name, least)| *group == "operation" && *name == act.name() && *least > 0);
        assert!(counted, "{act:?} has no minimum");
    }
}

#[test]
fn one_seed_gives_one_trace_in_one_process_and_in_two() {
    let name = "one_seed_gives_one_trace_in_one_process_and_in_two";
    seeds::one_trace(name, |seed| run(seed).hash);
}
