//! Who listens to `coffer events`.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::mpsc;
use std::time::Instant;

use serde_json::Value;

use crate::device::{Device, SOON};

/// A listener; it ends when dropped.
pub struct Listener {
    process: Child,
    events: mpsc::Receiver<Value>,
}

impl Listener {
    /// Begins to listen; everything after this is told.
    #[track_caller]
    pub fn of(device: &Device) -> Listener {
        let mut process = device.command(&["events"]).spawn().expect("coffer runs");
        let out = process.stdout.take().expect("standard output is a pipe");
        let (sender, events) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let Ok(event) = serde_json::from_str(&line) else {
                    break;
                };
                if sender.send(event).is_err() {
                    break;
                }
            }
        });
        let listener = Listener { process, events };
        listener.until(|event| event["event"] == "listening");
        listener
    }

    /// The next event that is so; the others before it are passed over.
    #[track_caller]
    pub fn until(&self, is_so: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        let mut passed = Vec::new();
        while let Ok(event) = self
            .events
            .recv_timeout(SOON.saturating_sub(begun.elapsed()))
        {
            if is_so(&event) {
                return event;
            }
            passed.push(event);
        }
        panic!("the event never came; there were {passed:?}");
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
