//! The power of a device, which may fail before any change that the engine makes.

use std::sync::{Arc, Mutex};

use super::run::Log;

struct State {
    on: bool,
    /// Changes until the power fails.
    fuse: Option<u64>,
    calls: u64,
}

/// Calls of the disk after which an engine must have waited for something.
const MAX_CALLS: u64 = 300_000;

/// The power.
pub struct Power {
    state: Mutex<State>,
    log: Arc<Log>,
    device: usize,
}

impl Power {
    pub fn new(log: Arc<Log>, device: usize) -> Power {
        let state = Mutex::new(State {
            on: true,
            fuse: None,
            calls: 0,
        });
        Power { state, log, device }
    }

    pub fn is_on(&self) -> bool {
        self.state.lock().unwrap().on
    }

    /// Lets the power fail before the change after `changes` more; `None` for not at all.
    pub fn set_fuse(&self, changes: Option<u64>) {
        self.state.lock().unwrap().fuse = changes;
    }

    /// Switches on or off.
    pub fn set_on(&self, on: bool) {
        *self.state.lock().unwrap() = State {
            on,
            fuse: None,
            calls: 0,
        };
    }

    /// The engine goes on.
    pub fn begin_drive(&self) {
        self.state.lock().unwrap().calls = 0;
    }

    /// The engine asks the disk something.
    pub fn called(&self) {
        let calls = {
            let mut state = self.state.lock().unwrap();
            state.calls += 1;
            state.calls
        };
        assert!(
            calls < MAX_CALLS,
            "device {} does not come to rest",
            self.device
        );
    }

    /// The engine is about to change something durable. Returns whether there is power to do so.
    pub fn step(&self, what: &'static str) -> bool {
        let mut state = self.state.lock().unwrap();
        if !state.on {
            return false;
        }
        self.log
            .event(|| format!("device {} engine: {what}", self.device));
        if let Some(fuse) = &mut state.fuse {
            if *fuse == 0 {
                state.on = false;
                self.log.hit("crash point", what);
                self.log
                    .event(|| format!("device {} loses power", self.device));
                return false;
            }
            *fuse -= 1;
        }
        true
    }
}
