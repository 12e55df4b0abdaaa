//! The seeded simulation of whole fleets: see `coffer_tests` for what a run does and checks.
//!
//! `COFFER_SIM_SEEDS=a..b cargo test -p coffer-tests --test simulation -- fleets --nocapture` hunts longer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use coffer_tests::coverage::Coverage;
use coffer_tests::{Report, run};

/// Seeds that every run of the suite does.
const SEEDS: std::ops::Range<u64> = 0..24;

/// Seeds that once found a bug, with what it was.
const FOUND: [u64; 0] = [];

/// Runs seeds on two threads; all failures are gathered, each with its seed.
fn run_all(seeds: Vec<u64>) -> Coverage {
    let (next, done) = (
        AtomicU64::new(0),
        Mutex::new((Coverage::default(), Vec::new())),
    );
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let result = catch_unwind(AssertUnwindSafe(|| run(*seed)));
                    let mut done = done.lock().unwrap();
                    match result {
                        Ok(report) => done.0.merge(&report.coverage),
                        Err(_) => {
                            eprintln!("seed {seed} fails: COFFER_SIM_SEEDS={seed}..{}", seed + 1);
                            done.1.push(*seed);
                        }
                    }
                }
            });
        }
    });
    let (coverage, failed) = done.into_inner().unwrap();
    println!("{coverage}");
    assert!(failed.is_empty(), "seeds that fail: {failed:?}");
    coverage
}

#[test]
fn fleets_agree_and_lose_nothing() {
    match std::env::var("COFFER_SIM_SEEDS") {
        Ok(range) => {
            let (from, to) = range.split_once("..").expect("COFFER_SIM_SEEDS is a..b");
            run_all((from.parse().expect("a number")..to.parse().expect("a number")).collect());
        }
        Err(_) => {
            let seeds = SEEDS.chain(FOUND).collect();
            run_all(seeds);
        }
    }
}

#[test]
fn one_seed_gives_one_trace_in_one_process_and_in_two() {
    if let Ok(seed) = std::env::var("COFFER_SIM_TRACE") {
        let Report { hash, .. } = run(seed.parse().expect("a number"));
        println!("trace {hash}");
        return;
    }
    let here = run(7);
    assert_eq!(here, run(7), "two runs of one seed in one process differ");
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "one_seed_gives_one_trace_in_one_process_and_in_two",
            "--nocapture",
        ])
        .env("COFFER_SIM_TRACE", "7")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        text.contains(&format!("trace {}", here.hash)),
        "two runs of one seed in two processes differ: {text}"
    );
}
