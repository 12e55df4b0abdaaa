//! Time as one device has it: it passes when the simulation says so, and its wall clock may be wrong.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;

/// When a simulation begins, in milliseconds since 1970.
const BEGIN_MS: i128 = 1_795_305_600_000;

struct State {
    passed: Duration,
    skew_ms: i64,
    waiting: Option<(Instant, Waker)>,
}

/// The clock of a device.
pub struct Clock {
    begin: Instant,
    state: Mutex<State>,
}

impl Clock {
    pub fn new(skew_ms: i64) -> Clock {
        Clock {
            begin: Instant::now(),
            state: Mutex::new(State {
                passed: Duration::ZERO,
                skew_ms,
                waiting: None,
            }),
        }
    }

    pub fn now(&self) -> Instant {
        self.begin + self.state.lock().unwrap().passed
    }

    pub fn wall_ms(&self) -> i64 {
        (self.wall_ns() / 1_000_000) as i64
    }

    fn wall_ns(&self) -> i128 {
        let state = self.state.lock().unwrap();
        (BEGIN_MS + i128::from(state.skew_ms)) * 1_000_000 + state.passed.as_nanos() as i128
    }

    /// A file's time: each is a little later than the one before.
    pub fn file_ns(&self) -> i128 {
        self.state.lock().unwrap().passed += Duration::from_micros(3);
        self.wall_ns()
    }

    /// How far the wall clock is ahead, in milliseconds.
    pub fn skew(&self) -> i64 {
        self.state.lock().unwrap().skew_ms
    }

    /// Sets the wall clock another way.
    pub fn set_skew(&self, skew_ms: i64) {
        self.state.lock().unwrap().skew_ms = skew_ms;
    }

    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        let due = {
            let mut state = self.state.lock().unwrap();
            state.passed += time;
            let now = self.begin + state.passed;
            state.waiting.take_if(|(at, _)| *at <= now)
        };
        if let Some((_, waker)) = due {
            waker.wake();
        }
    }

    /// How long until the sleeper wants to be woken.
    pub fn until_due(&self) -> Option<Duration> {
        let state = self.state.lock().unwrap();
        let now = self.begin + state.passed;
        state
            .waiting
            .as_ref()
            .map(|(at, _)| at.saturating_duration_since(now))
    }

    pub fn sleep_until(self: &Arc<Self>, at: Instant) -> BoxFuture<'static, ()> {
        let clock = self.clone();
        Box::pin(std::future::poll_fn(move |context: &mut Context<'_>| {
            let mut state = clock.state.lock().unwrap();
            if clock.begin + state.passed >= at {
                return Poll::Ready(());
            }
            state.waiting = Some((at, context.waker().clone()));
            Poll::Pending
        }))
    }
}
