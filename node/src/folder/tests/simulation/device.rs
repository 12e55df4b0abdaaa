//! One device: the very engine that a node runs, in surroundings that the simulation holds in its hands.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use coffer_crdt::files::FileId;
use coffer_protocol::identity::VaultId;
use futures::future::BoxFuture;
use notify::Event;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::super::super::disk::Disk;
use super::super::super::engine::Engine;
use super::super::super::handle::Command;
use super::super::super::paths::Shared;
use super::super::super::place::Place;
use super::super::super::rows::Rows;
use super::super::super::state::{Activity, FolderState};
use super::super::super::surroundings::Surroundings;
use super::super::super::watch::{Mouth, Watcher};
use super::super::super::{FolderConfig, FolderVault, marker};
use super::asked::Asked;
use super::disk::{Nature, PATH, Told, VirtualDisk};
use super::network::{Network, Peer, SimContents};
use super::power::Power;
use super::run::Log;
use super::time::Clock;
use super::vault::SimVault;

/// Times that an engine may be polled before it has to rest.
const MAX_POLLS: usize = 3000;

struct Around {
    disk: Arc<VirtualDisk>,
    clock: Arc<Clock>,
    mouth: Mutex<Option<Mouth>>,
    ids: AtomicU64,
    device: u8,
}

impl Surroundings for Around {
    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(Asked(self.disk.clone()))
    }

    fn watch(&self, _: &Path) -> Watcher {
        let (watcher, mouth) = Watcher::listening();
        *self.mouth.lock().unwrap() = Some(mouth);
        // Nobody was listening to these.
        self.disk.take_told();
        watcher
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        self.clock.sleep_until(at)
    }

    fn wall_ms(&self) -> i64 {
        self.clock.wall_ms()
    }

    fn fresh(&self) -> FileId {
        let number = self.ids.fetch_add(1, Ordering::Relaxed);
        let mut id = [self.device; 16];
        id[8..].copy_from_slice(&number.to_be_bytes());
        FileId(id)
    }
}

/// A flag that a waker sets.
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Running {
    future: Pin<Box<dyn Future<Output = ()>>>,
    woken: Arc<Flag>,
    stop: watch::Sender<bool>,
    state: watch::Receiver<FolderState>,
    _commands: mpsc::Sender<Command>,
}

/// A device.
pub struct Device {
    pub index: usize,
    pub clock: Arc<Clock>,
    pub power: Arc<Power>,
    pub disk: Arc<VirtualDisk>,
    pub vault: Arc<SimVault>,
    contents: Arc<SimContents>,
    around: Arc<Around>,
    running: Option<Running>,
    network: Arc<Network>,
    /// Events that have not been told yet.
    pub untold: Vec<Told>,
    log: Arc<Log>,
}

fn config() -> FolderConfig {
    FolderConfig {
        number: 1,
        path: PathBuf::from(PATH),
        vault_folder: FileId::ROOT,
        vault: VaultId([1; 32]),
    }
}

impl Device {
    pub fn new(
        index: usize,
        skew_ms: i64,
        nature: Nature,
        network: &Arc<Network>,
        log: &Arc<Log>,
    ) -> Device {
        let clock = Arc::new(Clock::new(skew_ms));
        let power = Arc::new(Power::new(log.clone(), index));
        let disk = VirtualDisk::new(nature, power.clone(), clock.clone());
        let vault = Arc::new(SimVault::new(
            index,
            power.clone(),
            clock.clone(),
            log.clone(),
        ));
        Place::prepare_on(
            Arc::new(Asked(disk.clone())),
            Path::new(PATH),
            &marker(&config()),
        )
        .unwrap();
        disk.flush().unwrap();
        let around = Arc::new(Around {
            disk: disk.clone(),
            clock: clock.clone(),
            mouth: Mutex::default(),
            ids: AtomicU64::new(1),
            device: index as u8 + 1,
        });
        network.join(Peer {
            vault: vault.clone(),
            disk: disk.clone(),
            shared: None,
        });
        let contents = Arc::new(SimContents {
            device: index,
            disk: disk.clone(),
            power: power.clone(),
            network: network.clone(),
        });
        Device {
            index,
            clock,
            power,
            disk,
            vault,
            contents,
            around,
            running: None,
            network: network.clone(),
            untold: Vec::new(),
            log: log.clone(),
        }
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Starts the engine.
    pub fn start(&mut self) {
        self.power.set_on(true);
        self.untold.clear();
        let vault = self.vault.clone();
        let stand_in = {
            let vault = vault.clone();
            Box::new(move |id| vault.tree().representative(id))
        };
        let rows = Rows::new(FileId::ROOT, vault.inner.rows());
        let shared = Arc::new(Shared::new(PathBuf::from(PATH), rows, stand_in));
        self.network.set_shared(self.index, Some(shared.clone()));
        let state = watch::channel(FolderState::default());
        let (commands, inbox) = mpsc::channel(4);
        let (stop, stopped) = watch::channel(false);
        let engine = Engine::new(
            config(),
            vault.clone(),
            self.contents.clone(),
            shared,
            self.around.clone(),
            vault.subscribe_tree(),
            state.0,
            stopped,
        );
        self.running = Some(Running {
            future: Box::pin(engine.run(inbox)),
            woken: Arc::new(Flag(AtomicBool::new(true))),
            stop,
            state: state.1,
            _commands: commands,
        });
        self.log.event(|| format!("device {} starts", self.index));
    }

    /// The engine is gone from one moment to the next.
    pub fn kill(&mut self) {
        self.running = None;
        self.disk.set_intrusion(None);
        self.network.set_shared(self.index, None);
        *self.around.mouth.lock().unwrap() = None;
        self.untold.clear();
        self.log.event(|| format!("device {} is dead", self.index));
    }

    /// The engine is asked to stop, and does.
    pub async fn stop(&mut self) {
        if let Some(running) = &self.running {
            let _ = running.stop.send(true);
            self.drive().await;
            assert!(self.running.is_none(), "the engine does not stop");
            self.kill();
        }
    }

    /// Tells the watcher.
    pub fn tell(&self, told: Told) {
        if let Some(mouth) = &*self.around.mouth.lock().unwrap() {
            mouth.tell(Path::new(PATH), &Event::new(told.kind).add_path(told.path));
        }
    }

    /// Tells the watcher that events were lost.
    pub fn tell_overflow(&self) {
        if let Some(mouth) = &*self.around.mouth.lock().unwrap() {
            let event = Event::new(notify::EventKind::Other);
            mouth.tell(
                Path::new(PATH),
                &event.set_flag(notify::event::Flag::Rescan),
            );
        }
    }

    /// Lets the engine go on until it waits for something from outside.
    pub async fn drive(&mut self) {
        let (mut idle, mut polls) = (0, 0);
        self.disk.power.begin_drive();
        while idle < 3 {
            let Some(running) = &mut self.running else {
                return;
            };
            if running.woken.0.swap(false, Ordering::Relaxed) {
                idle = 0;
                polls += 1;
                assert!(
                    polls < MAX_POLLS,
                    "device {} does not come to rest",
                    self.index
                );
                let waker = Waker::from(running.woken.clone());
                let poll = running
                    .future
                    .as_mut()
                    .poll(&mut Context::from_waker(&waker));
                if poll == Poll::Ready(()) {
                    self.running = None;
                    return;
                }
                if !self.power.is_on() {
                    return;
                }
            } else {
                idle += 1;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Whether it says that there is nothing to do but to wait for contents that are gone for good.
    pub fn is_idle(&self, gone: usize) -> bool {
        self.running.as_ref().is_some_and(|running| {
            let state = running.state.borrow();
            let waits = state.activity == Activity::Applying && gone > 0;
            (state.activity == Activity::Idle || waits)
                && state.pending_local == 0
                && state.pending_remote == gone as u64
        })
    }

    /// What it says of itself, for a person to read.
    pub fn state(&self) -> String {
        match &self.running {
            Some(running) => format!("{:?}", *running.state.borrow()),
            None => "off".to_owned(),
        }
    }

    /// Time passes.
    pub fn pass(&self, time: Duration) {
        self.clock.pass(time);
    }

    /// Files and links with their bytes, all folders with nothing; named as in the vault.
    pub fn listing(&self) -> BTreeMap<String, Option<(bool, Vec<u8>)>> {
        super::oracle::listing(&self.disk, self.profile())
    }

    /// The modification times of all files, in nanoseconds since 1970; named as in the vault.
    pub fn times(&self) -> BTreeMap<String, i128> {
        super::oracle::times(&self.disk, self.profile())
    }

    /// What names its disk takes.
    pub fn profile(&self) -> super::super::super::profile::Profile {
        self.disk.profile()
    }
}
