//! Which seeds a suite runs, and the running of them.
//!
//! A suite has seeds of its own. The environment can ask for others, to hunt longer or to look at one:
//! `COFFER_SIM_SEEDS=1000..2000`, or `COFFER_SIM_MINUTES=60` for new ones until the time is over.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::coverage::Coverage;

/// Runs at once: the machines that this is built on have two cores.
const THREADS: usize = 2;

/// The variable that tells a child process which seed to run.
const TRACE: &str = "COFFER_SIM_TRACE";

/// Seeds to run.
pub type Seeds = Box<dyn Iterator<Item = u64> + Send>;

/// The seeds that the environment asks for instead of the suite's own, which end before `new`.
///
/// # Panics
/// When it asks for something else than seeds.
pub fn asked_for(new: u64) -> Option<Seeds> {
    if let Ok(range) = std::env::var("COFFER_SIM_SEEDS") {
        let (from, to) = range.split_once("..").expect("COFFER_SIM_SEEDS is a..b");
        let number = |text: &str| text.parse::<u64>().expect("COFFER_SIM_SEEDS has numbers");
        return Some(Box::new(number(from)..number(to)));
    }
    let minutes = std::env::var("COFFER_SIM_MINUTES").ok()?;
    let minutes: u64 = minutes.parse().expect("COFFER_SIM_MINUTES is a number");
    let ends = Instant::now() + Duration::from_secs(60 * minutes);
    Some(Box::new((new..).take_while(move |_| Instant::now() < ends)))
}

/// Runs seeds, and prints what they hit. The second are those that failed, in no order; each is printed as it fails.
pub fn run_all(seeds: Seeds, run: impl Fn(u64) -> Coverage + Sync) -> (Coverage, Vec<u64>) {
    let seeds = Mutex::new(seeds.enumerate());
    let done = Mutex::new((Coverage::default(), Vec::new(), 0));
    let next = || seeds.lock().expect("no range of seeds panics").next();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some((number, seed)) = next() {
                    let result = catch_unwind(AssertUnwindSafe(|| run(seed)));
                    let mut done = done.lock().expect("nothing panics while it holds this");
                    done.2 = done.2.max(number + 1);
                    match result {
                        Ok(coverage) => done.0.merge(&coverage),
                        Err(_) => {
                            let after = seed + 1;
                            eprintln!("seed {seed} fails: COFFER_SIM_SEEDS={seed}..{after}");
                            done.1.push(seed);
                        }
                    }
                }
            });
        }
    });
    let done = done.into_inner();
    let (coverage, failed, count) = done.expect("nothing panics while it holds this");
    println!("{coverage}{count} seeds");
    (coverage, failed)
}

/// That one seed gives one trace: twice in this process, and in another. `test` is the name of the test that calls this,
/// as its program knows it; `trace` gives the hash of a run.
///
/// # Panics
/// When the traces differ.
pub fn one_trace(test: &str, trace: impl Fn(u64) -> String) {
    if let Ok(seed) = std::env::var(TRACE) {
        println!("trace {}", trace(seed.parse().expect("a number")));
        return;
    }
    let seed = 7;
    let here = trace(seed);
    assert_eq!(here, trace(seed), "two runs in one process differ");
    let output = Command::new(std::env::current_exe().expect("a test knows its program"))
        .args(["--exact", test, "--nocapture"])
        .env(TRACE, seed.to_string())
        .output()
        .expect("a test can start itself");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    assert!(
        text.contains(&format!("trace {here}")),
        "two processes differ: {text}"
    );
}
