//! The suite: seeds, the cases that found something, the counts, and making a failing case short.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::case::{ACTS, Act, Case, Step};
use super::coverage::Coverage;
use super::found::FOUND;
use super::people::{DEEDS, name_of};
use super::run::run;
use super::seeds::{self, Seeds};

/// Seeds that every run of the suite does.
const SEEDS: std::ops::Range<u64> = 0..2000;

/// What the seeds of the suite must hit at least: about a quarter of what they do hit, so that an innocent change which
/// shifts the dice does not fail, and one that makes a case unreachable does.
const MINIMA: [(&str, &str, u64); 69] = [
    ("crash", "killed", 55),
    ("crash", "killed at rest", 100),
    ("crash", "power lost", 250),
    ("crash point", "answer of a commit", 55),
    ("crash point", "commit to the vault", 65),
    ("crash point", "make a file", 35),
    ("crash point", "make a folder", 5),
    ("crash point", "make a link", 3),
    ("crash point", "make a temporary file", 10),
    ("crash point", "remove a file", 2),
    ("crash point", "rename over", 4),
    ("crash point", "rename to a free name", 15),
    ("crash point", "set times and mode", 9),
    ("crash point", "sync a file", 30),
    ("crash point", "sync a folder", 10),
    ("crash point", "sync the file system", 35),
    ("crash point", "write a small file", 30),
    ("crash point", "write a temporary file", 25),
    ("deed", "a file for a folder", 30),
    ("deed", "a folder for a file", 50),
    ("deed", "append", 100),
    ("deed", "begin to write", 150),
    ("deed", "chain", 20),
    ("deed", "copy", 65),
    ("deed", "delete", 100),
    ("deed", "delete a folder", 40),
    ("deed", "edit in place", 200),
    ("deed", "executable bit", 75),
    ("deed", "go on writing", 25),
    ("deed", "link", 250),
    ("deed", "make a folder", 350),
    ("deed", "move", 30),
    ("deed", "move a folder", 9),
    ("deed", "move in", 10),
    ("deed", "move out", 70),
    ("deed", "move over a file", 35),
    ("deed", "rename", 150),
    ("deed", "restore", 10),
    ("deed", "save by rename", 150),
    ("deed", "save with a backup", 80),
    ("deed", "storm", 25),
    ("deed", "swap", 40),
    ("deed", "touch", 100),
    ("deed", "turn folders inside out", 10),
    ("deed", "write", 800),
    ("edit of the vault", "content", 40),
    ("edit of the vault", "create", 80),
    ("edit of the vault", "move", 40),
    ("edit of the vault", "purge", 15),
    ("edit of the vault", "trash", 40),
    ("events", "coalesced", 150),
    ("events", "late", 250),
    ("events", "lost", 65),
    ("events", "lost, and said so", 200),
    ("events", "reordered", 100),
    ("events", "told plainly", 5850),
    ("events", "told twice", 100),
    ("exchange", "all", 1100),
    ("exchange", "some entries withheld", 550),
    ("fault", "clock set", 250),
    ("fault", "disk full", 100),
    ("fault", "disk unplugged", 70),
    ("fault", "partition", 250),
    ("fault", "somebody at work meanwhile", 250),
    ("fault", "stopped", 300),
    ("vault operation", "content", 500),
    ("vault operation", "create", 1800),
    ("vault operation", "move", 300),
    ("vault operation", "trash", 250),
];

fn fails(case: &Case) -> bool {
    catch_unwind(AssertUnwindSafe(|| run(case))).is_err()
}

/// A case that fails as well, with as few steps as can be found by leaving some out.
fn shorter(case: &Case) -> Case {
    let mut case = case.clone();
    let mut width = case.steps.len() / 2;
    while width > 0 {
        let mut from = 0;
        while from < case.steps.len() {
            let to = (from + width).min(case.steps.len());
            let steps = [&case.steps[..from], &case.steps[to..]].concat();
            let tried = Case {
                steps,
                ..case.clone()
            };
            if fails(&tried) {
                case = tried;
            } else {
                from = to;
            }
        }
        width /= 2;
    }
    case
}

/// A case in the words of the code, to be kept.
fn code(case: &Case) -> String {
    let steps: Vec<String> = case
        .steps
        .iter()
        .map(|Step { device, act, dice }| format!("        ({device}, Act::{act:?}, {dice:#x}),\n"))
        .collect();
    format!(
        "    devices: {}, nature: {:#x}, calm: {},\n    steps: &[\n{}    ],",
        case.devices,
        case.nature,
        case.calm,
        steps
            .concat()
            .replace("Api(", "Api(Edit::")
            .replace("Deed(", "Deed(Deed::")
            .replace("Intrude(", "Intrude(Deed::")
    )
}

/// Runs seeds; the first that fails is made short and told.
fn run_all(seeds: Seeds) -> Coverage {
    let (coverage, failed) = seeds::run_all(seeds, |seed| run(&Case::of(seed)).coverage);
    if let Some(seed) = failed.first() {
        let short = shorter(&Case::of(*seed));
        eprintln!("seed {seed}, made short:\n{}", code(&short));
        fails(&short);
    }
    assert!(failed.is_empty(), "seeds that fail: {failed:?}");
    coverage
}

#[test]
fn folders_agree_and_lose_nothing() {
    if let Some(seeds) = seeds::asked_for(SEEDS.end) {
        run_all(seeds);
        return;
    }
    let coverage = run_all(Box::new(SEEDS));
    let under = coverage.under(&MINIMA);
    assert!(under.is_empty(), "hit too seldom: {under:#?}");
}

#[test]
fn what_was_found_once_stays_right() {
    for found in FOUND.into_iter().flatten() {
        assert!(!fails(&found.case()), "again: {}", found.what);
    }
}

#[test]
fn everything_can_happen_and_deeds_are_counted() {
    for (act, weight) in ACTS {
        assert!(weight > 0, "{act:?} never happens");
        if let Act::Api(edit) = act {
            let counted = MINIMA
                .iter()
                .any(|(group, name, _)| *group == "edit of the vault" && *name == edit.name());
            assert!(counted, "{edit:?} has no minimum");
        }
    }
    for (deed, weight) in DEEDS {
        assert!(weight > 0, "{deed:?} never happens");
        let counted = MINIMA
            .iter()
            .any(|(group, name, least)| *group == "deed" && *name == name_of(deed) && *least > 0);
        assert!(counted, "{deed:?} has no minimum");
    }
}

#[test]
fn one_seed_gives_one_trace_in_one_process_and_in_two() {
    let name = "one_seed_gives_one_trace_in_one_process_and_in_two";
    seeds::one_trace(
        &format!("folder::tests::simulation::suite::{name}"),
        |seed| run(&Case::of(seed)).hash,
    );
}
