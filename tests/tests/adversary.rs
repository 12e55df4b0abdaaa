//! The seeded simulation of a host that lies: see `coffer_tests::adversary` for what a run does and checks.
//!
//! Hunting longer, and reading what happened in one run:
//! ```text
//! COFFER_SIM_MINUTES=10 cargo test -p coffer-tests --test adversary hosts -- --nocapture
//! COFFER_SIM_SEEDS=7..8 COFFER_SIM_STORY=100000 cargo test -p coffer-tests --test adversary hosts -- --nocapture
//! ```

use coffer_tests::adversary::{LIES, run};
use coffer_tests::seeds;

/// Seeds that every run of the suite does.
const SEEDS: std::ops::Range<u64> = 0..16;

/// What they must hit at least: about a third of what they do hit.
const MINIMA: [(&str, &str, u64); 35] = [
    ("run", "honest days", 160),
    ("run", "changes of hosts", 12),
    ("run", "restarts", 30),
    ("run", "challenges", 60),
    ("run", "contents brought", 400),
    ("run", "messages twice", 3),
    ("lie", "withhold entries", 6),
    ("lie", "withhold everything", 2),
    ("lie", "roll back", 4),
    ("lie", "begin anew", 2),
    ("lie", "splice", 10),
    ("lie", "replay", 6),
    ("lie", "duplicate", 4),
    ("lie", "fork", 4),
    ("lie", "drop blobs", 7),
    ("found out", "withholds", 8),
    ("found out", "rolled back", 8),
    ("found out", "began anew", 2),
    ("found out", "contradicts", 1),
    ("found out", "forged", 9),
    ("found out", "lost contents", 7),
    ("splice", "a body altered", 1),
    ("splice", "a signature altered", 1),
    ("splice", "another entry's body", 1),
    ("splice", "another predecessor", 1),
    ("splice", "another number", 1),
    ("splice", "cut short", 1),
    ("splice", "any bit turned", 1),
    ("splice", "a statement altered", 1),
    ("replay", "its own statement", 1),
    ("replay", "a device's statement", 1),
    ("replay", "entries", 1),
    ("blobs", "lost", 1),
    ("blobs", "lost, and asked about", 1),
    ("blobs", "damaged", 1),
];

#[test]
fn hosts_that_lie_are_found_out_and_nothing_is_lost_or_taken_wrongly() {
    let asked = seeds::asked_for(SEEDS.end);
    let is_suite = asked.is_none();
    let seeds = asked.unwrap_or_else(|| Box::new(SEEDS));
    let (coverage, failed) = seeds::run_all(seeds, |seed| run(seed).coverage);
    assert!(failed.is_empty(), "seeds that fail: {failed:?}");
    if is_suite {
        let under = coverage.under(&MINIMA);
        assert!(under.is_empty(), "hit too seldom: {under:#?}");
    }
}

#[test]
fn every_lie_can_be_told_and_is_counted() {
    for (lie, weight) in LIES {
        assert!(weight > 0, "{lie:?} is never told");
        let counted = MINIMA
            .iter()
            .any(|(group, name, least)| *group == "lie" && *name == lie.name() && *least > 0);
        assert!(counted, "{lie:?} has no minimum");
    }
}

#[test]
fn one_seed_gives_one_trace_in_one_process_and_in_two() {
    let name = "one_seed_gives_one_trace_in_one_process_and_in_two";
    seeds::one_trace(name, |seed| run(seed).hash);
}
