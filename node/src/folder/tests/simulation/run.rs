//! A run: the steps of a case, then healing, then the checks.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coffer_crdt::files::FileId;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::case::{Act, Case, Step};
use super::coverage::Coverage;
use super::device::Device;
use super::disk::{Nature, Told};
use super::edits::{self, Edit};
use super::ledger::Ledger;
use super::network::Network;
use super::oracle;
use super::people::Person;
use super::trace::Trace;
use crate::folder::FolderVault;
use crate::vault::request::Operation;

/// Rounds of passes, exchange and time within which everything must come to rest.
const MAX_ROUNDS: usize = 60;
/// Rounds in which nothing happens before it counts as rest: what is missing counts as deleted at the second look, and the
/// first is after what was told has had its time.
const QUIET_ROUNDS: usize = 2;

/// The trace and the counts of a run.
#[derive(Default)]
pub struct Log {
    trace: Mutex<Trace>,
    coverage: Mutex<Coverage>,
}

impl Log {
    pub fn event(&self, event: impl FnOnce() -> String) {
        let event = event();
        self.trace.lock().unwrap().event(event);
    }

    pub fn hit(&self, group: &'static str, name: &'static str) {
        self.coverage.lock().unwrap().hit(group, name);
    }

    pub fn story(&self) -> String {
        self.trace.lock().unwrap().story()
    }
}

/// What a run leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub hash: String,
    pub coverage: Coverage,
}

/// How events are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Telling {
    #[default]
    Plainly,
    Lost,
    Overflowing,
    Twice,
    Reordered,
    Coalesced,
    Late,
}

struct Run {
    devices: Vec<Device>,
    people: Vec<Person>,
    telling: Vec<Telling>,
    network: Arc<Network>,
    ledger: Arc<Mutex<Ledger>>,
    log: Arc<Log>,
    calm: bool,
    /// Names of folders that had to make way.
    made_way: BTreeSet<String>,
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for device in &self.devices {
                eprintln!("device {}: {}", device.index, device.state());
            }
            eprintln!("The last events:\n{}", self.log.story());
        }
    }
}

/// Runs a case to its end.
///
/// # Panics
/// When a check fails.
pub fn run(case: &Case) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut run = Run::new(case).await;
        for step in &case.steps {
            run.step(step).await;
        }
        run.heal().await;
        run.check();
        let coverage = run.log.coverage.lock().unwrap().clone();
        let hash = run.log.trace.lock().unwrap().hash();
        Report { hash, coverage }
    })
}

fn nature(bits: u64, device: usize) -> Nature {
    let bits = bits >> (device * 8);
    Nature {
        portable: bits & 7 == 0,
        plain_renames: bits & 0x38 == 0,
    }
}

impl Run {
    async fn new(case: &Case) -> Run {
        let (network, log) = (Arc::new(Network::default()), Arc::new(Log::default()));
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let mut devices = Vec::new();
        for index in 0..case.devices {
            let skew_ms = [0, 0, -90_000, 3_600_000][(case.nature >> (index * 8 + 6)) as usize & 3];
            let nature = nature(case.nature, index);
            devices.push(Device::new(index, skew_ms, nature, &network, &log));
        }
        let people = devices.iter().map(|device| Person {
            disk: device.disk.clone(),
            ledger: ledger.clone(),
            log: log.clone(),
            index: device.index,
        });
        let mut run = Run {
            people: people.collect(),
            telling: vec![Telling::Plainly; devices.len()],
            devices,
            network,
            ledger,
            log,
            calm: case.calm,
            made_way: BTreeSet::new(),
        };
        for device in &mut run.devices {
            device.start();
            device.drive().await;
        }
        run
    }

    async fn step(&mut self, step: &Step) {
        let mut dice = ChaCha8Rng::seed_from_u64(step.dice);
        let at = step.device % self.devices.len();
        self.log
            .event(|| format!("-- {:?} on device {at}", step.act));
        self.pass(Duration::from_millis(dice.random_range(1..40)));
        match step.act {
            Act::Deed(deed) => self.people[at].act(deed, &mut dice),
            Act::Intrude(deed) => {
                let (person, calls) = (self.people[at].clone(), dice.random_range(1..60));
                let (log, seed) = (self.log.clone(), dice.random());
                let act = move || {
                    log.hit("fault", "somebody at work meanwhile");
                    person.act(deed, &mut ChaCha8Rng::seed_from_u64(seed));
                };
                self.devices[at]
                    .disk
                    .set_intrusion(Some((calls, Box::new(act))));
            }
            Act::Api(edit) => self.edit(at, edit, &mut dice),
            Act::Restore => self.restore(at, &mut dice),
            Act::Pass => {
                self.pass(Duration::from_millis(dice.random_range(20..400)));
                self.devices[at].drive().await;
            }
            Act::PassLong => {
                let seconds = [1, 2, 6, 40, 700][dice.random_range(0..5)];
                self.pass(Duration::from_secs(seconds));
                self.drive_all().await;
            }
            Act::Exchange => self.exchange_some(at, &mut dice),
            Act::Part => {
                let mut apart = self.network.apart.lock().unwrap();
                if !apart.remove(&at) {
                    apart.insert(at);
                    self.log.hit("fault", "partition");
                }
                drop(apart);
                self.network.announce();
            }
            Act::Fuse => {
                if self.devices[at].is_running() {
                    let changes = dice.random_range(0..14);
                    self.devices[at].power.set_fuse(Some(changes));
                }
            }
            Act::Kill => {
                if self.devices[at].is_running() {
                    self.log.hit("crash", "killed at rest");
                    self.devices[at].kill();
                }
            }
            Act::Switch => {
                if self.devices[at].is_running() {
                    self.log.hit("fault", "stopped");
                    self.devices[at].power.set_fuse(None);
                    self.devices[at].stop().await;
                } else {
                    self.devices[at].start();
                    self.devices[at].drive().await;
                }
            }
            Act::Fill => {
                let full = dice.random_bool(0.6);
                self.set_full(at, full);
            }
            Act::Unplug => {
                let gone = dice.random_bool(0.6);
                if gone {
                    self.log.hit("fault", "disk unplugged");
                }
                self.devices[at].disk.set_gone(gone);
            }
            Act::SetClock => {
                self.log.hit("fault", "clock set");
                let skew = [0, -4_000, 86_400_000, -7_200_000][dice.random_range(0..4)];
                let clock = &self.devices[at].clock;
                // By the times of a file whether it is the one of before a loss of power: a clock that was set back makes
                // that unclear, and what is unclear stays beside the other, which is no conflict between people.
                let least = if self.calm { clock.skew() } else { i64::MIN };
                clock.set_skew(skew.max(least));
            }
            Act::Events => {
                self.telling[at] = [
                    Telling::Plainly,
                    Telling::Plainly,
                    Telling::Lost,
                    Telling::Overflowing,
                    Telling::Twice,
                    Telling::Reordered,
                    Telling::Coalesced,
                    Telling::Late,
                ][dice.random_range(0..8)];
                if self.calm && self.telling[at] == Telling::Lost {
                    // Who has not seen an edit yet makes a conflict of the next one.
                    self.telling[at] = Telling::Overflowing;
                }
            }
        }
        for device in 0..self.devices.len() {
            self.tell(device, &mut dice);
        }
        self.excuse_overwritten();
        if !matches!(step.act, Act::Fuse | Act::Intrude(_)) && dice.random_bool(0.4) {
            self.pass(Duration::from_millis(dice.random_range(20..200)));
            self.devices[at].drive().await;
        }
        self.see_to_the_dead(&mut dice);
        self.excuse_overwritten();
        if self.calm {
            self.come_to_rest(false).await;
            oracle::no_conflicts(&self.devices, &mut self.made_way);
        } else if dice.random_bool(0.6) {
            self.start_the_dead(at).await;
        }
    }

    /// Somebody asks the node, which runs and has room.
    fn edit(&self, at: usize, edit: Edit, dice: &mut ChaCha8Rng) {
        let vault = &self.devices[at].vault;
        if !self.devices[at].is_running() || vault.full.load(Ordering::Relaxed) {
            return;
        }
        let done = edits::edit(vault, &mut self.ledger.lock().unwrap(), edit, dice);
        if let Some(what) = done {
            self.log.hit("edit of the vault", edit.name());
            self.log.event(|| format!("device {at} vault: {what}"));
        }
    }

    fn restore(&self, at: usize, dice: &mut ChaCha8Rng) {
        let vault = &self.devices[at].vault;
        let mut found: Vec<FileId> = Vec::new();
        for id in vault.inner.trashed() {
            let all: Vec<FileId> = vault.tree().below(id).chain([id]).collect();
            let contents = vault.file_contents(&all).unwrap_or_default();
            // What was on no other disk when somebody deleted it is gone for good.
            let there = contents.iter().flatten().all(|content| {
                content.target.is_some()
                    || content.size == 0
                    || self.network.find_kept(at, &content.hash).is_some()
            });
            found.extend(there.then_some(id));
        }
        if found.is_empty() {
            return;
        }
        let id = found.swap_remove(dice.random_range(0..found.len()));
        vault.person(vec![Operation::RestoreFile { id }]);
        self.log.hit("deed", "restore");
        self.log
            .event(|| format!("device {at} person: restore {id}"));
    }

    fn excuse_overwritten(&self) {
        let mut ledger = self.ledger.lock().unwrap();
        for device in &self.devices {
            ledger.excused.extend(device.disk.take_overwritten());
        }
    }

    fn set_full(&self, at: usize, full: bool) {
        if full {
            self.log.hit("fault", "disk full");
        }
        self.devices[at].disk.set_full(full);
        let vault = &self.devices[at].vault;
        vault.full.store(full, Ordering::Relaxed);
    }

    fn exchange_some(&self, at: usize, dice: &mut ChaCha8Rng) {
        let other = dice.random_range(0..self.devices.len());
        if other == at || !self.network.reaches(at, other) {
            return;
        }
        let limit = match dice.random_range(0..3) {
            0 => dice.random_range(1..4),
            _ => usize::MAX,
        };
        let name = if limit == usize::MAX {
            "all"
        } else {
            "some entries withheld"
        };
        self.log.hit("exchange", name);
        let (one, other) = (&self.devices[at].vault, &self.devices[other].vault);
        one.pull(other, limit);
        if dice.random_bool(0.7) {
            other.pull(one, limit);
        }
    }

    fn exchange_all(&self) {
        for one in &self.devices {
            for other in &self.devices {
                if one.index != other.index {
                    one.vault.pull(&other.vault, usize::MAX);
                }
            }
        }
        self.network.announce();
    }

    fn pass(&self, time: Duration) {
        for device in &self.devices {
            device.pass(time);
        }
    }

    async fn drive_all(&mut self) {
        for device in &mut self.devices {
            device.drive().await;
        }
    }

    /// Tells a watcher what happened, in the way that is its lot now.
    fn tell(&mut self, at: usize, dice: &mut ChaCha8Rng) {
        let device = &mut self.devices[at];
        let mut told = std::mem::take(&mut device.untold);
        told.extend(device.disk.take_told());
        if told.is_empty() {
            return;
        }
        let hit = |name| self.log.hit("events", name);
        match self.telling[at] {
            Telling::Plainly => hit("told plainly"),
            Telling::Lost => {
                told.retain(|_| dice.random_bool(0.5));
                hit("lost");
            }
            Telling::Overflowing => {
                let kept = dice.random_range(0..=told.len());
                told.truncate(kept);
                device.tell_overflow();
                hit("lost, and said so");
            }
            Telling::Twice => {
                told = told
                    .into_iter()
                    .flat_map(|told| [told.clone(), told])
                    .collect();
                hit("told twice");
            }
            Telling::Reordered => {
                for at in 1..told.len() {
                    told.swap(at, dice.random_range(0..=at));
                }
                hit("reordered");
            }
            Telling::Coalesced => {
                let mut last: Vec<Told> = Vec::new();
                for told in told {
                    last.retain(|before| before.path != told.path);
                    last.push(told);
                }
                told = last;
                hit("coalesced");
            }
            Telling::Late => {
                let later = told.split_off(dice.random_range(0..=told.len()));
                device.untold = later;
                hit("late");
            }
        }
        for told in told {
            device.tell(told);
        }
    }

    /// Devices that lost power while their engine was at it.
    fn see_to_the_dead(&mut self, dice: &mut ChaCha8Rng) {
        for at in 0..self.devices.len() {
            if self.devices[at].power.is_on() {
                continue;
            }
            if dice.random_bool(0.3) {
                self.log.hit("crash", "killed");
                self.devices[at].kill();
            } else {
                self.log.hit("crash", "power lost");
                oracle::power_lost(&self.devices[at], &self.ledger, dice);
                self.devices[at].kill();
            }
            self.devices[at].power.set_on(true);
        }
    }

    async fn start_the_dead(&mut self, at: usize) {
        if !self.devices[at].is_running() {
            self.devices[at].start();
            self.devices[at].drive().await;
        }
    }

    /// Everything goes on without faults until nothing happens any more; `thoroughly` with all that was missed.
    async fn come_to_rest(&mut self, thoroughly: bool) {
        let mut quiet = 0;
        let mut dice = ChaCha8Rng::seed_from_u64(0);
        for round in 0..MAX_ROUNDS {
            let before: Vec<usize> = self.operations();
            let mut news = false;
            for at in 0..self.devices.len() {
                if thoroughly {
                    self.devices[at].power.set_fuse(None);
                }
                self.start_the_dead(at).await;
                news |=
                    !self.devices[at].disk.told_nothing() || !self.devices[at].untold.is_empty();
                self.tell(at, &mut dice);
            }
            self.exchange_all();
            self.drive_all().await;
            self.see_to_the_dead(&mut dice);
            let gone = self.gone().len();
            let idle = self.devices.iter().all(|device| device.is_idle(gone));
            if idle && !news && before == self.operations() {
                quiet += 1;
                if quiet > QUIET_ROUNDS {
                    return;
                }
                self.pass(Duration::from_secs(if thoroughly { 601 } else { 2 }));
            } else {
                quiet = 0;
                self.pass(Duration::from_millis(1300));
            }
            if thoroughly && round % 10 == 9 {
                // What nobody was told of is found by looking, which may be what another waits for.
                self.pass(Duration::from_secs(601));
            }
            if quiet == 0 {
                // Whoever waits longer than that has a reason.
                let due = self
                    .devices
                    .iter()
                    .filter_map(|device| device.clock.until_due());
                let due = due.min().unwrap_or_default();
                if due < Duration::from_secs(40) {
                    self.pass(due);
                }
            }
        }
        let states: Vec<String> = self.devices.iter().map(Device::state).collect();
        panic!("the devices do not come to rest in {MAX_ROUNDS} rounds: {states:#?}");
    }

    fn gone(&self) -> BTreeSet<String> {
        oracle::gone_for_good(&self.devices, &self.ledger.lock().unwrap(), &self.network)
    }

    fn operations(&self) -> Vec<usize> {
        let devices = self.devices.iter();
        devices
            .map(|device| device.vault.inner.operations())
            .collect()
    }

    /// All faults end.
    async fn heal(&mut self) {
        self.log.event(|| "-- healing".to_owned());
        self.network.apart.lock().unwrap().clear();
        for at in 0..self.devices.len() {
            self.telling[at] = Telling::Plainly;
            self.devices[at].disk.set_gone(false);
            self.devices[at].disk.set_intrusion(None);
            self.set_full(at, false);
        }
        for at in 0..self.devices.len() {
            self.people[at].finish();
            if self.calm {
                // Two that finish at once may well be in conflict.
                self.come_to_rest(false).await;
            }
        }
        self.come_to_rest(true).await;
    }

    fn check(&mut self) {
        let gone = self.gone();
        for _ in &gone {
            self.log.hit("end", "a content that is gone for good");
        }
        oracle::agreement(&self.devices, &gone);
        oracle::same_times(&self.devices, &gone);
        oracle::nothing_lost(&self.devices, &self.ledger.lock().unwrap());
        oracle::said_truly(&self.devices, &self.network, &gone);
        if self.calm {
            oracle::no_conflicts(&self.devices, &mut self.made_way);
        }
        for device in &self.devices {
            let tree = device.vault.tree();
            self.log
                .event(|| format!("device {} has {} documents", device.index, tree.len()));
        }
    }
}
